//! What a worker is asked beside its steps.

use serde::{Deserialize, Serialize};
use syscalls::Token;
use syscalls::call::Message;

/// A vector of an embedding.
pub type Vector = Vec<f32>;

/// A question that does not need the KV pool, answered beside the steps, or, for `Embed`, between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Question {
    Tokenize(TokenizeRequest),
    Detokenize(Vec<Token>),
    Chat(ChatRequest),
    /// Texts as they are: the worker adds what the model wants around each.
    Embed(Vec<String>),
}

/// The answer to a [`Question`], of its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Tokens(Vec<Token>),
    Bytes(Vec<u8>),
    Chat(ChatDelta),
    Vectors(Vec<Vector>),
}

/// Text to turn into tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenizeRequest {
    /// The text.
    pub text: String,
    /// Put the beginning-of-text token first, where the model wants one.
    pub bos: bool,
    /// Read names of special tokens as these tokens.
    pub special: bool,
}

/// A conversation, and what the context holds of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// All messages, the assistant's earlier answers included.
    pub messages: Vec<Message>,
    /// The tokens of the context.
    pub held: Vec<Token>,
}

impl ChatRequest {
    /// The system messages that the conversation begins with.
    pub fn instructions(&self) -> &[Message] {
        let system = self.messages.iter().take_while(|message| message.role == "system");
        &self.messages[..system.count()]
    }
}

/// How to bring the context to the whole conversation with the assistant's turn opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatDelta {
    /// So many of its tokens stay.
    pub keep: u32,
    /// These come behind them.
    pub append: Vec<Token>,
    /// So many tokens at the beginning of the whole are the system messages that it begins with.
    pub instructions: u32,
}
