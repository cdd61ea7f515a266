//! The same weights and batch as PyTorch give the same logits, loss, gradients and ten losses under AdamW.
//! `peers/fixtures.py` made the reference values.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use train::optim::{Adam, Optimiser};
use train::{Batch, Criterion, Gradients, Model, ModelConfig, Pass, Side, models};

struct Fixture {
    config: ModelConfig,
    tensors: BTreeMap<String, Tensor>,
}

impl Fixture {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let config = ModelConfig::from_json(&header.metadata().as_ref().unwrap()["config"]).unwrap();
        let tensors =
            candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap().into_iter().collect();
        Fixture { config, tensors }
    }

    fn under(&self, kind: &str) -> BTreeMap<String, Tensor> {
        let of =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(kind)?.to_string(), tensor.clone()));
        self.tensors.iter().filter_map(of).collect()
    }

    fn model(&self, dtype: DType) -> Box<dyn Model> {
        let model = models::build(&self.config, dtype, 0).unwrap();
        let loaded = model.parameters().load(&self.under("weight:")).unwrap();
        assert!(
            loaded.missing.iter().all(|name| name == "final_logits_bias"),
            "missing {:?}",
            loaded.missing
        );
        assert!(loaded.unexpected.is_empty(), "unexpected {:?}", loaded.unexpected);
        model
    }

    fn integers(&self, name: &str) -> Option<(Vec<i64>, usize)> {
        let tensor = self.tensors.get(&format!("input:{name}"))?;
        Some((tensor.flatten_all().unwrap().to_vec1().unwrap(), *tensor.dims().last().unwrap()))
    }

    fn side(&self, tokens: &str, mask: &str) -> Option<Side> {
        let (ids, length) = self.integers(tokens)?;
        let mut side = Side::new(ids.into_iter().map(|id| id as u32).collect(), length);
        side.mask = self.integers(mask).map(|(mask, _)| mask.into_iter().map(|m| m as u8).collect());
        side.types = self.integers("types").map(|(types, _)| types.into_iter().map(|t| t as u32).collect());
        Some(side)
    }

    fn batch(&self) -> Batch {
        let targets = self.integers("targets").map(|(t, _)| t.into_iter().map(|t| t as i32).collect());
        let source = self.side("source", "source_mask");
        let values = self.tensors.get("input:values").map(|values| values.to_dtype(DType::F32).unwrap());
        Batch {
            values: values.map(|values| values.flatten_all().unwrap().to_vec1().unwrap()).unwrap_or_default(),
            input: self.side("tokens", "mask").unwrap(),
            source,
            targets: targets.unwrap_or_default(),
            ..Batch::default()
        }
    }

    fn check(name: &str, dtype: DType, tolerance: f64) {
        let fixture = Fixture::read(name);
        let (model, batch) = (fixture.model(dtype), fixture.batch());
        let class_weights = fixture.tensors.get("input:weights").map(|weights| numbers(weights).into());
        let label_smoothing = if class_weights.is_some() { 0.1 } else { 0.0 };
        let criterion = Criterion { class_weights, ..Criterion::default() };
        let pass = Pass { criterion, label_smoothing, ..Pass::evaluation() };
        close(name, "logits", &model.logits(&batch, &pass).unwrap(), &fixture.tensors["logits"], tolerance);
        let mut gradients = Gradients::new(model.parameters()).unwrap();
        let loss = model.gradients(&batch, &pass, &mut gradients).unwrap();
        let wanted = numbers(&fixture.tensors["loss"])[0];
        assert!(
            (loss.mean() - wanted).abs() < tolerance,
            "{name}: a loss of {}, wanted {wanted}",
            loss.mean()
        );
        let mut left = fixture.under("gradient:");
        for (place, parameter) in model.parameters().iter().enumerate().filter(|(_, p)| p.trainable) {
            let found = gradients.tensor(place).unwrap();
            let found = found.unwrap_or_else(|| panic!("{name}: {} has no gradient", parameter.name()));
            let wanted = left.remove(parameter.name()).unwrap_or_else(|| panic!("no {}", parameter.name()));
            close(name, parameter.name(), &found, &wanted, tolerance);
        }
        assert!(left.is_empty(), "{name}: gradients of {:?} were not computed", left.keys());
        let mut adam = Adam::decoupled([0.9, 0.95], 1e-8, 0.1);
        for (step, wanted) in numbers(&fixture.tensors["losses"]).into_iter().enumerate() {
            gradients.clear();
            let loss = model.gradients(&batch, &pass, &mut gradients).unwrap();
            gradients.clip(1.0).unwrap();
            adam.step(model.parameters(), &gradients, 1e-3).unwrap();
            assert!(
                (loss.mean() - wanted).abs() < tolerance,
                "{name}, step {step}: {}, wanted {wanted}",
                loss.mean()
            );
        }
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn close(model: &str, what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims(), "{model}, {what}");
    for (i, (a, b)) in numbers(a).into_iter().zip(numbers(b)).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{model}, {what}, number {i}: {a}, wanted {b}");
    }
}

macro_rules! models {
    ($($test:ident => $name:literal),* $(,)?) => {
        mod in_f64 {
            $(#[test] fn $test() { super::Fixture::check($name, super::DType::F64, 1e-9); })*
        }
        mod in_f32 {
            $(#[test] fn $test() { super::Fixture::check($name, super::DType::F32, 1e-4); })*
        }
    };
}

models! {
    gpt2_is_pytorchs => "gpt2",
    llama_is_pytorchs => "llama",
    llama_scaled_by_wavelength_is_pytorchs => "llama-llama3",
    llama_scaled_by_yarn_is_pytorchs => "llama-yarn",
    bert_of_masked_tokens_is_pytorchs => "bert-masked",
    bert_of_texts_is_pytorchs => "bert-text",
    bert_of_tokens_is_pytorchs => "bert-tokens",
    bert_of_answers_is_pytorchs => "bert-answer",
    bert_of_sentences_is_pytorchs => "bert-sentence",
    bert_of_weighted_classes_is_pytorchs => "bert-weighted",
    bert_of_words_of_weighted_classes_is_pytorchs => "bert-tokens-weighted",
    bert_of_sets_of_classes_is_pytorchs => "bert-sets",
    bert_of_numbers_is_pytorchs => "bert-numbers",
    bert_of_near_sentences_is_pytorchs => "bert-near",
    marian_is_pytorchs => "marian",
    t5_is_pytorchs => "t5",
    gated_t5_is_pytorchs => "t5-gated",
}
