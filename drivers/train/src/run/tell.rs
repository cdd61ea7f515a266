//! What a run does between its steps: evaluating, writing texts and checkpoints, and telling of all of it.

use std::time::Instant;

use super::curve;
use super::error::RunError;
use super::evaluate::evaluate;
use super::log::Entry;
use super::sample::sample;
use super::steps::{End, Record, Running};
use crate::Loss;
use crate::checkpoint::{Best, Checkpoint};

impl Running<'_> {
    /// Tells of the steps since the last time.
    pub(super) fn tell_steps(&mut self, norm: f64, rate: f64) -> Result<(), RunError> {
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
        };
        self.plot(&[("loss/train", self.loss.mean()), ("rate", rate), ("norm", norm)])?;
        (self.loss, self.tokens_since) = (Loss::default(), 0);
        self.since = Instant::now();
        self.tell(&entry)
    }

    /// Evaluates, and says whether the run is to end early.
    pub(super) fn evaluate(&mut self) -> Result<bool, RunError> {
        let Some(data) = &self.setup.validation else { return Ok(false) };
        let spec = &self.setup.spec;
        let model = self.setup.model.as_ref();
        let with = (spec.batch, &self.setup.criterion);
        let found = evaluate(model, &self.setup.team, data, with, spec.evaluation.batches)?;
        let best = found.loss.is_finite() && self.state.best.is_none_or(|best| found.loss < best.loss);
        let patience = spec.evaluation.patience;
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
        self.plot(&[("loss/validation", found.loss)])?;
        self.tell(&entry)?;
        self.draw()?;
        if best {
            let _ = self.save();
        }
        self.since = Instant::now();
        Ok(patience.is_some_and(|patience| self.state.evaluations_since >= patience))
    }

    pub(super) fn sample(&mut self) -> Result<(), RunError> {
        let seed = self.setup.spec.seed ^ self.state.step;
        let model = self.setup.model.as_ref();
        let text = sample(model, &self.setup.tokeniser, &self.setup.spec.samples, seed)?;
        self.tell(&Entry::Sample { step: self.state.step, text })
    }

    /// Writes a checkpoint. One that cannot be written is told, and returned for who wants to end the run for it.
    pub(super) fn save(&mut self) -> Option<RunError> {
        let step = self.state.step;
        if self.saved == Some(step) {
            return None;
        }
        // What the log says must not be behind what a run goes on from.
        let _ = self.flush();
        let mut failed = self.checkpoint().and_then(|checkpoint| self.write(checkpoint.as_ref())).err();
        // All ranks know whether it is there: they write the next one together.
        let world = self.setup.team.mesh().world();
        match world.max(f64::from(u8::from(failed.is_some()))) {
            Ok(0.0) => self.saved = Some(step),
            Ok(_) => {}
            Err(error) => failed = Some(error.into()),
        }
        // A full disk refuses the log, too; the feed and the terminal still tell.
        let entry = Entry::Checkpoint { step, error: failed.as_ref().map(ToString::to_string) };
        let _ = self.tell(&entry).and_then(|()| self.flush());
        self.since = Instant::now();
        failed
    }

    fn write(&self, checkpoint: Option<&Checkpoint>) -> Result<(), RunError> {
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        let step = checkpoint.state.step;
        self.folder.save(checkpoint)?;
        if self.state.best.is_some_and(|best| best.step == step) {
            self.folder.point("best", step)?;
        }
        self.folder.prune(self.setup.spec.checkpoint.keep, self.state.best.map(|best| best.step));
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
        if let Some(error) = self.save() {
            return Err(error);
        }
        let reason = match end {
            End::Done => "all steps are done".to_owned(),
            End::Early => format!("no better for {} evaluations", self.state.evaluations_since),
            End::Signal(signal) => format!("stopped by signal {signal}; go on with --resume"),
        };
        self.tell(&Entry::End { step: self.state.step, reason })?;
        if let Some(record) = &mut self.record {
            record.board.flush().map_err(RunError::io(&self.setup.spec.out))?;
        }
        self.draw()
    }

    /// Draws the curve of what the log has.
    fn draw(&mut self) -> Result<(), RunError> {
        self.flush()?;
        let Some(Record { log, .. }) = &self.record else { return Ok(()) };
        curve::draw(&self.setup.spec.out, &log.curve, &log.evaluations)
    }

    fn flush(&mut self) -> Result<(), RunError> {
        self.record.as_mut().map_or(Ok(()), |record| record.log.flush())
    }

    fn tell(&mut self, entry: &Entry) -> Result<(), RunError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        self.hooks.feed.tell(entry);
        record.progress.show(entry);
        record.log.write(entry)
    }

    fn plot(&mut self, values: &[(&str, f64)]) -> Result<(), RunError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let step = self.state.step;
        let written = values.iter().try_for_each(|(tag, value)| record.board.scalar(tag, step, *value));
        written.map_err(RunError::io(&self.setup.spec.out))
    }

    /// Says which checkpoint is the last that was good.
    pub(super) fn with_checkpoint(&mut self, error: RunError) -> RunError {
        let RunError::NotFinite { what, value, step, place, .. } = error else { return error };
        let kept = match self.saved {
            Some(step) => format!("the checkpoint of step {step} is kept"),
            None => "there is no checkpoint yet".into(),
        };
        let error = RunError::NotFinite { what, value, step, place, kept };
        let entry = Entry::End { step: self.state.step, reason: error.to_string() };
        let _ = self.tell(&entry).and_then(|()| self.flush());
        error
    }
}
