//! The sim driver as a worker that lives in its caller's process: no time passes, and what would end a worker
//! process is a value. Tests and the simulator play the host with it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;
use super::load::load_with_swap;
use super::step::SimDriver;
use super::swap::SimSwap;
use crate::Driver;
use crate::wire::{
    Answer, DriverFault, LoadRequest, ModelDescription, Question, Step, StepDone, TokenizeRequest,
};

/// The death of a worker, and how it died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Died(pub String);

/// A clock on which death is a panic with [`Died`], without a word on standard error.
struct MortalClock;

impl Clock for MortalClock {
    fn sleep(&self, _: Duration) {}

    fn hang(&self) -> ! {
        resume_unwind(Box::new(Died("hung".into())))
    }

    fn abort(&self, why: &str) -> ! {
        resume_unwind(Box::new(Died(why.into())))
    }
}

/// A worker. One that has died must not be used again.
pub struct SimWorker {
    driver: SimDriver,
}

impl SimWorker {
    /// Starts a worker and loads its script.
    ///
    /// # Errors
    ///
    /// [`Died`] where it died of it; inside, the fault with which it refuses.
    pub fn start(load: &LoadRequest) -> Result<Result<SimWorker, DriverFault>, Died> {
        SimWorker::start_with(load, SimSwap::default())
    }

    /// Starts a worker with the swap area of the ones before it.
    ///
    /// # Errors
    ///
    /// As [`SimWorker::start`].
    pub fn start_with(load: &LoadRequest, swap: SimSwap) -> Result<Result<SimWorker, DriverFault>, Died> {
        let load = || load_with_swap(load, Arc::new(MortalClock), swap).map(|driver| SimWorker { driver });
        mortal(load)
    }

    /// What was loaded.
    pub fn description(&self) -> &ModelDescription {
        self.driver.description()
    }

    /// The driver.
    pub fn driver(&self) -> &SimDriver {
        &self.driver
    }

    /// Runs a step.
    ///
    /// # Errors
    ///
    /// [`Died`] where it died of it; inside, the fault of the step as a whole.
    pub fn step(&mut self, step: &Step) -> Result<Result<StepDone, DriverFault>, Died> {
        mortal(|| self.driver.step(step))
    }

    /// Runs a step that is withdrawn when so many of its rows are through.
    ///
    /// # Errors
    ///
    /// As [`SimWorker::step`].
    pub fn step_withdrawn(
        &mut self,
        step: &Step,
        through: usize,
    ) -> Result<Result<StepDone, DriverFault>, Died> {
        mortal(|| self.driver.step_withdrawn(step, through))
    }

    /// Answers a question.
    ///
    /// # Errors
    ///
    /// [`Died`] where it died of it; inside, the fault that it answers.
    pub fn ask(&mut self, question: Question) -> Result<Result<Answer, DriverFault>, Died> {
        mortal(|| answer(&mut self.driver, question))
    }
}

fn mortal<T>(act: impl FnOnce() -> T) -> Result<T, Died> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|payload| match payload.downcast::<Died>() {
        Ok(died) => *died,
        Err(other) => resume_unwind(other),
    })
}

fn answer(driver: &mut SimDriver, question: Question) -> Result<Answer, DriverFault> {
    let text = driver.text();
    match question {
        Question::Tokenize(request) => text.tokenize(&request).map(Answer::Tokens),
        Question::Detokenize(tokens) => text.detokenize(&tokens).map(Answer::Bytes),
        Question::Chat(request) => text.chat(&request).map(Answer::Chat),
        Question::Embed(texts) => {
            let tokens = texts
                .into_iter()
                .map(|t| text.tokenize(&TokenizeRequest { text: t, bos: false, special: false }));
            driver.embed(&tokens.collect::<Result<Vec<_>, _>>()?).map(Answer::Vectors)
        }
    }
}
