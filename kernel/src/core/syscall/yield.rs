//! `yield`: ends the quantum of a program that computes by itself.

use super::super::Kernel;
use super::{Caller, DONE, Outcome};

impl Kernel {
    pub(super) fn sys_yield(&mut self, caller: &Caller) -> Outcome {
        self.end_quantum(caller.pid);
        DONE
    }
}
