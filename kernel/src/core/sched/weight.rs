//! Weights of nice values.

/// The weight of nice 0.
pub(super) const WEIGHT_NORMAL: u64 = 1024;

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
