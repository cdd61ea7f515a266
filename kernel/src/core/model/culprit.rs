//! Whoever kills workers: what it costs his process and his user.
//!
//! A call that has killed two workers, the second one alone, fails. A process with a second such call is ended: its parent
//! sees [`STATUS_DEADLY`], its output and the log say why. A user of whom that happens again and again, with a new process
//! each time, is refused on this model for a while, and the deaths are his: they neither slow the restarts down nor take
//! the model offline. A call that is withdrawn while it is suspected counts for its user as if it had been found, or
//! leaving in time would cost nothing.
//!
//! One death has many suspects, and where a worker is broken, all of them are found one after another. So what is found of
//! one death counts once for each process and each user, and of deaths that several users are found for, only those of the
//! first are his. Nobody is found for the deaths of a worker that has never computed anything: those are its own, and take
//! the model offline. Users with the capability `resource` are not refused, and their deaths are as everybody's.

use std::collections::{BTreeMap, BTreeSet};

use syscalls::call::Capability;
use syscalls::event::Stream;
use syscalls::{Errno, Fault, Pid};

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel, Subject};
use super::super::event::{ModelId, Now};
use super::super::printed::Printed;
use super::super::process::STATUS_DEADLY;
use super::Model;

/// Calls of a process that have killed two workers each; with the last one it is ended.
const DEADLY_CALLS_MAX: u32 = 2;

/// How often a user's calls may be found deadly until they are refused: what it takes to have two processes ended.
const FOUND_MAX: usize = 4;

/// How long that counts, in microseconds: ten minutes.
const FOUND_COUNTS_US: u64 = 600_000_000;

/// Who has killed workers of a model.
#[derive(Debug, Default)]
pub(in crate::core) struct Culprits {
    /// Whether any worker of the model has computed something, so that it is not broken from the beginning.
    pub worked: bool,
    /// Found since a worker last died of nobody who was known.
    processes: BTreeSet<Pid>,
    users: BTreeSet<u32>,
    /// When users that can be refused were found, the last [`FOUND_MAX`] times.
    found: BTreeMap<u32, Vec<Now>>,
}

impl Culprits {
    /// A worker has died of nobody who is known: who is found from now on is found for that.
    pub(super) fn begin(&mut self) {
        self.processes.clear();
        self.users.clear();
    }

    /// Notes that a user was found, once for each death.
    fn note(&mut self, uid: u32, now: Now) {
        if !self.users.insert(uid) {
            return;
        }
        self.found.retain(|_, times| {
            times.retain(|at| until(*at) > now);
            !times.is_empty()
        });
        let times = self.found.entry(uid).or_default();
        times.push(now);
        let surplus = times.len().saturating_sub(FOUND_MAX);
        times.drain(..surplus);
    }

    /// Until when a user is refused.
    fn refused_until(&self, uid: u32, now: Now) -> Option<Now> {
        let times = self.found.get(&uid).filter(|times| times.len() >= FOUND_MAX)?;
        times.first().map(|at| until(*at)).filter(|until| *until > now)
    }
}

fn until(at: Now) -> Now {
    Now(at.0.saturating_add(FOUND_COUNTS_US))
}

/// What follows from a call that has killed two workers.
pub(super) struct Verdict {
    /// What its fault says behind what it says of the call.
    pub sentence: String,
    /// The deaths are its user's, and nothing is wrong with the worker.
    pub charged: bool,
}

impl Kernel {
    /// A call of a process has killed two workers, the second one alone.
    pub(super) fn convict(&mut self, id: ModelId, pid: Option<Pid>) -> Verdict {
        let (mut sentence, mut charged) = (String::new(), false);
        let process = pid.and_then(|pid| self.processes.living_mut(pid));
        let model = self.models.get_mut(&id).filter(|model| model.culprits.worked);
        if let (Some(process), Some(model)) = (process, model) {
            let (pid, uid) = (process.id.pid, process.id.uid);
            let first = model.culprits.processes.insert(pid);
            if !process.caps.has(Capability::Resource) {
                model.culprits.note(uid, self.now);
                charged = model.culprits.users.len() == 1;
            }
            if charged {
                model.uncount_death();
            }
            process.deadly_calls += u32::from(first);
            sentence = match process.deadly_calls {
                DEADLY_CALLS_MAX.. => {
                    self.deadly.insert(pid);
                    format!("; it is the second such call of process {pid}, which is ended")
                }
                _ => format!("; one more such call, and process {pid} is ended"),
            };
            self.touch_process(pid);
        }
        Verdict { sentence, charged }
    }

    /// A call that is suspected is withdrawn, so nobody will know whether it was the culprit.
    pub(in crate::core) fn suspect_left(&mut self, id: ModelId, pid: Pid) {
        let Some(process) = self.processes.living(pid) else { return };
        let (uid, bound) = (process.id.uid, !process.caps.has(Capability::Resource));
        if let Some(model) = self.models.get_mut(&id).filter(|_| bound) {
            model.culprits.note(uid, self.now);
        }
    }

    /// Checks that a process's user may put work to a model.
    ///
    /// # Errors
    ///
    /// EAGAIN where his calls have killed its workers too often.
    pub(in crate::core) fn check_harmless(&self, model: &Model, pid: Pid) -> Result<(), Fault> {
        let Some(process) = self.processes.living(pid) else { return Ok(()) };
        let (uid, free) = (process.id.uid, process.caps.has(Capability::Resource));
        let Some(until) = model.culprits.refused_until(uid, self.now).filter(|_| !free) else {
            return Ok(());
        };
        let (minutes, seconds) =
            (FOUND_COUNTS_US / 60_000_000, until.0.saturating_sub(self.now.0).div_ceil(1_000_000));
        let message = format!(
            "calls of user {uid} have killed the worker of model {} {FOUND_MAX} times within {minutes} minutes, which is the limit; it is refused to this user for {seconds} s, leave out what kills it then",
            model.name
        );
        Err(Fault::new(Errno::EAGAIN, message))
    }

    /// Ends the processes whose calls have killed workers too often.
    pub(in crate::core) fn end_deadly(&mut self) {
        for pid in std::mem::take(&mut self.deadly) {
            let Some(process) = self.processes.living(pid) else { continue };
            let line = format!(
                "process {pid} ({}) of user {} is ended: {} of its calls have each killed the worker of a model twice, which is the limit",
                process.id.name, process.id.uid, process.deadly_calls
            );
            let printed = Printed { stream: Stream::Stderr, text: line.clone(), cut: false };
            self.printed(pid, vec![printed]);
            let subject = Subject { pid: Some(pid), ..Subject::default() };
            self.out.push(Effect::LogAbout(LogLevel::Warn, Box::new(subject), line));
            self.end_process(pid, STATUS_DEADLY);
        }
    }
}
