//! Prompt-lookup drafting: text that repeats what stands before it, as summaries, edits and quotations do, is guessed
//! from the log, and several guesses are checked in one row.
//!
//! Each generation has an index of where its last three, two and one tokens were last followed by something. The
//! index has a fixed size and a fixed cost for each token. Whether drafting pays is learned without drafting: the
//! first guess is made for every token and compared with what comes, and a draft goes out only if the tokens that
//! it is expected to gain outweigh the time that its rows are expected to add to the step for everybody.
//!
//! The worker chooses each token as if it had been alone, so drafts change when tokens come and never which.

use syscalls::Token;

use super::super::Kernel;
use super::super::context::Context;
use super::super::event::ModelId;
use super::cost::Decode;
use super::{Plan, RowSent};

/// The longest draft: beyond this even text that repeats itself has parted from its model most of the time.
const DRAFT_TOKENS_MAX: usize = 8;

/// Rows of a step with drafts; more of them fill the device without guesses.
const DRAFT_ROWS_MAX: usize = 16;

/// Entries of an index. More would hold longer prompts; 8,192 take 32 KiB for each generation that runs.
const ENTRIES: usize = 8192;

/// Tokens of the log that are indexed for each token that comes, until the index has caught up with the prompt.
const INDEXED_AT_ONCE: usize = 256;

/// The longest run of tokens that is looked up.
const RUN_MAX: usize = 3;

/// Shares are in 1,024ths.
const WHOLE: u64 = 1024;

/// The index of one generation, and how often its guesses are right.
#[derive(Debug)]
pub(in crate::core) struct Drafter {
    /// The position behind the last run of tokens with this hash; 0 for none.
    behind: Box<[u32]>,
    /// Runs that end before this position are indexed.
    indexed: usize,
    guess: Option<Token>,
    /// How often the first guess is right, in 1,024ths; tokens without a guess do not count.
    right: u64,
}

impl Drafter {
    /// An index of nothing.
    pub(in crate::core) fn new() -> Self {
        Drafter { behind: vec![0; ENTRIES].into(), indexed: 0, guess: None, right: 0 }
    }

    /// Takes in that the log has grown by a token.
    pub(in crate::core) fn learn(&mut self, log: &[Token]) {
        if let (Some(guess), Some(came)) = (self.guess, log.last()) {
            let hit = if guess == *came { WHOLE } else { 0 };
            self.right = (self.right * 7 + hit) / 8;
        }
        let end = log.len().min(self.indexed + INDEXED_AT_ONCE);
        // A run is indexed when it is known what follows it.
        for at in self.indexed.max(1)..end {
            for length in 1..=RUN_MAX.min(at) {
                self.behind[slot(&log[at - length..at])] = at as u32;
            }
        }
        self.indexed = end;
        self.guess = self.look_up(log).and_then(|at| log.get(at).copied());
    }

    /// Where the log went on the last time that it ended as now, by the longest run that is known.
    fn look_up(&self, log: &[Token]) -> Option<usize> {
        (1..=RUN_MAX.min(log.len())).rev().find_map(|length| {
            let run = &log[log.len() - length..];
            let at = self.behind[slot(run)] as usize;
            (at >= length && at < log.len() && log[at - length..at] == *run).then_some(at)
        })
    }

    /// Guesses of the next tokens, at most `most`.
    fn guesses<'a>(&self, log: &'a [Token], most: usize) -> &'a [Token] {
        let Some(at) = self.look_up(log) else { return &[] };
        &log[at..log.len().min(at + most)]
    }

    /// Tokens that so many guesses are expected to gain, in 1,024ths: each is right only if those before it are.
    fn gain(&self, guesses: u64) -> u64 {
        let mut chance = WHOLE;
        (0..guesses)
            .map(|_| {
                chance = chance * self.right / WHOLE;
                chance
            })
            .sum()
    }
}

/// The entry of a run of tokens.
fn slot(run: &[Token]) -> usize {
    let mix = |hash: u64, token: &Token| {
        (hash ^ u64::from(token.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
    };
    (run.iter().fold(run.len() as u64, mix) >> 40) as usize % ENTRIES
}

impl Kernel {
    /// Adds guesses to the rows of a step in which all decode, as far as they pay.
    pub(super) fn add_drafts(&self, id: ModelId, plan: &mut Plan) {
        let Some(model) = self.models.get(&id) else { return };
        let drafts = model.description.as_ref().is_some_and(|d| d.drafts && d.ranges);
        if !drafts || plan.rows.len() > DRAFT_ROWS_MAX || plan.rows.iter().any(|row| !row.decodes()) {
            return;
        }
        let mut decode = Decode::default();
        plan.rows.iter().for_each(|row| decode.add(row.position));
        let mut room = model.batch_tokens() - decode.rows;
        let rows = plan.rows.len() as u64;
        for row in &mut plan.rows {
            let Some((drafter, log, most)) = self.drafter(row) else { continue };
            let guesses = drafter.guesses(log, most.min(room as usize));
            let Some(before_us) = model.sched.cost.decode_measured_us(decode) else { return };
            let pays = |count: &usize| {
                let (cost, count) = (&model.sched.cost, *count as u32);
                match cost.rows_added_us(decode, before_us, row.position, count) {
                    Some(added_us) => drafter.gain(u64::from(count)) * before_us > added_us * rows * WHOLE,
                    // One that is likely right shows what it costs.
                    None => count == 1 && drafter.right > WHOLE * 3 / 4,
                }
            };
            let count = (1..=guesses.len()).rev().find(pays).unwrap_or(0);
            row.draft = guesses[..count].to_vec();
            room -= count as u32;
            row.draft.iter().for_each(|_| decode.add(row.position));
        }
    }

    /// What can guess for a row, the log, and for how many guesses there is room: in the last frame, in the context,
    /// and below all limits.
    fn drafter(&self, row: &RowSent) -> Option<(&super::Drafter, &[Token], usize)> {
        let context = self.contexts.get(&row.context)?;
        let generation = context.generation.as_ref()?;
        let resident = context.resident.as_ref()?;
        let drafter = generation.drafter.as_deref()?;
        let process = self.processes.living(context.owner)?;
        let behind = u64::from(row.position) + 1;
        let frames = resident.pages.len() as u64 * u64::from(drivers::wire::PAGE_TOKENS);
        // The token that comes after all guesses needs room too, and must not make the context slide.
        let log = u64::from(context.tokens_max.saturating_sub(context.length() + 2));
        let wanted = u64::from(generation.left(context.length()).saturating_sub(1));
        let limits = process.context_tokens_left().min(process.generated_tokens_left()).saturating_sub(1);
        let most = frames.saturating_sub(behind).min(log).min(wanted).min(limits);
        Some((drafter, &context.log, (most as usize).min(DRAFT_TOKENS_MAX)))
    }
}

impl Context {
    /// Lets its generation learn from a token that was added to its log.
    pub(super) fn learn_to_draft(&mut self) {
        let Some(generation) = &mut self.generation else { return };
        generation.drafter.get_or_insert_with(|| Box::new(Drafter::new())).learn(&self.log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Vec<Token> {
        text.bytes().map(|byte| Token(byte.into())).collect()
    }

    fn taught(text: &str) -> (Drafter, Vec<Token>) {
        let (mut drafter, log) = (Drafter::new(), log(text));
        (1..=log.len()).for_each(|end| drafter.learn(&log[..end]));
        (drafter, log)
    }

    #[test]
    fn guess_follows_the_longest_run_that_is_known() {
        let (drafter, tokens) = taught("the cat sat; a bat ran; the c");
        assert_eq!(drafter.guesses(&tokens, 4), log("at s"), "not what followed the last c or space");
        let (drafter, tokens) = taught("abcdefgh");
        assert!(drafter.guesses(&tokens, 4).is_empty(), "nothing was there before");
    }

    #[test]
    fn repetition_is_noticed_and_so_is_its_end() {
        let (drafter, _) = taught(&"over and again ".repeat(4));
        assert!(drafter.right > WHOLE * 9 / 10, "{}", drafter.right);
        assert!(drafter.gain(4) > 3 * WHOLE);
        let (drafter, _) = taught(&format!("{}qwertzuiopsdfghjk", "over and again ".repeat(4)));
        assert!(drafter.right < WHOLE / 2, "{}", drafter.right);
    }

    #[test]
    fn index_catches_up_with_a_long_prompt() {
        let mut drafter = Drafter::new();
        let mut tokens: Vec<Token> = (0..2000).map(Token).collect();
        for next in 100..120 {
            tokens.push(Token(next));
            drafter.learn(&tokens);
        }
        assert_eq!(drafter.guesses(&tokens, 2), [Token(120), Token(121)]);
    }
}
