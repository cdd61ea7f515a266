//! The token log of a context. It is the context's own and grows in place, a token for every row of a step, until
//! somebody else is to have it as it is: a fork, a segment, a remnant. From then on all share one copy, and whoever grows
//! first takes a copy of its own; the last one that has it takes the shared one back without copying it.

use std::ops::Deref;
use std::sync::Arc;

use syscalls::Token;

/// Tokens, in a place of their own or shared.
#[derive(Debug)]
pub(in crate::core) enum Log {
    Own(Vec<Token>),
    Shared(Arc<Vec<Token>>),
}

impl Log {
    /// The log as it is now, for somebody who keeps it.
    pub(in crate::core) fn share(&mut self) -> Arc<Vec<Token>> {
        let shared = match self {
            Log::Own(tokens) => Arc::new(std::mem::take(tokens)),
            Log::Shared(tokens) => return tokens.clone(),
        };
        *self = Log::Shared(shared.clone());
        shared
    }

    /// Its first tokens, for somebody who keeps them: a copy, unless these are all.
    pub(in crate::core) fn share_up_to(&mut self, length: u32) -> Arc<Vec<Token>> {
        match length as usize {
            all if all == self.len() => self.share(),
            length => Arc::new(self[..length].to_vec()),
        }
    }

    /// The tokens, to be changed; those who share them keep what they have.
    pub(in crate::core) fn to_mut(&mut self) -> &mut Vec<Token> {
        if let Log::Shared(tokens) = self {
            *self = Log::Own(Arc::unwrap_or_clone(std::mem::take(tokens)));
        }
        match self {
            Log::Own(tokens) => tokens,
            Log::Shared(_) => unreachable!("it was made its own a line ago"),
        }
    }
}

impl From<Arc<Vec<Token>>> for Log {
    fn from(tokens: Arc<Vec<Token>>) -> Self {
        Log::Shared(tokens)
    }
}

impl From<Vec<Token>> for Log {
    fn from(tokens: Vec<Token>) -> Self {
        Log::Own(tokens)
    }
}

impl Deref for Log {
    type Target = [Token];

    fn deref(&self) -> &[Token] {
        match self {
            Log::Own(tokens) => tokens,
            Log::Shared(tokens) => tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [Token; 2] = [Token(1), Token(2)];

    #[test]
    fn log_shared_and_grown_leaves_the_others_theirs() {
        let mut log = Log::from(TOKENS.to_vec());
        let other = log.share();
        let mut third = Log::from(log.share_up_to(2));
        assert_eq!(log.share_up_to(1)[..], TOKENS[..1]);
        log.to_mut().push(Token(3));
        third.to_mut().truncate(1);
        assert_eq!((&log[..], &third[..]), (&[Token(1), Token(2), Token(3)][..], &TOKENS[..1]));
        assert_eq!(other[..], TOKENS);
    }

    #[test]
    fn log_that_nobody_else_has_any_more_grows_without_a_copy() {
        let mut log = Log::from(TOKENS.to_vec());
        let at = log.as_ptr();
        drop(log.share());
        log.to_mut()[0] = Token(7);
        assert_eq!((log.as_ptr(), log[0]), (at, Token(7)));
    }
}
