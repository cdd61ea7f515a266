//! Which rows decode together in a step, by what the step is expected to take with them.
//!
//! | limit   | who is within it                                                                                      |
//! |---------|-------------------------------------------------------------------------------------------------------|
//! | head    | all of the highest class and tier, whatever they take                                                 |
//! | quarter | lower ones, while the step takes no longer than the head alone and one part in [`SLOWDOWN`]            |
//! | cheap   | lower ones beyond that, within the latency target of the head, while each takes little for a row alone |
//!
//! Where a prompt of a higher class than all that decode is first, there is no head, and its chunk is what the quarter
//! is of. What a head takes alone is measured before others have rows beside it.

use syscalls::call::Class;

use super::super::KernelConfig;
use super::cost::{Cost, Decode};
use super::plan::Candidate;

/// Lower classes and tiers have rows while the step is not expected to become longer than with the higher ones alone
/// by more than one part in so many, ...
pub(super) const SLOWDOWN: u64 = 4;

/// ... and beside that, within the latency target, while each of them costs no more than one part in so many of what
/// a row of the higher ones costs alone: rows that share a pass over the weights are cheap on most devices, and to
/// leave them out would be waste.
const CHEAP: u64 = 2;

/// The limits of one step.
#[derive(Debug)]
pub(super) struct DecodeLimits {
    /// The class and tier that have rows whatever they take.
    head: Option<(Class, u8)>,
    /// Their rows, and what these take alone, if that is known.
    alone: Decode,
    alone_us: Option<u64>,
    quarter_us: u64,
    target_us: u64,
    /// The highest class with a prompt to compute: beside that nothing lower is cheap.
    prompts: Option<Class>,
}

impl DecodeLimits {
    /// The limits for rows in their order; `above_us` is what the chunk takes of a prompt whose class is above them all.
    pub(super) fn new(
        cost: &Cost,
        config: &KernelConfig,
        decoding: &[&Candidate],
        above_us: Option<u64>,
        prompts: Option<Class>,
    ) -> Self {
        let head = decoding.first().filter(|_| above_us.is_none()).map(|first| first.standing());
        let mut alone = Decode::default();
        let in_head = decoding.iter().take_while(|c| head == Some(c.standing()));
        in_head.for_each(|c| alone.add(c.position));
        // What is not known is measured now: the others sit this step out.
        let known_us = if alone.rows > 0 { cost.decode_measured_us(alone) } else { Some(0) };
        let us = known_us.unwrap_or(0);
        DecodeLimits {
            head,
            alone,
            alone_us: known_us.filter(|_| alone.rows > 0),
            quarter_us: known_us.map_or(0, |us| us + (above_us.unwrap_or(0) + us) / SLOWDOWN),
            target_us: target_us(config, us),
            prompts,
        }
    }

    /// What the head takes alone, if there is one and that is known.
    pub(super) fn head_us(&self) -> Option<u64> {
        self.alone_us
    }

    /// Whether a row is within the limits, with which the step decodes `more`.
    pub(super) fn fits(&self, cost: &Cost, row: &Candidate, more: Decode) -> bool {
        let beside = |us: u64| us <= self.quarter_us || self.is_cheap(row, more, us);
        self.head == Some(row.standing())
            || self.quarter_us > 0 && cost.decode_measured_us(more).is_none_or(beside)
    }

    /// Whether rows beside the head, with which the step takes so long, are within its latency target and worth it.
    fn is_cheap(&self, row: &Candidate, more: Decode, us: u64) -> bool {
        let free = self.prompts.is_none_or(|class| class >= row.owner.class);
        let patient = self.head.is_some_and(|(class, _)| class != Class::Realtime);
        let alone_us = self.alone_us.unwrap_or(0);
        let riders = u64::from(more.rows.saturating_sub(self.alone.rows));
        let row_us = alone_us / u64::from(self.alone.rows.max(1));
        free && patient && us <= self.target_us && us.saturating_sub(alone_us) <= riders * row_us / CHEAP
    }
}

/// How long a step may become that takes so long without what comes beside.
pub(super) fn target_us(config: &KernelConfig, us: u64) -> u64 {
    us.saturating_mul(u64::from(config.latency_target_percent.max(100))) / 100
}
