//! Follows the steps of a daemon's workers from a connection of its own.

use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;

use syscalls::call::Subscribe;
use syscalls::client::blocking::{Client, Interrupter};
use syscalls::event::StepRow;
use syscalls::{Errno, Event, Pid};

use crate::{DEADLINE, Daemon};

/// A subscription to steps that is read all the time, so that no step is missed.
pub struct Steps {
    arriving: Receiver<Vec<StepRow>>,
    interrupter: Interrupter,
    reader: JoinHandle<()>,
    seen: Vec<StepRow>,
}

impl Steps {
    /// Follows all steps from now on.
    pub fn watch(daemon: &Daemon) -> Steps {
        let mut client = daemon.client();
        let interrupter = client.interrupter();
        let call =
            client.start(Subscribe { kinds: vec!["step".into()], timeout_ms: None }).expect("subscribes");
        // Calls of a connection are carried out in order, so an answer to a later one tells that this one is.
        client.ps().expect("lists");
        let (sender, arriving) = mpsc::channel();
        let reader = std::thread::spawn(move || follow(&mut client, call, &sender));
        Steps { arriving, interrupter, reader, seen: Vec::new() }
    }

    /// Waits until a process has had a part in a step.
    ///
    /// # Panics
    ///
    /// None came within [`DEADLINE`].
    pub fn wait_for(&mut self, pid: Pid) {
        while !self.seen.iter().any(|row| row.pid == pid) {
            let rows = self.arriving.recv_timeout(DEADLINE).expect("the process runs in time");
            self.seen.extend(rows);
        }
    }

    /// Follows no more, and gives all parts that processes had in steps.
    pub fn finish(mut self) -> Vec<StepRow> {
        self.interrupter.interrupt().expect("the daemon lives");
        self.reader.join().expect("the reader does not panic");
        self.seen.extend(self.arriving.try_iter().flatten());
        self.seen
    }
}

fn follow(client: &mut Client, call: syscalls::CallId, sender: &mpsc::Sender<Vec<StepRow>>) {
    let end = client.finish(call, |event| match event {
        // A test that has failed already takes no more.
        Event::Step { rows, .. } => drop(sender.send(rows)),
        Event::Lost { events } => panic!("{events} steps were missed"),
        _ => {}
    });
    assert!(matches!(&end, Err(fault) if matches!(fault.errno, Errno::EINTR | Errno::ECONNRESET)), "{end:?}");
}

/// Tokens of prompts that went into steps for a process, those that were taken back included.
pub fn prompt_tokens(rows: &[StepRow], pid: Pid) -> u64 {
    rows.iter().filter(|row| row.pid == pid && row.prefill).map(|row| u64::from(row.tokens)).sum()
}
