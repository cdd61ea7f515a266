//! Programs that the daemon starts as processes.
//!
//! | the process | the program | what happens |
//! |---|---|---|
//! | starts | is being started | the call of `spawn` waits, and nobody attaches it |
//! | goes, on a connection that the program was born with | runs | that connection needs no `hello`, and one is answered |
//! | goes, on none | runs, and has closed its connection | its contexts stay until it ends |
//! | has got TERM or XCPU | has got it too | whichever ends ends the other; both are killed after `term_grace_ms` |
//! | has ended, by KILL, `exit` or its program's end | is asked to end, then killed; at once by KILL | |
//!
//! A program that goes on from files of its own is started again by the next daemon, under the same number.
//!
//! So nobody else can become the process: there is no name or number that a connection could claim.

use std::collections::BTreeMap;

use syscalls::call::{Lifetime, Signal};
use syscalls::limits::{PROGRAMS_MAX, PROGRAMS_PER_USER_MAX};
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Waits};
use super::super::capability::Caps;
use super::super::connection::Connection;
use super::super::effect::{Effect, Program};
use super::super::event::{ConnId, Credentials, Now};
use super::super::sched::Bucket;
use super::super::user::check_part;
use super::{Identity, Limits, Process, Run};

/// The status of a process whose program could not be started, as of shells.
const STATUS_NOT_STARTED: u8 = 126;

/// A program that the host has.
#[derive(Clone, Copy, Debug, Default)]
struct Alive {
    uid: u32,
    /// It was started.
    runs: bool,
    /// What its process has ended with, where that was first.
    status: Option<u8>,
}

/// Programs that the host was told to start, until it has said that they have ended; some outlast their processes.
#[derive(Debug, Default)]
pub(in crate::core) struct Programs(BTreeMap<Pid, Alive>);

impl Programs {
    /// Their processes.
    pub(in crate::core) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.keys().copied()
    }

    /// Whether the host has, or makes, the program of a process.
    pub(in crate::core) fn has(&self, pid: Pid) -> bool {
        self.0.contains_key(&pid)
    }

    /// Whether the host makes the program of a process, and has not said yet that it runs.
    pub(in crate::core) fn is_starting(&self, pid: Pid) -> bool {
        self.0.get(&pid).is_some_and(|alive| !alive.runs)
    }

    /// Whether the program of a process has been started.
    fn runs(&self, pid: Pid) -> bool {
        self.0.get(&pid).is_some_and(|alive| alive.runs)
    }
}

impl Kernel {
    /// Checks that one more program may be started.
    ///
    /// # Errors
    ///
    /// EAGAIN where there are too many.
    pub(in crate::core) fn check_programs(&self) -> Result<(), Fault> {
        let programs = self.programs.0.len();
        if programs >= PROGRAMS_MAX {
            let message = format!("{programs} of {PROGRAMS_MAX} programs run; end some");
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        Ok(())
    }

    /// Checks that one more program may be started for a user who asks for it. Services are the administrator's choice.
    ///
    /// # Errors
    ///
    /// EAGAIN where there are too many, or too many of the user.
    pub(in crate::core) fn check_programs_of(&self, uid: u32, caps: Caps) -> Result<(), Fault> {
        self.check_programs()?;
        let own = self.programs.0.values().filter(|alive| alive.uid == uid).count();
        check_part(uid, caps, own, PROGRAMS_PER_USER_MAX, "programs")
    }

    /// Makes a process that is a program, and has that started.
    pub(in crate::core) fn begin_program(
        &mut self,
        id: Identity,
        caps: Caps,
        limits: Limits,
        program: Program,
    ) {
        let pid = id.pid;
        let mut process = Process::new(id, None, Lifetime::Connection, caps);
        process.program = true;
        process.again = program.again.clone().map(|argv| Box::new(Program { argv, ..program.clone() }));
        process.limits = limits;
        process.bucket = limits.tokens_per_second.map(|rate| Bucket::new(rate, self.now));
        self.processes.enter(process);
        self.programs.0.insert(pid, Alive { uid: program.uid, ..Alive::default() });
        self.outputs.begin(pid, program.uid);
        self.out.push(Effect::StartProgram { pid, program: Box::new(program) });
        self.trace_newcomer(pid, None);
        self.process_started(pid);
        self.note_begin(pid);
        self.inherit(pid);
    }

    /// The program runs, on a connection of its own.
    pub(in crate::core) fn program_started(&mut self, pid: Pid, conn: ConnId, os_pid: u32) {
        if let Some(alive) = self.programs.0.get_mut(&pid) {
            alive.runs = true;
        }
        let Some(process) = self.processes.living_mut(pid) else {
            // It ended meanwhile, and the host was told to end its program.
            return self.out.push(Effect::Hangup { conn });
        };
        process.conn = Some(conn);
        process.id.os_pid = os_pid;
        let stopped = process.run == Run::Stopped;
        let credentials = Credentials {
            uid: process.id.uid,
            os_pid,
            os_parent: None,
            executable: process.id.name.clone(),
            admin: false,
            program: Some(pid),
        };
        let caps = process.caps;
        self.connections_of.add(credentials.uid);
        self.connections.insert(conn, Connection::of_program(credentials, caps, pid));
        if stopped {
            self.pass_on(pid, Signal::Stop);
        }
        for call in self.waiting_for_start(pid) {
            self.finish(call, Ok(Reply::Spawned { pid }));
        }
        self.service_started(pid);
    }

    /// There will be no program.
    pub(in crate::core) fn program_refused(&mut self, pid: Pid, fault: &Fault) {
        let calls = self.waiting_for_start(pid);
        self.program_over(pid, STATUS_NOT_STARTED, Some(fault.message.clone()));
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
        self.program_over(pid, status, None);
    }

    fn program_over(&mut self, pid: Pid, status: u8, why: Option<String>) {
        let before = self.programs.0.remove(&pid).and_then(|alive| alive.status);
        if let Some(process) = self.processes.living_mut(pid) {
            process.program = false;
        }
        self.end_process(pid, status);
        self.output_ended(pid);
        self.service_ended(pid, before.unwrap_or(status), why);
    }

    /// Passes a signal on to the program of a process, if it has one that runs. One that is being started is told later
    /// what still matters.
    pub(super) fn pass_on(&mut self, pid: Pid, signal: Signal) {
        let has = self.processes.living(pid).is_some_and(|process| process.program);
        if has && self.programs.runs(pid) {
            self.out.push(Effect::SignalProgram { pid, signal });
        }
    }

    /// Whether a process has a program that can be asked to end.
    pub(super) fn has_running_program(&self, pid: Pid) -> bool {
        self.processes.living(pid).is_some_and(|process| process.program) && self.programs.runs(pid)
    }

    /// Calls of `spawn` that wait for the start of this process.
    fn waiting_for_start(&self, pid: Pid) -> Vec<CallNo> {
        let parent = self.processes.identity(pid).map(|id| id.parent);
        let Some(parent) = parent.and_then(|parent| self.processes.living(parent)) else { return vec![] };
        let calls = parent.calls.iter().copied();
        calls.filter(|call| self.calls.waits(*call) == Some(&Waits::Start(pid))).collect()
    }

    /// Before a process ends: whoever waits for its start hears so, and its program is ended. It gets what is left of the
    /// time to finish where it has been asked to end already, which is none for one that is killed.
    pub(in crate::core) fn leave_program(&mut self, pid: Pid, status: u8) {
        let Some(process) = self.processes.living(pid).filter(|process| process.program) else { return };
        let left_ms = |at: Now| at.0.saturating_sub(self.now.0) / 1000;
        let grace_ms = process.kill_at.map_or(self.config.term_grace_ms, left_ms);
        if let Some(alive) = self.programs.0.get_mut(&pid) {
            alive.status = Some(status);
        }
        for call in self.waiting_for_start(pid) {
            self.finish(call, Err(Fault::new(Errno::ECANCELED, format!("process {pid} has ended"))));
        }
        self.out.push(Effect::EndProgram { pid, grace_ms });
    }
}
