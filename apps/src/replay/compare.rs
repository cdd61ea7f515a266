//! Whether an answer is the recorded one.

use syscalls::reply::{Finish, GeneratedReply};
use syscalls::{Fault, Reply, Token};

/// How far two numbers of vectors may be apart: drivers add in another order where other rows are beside them.
const VECTOR_TOLERANCE: f32 = 1e-4;

/// Tokens before a difference that are shown.
const BEFORE: usize = 16;

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// In words.
    Said(String),
    /// A token, or where one of the two has none.
    Token {
        /// Which one, counted from 1.
        at: usize,
        /// How many were recorded.
        of: usize,
        recorded: Option<Token>,
        now: Option<Token>,
        /// Those before it.
        before: Vec<Token>,
    },
}

/// Compares an answer with the recorded one, and with the tokens that were traced on the way to it.
pub(super) fn compare(
    recorded: &Result<Reply, Fault>,
    sampled: &[Token],
    now: &Result<Reply, Fault>,
) -> Result<(), Trouble> {
    match (recorded, now) {
        (Err(then), Err(now)) if then.errno == now.errno => Ok(()),
        (Err(then), Err(now)) => differ(then.errno.to_string(), &format!("{} ({})", now.errno, now.message)),
        (Ok(_), Err(now)) => differ("an answer", &format!("{} ({})", now.errno, now.message)),
        (Err(then), Ok(_)) => differ(then.errno.to_string(), "an answer"),
        (Ok(then), Ok(now)) => replies(then, sampled, now),
    }
}

fn replies(then: &Reply, sampled: &[Token], now: &Reply) -> Result<(), Trouble> {
    match (then, now) {
        (Reply::Opened { length, tokens_max, .. }, Reply::Opened { length: l, tokens_max: t, .. }) => {
            same("length", length, l)?;
            same("tokens_max", tokens_max, t)
        }
        (Reply::Forked { contexts }, Reply::Forked { contexts: now }) => {
            same("number of copies", &contexts.len(), &now.len())
        }
        (Reply::Appended { length, added }, Reply::Appended { length: l, added: a }) => {
            same("tokens added", added, a)?;
            same("length", length, l)
        }
        (Reply::Generated(then), Reply::Generated(now)) => generated(then, sampled, now),
        (Reply::Tokens(then), Reply::Tokens(now)) => tokens(then, now),
        (Reply::Text(then), Reply::Text(now)) => same("text", then, now),
        (Reply::Embedded(then), Reply::Embedded(now)) => vectors(then, now),
        // Numbers of processes are given out anew.
        (Reply::Spawned { .. }, Reply::Spawned { .. }) | (Reply::Done {}, Reply::Done {}) => Ok(()),
        _ => differ("a reply of another kind", "this one"),
    }
}

fn generated(then: &GeneratedReply, sampled: &[Token], now: &GeneratedReply) -> Result<(), Trouble> {
    if !sampled.is_empty() {
        tokens(sampled, &now.tokens)?;
    }
    tokens(&then.tokens, &now.tokens)?;
    if then.finish == Finish::Interrupted {
        // It ended when a signal came, and in the replay when it had as many tokens.
        return Ok(());
    }
    same("text", &then.text, &now.text)?;
    same("finish", &then.finish, &now.finish)?;
    same("length", &then.length, &now.length)
}

fn tokens(then: &[Token], now: &[Token]) -> Result<(), Trouble> {
    let longer = then.len().max(now.len());
    match (0..longer).find(|at| then.get(*at) != now.get(*at)) {
        None => Ok(()),
        Some(at) => Err(Trouble::Token {
            at: at + 1,
            of: then.len(),
            recorded: then.get(at).copied(),
            now: now.get(at).copied(),
            before: now[at.saturating_sub(BEFORE)..at].to_vec(),
        }),
    }
}

fn vectors(then: &[Vec<f32>], now: &[Vec<f32>]) -> Result<(), Trouble> {
    same("number of vectors", &then.len(), &now.len())?;
    for (number, (then, now)) in then.iter().zip(now).enumerate() {
        same("length of a vector", &then.len(), &now.len())?;
        let apart = then.iter().zip(now).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if apart > VECTOR_TOLERANCE {
            let what = format!("vector {} is {apart} away from the recorded one", number + 1);
            return Err(Trouble::Said(what));
        }
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, then: &T, now: &T) -> Result<(), Trouble> {
    if then == now {
        return Ok(());
    }
    Err(Trouble::Said(format!("{what}: recorded {then:?}, now {now:?}")))
}

fn differ(then: impl std::fmt::Display, now: &str) -> Result<(), Trouble> {
    Err(Trouble::Said(format!("recorded {then}, now {now}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syscalls::{Errno, Tokens};

    fn run(tokens: &[u32]) -> Vec<Token> {
        tokens.iter().copied().map(Token).collect()
    }

    fn reply(tokens: &[u32]) -> GeneratedReply {
        GeneratedReply {
            finish: Finish::Length,
            text: "text".into(),
            tokens: run(tokens),
            logprobs: vec![],
            length: Tokens(9),
            seed: 1,
            usage: Default::default(),
        }
    }

    #[test]
    fn token_that_differs_is_named_with_those_before_it() {
        let trouble = generated(&reply(&[5, 6, 7]), &[], &reply(&[5, 6, 8])).expect_err("they differ");
        let before = run(&[5, 6]);
        let (recorded, now) = (Some(Token(7)), Some(Token(8)));
        assert_eq!(trouble, Trouble::Token { at: 3, of: 3, recorded, now, before });
        let trouble = generated(&reply(&[5, 6, 7]), &[], &reply(&[5, 6])).expect_err("one is shorter");
        assert!(matches!(trouble, Trouble::Token { at: 3, now: None, .. }), "{trouble:?}");
        let trouble =
            generated(&reply(&[5, 6]), &run(&[5, 9]), &reply(&[5, 6])).expect_err("the trace differs");
        assert!(matches!(trouble, Trouble::Token { at: 2, recorded: Some(Token(9)), .. }), "{trouble:?}");
        assert_eq!(generated(&reply(&[5, 6]), &run(&[5, 6]), &reply(&[5, 6])), Ok(()));
    }

    #[test]
    fn generation_that_was_interrupted_is_compared_by_its_tokens() {
        let then = GeneratedReply { finish: Finish::Interrupted, text: "tex".into(), ..reply(&[5]) };
        assert_eq!(generated(&then, &[], &reply(&[5])), Ok(()));
        assert!(generated(&GeneratedReply { finish: Finish::Eos, ..then }, &[], &reply(&[5])).is_err());
    }

    #[test]
    fn faults_are_compared_by_their_numbers() {
        let fault = |errno, message: &str| Err(Fault::new(errno, message));
        assert_eq!(compare(&fault(Errno::EBADF, "a"), &[], &fault(Errno::EBADF, "b")), Ok(()));
        let trouble = compare(&fault(Errno::EBADF, "a"), &[], &fault(Errno::EINVAL, "b"));
        assert_eq!(trouble, Err(Trouble::Said("recorded EBADF, now EINVAL (b)".into())));
        assert!(compare(&Ok(Reply::Done {}), &[], &fault(Errno::EBADF, "a")).is_err());
    }

    #[test]
    fn vectors_may_be_a_little_apart() {
        assert_eq!(vectors(&[vec![0.5, 0.1]], &[vec![0.500_01, 0.1]]), Ok(()));
        assert!(vectors(&[vec![0.5, 0.1]], &[vec![0.51, 0.1]]).is_err());
    }
}
