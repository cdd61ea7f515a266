//! `follow`: continues a call that was begun on another connection.

use syscalls::call::Follow;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::CallNo;
use super::{Caller, Next, Outcome};

impl Kernel {
    /// A call that has ended is forgotten with its reply.
    pub(super) fn sys_follow(&mut self, caller: &Caller, args: Follow) -> Outcome {
        let call = CallNo(args.call.0);
        if let Some(ended) = self.fetch_result(caller.pid, call) {
            return ended.result.read::<Result<Reply, Fault>>()?.map(Next::Reply);
        }
        match self.calls.get(call).filter(|pending| pending.pid == caller.pid) {
            Some(pending) if pending.caller.is_none() => Ok(Next::Follow(call, args)),
            Some(_) => {
                let message = format!("call {} is followed on this connection already", call.0);
                Err(Fault::new(Errno::EBUSY, message))
            }
            None => {
                let message = format!(
                    "process {} has no call {} whose reply was not fetched; attach lists those that there are",
                    caller.pid, call.0
                );
                Err(Fault::new(Errno::ENOENT, message))
            }
        }
    }
}
