//! What the candidates of a step become: who decodes, and how much of whose prompt is computed beside that.

use syscalls::ContextId;
use syscalls::call::Class;

use super::super::KernelConfig;
use super::super::event::Now;
use super::cost::{Decode, Prefill};
use super::limits::{DecodeLimits, SLOWDOWN, target_us};
use super::plan::Candidate;
use super::weight::stride;
use super::{CLASSES, OWED_SHARE, RowSent, Sched};

/// What chunks may take beside the fastest rows, in microseconds: nobody notices a gap of this length.
pub(super) const BESIDE_US_MIN: u64 = 2_000;

/// A step may take longer than the latency target by one part in so many where it fills a tile with that: always to
/// leave the rest of a tile out would cost prompts a fifth of their speed beside few rows.
const TILE_SLACK: u64 = 16;

/// Makes the rows of a step out of candidates in their order.
pub(super) struct Chooser<'a> {
    sched: &'a mut Sched,
    config: &'a KernelConfig,
    /// Those that lack one token, and those that have more of a prompt to compute.
    decoding: Vec<&'a Candidate>,
    prompts: Vec<&'a Candidate>,
    /// Tokens that the step can still take.
    room: u32,
    /// Rows that the device computes at a time.
    row_tile: u32,
    decode: Decode,
    /// Expected time of the highest class and tier that decodes, alone, if it is known.
    head: Option<u64>,
    prefill: Prefill,
    /// Expected time of all chunks, and of those of the highest class among them.
    prefill_us: u64,
    head_us: u64,
    /// The highest class that decodes, and that has a chunk.
    decodes: Option<Class>,
    prefills: Option<Class>,
    /// From when on the rows of the highest class that decodes are protected by the latency target.
    protected_from: Now,
    /// Prompts that have a chunk because their class is owed time.
    owed: [Option<ContextId>; 4],
    rows: Vec<RowSent>,
}

impl<'a> Chooser<'a> {
    /// Begins a step with room for so many tokens, on a device that computes so many rows at a time.
    pub(super) fn new(
        sched: &'a mut Sched,
        config: &'a KernelConfig,
        candidates: impl Iterator<Item = &'a Candidate>,
        (room, row_tile): (u32, u32),
    ) -> Self {
        let rows = std::mem::take(&mut sched.rows);
        let (decoding, prompts) = candidates.partition(|c| c.decodes());
        Chooser {
            sched,
            config,
            decoding,
            prompts,
            room,
            row_tile: row_tile.max(1),
            decode: Decode::default(),
            head: None,
            prefill: Prefill::default(),
            prefill_us: 0,
            head_us: 0,
            decodes: None,
            prefills: None,
            protected_from: Now(u64::MAX),
            owed: [None; 4],
            rows,
        }
    }

    /// The rows, and how long they are expected to take.
    pub(super) fn choose(mut self) -> (Vec<RowSent>, u64) {
        self.decode();
        self.owed_prefill();
        self.prefill();
        let decode_us = if self.decode.rows > 0 { self.sched.cost.decode_us(self.decode) } else { None };
        (self.rows, decode_us.unwrap_or(0) + self.prefill_us)
    }

    /// A row for each context that lacks one token: all of the highest class and tier, others while they hardly
    /// slow these down or cost next to nothing, and as many of a class that is owed time as make up for that.
    fn decode(&mut self) {
        let decoding = self.on_time();
        let Some(first) = decoding.first() else { return };
        let above_us = self.prompt_us_above(first.owner.class);
        let prompts = self.prompts.iter().map(|c| c.owner.class).min();
        let limits = DecodeLimits::new(&self.sched.cost, self.config, &decoding, above_us, prompts);
        self.head = limits.head_us();
        let mut paid_us = [0; 4];
        for c in decoding.iter().copied() {
            if self.room == 0 {
                break;
            }
            let more = self.decode.with(c.position);
            let (owed_us, paid_us) =
                (self.sched.owed_us[c.owner.class as usize], &mut paid_us[c.owner.class as usize]);
            if owed_us > *paid_us || limits.fits(&self.sched.cost, c, more) {
                if owed_us > 0 {
                    let us = self.sched.cost.decode_us(more).unwrap_or(0) / u64::from(more.rows);
                    *paid_us += i64::try_from(us).unwrap_or(i64::MAX).max(1);
                }
                self.take_decode(c);
            }
        }
        self.take_steps(&decoding);
    }

    fn take_decode(&mut self, c: &Candidate) {
        self.room -= 1;
        self.decode.add(c.position);
        if *self.decodes.get_or_insert(c.owner.class) == c.owner.class {
            self.protected_from = self.protected_from.min(c.since);
        }
        self.rows.push(c.row(1));
    }

    /// The expected time of the first prompt, where it is of a higher class than all that decode.
    fn prompt_us_above(&self, decodes: Class) -> Option<u64> {
        let prompt = self.prompts.iter().find(|c| c.owner.class < decodes)?;
        let us = self.sched.cost.chunk_us(prompt.position, prompt.remaining.min(self.room))?;
        Some(us.min(self.config.step_us_max))
    }

    /// Those that decode and whose process is not ahead in pace. The pace of a class moves on by a step of its
    /// heaviest process, and at least so far that somebody is on time.
    fn on_time(&mut self) -> Vec<&'a Candidate> {
        let mut decoding = std::mem::take(&mut self.decoding);
        if !self.config.policy.is_fair() {
            return decoding;
        }
        // They come by class.
        for members in decoding.chunk_by(|a, b| a.owner.class == b.owner.class) {
            let first = (u64::MAX, u64::MAX);
            let (step, least) = members
                .iter()
                .fold(first, |(step, least), c| (step.min(stride(c.owner.nice)), least.min(c.pace)));
            let pace = self.sched.accounts.pace_mut(members[0].owner.class);
            *pace = least.max(*pace + step);
        }
        decoding.retain(|c| c.pace <= *self.sched.accounts.pace_mut(c.owner.class));
        decoding
    }

    /// Counts the decode step for every process that has part in it. The rows of one stand together.
    fn take_steps(&mut self, decoding: &[&Candidate]) {
        let mut last = None;
        for c in decoding {
            let pace = *self.sched.accounts.pace_mut(c.owner.class);
            if last != Some(c.owner.pid) && c.pace <= pace {
                last = Some(c.owner.pid);
                self.sched
                    .accounts
                    .at_mut(c.owner.account)
                    .of_mut(c.owner.class)
                    .take_step(pace, c.owner.nice);
            }
        }
    }

    /// Lets a class that is owed time and has no row yet have a chunk of its first prompt before the others, of no more
    /// time than the others can spare in one step.
    fn owed_prefill(&mut self) {
        let spare_us = match self.decodes {
            Some(_) => match self.beside_us() {
                Some(us) => us,
                None => return,
            },
            None => self.config.step_us_max / OWED_SHARE.unsigned_abs(),
        };
        for class in CLASSES {
            let Ok(owed_us) = u64::try_from(self.sched.owed_us[class as usize]) else { continue };
            let Some(c) = self.prompts.iter().copied().find(|c| c.owner.class == class) else { continue };
            if owed_us == 0 || self.room == 0 || self.rows.iter().any(|r| r.class == class) {
                continue;
            }
            let most = c.most().min(self.room);
            let least = self.config.prefill_tokens_min.min(most);
            let tokens = self.sched.cost.chunk(c.position, most, owed_us.min(spare_us)).unwrap_or(least);
            self.owed[class as usize] = Some(c.context);
            self.take_chunk(c, tokens);
        }
    }

    /// Fills what the step can take beside that with chunks of prompts.
    fn prefill(&mut self) {
        for c in std::mem::take(&mut self.prompts) {
            if self.owed[c.owner.class as usize] == Some(c.context) {
                continue;
            }
            if self.room == 0 {
                return;
            }
            let tokens = self.chunk(c);
            if tokens == 0 {
                return;
            }
            let us = self.take_chunk(c, tokens);
            if *self.prefills.get_or_insert(c.owner.class) == c.owner.class {
                self.head_us += us;
            }
        }
    }

    /// Adds a chunk, and tells how long it is expected to take.
    fn take_chunk(&mut self, c: &Candidate, tokens: u32) -> u64 {
        let us = self.sched.cost.chunk_us(c.position, tokens).unwrap_or(0);
        self.room -= tokens;
        self.prefill.add(c.position, tokens);
        self.prefill_us += us;
        self.rows.push(c.row(tokens));
        us
    }

    /// How much of a prompt the step can take; 0 ends the step.
    fn chunk(&self, c: &Candidate) -> u32 {
        let most = c.most().min(self.room);
        if self.protects_against(c) {
            self.chunk_beside_decoding(c, most)
        } else if self.prefills.is_some_and(|class| class < c.owner.class) {
            let slower_us = self.head_us + self.head_us / SLOWDOWN;
            self.chunk_within(c, most, slower_us.saturating_sub(self.prefill_us))
        } else {
            let left_us = self.config.step_us_max.saturating_sub(self.prefill_us);
            self.sched.cost.chunk_alone(c.position, most, left_us, self.prefill.tokens)
        }
    }

    /// Whether somebody decodes whose next token is not to wait for this prompt: of a higher class, or of its own and
    /// in the middle of a text when the prompt came.
    fn protects_against(&self, c: &Candidate) -> bool {
        self.decodes.is_some_and(|class| {
            class < c.owner.class || class == c.owner.class && self.protected_from < c.since
        })
    }

    /// Beside rows that decode in its own class or a higher one: only so much that their next tokens are not
    /// expected later than the latency target.
    fn chunk_beside_decoding(&self, c: &Candidate, most: u32) -> u32 {
        // How long a step takes without prompts is measured by one without.
        let Some(beside_us) = self.beside_us().filter(|_| !self.sched.cost.is_stale()) else { return 0 };
        let left_us = beside_us.saturating_sub(self.prefill_us);
        let Some(tokens) = self.sched.cost.chunk(c.position, most, left_us) else {
            return self.config.prefill_tokens_min.saturating_sub(self.prefill.tokens).min(most);
        };
        let tokens = match self.prefill.tokens {
            0 => tokens,
            _ => self.chunk_within(c, most, left_us),
        };
        if tokens == 0 {
            return 0;
        }
        let step_us = self.sched.cost.decode_us(self.decode).unwrap_or(0) + beside_us;
        self.whole_tiles(c, tokens, most, left_us + step_us / TILE_SLACK)
    }

    /// How long chunks may take beside the rows that decode, if it is known how long these take: what the latency
    /// target of the highest of them leaves beside the others.
    fn beside_us(&self) -> Option<u64> {
        let us = self.sched.cost.decode_us(self.decode)?;
        let head_us = self.head.unwrap_or(us).min(us);
        Some(target_us(self.config, head_us).saturating_sub(us).max(BESIDE_US_MIN))
    }

    /// Fits a chunk to the tiles in which the device computes all rows of the step together, since the rest of a tile
    /// takes as long as a whole one: up to the next one, if it is expected to take no longer than this or is the only
    /// one, or down.
    fn whole_tiles(&self, c: &Candidate, tokens: u32, most: u32, us: u64) -> u32 {
        let over = (self.decode.rows + self.prefill.tokens + tokens) % self.row_tile;
        if over == 0 || tokens == most {
            return tokens;
        }
        let up = (tokens + self.row_tile - over).min(most);
        let in_time = self.sched.cost.chunk_us(c.position, up).is_some_and(|up_us| up_us <= us);
        if in_time || tokens <= over { up } else { tokens - over }
    }

    /// A chunk for what time is left, if that is enough for a token.
    fn chunk_within(&self, c: &Candidate, most: u32, us: u64) -> u32 {
        let cost = &self.sched.cost;
        match cost.chunk_us(c.position, 1) {
            Some(token_us) if token_us.max(1) <= us => cost.chunk(c.position, most, us).unwrap_or(0),
            _ => 0,
        }
    }
}
