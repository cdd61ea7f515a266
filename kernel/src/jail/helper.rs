//! What the helper is told: on its command line what it is to become, and in its environment within which bounds.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use super::{Orders, enter};

/// The helper's name. The daemon's executable is the helper where it is called by this name.
pub const NAME: &str = "llmasos-jail";

/// The variable that has the orders, as JSON. Everybody may read the command line of a process, and only its user the
/// environment; and the variables of the program are among the orders, which its guard has for as long as it runs.
pub const ORDERS_VAR: &str = "LLMASOS_JAIL_ORDERS";

/// The exit status where the program was not started, as of `env` and shells.
const NOT_STARTED: u8 = 126;

#[derive(Parser)]
#[command(name = NAME, version, about = "Runs a program for the llmasos daemon, with little in its reach")]
struct Arguments {
    /// The program and its arguments
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

fn orders() -> Result<Orders, String> {
    let json = std::env::var(ORDERS_VAR).map_err(|e| e.to_string())?;
    serde_json::from_str(&json).map_err(|e| e.to_string())
}

/// Becomes the program, or says why not.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some((program, rest)) = arguments.program.split_first() else { return ExitCode::from(NOT_STARTED) };
    match orders() {
        Err(error) => eprintln!("{NAME}: {ORDERS_VAR} has no orders: {error}"),
        Ok(orders) => {
            let Err(error) = enter(&orders, program, rest);
            eprintln!("{NAME}: {error}");
        }
    }
    ExitCode::from(NOT_STARTED)
}
