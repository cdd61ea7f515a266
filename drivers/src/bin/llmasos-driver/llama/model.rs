//! The weights and the vocabulary, as llama.cpp holds them. Read-only once loaded, so threads share it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use drivers::files::ModelFiles;
use drivers::wire::{DriverFault, LoadRequest};
use llama_cpp_sys_2 as sys;
use syscalls::{Errno, Token};

use super::accelerator::{self, Kernel};
use super::devices::{self, Choice};
use super::source;

/// The longest piece that is tried first; longer ones are asked for again with room enough.
const PIECE_BYTES: usize = 64;

/// How a model is loaded.
pub struct ModelSettings {
    /// Layers for graphics devices; all if absent.
    pub gpu_layers: Option<u32>,
    pub packing: Packing,
}

/// How weights lie in main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As the file has them.
    None,
    /// As ggml wants them for the CPU's special units (AMX and the like).
    ByGgml,
    /// So, or as this program's own kernel for products wants them, which is used for what it can.
    Best,
}

/// From where a model is loaded, and to where.
pub struct Place<'a> {
    pub files: &'a ModelFiles,
    /// The weights are used where they are in the file, and not copied.
    pub mapped: bool,
    pub devices: &'a Choice,
}

/// A loaded model.
pub struct Model {
    raw: NonNull<sys::llama_model>,
    vocabulary: NonNull<sys::llama_vocab>,
    tokens: u32,
}

// SAFETY: after loading, llama.cpp changes neither the model nor its vocabulary; its documentation calls the
// tokenizer thread-safe, and everything else that takes `&self` here reads plain fields.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the pointer came from llama.cpp and is freed once; contexts hold an `Arc` of this.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

impl Model {
    /// Loads a file that the GGUF reader has let pass, by its name.
    ///
    /// # Errors
    ///
    /// ENOEXEC with llama.cpp's own reason, and what opening the file is refused for.
    pub fn load(
        path: &str,
        settings: &ModelSettings,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Arc<Model>, DriverFault> {
        let request = LoadRequest { path: path.into(), ..LoadRequest::default() };
        let place = Place { files: &ModelFiles::of(&request)?, mapped: true, devices: &Choice::Any };
        Model::load_on(&place, settings, progress)
    }

    /// Loads files that are open, on devices of the caller's choice.
    ///
    /// # Errors
    ///
    /// ENOEXEC with llama.cpp's own reason.
    pub fn load_on(
        place: &Place,
        settings: &ModelSettings,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Arc<Model>, DriverFault> {
        let mut progress = progress;
        // SAFETY: plain data.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = settings.gpu_layers.map_or(-1, |layers| layers.min(i32::MAX as u32) as i32);
        if let Choice::These(devices) = place.devices {
            // llama.cpp reads the list and does not write to it.
            params.devices = devices.as_ptr().cast_mut();
        }
        params.load_mode = if place.mapped { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_NONE };
        params.use_extra_bufts = settings.packing != Packing::None;
        params.progress_callback = Some(progressed);
        params.progress_callback_user_data = (&raw mut progress).cast();
        // ggml moves large products with weights in main memory to a graphics device, if the CPU's backend has them.
        let own = accelerator::usable(Kernel::Products) && !devices::any();
        let packing = settings.packing == Packing::Best && own;
        let load = || source::load(place.files, params);
        let raw = if packing { accelerator::packing(load) } else { load() }?;
        // SAFETY: the model is loaded; its vocabulary lives as long as it does.
        let vocabulary = unsafe { sys::llama_model_get_vocab(raw.as_ptr()) };
        let vocabulary = NonNull::new(vocabulary.cast_mut()).expect("a loaded model has a vocabulary");
        // SAFETY: as above.
        let tokens = unsafe { sys::llama_vocab_n_tokens(vocabulary.as_ptr()) };
        Ok(Arc::new(Model { raw, vocabulary, tokens: tokens.max(0) as u32 }))
    }

    /// For the calls of other modules.
    pub fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    /// For the calls of other modules.
    pub fn vocabulary(&self) -> *const sys::llama_vocab {
        self.vocabulary.as_ptr()
    }

    /// Entries of the vocabulary.
    pub fn vocabulary_size(&self) -> u32 {
        self.tokens
    }

    /// A value of the file's metadata as text; arrays have none.
    pub fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        // SAFETY: llama.cpp writes at most the length given, a zero included.
        self.text_of(|model, buffer, length| unsafe {
            sys::llama_model_meta_val_str(model, key.as_ptr(), buffer, length)
        })
    }

    /// What the model calls its kind: family, size and quantisation.
    pub fn kind(&self) -> String {
        // SAFETY: as in `metadata`.
        self.text_of(|model, buffer, length| unsafe { sys::llama_model_desc(model, buffer, length) })
            .unwrap_or_default()
    }

    fn text_of(&self, ask: impl Fn(*const sys::llama_model, *mut c_char, usize) -> i32) -> Option<String> {
        let mut buffer = vec![0u8; 256];
        let mut length = ask(self.raw.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
        if length >= buffer.len() as i32 {
            buffer.resize(length as usize + 1, 0);
            length = ask(self.raw.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
        }
        let text = buffer.get(..usize::try_from(length).ok()?)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// The template that the model was trained to chat in.
    pub fn chat_template(&self) -> Option<String> {
        // SAFETY: the answer is null or a string that lives as long as the model.
        let template = unsafe { sys::llama_model_chat_template(self.raw.as_ptr(), std::ptr::null()) };
        if template.is_null() {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { CStr::from_ptr(template) }.to_string_lossy().into_owned())
    }

    /// The token of a role in the text, such as its beginning, where the model has one.
    pub fn special(
        &self,
        role: unsafe extern "C" fn(*const sys::llama_vocab) -> sys::llama_token,
    ) -> Option<Token> {
        // SAFETY: all functions of this type read one field of the vocabulary.
        let token = unsafe { role(self.vocabulary()) };
        u32::try_from(token).ok().filter(|token| *token < self.tokens).map(Token)
    }

    /// It ends a generation.
    pub fn ends(&self, token: Token) -> bool {
        // SAFETY: a look-up in a set, for any number.
        unsafe { sys::llama_vocab_is_eog(self.vocabulary(), token.0 as i32) }
    }

    /// llama.cpp's flags of a token, which must be in the vocabulary.
    pub fn attributes(&self, token: Token) -> sys::llama_token_attr {
        assert!(token.0 < self.tokens, "a token outside the vocabulary");
        // SAFETY: the token is in the vocabulary.
        unsafe { sys::llama_vocab_get_attr(self.vocabulary(), token.0 as i32) }
    }

    /// The text of a token as the file has it, which must be in the vocabulary.
    pub fn entry(&self, token: Token) -> &[u8] {
        assert!(token.0 < self.tokens, "a token outside the vocabulary");
        // SAFETY: the token is in the vocabulary; the string lives as long as the model.
        unsafe { CStr::from_ptr(sys::llama_vocab_get_text(self.vocabulary(), token.0 as i32)) }.to_bytes()
    }

    /// Appends the bytes of a token, which must be in the vocabulary. Control tokens have some only if `special`
    /// is asked for.
    pub fn piece(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        assert!(token.0 < self.tokens, "a token outside the vocabulary");
        let start = out.len();
        let mut room = PIECE_BYTES;
        loop {
            out.resize(start + room, 0);
            let at = out[start..].as_mut_ptr().cast();
            // SAFETY: the token is in the vocabulary and the buffer has `room` bytes.
            let written = unsafe {
                sys::llama_token_to_piece(self.vocabulary(), token.0 as i32, at, room as i32, 0, special)
            };
            match usize::try_from(written) {
                Ok(written) => return out.truncate(start + written),
                Err(_) => room = written.unsigned_abs() as usize,
            }
        }
    }

    /// Turns text into tokens. The caller has made sure that the vocabulary can express it.
    ///
    /// # Errors
    ///
    /// E2BIG for a text of more than 2 GiB, EILSEQ where the vocabulary has no token for a part.
    pub fn tokenize(&self, text: &str, wrap: bool, special: bool) -> Result<Vec<Token>, DriverFault> {
        let bytes = i32::try_from(text.len()).map_err(|_| {
            DriverFault::new(Errno::E2BIG, format!("a text of {} bytes; the limit is 2 GiB", text.len()))
        })?;
        let mut tokens: Vec<sys::llama_token> = vec![0; text.len() + 4];
        loop {
            // SAFETY: both buffers have the lengths that are passed.
            let count = unsafe {
                let room = tokens.len().min(i32::MAX as usize) as i32;
                let out = tokens.as_mut_ptr();
                sys::llama_tokenize(self.vocabulary(), text.as_ptr().cast(), bytes, out, room, wrap, special)
            };
            match usize::try_from(count) {
                Ok(count) => {
                    tokens.truncate(count);
                    return self.checked(tokens);
                }
                Err(_) if count == i32::MIN => {
                    return Err(DriverFault::new(
                        Errno::E2BIG,
                        "the text has more than 2³¹ tokens; split it",
                    ));
                }
                Err(_) => tokens.resize(count.unsigned_abs() as usize, 0),
            }
        }
    }

    /// Tokenizers that know no token for a part of a text say −1.
    fn checked(&self, tokens: Vec<sys::llama_token>) -> Result<Vec<Token>, DriverFault> {
        let known =
            |token: sys::llama_token| u32::try_from(token).ok().filter(|t| *t < self.tokens).map(Token);
        tokens.into_iter().map(known).collect::<Option<_>>().ok_or_else(|| {
            let message = "the text has parts that the model's vocabulary cannot express";
            DriverFault::new(Errno::EILSEQ, message)
        })
    }
}

unsafe extern "C" fn progressed(fraction: f32, data: *mut c_void) -> bool {
    // SAFETY: the data is the reference that `Model::load` passed, which lives as long as the loading.
    let progress = unsafe { &mut *data.cast::<&mut dyn FnMut(f32)>() };
    progress(fraction);
    true
}
