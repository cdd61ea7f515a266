//! The vocabulary of the sim driver, bytes and a few special tokens, and its chat template.

use std::sync::Arc;

use syscalls::call::Message;
use syscalls::{Errno, Token};

use super::clock::Clock;
use super::script::Script;
use crate::TextCodec;
use crate::wire::{ChatDelta, ChatRequest, DriverFault, TokenizeRequest};

/// Begins a text.
pub const BOS: Token = Token(256);
/// Ends a generation.
pub const EOS: Token = Token(257);
/// Begins a chat message.
pub const IM_START: Token = Token(258);
/// Ends a chat message.
pub const IM_END: Token = Token(259);

/// The bytes and the special tokens.
pub const VOCABULARY_MIN: u32 = 260;

/// What the template puts at the end, for the model to continue.
pub const ASSISTANT_START: &str = "assistant\n";

const SPECIAL: [(Token, &str); 4] =
    [(BOS, "<|bos|>"), (EOS, "<|eos|>"), (IM_START, "<|im_start|>"), (IM_END, "<|im_end|>")];

/// Text to tokens and back.
pub struct SimText {
    vocabulary: u32,
    ascii: bool,
    template: bool,
    die_on_text: Option<String>,
    clock: Arc<dyn Clock>,
}

impl SimText {
    pub(super) fn new(script: &Script, clock: Arc<dyn Clock>) -> Self {
        SimText {
            vocabulary: script.vocabulary,
            ascii: script.ascii,
            template: script.template,
            die_on_text: script.die_on_text.clone(),
            clock,
        }
    }

    /// Aborts where these bytes have the text that kills this worker.
    pub(super) fn survive(&self, bytes: &[u8]) {
        let Some(needle) = &self.die_on_text else { return };
        if bytes.windows(needle.len()).any(|window| window == needle.as_bytes()) {
            self.clock.abort(&format!("the text has `{needle}`"));
        }
    }

    fn express(&self, text: &str, out: &mut Vec<Token>) -> Result<(), DriverFault> {
        if let Some(character) = text.chars().find(|c| self.ascii && !c.is_ascii()) {
            let message = format!("the vocabulary has no token for `{character}`; it has ASCII alone");
            return Err(DriverFault::new(Errno::EILSEQ, message));
        }
        out.extend(text.bytes().map(|byte| Token(byte.into())));
        Ok(())
    }

    fn express_with_special(&self, text: &str, out: &mut Vec<Token>) -> Result<(), DriverFault> {
        let mut rest = text;
        while let Some((at, token, name)) = first_special(rest) {
            self.express(&rest[..at], out)?;
            out.push(token);
            rest = &rest[at + name.len()..];
        }
        self.express(rest, out)
    }

    fn render(&self, messages: &[Message]) -> Result<Vec<Token>, DriverFault> {
        let mut tokens = self.render_messages(messages)?;
        tokens.push(IM_START);
        self.express(ASSISTANT_START, &mut tokens)?;
        Ok(tokens)
    }

    fn render_messages(&self, messages: &[Message]) -> Result<Vec<Token>, DriverFault> {
        let mut tokens = vec![BOS];
        for message in messages {
            tokens.push(IM_START);
            self.express(&format!("{}\n{}", message.role, message.content), &mut tokens)?;
            tokens.push(IM_END);
            self.express("\n", &mut tokens)?;
        }
        Ok(tokens)
    }
}

/// The first name of a special token in a text: where, which, and the name.
fn first_special(text: &str) -> Option<(usize, Token, &'static str)> {
    SPECIAL.iter().filter_map(|&(token, name)| Some((text.find(name)?, token, name))).min()
}

/// The bytes of one token, or none outside the vocabulary's known part.
pub(super) fn piece(token: Token) -> Vec<u8> {
    match u8::try_from(token.0) {
        Ok(byte) => vec![byte],
        Err(_) => match SPECIAL.iter().find(|(special, _)| *special == token) {
            Some((_, name)) => name.as_bytes().to_vec(),
            None => format!("<{}>", token.0).into_bytes(),
        },
    }
}

/// What the last message says, or, outside a chat, all that the tokens say.
pub(super) fn last_message(tokens: &[Token]) -> Vec<u8> {
    let ends = tokens.iter().rposition(|token| *token == IM_END);
    let said = match ends {
        Some(end) => {
            let start = tokens[..end].iter().rposition(|token| *token == IM_START).map_or(0, |at| at + 1);
            let role = tokens[start..end].iter().position(|token| token.0 == u32::from(b'\n'));
            &tokens[role.map_or(start, |at| start + at + 1)..end]
        }
        None => tokens,
    };
    said.iter().filter_map(|token| u8::try_from(token.0).ok()).collect()
}

impl TextCodec for SimText {
    fn tokenize(&self, request: &TokenizeRequest) -> Result<Vec<Token>, DriverFault> {
        self.survive(request.text.as_bytes());
        let mut tokens = Vec::with_capacity(request.text.len() + 1);
        if request.bos {
            tokens.push(BOS);
        }
        if request.special {
            self.express_with_special(&request.text, &mut tokens)?;
        } else {
            self.express(&request.text, &mut tokens)?;
        }
        Ok(tokens)
    }

    fn detokenize(&self, tokens: &[Token]) -> Result<Vec<u8>, DriverFault> {
        if let Some(token) = tokens.iter().find(|token| token.0 >= self.vocabulary) {
            let message = format!("no token {}: the vocabulary has {}", token.0, self.vocabulary);
            return Err(DriverFault::new(Errno::EINVAL, message));
        }
        Ok(tokens.iter().flat_map(|token| piece(*token)).collect())
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatDelta, DriverFault> {
        if !self.template {
            let message = "the model has no chat template; append text, or mount it with template=chatml";
            return Err(DriverFault::new(Errno::ENOSYS, message));
        }
        let tokens = self.render(&request.messages)?;
        let keep = tokens.iter().zip(&request.held).take_while(|(new, held)| new == held).count();
        let instructions = match request.instructions() {
            [] => 0,
            system => self.render_messages(system)?.len() as u32,
        };
        Ok(ChatDelta { keep: keep as u32, append: tokens[keep..].to_vec(), instructions })
    }
}
