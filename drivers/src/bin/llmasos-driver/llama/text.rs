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

    /// Tokens at the beginning of a conversation that are its system messages; none where the template does not tell.
    fn instructions(&self, template: &Template, request: &ChatRequest, whole: &[Token]) -> u32 {
        let system = request.instructions();
        if system.is_empty() {
            return 0;
        }
        let beginning = template.render_beginning(system).and_then(|text| self.rendered(&text));
        beginning.map_or(0, |begins| common(&begins, whole) as u32)
    }

    fn rendered(&self, text: &str) -> Result<Vec<Token>, DriverFault> {
        self.alphabet.check(text, true)?;
        let mut tokens = self.model.tokenize(text, false, true)?;
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
        let tokens = self.rendered(&template.render(&request.messages)?)?;
        let keep = common(&tokens, &request.held);
        let instructions = self.instructions(template, request, &tokens);
        Ok(ChatDelta { keep: keep as u32, append: tokens[keep..].to_vec(), instructions })
    }
}

/// Tokens that two texts have in common at their beginnings.
fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::super::model::{ModelSettings, Packing};
    use super::super::tests::random_model;
    use super::*;
    use syscalls::call::Message;

    /// A chat model: random weights and a template.
    fn chat_model() -> LlamaText {
        let path = random_model("tiny");
        let settings = ModelSettings { gpu_layers: None, packing: Packing::None };
        super::super::load::start_backend(super::super::arithmetic::Arithmetic::Packed);
        let model = Model::load(path.to_str().expect("UTF-8"), &settings, &mut |_| {}).expect("it loads");
        let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>";
        let mut text = LlamaText::new(&model, false).expect("it has a vocabulary");
        text.template = Some(Template::new(&model, template.into()));
        text
    }

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn bytes(text: &LlamaText, tokens: &[Token]) -> String {
        String::from_utf8(text.detokenize(tokens).expect("known tokens")).expect("UTF-8")
    }

    #[test]
    fn conversation_goes_on_behind_what_the_context_holds() {
        let text = chat_model();
        let mut messages = vec![message("user", "Hi")];
        let first = text.chat(&ChatRequest { messages: messages.clone(), held: vec![] }).expect("renders");
        assert_eq!((first.keep, bytes(&text, &first.append).as_str()), (0, "<user>Hi\n<assistant>"));
        let said = TokenizeRequest { text: "Hello\n".into(), bos: false, special: false };
        let held = [first.append, text.tokenize(&said).expect("any text")].concat();
        messages.extend([message("assistant", "Hello"), message("user", "Bye")]);
        let next = text.chat(&ChatRequest { messages, held: held.clone() }).expect("renders");
        assert!(next.keep > 0 && next.keep as usize <= held.len());
        let whole = [&held[..next.keep as usize], &next.append[..]].concat();
        assert_eq!(bytes(&text, &whole), "<user>Hi\n<assistant>Hello\n<user>Bye\n<assistant>");
    }

    #[test]
    fn system_messages_at_the_beginning_are_told_by_their_tokens() {
        let text = chat_model();
        let messages = vec![message("system", "Be brief"), message("user", "Hi")];
        let delta = text.chat(&ChatRequest { messages, held: vec![] }).expect("renders");
        let system = &delta.append[..delta.instructions as usize];
        assert!(bytes(&text, system).starts_with("<system>Be brief"), "{}", bytes(&text, system));
        assert!(!bytes(&text, system).contains("Hi"), "{}", bytes(&text, system));
        let none = ChatRequest { messages: vec![message("user", "Hi")], held: vec![] };
        assert_eq!(text.chat(&none).expect("renders").instructions, 0);
    }

    #[test]
    fn context_that_holds_something_else_keeps_only_what_is_the_same() {
        let text = chat_model();
        let held = text
            .tokenize(&TokenizeRequest { text: "<user>Ho".into(), bos: false, special: false })
            .expect("any text");
        let messages = vec![message("user", "Hi")];
        let delta = text.chat(&ChatRequest { messages, held: held.clone() }).expect("renders");
        assert!((delta.keep as usize) < held.len());
        let whole = [&held[..delta.keep as usize], &delta.append[..]].concat();
        assert_eq!(bytes(&text, &whole), "<user>Hi\n<assistant>");
    }
}
