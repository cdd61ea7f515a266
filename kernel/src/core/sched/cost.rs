//! What steps cost here, by measurement: the time of a pure decode step by the number of its rows and by how deep
//! they are, and the time of a prompt token beside it by its depth. Attention looks at all that stands before, so
//! both grow with depth, each along a line that is fitted to what was measured of late.

/// Buckets of rows: 1, 2, up to 4, up to 8, … up to 256, and more.
const BUCKETS: usize = 10;

/// Prompt tokens below which a step says more of its fixed cost than of the tokens.
const PREFILL_TOKENS_TELLING: u32 = 16;

/// The least chunk of prompts in a step without decoding contexts: matrix products of this width are as fast as
/// they get on every machine measured.
const PREFILL_TOKENS_WIDE: u32 = 512;

/// Steps with prompts in them after which a decode step is measured alone again. Machines become slower and faster, by
/// half within seconds where others share them, and what is not measured any more would be held against the prompts.
const DECODE_STALE_STEPS: u32 = 24;

/// So many of those steps make a new measurement count once more.
const DECODE_STALE_WEIGHT: u32 = 8;

/// How much of what was measured before still counts after a further measurement.
const MEMORY: f64 = 7.0 / 8.0;

/// Measurements at places nearer to each other than so many tokens say little about a slope.
const SPREAD_TELLING: f64 = 64.0;

/// Rows that decode, or would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Decode {
    pub rows: u32,
    /// Positions of these rows together.
    pub depth: u64,
}

impl Decode {
    /// One row more.
    pub(super) fn add(&mut self, position: u32) {
        self.rows += 1;
        self.depth += u64::from(position);
    }

    /// The same and one row more.
    pub(super) fn with(mut self, position: u32) -> Decode {
        self.add(position);
        self
    }
}

/// Prompt tokens in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::core) struct Prefill {
    pub tokens: u32,
    /// Positions of these tokens together.
    pub depth: u64,
}

impl Prefill {
    /// A chunk more.
    pub(super) fn add(&mut self, position: u32, tokens: u32) {
        self.tokens += tokens;
        self.depth += depth(position, tokens);
    }
}

/// Positions of the tokens of a chunk together.
fn depth(position: u32, tokens: u32) -> u64 {
    let (position, tokens) = (u64::from(position), u64::from(tokens));
    tokens * position + tokens * tokens / 2
}

/// What has been measured.
#[derive(Clone, Debug, Default)]
pub(in crate::core) struct Cost {
    /// Microseconds of a step, by depth.
    decode: [Fit; BUCKETS],
    /// Nanoseconds of a token, by its position.
    prefill: Fit,
    /// Steps with rows that decode beside prompts since the last one without prompts.
    stale_steps: u32,
}

impl Cost {
    /// Learns from a step.
    pub(super) fn observe(&mut self, decode: Decode, prefill: Prefill, elapsed_us: u64) {
        if prefill.tokens == 0 {
            for _ in 0..=self.stale_steps / DECODE_STALE_WEIGHT {
                self.decode[bucket(decode.rows)].learn(1.0, decode.depth as f64, elapsed_us as f64);
            }
            self.stale_steps = 0;
            return;
        }
        if decode.rows > 0 {
            self.stale_steps = (self.stale_steps + 1).min(DECODE_STALE_STEPS);
        }
        let beside = if decode.rows == 0 { Some(0) } else { self.decode_us(decode) };
        let Some(us) = beside.map(|us| elapsed_us.saturating_sub(us)) else { return };
        let tokens = f64::from(prefill.tokens);
        // Beside decoding rows a few tokens tell something where they took much of the step, or were expected to.
        let expected_us = self.prefill.at(prefill.depth as f64 / tokens).unwrap_or(0.0) * tokens / 1000.0;
        let much = us.max(expected_us as u64) > elapsed_us / 4;
        if prefill.tokens >= PREFILL_TOKENS_TELLING || decode.rows > 0 && much {
            self.prefill.learn(tokens, prefill.depth as f64 / tokens, us as f64 * 1000.0 / tokens);
        }
    }

    /// Whether a pure decode step is to be measured again before prompts go beside one.
    pub(super) fn is_stale(&self) -> bool {
        self.stale_steps >= DECODE_STALE_STEPS
    }

    /// The expected time of a pure decode step; nothing before the first one.
    pub(super) fn decode_us(&self, decode: Decode) -> Option<u64> {
        let at = bucket(decode.rows);
        if let Some(us) = self.decode[at].at(decode.depth as f64) {
            return Some(us as u64);
        }
        let below = self.decode[..at].iter().rev().find_map(Fit::mean);
        below.or_else(|| self.decode[at..].iter().find_map(Fit::mean)).map(|us| us as u64)
    }

    /// The expected time of a pure decode step, if one of about so many rows has been seen.
    pub(super) fn decode_measured_us(&self, decode: Decode) -> Option<u64> {
        self.decode[bucket(decode.rows)].at(decode.depth as f64).map(|us| us as u64)
    }

    /// What rows at a position are expected to add to a pure decode step that takes so long. Where a step of so many
    /// rows has not been seen, each adds as much as in the next smaller one that has; nothing if there is none.
    pub(super) fn rows_added_us(&self, decode: Decode, us: u64, position: u32, rows: u32) -> Option<u64> {
        (1..=rows).rev().find_map(|seen| {
            let mut with = decode;
            (0..seen).for_each(|_| with.add(position));
            let added = self.decode_measured_us(with)?.saturating_sub(us);
            Some(added * u64::from(rows) / u64::from(seen))
        })
    }

    /// The expected time of a chunk, in nanoseconds; nothing before the first one.
    fn prefill_ns(&self, position: u32, tokens: u32) -> Option<u64> {
        let middle = f64::from(position) + f64::from(tokens) / 2.0;
        self.prefill.at(middle).map(|ns| (ns.max(1.0) * f64::from(tokens)) as u64)
    }

    /// The expected time of prompt tokens somewhere, in microseconds; nothing before the first measurement.
    pub(in crate::core) fn prefill_us(&self, tokens: u32) -> Option<u64> {
        self.prefill.mean().map(|ns| (ns * f64::from(tokens)) as u64 / 1000)
    }

    /// The expected time of a chunk, in microseconds.
    pub(super) fn chunk_us(&self, position: u32, tokens: u32) -> Option<u64> {
        self.prefill_ns(position, tokens).map(|ns| ns / 1000)
    }

    /// The largest chunk from a position on, of at most `most` tokens, that is expected to take no longer than
    /// this; at least one token, so that every prompt gets on. Nothing while nothing is known.
    pub(super) fn chunk(&self, position: u32, most: u32, us: u64) -> Option<u32> {
        self.prefill.mean()?;
        let fits = |tokens: u32| self.chunk_us(position, tokens).is_some_and(|t| t <= us);
        let (mut low, mut high) = (1, most.max(1));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        Some(low)
    }

    /// The largest chunk of a step in which nobody decodes who must not be kept waiting, and that has so many tokens
    /// of other prompts already.
    pub(super) fn chunk_alone(&self, position: u32, most: u32, us: u64, others: u32) -> u32 {
        let wide = PREFILL_TOKENS_WIDE.saturating_sub(others);
        let in_time = if us == 0 { Some(0) } else { self.chunk(position, most, us) };
        in_time.map_or(most, |n| n.max(wide).min(most))
    }

    /// What the decoding rows of a step weigh, by position, when its time is shared out: an equal part of what all
    /// cost wherever they are, and their own part of what depends on depth.
    pub(super) fn decode_weights(&self, decode: Decode) -> impl Fn(u32) -> u64 {
        let rows = f64::from(decode.rows.max(1));
        let even = match self.decode[bucket(decode.rows)].line {
            Some(Line { base, slope, .. }) => Ok((base / rows, slope)),
            None => Err(self.decode_us(decode).map(|us| us as f64 * 1000.0 / rows)),
        };
        move |position| match even {
            Ok((base, slope)) => (((base + slope * f64::from(position)) * 1000.0) as u64).max(1),
            Err(Some(ns)) => (ns as u64).max(1),
            Err(None) => self.prefill_weight(position, 1),
        }
    }

    /// What a chunk weighs when the time of its step is shared out.
    pub(super) fn prefill_weight(&self, position: u32, tokens: u32) -> u64 {
        self.prefill_ns(position, tokens).unwrap_or(u64::from(tokens) * 1000).max(1)
    }
}

fn bucket(rows: u32) -> usize {
    (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

/// A line through measured points, of which later ones count more. Floating point adds, multiplies and divides the
/// same everywhere, so the plans that follow are the same as well.
#[derive(Clone, Debug, Default)]
struct Fit {
    /// Sums over the points of their weight, and of what the name says, by weight.
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    /// What comes of these.
    line: Option<Line>,
}

/// A fitted line: its height at 0 and its slope, neither of which is negative, and what was measured on average.
#[derive(Clone, Copy, Debug)]
struct Line {
    base: f64,
    slope: f64,
    mean: f64,
}

impl Fit {
    fn learn(&mut self, weight: f64, x: f64, y: f64) {
        let add = |sum: &mut f64, value: f64| *sum = *sum * MEMORY + weight * value;
        add(&mut self.n, 1.0);
        add(&mut self.x, x);
        add(&mut self.y, y);
        add(&mut self.xx, x * x);
        add(&mut self.xy, x * y);
        self.line = Some(self.fit());
    }

    /// What was measured on average.
    fn mean(&self) -> Option<f64> {
        self.line.map(|line| line.mean)
    }

    fn fit(&self) -> Line {
        let (mean, place) = (self.y / self.n, self.x / self.n);
        let spread = (self.xx / self.n - place * place).max(0.0);
        let damped = spread + SPREAD_TELLING * SPREAD_TELLING;
        let slope = ((self.xy / self.n - place * mean) / damped).max(0.0);
        let base = mean - slope * place;
        if base < 0.0 { Line { base: 0.0, slope: mean / place, mean } } else { Line { base, slope, mean } }
    }

    /// The height of the line at a place. Far from all that was measured it is not trusted further than fourfold.
    fn at(&self, x: f64) -> Option<f64> {
        let Line { base, slope, mean } = self.line?;
        Some((base + slope * x).clamp(mean / 4.0, mean * 4.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decode(rows: u32) -> Decode {
        Decode { rows, depth: 0 }
    }

    fn prefill(position: u32, tokens: u32) -> Prefill {
        let mut prefill = Prefill::default();
        prefill.add(position, tokens);
        prefill
    }

    #[test]
    fn chunk_takes_the_time_that_it_has() {
        let mut cost = Cost::default();
        assert_eq!(cost.chunk(0, 2048, 100_000), None, "nothing is known yet");
        assert_eq!(cost.chunk_alone(0, 2048, 1_000_000, 0), 2048);
        cost.observe(decode(0), prefill(0, 512), 512_000);
        assert_eq!(cost.chunk(0, 2048, 100_000), Some(100));
        assert_eq!(cost.chunk(0, 2048, 0), Some(1), "every prompt gets on");
        assert_eq!(cost.chunk_alone(0, 2048, 1_000_000, 0), 1000);
        assert_eq!(cost.chunk_alone(0, 2048, 10_000, 0), 512);
    }

    #[test]
    fn chunk_shrinks_with_depth() {
        let mut cost = Cost::default();
        for at in 0..20 {
            // A token takes 1 ms, and 1 µs more for each token before it.
            let (position, tokens) = (at * 100, 100);
            let us = u64::from(tokens) * (1000 + u64::from(position) + 50);
            cost.observe(decode(0), prefill(position, tokens), us);
        }
        let (shallow, deep) =
            (cost.chunk(0, 2048, 100_000).unwrap(), cost.chunk(4000, 2048, 100_000).unwrap());
        assert!((90..=100).contains(&shallow), "{shallow} tokens of about 1.05 ms");
        assert!((18..=21).contains(&deep), "{deep} tokens of about 5 ms");
    }

    #[test]
    fn decode_time_grows_with_depth() {
        let mut cost = Cost::default();
        for depth in 0..50 {
            cost.observe(Decode { rows: 4, depth: depth * 400 }, Prefill::default(), 10_000 + depth * 400);
        }
        let at = |depth| cost.decode_us(Decode { rows: 4, depth }).unwrap();
        assert!((29_000..31_000).contains(&at(20_000)), "{}", at(20_000));
        assert!(at(40_000) > 45_000);
        let row = cost.decode_weights(Decode { rows: 4, depth: 20_000 });
        assert!(row(18_000) > 4 * row(500), "who is deep pays for it");
    }

    #[test]
    fn prompt_tokens_thought_dear_by_mistake_are_soon_known_to_be_cheap() {
        let mut cost = Cost::default();
        for _ in 0..10 {
            cost.observe(decode(4), Prefill::default(), 50_000);
            // The machine was busy with something else.
            cost.observe(decode(4), prefill(0, 4), 900_000);
        }
        let chunk = |cost: &Cost| cost.chunk(0, 2048, 50_000).unwrap();
        assert_eq!(chunk(&cost), 1, "a token seems to take 200 ms");
        for _ in 0..40 {
            let tokens = chunk(&cost);
            cost.observe(decode(4), prefill(0, tokens), 50_000 + u64::from(tokens) * 4_000);
        }
        assert!(chunk(&cost) >= 10, "{} tokens of 4 ms in 50 ms", chunk(&cost));
    }

    #[test]
    fn decode_time_measured_again_follows_a_machine_that_slows_down() {
        let mut cost = Cost::default();
        for _ in 0..50 {
            cost.observe(decode(4), Prefill::default(), 50_000);
        }
        cost.observe(decode(4), prefill(0, 12), 100_000);
        assert!(!cost.is_stale());
        for _ in 0..DECODE_STALE_STEPS {
            cost.observe(decode(4), prefill(0, 12), 150_000);
        }
        assert!(cost.is_stale());
        cost.observe(decode(4), Prefill::default(), 75_000);
        assert!(!cost.is_stale());
        let us = cost.decode_us(decode(4)).unwrap();
        assert!((58_000..70_000).contains(&us), "{us} µs after 50 ms and then 75 ms");
    }

    #[test]
    fn decode_time_unknown_is_taken_from_the_nearest_known() {
        let mut cost = Cost::default();
        cost.observe(decode(8), Prefill::default(), 800);
        assert_eq!(cost.decode_us(decode(5)), Some(800));
        assert_eq!(cost.decode_us(decode(200)), Some(800));
        assert_eq!(cost.decode_us(decode(1)), Some(800));
    }
}
