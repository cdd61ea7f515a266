//! `mount`: makes a model available.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use syscalls::call::{Attention, Mount};
use syscalls::client::{self, blocking::Client};
use syscalls::limits::CONTEXT_TOKENS_MAX;
use syscalls::reply::ModelInfo;
use syscalls::{Event, Tokens};

use super::arguments::{self, Daemon, Invocation, name_of};
use super::failure::{Failure, unreadable};
use super::models::purpose;
use super::{Builtin, Outcome, Run};
use crate::terminal::clean::clean;
use crate::terminal::output::Output;
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "mount", command: || arguments::command::<Args>("mount"), run: Run::Program(run) };

/// Makes a model available under a name
///
/// FILE is a GGUF. `sim:` and a script mounts the driver without a model, for tests of programs. The mount stays
/// over restarts of the daemon, until `umount`. Where memory is short, models that nobody uses, and those whose contexts
/// rest, are unloaded until they are used again; a model that has no room even so is refused, and told why. --context
/// fixes the size of the pool; without it the pool may get smaller.
#[derive(Debug, Parser)]
struct Args {
    /// The model's file
    file: PathBuf,
    /// The name to mount it under [default: from the file's name]
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,
    /// Tokens that a context can hold [default: what the model was trained with, at most 8192]
    #[arg(long, short, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONTEXT_TOKENS_MAX)))]
    context: Option<u32>,
    /// The attention kernel; auto measures which one is faster here
    #[arg(long, default_value = "auto", value_parser = arguments::attention())]
    attention: Attention,
    /// Layers for the graphics device, the output counted as one; auto is as many as fit beside the pool
    #[arg(long, value_name = "N", default_value = "auto")]
    gpu_layers: GpuLayers,
    /// The device, as `devices` lists them [default: the one where most of the model fits]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Threads of the worker [default: one for each physical core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// What a context generates depends on it alone, to the last bit, and not on what runs beside it; slower
    #[arg(long)]
    deterministic: bool,
    /// Takes the file as it is now for the model of this name, which is offline because its file has changed
    #[arg(long)]
    accept_changed: bool,
    /// Prints one object that describes the model
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// A number of layers, or none for `auto`.
#[derive(Clone, Copy, Debug)]
struct GpuLayers(Option<u32>);

impl FromStr for GpuLayers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(GpuLayers(None)),
            number => match number.parse() {
                Ok(number) => Ok(GpuLayers(Some(number))),
                Err(_) => Err("give a number of layers, or auto".into()),
            },
        }
    }
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mount = Mount {
        path: absolute(&args.file)?,
        name: args.name,
        context: args.context.map(Tokens),
        attention: args.attention,
        gpu_layers: args.gpu_layers.0,
        device: args.device,
        threads: args.threads,
        deterministic: args.deterministic,
        accept_changed: args.accept_changed,
    };
    let mut client = args.daemon.connect("mount")?;
    let begin = Instant::now();
    let model = mount_with_progress(&mut client, mount)?;
    let mut output = Output::stdout();
    if args.json {
        output.write_json(&model)?;
    } else {
        output.write(&format!("{}\n", describe(&model, begin.elapsed())))?;
    }
    Ok(0)
}

/// Mounts a file under a name with everything else left to the daemon, unless something is mounted under that
/// name already.
///
/// # Errors
///
/// The file is not there, or the daemon refuses it.
pub fn mount_unless_there(client: &mut Client, file: &Path, name: &str) -> Result<(), Failure> {
    if client.models()?.iter().any(|m| m.name == name) {
        return Ok(());
    }
    mount_with_progress(client, client::mount(&absolute(file)?, name))?;
    Ok(())
}

/// The path as the daemon needs it, which works in another folder.
fn absolute(file: &Path) -> Result<String, Failure> {
    let path = match file.to_str() {
        Some(script) if script.starts_with("sim:") => return Ok(script.to_owned()),
        _ => file.canonicalize().map_err(|error| unreadable(file, &error))?,
    };
    path.into_os_string().into_string().map_err(|path| {
        Failure::Message(format!("the path {} is not UTF-8; rename it", Path::new(&path).display()))
    })
}

/// Mounts, with a bar on standard error if that is a terminal.
fn mount_with_progress(client: &mut Client, mount: Mount) -> Result<ModelInfo, Failure> {
    const PARTS: u64 = 1000;
    // The bar hides itself where standard error is no terminal.
    let bar = ProgressBar::new(PARTS).with_style(
        ProgressStyle::with_template("{msg} [{bar:30}] {percent}%")
            .expect("the template is sound")
            .progress_chars("=> "),
    );
    let result = client.mount_with(mount, |event| {
        if let Event::Progress { fraction, what } = event {
            bar.set_message(clean(&what));
            bar.set_position((fraction.clamp(0.0, 1.0) * PARTS as f32) as u64);
        }
    });
    bar.finish_and_clear();
    Ok(result?)
}

/// What was mounted, in one line.
fn describe(model: &ModelInfo, took: Duration) -> String {
    format!(
        "{}: {} {} for {}, {} parameters, context {} tokens, {} attention on {} with {} threads; mounted in {}",
        model.name,
        model.driver,
        model.architecture,
        purpose(model),
        units::count(model.parameters),
        model.context_tokens,
        name_of(model.attention),
        model.device,
        model.threads,
        units::duration(took),
    )
}
