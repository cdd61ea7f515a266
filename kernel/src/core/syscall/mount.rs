//! `mount`: makes a model available. The worker reads the file with the daemon's rights, so the
//! capability for it is the administrator's.

use syscalls::call::Mount;
use syscalls::limits::{CONTEXT_TOKENS_MAX, MODELS_MAX, NAME_BYTES_MAX};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::model::State;
use super::named::check_name;
use super::{Next, Outcome};

impl Kernel {
    pub(super) fn sys_mount(&mut self, mut args: Mount) -> Outcome {
        check(&args)?;
        let name = args.name.clone().unwrap_or_else(|| default_name(&args.path));
        check_name("a model", &name)?;
        let accept = std::mem::take(&mut args.accept_changed);
        let taken = self.models.values().find(|m| m.name == name);
        // One that is offline runs nowhere, and keeps nothing that the new file could use.
        let replaced = taken.filter(|m| accept && matches!(m.state, State::Offline(_))).map(|m| m.id);
        if let Some(taken) = taken.filter(|_| replaced.is_none()) {
            let message = format!("{name} is mounted already, from {}; give another name", taken.mount.path);
            return Err(Fault::new(Errno::EEXIST, message));
        }
        if let Some(id) = replaced {
            self.remove_model(id);
        }
        if self.models.len() >= MODELS_MAX {
            let message = format!("{MODELS_MAX} models are mounted, which is the limit; unmount one");
            return Err(Fault::new(Errno::E2BIG, message));
        }
        args.name = Some(name.clone());
        let id = self.enter_model(name, args);
        Ok(Next::Wait(Waits::Mount(id), None))
    }
}

fn check(args: &Mount) -> Result<(), Fault> {
    let invalid = |message: String| Err(Fault::new(Errno::EINVAL, message));
    if !args.path.starts_with('/') && !args.path.starts_with("sim:") {
        return invalid(
            "the path is not absolute; begin it with / (the daemon has another working directory)".into(),
        );
    }
    if args.path.contains('\0') {
        return invalid("the path has a NUL in it".into());
    }
    match args.context {
        Some(n) if n.0 == 0 || n.0 > CONTEXT_TOKENS_MAX => {
            return invalid(format!("context is {n}; it must be from 1 to {CONTEXT_TOKENS_MAX} tokens"));
        }
        _ => {}
    }
    if args.device.as_ref().is_some_and(|device| device.len() > NAME_BYTES_MAX) {
        return invalid(format!("the device's name has more than {NAME_BYTES_MAX} bytes"));
    }
    match args.threads {
        Some(n) if n == 0 || n > 1024 => invalid(format!("threads is {n}; it must be from 1 to 1024")),
        _ => Ok(()),
    }
}

/// A name from the file's name: without its folder and ending, and of letters, digits, dots, dashes and
/// underscores only, so that a shell needs no quotes.
fn default_name(path: &str) -> String {
    if path.starts_with("sim:") {
        return "sim".into();
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    let stem = file.strip_suffix(".gguf").unwrap_or(file);
    let clean = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(clean).take(NAME_BYTES_MAX).collect();
    if name.is_empty() { "model".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_default_needs_no_quotes() {
        assert_eq!(default_name("/m/Llama 3.2 (1B).gguf"), "Llama-3.2--1B-");
        assert_eq!(default_name("/m/.gguf"), "model");
        assert_eq!(default_name("sim:count"), "sim");
    }
}
