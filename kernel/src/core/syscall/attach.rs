//! `attach`: takes a detached process over.

use syscalls::call::Attach;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_attach(&mut self, caller: &Caller, args: &Attach) -> Outcome {
        let pid = args.pid;
        let process = self.subject(caller, pid)?;
        if self.processes.descends(caller.pid, pid) {
            let message = format!("process {} is in process {pid} and cannot be its parent too", caller.pid);
            return Err(Fault::new(Errno::EINVAL, message));
        }
        if self.programs.is_starting(pid) {
            let message = format!("the program of process {pid} is being started; attach it when it runs");
            return Err(Fault::new(Errno::EBUSY, message));
        }
        match process.conn {
            Some(conn) if conn == caller.conn => {
                let message = format!("process {pid} is on this connection already; act for it");
                return Err(Fault::new(Errno::EINVAL, message));
            }
            Some(_) if !args.force => {
                let message = format!("process {pid} has a connection; take it from there with force");
                return Err(Fault::new(Errno::EBUSY, message));
            }
            Some(_) => {
                let new = self.flock(pid).into_iter().filter(|pid| self.processes.is_bound(*pid)).count();
                self.processes.check_lasting(self.process(pid)?.id.uid, new)?;
                self.detach(pid);
            }
            None => {}
        }
        self.attach(pid, caller.pid, caller.conn);
        // What its user may do is known from the socket alone, and not from what outlived the daemon.
        self.shrink_caps(pid, caller.uid);
        Ok(Next::Reply(Reply::Attached(self.attached(pid)?)))
    }
}
