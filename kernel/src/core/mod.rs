//! The kernel as a pure state machine.

pub mod config;
pub mod effect;
pub mod event;

pub use config::{HostInfo, KernelConfig};
pub use effect::Effect;
pub use event::{Event, Now};

/// The whole state of the kernel.
pub struct Kernel {
    config: KernelConfig,
    seed: u64,
}

impl Kernel {
    /// A kernel without processes and models. `seed` is where the seeds of generations without one come from.
    pub fn new(config: KernelConfig, seed: u64) -> Self {
        Kernel { config, seed }
    }

    /// Takes one event in, and appends what is to be done about it.
    pub fn step(&mut self, _now: Now, _event: Event, _effects: &mut Vec<Effect>) {
        let _ = (&self.config, self.seed);
    }
}
