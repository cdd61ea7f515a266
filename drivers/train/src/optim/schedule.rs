//! How the rate of learning goes over a run.

use serde::{Deserialize, Serialize};

/// The way down from the peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    #[default]
    Constant,
    /// A straight line.
    Linear,
    /// Half a cosine.
    Cosine,
}

/// A rate for each step: up in a straight line, then down to a floor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The greatest rate.
    pub peak: f64,
    /// The rate at the end, and after it.
    pub floor: f64,
    /// Steps on the way up.
    pub warmup: u64,
    /// The step at which the floor is reached.
    pub steps: u64,
    /// The way down.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of a step; the first is number 0. As in nanoGPT, the first rate is not 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let way = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let part = ((step - self.warmup) as f64 / way).min(1.0);
        let left = match self.decay {
            Decay::Constant => return self.peak,
            Decay::Linear => 1.0 - part,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * part).cos()),
        };
        self.floor + left * (self.peak - self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_goes_up_to_the_peak_and_down_to_the_floor() {
        let schedule = Schedule { peak: 1.0, floor: 0.1, warmup: 9, steps: 109, decay: Decay::Cosine };
        assert!((schedule.rate(0) - 0.1).abs() < 1e-12);
        assert!((schedule.rate(9) - 1.0).abs() < 1e-12);
        assert!((schedule.rate(59) - 0.55).abs() < 1e-12);
        assert!((schedule.rate(109) - 0.1).abs() < 1e-12 && (schedule.rate(1000) - 0.1).abs() < 1e-12);
        let linear = Schedule { decay: Decay::Linear, ..schedule };
        assert!((linear.rate(34) - 0.775).abs() < 1e-12);
        assert_eq!(Schedule { decay: Decay::Constant, ..schedule }.rate(500), 1.0);
    }
}
