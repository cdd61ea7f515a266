//! Weights of nice values and of groups.

use super::super::group::GROUP_WEIGHT;

/// The weight of nice 0.
pub(super) const WEIGHT_NORMAL: u64 = 1024;

/// The weight of a nice value: each step is a factor of 1.25, as in Unix schedulers since Linux 2.6.23, so that
/// one step of nice moves about a tenth of a processor between two processes.
pub(in crate::core) fn weight(nice: i8) -> u64 {
    WEIGHTS[place(nice)].0
}

/// The weight of a group among processes and other groups.
pub(super) fn group_weight(weight: u32) -> u64 {
    u64::from(weight) * WEIGHT_NORMAL / u64::from(GROUP_WEIGHT)
}

/// What a decode step adds to the pace of a process.
pub(super) fn stride(nice: i8) -> u64 {
    WEIGHTS[place(nice)].1
}

/// Weight and stride of each nice value from −20 to 20: every row of every step asks for them.
static WEIGHTS: [(u64, u64); 41] = {
    let mut weights = [(0, 0); 41];
    let mut at = 0;
    while at < weights.len() {
        let weight = compute(at as i8 - 20);
        weights[at] = (weight, WEIGHT_NORMAL * 1024 / weight);
        at += 1;
    }
    weights
};

fn place(nice: i8) -> usize {
    (nice.clamp(-20, 20) + 20) as usize
}

const fn compute(nice: i8) -> u64 {
    let steps = nice.unsigned_abs() as u32;
    if nice < 0 {
        WEIGHT_NORMAL * 5u64.pow(steps) / 4u64.pow(steps)
    } else {
        let weight = WEIGHT_NORMAL * 4u64.pow(steps) / 5u64.pow(steps);
        if weight > 0 { weight } else { 1 }
    }
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
