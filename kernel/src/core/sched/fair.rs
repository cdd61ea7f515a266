//! Weights and virtual time.

/// The weight of nice 0.
const WEIGHT_NORMAL: u64 = 1024;

/// The weight of a nice value: each step is a factor of 1.25, as in Unix schedulers since Linux 2.6.23, so that
/// one step of nice moves about a tenth of a processor between two processes.
pub(in crate::core) fn weight(nice: i8) -> u64 {
    let steps = u32::from(nice.unsigned_abs().min(20));
    if nice < 0 {
        WEIGHT_NORMAL * 5u64.pow(steps) / 4u64.pow(steps)
    } else {
        (WEIGHT_NORMAL * 4u64.pow(steps) / 5u64.pow(steps)).max(1)
    }
}

/// How far a process is on a model. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Fair {
    /// Share of measured time, in microseconds for nice 0.
    pub service: u64,
    /// Decode steps taken part in, in 1,024ths for nice 0.
    pub pace: u64,
}

impl Fair {
    /// The later of two times, each by itself.
    pub(super) fn later(self, other: Fair) -> Fair {
        Fair { service: self.service.max(other.service), pace: self.pace.max(other.pace) }
    }

    /// Counts a share of a step's time.
    pub(super) fn charge(&mut self, us: u64, nice: i8) {
        self.service = self.service.saturating_add(us.saturating_mul(WEIGHT_NORMAL) / weight(nice));
    }

    /// Counts one decode step. Whoever lags by more than a step (its contexts were busy with prompts) is brought
    /// to the pace of its class first.
    pub(super) fn take_step(&mut self, clock: u64, nice: i8) {
        self.pace = self.pace.max(clock.saturating_sub(stride(nice))).saturating_add(stride(nice));
    }
}

/// What a decode step adds to the pace of a process.
pub(super) fn stride(nice: i8) -> u64 {
    WEIGHT_NORMAL * 1024 / weight(nice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_of_five_nice_steps_is_threefold() {
        assert_eq!(weight(0), 1024);
        assert_eq!(weight(-5) / weight(0), 3);
        assert_eq!(weight(0) / weight(5), 3);
        assert!(weight(19) >= 1 && weight(-20) > 80 * 1024);
    }
}
