//! What the shell says when a person opens it: where they are, what is mounted, and what to type.

use std::path::Path;

use syscalls::client::blocking::Client;
use syscalls::reply::ModelInfo;

use crate::shell::builtin::models::purpose;

/// Shows the banner on standard error.
pub fn show(socket: &Path, started: bool) {
    let release = env!("CARGO_PKG_VERSION");
    let mut client = match Client::connect(socket, "llmsh") {
        Ok(client) => client,
        Err(fault) => {
            note!("llmsh {release}: {}.", fault.message);
            note!("`exit`, then `llmsh --start`, opens the shell with a daemon. Type help for the commands.");
            return;
        }
    };
    let whose = if started { ", which this shell has started" } else { "" };
    note!("llmsh {release}, daemon {} on {}{whose}", client.daemon().daemon, socket.display());
    let models = client.models().unwrap_or_default();
    for model in &models {
        note!("  {}", line(model));
    }
    match models.first() {
        None => note!("No model is mounted: mount FILE.gguf --name NAME. Type help for the commands."),
        Some(model) => {
            note!("Try: generate --model {} 'Once upon a time'. Type help for the commands.", model.name);
        }
    }
}

fn line(model: &ModelInfo) -> String {
    let what = match purpose(model) {
        "chat" => "follows instructions",
        "text" => "continues text",
        "vectors" => "makes vectors of text",
        _ => "is not ready",
    };
    format!("{}: {}, {what}", model.name, model.description)
}
