//! What calls name: processes, contexts, models and names, looked up and checked in one place.

use syscalls::call::Capability;
use syscalls::limits::NAME_BYTES_MAX;
use syscalls::{ContextId, Errno, Fault, Pid};

use super::super::Kernel;
use super::super::context::Context;
use super::super::event::ModelId;
use super::super::model::{Model, State};
use super::super::process::Process;
use super::Caller;

impl Kernel {
    /// A living process.
    ///
    /// # Errors
    ///
    /// ESRCH where there is none.
    pub(in crate::core) fn process(&self, pid: Pid) -> Result<&Process, Fault> {
        self.processes.living(pid).ok_or_else(|| {
            let message = match self.processes.zombie(pid) {
                Some(_) => format!("process {pid} has ended"),
                None => format!("there is no process {pid}"),
            };
            Fault::new(Errno::ESRCH, message)
        })
    }

    /// A context, for the kernel's own use.
    ///
    /// # Errors
    ///
    /// EBADF where there is none.
    pub(in crate::core) fn context(&self, id: ContextId) -> Result<&Context, Fault> {
        self.contexts.get(&id).ok_or_else(|| Fault::new(Errno::EBADF, format!("there is no context {id}")))
    }

    /// A model.
    ///
    /// # Errors
    ///
    /// ENOENT where it has been unmounted.
    pub(in crate::core) fn model(&self, id: ModelId) -> Result<&Model, Fault> {
        self.models.get(&id).ok_or_else(|| Fault::new(Errno::ENOENT, "the model has been unmounted"))
    }

    /// A context of the caller. Whether others have one of that number is not for it to know.
    pub(super) fn own_context(&self, caller: &Caller, id: ContextId) -> Result<&Context, Fault> {
        if let Some(image) = self.asleep.get(&id).filter(|image| image.owner == caller.pid) {
            let model = self.model_named(&image.model);
            if let Ok(model) = model {
                model.check_usable()?;
                let loaded = model.description.is_some();
                if let Some(fault) = loaded.then(|| image.trouble_on(model)).flatten() {
                    return Err(Fault::new(
                        fault.errno,
                        format!("context {id} sleeps on: {}", fault.message),
                    ));
                }
            }
            let message = match model {
                Ok(model) if model.state == State::Unloaded => format!(
                    "context {id} sleeps: model {} has no room beside those that are used; unmount what is not needed, and try again",
                    image.model
                ),
                _ => format!("context {id} sleeps until model {} is loaded; try again then", image.model),
            };
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        self.contexts.get(&id).filter(|c| c.owner == caller.pid).ok_or_else(|| {
            Fault::new(Errno::EBADF, format!("process {} has no context {id}; open one first", caller.pid))
        })
    }

    /// A living process that the caller may signal, change and look into: itself and those below it, others of its user
    /// with the capability `signal`, and any with `kill`.
    pub(super) fn subject(&self, caller: &Caller, pid: Pid) -> Result<&Process, Fault> {
        if pid == Pid::KERNEL {
            let message = "process 1 is the kernel; end the daemon with shutdown";
            return Err(Fault::new(Errno::EPERM, message));
        }
        let process = self.process(pid)?;
        if process.id.uid != caller.uid {
            let what = format!("process {pid} belongs to user {}; reaching it", process.id.uid);
            caller.caps.need(Capability::Kill, &what)?;
        } else if !self.processes.descends(pid, caller.pid) {
            caller.caps.need(Capability::Signal, &format!("reaching process {pid}, no descendant,"))?;
        }
        Ok(process)
    }
}

/// Checks a name that a user gives.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let bytes = name.len();
    if bytes == 0 || bytes > NAME_BYTES_MAX {
        let message = format!("the name of {what} has {bytes} bytes; it needs 1 to {NAME_BYTES_MAX}");
        return Err(Fault::new(Errno::EINVAL, message));
    }
    if name.chars().any(char::is_control) {
        let message = format!("the name of {what} has a control character; leave it out");
        return Err(Fault::new(Errno::EINVAL, message));
    }
    Ok(())
}
