//! What a run does between its steps: evaluating, writing texts and checkpoints, and telling of all of it.

use std::time::{Duration, Instant};

use super::blame::{blame, not_finite};
use super::curve;
use super::error::RunError;
use super::evaluate::evaluate;
use super::log::Entry;
use super::sample::sample;
use super::steps::{End, Record, Running};
use crate::Loss;
use crate::checkpoint::{Best, Checkpoint};

/// How old an entry may become before others can read it. They follow the log of a run that computes.
const FLUSH_EVERY: Duration = Duration::from_millis(250);

/// What became of a checkpoint.
pub(super) enum Saved {
    /// It is there.
    There,
    /// It could not be written; why, on the rank that writes.
    Refused(Option<RunError>),
}

impl Record {
    /// Tells of an entry.
    fn tell(&mut self, entry: &Entry) {
        self.progress.show(entry);
        self.log.write(entry);
        if self.flushed.elapsed() >= FLUSH_EVERY {
            self.flush();
        }
    }

    /// Hands what was told to the system.
    fn flush(&mut self) {
        self.flushed = Instant::now();
        let log = self.log.flush();
        self.note("the log", log);
        let board = self.board.flush().map_err(RunError::io(&self.out));
        self.note("the events for TensorBoard", board);
    }

    /// Says once that a file is refused, until it is taken again. A run does not end for a file that only tells of it.
    fn note(&mut self, what: &'static str, written: Result<(), RunError>) {
        match written {
            Ok(()) => drop(self.refused.remove(what)),
            Err(error) if self.refused.insert(what) => {
                self.progress.say(&format!("{what} cannot be written, and the run goes on without: {error}"));
            }
            Err(_) => {}
        }
    }
}

impl Running<'_> {
    /// Tells of the steps since the last time; `waited` is how often they had to wait for data.
    pub(super) fn tell_steps(&mut self, norm: f64, rate: f64, waited: u64) {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        let each = self.state.seconds / self.state.step as f64;
        let entry = Entry::Step {
            step: self.state.step,
            steps: self.setup.steps,
            loss: self.loss.mean(),
            rate,
            norm,
            tokens: self.state.tokens,
            tokens_per_s: self.tokens_since as f64 / seconds,
            eta_s: each * (self.setup.steps - self.state.step) as f64,
            waited: waited - self.waited,
        };
        self.plot(&[("loss/train", self.loss.mean()), ("rate", rate), ("norm", norm)]);
        (self.loss, self.tokens_since, self.waited) = (Loss::default(), 0, waited);
        self.since = Instant::now();
        self.tell(&entry);
    }

    /// Evaluates, and says whether the run is to end early.
    pub(super) fn evaluate(&mut self) -> Result<bool, RunError> {
        let Some(data) = &self.setup.validation else { return Ok(false) };
        let spec = &self.setup.spec;
        let model = self.setup.model.as_ref();
        let with = (spec.batch, &self.setup.criterion);
        let found = evaluate(model, &self.setup.team, data, with, spec.evaluation.batches)?;
        if !found.loss.is_finite() {
            return Err(self.not_finite("validation loss", found.loss));
        }
        self.proven = Some(self.state.step);
        let best = self.state.best.is_none_or(|best| found.loss < best.loss);
        let (patience, former) = (spec.evaluation.patience, self.state.best);
        if best {
            self.state.best = Some(Best { step: self.state.step, loss: found.loss });
            self.state.evaluations_since = 0;
        } else {
            self.state.evaluations_since += 1;
        }
        let entry = Entry::Evaluation {
            step: self.state.step,
            loss: found.loss,
            perplexity: found.loss.exp().min(f64::MAX),
            accuracy: found.accuracy,
            best,
        };
        self.plot(&[("loss/validation", found.loss)]);
        self.tell(&entry);
        self.draw();
        if best && matches!(self.save()?, Saved::Refused(_)) {
            // The best is one that is there.
            self.state.best = former;
        }
        self.since = Instant::now();
        Ok(patience.is_some_and(|patience| self.state.evaluations_since >= patience))
    }

    pub(super) fn sample(&mut self) -> Result<(), RunError> {
        let seed = self.setup.spec.seed ^ self.state.step;
        let model = self.setup.model.as_ref();
        let text = sample(model, &self.setup.team, &self.setup.tokeniser, &self.setup.spec.samples, seed)?;
        self.tell(&Entry::Sample { step: self.state.step, text });
        Ok(())
    }

    /// Writes a checkpoint. One that cannot be written is told, and the one before is still there.
    ///
    /// # Errors
    ///
    /// Weights that are no numbers, which are not written; or a rank is gone.
    pub(super) fn save(&mut self) -> Result<Saved, RunError> {
        let step = self.state.step;
        if self.saved == Some(step) {
            return Ok(Saved::There);
        }
        let begun = Instant::now();
        self.check_weights()?;
        // What the log says must not be behind what a run goes on from.
        self.flush();
        let failed = self.checkpoint().and_then(|checkpoint| self.write(checkpoint.as_ref())).err();
        // All ranks know whether it is there: they write the next one together.
        let refused = self.setup.team.mesh().world().max(f64::from(u8::from(failed.is_some())))? > 0.0;
        if !refused {
            self.saved = Some(step);
        }
        // A full disk refuses the log, too; the feed and the terminal still tell.
        self.tell(&Entry::Checkpoint { step, error: failed.as_ref().map(ToString::to_string) });
        self.flush();
        // No part of the time that steps take.
        self.since += begun.elapsed();
        Ok(if refused { Saved::Refused(failed) } else { Saved::There })
    }

    /// Refuses weights that are no numbers, on any rank.
    fn check_weights(&self) -> Result<(), RunError> {
        let own = not_finite(self.setup.model.parameters());
        let any = self.setup.team.mesh().world().max(f64::from(u8::from(own.is_some())))?;
        if any == 0.0 {
            return Ok(());
        }
        let place =
            own.map_or_else(|| "the part of another rank".into(), |name| format!("the parameter `{name}`"));
        Err(self.none("weights' norm", f64::NAN, place))
    }

    /// Numbers that are none, after the steps that are done.
    fn not_finite(&self, what: &'static str, value: f64) -> RunError {
        self.none(what, value, blame(self.setup.model.parameters(), None))
    }

    fn none(&self, what: &'static str, value: f64, place: String) -> RunError {
        RunError::NotFinite { what, value, step: self.state.step, place, kept: String::new() }
    }

    fn write(&self, checkpoint: Option<&Checkpoint>) -> Result<(), RunError> {
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let step = checkpoint.state.step;
        self.folder.save(checkpoint)?;
        if self.state.best.is_some_and(|best| best.step == step) {
            self.folder.point("best", step)?;
        }
        self.folder.prune(self.setup.spec.checkpoint.keep, step, self.state.best.map(|best| best.step));
        Ok(())
    }

    /// The checkpoint, on the rank that leads; the others give it their parts.
    fn checkpoint(&self) -> Result<Option<Checkpoint>, RunError> {
        let (parameters, team) = (self.setup.model.parameters(), &self.setup.team);
        let state = team.state(self.setup.optimiser.as_ref(), parameters)?;
        let weights = team.weights(parameters)?;
        if !team.mesh().leads() {
            return Ok(None);
        }
        Ok(Some(Checkpoint {
            state: self.state.clone(),
            config: self.setup.config.clone(),
            weights,
            optimiser: state.tensors,
            optimiser_step: state.step,
            tokeniser: self.setup.tokeniser.to_json()?,
            spec: self.setup.spec.to_ron(),
        }))
    }

    pub(super) fn finish(&mut self, end: End) -> Result<(), RunError> {
        self.prove()?;
        if let Saved::Refused(Some(error)) = self.save()? {
            return Err(error);
        }
        let reason = match end {
            End::Done => "all steps are done".to_owned(),
            End::Early => format!("no better for {} evaluations", self.state.evaluations_since),
            End::Signal(signal) => format!("stopped by signal {signal}; go on with --resume"),
        };
        self.tell(&Entry::End { step: self.state.step, reason });
        self.draw();
        Ok(())
    }

    /// Makes sure that the last weights still give a loss that is a number: no step comes that would.
    fn prove(&mut self) -> Result<(), RunError> {
        if self.proven == Some(self.state.step) || self.saved == Some(self.state.step) {
            return Ok(());
        }
        let with = (self.setup.spec.batch, &self.setup.criterion);
        let (model, team) = (self.setup.model.as_ref(), &self.setup.team);
        let found = evaluate(model, team, &self.setup.train, with, Some(1))?;
        match found.loss.is_finite() {
            true => Ok(()),
            false => Err(self.not_finite("loss", found.loss)),
        }
    }

    /// Draws the curve of what the log has.
    fn draw(&mut self) {
        let Some(record) = &mut self.record else { return };
        record.flush();
        let drawn = curve::draw(&record.out, &record.log.curve, &record.log.evaluations);
        record.note("the curve", drawn);
    }

    fn flush(&mut self) {
        if let Some(record) = &mut self.record {
            record.flush();
        }
    }

    fn tell(&mut self, entry: &Entry) {
        if let Some(record) = &mut self.record {
            self.hooks.feed.tell(entry);
            record.tell(entry);
        }
    }

    fn plot(&mut self, values: &[(&str, f64)]) {
        let Some(record) = &mut self.record else { return };
        let step = self.state.step;
        values.iter().for_each(|(tag, value)| record.board.scalar(tag, step, *value));
    }

    /// Numbers that are none, with the checkpoint that is kept. The log gets it, too.
    pub(super) fn with_checkpoint(&mut self, error: RunError) -> RunError {
        let RunError::NotFinite { what, value, step, place, .. } = error else { return error };
        let kept = match self.saved {
            Some(step) => format!("the checkpoint of step {step} is kept"),
            None => "there is no checkpoint yet".into(),
        };
        let error = RunError::NotFinite { what, value, step, place, kept };
        let entry = Entry::End { step: self.state.step, reason: error.to_string() };
        self.tell(&entry);
        self.flush();
        error
    }
}
