//! What of a model is trained: how many numbers, and how many blocks are gone back through for them.

use crate::parameters::{Parameter, Parameters};

/// Numbers of one rank's part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub all: u64,
    /// Those that have gradients and the optimiser's state.
    pub trained: u64,
    /// Blocks whose activations are kept, of how many: going backwards ends before those below which nothing is trained.
    pub kept: [u64; 2],
}

impl Counts {
    /// Of a model that is trained as a whole.
    pub fn whole(all: u64) -> Counts {
        Counts { all, trained: all, kept: [1, 1] }
    }

    /// Of a model as it is.
    pub fn of(parameters: &Parameters) -> Counts {
        let mut blocks: Vec<&str> = Vec::new();
        for block in parameters.iter().filter_map(block) {
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
        let before = parameters.iter().position(|parameter| block(parameter).is_some()).unwrap_or(0);
        // A head is behind all blocks, and a table before them. Adapters are named for their block, and stand at the end.
        let place = |(place, parameter): (usize, &Parameter)| match block(parameter) {
            Some(name) => blocks.iter().position(|block| *block == name).unwrap_or(0),
            None if place < before => 0,
            None => blocks.len(),
        };
        let trained = parameters.iter().enumerate().filter(|(_, parameter)| parameter.trainable);
        let first = trained.map(place).min().unwrap_or(0);
        let (all, trained) = parameters.counts();
        let kept = [(blocks.len() - first) as u64, blocks.len().max(1) as u64];
        Counts { all: all as u64, trained: trained as u64, kept }
    }
}

/// The part of a parameter's name that its block has: up to its number.
fn block(parameter: &Parameter) -> Option<&str> {
    let name = parameter.name();
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if part.parse::<u32>().is_ok() {
            return Some(&name[..end]);
        }
        end += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::DType;

    use super::*;
    use crate::nn::Lora;
    use crate::{ModelConfig, models};

    #[test]
    fn blocks_below_all_that_is_trained_keep_nothing() {
        let text = r#"{"model_type": "gpt2", "vocab_size": 9, "n_positions": 8, "n_embd": 8, "n_layer": 4, "n_head": 2,
            "tie_word_embeddings": false}"#;
        let config = ModelConfig::from_json(text).unwrap();
        let kept = |trained: &dyn Fn(&str) -> bool| {
            let mut model = models::build(&config, DType::F32, 0).unwrap();
            model.parameters_mut().set_trainable(trained);
            Counts::of(model.parameters()).kept
        };
        assert_eq!(kept(&|_| true), [4, 4]);
        assert_eq!(kept(&|name| name.contains("wpe")), [4, 4]);
        assert_eq!(kept(&|name| name.contains("h.2.") || name.contains("h.3.")), [2, 4]);
        assert_eq!(kept(&|name| name.contains("lm_head")), [0, 4]);
        let mut model = models::build(&config, DType::F32, 0).unwrap();
        let before = model.parameters().counts().0 as u64;
        model.adapt(Lora { rank: 2, alpha: 4.0 }, &|name| name.contains("h.1.attn.c_attn")).unwrap();
        let adapter = 2 * (8 + 24);
        let wanted = Counts { all: before + adapter, trained: adapter, kept: [3, 4] };
        assert_eq!(Counts::of(model.parameters()), wanted);
    }
}
