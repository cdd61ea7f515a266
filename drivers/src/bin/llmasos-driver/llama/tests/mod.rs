//! The driver as the kernel sees it, on models made here and, where they are, on the shared ones.

#![allow(clippy::unwrap_used)]

mod clearing;
mod deterministic;
mod drafts;
mod estimate;
mod files;
mod golden;
mod packed;
mod paging;
mod samplers;
mod steps;
mod texts;
mod whole;
mod withdrawals;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use drivers::Driver;
use drivers::files::ModelFiles;
use drivers::gguf::random::Shape;
use drivers::wire::{
    Asid, DriverFault, LoadRequest, Op, PageLabel, PageOwner, Row, RowDone, Sampled, SamplerSpec,
    SamplingSpec, Slot, Step, StepDone, SwapArea, TokenizeRequest,
};
use syscalls::call::{Attention, Sampling};
use syscalls::{Errno, Token};

use super::arithmetic::Arithmetic;
use super::batch::Output;
use super::context::{Context, ContextSettings};
use super::grammar::Grammar;
use super::load::load_with;
use super::model::{Model, ModelSettings, Packing};

/// A model made of random weights, written once for all tests.
pub fn random_model(preset: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let path = folder.path().join(format!("{preset}-{:?}.gguf", std::thread::current().id()));
    if !path.exists() {
        Shape::preset(preset).unwrap().write(&path).unwrap();
    }
    path
}

/// A file of the shared models, where they are.
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LLMASOS_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let path = root.join("data/models").join(name);
    if !path.exists() {
        eprintln!("skipped: no {} under $LLMASOS_SHARED", name);
        return None;
    }
    Some(path)
}

fn request(path: &Path) -> LoadRequest {
    LoadRequest {
        path: path.to_str().unwrap().into(),
        context_tokens: None,
        sequences_max: 16,
        attention: Attention::Plain,
        gpu_layers: None,
        threads: Some(2),
        cache_dir: None,
        ..LoadRequest::default()
    }
}

/// A model, and settings for so many sequences of it, to use llama.cpp with nothing of the driver between.
fn bare(path: &Path, sequences: u16) -> (Arc<Model>, ContextSettings) {
    let settings = ModelSettings { gpu_layers: None, packing: Packing::Best };
    let model = Model::load(path.to_str().unwrap(), &settings, &mut |_| {}).unwrap();
    let settings = ContextSettings {
        tokens: 256,
        batch_tokens: 256,
        ubatch_tokens: 256,
        sequences,
        outputs: sequences.into(),
        threads: 1,
        attention: Attention::Plain,
        embeddings: false,
    };
    (model, settings)
}

/// Loads without the trial of the CPU, for which this program would have to be the worker.
fn load(request: &LoadRequest) -> Result<Box<dyn Driver>, DriverFault> {
    let files = ModelFiles::of(request)?;
    load_with(request, &files, files.headers()?, Arithmetic::Packed, &mut |_| {})
}

fn mounted(path: &Path) -> Box<dyn Driver> {
    load(&request(path)).unwrap()
}

fn sampling(change: impl FnOnce(&mut Sampling)) -> SamplingSpec {
    let mut sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    change(&mut sampling);
    SamplingSpec::new(&sampling, 42)
}

fn spec(sampling: SamplingSpec) -> SamplerSpec {
    SamplerSpec { sampling, history: vec![], generated: vec![], ignore_eos: true, logprobs: None }
}

fn tokens(ids: &[u32]) -> Vec<Token> {
    ids.iter().copied().map(Token).collect()
}

/// Runs one step and answers its rows.
fn run(driver: &mut dyn Driver, ops: Vec<Op>, rows: Vec<Row>) -> Vec<RowDone> {
    driver.step(&Step { number: 1, ops, rows }).unwrap().rows
}

fn sampled(done: RowDone) -> Sampled {
    match done {
        RowDone::Sampled(mut sampled) => sampled.remove(0),
        other => panic!("no token came: {other:?}"),
    }
}

/// Generates for several sequences at once, each with its prompt and sampler, from empty sequences.
fn generate(driver: &mut dyn Driver, jobs: &[(Vec<Token>, SamplerSpec)], count: usize) -> Vec<Vec<Token>> {
    let asid = |at: usize| Asid(at as u16);
    let open = |(at, (_, sampler)): (usize, &(Vec<Token>, SamplerSpec))| {
        [
            Op::Drop { asid: asid(at), from: 0 },
            Op::SamplerOpen { asid: asid(at), sampler: sampler.clone().into() },
        ]
    };
    let mut ops: Vec<Op> = jobs.iter().enumerate().flat_map(open).collect();
    let mut feed: Vec<Vec<Token>> = jobs.iter().map(|(prompt, _)| prompt.clone()).collect();
    let mut positions = vec![0; jobs.len()];
    let mut out = vec![Vec::new(); jobs.len()];
    for _ in 0..count {
        let rows = (0..jobs.len())
            .map(|at| Row {
                asid: asid(at),
                position: positions[at],
                tokens: feed[at].clone().into(),
                sample: true,
                draft: vec![],
            })
            .collect();
        for (at, done) in run(driver, std::mem::take(&mut ops), rows).into_iter().enumerate() {
            positions[at] += feed[at].len() as u32;
            let token = sampled(done).token;
            out[at].push(token);
            feed[at] = vec![token];
        }
    }
    out
}

fn row(asid: u16, position: u32, ids: &[u32]) -> Row {
    Row { asid: Asid(asid), position, tokens: tokens(ids).into(), sample: true, draft: vec![] }
}

/// What the reference implementations chose greedily.
fn golden(model: &str) -> Option<(Vec<Token>, Vec<Token>)> {
    let text = std::fs::read_to_string(shared("golden.json")?).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = |key: &str| {
        let ids = all[model][key].as_array().unwrap().iter();
        ids.map(|id| Token(id.as_u64().unwrap() as u32)).collect()
    };
    Some((list("prompt_ids"), list("greedy_40")))
}
