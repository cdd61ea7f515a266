//! The worker: one process for each mounted model, so that what kills a driver costs one replay, never the
//! daemon.
//!
//! `llmasos-driver run` is started by the kernel with one end of a socket pair as its standard input, and talks
//! [`drivers::wire`] there. `llmasos-driver probe` is the child that a worker starts to find out whether this
//! CPU runs the arithmetic that its flags promise. `llmasos-driver devices` lists what a model could run on.

#[cfg(feature = "llama")]
mod llama;
mod worker;

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
}

fn load_request(json: &str) -> Result<LoadRequest, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

fn start_log() {
    let filter = EnvFilter::try_from_env("LLMASOS_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

fn main() -> ExitCode {
    start_log();
    let result = match Arguments::parse().command {
        Command::Run { load } => worker::run(load),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
