//! `open`: opens a context on a mounted model.

use syscalls::call::{OnFull, Open};
use syscalls::{Errno, Fault, Pid, Reply, Tokens};

use super::super::Kernel;
use super::super::call::{Opening, Waits};
use super::super::event::ModelId;
use super::super::model::{Model, shown};
use super::{Caller, Next, Outcome};

/// The smallest context that makes room when it is full: of fewer tokens none could go, as the last one stays, and so does
/// the first of two that is a segment or an instruction.
const ROOMY_TOKENS_MIN: u32 = 3;

impl Kernel {
    pub(super) fn sys_open(&mut self, caller: &Caller, args: Open) -> Outcome {
        let model = match &args.prefix {
            Some(name) => self.model_of_segment(caller, name, args.model.as_deref())?,
            None => self.choose_model(args.model.as_deref(), Model::generates)?,
        };
        model.check_usable()?;
        let id = model.id;
        if !model.takes_contexts() {
            return Ok(Next::Wait(Waits::Open(id, Box::new(Opening::New(args))), None));
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
        if args.on_full != OnFull::Stop && tokens_max < ROOMY_TOKENS_MIN {
            let message = format!(
                "tokens_max is {tokens_max}, and a context that makes room when it is full needs {ROOMY_TOKENS_MIN}; ask for more, or open it with on_full stop"
            );
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let context = self.new_context(pid, id, tokens_max, args.on_full, args.prefix.as_deref())?;
        if let Some(model) = self.models.get_mut(&id) {
            model.last_use = self.now;
        }
        let length = Tokens(self.context(context)?.length());
        Ok(Reply::Opened { context, model: name, length, tokens_max: Tokens(tokens_max) })
    }

    /// The model that a segment is on, which is the one that the call names, if it names one.
    fn model_of_segment(&self, caller: &Caller, segment: &str, name: Option<&str>) -> Result<&Model, Fault> {
        let found = self.segments.readable(segment, caller.uid, caller.caps)?;
        let model = self.model(found.model)?;
        match name {
            Some(name) if name != model.name => Err(Fault::new(
                Errno::EINVAL,
                format!(
                    "segment {} is on model {}, and {} is asked for; leave the model out",
                    shown(segment),
                    model.name,
                    shown(name)
                ),
            )),
            _ => Ok(model),
        }
    }
}
