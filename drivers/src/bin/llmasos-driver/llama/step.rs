//! Runs steps: the operations, one batched forward pass, then the samplers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use drivers::wire::{
    Asid, DriverFault, ModelDescription, Op, Row, RowDone, SamplerSpec, Step, StepDone, Vector,
};
use drivers::{Driver, TextCodec};
use syscalls::{Errno, Token};

use super::context::{Context, DecodeError, Output};
use super::contract::Contract;
use super::embed::{Embedder, WINDOW_MAX};
use super::model::Model;
use super::pool::Pool;
use super::sample::{Marks, Sampler};
use super::text::LlamaText;

/// A model that llama.cpp runs.
pub struct LlamaDriver {
    model: Arc<Model>,
    /// Where the model generates. Encoders have none.
    context: Option<Context>,
    /// Set up for the first texts, where the model embeds.
    embedder: Option<Embedder>,
    text: Arc<LlamaText>,
    description: ModelDescription,
    pool: Pool,
    marks: Arc<Marks>,
    /// The sampler of each sequence that has one, or why it could not be set up, which its next row answers.
    samplers: BTreeMap<Asid, Result<Sampler, DriverFault>>,
}

/// What became of a row before the pass.
enum Planned {
    /// It is in the batch; its last token is at this place.
    InBatch(usize),
    /// It is not.
    Failed(DriverFault),
}

impl LlamaDriver {
    /// Puts together what loading has made.
    pub fn new(
        model: Arc<Model>,
        context: Option<Context>,
        text: Arc<LlamaText>,
        description: ModelDescription,
    ) -> LlamaDriver {
        let pool = Pool::new(description.pool_tokens, description.sequences);
        let marks = Arc::new(Marks::new(&model));
        LlamaDriver {
            model,
            context,
            embedder: None,
            text,
            description,
            pool,
            marks,
            samplers: BTreeMap::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Share { from, to, length } => {
                self.pool.share(*from, *to, *length);
                self.context().share(*from, *to, *length);
            }
            Op::Drop { asid, from } => self.drop_from(*asid, *from),
            Op::SamplerOpen { asid, sampler } => {
                let sampler = self.open_sampler((**sampler).clone());
                self.samplers.insert(*asid, sampler);
            }
            Op::SamplerClose { asid } => {
                self.samplers.remove(asid);
            }
            Op::Save { .. } | Op::Load { .. } | Op::Move { .. } | Op::Resize { .. } => {
                unreachable!("the contract refuses it")
            }
        }
    }

    fn open_sampler(&self, spec: SamplerSpec) -> Result<Sampler, DriverFault> {
        Sampler::new(&self.model, &self.marks, spec)
    }

    fn context(&mut self) -> &mut Context {
        self.context.as_mut().expect("a step passes the contract only where the model generates")
    }

    /// Drops the end of a sequence, in the pool and in llama.cpp.
    ///
    /// # Panics
    ///
    /// Where llama.cpp keeps or loses whole sequences only and a failed row has left something: the state is
    /// lost then, and a new worker takes over.
    fn drop_from(&mut self, asid: Asid, from: u32) {
        if self.pool.length(asid) == Some(from) {
            return;
        }
        self.pool.drop_from(asid, from);
        assert!(self.context().drop_from(asid, from), "sequence {} can only be dropped as a whole", asid.0);
    }

    /// Fills the batch with the rows that can run.
    fn plan(&mut self, rows: &[Row]) -> Vec<Planned> {
        self.context().batch().clear();
        rows.iter().map(|row| self.plan_row(row)).collect()
    }

    fn plan_row(&mut self, row: &Row) -> Planned {
        if let Some(Err(fault)) = self.samplers.get(&row.asid).filter(|_| row.sample) {
            return Planned::Failed(fault.clone());
        }
        if !self.pool.grow(row.asid, row.tokens.len() as u32) {
            let message = format!(
                "the KV pool of {} tokens has {} free and the row needs {}; close contexts or mount the model with a \
                 larger --context",
                self.description.pool_tokens,
                self.pool.free(),
                row.tokens.len()
            );
            return Planned::Failed(DriverFault::new(Errno::ENOMEM, message));
        }
        let output = if row.sample { Output::Last } else { Output::None };
        Planned::InBatch(self.context().batch().add(row.asid.0, row.position, &row.tokens, output))
    }

    /// Says what came of a row after the pass.
    fn finish_row(&mut self, row: &Row, planned: Planned, pass: &Result<(), DecodeError>) -> RowDone {
        let fault = match (planned, pass) {
            (Planned::Failed(fault), _) => return RowDone::Failed(fault),
            (Planned::InBatch(_), Err(error)) => fault_of(*error),
            (Planned::InBatch(_), Ok(())) if !row.sample => return RowDone::Computed,
            (Planned::InBatch(place), Ok(())) => match self.sample(row.asid, place) {
                Ok(sampled) => return RowDone::Sampled(vec![sampled]),
                Err(fault) => fault,
            },
        };
        // llama.cpp has taken the entries of a failed pass out itself, or some of them.
        self.drop_from(row.asid, row.position);
        RowDone::Failed(fault)
    }

    fn sample(&mut self, asid: Asid, place: usize) -> Result<drivers::wire::Sampled, DriverFault> {
        let context = self.context.as_mut().expect("a pass has run");
        let logits = context
            .logits(place)
            .ok_or_else(|| DriverFault::new(Errno::EIO, "llama.cpp has no logits for the row"))?;
        match self.samplers.get_mut(&asid) {
            Some(Ok(sampler)) => sampler.next(logits),
            _ => unreachable!("the contract and the plan let no row through that has no sampler"),
        }
    }
}

impl Driver for LlamaDriver {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn step(&mut self, step: &Step) -> Result<StepDone, DriverFault> {
        let start = Instant::now();
        let samplers = self.samplers.keys().copied().collect();
        Contract::new(&self.description, &self.pool, samplers).check(step)?;
        for op in &step.ops {
            self.apply(op);
        }
        let planned = self.plan(&step.rows);
        let pass = match self.context().batch().len() {
            0 => Ok(()),
            _ => self.context().decode(),
        };
        if let Err(error) = pass {
            tracing::warn!("step {}: the forward pass failed: {error:?}", step.number);
        }
        let rows = std::iter::zip(&step.rows, planned)
            .map(|(row, planned)| self.finish_row(row, planned, &pass))
            .collect();
        let elapsed_us = start.elapsed().as_micros() as u64;
        Ok(StepDone { number: step.number, rows, elapsed_us, pages: Vec::new() })
    }

    fn text(&self) -> Arc<dyn TextCodec> {
        self.text.clone()
    }

    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vector>, DriverFault> {
        if !self.description.embeds {
            let message = "this model makes no vectors of texts; mount an encoder, such as a BERT in GGUF";
            return Err(DriverFault::new(Errno::ENOSYS, message));
        }
        let embedder = match &mut self.embedder {
            Some(embedder) => embedder,
            unset => {
                let window = self.description.context_tokens.min(WINDOW_MAX);
                unset.insert(Embedder::new(&self.model, window, self.description.threads)?)
            }
        };
        embedder.embed(texts)
    }
}

fn fault_of(error: DecodeError) -> DriverFault {
    match error {
        DecodeError::NoSlot => {
            DriverFault::new(Errno::ENOMEM, "llama.cpp found no room in its KV pool for the batch")
        }
        DecodeError::Failed(number) => {
            DriverFault::new(Errno::EIO, format!("llama.cpp could not run the batch (its error {number})"))
        }
    }
}
