//! `output`: reads what a program has printed, or follows it.

use syscalls::call::{Capability, Output};
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::Waits;
use super::{Caller, Next, Outcome};

impl Kernel {
    /// A process that has ended is asked for as one that lives: who may read it goes by its user.
    pub(super) fn sys_output(&self, caller: &Caller, args: &Output) -> Outcome {
        let pid = args.pid;
        let Some(uid) = self.outputs.owner(pid) else {
            let message = match self.processes.identity(pid) {
                Some(_) => format!(
                    "process {pid} is no program that the daemon has started; its output is where it was started"
                ),
                None => {
                    format!("there is no process {pid}, and of one that has ended nothing is kept any more")
                }
            };
            return Err(Fault::new(Errno::ESRCH, message));
        };
        if uid != caller.uid {
            let what = format!("process {pid} belongs to user {uid}; reading its output");
            caller.caps.need(Capability::Kill, &what)?;
        } else if !self.processes.descends(pid, caller.pid) {
            let what = format!("reading the output of process {pid}, no descendant,");
            caller.caps.need(Capability::Signal, &what)?;
        }
        if args.follow && self.outputs.is_open(pid) {
            return Ok(Next::Wait(Waits::Output(pid, args.lines), None));
        }
        let reply = self.outputs.last(pid, args.lines);
        Ok(Next::Reply(Reply::Output(reply.expect("it has an owner"))))
    }
}
