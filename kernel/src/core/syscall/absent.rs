//! Calls of version 1 that this kernel does not have, and what to do instead.

use syscalls::{Call, Errno, Fault};

/// The fault that such a call gets.
pub(super) fn fault(call: &Call) -> Fault {
    let instead = match call {
        Call::Score(_) => "generate with logprobs tells how likely tokens were",
        Call::Compress(_) | Call::Evaluate(_) => "use another tool, and mount what it makes",
        _ => "see the manual of calls",
    };
    Fault::new(Errno::ENOSYS, format!("this kernel does not have {}; {instead}", call.name()))
}
