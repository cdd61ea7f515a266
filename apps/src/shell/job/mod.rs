//! Jobs: the pipelines that the shell has started, until their end was told or waited for.
//!
//! A job is running, stopped (Ctrl-Z, or reading the terminal from the background) or done. On a terminal each
//! job is a process group of its own; [`terminal`] hands the terminal to the one in the foreground. The exit
//! status of a job is that of its last command.

pub mod terminal;

use std::ffi::{OsStr, OsString};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid as OsPid;

use super::builtin::failure::Failure;

/// Jobs that have ended and whose exit status is kept until somebody asks for it.
const ENDED_MAX: usize = 1024;

/// A pipeline that was started.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number, as in `%1`.
    pub id: u32,
    /// As it was typed.
    pub text: String,
    /// Its process group, where it has one of its own.
    pub group: Option<OsPid>,
    /// Its commands, in their order.
    pub members: Vec<Member>,
    /// `!` before it.
    pub negated: bool,
    /// The process that `$!` names, where it was put into the background.
    pub named: Option<OsPid>,
}

/// One command of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    Running(OsPid),
    Stopped(OsPid),
    /// Ended with this exit status.
    Done(u8),
    /// Ended by this signal, which counts as the exit status 128 + n.
    Killed(Signal),
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Stopped,
    Done(u8),
}

impl Job {
    /// What the job as a whole is doing.
    pub fn state(&self) -> State {
        if self.members.iter().any(|m| matches!(m, Member::Running(_))) {
            return State::Running;
        }
        if self.members.iter().any(|m| matches!(m, Member::Stopped(_))) {
            return State::Stopped;
        }
        let status = match self.members.last() {
            Some(Member::Done(status)) => *status,
            Some(Member::Killed(signal)) => 128 + *signal as u8,
            _ => 0,
        };
        State::Done(if self.negated { u8::from(status == 0) } else { status })
    }

    /// Nothing of it is left but its exit status.
    pub fn has_ended(&self) -> bool {
        matches!(self.state(), State::Done(_))
    }

    /// The signal that ended its last command, if one did.
    pub fn killed_by(&self) -> Option<Signal> {
        match self.members.last() {
            Some(Member::Killed(signal)) => Some(*signal),
            _ => None,
        }
    }

    /// Waits until the job has ended or, where the shell controls jobs, is stopped.
    pub fn wait(&mut self, control: bool) -> State {
        let flags = if control { WaitPidFlag::WUNTRACED } else { WaitPidFlag::empty() };
        while self.state() == State::Running {
            for member in &mut self.members {
                if let Member::Running(pid) = *member {
                    *member = look(pid, flags).unwrap_or(*member);
                }
            }
        }
        self.state()
    }

    /// Takes note of what has happened, without waiting. Gives the new state if it is another one.
    pub fn look(&mut self) -> Option<State> {
        let before = self.state();
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED;
        for member in &mut self.members {
            if let Member::Running(pid) | Member::Stopped(pid) = *member {
                *member = look(pid, flags).unwrap_or(*member);
            }
        }
        let now = self.state();
        (now != before).then_some(now)
    }

    /// Sends a signal to everything in the job.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        if let Some(group) = self.group {
            return killpg(group, signal);
        }
        for member in &self.members {
            if let Member::Running(pid) | Member::Stopped(pid) = member {
                kill(*pid, signal)?;
            }
        }
        Ok(())
    }

    /// Lets a stopped job go on.
    pub fn go_on(&mut self) -> nix::Result<()> {
        self.signal(Signal::SIGCONT)?;
        for member in &mut self.members {
            if let Member::Stopped(pid) = *member {
                *member = Member::Running(pid);
            }
        }
        Ok(())
    }
}

/// What became of a process, if anything did.
fn look(pid: OsPid, flags: WaitPidFlag) -> Option<Member> {
    match waitpid(pid, Some(flags)) {
        Ok(WaitStatus::Exited(_, code)) => Some(Member::Done(code as u8)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(Member::Killed(signal)),
        Ok(WaitStatus::Stopped(..)) => Some(Member::Stopped(pid)),
        Ok(WaitStatus::Continued(_)) => Some(Member::Running(pid)),
        Ok(_) | Err(Errno::EINTR) => None,
        // Somebody else has reaped it; nothing more can be learnt of it.
        Err(_) => Some(Member::Done(127)),
    }
}

/// All jobs that are not in the foreground, in the order of their start.
#[derive(Debug, Default)]
pub struct Jobs(Vec<Job>);

impl Jobs {
    /// Keeps a job and gives its number, the lowest that is free above all others.
    pub fn add(&mut self, mut job: Job) -> u32 {
        if job.id == 0 {
            job.id = self.0.iter().map(|j| j.id).max().unwrap_or(0) + 1;
        }
        let id = job.id;
        self.0.push(job);
        id
    }

    /// Takes a job out.
    pub fn take(&mut self, id: u32) -> Option<Job> {
        let at = self.0.iter().position(|j| j.id == id)?;
        Some(self.0.remove(at))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Job> {
        self.0.iter()
    }

    /// One of them.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Job> {
        self.0.iter_mut().find(|j| j.id == id)
    }

    /// Takes note of what has happened to all. Gives those whose state is another one. Those that have ended are
    /// kept for `wait`, but for the oldest ones of very many.
    pub fn look(&mut self) -> Vec<(Job, State)> {
        let changed =
            self.0.iter_mut().filter_map(|job| job.look().map(|state| (job.clone(), state))).collect();
        let ended = self.0.iter().filter(|j| j.has_ended()).count();
        let mut surplus = ended.saturating_sub(ENDED_MAX);
        self.0.retain(|job| {
            let forget = surplus > 0 && job.has_ended();
            surplus -= usize::from(forget);
            !forget
        });
        changed
    }

    /// Forgets those that have ended, once they were told or waited for.
    pub fn forget_ended(&mut self) {
        self.0.retain(|j| !j.has_ended());
    }

    /// The number of the job that is named: `%1`, `1`, `%%`, or the one that was last put away without a name.
    ///
    /// # Errors
    ///
    /// There is no such job.
    pub fn find(&self, name: Option<&OsStr>) -> Result<u32, Failure> {
        let Some(name) = name.and_then(OsStr::to_str).filter(|n| !matches!(*n, "%%" | "%+")) else {
            return self.current().ok_or_else(|| Failure::Message("there are no jobs".into()));
        };
        let number = name.strip_prefix('%').unwrap_or(name).parse().ok();
        match number.filter(|n| self.0.iter().any(|j| j.id == *n)) {
            Some(id) => Ok(id),
            None => Err(Failure::Message(format!("there is no job {name}; `jobs` lists them"))),
        }
    }

    /// Whether arguments of `kill` or `wait` are about jobs: `%1`, or the process that `$!` has named. Other numbers are
    /// processes of the daemon.
    pub fn are_meant(&self, arguments: &[OsString]) -> bool {
        let is_job = |a: &OsString| a.as_encoded_bytes().starts_with(b"%") || self.of_process(a).is_some();
        arguments.iter().any(is_job)
    }

    /// The number of the job that is meant so.
    ///
    /// # Errors
    ///
    /// There is no such job.
    pub fn meant(&self, name: &OsStr) -> Result<u32, Failure> {
        self.of_process(name).map_or_else(|| self.find(Some(name)), Ok)
    }

    /// The number of the last job whose process `$!` has named.
    fn of_process(&self, name: &OsStr) -> Option<u32> {
        let pid = name.to_str()?.parse().ok().map(OsPid::from_raw)?;
        self.0.iter().rev().find(|j| j.named == Some(pid)).map(|j| j.id)
    }

    /// The stopped job that was put away last, else the last one.
    fn current(&self) -> Option<u32> {
        let stopped = self.0.iter().rev().find(|j| j.state() == State::Stopped);
        stopped.or(self.0.last()).map(|j| j.id)
    }
}

/// A job as `jobs` shows it.
pub fn line(job: &Job, state: State) -> String {
    let state = match state {
        State::Running => "running".to_owned(),
        State::Stopped => "stopped".to_owned(),
        State::Done(0) => "done".to_owned(),
        State::Done(status) => format!("exit {status}"),
    };
    format!("[{}]  {state:<10}{}", job.id, job.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(members: &[Member]) -> Job {
        Job {
            id: 0,
            text: String::new(),
            group: None,
            members: members.to_vec(),
            negated: false,
            named: None,
        }
    }

    #[test]
    fn state_is_that_of_the_last_command_once_all_have_ended() {
        let pid = OsPid::from_raw(1);
        assert_eq!(job(&[Member::Done(0), Member::Running(pid)]).state(), State::Running);
        assert_eq!(job(&[Member::Running(pid), Member::Done(0)]).state(), State::Running);
        assert_eq!(job(&[Member::Stopped(pid), Member::Done(0)]).state(), State::Stopped);
        assert_eq!(job(&[Member::Done(1), Member::Done(3)]).state(), State::Done(3));
        assert_eq!(job(&[Member::Done(0), Member::Killed(Signal::SIGINT)]).state(), State::Done(130));
        let negated = Job { negated: true, ..job(&[Member::Done(3)]) };
        assert_eq!(negated.state(), State::Done(0));
    }

    #[test]
    fn job_without_a_name_is_the_stopped_one_first() {
        let pid = OsPid::from_raw(1);
        let mut jobs = Jobs::default();
        assert!(jobs.find(None).is_err());
        jobs.add(job(&[Member::Stopped(pid)]));
        jobs.add(job(&[Member::Running(pid)]));
        assert_eq!(jobs.find(None).ok(), Some(1));
        assert_eq!(jobs.find(Some(OsStr::new("%2"))).ok(), Some(2));
        assert!(jobs.find(Some(OsStr::new("%3"))).is_err());
        jobs.take(1);
        assert_eq!(jobs.find(Some(OsStr::new("%%"))).ok(), Some(2));
        let id = jobs.add(Job { named: Some(OsPid::from_raw(4711)), ..job(&[Member::Done(0)]) });
        assert_eq!(jobs.meant(OsStr::new("4711")).ok(), Some(id), "also when it has ended");
        let are_meant = |argument: &str| jobs.are_meant(&["-KILL".into(), argument.into()]);
        assert_eq!(["4711", "%2", "2"].map(are_meant), [true, true, false], "2 is a process of the daemon");
    }
}
