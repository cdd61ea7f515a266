//! `store`: values that outlive programs and the daemon.

use clap::{Parser, Subcommand};
use serde_json::Value;
use syscalls::Reply;
use syscalls::call::{StoreDelete, StoreGet, StoreList, StorePut, StoreSearch};
use syscalls::client::blocking::Client;

use super::arguments::{self, Daemon, Invocation};
use super::failure::Failure;
use super::generate::prompt;
use super::{Builtin, Outcome, Run};
use crate::terminal::output::Output;

pub const BUILTIN: Builtin =
    Builtin { name: "store", command: || arguments::command::<Args>("store"), run: Run::Program(run) };

/// Keeps values under keys, in stores of one's own
///
/// A store comes to be with its first value. What is put there is on disk when the command returns. Other users do
/// not see it.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sets the value of a key
    Put {
        /// Takes the value as JSON instead of as text
        #[arg(long)]
        json: bool,
        /// The store
        store: String,
        /// The key
        key: String,
        /// The value; - is standard input, as it is
        value: String,
    },
    /// Prints the value of a key; the exit status is 1 where it has none
    Get {
        /// The store
        store: String,
        /// The key
        key: String,
    },
    /// Lists the keys of a store
    Ls {
        /// The store
        store: String,
        /// Only keys that begin so
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Removes keys
    Rm {
        /// The store
        store: String,
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Lists the keys whose values have words of a text, best first, with their scores
    Search {
        /// How many at most
        #[arg(long, short = 'n', default_value_t = 10)]
        count: u32,
        /// The store
        store: String,
        /// The words
        text: String,
    },
}

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("store")?;
    match args.what {
        What::Put { json, store, key, value } => {
            let value = value_of(json, prompt::read(&value)?)?;
            client.call(StorePut { store, key, value })?;
        }
        What::Get { store, key } => return get(&mut client, store, key),
        What::Ls { store, prefix } => {
            if let Reply::Keys(keys) = client.call(StoreList { store, prefix })? {
                let lines: String = keys.iter().map(|key| format!("{key}\n")).collect();
                Output::stdout().write(&lines)?;
            }
        }
        What::Rm { store, keys } => {
            for key in keys {
                client.call(StoreDelete { store: store.clone(), key })?;
            }
        }
        What::Search { count, store, text } => {
            if let Reply::Found(found) = client.call(StoreSearch { store, text, count })? {
                let lines: String = found.iter().map(|(key, score)| format!("{score:.3}\t{key}\n")).collect();
                Output::stdout().write(&lines)?;
            }
        }
    }
    Ok(0)
}

fn value_of(json: bool, text: String) -> Result<Value, Failure> {
    if !json {
        return Ok(Value::String(text));
    }
    serde_json::from_str(&text).map_err(|e| Failure::Usage(format!("the value is not JSON: {e}")))
}

/// Prints text as it is and anything else as JSON, so that what `put` took comes out again.
fn get(client: &mut Client, store: String, key: String) -> Outcome {
    let mut output = Output::stdout();
    match client.call(StoreGet { store: store.clone(), key: key.clone() })? {
        Reply::Value(Some(Value::String(text))) => output.write(&format!("{text}\n"))?,
        Reply::Value(Some(value)) => output.write_json(&value)?,
        _ => return Err(Failure::Message(format!("{store} has no value under `{key}`"))),
    }
    Ok(0)
}
