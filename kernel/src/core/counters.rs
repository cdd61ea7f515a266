//! What is counted of the system, of each model and of each process. Counters start at 0 and only grow.

use syscalls::reply::Stats;

/// One set of counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Prompt tokens that a forward pass computed.
    pub prompt_tokens_evaluated: u64,
    /// Prompt tokens that were in the pool already.
    pub prompt_tokens_shared: u64,
    /// Tokens that came out.
    pub tokens_generated: u64,
    /// Tokens computed again after their pages were lost or taken.
    pub tokens_recomputed: u64,
    /// Forward passes; of a process, those that it had a part in.
    pub steps: u64,
    /// Time in forward passes, in microseconds; of a process, its share of it.
    pub step_us: u64,
    /// Steps that were withdrawn before all of their rows were through.
    pub steps_withdrawn: u64,
    /// Tokens that were guessed and checked.
    pub tokens_drafted: u64,
    /// Guesses that were right.
    pub tokens_accepted: u64,
    /// Workers that were started again.
    pub worker_restarts: u64,
    /// Calls.
    pub calls: u64,
    /// Bytes of pages written to slots, and read from them.
    pub swap_out_bytes: u64,
    pub swap_in_bytes: u64,
    /// Pages that were taken from a context and had to be brought back.
    pub refaults: u64,
    /// Saved pages that were not what they should have been.
    pub pages_corrupted: u64,
}

impl Counters {
    /// The counters as `stat` reports them, with every level still at 0.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            prompt_tokens_evaluated: self.prompt_tokens_evaluated,
            prompt_tokens_shared: self.prompt_tokens_shared,
            tokens_generated: self.tokens_generated,
            tokens_recomputed: self.tokens_recomputed,
            steps: self.steps,
            step_us: self.step_us,
            steps_withdrawn: self.steps_withdrawn,
            tokens_drafted: self.tokens_drafted,
            tokens_accepted: self.tokens_accepted,
            worker_restarts: self.worker_restarts,
            calls: self.calls,
            swap_out_bytes: self.swap_out_bytes,
            swap_in_bytes: self.swap_in_bytes,
            refaults: self.refaults,
            pages_corrupted: self.pages_corrupted,
            ..Stats::default()
        }
    }
}
