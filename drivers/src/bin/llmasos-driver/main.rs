//! The worker: one process for each mounted model, so that what kills a driver costs one replay, never the
//! daemon.
//!
//! `llmasos-driver run` is started by the kernel with one end of a socket pair as its standard input, and talks
//! [`drivers::wire`] there. `llmasos-driver probe` is the child that a worker starts to find out whether this
//! CPU runs the arithmetic that its flags promise. `llmasos-driver devices` lists graphics devices for the daemon, and
//! `llmasos-driver convert` makes a GGUF file of a sentence encoder.

mod llama;
mod worker;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drivers::wire::LoadRequest;
use tracing_subscriber::EnvFilter;

/// What the log shows where the environment says nothing.
const LOG_DEFAULT: &str = "info";

#[derive(Parser)]
#[command(name = "llmasos-driver", version, about = "Runs one model for the llmasos daemon")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Loads a model and serves the daemon on standard input, a socket.
    Run {
        /// What to load, as JSON.
        #[arg(long, value_parser = load_request)]
        load: LoadRequest,
    },
    /// Finds out whether this CPU runs ggml's kernels; workers start it before they load a model.
    Probe {
        /// `packed` for all kernels, `unpacked` for those that read weights as the file has them.
        #[arg(long, default_value = "packed")]
        arithmetic: String,
        /// Compares one of this program's own kernels with ggml's instead.
        #[arg(long, value_enum)]
        kernel: Option<llama::Kernel>,
    },
    /// Times a model with each attention kernel, in alternation.
    Attention {
        /// The model's file.
        model: PathBuf,
        /// Threads [default: one for each physical core]
        #[arg(long)]
        threads: Option<u32>,
        /// Rounds, of which the fastest counts.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Only the loads whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Lists the graphics devices that this build can use, as JSON; the daemon runs it once, at its start.
    Devices,
    /// Writes a sentence encoder in Hugging Face's layout (BERT) as a GGUF file that can be mounted.
    Convert {
        /// The folder of `config.json`, `model.safetensors` and `vocab.txt`.
        folder: PathBuf,
        /// The file to write.
        out: PathBuf,
    },
}

fn load_request(json: &str) -> Result<LoadRequest, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

fn start_log() {
    let filter = EnvFilter::try_from_env("LLMASOS_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

fn list_devices() -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&llama::devices())?);
    Ok(())
}

fn main() -> ExitCode {
    start_log();
    let result = match Arguments::parse().command {
        Command::Run { load } => worker::run(load),
        Command::Probe { arithmetic, kernel } => {
            llama::arithmetic::trial(&arithmetic, kernel).map_err(anyhow::Error::msg)
        }
        Command::Attention { model, threads, rounds, only } => {
            llama::contest::run(&model, threads, rounds, &only)
        }
        Command::Devices => list_devices(),
        Command::Convert { folder, out } => {
            drivers::gguf::convert::bert_from_hf(&folder, &out).map_err(anyhow::Error::new)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
