//! Text to tokens and back, and conversations to tokens.

use std::sync::Arc;

use drivers::TextCodec;
use drivers::wire::{ChatDelta, ChatRequest, DriverFault, TokenizeRequest};
use llama_cpp_sys_2 as sys;
use syscalls::{Errno, Token};

use super::alphabet::Alphabet;
use super::model::Model;
use super::template::Template;

/// The vocabulary and the template of a model.
pub struct LlamaText {
    model: Arc<Model>,
    alphabet: Alphabet,
    template: Option<Template>,
    /// The token that begins a text, where the model wants one.
    begin: Option<Token>,
    /// Texts are wrapped as the model was trained to see them, in begin and end: encoders want it.
    wraps: bool,
}

impl LlamaText {
    /// Reads what the model's file says of its text.
    ///
    /// # Errors
    ///
    /// ENOEXEC where the file has no vocabulary.
    pub fn new(model: &Arc<Model>, encoder: bool) -> Result<LlamaText, DriverFault> {
        let alphabet = Alphabet::new(model)?;
        // SAFETY: the model is loaded.
        let (wants_begin, wants_end, word_pieces) = unsafe {
            let vocabulary = model.vocabulary();
            let word_pieces = sys::llama_vocab_type(vocabulary) == sys::LLAMA_VOCAB_TYPE_WPM;
            (sys::llama_vocab_get_add_bos(vocabulary), sys::llama_vocab_get_add_eos(vocabulary), word_pieces)
        };
        let begin = model.special(sys::llama_vocab_bos);
        let end = model.special(if word_pieces { sys::llama_vocab_sep } else { sys::llama_vocab_eos });
        // llama.cpp aborts where it has to add a token that the file does not name.
        let wrappable = (begin.is_some() || !(wants_begin || word_pieces))
            && (end.is_some() || !(wants_end || word_pieces));
        Ok(LlamaText {
            template: model.chat_template().map(|source| Template::new(model, source)),
            begin: begin.filter(|_| wants_begin),
            wraps: encoder && wrappable,
            model: model.clone(),
            alphabet,
        })
    }

    /// It can express every text.
    pub fn is_any(&self) -> bool {
        self.alphabet.is_any()
    }

    /// It has a chat template.
    pub fn chats(&self) -> bool {
        self.template.is_some()
    }

    fn render(&self, template: &Template, request: &ChatRequest) -> Result<Vec<Token>, DriverFault> {
        let text = template.render(&request.messages)?;
        self.alphabet.check(&text, true)?;
        let mut tokens = self.model.tokenize(&text, false, true)?;
        if let Some(begin) = self.begin.filter(|begin| tokens.first() != Some(begin)) {
            tokens.insert(0, begin);
        }
        Ok(tokens)
    }
}

impl TextCodec for LlamaText {
    fn tokenize(&self, request: &TokenizeRequest) -> Result<Vec<Token>, DriverFault> {
        self.alphabet.check(&request.text, request.special)?;
        let mut tokens = self.model.tokenize(&request.text, request.bos && self.wraps, request.special)?;
        if request.bos && !self.wraps {
            let begin = self.begin.filter(|begin| tokens.first() != Some(begin));
            begin.into_iter().for_each(|begin| tokens.insert(0, begin));
        }
        Ok(tokens)
    }

    fn detokenize(&self, tokens: &[Token]) -> Result<Vec<u8>, DriverFault> {
        let size = self.model.vocabulary_size();
        if let Some(token) = tokens.iter().find(|token| token.0 >= size) {
            let message = format!("no token {token}: the vocabulary has {size}");
            return Err(DriverFault::new(Errno::EINVAL, message));
        }
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        tokens.iter().for_each(|token| self.model.piece(*token, true, &mut bytes));
        Ok(bytes)
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatDelta, DriverFault> {
        let Some(template) = &self.template else {
            let message =
                "the model has no chat template, so it follows no conversation; append text instead";
            return Err(DriverFault::new(Errno::ENOSYS, message));
        };
        let tokens = self.render(template, request)?;
        let keep = tokens.iter().zip(&request.held).take_while(|(new, held)| new == held).count();
        Ok(ChatDelta { keep: keep as u32, append: tokens[keep..].to_vec() })
    }
}
