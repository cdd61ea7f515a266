//! `models`: what is mounted.

use clap::Parser;
use syscalls::reply::ModelInfo;

use super::arguments::{self, Daemon, Invocation, name_of};
use super::listing::Listing;
use super::{Builtin, Outcome, Run};
use crate::terminal::table::Align;
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "models", command: || arguments::command::<Args>("models"), run: Run::Program(run) };

/// Lists mounted models
///
/// USE says what a model is good for: chat (it follows instructions), text (it continues text) or vectors. MEMORY is
/// what it takes of all devices; one that is unloaded takes none and is loaded again when it is used.
#[derive(Debug, Parser)]
struct Args {
    /// Prints {"models":[…]} with every field
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

const LISTING: Listing<12> = Listing {
    field: "models",
    columns: [
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("USE", Align::Left),
        ("ARCH", Align::Left),
        ("PARAMS", Align::Right),
        ("SIZE", Align::Right),
        ("MEMORY", Align::Right),
        ("CONTEXT", Align::Right),
        ("FREE", Align::Right),
        ("FRAMES", Align::Right),
        ("DEVICE", Align::Left),
        ("FILE", Align::Left),
    ],
};

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let models = args.daemon.connect("models")?.models()?;
    if models.is_empty() && !args.json {
        note!("models: none is mounted; mount one with `{}mount FILE --name NAME`", invocation.prefix);
        return Ok(0);
    }
    LISTING.print(args.json, &models, || models.iter().map(cells).collect())?;
    for model in models.iter().filter(|_| !args.json) {
        if let Some(trouble) = &model.trouble {
            note!("models: {}: {trouble}", model.name);
        }
    }
    Ok(0)
}

fn cells(model: &ModelInfo) -> [String; 12] {
    [
        model.name.clone(),
        name_of(model.state),
        purpose(model).into(),
        model.architecture.clone(),
        units::count(model.parameters),
        units::bytes(model.bytes),
        memory(model),
        model.context_tokens.to_string(),
        model.frames_free.to_string(),
        model.frames_total.to_string(),
        place(model),
        model.path.clone(),
    ]
}

/// What it takes of all devices together; `devices` has the parts.
fn memory(model: &ModelInfo) -> String {
    let share = |s: &syscalls::reply::DeviceShare| s.weights_bytes + s.pool_bytes + s.compute_bytes;
    units::bytes(model.memory.iter().map(share).sum())
}

/// The device, with the layers on it where they are not all there.
fn place(model: &ModelInfo) -> String {
    match model.gpu_layers {
        some if some > 0 && some < model.layers => format!("{} ({some}/{})", model.device, model.layers),
        _ => model.device.clone(),
    }
}

/// What a model is good for, in one word.
pub fn purpose(model: &ModelInfo) -> &'static str {
    match (model.generates, model.chat_template, model.embeds) {
        (true, true, _) => "chat",
        (true, false, _) => "text",
        (false, _, true) => "vectors",
        (false, _, false) => "-",
    }
}
