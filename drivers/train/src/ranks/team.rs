//! What a training step does over ranks: who computes which rows, and everything that is summed between them. On one
//! rank all of it is nothing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use candle_core::Tensor;

use super::group::{Combine, Group, Numbers, piece};
use super::mesh::Mesh;
use super::pipeline::{PipelineSchedule, Stage};
use super::plan::Plan;
use super::reducer::{Reduce, Reducer};
use super::traffic::Traffic;
use super::zero::Zero;
use super::{RankError, collect, text};
use crate::models::{Sampling, generate};
use crate::optim::{Optimiser, State};
use crate::parameters::Parameters;
use crate::{Batch, Gradients, Loss, Model, Pass, Result};

/// How the ranks of a run work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plans {
    /// Parts that each data rank's rows of a batch are cut into.
    pub micro_batches: usize,
    /// In which order stages of a pipeline compute them.
    pub schedule: PipelineSchedule,
    /// Whether the optimiser's state is divided over the data ranks.
    pub zero: bool,
    /// Bytes of gradients that are summed over the data ranks together.
    pub bucket_bytes: usize,
}

/// This rank's part in the steps of a run.
pub struct Team {
    mesh: Arc<Mesh>,
    plans: Plans,
    /// Where there are several data ranks.
    reducer: Option<Reducer>,
    zero: Option<Zero>,
    /// Parameters that several stages have, with the ranks that have them.
    shared: Vec<(usize, Arc<dyn Group>)>,
    /// Microbatches that were kept at a time in the last step.
    kept: usize,
}

impl Team {
    /// The team for a model that was built on this mesh. It takes the parameters as they are now.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn new(mesh: Arc<Mesh>, plans: Plans, parameters: &Parameters) -> Result<Team> {
        let data = mesh.data();
        let place = [data.rank(), data.size()];
        let (mut reducer, mut zero) = (None, None);
        if data.size() > 1 {
            let plan = Arc::new(Plan::new(parameters, plans.bucket_bytes));
            let how = if plans.zero { Reduce::Scatter } else { Reduce::All };
            reducer = Some(Reducer::start(plan.clone(), data.split(0)?, how, parameters.dtype())?);
            zero = plans.zero.then(|| Zero::new(plan, parameters, place)).transpose()?;
        }
        let shared = shared(&mesh, parameters)?;
        Ok(Team { mesh, plans, reducer, zero, shared, kept: 0 })
    }

    /// The mesh.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// What this rank computes of the batches of a step, in the order in which it does.
    ///
    /// # Errors
    /// If a batch has fewer rows than there are data ranks and microbatches.
    pub fn share(&self, batches: Vec<Batch>) -> Result<Vec<Batch>> {
        if self.mesh.data().size() == 1 && self.plans.micro_batches == 1 {
            return Ok(batches);
        }
        let mut own = Vec::with_capacity(batches.len() * self.plans.micro_batches);
        for batch in &batches {
            own.extend(self.parts(batch)?);
        }
        Ok(own)
    }

    fn parts(&self, batch: &Batch) -> Result<Vec<Batch>> {
        // Rows that belong together stay so.
        let (data, parts, each) = (self.mesh.data(), self.plans.micro_batches, batch.together());
        let rows = batch.rows() / each;
        let own = piece(rows, data.rank(), data.size());
        if own.len() < parts {
            let (size, least) = (data.size(), data.size() * parts);
            return Err(RankError::Unfit(format!(
                "a batch of {rows} rows for {size} data ranks × {parts} microbatches; make `batch` {least} at least"
            ))
            .into());
        }
        let part = |number| {
            let rows = piece(own.len(), number, parts);
            let rows = each * (own.start + rows.start)..each * (own.start + rows.end);
            let among = batch.compares().then_some((rows.start, batch.rows()));
            Batch { among, ..batch.part(rows) }
        };
        Ok((0..parts).map(part).collect())
    }

    /// This rank's rows of a batch that is evaluated; none where there are fewer rows than ranks.
    pub fn deal(&self, batch: &Batch) -> Option<Batch> {
        let data = self.mesh.data();
        if batch.compares() {
            // Not all ranks may have rows, so none compares its own with those of others.
            return (data.rank() == 0).then(|| batch.clone());
        }
        let each = batch.together();
        let own = piece(batch.rows() / each, data.rank(), data.size());
        (!own.is_empty()).then(|| batch.part(each * own.start..each * own.end))
    }

    /// The sum of a number that each data rank has its own of.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn sum(&self, number: f64) -> Result<f64> {
        Ok(self.mesh.data().sum([number])?[0])
    }

    /// Adds the gradients of this rank's microbatches, and sums them over the data ranks. `before` is called before
    /// each of them. Returns the loss of all ranks.
    ///
    /// # Errors
    /// If a batch is not for this model, or a rank is gone.
    pub fn gradients(
        &mut self,
        model: &dyn Model,
        batches: &[Batch],
        pass: &Pass,
        gradients: &mut Gradients,
        mut before: impl FnMut(usize),
    ) -> Result<Loss> {
        let last = batches.len().saturating_sub(1);
        let loss = if self.mesh.pipeline().size() == 1 {
            let mut loss = Loss::default();
            for (number, batch) in batches.iter().enumerate() {
                before(number);
                if number == last {
                    self.watch(gradients);
                }
                loss += model.gradients(batch, pass, gradients)?;
            }
            loss
        } else {
            let all = Rc::new(RefCell::new(std::mem::take(gradients)));
            let done = self.stage(model, pass).run(batches, self.plans.schedule, &all, |number| {
                before(number);
                if number == last {
                    self.watch(&mut all.borrow_mut());
                }
            });
            // All tapes are gone by now, and with them all other owners.
            *gradients = Rc::try_unwrap(all).map(RefCell::into_inner).unwrap_or_else(|all| all.take());
            let (loss, kept) = done?;
            self.kept = kept;
            loss
        };
        self.reduce(gradients, loss)
    }

    /// The loss of this rank's rows, without gradients.
    ///
    /// # Errors
    /// If the batch is not for this model, or a rank is gone.
    pub fn loss(&self, model: &dyn Model, batch: &Batch, pass: &Pass) -> Result<Loss> {
        match self.mesh.pipeline().size() {
            1 => model.loss(batch, pass),
            _ => self.stage(model, pass).loss(batch),
        }
    }

    /// What comes out for a batch that nothing is learned from; on a pipeline the last stage has it.
    ///
    /// # Errors
    /// If the batch is not for this model, or a rank is gone.
    pub fn logits(&self, model: &dyn Model, batch: &Batch, pass: &Pass) -> Result<Option<Tensor>> {
        match self.mesh.pipeline().size() {
            1 => model.logits(batch, pass).map(Some),
            _ => self.stage(model, pass).logits(batch),
        }
    }

    /// Goes on after a prompt; an encoder-decoder reads `source` first. All ranks return the text.
    ///
    /// # Errors
    /// If the model generates no text, or the prompt does not fit, or a rank is gone.
    pub fn generate(
        &self,
        model: &dyn Model,
        prompt: &[u32],
        source: Option<&[u32]>,
        sampling: &Sampling,
    ) -> Result<Vec<u32>> {
        if self.mesh.pipeline().size() > 1 {
            return text::generate(&self.stage(model, &Pass::evaluation()), prompt, source, sampling);
        }
        let source = source.map(|source| [source.to_vec()]);
        let source = source.as_ref().map(|source| source.as_slice());
        Ok(generate(model, &[prompt.to_vec()], source, sampling, |_| ())?.concat())
    }

    fn stage<'m>(&'m self, model: &'m dyn Model, pass: &'m Pass) -> Stage<'m> {
        Stage { group: self.mesh.pipeline(), model, pass }
    }

    /// Microbatches whose activations were kept at a time in the last step over a pipeline.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// From here on gradients are summed as soon as they are final. Those of parameters that several stages have are
    /// summed over these first.
    fn watch(&self, gradients: &mut Gradients) {
        self.shared.iter().for_each(|(id, _)| gradients.hold(*id, true));
        if let Some(reducer) = &self.reducer {
            reducer.watch(gradients);
        }
    }

    /// Sums the gradients, and the loss on the same journey: each one of its own makes all ranks wait for the slowest.
    fn reduce(&mut self, gradients: &mut Gradients, loss: Loss) -> Result<Loss> {
        for (id, group) in &self.shared {
            gradients.sum(*id, &**group)?;
            gradients.hold(*id, false);
        }
        let Some(reducer) = &self.reducer else { return self.total(loss) };
        // Where one rank has a gradient and another has none, such as for rows without targets, there is one.
        let mut has = gradients.written();
        let count = has.len();
        has.extend([loss.sum, loss.count]);
        let zero = &mut self.zero;
        let mut taken = Ok(());
        reducer.finish(gradients, |bucket, values| {
            if let Some(zero) = zero {
                taken = std::mem::replace(&mut taken, Ok(())).and_then(|()| zero.take(bucket, &values));
            }
        })?;
        taken?;
        self.mesh.data().all_reduce(Numbers::F64(&mut has), Combine::Sum)?;
        gradients.set_written(&has[..count]);
        if let Some(zero) = zero {
            zero.keep(|id| has[id] > 0.0);
        }
        self.of_stages([has[count], has[count + 1]])
    }

    /// A loss of this rank's rows, as that of all rows.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn total(&self, loss: Loss) -> Result<Loss> {
        self.of_stages(self.mesh.data().sum([loss.sum, loss.count])?)
    }

    /// How many of this rank's answers are right, and how many there are, as those of all rows.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn total_right(&self, [right, answers]: [usize; 2]) -> Result<[f64; 2]> {
        let Loss { sum, count } = self.total(Loss { sum: right as f64, count: answers as f64 })?;
        Ok([sum, count])
    }

    /// Two sums of a pipeline, of which only the last stage has any.
    fn of_stages(&self, own: [f64; 2]) -> Result<Loss> {
        let [sum, count] = self.mesh.pipeline().sum(own)?;
        Ok(Loss { sum, count })
    }

    /// The norm of all gradients of all ranks, each counted once.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn norm(&self, parameters: &Parameters, gradients: &Gradients) -> Result<f64> {
        let layers = self.mesh.tensor().size() * self.mesh.pipeline().size();
        if layers == 1 && self.zero.is_none() {
            // Every rank has all sums, and need not wait for the others to know their norm.
            return gradients.norm();
        }
        let squares = match &self.zero {
            Some(zero) => {
                let (gradients, ids) = zero.gradients();
                let own = ids.enumerate().filter(|(_, id)| self.counts(parameters, *id));
                gradients.squares_of(own.map(|(place, _)| place))?
            }
            None if self.mesh.data().rank() == 0 => {
                let own = (0..parameters.len()).filter(|id| self.counts(parameters, *id));
                gradients.squares_of(own)?
            }
            None => 0.0,
        };
        Ok(self.mesh.world().sum([squares])?[0].sqrt())
    }

    /// Whether this rank's part of a parameter is not one that another rank counts.
    fn counts(&self, parameters: &Parameters, id: usize) -> bool {
        let parameter = parameters.nth(id);
        let first = self.mesh.tensor().rank() == 0 || !parameter.part.is_whole();
        let others = self.shared.iter().find(|(shared, _)| *shared == id);
        first && others.is_none_or(|(_, stages)| stages.rank() == 0)
    }

    /// Scales gradients so that the norm of all of them is `limit` at most, and says what it was.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn clip(&mut self, parameters: &Parameters, gradients: &mut Gradients, limit: f64) -> Result<f64> {
        let norm = self.norm(parameters, gradients)?;
        if let Some(factor) = Gradients::factor(norm, limit) {
            match &mut self.zero {
                Some(zero) => zero.scale(factor),
                None => gradients.scale(factor),
            }?;
        }
        Ok(norm)
    }

    /// Changes the parameters.
    ///
    /// # Errors
    /// If the gradients are not those of the parameters, or a rank is gone.
    pub fn step(
        &mut self,
        optimiser: &mut dyn Optimiser,
        parameters: &Parameters,
        gradients: &Gradients,
        rate: f64,
    ) -> Result<()> {
        match &mut self.zero {
            Some(zero) => zero.step(optimiser, parameters, self.mesh.data(), rate),
            None => optimiser.step(parameters, gradients, rate),
        }
    }

    /// In how many parts gradients are summed over the data ranks.
    pub fn buckets(&self) -> usize {
        self.reducer.as_ref().map_or(0, Reducer::buckets)
    }

    /// What this rank has sent to sum gradients.
    pub fn reduced(&self) -> Traffic {
        self.reducer.as_ref().map(Reducer::sent).unwrap_or_default()
    }

    /// Numbers that the optimiser keeps state of on this rank.
    pub fn optimised(&self, parameters: &Parameters) -> usize {
        self.zero.as_ref().map_or(parameters.counts().1, Zero::count)
    }

    /// The whole parameters, on the rank that leads; nothing on the others.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn weights(&self, parameters: &Parameters) -> Result<BTreeMap<String, Tensor>> {
        collect::collect(&self.mesh, parameters, parameters.tensors())
    }

    /// What the optimiser remembers, of whole parameters, on the rank that leads.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn state(&self, optimiser: &dyn Optimiser, parameters: &Parameters) -> Result<State> {
        let State { step, tensors } = match &self.zero {
            Some(zero) => zero.state(optimiser, parameters, self.mesh.data())?,
            None => optimiser.state(parameters)?,
        };
        Ok(State { step, tensors: collect::collect(&self.mesh, parameters, tensors)? })
    }

    /// Goes on from a state of whole parameters.
    ///
    /// # Errors
    /// If the state belongs to other parameters.
    pub fn load_state(
        &self,
        optimiser: &mut dyn Optimiser,
        parameters: &Parameters,
        state: &State,
    ) -> Result<()> {
        let tensors = collect::cut_state(parameters, &state.tensors)?;
        let state = State { step: state.step, tensors };
        match &self.zero {
            Some(zero) => zero.load_state(optimiser, &state),
            None => optimiser.load_state(parameters, &state),
        }
    }
}

/// The parameters that other stages have, too, each with the group of those that do.
fn shared(mesh: &Mesh, parameters: &Parameters) -> Result<Vec<(usize, Arc<dyn Group>)>> {
    let stages = mesh.pipeline();
    if stages.size() == 1 {
        return Ok(Vec::new());
    }
    let own: BTreeSet<String> =
        parameters.iter().filter(|parameter| parameter.shared).map(|p| p.name().to_owned()).collect();
    let mut all = BTreeSet::new();
    for stage in 0..stages.size() {
        let mut text = serde_json::to_vec(&own)?;
        stages.broadcast(&mut text, stage)?;
        all.extend(serde_json::from_slice::<BTreeSet<String>>(&text)?);
    }
    let mut shared = Vec::new();
    for name in &all {
        let group = stages.split(usize::from(own.contains(name)))?;
        if let Some(id) = parameters.iter().position(|parameter| parameter.name() == name) {
            shared.push((id, group));
        }
    }
    Ok(shared)
}
