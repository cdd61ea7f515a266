//! What is estimated from a header, against what llama.cpp says that it allocates when it loads the file.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Once;

use drivers::estimate::{Estimate, estimate};
use drivers::gguf::TensorType;
use drivers::gguf::random::{Family, Shape};
use drivers::wire::LoadRequest;
use syscalls::call::Attention;
use tracing_subscriber::filter::LevelFilter;

use super::{load, request, shared};

/// By how much an estimate of the buffers may be above what is allocated, in percent. It is never below.
const ABOVE_MAX_PERCENT: u64 = 15;

/// What that is at least, for buffers so small that it does not matter.
const ABOVE_MAX_BYTES: u64 = 2 << 20;

/// llama.cpp tells sizes in hundredths of a mebibyte.
const ROUNDING_BYTES: u64 = (1 << 20) / 100;

thread_local! {
    /// What this thread logs while it is asked to keep it.
    static KEPT: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Where all threads log to. A subscriber for each thread would not do: which levels are heard at all is one number for
/// the whole process, and changes under a thread when another one's subscriber goes.
struct OfThisThread;

impl Write for OfThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        KEPT.with_borrow_mut(|kept| kept.iter_mut().for_each(|kept| kept.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged by the way.
pub(super) fn logged<T>(act: impl FnOnce() -> T) -> (T, String) {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        let log = tracing_subscriber::fmt().with_max_level(LevelFilter::DEBUG).with_ansi(false);
        log.with_writer(|| OfThisThread).init();
    });
    KEPT.set(Some(Vec::new()));
    let result = act();
    (result, String::from_utf8(KEPT.take().unwrap()).unwrap())
}

/// The bytes of the last buffer of a kind in a log.
fn last(log: &str, kind: &str) -> u64 {
    let size =
        log.lines().rev().find_map(|line| line.split_once(&format!("{kind} buffer size ="))).unwrap().1;
    bytes(size)
}

/// The bytes of all buffers of a kind that the last context in a log has.
fn all(log: &str, kind: &str) -> u64 {
    let what = format!(" {kind} buffer size =");
    let last = log.rsplit("constructing llama_context").next().unwrap();
    last.lines().filter_map(|line| line.split_once(&what)).map(|(_, size)| bytes(size)).sum()
}

fn bytes(size: &str) -> u64 {
    let mebibytes: f64 = size.trim().strip_suffix(" MiB").unwrap().trim().parse().unwrap();
    (mebibytes * f64::from(1 << 20)) as u64
}

/// The bytes of weights where they are mapped, and of those that were copied out of the file, into layouts of their own.
fn weights(log: &str) -> (u64, u64) {
    let buffers = log.lines().filter_map(|line| line.split_once("model buffer size ="));
    let (mapped, packed): (Vec<_>, Vec<_>) = buffers.partition(|(place, _)| place.contains("CPU_Mapped"));
    let sum = |buffers: Vec<(&str, &str)>| buffers.into_iter().map(|(_, size)| bytes(size)).sum();
    (sum(mapped), sum(packed))
}

/// Loads a model in main memory and compares every buffer.
fn check(path: &Path, attention: Attention, context_tokens: Option<u32>) {
    let device = Some("cpu".into());
    let request = LoadRequest { attention, context_tokens, device, sequences_max: 256, ..request(path) };
    let (driver, log) = logged(|| load(&request).unwrap());
    let estimate: Estimate = estimate(&request).unwrap();
    assert_eq!(estimate.pool_tokens, driver.description().pool_tokens);
    let needs = estimate.split(estimate.pool_tokens, 0, false).host;
    // Layers with windows have a buffer of their own, and recurrent ones have states.
    let ((mapped, packed), pool) = (weights(&log), all(&log, "KV") + all(&log, "RS"));
    let told = driver.description().pool_bytes;
    assert!(told.abs_diff(pool) <= 2 * ROUNDING_BYTES, "pool of {path:?}: {told} of {pool}");
    let compute = last(&log, "compute") + last(&log, "output");
    let name = path.file_name().unwrap().to_str().unwrap();
    let of = |what: &str| format!("{what} of {name}, {attention:?}, {context_tokens:?}");
    println!(
        "{}: weights {} of {mapped} mapped and {packed} packed, pool {} of {pool}, compute {} of {compute}",
        of("estimate"),
        needs.weights,
        needs.pool,
        needs.compute
    );
    // What is mapped reaches from the first weight to the last, over those that were copied from between them. So with
    // copies it is not told to the byte what is needed: more than the copies, and less than them and all that is mapped.
    let least = if packed > 0 { packed } else { mapped };
    let within = least.saturating_sub(ROUNDING_BYTES)..=packed + mapped + 2 * ROUNDING_BYTES;
    assert!(within.contains(&needs.weights), "{}: {} of {within:?}", of("weights"), needs.weights);
    assert!(needs.pool.abs_diff(pool) <= 2 * ROUNDING_BYTES, "{}: {} of {pool}", of("pool"), needs.pool);
    let most = compute + (compute * ABOVE_MAX_PERCENT / 100).max(ABOVE_MAX_BYTES);
    let least = compute - 2 * ROUNDING_BYTES;
    assert!((least..=most).contains(&needs.compute), "{}: {} of {compute}", of("compute"), needs.compute);
}

fn check_both(path: &Path, context_tokens: Option<u32>) {
    check(path, Attention::Plain, context_tokens);
    check(path, Attention::Flash, context_tokens);
}

#[test]
fn estimate_of_models_made_here_is_near_what_llama_cpp_allocates() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = Shape::preset("tiny").unwrap();
    let shapes = [
        ("llama", tiny.clone()),
        ("gpt2", Shape { family: Family::Gpt2, kv_heads: 4, layers: 4, ..tiny.clone() }),
        ("qwen2", Shape { family: Family::Qwen2, vocabulary: 16_384, kv_heads: 1, ..tiny.clone() }),
        ("untied", Shape { tied: false, kind: TensorType::F16, ..tiny.clone() }),
        ("wide", Shape { embedding: 256, feed_forward: 4096, heads: 8, kv_heads: 8, ..tiny.clone() }),
        ("gemma2", Shape { layers: 5, ..tiny.clone().of(Family::Gemma2) }),
        ("mamba", tiny.clone().of(Family::Mamba)),
        ("mamba of more layers", Shape { embedding: 256, layers: 6, ..tiny.clone().of(Family::Mamba) }),
        ("jamba", tiny.clone().of(Family::Jamba)),
        ("jamba of more layers", Shape { embedding: 256, layers: 5, ..tiny.clone().of(Family::Jamba) }),
        ("qwen3moe", tiny.clone().of(Family::Qwen3Moe)),
        ("qwen3moe, wide", Shape { embedding: 256, feed_forward: 1024, ..tiny.clone().of(Family::Qwen3Moe) }),
        ("qwen3moe, narrow", Shape { feed_forward: 32, ..tiny.of(Family::Qwen3Moe) }),
    ];
    for (name, shape) in shapes {
        let path = folder.path().join(format!("{name}.gguf"));
        shape.write(&path).unwrap();
        check_both(&path, None);
        check_both(&path, Some(1024));
    }
}

#[test]
fn estimate_of_deterministic_mounts_is_near_what_their_workers_tell() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let tiny = Shape::preset("tiny").unwrap();
    Shape { embedding: 512, heads: 8, kv_heads: 8, layers: 8, kind: TensorType::F16, ..tiny }
        .write(&path)
        .unwrap();
    for attention in [Attention::Plain, Attention::Flash] {
        for context_tokens in [None, Some(1000)] {
            let request = LoadRequest { deterministic: true, attention, context_tokens, ..request(&path) };
            let driver = load(&request).unwrap();
            let told = driver.description();
            let needs = estimate(&request).unwrap().split(told.pool_tokens, 0, false).host;
            let told = told.pool_bytes + told.compute_bytes;
            let most = told + (told * ABOVE_MAX_PERCENT / 100).max(ABOVE_MAX_BYTES);
            let least = told - 2 * ROUNDING_BYTES;
            let estimated = needs.pool + needs.compute;
            assert!((least..=most).contains(&estimated), "{attention:?}: {estimated} of {told}");
        }
    }
}

#[test]
fn estimate_of_shared_models_is_near_what_llama_cpp_allocates() {
    for kind in ["F16", "Q4_0", "Q8_0"] {
        let Some(path) = shared(&format!("TinyStories-656K/TinyStories-656K-{kind}.gguf")) else { return };
        check_both(&path, None);
    }
}
