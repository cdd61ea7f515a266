//! Chooses the attention kernel by measurement.
//!
//! On CPUs neither of llama.cpp's two is faster everywhere: the fused one skips what belongs to other sequences,
//! so it wins where many share the pool and on long prompts; two matrix products with a softmax between are
//! faster for each cell, so they win for one sequence alone. The third, [`blocked`], is meant to be the fastest for
//! all loads, where the CPU has what it needs. By how much depends on the CPU and the shape of the
//! heads, and on little else of the model. So all run on a model of one layer with the same heads and hardly
//! anything beside attention, which takes a fraction of a second however large the real model is. One thread runs
//! them and its CPU time is taken, so that other programs on the machine do not decide.
//!
//! What is timed stands for a mixed load: eight processes with prompts of 512 tokens each, which then generate
//! one token for every four of the prompt, half of them with one process alone and half with all eight at once.

use std::sync::Arc;
use std::time::Duration;

use drivers::gguf::random::{Family, Shape};
use drivers::gguf::{Header, TensorType};
use drivers::wire::{Asid, DriverFault};
use syscalls::call::Attention;
use syscalls::{Errno, Token};

use super::accelerator::{self, Kernel};
use super::batch::Output;
use super::context::{Context, ContextSettings, UBATCH_TOKENS};
use super::made::Made;
use super::measured::Measured;
use super::model::{Model, ModelSettings, Packing};

/// Processes of the load.
const PROCESSES: u16 = 8;

/// Tokens of each process's prompt.
const PROMPT_TOKENS: u32 = 512;

/// Tokens that the load generates with one process alone, and again with all at once: together a quarter of the
/// prompts' tokens.
const GENERATED_TOKENS: u32 = PROCESSES as u32 * PROMPT_TOKENS / 8;

/// Passes of which the fastest counts: the first ones warm the caches.
const REPEATS: u32 = 4;

/// CPU time that measuring may take, for all kernels together: several times what it takes on slow CPUs. One that is
/// emulated takes a hundred times as long as another, and a mount must not wait for that.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Heads of the model that is measured, at least.
const HEADS: u32 = 4;

/// What runs where it cannot be measured: the kernel whose cost does not grow with what others hold, the first of them.
const UNMEASURED: Attention = KERNELS[0].0;

/// The kernels with their names in findings.
const KERNELS: [(Attention, &str); 3] =
    [(Attention::Flash, "flash"), (Attention::Plain, "plain"), (Attention::Blocked, "blocked")];

/// The kernel that is fastest here for heads of this shape.
pub fn choose(header: &Header, measured: &Measured) -> Attention {
    let Some(shape) = heads_of(header) else { return UNMEASURED };
    let key = format!(
        "{} {} {} {}",
        shape.heads,
        shape.kv_heads,
        shape.embedding,
        accelerator::usable(Kernel::Attention)
    );
    let kept = measured.get("attention", &key);
    if let Some((attention, _)) = KERNELS.iter().find(|(_, name)| kept.as_deref() == Some(name)) {
        return *attention;
    }
    match measure(&shape, TIME_MAX) {
        Ok(times) => {
            let all: Vec<String> = times.iter().map(|(_, name, time)| format!("{name} {time:?}")).collect();
            let (attention, name) = fastest(&times);
            tracing::info!("attention: {name}; the same load takes {}", all.join(", "));
            measured.put("attention", &key, name);
            attention
        }
        Err(fault) => {
            tracing::warn!("attention cannot be measured: {fault}");
            UNMEASURED
        }
    }
}

/// A model of one layer with heads like those of this one, where its header tells them: as wide, and as many to
/// one pair of keys and values, but a few only, since all cost the same.
fn heads_of(header: &Header) -> Option<Shape> {
    let count = |key: &str| header.own_count(key).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let all = count("attention.head_count")?;
    let group = all / count("attention.head_count_kv").unwrap_or(all).min(all);
    let width = count("attention.key_length").or_else(|| Some(count("embedding_length")? / all))?;
    let kv_heads = HEADS.div_ceil(group);
    let shape = Shape {
        family: Family::Llama,
        layers: 1,
        embedding: group * kv_heads * width,
        heads: group * kv_heads,
        kv_heads,
        feed_forward: 32,
        vocabulary: 512,
        context: PROMPT_TOKENS * 2,
        kind: TensorType::F16,
        tied: true,
        seed: 1,
    };
    shape.trouble().is_none().then_some(shape)
}

/// Kernels with their names and the time that the load takes with them.
type Times = Vec<(Attention, &'static str, Duration)>;

/// The kernel that takes the least time, or the one for CPUs too slow to measure any.
fn fastest(times: &Times) -> (Attention, &'static str) {
    let least = times.iter().min_by_key(|(_, _, time)| *time);
    least.map_or(KERNELS[0], |&(attention, name, _)| (attention, name))
}

/// The time of the load with each kernel that runs here, as far as that is known after so much CPU time.
fn measure(shape: &Shape, mut left: Duration) -> Result<Times, DriverFault> {
    let failed = |e| DriverFault::new(Errno::EIO, format!("the model to measure with cannot be made: {e}"));
    let made = Made::of(shape).map_err(failed)?;
    let settings = ModelSettings { gpu_layers: Some(0), packing: Packing::None };
    let model = Model::load(&made.path(), &settings, &mut |_| {})?;
    let mut times = Times::new();
    for (attention, name) in KERNELS {
        if let Some(time) = load(&model, attention, &mut left)? {
            times.push((attention, name, time));
        }
    }
    Ok(times)
}

/// The time of the load, with what would repeat the same measured once. None where the kernel does not run, or no time is
/// left to see how fast.
fn load(
    model: &Arc<Model>,
    attention: Attention,
    left: &mut Duration,
) -> Result<Option<Duration>, DriverFault> {
    let settings = ContextSettings {
        tokens: (u32::from(PROCESSES) + 1) * PROMPT_TOKENS,
        batch_tokens: PROMPT_TOKENS.max(UBATCH_TOKENS),
        ubatch_tokens: UBATCH_TOKENS,
        sequences: PROCESSES,
        outputs: u32::from(PROCESSES),
        threads: 1,
        attention,
        embeddings: false,
    };
    let mut bench = Bench { context: Context::new(model, &settings)?, left };
    if bench.context.attention() != attention {
        return Ok(None);
    }
    match bench.run() {
        Ok(time) => Ok(Some(time)),
        Err(Unfinished::OutOfTime) => Ok(None),
        Err(Unfinished::Failed(fault)) => Err(fault),
    }
}

/// Why the load was not run to its end.
enum Unfinished {
    OutOfTime,
    Failed(DriverFault),
}

struct Bench<'a> {
    context: Context,
    /// CPU time that passes may still take.
    left: &'a mut Duration,
}

impl Bench<'_> {
    fn run(&mut self) -> Result<Duration, Unfinished> {
        self.prompt(0)?;
        let alone = self.fastest_pass(1)?;
        self.context.clear();
        let mut prompts = Duration::ZERO;
        for asid in 0..PROCESSES {
            prompts += self.prompt(asid)?;
        }
        let together = self.fastest_pass(PROCESSES)?;
        Ok(prompts + alone * GENERATED_TOKENS + together * (GENERATED_TOKENS / u32::from(PROCESSES)))
    }

    /// The time of a prompt.
    fn prompt(&mut self, asid: u16) -> Result<Duration, Unfinished> {
        let tokens: Vec<Token> = (0..PROMPT_TOKENS).map(|at| Token(at % 256)).collect();
        self.context.batch().clear();
        self.context.batch().add(asid, 0, &tokens, Output::None);
        self.pass()
    }

    /// The time in which each of the first processes gets one token.
    fn fastest_pass(&mut self, processes: u16) -> Result<Duration, Unfinished> {
        let mut fastest = Duration::MAX;
        for _ in 0..REPEATS {
            self.context.batch().clear();
            for asid in 0..processes {
                self.context.batch().add(asid, PROMPT_TOKENS, &[Token(65)], Output::Last);
            }
            fastest = fastest.min(self.pass()?);
            for asid in 0..processes {
                self.context.drop_from(Asid(asid), PROMPT_TOKENS);
            }
        }
        Ok(fastest)
    }

    fn pass(&mut self) -> Result<Duration, Unfinished> {
        if self.left.is_zero() {
            return Err(Unfinished::OutOfTime);
        }
        let start = cpu_time();
        let failed = |error| DriverFault::new(Errno::EIO, format!("a pass failed: {error:?}"));
        self.context.decode().map_err(|error| Unfinished::Failed(failed(error)))?;
        self.context.wait();
        let time = cpu_time() - start;
        *self.left = self.left.saturating_sub(time);
        Ok(time)
    }
}

/// CPU time of this thread, on which a context of one thread computes.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is a valid place to write to; where there is no such clock it stays 0.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_any_model_can_be_measured() {
        super::super::load::start_backend(super::super::arithmetic::Arithmetic::Packed);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        Shape::preset("tiny").expect("the preset exists").write(&path).expect("it can be written");
        let header = drivers::gguf::open(&path).expect("it is a model");
        let shape = heads_of(&header).expect("its heads are known");
        assert_eq!((shape.heads, shape.kv_heads, shape.embedding), (4, 2, 128));
        let measured = Measured::new(folder.path().to_str());
        let chosen = choose(&header, &measured);
        assert_ne!(chosen, Attention::Auto);
        let key = format!("4 2 128 {}", accelerator::usable(Kernel::Attention));
        let kept = measured.get("attention", &key).expect("it is kept");
        let name = KERNELS.iter().find(|(attention, _)| *attention == chosen).expect("it is known").1;
        assert_eq!(kept, name);
        assert_eq!(choose(&header, &measured), chosen);

        // A CPU on which hardly a pass is done in the time for all of them: nothing is known, and one is chosen.
        let times = measure(&shape, Duration::from_nanos(1)).expect("it is no fault");
        assert!(times.is_empty());
        assert_eq!(fastest(&times).0, UNMEASURED);
    }
}
