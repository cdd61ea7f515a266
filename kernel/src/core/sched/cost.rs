//! What steps cost here, by measurement: the time of a pure decode step by the number of its rows, and of a prompt
//! token beside it. Both are moving averages; the depth of contexts is not a variable, so the estimates follow the
//! load of now rather than predict another one.

/// Buckets of rows: 1, 2, up to 4, up to 8, … up to 256, and more.
const BUCKETS: usize = 10;

/// Prompt tokens below which a step says more of its fixed cost than of the tokens.
const PREFILL_TOKENS_TELLING: u64 = 16;

/// The least chunk of prompts in a step without decoding contexts: matrix products of this width are as fast as
/// they get on every machine measured.
const PREFILL_TOKENS_WIDE: u64 = 512;

/// What has been measured.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Cost {
    decode_us: [Option<u64>; BUCKETS],
    prefill_ns: Option<u64>,
}

impl Cost {
    /// Learns from a step.
    pub(super) fn observe(&mut self, decode_rows: u32, prefill_tokens: u32, elapsed_us: u64) {
        let tokens = u64::from(prefill_tokens);
        if tokens == 0 {
            average(&mut self.decode_us[bucket(decode_rows)], elapsed_us);
            return;
        }
        let decode = if decode_rows == 0 { Some(0) } else { self.decode_us(decode_rows) };
        if let Some(decode) = decode.filter(|d| *d < elapsed_us && tokens >= PREFILL_TOKENS_TELLING) {
            average(&mut self.prefill_ns, (elapsed_us - decode).saturating_mul(1000) / tokens);
        }
    }

    /// The expected time of a pure decode step; nothing before the first one.
    pub(super) fn decode_us(&self, rows: u32) -> Option<u64> {
        let at = bucket(rows);
        let below = self.decode_us[..=at].iter().rev().flatten().next();
        below.or_else(|| self.decode_us[at..].iter().flatten().next()).copied()
    }

    /// The expected time of computing prompt tokens; nothing before the first measurement.
    pub(in crate::core) fn prefill_us(&self, tokens: u32) -> Option<u64> {
        self.prefill_ns.map(|ns| ns.saturating_mul(tokens.into()) / 1000)
    }

    /// Prompt tokens for a step in which so many contexts decode, at least `least` and at most `most`.
    pub(super) fn prefill_budget(&self, decode_rows: u32, least: u32, most: u32, step_us_max: u64) -> u32 {
        let (least, most) = (u64::from(least), u64::from(most));
        let fits = |us: u64| self.prefill_ns.map(|ns| us.saturating_mul(1000) / ns.max(1));
        let budget = if decode_rows == 0 {
            fits(step_us_max).map_or(most, |n| n.max(PREFILL_TOKENS_WIDE))
        } else {
            self.decode_us(decode_rows).and_then(fits).unwrap_or(least).max(least)
        };
        budget.min(most) as u32
    }

    /// What a row weighs when the time of its step is shared out.
    pub(super) fn weight(&self, decode_rows: u32, prefill_tokens: Option<u32>) -> u64 {
        let prefill_ns = self.prefill_ns.unwrap_or(1000);
        match prefill_tokens {
            Some(tokens) => u64::from(tokens) * prefill_ns.max(1),
            None => {
                let row_us = self.decode_us(decode_rows).map(|us| us / u64::from(decode_rows.max(1)));
                row_us.map_or(prefill_ns, |us| us.saturating_mul(1000)).max(1)
            }
        }
    }
}

fn bucket(rows: u32) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

/// Moves an average an eighth of the way to a new value.
fn average(slot: &mut Option<u64>, value: u64) {
    *slot = Some(slot.map_or(value, |old| (old * 7).saturating_add(value) / 8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefill_beside_decode_is_cut_to_the_time_of_a_decode_step() {
        let mut cost = Cost::default();
        assert_eq!(cost.prefill_budget(1, 32, 2048, 1_000_000), 32, "nothing is known yet");
        assert_eq!(cost.prefill_budget(0, 32, 2048, 1_000_000), 2048);
        cost.observe(0, 512, 512_000);
        cost.observe(1, 0, 100_000);
        assert_eq!(cost.prefill_budget(1, 32, 2048, 1_000_000), 100);
        assert_eq!(cost.prefill_budget(1, 200, 2048, 1_000_000), 200);
        assert_eq!(cost.prefill_budget(0, 32, 2048, 1_000_000), 1000);
        assert_eq!(cost.prefill_budget(0, 32, 2048, 10_000), 512);
    }

    #[test]
    fn decode_time_unknown_is_taken_from_the_nearest_known() {
        let mut cost = Cost::default();
        cost.observe(8, 0, 800);
        assert_eq!(cost.decode_us(5), Some(800));
        assert_eq!(cost.decode_us(200), Some(800));
        assert_eq!(cost.decode_us(1), Some(800));
    }
}
