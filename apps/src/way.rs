//! How an application does a job that needs no model: a model that follows instructions writes, or sentences of
//! the text are extracted, by the meaning that an encoder sees where one is mounted. Without a daemon it extracts
//! too, so the application always has an answer.

use syscalls::Fault;
use syscalls::call::Class;
use syscalls::client::blocking::Client;
use syscalls::reply::ModelInfo;

use crate::encoder::Encoder;
use crate::model::{Mounted, Unfit};
use crate::program::{Failure, ModelArgs};
use crate::prompt::Prompter;

/// The way that is taken.
pub enum Way {
    /// The model writes.
    Generate(Box<Prompter>),
    /// Sentences are extracted.
    Extract(Box<Extractor>),
}

/// What there is to extract with.
pub struct Extractor {
    program: &'static str,
    encoder: Option<(Client, ModelInfo)>,
}

impl Way {
    /// Takes the way that the mounted models allow, and says so on standard error where it is not the one that
    /// was expected. `extract` is the user's own choice.
    ///
    /// # Errors
    ///
    /// A model was named that is not mounted, or the signal handler cannot be set.
    pub fn choose(program: &'static str, args: &ModelArgs, extract: bool) -> Result<Way, Failure> {
        let note = |why: &str| {
            if !extract {
                note!("{program}: {why}; extracting sentences instead");
            }
        };
        let (client, mounted) = match connect(program, args) {
            Ok(connected) => connected,
            Err(fault) => {
                note(&fault.message);
                return Ok(Way::Extract(Box::new(Extractor { program, encoder: None })));
            }
        };
        if !extract {
            match mounted.instructed(args.model.as_deref()) {
                Ok(model) => {
                    return Ok(Way::Generate(Box::new(Prompter::new(program, client, model, args, 0.0)?)));
                }
                Err(unfit @ Unfit::Unknown { .. }) => return Err(Failure::Message(unfit.to_string())),
                Err(unfit) => note(&unfit.to_string()),
            }
        }
        let encoder = mounted.encoder().cloned().map(|model| (client, model));
        Ok(Way::Extract(Box::new(Extractor { program, encoder })))
    }
}

fn connect(program: &str, args: &ModelArgs) -> Result<(Client, Mounted), Fault> {
    let mut client = args.connect(program, Class::Normal)?;
    let mounted = Mounted::list(&mut client)?;
    Ok((client, mounted))
}

impl Extractor {
    /// What the encoder makes of it; nothing where there is no encoder. An encoder that fails is told of, and
    /// done without.
    pub fn with_encoder<T>(&mut self, job: impl FnOnce(&mut Encoder) -> Result<T, Fault>) -> Option<T> {
        let (client, model) = self.encoder.as_mut()?;
        match job(&mut Encoder::new(client, model)) {
            Ok(made) => Some(made),
            Err(fault) => {
                note!(
                    "{}: the encoder `{}` failed: {}; going on without it",
                    self.program,
                    model.name,
                    fault.message
                );
                self.encoder = None;
                None
            }
        }
    }
}
