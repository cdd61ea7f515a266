//! Finds out whether this CPU runs the arithmetic that its flags promise.
//!
//! ggml chooses its fastest kernels by the CPU's flags, and a flag is no promise: hypervisors show flags of units
//! that they do not pass on, and compilers have got AMX wrong. So before a worker loads its model, a child of it
//! runs a few tiny models of random weights ([`trial`]). If that child dies or computes nonsense, a second one
//! leaves out the special weight layouts, and with them AMX and the repacked kernels (in the portable build, also
//! everything that not each CPU of this family has); if that dies too, the build
//! does not fit the CPU and the mount is refused with a sentence that says so.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use drivers::files::errno_of;
use drivers::gguf::TensorType;
use drivers::gguf::random::Shape;
use drivers::wire::{Asid, DriverFault};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};
use syscalls::call::Attention;
use syscalls::{Errno, Token};

use super::accelerator::{self, Kernel};
use super::batch::Output;
use super::context::{Context, ContextSettings};
use super::made::Made;
use super::measured::Measured;
use super::model::{Model, ModelSettings, Packing};

/// How long a trial may take; it takes some 50 ms where nothing else runs.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(60);

/// How often a trial that runs is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Tokens of the trial's prompt: enough for the kernels that work on whole tiles.
const PROMPT_TOKENS: u32 = 48;

/// How alike the logits of both layouts must be (the cosine between them). Kernels round differently; wrong ones
/// differ in everything.
const ALIKE_MIN: f64 = 0.98;

/// Which kernels a worker lets ggml use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// All of them: weights are laid out for the CPU's special units.
    Packed,
    /// Only those that read weights as the file has them.
    Unpacked,
}

impl Arithmetic {
    fn name(self) -> &'static str {
        match self {
            Arithmetic::Packed => "packed",
            Arithmetic::Unpacked => "unpacked",
        }
    }

    fn from_name(name: &str) -> Option<Arithmetic> {
        [Arithmetic::Packed, Arithmetic::Unpacked].into_iter().find(|known| known.name() == name)
    }
}

/// Why a trial has not passed.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    /// It could not be started, which says nothing about the CPU, and may be otherwise in a moment.
    NotRun(DriverFault),
    /// How it failed.
    Failed(String),
}

fn not_run(error: io::Error) -> Trouble {
    let message = format!("the trial of the CPU cannot be run: {error}");
    Trouble::NotRun(DriverFault::new(errno_of(&error), message))
}

/// What the kernels of this CPU are good for, from an earlier finding or from trials.
///
/// # Errors
///
/// ENODEV where no trial passes; what the system refuses where none can be started.
pub fn find_out(measured: &Measured) -> Result<Arithmetic, DriverFault> {
    let known = measured.get("arithmetic", "").and_then(|name| Arithmetic::from_name(&name));
    if let Some(arithmetic) = known {
        return Ok(arithmetic);
    }
    let arithmetic = first_that_passes(|arithmetic| run_trial(&mut trial_command(arithmetic)?))?;
    measured.put("arithmetic", "", arithmetic.name());
    Ok(arithmetic)
}

/// Tries the fast kernels, then the safe ones.
fn first_that_passes(
    mut passes: impl FnMut(Arithmetic) -> Result<(), Trouble>,
) -> Result<Arithmetic, DriverFault> {
    let mut failure = |arithmetic| match passes(arithmetic) {
        Ok(()) => Ok(None),
        Err(Trouble::Failed(how)) => Ok(Some(how)),
        Err(Trouble::NotRun(fault)) => Err(fault),
    };
    let Some(fast) = failure(Arithmetic::Packed)? else { return Ok(Arithmetic::Packed) };
    tracing::warn!("the fast kernels fail on this CPU ({fast}); trying without packed weights");
    let Some(safe) = failure(Arithmetic::Unpacked)? else { return Ok(Arithmetic::Unpacked) };
    let message = format!(
        "this build of llmasos-driver does not run on this CPU: a test decode failed ({safe}); build it on this \
         machine with `make build`, or use the portable build (`make portable`)"
    );
    Err(DriverFault::new(Errno::ENODEV, message))
}

/// Whether a kernel of this program gives what ggml's does, from an earlier finding or from a trial.
pub fn trusts(kernel: Kernel, arithmetic: Arithmetic, measured: &Measured) -> bool {
    let (name, key) = (kernel.name(), format!("kernel of {}", kernel.name()));
    if let Some(finding) = measured.get(&key, arithmetic.name()) {
        return finding == "agrees";
    }
    let trial = || run_trial(trial_command(arithmetic)?.args(["--kernel", name]));
    let finding = match trial() {
        Ok(()) => "agrees",
        Err(Trouble::NotRun(fault)) => {
            tracing::warn!("the kernel of {name} is left out for now: {fault}");
            return false;
        }
        Err(Trouble::Failed(how)) => {
            tracing::warn!("the kernel of {name} is left out: {how}");
            "differs"
        }
    };
    measured.put(&key, arithmetic.name(), finding);
    finding == "agrees"
}

fn trial_command(arithmetic: Arithmetic) -> Result<Command, Trouble> {
    let executable = std::env::current_exe().map_err(not_run)?;
    let mut command = Command::new(executable);
    command.args(["probe", "--arithmetic", arithmetic.name()]);
    // Nobody reads what it says before its end, so a log at `debug` would fill the pipe and hold it up for ever.
    command.env("LLMASOS_LOG", "error");
    Ok(command)
}

/// Starts a trial, which ends with the thread that starts it: one that hangs would outlive a worker that is killed.
fn start_trial(command: &mut Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let worker = getpid();
    // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // A trial that dies leaves no core file.
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            #[cfg(target_os = "linux")]
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            let in_time = getppid() == worker;
            if in_time { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        });
    }
    command.spawn()
}

/// Runs a trial and says how it failed.
fn run_trial(command: &mut Command) -> Result<(), Trouble> {
    let mut child = start_trial(command).map_err(not_run)?;
    let deadline = Instant::now() + TRIAL_TIME_MAX;
    loop {
        match child.try_wait().map_err(not_run)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let mut said = String::new();
                let _ = child.stderr.take().map(|stderr| stderr.take(4096).read_to_string(&mut said));
                return Err(Trouble::Failed(death(status, &said)));
            }
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                let how = format!("it took more than {} seconds", TRIAL_TIME_MAX.as_secs());
                return Err(Trouble::Failed(how));
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn death(status: ExitStatus, said: &str) -> String {
    match status.signal() {
        Some(number) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        None => said.lines().last().unwrap_or("it failed without a word").trim().to_string(),
    }
}

/// The child's part: runs every kind of kernel once, and compares the fast ones with the safe ones; or compares a
/// kernel of this program with ggml's.
///
/// # Errors
///
/// What was wrong, if the process lived through it.
pub fn trial(name: &str, kernel: Option<Kernel>) -> Result<(), String> {
    let arithmetic = Arithmetic::from_name(name).ok_or("the arithmetic is `packed` or `unpacked`")?;
    super::load::start_backend(arithmetic);
    if let Some(kernel) = kernel {
        return accelerator::agrees(kernel);
    }
    [TensorType::Q8_0, TensorType::Q4_0, TensorType::F16, TensorType::F32]
        .into_iter()
        .try_for_each(|kind| trial_of(kind, arithmetic))
}

fn trial_of(kind: TensorType, arithmetic: Arithmetic) -> Result<(), String> {
    let shape = Shape { kind, embedding: 256, ..Shape::preset("tiny").expect("the preset exists") };
    let made = Made::of(&shape).map_err(|e| format!("the model of the trial cannot be made: {e}"))?;
    let file = made.path();
    let safe = logits(&file, Arithmetic::Unpacked).map_err(|fault| fault.to_string())?;
    if arithmetic == Arithmetic::Unpacked {
        return Ok(());
    }
    let fast = logits(&file, Arithmetic::Packed).map_err(|fault| fault.to_string())?;
    let alike = cosine(&safe, &fast);
    if alike >= ALIKE_MIN {
        Ok(())
    } else {
        Err(format!("packed {kind:?} weights give other results: likeness {alike:.3} of {ALIKE_MIN}"))
    }
}

/// The logits behind a prompt and behind one more token.
fn logits(file: &str, arithmetic: Arithmetic) -> Result<Vec<f32>, DriverFault> {
    // This program's own kernels are not tried here, and would hide ggml's.
    let packing = if arithmetic == Arithmetic::Packed { Packing::ByGgml } else { Packing::None };
    let model = Model::load(file, &ModelSettings { gpu_layers: Some(0), packing }, &mut |_| {})?;
    let settings = ContextSettings {
        tokens: 256,
        batch_tokens: 256,
        ubatch_tokens: 256,
        sequences: 1,
        outputs: 1,
        threads: 2,
        attention: Attention::Flash,
        embeddings: false,
    };
    let mut context = Context::new(&model, &settings)?;
    let prompt: Vec<Token> = (0..PROMPT_TOKENS).map(|at| Token(40 + at * 7 % 200)).collect();
    let mut all = Vec::new();
    for (position, tokens) in [(0, &prompt[..]), (PROMPT_TOKENS, &prompt[..1])] {
        context.batch().clear();
        let place = context.batch().add(Asid(0).0, position, tokens, Output::Last);
        let failed = |why| DriverFault::new(Errno::EIO, format!("the test decode failed: {why}"));
        context.decode().map_err(|error| failed(format!("{error:?}")))?;
        let logits = context.logits(place).ok_or_else(|| failed("no logits".into()))?;
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(failed("logits that are no numbers".into()));
        }
        all.extend_from_slice(logits);
    }
    Ok(all)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_crash_are_left_out_and_a_build_without_others_is_refused() {
        let crash = || Err(Trouble::Failed("killed by SIGILL".into()));
        assert_eq!(first_that_passes(|_| Ok(())), Ok(Arithmetic::Packed));
        let safe = |arithmetic| if arithmetic == Arithmetic::Packed { crash() } else { Ok(()) };
        assert_eq!(first_that_passes(safe), Ok(Arithmetic::Unpacked));
        let fault = first_that_passes(|_| crash()).expect_err("nothing passes");
        assert_eq!(fault.errno, Errno::ENODEV);
        assert!(fault.message.contains("SIGILL") && fault.message.contains("make build"), "{fault}");
    }

    #[test]
    fn death_of_a_trial_is_told_by_its_signal_or_its_last_words() {
        let run = |script: &str| run_trial(Command::new("sh").args(["-c", script]));
        assert_eq!(run("exit 0"), Ok(()));
        let failed = |how: &str| Err(Trouble::Failed(how.into()));
        assert_eq!(run("kill -ILL $$"), failed("killed by SIGILL"));
        assert_eq!(run("echo it is wrong >&2; exit 1"), failed("it is wrong"));
    }

    #[test]
    fn trial_that_cannot_be_started_says_nothing_about_the_cpu() {
        let Err(Trouble::NotRun(fault)) = run_trial(&mut Command::new("/nowhere/trial")) else {
            panic!("there is no such program")
        };
        assert_eq!(fault.errno, Errno::ENOENT);
        let full = || io::Error::from_raw_os_error(libc::EAGAIN);
        let fault = first_that_passes(|_| Err(not_run(full()))).expect_err("none was run");
        assert!(fault.is_shortage(), "{fault}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn trial_ends_with_whoever_has_started_it() {
        let start = || start_trial(Command::new("sleep").arg("20")).expect("sleep is part of every Linux");
        let mut left = std::thread::spawn(start).join().expect("it only starts it");
        assert_eq!(left.wait().expect("it is a child").signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn trial_passes_on_the_machine_that_built_this() {
        assert_eq!(trial("packed", None), Ok(()));
        assert_eq!(trial("unpacked", None), Ok(()));
        assert!(trial("other", None).is_err());
    }
}
