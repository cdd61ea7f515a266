//! `subscribe`: streams what happens. Everybody may: it tells no more than `ps`, `stat` and `models` do.

use syscalls::call::Subscribe;
use syscalls::limits::{SUBSCRIPTIONS_MAX, SUBSCRIPTIONS_PER_USER_MAX};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::subscription::Kinds;
use super::super::user::check_part;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_subscribe(&self, caller: &Caller, args: &Subscribe) -> Outcome {
        let kinds = Kinds::named(&args.kinds).map_err(|unknown| {
            let message = format!(
                "there are no events of kind {unknown:?}; ask for process, step, page, worker or service"
            );
            Fault::new(Errno::EINVAL, message)
        })?;
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let message = format!("{SUBSCRIPTIONS_MAX} subscriptions run, which is the limit; end one");
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        let own = self.subscriptions.count_of(caller.uid);
        check_part(caller.uid, caller.caps, own, SUBSCRIPTIONS_PER_USER_MAX, "subscriptions")?;
        Ok(Next::Wait(Waits::Events(kinds), args.timeout_ms))
    }
}
