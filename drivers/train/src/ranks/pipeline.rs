//! A step over the stages of a pipeline: each has some of the layers, and microbatches go through them one after another.
//!
//! With one-forward-one-backward (Narayanan et al., "PipeDream", 2019, with the flush of Megatron-LM) a stage first goes
//! forward with as many microbatches as there are stages behind it, and then forward and backward in turn, so it keeps
//! the activations of no more microbatches than there are stages. GPipe (Huang et al., 2019) goes forward with all of
//! them first. Both add up gradients in the order of the microbatches, as one process does.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::group::Group;
use crate::model::{Answered, Passed};
use crate::ops::read::Read;
use crate::ops::{for_type, tensor};
use crate::tape::{Tape, Value};
use crate::{Batch, Gradients, Loss, Model, Pass, Result};

/// In which order a stage of a pipeline computes microbatches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PipelineSchedule {
    /// Backwards as soon as possible, so that a stage keeps no more microbatches than there are stages.
    #[default]
    OneForwardOneBackward,
    /// All of them forwards, then all of them backwards.
    GPipe,
}

impl PipelineSchedule {
    /// With how many microbatches a stage goes forward before it goes backward with the first.
    fn ahead(self, [stage, stages]: [usize; 2], microbatches: usize) -> usize {
        match self {
            PipelineSchedule::OneForwardOneBackward => stages - stage - 1,
            PipelineSchedule::GPipe => microbatches,
        }
    }
}

/// One stage.
pub(super) struct Stage<'m> {
    pub group: &'m dyn Group,
    pub model: &'m dyn Model,
    pub pass: &'m Pass,
}

/// A microbatch that has gone forward.
struct Flight<'m> {
    tape: Tape<'m>,
    from: Vec<Value>,
    passed: Passed,
}

impl<'m> Stage<'m> {
    /// Goes forward and backward with all microbatches, and adds to the gradients. `before` is called before each goes
    /// forward. Returns the loss, on the last stage, and with how many microbatches it was at a time.
    pub fn run(
        &self,
        batches: &'m [Batch],
        schedule: PipelineSchedule,
        gradients: &Rc<RefCell<Gradients>>,
        mut before: impl FnMut(usize),
    ) -> Result<(Loss, usize)> {
        let ahead = schedule.ahead([self.group.rank(), self.group.size()], batches.len());
        let mut flights: VecDeque<Flight<'m>> = VecDeque::new();
        let (mut loss, mut most) = (Loss::default(), 0);
        for (number, batch) in batches.iter().enumerate() {
            before(number);
            let flight =
                self.forward(batch, Tape::recording(gradients.clone()).in_precision(self.pass.precision))?;
            if let Passed::Loss(recorded) = &flight.passed {
                loss += recorded.loss;
            }
            flights.push_back(flight);
            most = most.max(flights.len());
            if number >= ahead
                && let Some(first) = flights.pop_front()
            {
                self.backward(first)?;
            }
        }
        flights.into_iter().try_for_each(|flight| self.backward(flight))?;
        Ok((loss, most))
    }

    /// Goes forward alone, for evaluation. The loss is the last stage's.
    pub fn loss(&self, batch: &'m Batch) -> Result<Loss> {
        match self.forward(batch, self.model.parameters().tape())?.passed {
            Passed::Loss(recorded) => Ok(recorded.loss),
            Passed::On(_) => Ok(Loss::default()),
        }
    }

    /// What comes out for a batch that nothing is learned from, on the last stage.
    pub fn logits(&self, batch: &Batch) -> Result<Option<Tensor>> {
        let from = self.from_before(batch)?;
        let from: Vec<Value> = from.into_iter().map(Value::constant).collect();
        match self.model.answer(batch, self.pass, &from)? {
            Answered::Logits(logits) => Ok(Some(logits)),
            Answered::On(values) => {
                self.pass_on(&values)?;
                Ok(None)
            }
        }
    }

    /// What the stage before has passed on for a batch.
    fn from_before(&self, batch: &Batch) -> Result<Vec<Tensor>> {
        let Some(before) = self.group.rank().checked_sub(1) else { return Ok(Vec::new()) };
        self.model.incoming(batch).iter().map(|dims| self.receive(before, dims)).collect()
    }

    fn pass_on(&self, values: &[Value]) -> Result<()> {
        values.iter().try_for_each(|value| self.send(self.group.rank() + 1, value.tensor()))
    }

    fn forward(&self, batch: &'m Batch, tape: Tape<'m>) -> Result<Flight<'m>> {
        let from = self.from_before(batch)?;
        let from: Vec<Value> = from.into_iter().map(|tensor| tape.input(tensor)).collect();
        let passed = self.model.forward(&tape, batch, self.pass, &from)?;
        if let Passed::On(values) = &passed {
            self.pass_on(values)?;
        }
        Ok(Flight { tape, from, passed })
    }

    fn backward(&self, Flight { tape, from, passed }: Flight<'m>) -> Result<()> {
        let begin: Vec<(Value, Tensor)> = match passed {
            Passed::Loss(recorded) => {
                recorded.gradient.map(|gradient| (recorded.value, gradient)).into_iter().collect()
            }
            Passed::On(values) => {
                let next = self.group.rank() + 1;
                let gradient = |value: Value| {
                    let gradient = self.receive(next, value.tensor().dims())?;
                    Ok((value, gradient))
                };
                values.into_iter().map(gradient).collect::<Result<_>>()?
            }
        };
        let gradients = tape.backward_from_all(begin, &from)?;
        let Some(before) = self.group.rank().checked_sub(1) else { return Ok(()) };
        for (value, gradient) in from.iter().zip(gradients) {
            match gradient {
                Some(gradient) => self.send(before, &gradient)?,
                None => self.send(before, &value.tensor().zeros_like()?)?,
            }
        }
        Ok(())
    }

    fn send(&self, to: usize, value: &Tensor) -> Result<()> {
        let value = value.contiguous()?.to_device(&Device::Cpu)?;
        for_type!(value, T => {
            let numbers = Read::of(&value)?.slice::<T>().to_vec();
            Ok(self.group.send(to, <T as super::group::Number>::message(numbers))?)
        })
    }

    fn receive(&self, from: usize, dims: &[usize]) -> Result<Tensor> {
        let count = dims.iter().product();
        let parameters = self.model.parameters();
        let host = match parameters.dtype() {
            DType::F64 => tensor::<f64>(self.group.receive_numbers(from, count)?, dims),
            _ => tensor::<f32>(self.group.receive_numbers(from, count)?, dims),
        }?;
        Ok(host.to_device(parameters.device())?)
    }
}
