//! Runs steps: the operations, one batched forward pass, then the samplers. [`super::paging`] moves pages, and
//! [`super::rows`] stands between rows and the pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use drivers::contract::Contract;
use drivers::wire::{Asid, DriverFault, ModelDescription, Op, SamplerSpec, Step, StepDone, Vector};
use drivers::{Driver, TextCodec, Withdrawal};
use syscalls::{Errno, Token};

use super::alone::Alone;
use super::context::{Context, ContextSettings};
use super::embed::{Embedder, WINDOW_MAX};
use super::model::Model;
use super::pool::Pool;
use super::sample::{Marks, Sampler};
use super::swap::Swap;
use super::text::LlamaText;

/// The context of a model that generates, and how it was set up.
pub struct Generating {
    pub context: Context,
    pub settings: ContextSettings,
    /// The sequences of a deterministic mount, which the context does not hold all at once.
    pub alone: Option<Alone>,
}

/// A model that llama.cpp runs.
pub struct LlamaDriver {
    pub(super) model: Arc<Model>,
    /// Where the model generates. Encoders have none.
    pub(super) generating: Option<Generating>,
    /// Set up for the first texts, where the model embeds.
    embedder: Option<Embedder>,
    text: Arc<LlamaText>,
    pub(super) deterministic: bool,
    pub(super) description: ModelDescription,
    pub(super) pool: Pool,
    pub(super) swap: Swap,
    /// A page on its way between the pool and the swap area.
    pub(super) page: Vec<u8>,
    marks: Arc<Marks>,
    /// The sampler of each sequence that has one, or why it could not be set up, which its next row answers.
    pub(super) samplers: BTreeMap<Asid, Result<Sampler, DriverFault>>,
    pub(super) withdrawal: Arc<Withdrawal>,
}

impl LlamaDriver {
    /// Puts together what loading has made.
    pub fn new(
        model: Arc<Model>,
        generating: Option<Generating>,
        swap: Swap,
        text: Arc<LlamaText>,
        description: ModelDescription,
        deterministic: bool,
    ) -> LlamaDriver {
        let pool = Pool::new(description.pool_tokens, description.sequences);
        let marks = Arc::new(Marks::new(&model));
        let mut driver = LlamaDriver {
            model,
            generating,
            embedder: None,
            text,
            deterministic,
            description,
            pool,
            swap,
            page: Vec::new(),
            marks,
            samplers: BTreeMap::new(),
            withdrawal: Arc::new(Withdrawal::default()),
        };
        let (page_bytes, kind) = (driver.description.page_bytes, driver.page_kind());
        driver.description.saved = driver.swap.begin(page_bytes, kind);
        driver.listen_for_withdrawals();
        driver
    }

    /// Whether a pass can be stopped: on the CPU, where what it leaves behind can be dropped by range.
    fn stops(&self) -> bool {
        self.description.device == "cpu" && self.description.ranges
    }

    pub(super) fn listen_for_withdrawals(&mut self) {
        if self.stops()
            && let Some(generating) = &mut self.generating
        {
            generating.context.stop_on(&self.withdrawal);
        }
    }

    /// Does an operation; tells what came of it where the kernel is to know.
    fn apply(&mut self, op: &Op) -> Option<Result<(), DriverFault>> {
        match op {
            Op::Share { from, to, length } => self.share(*from, *to, *length),
            Op::Drop { asid, from } => self.drop_from(*asid, *from),
            Op::SamplerOpen { asid, sampler } => {
                let sampler = self.open_sampler((**sampler).clone());
                self.samplers.insert(*asid, sampler);
            }
            Op::SamplerClose { asid } => {
                self.samplers.remove(asid);
            }
            Op::Save { asid, page, slot } => return Some(self.save(*asid, *page, *slot)),
            Op::Load { asid, page, slot } => return Some(self.load(*asid, *page, *slot)),
            Op::Move { from, to } => return Some(self.swap.copy(*from, *to).map_err(DriverFault::from)),
            Op::Resize { tokens } => return Some(self.resize(*tokens)),
            Op::Clear => self.clear(),
        }
        None
    }

    /// Does the operations; answers for those about pages, each with its time in microseconds.
    fn apply_all(&mut self, ops: &[Op]) -> Vec<Result<u64, DriverFault>> {
        let mut pages = Vec::new();
        for op in ops {
            let start = Instant::now();
            if let Some(came) = self.apply(op) {
                pages.push(came.map(|()| start.elapsed().as_micros() as u64));
            }
        }
        pages
    }

    /// Shares the beginning of a sequence, as far as it is there: a page of it may have failed to load in this step.
    fn share(&mut self, from: Asid, to: Asid, length: u32) {
        let length = length.min(self.pool.length(from).unwrap_or(0));
        self.pool.share(from, to, length);
        let Generating { context, alone, .. } = self.generating();
        match alone {
            Some(alone) => alone.share(from, to, length),
            None => context.share(from, to, length),
        }
    }

    fn open_sampler(&self, spec: SamplerSpec) -> Result<Sampler, DriverFault> {
        Sampler::new(&self.model, &self.marks, spec)
    }

    pub(super) fn generating(&mut self) -> &mut Generating {
        self.generating.as_mut().expect("a step passes the contract only where the model generates")
    }

    /// Drops the end of a sequence, in the pool and in llama.cpp.
    ///
    /// # Panics
    ///
    /// Where llama.cpp keeps or loses whole sequences only and this is a part of one, which the contract rules out.
    pub(super) fn drop_from(&mut self, asid: Asid, from: u32) {
        if self.pool.length(asid).is_none_or(|length| length <= from) {
            return;
        }
        self.pool.drop_from(asid, from);
        let Generating { context, alone, .. } = self.generating();
        let dropped = match alone {
            Some(alone) => alone.drop_from(context, asid, from),
            None => context.drop_from(asid, from),
        };
        assert!(dropped, "sequence {} can only be dropped as a whole", asid.0);
    }
}

impl Driver for LlamaDriver {
    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn step(&mut self, step: &Step) -> Result<StepDone, DriverFault> {
        let start = Instant::now();
        let samplers = self.samplers.keys().copied().collect();
        Contract::new(&self.description, &|asid| self.pool.length(asid), samplers).check(step)?;
        self.withdrawal.begin(step.number);
        let pages = self.apply_all(&step.ops);
        let rows = self.run_rows(step);
        let elapsed_us = start.elapsed().as_micros() as u64;
        Ok(StepDone { number: step.number, rows, elapsed_us, pages })
    }

    fn text(&self) -> Arc<dyn TextCodec> {
        self.text.clone()
    }

    fn withdrawal(&self) -> Option<Arc<Withdrawal>> {
        self.stops().then(|| self.withdrawal.clone())
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
                let mut embedder = Embedder::new(&self.model, window, self.description.threads)?;
                if self.deterministic {
                    embedder.one_at_a_time();
                }
                unset.insert(embedder)
            }
        };
        embedder.embed(texts)
    }
}
