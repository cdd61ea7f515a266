//! The tokens of one pass, as llama.cpp takes them.

use llama_cpp_sys_2 as sys;
use syscalls::Token;

/// Tokens for one pass, in arrays that are allocated once.
pub struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    wanted: Vec<i8>,
    /// One for each token: how many sequences it is in.
    ones: Vec<i32>,
    /// Where each token's sequence stands.
    places: Vec<*mut sys::llama_seq_id>,
}

impl Batch {
    /// With room for so many tokens.
    pub fn new(tokens: u32) -> Batch {
        let room = tokens as usize;
        let mut sequences = vec![0; room];
        let places = sequences.iter_mut().map(|at| at as *mut _).collect();
        Batch {
            tokens: Vec::with_capacity(room),
            positions: Vec::with_capacity(room),
            sequences,
            wanted: Vec::with_capacity(room),
            ones: vec![1; room],
            places,
        }
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.wanted.clear();
    }

    /// Adds tokens of a sequence from a position on, and says which of them have output. Answers the place of the
    /// last token.
    ///
    /// # Panics
    ///
    /// If the batch has no room or the tokens are none; the caller has checked both.
    pub fn add(&mut self, sequence: u16, position: u32, tokens: &[Token], output: Output) -> usize {
        let start = self.tokens.len();
        assert!(!tokens.is_empty() && start + tokens.len() <= self.sequences.len(), "the batch has room");
        let last = tokens.len() - 1;
        for (at, token) in tokens.iter().enumerate() {
            self.tokens.push(token.0 as i32);
            self.positions.push((position + at as u32) as i32);
            self.sequences[start + at] = i32::from(sequence);
            let wanted = match output {
                Output::None => false,
                Output::Last => at == last,
                Output::From(first) => at >= first,
                Output::All => true,
            };
            self.wanted.push(i8::from(wanted));
        }
        start + last
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// For a call of llama.cpp, as long as this is not changed.
    pub fn as_raw(&mut self) -> sys::llama_batch {
        sys::llama_batch {
            n_tokens: self.tokens.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.ones.as_mut_ptr(),
            seq_id: self.places.as_mut_ptr(),
            logits: self.wanted.as_mut_ptr(),
        }
    }
}

/// Which tokens of a row have output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    None,
    /// The last one, behind which a token is chosen.
    Last,
    /// This one and all behind it: guesses.
    From(usize),
    /// All, as vectors need it.
    All,
}
