//! What steps cost here, by measurement: the time of a pure decode step by the number of its rows and by how deep
//! they are, and the time of a prompt token beside it by its depth. Attention looks at all that stands before, so
//! both grow with depth, each along a line that is fitted to what was measured of late ([`Fit`]).
//!
//! Steps take longer than expected more often by chance than by what is in them, and those who decode wait for it. So
//! the lines lean to the side where a mistake costs them nothing: the time of a decode step, by which the latency target
//! goes, is thought rather too short, and that of a prompt token rather too long. A prompt that turns out dearer is
//! cut shorter at once, and is let grow slowly.

use super::fit::{Fit, Lean, Line};

/// Numbers of rows that are told apart: each up to 8, and four ranges from each power of two to the next: 9 and 10, …
/// 15 and 16, 17 to 20, … 225 to 256, and more.
const BUCKETS: usize = SINGLE as usize + 4 * 5 + 1;

/// So many rows at most have a bucket for each number.
const SINGLE: u32 = 8;

/// Between two numbers of rows that were measured, one so many times the other at most, the times of those in between
/// are known as well.
const BETWEEN_MAX: f64 = 4.0;

/// Prompt tokens below which a step says more of its fixed cost than of the tokens.
const PREFILL_TOKENS_TELLING: u32 = 16;

/// The least chunk of prompts in a step without decoding contexts: matrix products of this width are as fast as
/// they get on every machine measured.
const PREFILL_TOKENS_WIDE: u32 = 512;

/// Steps with prompts in them after which a decode step is measured alone again. Machines become slower and faster, by
/// half within seconds where others share them, and what is not measured any more would be held against the prompts.
const DECODE_STALE_STEPS: u32 = 24;

/// So many of those steps make a new measurement count once more.
const DECODE_STALE_WEIGHT: u32 = 24;

/// Prompt tokens beyond which a chunk says no more: or what small chunks cost would not be believed for long after a
/// large one.
const PREFILL_TOKENS_COUNTED_MAX: u32 = 64;

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
            let times = 1 + self.stale_steps / DECODE_STALE_WEIGHT;
            let (depth, us) = (decode.depth as f64, elapsed_us as f64);
            self.decode[bucket(decode.rows)].learn(Lean::Low, times, 1.0, depth, us);
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
            let weight = f64::from(prefill.tokens.min(PREFILL_TOKENS_COUNTED_MAX));
            let (depth, ns) = (prefill.depth as f64 / tokens, us as f64 * 1000.0 / tokens);
            self.prefill.learn(Lean::High, 1, weight, depth, ns);
        }
    }

    /// Whether a pure decode step is to be measured again before prompts go beside one.
    pub(super) fn is_stale(&self) -> bool {
        self.stale_steps >= DECODE_STALE_STEPS
    }

    /// The expected time of a pure decode step; nothing before the first one.
    pub(super) fn decode_us(&self, decode: Decode) -> Option<u64> {
        if let Some(us) = self.between_us(decode, f64::INFINITY) {
            return Some(us);
        }
        let at = bucket(decode.rows);
        let below = self.decode[..at].iter().rev().find_map(Fit::mean);
        below.or_else(|| self.decode[at..].iter().find_map(Fit::mean)).map(|us| us as u64)
    }

    /// The expected time of a pure decode step, if one of so many rows has been seen, or some of little fewer and
    /// little more.
    pub(super) fn decode_measured_us(&self, decode: Decode) -> Option<u64> {
        self.between_us(decode, BETWEEN_MAX)
    }

    /// What was measured for so many rows, or lies between what was measured for fewer and for more, one of which is so
    /// many times the other at most.
    fn between_us(&self, decode: Decode, apart: f64) -> Option<u64> {
        let (at, depth, rows) = (bucket(decode.rows), decode.depth as f64, f64::from(decode.rows));
        let measured = |at: usize| self.decode[at].at(depth).map(|us| (middle(at), us));
        let below = || (0..at).rev().find_map(measured);
        let above = || (at + 1..BUCKETS).find_map(measured);
        let own = measured(at);
        if own.is_some_and(|(middle, _)| middle == rows) {
            return own.map(|(_, us)| us as u64);
        }
        let (from, to) = match own {
            Some(own) => below().map(|below| (below, own)).or_else(|| Some((own, above()?)))?,
            None => (below()?, above()?),
        };
        let slope = ((to.1 - from.1) / (to.0 - from.0)).max(0.0);
        let near = own.is_some() || to.0 <= apart * from.0;
        near.then_some((from.1 + slope * (rows - from.0)).max(0.0) as u64)
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
        let even = match self.decode[bucket(decode.rows)].line() {
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

/// The bucket of a number of rows.
fn bucket(rows: u32) -> usize {
    let above = rows.max(1) - 1;
    if above < SINGLE {
        return above as usize;
    }
    let octave = above.ilog2();
    let quarter = (above >> (octave - 2)) & 3;
    ((SINGLE + 4 * (octave - SINGLE.ilog2()) + quarter) as usize).min(BUCKETS - 1)
}

/// The rows that a bucket stands for.
fn middle(bucket: usize) -> f64 {
    let bucket = bucket as u32;
    if bucket < SINGLE {
        return f64::from(bucket + 1);
    }
    let (octave, quarter) = ((bucket - SINGLE) / 4 + SINGLE.ilog2(), (bucket - SINGLE) % 4);
    let width = 1_u32 << (octave - 2);
    f64::from((4 + quarter) * width) + f64::from(width + 1) / 2.0
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
    fn decode_time_measured_again_follows_a_machine_that_slows_down_and_no_single_step() {
        let mut cost = Cost::default();
        for _ in 0..50 {
            cost.observe(decode(4), Prefill::default(), 50_000);
        }
        let us = |cost: &Cost| cost.decode_us(decode(4)).unwrap();
        let mut again = |us: u64| {
            (0..DECODE_STALE_STEPS).for_each(|_| cost.observe(decode(4), prefill(0, 12), 100_000));
            assert!(cost.is_stale());
            cost.observe(decode(4), Prefill::default(), us);
            assert!(!cost.is_stale());
            cost.clone()
        };
        assert!(us(&again(250_000)) < 53_000, "one step of five times as long");
        (0..20).for_each(|_| {
            again(75_000);
        });
        assert!((66_000..76_000).contains(&us(&again(75_000))), "{} µs", us(&again(75_000)));
        assert!(us(&again(50_000)) < 72_000, "a machine that is faster again is believed sooner");
    }

    #[test]
    fn every_number_of_rows_has_a_bucket_that_stands_for_about_so_many() {
        let buckets: Vec<usize> = (1..=300).map(bucket).collect();
        assert!(buckets.is_sorted() && buckets[0] == 0 && buckets[255] == BUCKETS - 2);
        for rows in 1..=256 {
            let middle = middle(bucket(rows));
            assert!((middle - f64::from(rows)).abs() <= f64::from(rows) / 7.0, "{rows} rows: {middle}");
        }
        assert_eq!(buckets[256], BUCKETS - 1);
    }

    #[test]
    fn rows_more_are_never_free_where_more_rows_take_longer() {
        let us = |rows: u32| 10_000 + u64::from(rows) * 2_000;
        let mut cost = Cost::default();
        cost.observe(decode(3), Prefill::default(), us(3));
        assert_eq!(cost.rows_added_us(decode(3), us(3), 0, 1), None, "one shows what it costs");
        for seen in [6, 12, 20] {
            cost.observe(decode(seen), Prefill::default(), us(seen));
        }
        for (rows, guesses) in [(3, 1), (3, 3), (4, 1), (5, 4), (6, 1), (8, 2), (11, 1), (12, 4)] {
            let before = cost.decode_measured_us(decode(rows)).unwrap();
            let added = cost.rows_added_us(decode(rows), before, 0, guesses).unwrap();
            let expected = u64::from(guesses) * 2_000;
            // A bucket of several numbers stands for the one in their middle.
            assert!(added.abs_diff(expected) <= expected / 6, "{added} µs for {guesses} rows beside {rows}");
        }
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
