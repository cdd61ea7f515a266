//! `train`: starts the trainer as a child process.
//!
//! What a specification means, the trainer knows alone. The kernel takes from it what the jail is made of: every
//! absolute path in those of its parts that name files may be read, and the folder of the run may be written to, too.
//! When the daemon has died, the next one starts the run again, which goes on from its newest checkpoint.

use serde_json::Value;
use syscalls::call::{Class, Spawn, Train};
use syscalls::limits::{ARGUMENT_BYTES_MAX, RANKS_MAX};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::effect::{Program, Reach};
use super::spawn::check_arguments;
use super::{Caller, Outcome};

/// The program, which is beside the daemon.
const TRAINER: &str = "llmasos-trainer";

/// The parts of a specification that name files. Elsewhere a text may begin as a path does, such as a prompt or a label.
const NAME_FILES: [&str; 5] = ["out", "model", "tokeniser", "data", "links"];

impl Kernel {
    pub(super) fn sys_train(&mut self, caller: &Caller, args: &Train) -> Outcome {
        let out = folder(&args.spec)?;
        let class = args.class.unwrap_or(Class::Batch);
        let mut argv = vec![TRAINER.to_owned(), "run".into(), "--json".into(), args.spec.to_string()];
        argv.extend(["--cache".into(), format!("{out}/cache")]);
        if class != Class::Batch {
            // Otherwise the system, too, lets it compute only when nobody else wants to.
            argv.extend(["--class".into(), "normal".into()]);
        }
        if let Some(ranks) = args.ranks {
            argv.extend(["--ranks".into(), checked(ranks)?.to_string()]);
        }
        let mut again = argv.clone();
        again.push("--go-on".into());
        if args.resume {
            argv.push("--resume".into());
        }
        check_arguments(&argv).map_err(|fault| long(&args.spec, fault))?;
        let mut read = Vec::new();
        NAME_FILES.iter().filter_map(|part| args.spec.get(part)).for_each(|part| paths(part, &mut read));
        self.check_reach(caller, &read)?;
        let reach = Reach { read, write: Some(out.to_owned()), computes: true };
        let program = Program { reach, again: Some(again), ..Program::new(argv, caller.uid) };
        let spawn = Spawn {
            name: args.name.clone().unwrap_or_else(|| "train".into()),
            class: Some(class),
            nice: args.nice,
            group: args.group.clone(),
            lifetime: None,
            caps: None,
            argv: vec![],
            read: vec![],
        };
        self.start_child(caller, spawn, Some(program))
    }
}

/// A number of ranks that there can be.
fn checked(ranks: u32) -> Result<u32, Fault> {
    match (1..=RANKS_MAX).contains(&ranks) {
        true => Ok(ranks),
        false => {
            let message = format!("ranks is {ranks}; it must be from 1 to {RANKS_MAX}");
            Err(Fault::new(Errno::EINVAL, message))
        }
    }
}

/// The sentence about a specification that is too long, which cannot be handed over in a file.
fn long(spec: &Value, fault: Fault) -> Fault {
    if fault.errno != Errno::E2BIG {
        return fault;
    }
    let message = format!(
        "the specification takes {} bytes, and the arguments of the trainer {ARGUMENT_BYTES_MAX} at most; name the folder that the files are in, as `Dataset(name: …)`",
        spec.to_string().len()
    );
    Fault { message, ..fault }
}

/// The folder of the run.
fn folder(spec: &Value) -> Result<&str, Fault> {
    let out = spec.get("out").and_then(Value::as_str).filter(|out| out.starts_with('/'));
    out.ok_or_else(|| {
        let message = "spec has no `out` with the absolute path of a folder; `llmasos-trainer resolve FILE` makes a \
                       specification for this call";
        Fault::new(Errno::EINVAL, message)
    })
}

/// All absolute paths in a value.
fn paths(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.starts_with('/') => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| paths(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| paths(field, found)),
        _ => {}
    }
}
