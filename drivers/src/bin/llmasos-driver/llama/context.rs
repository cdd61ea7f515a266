//! One context of llama.cpp: the KV pool with its threads, and the batch that is filled anew for every pass.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use drivers::Withdrawal;
use drivers::wire::{Asid, DriverFault};
use llama_cpp_sys_2 as sys;
use syscalls::Errno;
use syscalls::call::Attention;

use super::accelerator::{self, Kernel};
use super::batch::Batch;
use super::log;
use super::model::Model;
use super::threadpool::Threadpool;

/// Tokens that one graph computes; larger batches are cut into pieces of this size. llama.cpp's own default.
pub const UBATCH_TOKENS: u32 = drivers::gguf::estimate::UBATCH_TOKENS;

/// What a context is for and how large it is.
#[derive(Clone, Debug)]
pub struct ContextSettings {
    /// Cells of the KV pool; a multiple of 256.
    pub tokens: u32,
    /// Tokens of one pass.
    pub batch_tokens: u32,
    /// Tokens of one graph.
    pub ubatch_tokens: u32,
    /// Sequences, those that the driver keeps for itself included.
    pub sequences: u16,
    /// Tokens of one pass that have output. llama.cpp aborts where there are more.
    pub outputs: u32,
    /// Threads.
    pub threads: u32,
    /// The attention kernel.
    pub attention: Attention,
    /// Vectors are wanted instead of logits.
    pub embeddings: bool,
}

/// Why a pass failed. Whatever the reason, the pass may have left entries of its rows behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// No cells for all the tokens.
    NoSlot,
    /// The step was withdrawn.
    Withdrawn,
    /// Anything else, by llama.cpp's number.
    Failed(i32),
}

/// A context with its batch.
pub struct Context {
    raw: NonNull<sys::llama_context>,
    threads: Option<Threadpool>,
    batch: Batch,
    model: Arc<Model>,
    /// The last sequence, through which pages move; empty between two calls.
    spare: sys::llama_seq_id,
    /// What a running pass looks at.
    withdrawal: Option<Arc<Withdrawal>>,
    memory_bytes: MemoryBytes,
    /// The kernel that runs, which is the fused one where the blocked one does not take the model's heads.
    attention: Attention,
}

/// What a context takes of the device's memory, as far as llama.cpp says it: to a hundredth of a mebibyte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBytes {
    /// The KV pool, and the states of recurrent layers.
    pub pool: u64,
    /// What a pass needs beside the weights and the pool.
    pub compute: u64,
}

// SAFETY: a context may move between threads; llama.cpp only forbids that two use it at once, and no method
// that computes takes `&self`.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from llama.cpp and is freed once; the threads outlive it.
        unsafe {
            sys::llama_detach_threadpool(self.raw.as_ptr());
            sys::llama_free(self.raw.as_ptr());
        }
        self.threads.take();
    }
}

impl Context {
    /// Sets up a context.
    ///
    /// # Errors
    ///
    /// ENOMEM with llama.cpp's own reason: the memory for the KV pool is what fails here.
    pub fn new(model: &Arc<Model>, settings: &ContextSettings) -> Result<Context, DriverFault> {
        log::forget();
        // SAFETY: the model is loaded, and the `Arc` in the context keeps it so.
        let set_up = || unsafe { sys::llama_init_from_model(model.raw(), params(settings)) };
        let blocked = settings.attention == Attention::Blocked && accelerator::usable(Kernel::Attention);
        let (raw, all_taken) = accelerator::during(blocked, std::ptr::null_mut(), set_up);
        let attention = match settings.attention {
            Attention::Blocked if !all_taken => Attention::Flash,
            other => other,
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let why = log::complaint().unwrap_or_else(|| "llama.cpp gave no reason".into());
            let message = format!(
                "cannot set up a context of {} tokens: {why}; mount the model with a smaller --context",
                settings.tokens
            );
            DriverFault::new(Errno::ENOMEM, message)
        })?;
        let pool = log::sum("KV") + log::sum("RS");
        let memory_bytes = MemoryBytes { pool, compute: log::sum("compute") };
        let threads = Threadpool::new(settings.threads);
        if let Some(threads) = &threads {
            // SAFETY: the threads live until the context is freed; ggml lets one pool serve both uses.
            unsafe { sys::llama_attach_threadpool(raw.as_ptr(), threads.raw(), threads.raw()) };
        }
        Ok(Context {
            raw,
            threads,
            batch: Batch::new(settings.batch_tokens),
            model: model.clone(),
            spare: i32::from(settings.sequences) - 1,
            withdrawal: None,
            memory_bytes,
            attention,
        })
    }

    /// The attention kernel that runs.
    pub fn attention(&self) -> Attention {
        self.attention
    }

    /// Lets passes end when their step is withdrawn.
    pub fn stop_on(&mut self, withdrawal: &Arc<Withdrawal>) {
        let data = Arc::as_ptr(withdrawal).cast_mut().cast();
        // SAFETY: the context keeps what the callback reads, for as long as it lives.
        unsafe { sys::llama_set_abort_callback(self.raw.as_ptr(), Some(stops), data) }
        self.withdrawal = Some(withdrawal.clone());
    }

    /// What it takes of the device's memory.
    pub fn memory_bytes(&self) -> MemoryBytes {
        self.memory_bytes
    }

    /// Whether it has a KV pool. Encoders have none.
    pub fn has_memory(&self) -> bool {
        !self.memory().is_null()
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context lives.
        unsafe { sys::llama_get_memory(self.raw.as_ptr()) }
    }

    /// How the model pools vectors.
    pub fn pooling(&self) -> sys::llama_pooling_type {
        // SAFETY: the context lives.
        unsafe { sys::llama_pooling_type(self.raw.as_ptr()) }
    }

    /// Lets `to` share the entries of `from` at positions `0..length`.
    pub fn share(&mut self, from: Asid, to: Asid, length: u32) {
        let (from, to) = (i32::from(from.0), i32::from(to.0));
        // SAFETY: the caller has checked both ids and the length against the pool.
        unsafe { sys::llama_memory_seq_cp(self.memory(), from, to, 0, length as i32) }
    }

    /// Drops the entries of a sequence at positions `from..`. False where the model keeps or loses a whole
    /// sequence and `from` is inside it.
    pub fn drop_from(&mut self, asid: Asid, from: u32) -> bool {
        // SAFETY: the caller has checked the id.
        unsafe { sys::llama_memory_seq_rm(self.memory(), i32::from(asid.0), from as i32, -1) }
    }

    /// Appends a copy of the entries of a sequence at these positions. False where llama.cpp cannot tell them; then
    /// nothing is appended.
    pub fn save(&mut self, asid: Asid, positions: Range<u32>, out: &mut Vec<u8>) -> bool {
        let (memory, start) = (self.memory(), out.len());
        let (from, to) = (positions.start as i32, positions.end as i32);
        // SAFETY: the caller has checked the id and the positions; the spare sequence is empty, and the buffer has
        // the length that is passed.
        unsafe {
            sys::llama_memory_seq_cp(memory, i32::from(asid.0), self.spare, from, to);
            let bytes = sys::llama_state_seq_get_size(self.raw.as_ptr(), self.spare);
            out.resize(start + bytes, 0);
            let at = out[start..].as_mut_ptr();
            let written = sys::llama_state_seq_get_data(self.raw.as_ptr(), at, bytes, self.spare);
            sys::llama_memory_seq_rm(memory, self.spare, -1, -1);
            out.truncate(start + written);
            written > 0 && written == bytes
        }
    }

    /// Adds saved entries to the end of a sequence, wherever cells are free. They must be those of these positions,
    /// and unchanged since they were saved.
    ///
    /// # Errors
    ///
    /// llama.cpp's own reason; the sequence is as before.
    pub fn load(&mut self, asid: Asid, positions: Range<u32>, state: &[u8]) -> Result<(), String> {
        let memory = self.memory();
        log::forget();
        // SAFETY: the caller has checked the id; the spare sequence is empty, so that nothing is overwritten, and
        // llama.cpp reads no further than the length that is passed.
        unsafe {
            let (raw, spare) = (self.raw.as_ptr(), self.spare);
            let read = sys::llama_state_seq_set_data(raw, state.as_ptr(), state.len(), spare);
            let first = sys::llama_memory_seq_pos_min(memory, spare);
            let last = sys::llama_memory_seq_pos_max(memory, spare);
            let whole =
                read == state.len() && (first, last) == (positions.start as i32, positions.end as i32 - 1);
            if whole {
                sys::llama_memory_seq_cp(memory, spare, i32::from(asid.0), -1, -1);
            }
            sys::llama_memory_seq_rm(memory, spare, -1, -1);
            if whole { Ok(()) } else { Err(log::complaint().unwrap_or_else(|| "other positions".into())) }
        }
    }

    /// Cells of the pool.
    pub fn cells(&self) -> u32 {
        // SAFETY: the context lives.
        unsafe { sys::llama_n_ctx(self.raw.as_ptr()) }
    }

    /// Forgets all sequences.
    pub fn clear(&mut self) {
        // SAFETY: the context lives.
        unsafe { sys::llama_memory_clear(self.memory(), false) }
    }

    /// Forgets all sequences, and overwrites what they had.
    pub fn clear_with_data(&mut self) {
        // SAFETY: the context lives.
        unsafe { sys::llama_memory_clear(self.memory(), true) }
    }

    /// Writes a state that takes all free cells into them, and frees them again. False where it does not fit.
    pub fn fill_free(&mut self, state: &[u8]) -> bool {
        // SAFETY: the spare sequence is empty, so that nothing is overwritten that a sequence holds, and llama.cpp reads no
        // further than the length that is passed.
        unsafe {
            let read =
                sys::llama_state_seq_set_data(self.raw.as_ptr(), state.as_ptr(), state.len(), self.spare);
            sys::llama_memory_seq_rm(self.memory(), self.spare, -1, -1);
            read == state.len()
        }
    }

    /// Takes all sequences out, overwrites what is left, and puts them in again. False where they are lost.
    pub fn rewrite(&mut self) -> bool {
        let raw = self.raw.as_ptr();
        // SAFETY: the context lives.
        let mut state = zeroize::Zeroizing::new(vec![0; unsafe { sys::llama_state_get_size(raw) }]);
        // SAFETY: the buffer has the length that is passed.
        let written = unsafe { sys::llama_state_get_data(raw, state.as_mut_ptr(), state.len()) };
        if written == 0 {
            return false;
        }
        self.clear_with_data();
        // SAFETY: so many bytes were written, by this context.
        let read = unsafe { sys::llama_state_set_data(raw, state.as_ptr(), written) };
        read == written
    }

    /// The batch, to be filled for the next pass.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Runs one pass over the batch.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`].
    pub fn decode(&mut self) -> Result<(), DecodeError> {
        let (context, batch) = (self.raw.as_ptr(), self.batch.as_raw());
        // SAFETY: the batch's arrays have the lengths that it says, and live through the call.
        let decode = || unsafe { sys::llama_decode(context, batch) };
        let pool = self.threads.as_ref().map_or(std::ptr::null_mut(), Threadpool::raw);
        match accelerator::during(self.attention == Attention::Blocked, pool, decode).0 {
            0 => Ok(()),
            1 => Err(DecodeError::NoSlot),
            2 => Err(DecodeError::Withdrawn),
            other => Err(DecodeError::Failed(other)),
        }
    }

    /// Waits until a pass is through, where a device may still be at it.
    pub fn wait(&mut self) {
        // SAFETY: the context lives.
        unsafe { sys::llama_synchronize(self.raw.as_ptr()) }
    }

    /// The logits behind the token at this place of the last batch, for reading and for the filters to change.
    pub fn logits(&mut self, place: usize) -> Option<&mut [f32]> {
        // SAFETY: llama.cpp answers null for a place without logits.
        let logits = unsafe { sys::llama_get_logits_ith(self.raw.as_ptr(), place as i32) };
        let length = self.model.vocabulary_size() as usize;
        // SAFETY: a row of logits has an entry for each token and stays until the next pass, which needs `&mut`.
        NonNull::new(logits).map(|at| unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), length) })
    }

    /// The pooled vector of a sequence of the last batch.
    pub fn vector(&self, sequence: u16) -> Option<&[f32]> {
        // SAFETY: llama.cpp answers null for a sequence that was not in the batch.
        let vector = unsafe { sys::llama_get_embeddings_seq(self.raw.as_ptr(), i32::from(sequence)) };
        // SAFETY: the model is loaded.
        let length = unsafe { sys::llama_model_n_embd_out(self.model.raw()) }.max(0) as usize;
        // SAFETY: a pooled vector has this length and stays until the next pass, which needs `&mut`.
        NonNull::new(vector).map(|at| unsafe { std::slice::from_raw_parts(at.as_ptr(), length) })
    }
}

/// Asked by ggml all through a pass.
unsafe extern "C" fn stops(data: *mut c_void) -> bool {
    // SAFETY: the data is what `stop_on` passed, which the context keeps.
    unsafe { &*data.cast::<Withdrawal>() }.is_withdrawn()
}

fn params(settings: &ContextSettings) -> sys::llama_context_params {
    // SAFETY: plain data.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = settings.tokens;
    params.n_batch = settings.batch_tokens;
    params.n_ubatch = settings.ubatch_tokens;
    params.n_seq_max = u32::from(settings.sequences);
    params.n_outputs_max = settings.outputs;
    params.n_threads = settings.threads as i32;
    params.n_threads_batch = settings.threads as i32;
    params.flash_attn_type = match settings.attention {
        Attention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        Attention::Flash | Attention::Blocked => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        Attention::Plain => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    params.embeddings = settings.embeddings;
    params.kv_unified = true;
    params.no_perf = true;
    params
}
