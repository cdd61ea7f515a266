//! What must hold in the end: every call is answered, and every token follows from those before it.

use kernel::core::Event as Input;
use syscalls::call::*;
use syscalls::reply::{Finish, Frame};
use syscalls::{Errno, Event, Reply, Tokens};

use super::reference::Reference;
use super::{History, Seen};
use crate::machine::{ADMIN, generate};

/// More than any history has to do until it is over.
const TURNS_MAX: usize = 100_000;

impl History {
    /// Contexts that were opened are there, and connections that the kernel hung up are gone.
    pub(super) fn collect(&mut self) {
        for program in &mut self.programs {
            for id in std::mem::take(&mut program.opening) {
                match self.machine.reply(program.conn, id) {
                    Some(Ok(Reply::Opened { context, .. })) => {
                        program.contexts.push(context);
                        if self.stopping.contains(&(program.conn, id)) {
                            self.steady.insert(context);
                        }
                    }
                    Some(other) => assert!(other.is_err()),
                    None => program.opening.push(id),
                }
            }
        }
        self.collect_values();
        for conn in std::mem::take(&mut self.machine.hangups) {
            self.machine.event(Input::Disconnected { conn });
            self.programs.retain(|p| p.conn != conn);
        }
    }

    /// Lets everything that was begun come to its end.
    pub(super) fn settle(&mut self) {
        for at in 0..self.programs.len() {
            let conn = self.programs[at].conn;
            self.machine.event(Input::OutputLow { conn });
            let pid = self.programs[at].pid;
            self.begin(at, Kill { pid, signal: Signal::Cont });
        }
        self.run_in_time();
        self.collect();
        self.check_slots();
        for at in 0..self.programs.len() {
            let asleep = self.asleep(at);
            let program = &self.programs[at];
            assert!(program.opening.is_empty(), "an open is never answered");
            for (id, context) in &program.calls {
                let reply = self.machine.reply(program.conn, *id);
                if reply.is_none() && asleep.contains(context) {
                    continue;
                }
                let reply = reply.unwrap_or_else(|| {
                    let state = self.machine.kernel.states().find(|(pid, _)| *pid == program.pid);
                    panic!("generation {id} on {context} is never answered: {state:?}; {}", self.last_done())
                });
                // Whoever lacks memory waits; the worker has as many cells as the kernel counts.
                let short = |fault: &syscalls::Fault| matches!(fault.errno, Errno::ENOMEM | Errno::ENOSPC);
                let fault = reply.err().filter(short);
                assert_eq!(fault, None, "generation {id} on {context}");
            }
        }
    }

    /// Checks that slots which no page has are cleared.
    pub(super) fn check_slots(&mut self) {
        let conn = self.machine.connect(ADMIN);
        assert_eq!(self.machine.slots_left(conn), 0, "pages lie about that nobody has");
        self.machine.event(Input::Disconnected { conn });
    }

    /// Runs until nothing is left to do, with time passing where somebody waits for it.
    pub(super) fn run_in_time(&mut self) {
        loop {
            let ends = (0..TURNS_MAX).any(|_| !self.machine.turn());
            assert!(ends, "work never ends; {}", self.last_done());
            match self.machine.wake {
                Some(wake) => {
                    self.machine.now = self.machine.now.max(wake.0);
                    self.machine.event(Input::Tick);
                }
                None => return,
            }
        }
    }

    /// What the last steps were, and what was logged last.
    fn last_done(&self) -> String {
        let steps = self.machine.steps.iter().rev().take(6);
        let last = steps.map(|step| {
            let rows = step.rows.iter().map(|row| (row.asid.0, row.position, row.tokens.len()));
            format!("{:?} after {:?}", rows.collect::<Vec<_>>(), step.ops)
        });
        let logs = self.machine.logs.iter().rev().take(3).collect::<Vec<_>>();
        format!("the last steps:\n{}\n{logs:?}", last.collect::<Vec<_>>().join("\n"))
    }

    /// Checks every generation's tokens one by one against what the log before them must lead to.
    pub(super) fn check_texts(&mut self, reference: &mut Reference) {
        for at in 0..self.programs.len() {
            let conn = self.programs[at].conn;
            for context in self.programs[at].contexts.clone() {
                let id = self.begin(at, ReadTokens { context, from: Tokens(0), to: None });
                let Some(Ok(Reply::Tokens(log))) = self.machine.reply(conn, id) else { continue };
                // What is no byte that was appended was generated; both end at different places, so a suffix
                // generated now must follow from all that the context has been through.
                let id = self.begin(at, generate(context, 3));
                self.run_in_time();
                let Some(Ok(Reply::Generated(reply))) = self.machine.reply(conn, id) else { continue };
                let moved = |e: &Event| matches!(e, Event::Slid { .. } | Event::Compacted { .. });
                if self.machine.events(conn, id).iter().any(moved) {
                    continue;
                }
                let mut log = log;
                for token in &reply.tokens {
                    assert_eq!(*token, reference.next(&log), "context {context}");
                    log.push(*token);
                    self.seen.tokens_checked += 1;
                }
            }
        }
        self.check_replies(reference);
    }

    /// Checks the replies of generations whose context was not cut since: the reply's tokens end at its length.
    fn check_replies(&mut self, reference: &mut Reference) {
        for (conn, id, context) in std::mem::take(&mut self.generated) {
            let Some(Ok(Reply::Generated(reply))) = self.machine.reply(conn, id) else { continue };
            let owner = self.programs.iter().find(|p| p.conn == conn && p.contexts.contains(&context));
            let Some(pid) = owner.map(|p| p.pid) else { continue };
            if reply.finish == Finish::ContextFull || !self.steady.contains(&context) {
                continue;
            }
            let read = ReadTokens { context, from: Tokens(0), to: Some(reply.length) };
            let call = self.machine.begin_as(conn, Some(pid), read);
            let Some(Ok(Reply::Tokens(log))) = self.machine.reply(conn, call) else { continue };
            if !log.ends_with(&reply.tokens) {
                continue;
            }
            for end in log.len() - reply.tokens.len()..log.len() {
                assert_eq!(log[end], reference.next(&log[..end]), "context {context}, token {end}");
                self.seen.tokens_checked += 1;
            }
        }
    }

    /// Counts what a daemon has seen before it is gone.
    pub(super) fn look_back(&mut self) {
        let logs = &self.machine.logs;
        let said = |words: &str| logs.iter().filter(|line| line.contains(words)).count();
        let frames = self.machine.frames.values().flatten();
        let compacted =
            frames.filter(|frame| matches!(frame, Frame::Event(_, Event::Compacted { .. }))).count();
        let (unloaded, shrunk, short) =
            (said("is unloaded"), said("another model needs room"), said("less than it said"));
        let (evacuated, grown) = (said("contexts rest"), said("there is room for them"));
        let forced_out = said("has had its turn");
        let seen = &mut self.seen;
        seen.models_unloaded += unloaded;
        seen.models_evacuated += evacuated;
        seen.models_forced_out += forced_out;
        seen.pools_shrunk += shrunk;
        seen.pools_grown += grown;
        seen.workers_short += short;
        seen.compacted += compacted;
        let conn = self.machine.connect(ADMIN);
        self.seen.steps_withdrawn += self.machine.stat(conn).steps_withdrawn as usize;
    }
}

impl Seen {
    /// With their names.
    pub(super) fn figures(&self) -> [(&'static str, usize); 11] {
        [
            ("tokens checked", self.tokens_checked),
            ("values checked", self.values_checked),
            ("models unloaded", self.models_unloaded),
            ("models evacuated", self.models_evacuated),
            ("models forced out", self.models_forced_out),
            ("pools made smaller", self.pools_shrunk),
            ("pools made larger", self.pools_grown),
            ("workers with less memory than they said", self.workers_short),
            ("contexts compacted", self.compacted),
            ("restarts", self.restarts),
            ("steps withdrawn", self.steps_withdrawn),
        ]
    }
}
