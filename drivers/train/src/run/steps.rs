//! The loop.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use super::compute::{change, learn};
use super::error::RunError;
use super::feed::Feed;
use super::lock::Lock;
use super::log::Log;
use super::progress::Progress;
use super::setup::Setup;
use super::tensorboard::EventFile;
use super::turn::{Stop, Turn};
use crate::checkpoint::{Folder, RunState};
use crate::data::{Loader, Position};
use crate::ranks::together;
use crate::{Batch, Gradients, Loss};

/// Entries of steps that a log gets at most; those of longer runs are means over several steps.
const ENTRIES_MAX: u64 = 10_000;

/// Who has a say in a run, or looks on.
pub struct Hooks<'a> {
    pub turn: &'a mut dyn Turn,
    pub stop: Stop,
    pub feed: Feed,
    pub quiet: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// The validation loss did not get better for as long as the specification allows.
    Early,
    /// This signal wished it.
    Signal(i32),
}

/// Does the steps of a run.
///
/// # Errors
///
/// Numbers that are none, a folder in which another program trains, or files that cannot be begun. A checkpoint that
/// cannot be written later is reported, and the run goes on: the one before is still there. Only the last one must be
/// written. A log or a plot that cannot be written is reported, too, and written when there is room again.
pub fn run(setup: Setup, hooks: Hooks<'_>) -> Result<End, RunError> {
    let mesh = setup.team.mesh().clone();
    let mut running = together(mesh.world(), Running::begin(setup, hooks))?;
    let end = running.go().map_err(|error| running.with_checkpoint(error));
    if let Some(record) = &running.record {
        record.progress.finish();
    }
    end
}

/// The files and the terminal that a run is told in.
pub(super) struct Record {
    pub(super) out: PathBuf,
    pub(super) log: Log,
    pub(super) board: EventFile,
    pub(super) progress: Progress,
    /// When all of it was handed to the system.
    pub(super) flushed: Instant,
    /// What cannot be written at present.
    pub(super) refused: BTreeSet<&'static str>,
}

/// A run that is under way.
pub(super) struct Running<'a> {
    pub(super) setup: Setup,
    pub(super) hooks: Hooks<'a>,
    pub(super) folder: Folder,
    pub(super) state: RunState,
    /// What is written and shown of it, by the rank that leads.
    pub(super) record: Option<Record>,
    /// The step of the newest checkpoint.
    pub(super) saved: Option<u64>,
    /// Whether one is to be written when the next step has shown that the weights are good.
    due: bool,
    /// The step whose weights an evaluation has shown to be good.
    pub(super) proven: Option<u64>,
    /// What the next entry of steps is the mean of.
    pub(super) loss: Loss,
    pub(super) since: Instant,
    pub(super) tokens_since: u64,
    /// Batches that were not ready, up to the last entry of steps.
    pub(super) waited: u64,
}

impl Record {
    fn begin(setup: &Setup, step: u64, quiet: bool) -> Result<Record, RunError> {
        let out = &setup.spec.out;
        for (name, text) in [
            ("spec.ron", setup.spec.to_ron()),
            ("config.json", setup.config.to_json()?),
            ("tokenizer.json", setup.tokeniser.to_json()?),
        ] {
            let path = out.join(name);
            std::fs::write(&path, text).map_err(RunError::io(&path))?;
        }
        let board = out.join("tensorboard");
        Ok(Record {
            log: Log::open(out, step)?,
            board: EventFile::create(&board).map_err(RunError::io(&board))?,
            progress: Progress::new(step, setup.steps, quiet),
            out: out.clone(),
            flushed: Instant::now(),
            refused: BTreeSet::new(),
        })
    }
}

impl<'a> Running<'a> {
    fn begin(mut setup: Setup, hooks: Hooks<'a>) -> Result<Running<'a>, RunError> {
        let out = setup.spec.out.clone();
        let folder = Folder::of(&out);
        let leads = setup.team.mesh().leads();
        if leads && setup.lock.is_none() {
            std::fs::create_dir_all(&out).map_err(RunError::io(&out))?;
            setup.lock = Some(Lock::take(&out)?);
        }
        if setup.resumed.is_none() && !folder.steps().is_empty() {
            return Err(RunError::Exists { path: out });
        }
        let state = match &setup.resumed {
            // The data may be others that are meant.
            Some(checkpoint) => {
                let (former, fits) = (checkpoint.state.clone(), setup.fits.clone());
                // What is evaluated on other data is no better and no worse than before.
                let (best, evaluations_since) = match former.fits.compares(&fits) {
                    true => (former.best, former.evaluations_since),
                    false => (None, 0),
                };
                RunState { position: setup.position, fits, best, evaluations_since, ..former }
            }
            None => RunState {
                step: 0,
                position: Position::default(),
                tokens: 0,
                seconds: 0.0,
                best: None,
                evaluations_since: 0,
                fits: setup.fits.clone(),
            },
        };
        let record = leads.then(|| Record::begin(&setup, state.step, hooks.quiet)).transpose()?;
        if let Some(record) = &record {
            folder.settle(&state);
            if setup.resumed.is_none() && !setup.fresh.is_empty() {
                let names = setup.fresh.join("`, `");
                record.progress.say(&format!("the weights have none for `{names}`, which begin anew"));
            }
        }
        Ok(Running {
            folder,
            record,
            due: false,
            proven: None,
            waited: 0,
            saved: setup.resumed.as_ref().map(|checkpoint| checkpoint.state.step),
            loss: Loss::default(),
            since: Instant::now(),
            tokens_since: 0,
            state,
            setup,
            hooks,
        })
    }

    fn go(&mut self) -> Result<End, RunError> {
        let loader = Loader::start(self.setup.train.clone(), self.setup.spec.batch, self.state.position);
        let mut loader = loader.map_err(RunError::io(&self.setup.spec.out))?;
        let mut gradients = Gradients::new(self.setup.model.parameters())?;
        let end = loop {
            if self.state.step >= self.setup.steps {
                break End::Done;
            }
            if let Some(signal) = self.signal()? {
                break End::Signal(signal);
            }
            self.step(&mut loader, &mut gradients)?;
            if self.is_time(self.setup.spec.evaluation.every) && self.evaluate()? {
                break End::Early;
            }
            if self.setup.spec.samples.every > 0 && self.is_time(self.setup.spec.samples.every) {
                self.sample()?;
            }
            if self.is_time(self.setup.spec.checkpoint.every) {
                self.due = true;
            }
        };
        self.finish(end)?;
        Ok(end)
    }

    /// The signal that wished an end, on any rank.
    fn signal(&self) -> Result<Option<i32>, RunError> {
        let signal = self.hooks.stop.signal().unwrap_or(0);
        let signal = self.setup.team.mesh().world().max(f64::from(signal))? as i32;
        Ok((signal != 0).then_some(signal))
    }

    /// Whether something is due that comes every so many steps, and at the end.
    fn is_time(&self, every: u64) -> bool {
        self.state.step.is_multiple_of(every) || self.state.step == self.setup.steps
    }

    fn step(&mut self, loader: &mut Loader, gradients: &mut Gradients) -> Result<(), RunError> {
        let mut begun = Instant::now();
        let mut batches = Vec::with_capacity(self.setup.spec.accumulate);
        let mut position = self.state.position;
        for _ in 0..self.setup.spec.accumulate {
            let loaded = loader.take();
            position = loaded.next;
            batches.push(loaded.batch);
        }
        let tokens: u64 = batches.iter().map(|batch: &Batch| batch.input.tokens.len() as u64).sum();
        let (loss, norm) = learn(&mut self.setup, batches, self.state.step, gradients, self.hooks.turn)?;
        if std::mem::take(&mut self.due) {
            // The weights have shown to be good. Where the disk refuses, the checkpoint before is still there, and there
            // may be room again when the next is due.
            let paused = Instant::now();
            self.save()?;
            begun += paused.elapsed();
        }
        let rate = change(&mut self.setup, self.state.step, gradients)?;
        gradients.clear();
        self.state.step += 1;
        self.state.position = position;
        self.state.tokens += tokens;
        self.state.seconds += begun.elapsed().as_secs_f64();
        self.loss += loss;
        self.tokens_since += tokens;
        if self.is_time(self.setup.steps.div_ceil(ENTRIES_MAX)) {
            self.tell_steps(norm, rate, loader.waited());
        }
        Ok(())
    }
}
