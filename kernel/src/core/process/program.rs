//! Programs that the daemon starts as processes.
//!
//! | the process | the program | what happens |
//! |---|---|---|
//! | starts | is being started | the call of `spawn` waits |
//! | goes, on a connection that the program was born with | runs | that connection needs no `hello`, and one is answered |
//! | goes, on none | runs, and has closed its connection | its contexts stay until it ends |
//! | has ended, by a signal, `exit` or its program's end | is asked to end, then killed | |
//!
//! So nobody else can become the process: there is no name or number that a connection could claim.

use syscalls::limits::PROGRAMS_MAX;
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::connection::Connection;
use super::super::effect::{Effect, Program};
use super::super::event::{ConnId, Credentials};

/// The status of a process whose program could not be started, as of shells.
const STATUS_NOT_STARTED: u8 = 126;

impl Kernel {
    /// Has the program of a process started.
    ///
    /// # Errors
    ///
    /// EAGAIN where there are too many.
    pub(in crate::core) fn check_programs(&self) -> Result<(), Fault> {
        if self.processes.programs() >= PROGRAMS_MAX {
            let message = format!("{PROGRAMS_MAX} of {PROGRAMS_MAX} programs run; end some");
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        Ok(())
    }

    pub(in crate::core) fn start_program(&mut self, pid: Pid, uid: u32, argv: Vec<String>) {
        self.out.push(Effect::StartProgram { pid, program: Box::new(Program { argv, uid }) });
    }

    /// The program runs, on a connection of its own.
    pub(in crate::core) fn program_started(&mut self, pid: Pid, conn: ConnId, os_pid: u32) {
        let Some(process) = self.processes.living_mut(pid) else {
            // It ended meanwhile, and the host was told to end its program.
            return self.out.push(Effect::Hangup { conn });
        };
        process.conn = Some(conn);
        process.id.os_pid = os_pid;
        let credentials = Credentials {
            uid: process.id.uid,
            os_pid,
            executable: process.id.name.clone(),
            admin: false,
            program: Some(pid),
        };
        let caps = process.caps;
        self.connections_of.add(credentials.uid);
        self.connections.insert(conn, Connection::of_program(credentials, caps, pid));
        for call in self.waiting_for_start(pid) {
            self.finish(call, Ok(Reply::Spawned { pid }));
        }
    }

    /// There will be no program.
    pub(in crate::core) fn program_refused(&mut self, pid: Pid, fault: &Fault) {
        let calls = self.waiting_for_start(pid);
        self.program_ended(pid, STATUS_NOT_STARTED);
        let heard = !calls.is_empty();
        for call in calls {
            self.finish(call, Err(fault.clone()));
        }
        // Whoever heard the fault has no child to wait for.
        if heard && self.processes.zombie(pid).is_some() {
            self.processes.reap(pid);
        }
    }

    /// The program has ended, and with it the process.
    pub(in crate::core) fn program_ended(&mut self, pid: Pid, status: u8) {
        if let Some(process) = self.processes.living_mut(pid) {
            process.program = false;
        }
        self.end_process(pid, status);
    }

    /// Calls of `spawn` that wait for the start of this process.
    fn waiting_for_start(&self, pid: Pid) -> Vec<CallNo> {
        let parent = self.processes.identity(pid).map(|id| id.parent);
        let Some(parent) = parent.and_then(|parent| self.processes.living(parent)) else { return vec![] };
        let calls = parent.calls.iter().copied();
        calls.filter(|call| self.calls.waits(*call) == Some(&Waits::Start(pid))).collect()
    }

    /// Before a process ends: whoever waits for its start hears so, and its program is ended.
    pub(in crate::core) fn leave_program(&mut self, pid: Pid) {
        if !self.processes.living(pid).is_some_and(|process| process.program) {
            return;
        }
        for call in self.waiting_for_start(pid) {
            self.finish(call, Err(Fault::new(Errno::ECANCELED, format!("process {pid} has ended"))));
        }
        self.out.push(Effect::EndProgram { pid, grace_ms: self.config.term_grace_ms });
    }
}
