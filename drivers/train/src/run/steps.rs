//! The loop.

use std::time::Instant;

use super::compute::compute;
use super::error::RunError;
use super::feed::Feed;
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
/// Numbers that are none, or files of the run that cannot be written. A checkpoint that cannot be written is reported,
/// and the run goes on: the one before is still there.
pub fn run(setup: Setup, hooks: Hooks<'_>) -> Result<End, RunError> {
    let mesh = setup.team.mesh().clone();
    let mut running = together(mesh.world(), Running::begin(setup, hooks))?;
    let end = running.go();
    if let Some(record) = &running.record {
        record.progress.finish();
    }
    end
}

/// The files and the terminal that a run is told in.
pub(super) struct Record {
    pub(super) log: Log,
    pub(super) board: EventFile,
    pub(super) progress: Progress,
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
    /// What the next entry of steps is the mean of.
    pub(super) loss: Loss,
    pub(super) since: Instant,
    pub(super) tokens_since: u64,
}

impl Record {
    fn begin(setup: &Setup, step: u64, quiet: bool) -> Result<Record, RunError> {
        let out = &setup.spec.out;
        std::fs::create_dir_all(out).map_err(RunError::io(out))?;
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
        })
    }
}

impl<'a> Running<'a> {
    fn begin(setup: Setup, hooks: Hooks<'a>) -> Result<Running<'a>, RunError> {
        let out = setup.spec.out.clone();
        let folder = Folder::of(&out);
        if setup.resumed.is_none() && !folder.steps().is_empty() {
            return Err(RunError::Exists { path: out });
        }
        let state = match &setup.resumed {
            Some(checkpoint) => checkpoint.state.clone(),
            None => RunState {
                step: 0,
                position: Position::default(),
                tokens: 0,
                seconds: 0.0,
                best: None,
                evaluations_since: 0,
                fits: setup.fits(),
            },
        };
        let leads = setup.team.mesh().leads();
        let record = leads.then(|| Record::begin(&setup, state.step, hooks.quiet)).transpose()?;
        Ok(Running {
            folder,
            record,
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
                // The one before is still there, and there may be room again when the next is due.
                let _ = self.save();
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
        let begun = Instant::now();
        let mut batches = Vec::with_capacity(self.setup.spec.accumulate);
        let mut position = self.state.position;
        for _ in 0..self.setup.spec.accumulate {
            let loaded = loader.take();
            position = loaded.next;
            batches.push(loaded.batch);
        }
        let tokens: u64 = batches.iter().map(|batch: &Batch| batch.input.tokens.len() as u64).sum();
        let done = compute(&mut self.setup, batches, self.state.step, gradients, self.hooks.turn);
        let (loss, norm, rate) = done.map_err(|error| self.with_checkpoint(error))?;
        gradients.clear();
        self.state.step += 1;
        self.state.position = position;
        self.state.tokens += tokens;
        self.state.seconds += begun.elapsed().as_secs_f64();
        self.loss += loss;
        self.tokens_since += tokens;
        if self.is_time(self.setup.steps.div_ceil(ENTRIES_MAX)) {
            self.tell_steps(norm, rate)?;
        }
        Ok(())
    }
}
