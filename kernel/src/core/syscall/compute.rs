//! `compute`: waits for the turn of a program that computes by itself.

use syscalls::call::Compute;
use syscalls::limits::QUANTUM_US_MAX;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::device::MAIN_MEMORY;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_compute(&mut self, caller: &Caller, args: &Compute) -> Outcome {
        let us = args.us;
        if us == 0 || us > QUANTUM_US_MAX {
            let message = format!(
                "a quantum of {us} µs is not from 1 to {QUANTUM_US_MAX} µs; ask again when it is over"
            );
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let name = args.device.as_deref().unwrap_or(MAIN_MEMORY);
        let device = self.devices.find(name).ok_or_else(|| self.no_such_device(name))?;
        if self.turns.waits(caller.pid) {
            let message = format!("process {} waits for its turn already; it has one at a time", caller.pid);
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        self.end_quantum(caller.pid);
        let used_up = self.processes.living(caller.pid).filter(|process| process.is_refused_service());
        if let Some(process) = used_up {
            return Err(process.service_used_up());
        }
        Ok(Next::Turn { device, us })
    }
}
