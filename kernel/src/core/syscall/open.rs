//! `open`: opens a context on a mounted model.

use syscalls::call::{OnFull, Open};
use syscalls::{Errno, Fault, Pid, Reply, Tokens};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::event::ModelId;
use super::super::model::Model;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_open(&mut self, caller: &Caller, args: Open) -> Outcome {
        if args.on_full != OnFull::Stop {
            let message =
                "this kernel has on_full stop only; leave it out, and truncate the context yourself";
            return Err(Fault::new(Errno::ENOSYS, message));
        }
        if args.prefix.is_some() {
            return Err(Fault::new(Errno::ENOSYS, "this kernel has no shared segments; leave prefix out"));
        }
        let model = self.choose_model(args.model.as_deref(), Model::generates)?;
        model.check_usable()?;
        let id = model.id;
        if !model.takes_contexts() {
            return Ok(Next::Wait(Waits::Open(id, Box::new(args)), None));
        }
        self.open_context(caller.pid, id, &args).map(Next::Reply)
    }

    /// Opens a context on a model that has been loaded.
    pub(in crate::core) fn open_context(
        &mut self,
        pid: Pid,
        id: ModelId,
        args: &Open,
    ) -> Result<Reply, Fault> {
        let model = self.model(id)?;
        let (name, most) = (model.name.clone(), model.context_tokens_max());
        if !model.generates() {
            let message = format!("model {name} is an encoder and generates nothing; use embed with it");
            return Err(Fault::new(Errno::ENOSYS, message));
        }
        let tokens_max = args.tokens_max.map_or(most, |n| n.0);
        if tokens_max == 0 {
            return Err(Fault::new(Errno::EINVAL, "tokens_max is 0; ask for at least 1, or leave it out"));
        }
        if tokens_max > most {
            let message = format!(
                "tokens_max is {tokens_max} and a context of model {name} holds {most}; mount it with a larger --context"
            );
            return Err(Fault::new(Errno::ENOSPC, message));
        }
        let context = self.new_context(pid, id, tokens_max)?;
        if let Some(model) = self.models.get_mut(&id) {
            model.last_use = self.now;
        }
        Ok(Reply::Opened { context, model: name, length: Tokens(0), tokens_max: Tokens(tokens_max) })
    }
}
