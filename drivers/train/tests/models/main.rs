//! What holds for every model: each variable gets a gradient, checkpoints and microbatches change nothing, text comes
//! out the same with and without a cache, adapters begin as nothing.

#![allow(clippy::unwrap_used)]

mod composed;

use candle_core::{DType, Tensor};
use train::models::{Sampling, generate};
use train::nn::Lora;
use train::ops::product::Precision;
use train::optim::{Adam, Optimiser, Sgd};
use train::{Batch, Gradients, Model, ModelConfig, Pass, Side, models};

const CONFIGS: [&str; 12] = [
    r#"{"model_type": "gpt2", "vocab_size": 23, "n_positions": 12, "n_embd": 8, "n_layer": 2, "n_head": 2}"#,
    r#"{"model_type": "gpt2", "vocab_size": 23, "n_positions": 12, "n_embd": 8, "n_layer": 1, "n_head": 2, "tie_word_embeddings": false}"#,
    r#"{"model_type": "llama", "vocab_size": 23, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 12, "attention_dropout": 0.2}"#,
    r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 12}"#,
    r#"{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 12}"#,
    r#"{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 12, "problem_type": "regression", "id2label": {"0": "LABEL_0"}}"#,
    r#"{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 12, "problem_type": "multi_label_classification"}"#,
    r#"{"model_type": "bert", "architectures": ["BertForTokenClassification"], "vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 12}"#,
    r#"{"model_type": "bert", "architectures": ["BertForQuestionAnswering"], "vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 12}"#,
    r#"{"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 12}"#,
    r#"{"model_type": "marian", "vocab_size": 23, "d_model": 8, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 12, "attention_dropout": 0.1, "activation_dropout": 0.1}"#,
    r#"{"model_type": "t5", "vocab_size": 23, "d_model": 8, "d_kv": 6, "d_ff": 12, "num_layers": 2, "num_heads": 2, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#,
];

fn model(config: &str) -> Box<dyn Model> {
    models::build(&ModelConfig::from_json(config).unwrap(), DType::F64, 11).unwrap()
}

/// Four rows of six tokens, of which the last ends in padding, with targets for the model's head.
fn batch(config: &str, rows: std::ops::Range<usize>) -> Batch {
    let ids = |shift: usize, rows: std::ops::Range<usize>, length: usize| -> Vec<u32> {
        rows.flat_map(|row| (0..length).map(move |i| ((row * 31 + i * 7 + shift) % 20 + 3) as u32)).collect()
    };
    let mut input = Side::new(ids(0, rows.clone(), 6), 6);
    if config.contains("bert") {
        input.types = Some(ids(0, rows.clone(), 6).into_iter().map(|id| id % 2).collect());
    }
    let count = rows.len();
    let targets: Vec<i32> = match config {
        c if c.contains("problem_type") => Vec::new(),
        c if c.contains("SequenceClassification") => rows.clone().map(|row| row as i32 % 2).collect(),
        c if c.contains("TokenClassification") => (0..count * 6).map(|i| i as i32 % 2).collect(),
        c if c.contains("QuestionAnswering") => rows.clone().flat_map(|row| [row as i32 % 3, 4]).collect(),
        c if c.contains("BertModel") => Vec::new(),
        _ => {
            ids(5, rows.clone(), 6).into_iter().map(|id| if id % 4 == 0 { -100 } else { id as i32 }).collect()
        }
    };
    let encoder = config.contains("marian") || config.contains("t5");
    let source = encoder.then(|| {
        let mut mask = vec![1; count * 5];
        mask[count * 5 - 1] = 0;
        Side { mask: Some(mask), ..Side::new(ids(9, rows.clone(), 5), 5) }
    });
    let values = match config {
        c if c.contains("regression") => rows.clone().map(|row| row as f32 * 0.7 - 1.0).collect(),
        c if c.contains("multi_label") => rows.clone().flat_map(|row| [row as f32 % 2.0, 1.0]).collect(),
        _ => Vec::new(),
    };
    let samples = rows.map(|row| row as u64).collect();
    Batch { input, source, targets, values, samples, ..Batch::default() }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn gradients(model: &dyn Model, batches: &[Batch], pass: &Pass) -> Gradients {
    let mut gradients = Gradients::new(model.parameters()).unwrap();
    for batch in batches {
        model.gradients(batch, pass, &mut gradients).unwrap();
    }
    gradients
}

fn all(model: &dyn Model, gradients: &Gradients) -> Vec<Vec<f64>> {
    let list = model.parameters().iter().enumerate();
    list.map(|(i, _)| gradients.tensor(i).unwrap().map(|t| numbers(&t)).unwrap_or_default()).collect()
}

fn assert_close(a: &[Vec<f64>], b: &[Vec<f64>], tolerance: f64, what: &str) {
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.len(), b.len(), "{what}: parameter {i}");
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= tolerance, "{what}: parameter {i}: {a} and {b}");
        }
    }
}

#[test]
fn every_trainable_variable_gets_a_gradient() {
    for config in CONFIGS {
        let model = model(config);
        let found = gradients(&*model, &[batch(config, 0..4)], &Pass::training(1, 2));
        for (i, parameter) in model.parameters().iter().enumerate().filter(|(_, p)| p.trainable) {
            let gradient =
                found.slice::<f64>(i).unwrap_or_else(|| panic!("{config}: none for {}", parameter.name()));
            // A bias of keys adds the same to all scores of a query, so its gradient is zero but for rounding.
            // So is that of what is added to all tokens alike before a softmax over tokens.
            let zero: &[&str] = if config.contains("QuestionAnswering") {
                &["key.bias", "0.output.LayerNorm.bias", "qa_outputs.bias"]
            } else {
                &["key.bias", "k_proj.bias"]
            };
            let zero = zero.iter().any(|end| parameter.name().ends_with(end));
            assert!(
                zero || gradient.iter().any(|g| g.abs() > 1e-12),
                "{config}: {} gets zeros",
                parameter.name()
            );
            assert!(gradient.iter().all(|g| g.is_finite()), "{config}: {}", parameter.name());
        }
    }
}

#[test]
fn checkpointing_changes_no_gradient() {
    for config in CONFIGS {
        let (model, batch) = (model(config), batch(config, 0..4));
        let plain = gradients(&*model, std::slice::from_ref(&batch), &Pass::training(1, 2));
        let pass = Pass { checkpoint: true, ..Pass::training(1, 2) };
        let again = gradients(&*model, &[batch], &pass);
        assert_close(&all(&*model, &plain), &all(&*model, &again), 1e-13, config);
    }
}

/// With dropout on: what is dropped depends on the samples and not on how they are put into batches.
#[test]
fn microbatches_add_up_to_the_whole_batch() {
    for config in CONFIGS.iter().filter(|c| !c.contains("BertModel")) {
        let model = model(config);
        let whole = batch(config, 0..4);
        let pass = Pass { denominator: Some(whole.counted() as f64), ..Pass::training(3, 4) };
        let mut parts = [batch(config, 0..1), batch(config, 1..4)];
        if let (Some(source), Some(part)) = (&whole.source, &mut parts[0].source) {
            part.mask = source.mask.as_ref().map(|mask| mask[..5].to_vec());
        }
        let whole = gradients(&*model, &[whole], &pass);
        assert_close(&all(&*model, &whole), &all(&*model, &gradients(&*model, &parts, &pass)), 1e-13, config);
    }
}

#[test]
fn dropout_changes_with_the_step_and_not_with_repetition() {
    for config in CONFIGS.iter().filter(|c| !c.contains("llama")) {
        let (model, batch) = (model(config), batch(config, 0..4));
        let loss = |pass: &Pass| model.loss(&batch, pass).unwrap().sum;
        let [first, again, next] =
            [(1, 1), (1, 1), (1, 2)].map(|(seed, step)| loss(&Pass::training(seed, step)));
        assert_eq!(first, again, "{config}");
        assert_ne!(first, next, "{config}");
        assert_ne!(first, loss(&Pass::evaluation()), "{config}");
    }
}

#[test]
fn text_with_a_cache_has_the_logits_of_the_whole() {
    for config in CONFIGS.iter().filter(|c| !c.contains("bert")) {
        let model = model(config);
        let tokens: Vec<u32> = (0..10).map(|i| (i * 7 + 3) % 20 + 3).collect();
        let source: Vec<u32> = (0..7).map(|i| (i * 5) % 20 + 3).collect();
        let pair = config.contains("marian") || config.contains("t5");
        let source = pair.then_some(source.as_slice());
        let batch = Batch {
            input: Side::new(tokens.clone(), 10),
            source: source.map(|s| Side::new(s.to_vec(), s.len())),
            ..Batch::default()
        };
        let whole = numbers(&model.logits(&batch, &Pass::evaluation()).unwrap());
        let source = source.map(|source| Side::new(source.to_vec(), source.len()));
        let cache = model.begin(source.as_ref(), &[0]).unwrap();
        let mut first = 0;
        for count in [4, 1, 3, 1, 1] {
            let logits = numbers(&model.next(&tokens[first..first + count], &cache).unwrap());
            first += count;
            let wanted = &whole[(first - 1) * 23..first * 23];
            assert_close(&[logits], &[wanted.to_vec()], 1e-12, config);
        }
    }
}

/// Prompts of different lengths, of which one ends early and another has more room than the rest, are computed together.
#[test]
fn texts_of_several_rows_are_those_of_each_alone() {
    for config in CONFIGS.iter().filter(|c| !c.contains("bert")) {
        let model = model(config);
        let pair = config.contains("marian") || config.contains("t5");
        let ids =
            |length: usize, salt: usize| (0..length).map(|i| ((i * 7 + salt * 5) % 20 + 3) as u32).collect();
        let rows: Vec<Vec<u32>> =
            [3, 9, 1, 6].into_iter().zip(0..).map(|(length, salt)| ids(length, salt)).collect();
        let (prompts, sources) = if pair { (vec![vec![0]; 4], Some(rows)) } else { (rows, None) };
        for temperature in [0.0, 1.0] {
            let sampling = Sampling { temperature, max_tokens: 8, seed: 5, ..Sampling::default() };
            let alone: Vec<Vec<u32>> = (0..4)
                .map(|row| {
                    let source = sources.as_ref().map(|sources| &sources[row..=row]);
                    let sampling = Sampling { seed: 5 + row as u64, ..sampling.clone() };
                    generate(&*model, &prompts[row..=row], source, &sampling, |_| ()).unwrap().concat()
                })
                .collect();
            // The first token of the third row ends its text.
            let stop = vec![alone[2][0]];
            let cut = |text: &Vec<u32>| match text.iter().position(|token| *token == stop[0]) {
                Some(end) => text[..=end].to_vec(),
                None => text.clone(),
            };
            let wanted: Vec<Vec<u32>> = alone.iter().map(cut).collect();
            let sampling = Sampling { stop, ..sampling };
            let mut passes = 0;
            let found = generate(&*model, &prompts, sources.as_deref(), &sampling, |_| passes += 1).unwrap();
            assert_eq!(found, wanted, "{config}");
            assert_eq!(passes, wanted.iter().map(Vec::len).max().unwrap(), "all rows in one pass: {config}");
        }
    }
}

#[test]
fn sampling_of_one_seed_is_the_same_and_ends_at_stop_tokens_and_positions() {
    let model = model(CONFIGS[0]);
    let sampling = Sampling { temperature: 1.0, top_k: 10, top_p: 0.95, seed: 4, ..Sampling::default() };
    let text =
        |sampling: &Sampling| generate(&*model, &[vec![3, 4]], None, sampling, |_| ()).unwrap().concat();
    let first = text(&sampling);
    assert_eq!(first, text(&sampling));
    assert_ne!(first, text(&Sampling { seed: 5, ..sampling.clone() }));
    // Two tokens of prompt in twelve positions: the last of eleven new ones is never read.
    assert_eq!(first.len(), 11);
    let stopped = text(&Sampling { stop: vec![first[3]], ..sampling });
    let end = first.iter().position(|t| *t == first[3]).unwrap();
    assert_eq!(stopped, first[..=end]);
}

#[test]
fn adapters_begin_as_nothing_train_alone_and_merge_into_the_weights() {
    for config in [CONFIGS[0], CONFIGS[2], CONFIGS[10]] {
        let mut model = model(config);
        let batch = batch(config, 0..4);
        let before = numbers(&model.logits(&batch, &Pass::evaluation()).unwrap());
        let frozen: Vec<Vec<f64>> = model.parameters().iter().map(|p| numbers(p.var())).collect();
        let count = model.adapt(Lora { rank: 2, alpha: 4.0 }, &|name| name.contains("attn")).unwrap();
        assert!(count > 0);
        assert_close(
            &[numbers(&model.logits(&batch, &Pass::evaluation()).unwrap())],
            &[before],
            1e-13,
            config,
        );
        let mut sgd = Sgd::new(0.9, true, 0.0);
        for _ in 0..3 {
            let found = gradients(&*model, std::slice::from_ref(&batch), &Pass::evaluation());
            sgd.step(model.parameters(), &found, 0.5).unwrap();
        }
        let now: Vec<Vec<f64>> = model.parameters().iter().map(|p| numbers(p.var())).collect();
        assert_close(&frozen, &now[..frozen.len()], 0.0, config);
        let adapted = numbers(&model.logits(&batch, &Pass::evaluation()).unwrap());
        let merged = self::model(config);
        let loaded = merged.parameters().load(&model.merged().unwrap()).unwrap();
        assert_eq!(loaded, Default::default(), "{config}");
        assert_close(
            &[numbers(&merged.logits(&batch, &Pass::evaluation()).unwrap())],
            &[adapted],
            1e-12,
            config,
        );
    }
}

#[test]
fn optimiser_that_goes_on_from_its_state_is_the_uninterrupted_one() {
    let config = CONFIGS[0];
    let batch = batch(config, 0..4);
    let step = |model: &dyn Model, optimiser: &mut dyn Optimiser, step: u64| {
        let found = gradients(model, std::slice::from_ref(&batch), &Pass::training(1, step));
        optimiser.step(model.parameters(), &found, 0.01).unwrap();
    };
    let kinds: [fn() -> Box<dyn Optimiser>; 3] = [
        || Box::new(Adam::default()),
        || Box::new(Adam::new([0.9, 0.99], 1e-8, 0.1)),
        || Box::new(Sgd::new(0.9, true, 0.1)),
    ];
    for kind in kinds {
        let (mut whole, mut parted) = (model(config), model(config));
        for parameter in whole.parameters_mut().iter_mut().chain(parted.parameters_mut().iter_mut()) {
            if parameter.name().contains("h.1.") {
                (parameter.rate, parameter.weight_decay) = (0.3, Some(0.2));
            }
        }
        let (mut one, mut first, mut second) = (kind(), kind(), kind());
        (0..4).for_each(|i| step(&*whole, &mut *one, i));
        (0..2).for_each(|i| step(&*parted, &mut *first, i));
        second.load_state(parted.parameters(), &first.state(parted.parameters()).unwrap()).unwrap();
        (2..4).for_each(|i| step(&*parted, &mut *second, i));
        let of = |model: &dyn Model| model.parameters().iter().map(|p| numbers(p.var())).collect::<Vec<_>>();
        assert_eq!(of(&*whole), of(&*parted));
    }
}

#[test]
fn clipping_brings_the_norm_to_the_limit_and_leaves_small_ones() {
    let model = model(CONFIGS[0]);
    let mut found = gradients(&*model, &[batch(CONFIGS[0], 0..4)], &Pass::evaluation());
    let norm = all(&*model, &found).iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
    assert!((found.clip(norm * 2.0).unwrap() - norm).abs() < 1e-12);
    assert!((found.norm().unwrap() - norm).abs() < 1e-12);
    found.clip(norm / 3.0).unwrap();
    assert!((found.norm().unwrap() - norm / 3.0).abs() < 1e-5);
}

#[test]
fn frozen_parameters_get_no_gradient_and_do_not_change_the_others() {
    let mut model = model(CONFIGS[0]);
    let batch = batch(CONFIGS[0], 0..4);
    let free = all(&*model, &gradients(&*model, std::slice::from_ref(&batch), &Pass::evaluation()));
    model.parameters_mut().set_trainable(|name| name.contains(".h.1."));
    let found = gradients(&*model, &[batch], &Pass::evaluation());
    for (i, parameter) in model.parameters().iter().enumerate() {
        assert_eq!(found.has(i), parameter.trainable, "{}", parameter.name());
        if parameter.trainable {
            assert_close(&[numbers(&found.tensor(i).unwrap().unwrap())], &[free[i].clone()], 1e-15, "frozen");
        }
    }
}

#[test]
fn configurations_are_read_back_as_they_were_written() {
    for text in CONFIGS {
        let config = ModelConfig::from_json(text).unwrap();
        assert_eq!(ModelConfig::from_json(&config.to_json().unwrap()).unwrap(), config);
    }
}

#[test]
fn configuration_of_a_model_that_computes_something_else_is_refused_by_its_field() {
    let with = |config: &str, field: &str, value: &str| {
        ModelConfig::from_json(&config.replacen('{', &format!("{{\"{field}\": {value}, "), 1))
    };
    for (config, field, usual, other) in [
        (CONFIGS[0], "scale_attn_by_inverse_layer_idx", "false", "true"),
        (CONFIGS[0], "scale_attn_weights", "true", "false"),
        (CONFIGS[3], "position_embedding_type", "\"absolute\"", "\"relative_key\""),
    ] {
        assert!(with(config, field, usual).is_ok() && with(config, field, "null").is_ok(), "{field}");
        let error = with(config, field, other).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}` is {other}")), "{error}");
    }
}

#[test]
fn configuration_of_classes_has_them_by_number_and_by_name() {
    let text = CONFIGS[5].replace("LABEL_0", "how good");
    let written = ModelConfig::from_json(&text).unwrap().to_json().unwrap();
    let tree: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(tree["id2label"], serde_json::json!({"0": "how good"}));
    assert_eq!(tree["label2id"], serde_json::json!({"how good": 0}));
}

#[test]
fn batches_that_do_not_fit_are_refused_with_the_reason() {
    let model = model(CONFIGS[0]);
    let error = |batch: Batch| model.loss(&batch, &Pass::evaluation()).unwrap_err().to_string();
    let long = error(Batch::next_token(vec![1; 13], vec![1; 13], 13));
    assert!(long.contains("13 tokens") && long.contains("12 positions"), "{long}");
    let foreign = error(Batch::next_token(vec![23; 2], vec![1; 2], 2));
    assert!(foreign.contains("id 23") && foreign.contains("vocabulary of 23"), "{foreign}");
    let few = error(Batch::next_token(vec![1; 4], vec![1; 2], 4));
    assert!(few.contains("2 targets for 4"), "{few}");
}

/// Mixed precision is less exact, but by no more than the digits that bf16 has, also where blocks are
/// computed again.
#[test]
fn mixed_precision_gradients_are_near_those_of_f32() {
    for config in CONFIGS {
        let model = models::build(&ModelConfig::from_json(config).unwrap(), DType::F32, 11).unwrap();
        let numbers = |precision, checkpoint| -> Vec<f32> {
            let pass = Pass { precision, checkpoint, ..Pass::evaluation() };
            let mut gradients = Gradients::new(model.parameters()).unwrap();
            model.gradients(&batch(config, 0..4), &pass, &mut gradients).unwrap();
            let all =
                (0..model.parameters().len()).flat_map(|i| gradients.slice::<f32>(i).unwrap_or_default());
            all.copied().collect()
        };
        let (full, mixed) = (numbers(Precision::Full, false), numbers(Precision::Mixed, false));
        let length = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>().sqrt();
        let apart = |other: &[f32]| {
            length(&mut other.iter().zip(&mixed).map(|(a, b)| a - b)) / length(&mut full.iter().copied())
        };
        let relative = apart(&full);
        assert!((1e-5..0.05).contains(&relative), "{config}: {relative} apart");
        // Blocks that are computed again are added in another order, and in the same precision.
        let again = apart(&numbers(Precision::Mixed, true));
        assert!(again < 0.2 * relative, "{config}: {again} apart when computed again, {relative} from f32");
    }
}
