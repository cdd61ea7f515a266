//! A grammar that generated text must follow, as llama.cpp's grammar sampler keeps it.
//!
//! llama.cpp throws or aborts where a grammar is used past its end. The states here keep it from that: a grammar
//! is asked while it is open, and after it refused a token it is never asked again.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use drivers::wire::{self, DriverFault};
use llama_cpp_sys_2 as sys;
use syscalls::{Errno, Token};

use super::log;
use super::model::Model;
use super::stderr;

/// The start symbol of every grammar.
const ROOT: &std::ffi::CStr = c"root";

/// How deep groups may stand in each other. llama.cpp's parser calls itself for each, and the worker would end where its
/// stack does.
const DEPTH_MAX: usize = 256;

/// llama.cpp's word for success.
const OK: sys::llama_rs_status = sys::LLAMA_RS_STATUS_OK;

/// A grammar and how far the text has followed it.
pub struct Grammar {
    raw: NonNull<sys::llama_sampler>,
    /// The text has left the grammar; only an end may follow.
    over: bool,
    /// The grammar reads its vocabulary.
    _model: Arc<Model>,
}

// SAFETY: the sampler may move between threads; nothing uses it but through `&mut`.
unsafe impl Send for Grammar {}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: the pointer came from llama.cpp and is freed once.
        unsafe { sys::llama_sampler_free(self.raw.as_ptr()) }
    }
}

impl Grammar {
    /// Reads a grammar.
    ///
    /// # Errors
    ///
    /// EINVAL with the parser's reason.
    pub fn new(model: &Arc<Model>, grammar: &wire::Grammar) -> Result<Grammar, DriverFault> {
        let gbnf = match grammar {
            wire::Grammar::Gbnf(text) => {
                let deepest = depth(text);
                if deepest > DEPTH_MAX {
                    return Err(invalid(&format!(
                        "the grammar has groups {deepest} deep; the limit is {DEPTH_MAX}: give inner ones rules of their own"
                    )));
                }
                text.clone()
            }
            wire::Grammar::JsonSchema(schema) => {
                llama_cpp_2::json_schema_to_grammar(schema).map_err(|_| {
                    invalid("the JSON schema uses what llama.cpp cannot turn into a grammar; simplify it")
                })?
            }
        };
        let text = CString::new(gbnf).map_err(|_| invalid("the grammar has a zero byte in it"))?;
        log::forget();
        let (raw, said) = stderr::captured(|| {
            // SAFETY: both strings end with a zero and outlive the call, which catches C++ exceptions.
            unsafe { sys::llama_rs_sampler_init_grammar(model.vocabulary(), text.as_ptr(), ROOT.as_ptr()) }
        });
        let raw = NonNull::new(raw)
            .ok_or_else(|| invalid(&format!("the grammar is not valid: {}", reason(&said))))?;
        Ok(Grammar { raw, over: false, _model: model.clone() })
    }

    /// Whether this token may come next.
    pub fn allows(&mut self, token: Token) -> bool {
        let mut one = [candidate(token.0, 1.0)];
        self.apply(&mut one);
        one[0].logit > f32::NEG_INFINITY
    }

    /// Makes impossible what may not come next.
    pub fn mask(&mut self, logits: &mut [f32]) {
        let possible = |(_, logit): &(usize, &f32)| **logit > f32::NEG_INFINITY;
        let mut candidates: Vec<_> = (logits.iter().enumerate().filter(possible))
            .map(|(id, logit)| candidate(id as u32, *logit))
            .collect();
        self.apply(&mut candidates);
        for candidate in candidates {
            logits[candidate.id as usize] = candidate.logit;
        }
    }

    fn apply(&mut self, candidates: &mut [sys::llama_token_data]) {
        if self.over {
            candidates.iter_mut().for_each(|candidate| candidate.logit = f32::NEG_INFINITY);
        }
        if self.over || candidates.is_empty() {
            return;
        }
        let mut array = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array is as long as it says, the tokens are in the vocabulary, the grammar has a state.
        unsafe { sys::llama_sampler_apply(self.raw.as_ptr(), &mut array) }
    }

    /// Follows a token that came and ends nothing. Where the grammar does not have it, the grammar is over.
    pub fn accept(&mut self, token: Token) {
        // SAFETY: the call catches C++ exceptions, and the token is in the vocabulary and no end.
        if !self.over && unsafe { sys::llama_rs_sampler_accept(self.raw.as_ptr(), token.0 as i32) } != OK {
            self.over = true;
        }
    }
}

/// How deep the groups of a grammar stand in each other.
fn depth(gbnf: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = gbnf.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'(' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b')' => depth = depth.saturating_sub(1),
            // Literals and classes have escapes, names of tokens and comments have none.
            b'"' => go_behind(&mut bytes, |byte| byte == b'"', true),
            b'[' => go_behind(&mut bytes, |byte| byte == b']', true),
            b'<' => go_behind(&mut bytes, |byte| byte == b'>', false),
            b'#' => go_behind(&mut bytes, |byte| matches!(byte, b'\r' | b'\n'), false),
            _ => {}
        }
    }
    deepest
}

fn go_behind(bytes: &mut std::str::Bytes<'_>, is_end: impl Fn(u8) -> bool, escapes: bool) {
    while let Some(byte) = bytes.next() {
        if is_end(byte) {
            return;
        }
        if escapes && byte == b'\\' {
            bytes.next();
        }
    }
}

/// What the parser found. It says so on standard error, before the grammar itself; the rest goes by the log.
fn reason(said: &str) -> String {
    let parser = said.lines().find_map(|line| line.split_once("error parsing grammar: "));
    let found = parser.map(|(_, found)| found.trim().to_string()).filter(|found| !found.is_empty());
    found.or_else(log::complaint).unwrap_or_else(|| "it cannot be parsed".into())
}

fn candidate(id: u32, logit: f32) -> sys::llama_token_data {
    sys::llama_token_data { id: id as i32, logit, p: 0.0 }
}

fn invalid(message: &str) -> DriverFault {
    DriverFault::new(Errno::EINVAL, message)
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn depth_is_that_of_groups_and_not_of_what_is_quoted() {
        assert_eq!(depth("root ::= \"((\\\"((\" [((\\]((] <((> # ((\\\n ((\"a\") (b))"), 2);
        assert_eq!(depth("root ::= (a) (b) # ((\r((("), 3);
        assert_eq!(depth(")))(("), 2);
        assert_eq!(depth("\"((("), 0);
    }
}
