//! What steps cost: figures measured with llama.cpp on a model of 0.5 billion weights in Q8_0, on two cores with AMX.
//!
//! | measured, tokens/s | by this model |
//! | --- | --- |
//! | one stream, short context: 46 | 46 |
//! | 32 streams together after 16, 128, 512 and 1,024 tokens: 443, 260, 110–116, 63 | 442, 265, 112, 63 |
//! | prompts of 512 tokens: 790 | 785 |
//! | prompts of 2,112 tokens: 324 | 327 |
//!
//! A step costs a fixed time, and a row and a token each some more; attention costs each token something for every
//! token before it, and each row something for every token before it, which is why a prompt's tokens are cheaper
//! than as many rows that decode.

/// The shape of a simulated device and the model on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// How many times faster than the measured machine it is.
    pub speed: f64,
    /// Tokens in the KV pool.
    pub pool_tokens: u32,
    /// Tokens of the largest context.
    pub context_tokens: u32,
    /// Tokens of the largest step.
    pub batch_tokens: u32,
    /// Sequences at once.
    pub sequences: u16,
}

impl Default for Device {
    fn default() -> Self {
        Device { speed: 1.0, pool_tokens: 16_384, context_tokens: 8192, batch_tokens: 2048, sequences: 256 }
    }
}

/// Entries of the simulated vocabulary: prompts of different seeds then have nothing in common.
pub const VOCABULARY: u32 = 32_768;

const STEP_US: f64 = 20_300.0;
const ROW_US: f64 = 757.0;
const TOKEN_US: f64 = 653.0;
const DEPTH_NS: f64 = 2_270.0;
const ROW_DEPTH_NS: f64 = 11_200.0;

impl Device {
    /// The script for the sim driver. Its text never ends by itself: generations have the lengths that the load says.
    pub fn script(&self) -> String {
        let scaled = |cost: f64| (cost / self.speed).round() as u64;
        format!(
            "vocabulary={VOCABULARY},context={},pool={},batch={},sequences={},step_us={},row_us={},token_us={},depth_ns={},row_depth_ns={}",
            self.context_tokens,
            self.pool_tokens,
            self.batch_tokens,
            self.sequences,
            scaled(STEP_US),
            scaled(ROW_US),
            scaled(TOKEN_US),
            scaled(DEPTH_NS),
            scaled(ROW_DEPTH_NS),
        )
    }
}

#[cfg(test)]
mod tests {
    use drivers::sim::SimWorker;
    use drivers::wire::{Asid, LoadRequest, Row};
    use syscalls::Token;

    use super::*;

    /// Microseconds of a step of rows, each of so many tokens behind so many.
    fn step_us(rows: u32, tokens: u32, position: u32) -> f64 {
        let load =
            LoadRequest { path: Device::default().script(), sequences_max: 256, ..LoadRequest::default() };
        let worker = SimWorker::start(&load).expect("lives").expect("loads");
        let row = |n: u32| Row {
            asid: Asid(n as u16),
            position,
            tokens: vec![Token(1); tokens as usize].into(),
            sample: true,
            draft: vec![],
        };
        worker.driver().cost_us(&(0..rows).map(row).collect::<Vec<_>>()) as f64
    }

    #[test]
    fn steps_cost_what_was_measured() {
        let decode = |rows, depth| f64::from(rows) * 1e6 / step_us(rows, 1, depth);
        let prompt = |tokens| f64::from(tokens) * 1e6 / step_us(1, tokens, 0);
        let cases = [
            ("one stream", decode(1, 16), 46.0),
            ("32 streams after 16", decode(32, 16), 443.0),
            ("32 streams after 128", decode(32, 128), 260.0),
            ("32 streams after 512", decode(32, 512), 113.0),
            ("32 streams after 1,024", decode(32, 1024), 63.0),
            ("a prompt of 512", prompt(512), 790.0),
            ("a prompt of 2,112", prompt(2112), 324.0),
        ];
        for (what, simulated, measured) in cases {
            assert!(
                (simulated / measured - 1.0).abs() < 0.05,
                "{what}: {simulated:.0} and not {measured} tokens/s"
            );
        }
    }
}
