//! The same training in one process and over ranks.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use train::models::{build, build_at};
use train::nn::Lora;
use train::ops::Kernels;
use train::ops::product::Precision;
use train::optim::{Adam, Optimiser};
use train::parameters::Place;
use train::ranks::{Group, Layout, Mesh, PipelineSchedule, Plans, Team, on_threads};
use train::{Batch, Gradients, ModelConfig, Pass, Side};

pub const GPT2: &str =
    r#"{"model_type": "gpt2", "vocab_size": 23, "n_positions": 12, "n_embd": 16, "n_layer": 4, "n_head": 4}"#;
pub const LLAMA: &str = r#"{"model_type": "llama", "vocab_size": 23, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 12, "attention_dropout": 0.2, "tie_word_embeddings": false}"#;
pub const BERT: &str = r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 12, "max_position_embeddings": 12}"#;
pub const MARIAN: &str = r#"{"model_type": "marian", "vocab_size": 23, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 12, "attention_dropout": 0.1, "activation_dropout": 0.1}"#;
pub const T5: &str = r#"{"model_type": "t5", "vocab_size": 23, "d_model": 16, "d_kv": 6, "d_ff": 12, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6, "feed_forward_proj": "gated-gelu"}"#;

/// Vectors of sentences, each two of which belong together.
pub const SENTENCES: &str = r#"{"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 12, "max_position_embeddings": 12}"#;

/// Whether adapters are trained instead of the weights; a configuration knows nothing of it.
const ADAPTED: &str = r#""adapted": true"#;

/// The same model with adapters.
pub fn adapted(text: &str) -> String {
    text.replacen('{', &format!("{{{ADAPTED}, "), 1)
}

/// Rows of a step; eight ranks and microbatches have one each at least.
pub const ROWS: usize = 8;
const LENGTH: usize = 6;
pub const STEPS: u64 = 20;
/// So small that rounding in f32 does not grow from step to step.
const RATE: f64 = 1e-3;

/// What a training gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub losses: Vec<f64>,
    pub norms: Vec<f64>,
    pub weights: BTreeMap<String, Tensor>,
    pub state: BTreeMap<String, Tensor>,
}

pub fn config(text: &str) -> ModelConfig {
    ModelConfig::from_json(text).unwrap()
}

/// The batch of a step: rows of different samples, with different counts of targets, and the last of them padded.
pub fn batch(text: &str, step: u64) -> Batch {
    let id = |row: usize, i: usize, salt: u64| {
        ((row as u64 * 31 + i as u64 * 7 + step * 13 + salt) % 20 + 3) as u32
    };
    let ids = |salt, length| (0..ROWS).flat_map(move |row| (0..length).map(move |i| id(row, i, salt)));
    let mut input = Side::new(ids(0, LENGTH).collect(), LENGTH);
    if text.contains("\"bert\"") {
        input.types = Some(ids(0, LENGTH).map(|id| id % 2).collect());
    }
    let target = |row: usize, i: usize| match (row * 5 + i + step as usize) % 8 > row {
        // Row 7 has none at all.
        true => id(row, i, 5) as i32,
        false => train::IGNORE,
    };
    let targets = (0..ROWS).flat_map(|row| (0..LENGTH).map(move |i| target(row, i))).collect();
    let samples = (0..ROWS as u64).map(|row| step * ROWS as u64 + row).collect();
    if text.contains("BertModel") {
        let targets = (0..ROWS).map(|row| if row % 2 == 0 { 0 } else { train::IGNORE }).collect();
        return Batch { input, targets, samples, paired: true, ..Batch::default() };
    }
    let two = text.contains("marian") || text.contains("t5");
    let source = two.then(|| {
        let mut mask = vec![1; ROWS * 5];
        mask[ROWS * 5 - 2..].fill(0);
        Side { mask: Some(mask), ..Side::new(ids(9, 5).collect(), 5) }
    });
    Batch { input, source, targets, samples, ..Batch::default() }
}

fn pass(step: u64, counted: f64, how: How) -> Pass {
    let How { recompute: checkpoint, precision, .. } = how;
    let of_step = Pass::training(3, step);
    Pass { denominator: Some(counted), label_smoothing: 0.1, checkpoint, precision, ..of_step }
}

fn optimiser() -> Adam {
    // The gradients of biases of keys are nothing but rounding, which a smaller epsilon would make steps of.
    Adam::decoupled([0.9, 0.99], 1e-5, 0.1)
}

/// Adapters where they are wanted, and groups of parameters with a rate and a decay of their own, which cut through
/// stages and buckets.
fn tune(model: &mut dyn train::Model, text: &str) {
    if text.contains(ADAPTED) {
        model.adapt(Lora { rank: 2, alpha: 4.0 }, &|_| true).unwrap();
    }
    for parameter in model.parameters_mut().iter_mut() {
        if parameter.name().contains("0.") {
            (parameter.rate, parameter.weight_decay) = (1.5, Some(0.3));
        }
        parameter.decay |= parameter.name().ends_with("1.bias");
    }
}

/// A limit that cuts the gradients of some steps and not of others.
pub fn limit(text: &str) -> f64 {
    let mut norms = one(text, DType::F64, f64::MAX, Precision::Full).norms;
    norms.sort_by(f64::total_cmp);
    norms[norms.len() / 2]
}

/// The training in one process, which knows nothing of ranks.
pub fn one(text: &str, dtype: DType, limit: f64, precision: Precision) -> Outcome {
    let mut model = build(&config(text), dtype, 11).unwrap();
    tune(model.as_mut(), text);
    let (parameters, mut adam) = (model.parameters(), optimiser());
    let mut gradients = Gradients::new(parameters).unwrap();
    let mut outcome = Outcome::default();
    for step in 0..STEPS {
        let batch = batch(text, step);
        let pass = pass(step, batch.counted() as f64, How { precision, ..How::default() });
        let loss = model.gradients(&batch, &pass, &mut gradients).unwrap();
        outcome.losses.push(loss.mean());
        outcome.norms.push(gradients.clip(limit).unwrap());
        adam.step(parameters, &gradients, RATE).unwrap();
        gradients.clear();
    }
    outcome.weights = copies(parameters.tensors());
    outcome.state = adam.state(parameters).unwrap().tensors;
    outcome
}

fn copies(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect()
}

/// How ranks compute their parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Whether blocks are computed again on the way back; one process keeps what is inside of them.
    pub recompute: bool,
    pub precision: Precision,
    /// What computes on the ranks; in one process it is the kernels.
    pub kernels: Kernels,
}

/// How a training is divided.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    pub layout: Layout,
    pub plans: Plans,
    pub limit: f64,
    pub how: How,
}

/// So small that gradients of every model here travel in many buckets, none of which begins and ends with a parameter of
/// all ranks' pieces.
pub const SMALL_BUCKET_BYTES: usize = 1 << 10;

pub fn division(data: usize, tensor: usize, pipeline: usize) -> Division {
    let micro_batches = if pipeline > 1 { ROWS / data / 2 } else { 1 };
    let schedule = PipelineSchedule::default();
    let plans = Plans { micro_batches, schedule, zero: false, bucket_bytes: SMALL_BUCKET_BYTES };
    Division { layout: Layout { data, tensor, pipeline }, plans, limit: 1.0, how: How::default() }
}

/// The same, whose ranks compute blocks again instead of keeping what is inside of them.
pub fn again(division: Division) -> Division {
    Division { how: How { recompute: true, ..division.how }, ..division }
}

/// One rank's part of the training. `look` sees the team at the end.
pub fn rank<R>(
    world: Arc<dyn Group>,
    text: &str,
    dtype: DType,
    division: Division,
    look: impl FnOnce(&Team, &dyn train::Model) -> R,
) -> train::Result<(Outcome, R)> {
    let mesh = Mesh::new(world, division.layout)?;
    let place = Place { kernels: division.how.kernels, ..Place::of(&mesh, Device::Cpu) };
    let mut model = build_at(&place, &config(text), dtype, 11)?;
    tune(model.as_mut(), text);
    let (parameters, mut adam) = (model.parameters(), optimiser());
    let mut team = Team::new(mesh, division.plans, parameters)?;
    let mut gradients = Gradients::new(parameters)?;
    let mut outcome = Outcome::default();
    for step in 0..STEPS {
        let batches = team.share(vec![batch(text, step)])?;
        let counted = team.sum(batches.iter().map(Batch::counted).sum::<usize>() as f64)?;
        let pass = pass(step, counted, division.how);
        let loss = team.gradients(model.as_ref(), &batches, &pass, &mut gradients, |_| {})?;
        outcome.losses.push(loss.mean());
        outcome.norms.push(team.clip(parameters, &mut gradients, division.limit)?);
        team.step(&mut adam, parameters, &gradients, RATE)?;
        gradients.clear();
    }
    outcome.weights = copies(team.weights(parameters)?);
    outcome.state = team.state(&adam, parameters)?.tensors;
    let seen = look(&team, model.as_ref());
    Ok((outcome, seen))
}

/// The training over ranks that are threads, as rank 0 sees it, and what `look` saw on each.
pub fn many<R: Send>(
    text: &str,
    dtype: DType,
    division: Division,
    wrap: impl Fn(Arc<dyn Group>) -> Arc<dyn Group> + Sync,
    look: impl Fn(&Team, &dyn train::Model) -> R + Sync,
) -> (Outcome, Vec<R>) {
    let ends = on_threads(division.layout.size(), 1, |world| {
        rank(wrap(world), text, dtype, division, &look).unwrap()
    });
    let mut ends: Vec<(Outcome, R)> = ends.into_iter().map(Result::unwrap).collect();
    let first = std::mem::take(&mut ends[0].0);
    for (outcome, _) in &ends[1..] {
        assert_eq!(outcome.losses, first.losses, "all ranks know the same losses");
    }
    (first, ends.into_iter().map(|(_, seen)| seen).collect())
}

/// The greatest difference between two trainings, and where it is.
pub fn difference(a: &Outcome, b: &Outcome) -> (f64, String) {
    let mut worst = (0.0, String::from("nowhere"));
    let mut look = |a: &[f64], b: &[f64], name: &str| {
        assert_eq!(a.len(), b.len(), "{name}");
        for (a, b) in a.iter().zip(b) {
            // What is no number is as far away as can be.
            let away = (a - b).abs();
            if away > worst.0 || away.is_nan() {
                worst = (if away.is_nan() { f64::INFINITY } else { away }, format!("{name}: {a} and {b}"));
            }
        }
    };
    look(&a.losses, &b.losses, "loss");
    look(&a.norms, &b.norms, "norm");
    for (kind, a, b) in [("weight", &a.weights, &b.weights), ("state", &a.state, &b.state)] {
        let names = |tensors: &BTreeMap<String, Tensor>| tensors.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(a), names(b), "{kind}");
        a.iter().for_each(|(name, tensor)| look(&numbers(tensor), &numbers(&b[name]), name));
    }
    worst
}

pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Whether a division computes what one process does, in f64.
pub fn prove(text: &str, division: Division) {
    prove_in(DType::F64, 1e-10, text, division);
}

/// Whether a division computes what one process does, to a tolerance.
pub fn prove_in(dtype: DType, tolerance: f64, text: &str, division: Division) {
    let division = Division { limit: limit(text), ..division };
    let wanted = one(text, dtype, division.limit, division.how.precision);
    let cut = wanted.norms.iter().filter(|norm| **norm > division.limit).count();
    assert!(cut > 0 && cut < wanted.norms.len(), "clipping acts on some steps: {:?}", wanted.norms);
    let (got, _) = many(text, dtype, division, |world| world, |_, _| ());
    let (away, place) = difference(&wanted, &got);
    assert!(away <= tolerance, "{division:?} in {dtype:?} of {text}: {away:e} at {place}");
}

/// How far apart two trainings are in their losses, norms, weights and optimiser's states: roots of mean squares. Single
/// numbers may be further apart by chance.
fn distances(a: &Outcome, b: &Outcome) -> [(&'static str, f64); 4] {
    let all = |tensors: &BTreeMap<String, Tensor>| tensors.values().flat_map(numbers).collect::<Vec<f64>>();
    let apart = |a: &[f64], b: &[f64]| {
        assert_eq!(a.len(), b.len());
        (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
    };
    [
        ("losses", apart(&a.losses, &b.losses)),
        ("norms", apart(&a.norms, &b.norms)),
        ("weights", apart(&all(&a.weights), &all(&b.weights))),
        ("states", apart(&all(&a.state), &all(&b.state))),
    ]
}

/// Whether a division computes in bf16 what one process computes in bf16. Sums in another order have some numbers rounded
/// the other way, so either is as far from f32 as the other, and they are apart by no more than both together.
pub fn prove_mixed(text: &str, division: Division) {
    let how = How { precision: Precision::Mixed, ..division.how };
    let division = Division { limit: limit(text), how, ..division };
    let wanted = one(text, DType::F32, division.limit, Precision::Mixed);
    let full = one(text, DType::F32, division.limit, Precision::Full);
    let (got, _) = many(text, DType::F32, division, |world| world, |_, _| ());
    let from_full = distances(&full, &got);
    for (((kind, away), (_, rounding)), (_, own)) in
        distances(&wanted, &got).into_iter().zip(distances(&full, &wanted)).zip(from_full)
    {
        eprintln!("{kind}: {:.2} of the rounding apart, own rounding {:.2}", away / rounding, own / rounding);
        assert!(
            own >= rounding / 2.0,
            "{division:?} of {text} does not round {kind}: {own:e} of {rounding:e}"
        );
        assert!(away <= 2.0 * rounding, "{division:?} of {text}: {kind} are {away:e} apart, of {rounding:e}");
    }
}
