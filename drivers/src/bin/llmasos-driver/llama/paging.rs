//! Pages between the pool and the swap area, and pools of another size.
//!
//! What fails here changes nothing and is told in one entry of the answer, so that the kernel can compute what it
//! could not load: a page is only a copy.

use drivers::wire::{Asid, DriverFault, PAGE_TOKENS, PageLabel, Slot};
use syscalls::{Errno, Token};

use super::batch::Output;
use super::context::{Context, ContextSettings};
use super::pool::Pool;
use super::step::{Generating, LlamaDriver};
use super::swap::{HEADER_BYTES, PageKind};
use drivers::gguf::estimate::POOL_TOKENS_MULTIPLE;

/// Bytes that a sealed page takes, by the state of two entries: a header of llama.cpp's, and the same for each one.
///
/// # Errors
///
/// EIO where the model cannot run, or llama.cpp cannot tell its state.
pub fn page_bytes(context: &mut Context) -> Result<u64, DriverFault> {
    let failed =
        |what: &str| DriverFault::new(Errno::EIO, format!("the model's pages cannot be measured: {what}"));
    context.batch().clear();
    context.batch().add(0, 0, &[Token(0), Token(0)], Output::None);
    context.decode().map_err(|error| failed(&format!("{error:?}")))?;
    let mut state_bytes = |entries| {
        let mut state = Vec::new();
        context.save(Asid(0), 0..entries, &mut state).then_some(state.len() as u64)
    };
    let bytes = state_bytes(1).zip(state_bytes(2));
    context.drop_from(Asid(0), 0);
    let (one, two) = bytes.ok_or_else(|| failed("llama.cpp does not tell them"))?;
    Ok(HEADER_BYTES as u64 + one + (two - one) * u64::from(PAGE_TOKENS - 1))
}

impl LlamaDriver {
    /// What its pages have in common with those that it can load.
    pub(super) fn page_kind(&self) -> PageKind {
        let description = &self.description;
        PageKind {
            fingerprint: description.fingerprint,
            attention: description.attention,
            deterministic: self.deterministic,
        }
    }

    pub(super) fn save(&mut self, asid: Asid, label: PageLabel, slot: Slot) -> Result<(), DriverFault> {
        if self.pool.length(asid).is_none_or(|length| length < label.to) {
            return Err(unsound("its entries are missing: a page before it was not loaded"));
        }
        let mut page = std::mem::take(&mut self.page);
        page.clear();
        page.resize(HEADER_BYTES, 0);
        let positions = label.from..label.to;
        let Generating { context, alone, .. } = self.generating();
        let taken = match alone {
            Some(alone) => alone.save(context, asid, positions, &mut page),
            None if context.save(asid, positions, &mut page) => Ok(()),
            None => Err(unsound("llama.cpp does not tell its entries")),
        };
        let kind = self.page_kind();
        let saved = taken.and_then(|()| {
            self.swap.seal(kind, label, &mut page);
            self.swap.write(slot, &page).map_err(DriverFault::from)
        });
        self.page = page;
        saved
    }

    pub(super) fn load(&mut self, asid: Asid, label: PageLabel, slot: Slot) -> Result<(), DriverFault> {
        if self.pool.length(asid) != Some(label.from) {
            return Err(unsound("the entries before it are missing"));
        }
        let page = self.swap.read(slot)?;
        let entries = self.page_kind().open(label, &page)?;
        if !self.pool.grow(asid, label.to - label.from) {
            let (free, wanted) = (self.pool.free(), label.to - label.from);
            let message =
                format!("the KV pool has {free} tokens free and the page needs {wanted}; drop some first");
            return Err(DriverFault::new(Errno::ENOMEM, message));
        }
        let Generating { context, alone, .. } = self.generating();
        let loaded = match alone {
            Some(alone) => alone.load(context, asid, label.to - label.from, entries),
            None => (context.load(asid, label.from..label.to, entries))
                .map_err(|why| unsound(&format!("llama.cpp refuses it: {why}"))),
        };
        loaded.inspect_err(|_| self.pool.drop_from(asid, label.from))
    }

    /// Makes the pool, which is empty, another size.
    ///
    /// # Panics
    ///
    /// Where there is no memory for the new pool and none for the old one again: a new worker takes over.
    pub(super) fn resize(&mut self, tokens: u32) -> Result<(), DriverFault> {
        if self.generating().alone.is_some() {
            // The pages are kept outside of the context, which has room for one sequence whatever the pool.
            self.set_pool(tokens);
            return Ok(());
        }
        let Some(Generating { context, settings, .. }) = self.generating.take() else { return Ok(()) };
        // The old pool goes first: there may be no room for both.
        drop(context);
        let wanted = resized(&settings, tokens, self.description.batch_tokens);
        let (context, settings, came) = match Context::new(&self.model, &wanted) {
            Ok(context) => (context, wanted, Ok(())),
            Err(fault) => {
                let again = Context::new(&self.model, &settings).expect("the old pool fitted before");
                (again, settings, Err(fault))
            }
        };
        let bytes = context.memory_bytes();
        (self.description.pool_bytes, self.description.compute_bytes) = (bytes.pool, bytes.compute);
        self.generating = Some(Generating { context, settings, alone: None });
        self.listen_for_withdrawals();
        came.map(|()| self.set_pool(tokens))
    }

    fn set_pool(&mut self, tokens: u32) {
        self.pool = Pool::new(tokens, self.description.sequences);
        let old = std::mem::replace(&mut self.description.pool_tokens, tokens);
        if self.generating().alone.is_some() {
            let bytes = u64::from(tokens) * self.description.pool_bytes / u64::from(old);
            self.description.pool_bytes = bytes;
        }
    }
}

/// A context with another pool. What the kernel asks for is counted by the driver; llama.cpp rounds it up.
fn resized(settings: &ContextSettings, tokens: u32, batch_tokens: u32) -> ContextSettings {
    let tokens = tokens.next_multiple_of(POOL_TOKENS_MULTIPLE);
    ContextSettings { tokens, batch_tokens: batch_tokens.min(tokens), ..settings.clone() }
}

fn unsound(why: &str) -> DriverFault {
    DriverFault::new(Errno::EIO, format!("the page cannot be used: {why}"))
}
