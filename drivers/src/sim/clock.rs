//! What the sim driver does to the process that hosts it: it takes time, hangs, or dies.

use std::time::Duration;

/// Time and death, as a worker process or a unit test understands them.
pub trait Clock: Send + Sync {
    /// Lets simulated time pass.
    fn sleep(&self, time: Duration);

    /// Never comes back.
    fn hang(&self) -> !;

    /// Ends the process as a failed assertion in C++ would.
    fn abort(&self, why: &str) -> !;
}

/// The clock of a worker process: it really sleeps, hangs and aborts.
pub struct RealClock;

impl Clock for RealClock {
    fn sleep(&self, time: Duration) {
        if !time.is_zero() {
            std::thread::sleep(time);
        }
    }

    fn hang(&self) -> ! {
        loop {
            std::thread::park();
        }
    }

    fn abort(&self, why: &str) -> ! {
        tracing::error!("sim: aborting: {why}");
        std::process::abort()
    }
}

/// The clock inside a test: no time passes, and death is a panic that the test can expect.
pub struct UnitClock;

impl Clock for UnitClock {
    fn sleep(&self, _: Duration) {}

    fn hang(&self) -> ! {
        panic!("sim: hung")
    }

    fn abort(&self, why: &str) -> ! {
        panic!("sim: aborted: {why}")
    }
}
