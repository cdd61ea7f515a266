//! The arguments of `generate`, checked. Only [`Valid::check`] makes one, so what the scheduler and the worker
//! get has been through it.

use drivers::wire::SamplingSpec;
use serde::{Deserialize, Serialize};
use syscalls::call::{Generate, Sampling};
use syscalls::limits::{
    CONTEXT_TOKENS_MAX, GRAMMAR_BYTES_MAX, LOGPROBS_MAX, STOP_STRING_BYTES_MAX, STOP_STRINGS_MAX,
};
use syscalls::{Errno, Fault};

/// Arguments that can be carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct Valid {
    /// The most tokens to generate.
    pub max_tokens: Option<u32>,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// How tokens are chosen, the seed settled.
    pub sampling: Box<SamplingSpec>,
    /// Never choose an end-of-generation token.
    pub ignore_eos: bool,
    /// Alternatives to report.
    pub logprobs: Option<u32>,
    /// Send events.
    pub stream: bool,
    /// When it should have ended, from the call on.
    pub deadline_ms: Option<u64>,
}

impl Valid {
    /// Checks the arguments; `seed` is taken where they bring none.
    ///
    /// # Errors
    ///
    /// EINVAL for a number out of its range, E2BIG for too many items, EMSGSIZE for too long a text.
    pub(in crate::core) fn check(args: Generate, seed: u64) -> Result<Valid, Fault> {
        check_sampling(&args.sampling)?;
        check_grammar(&args.sampling)?;
        check_stop(&args.stop)?;
        if args.max_tokens.is_some_and(|n| n.0 == 0) {
            return invalid("max_tokens is 0; ask for at least 1, or leave it out".into());
        }
        if let Some(n) = args.logprobs.filter(|n| *n > LOGPROBS_MAX) {
            return invalid(format!("logprobs is {n}; the limit is {LOGPROBS_MAX}"));
        }
        let seed = args.sampling.seed.unwrap_or(seed);
        Ok(Valid {
            max_tokens: args.max_tokens.map(|n| n.0),
            stop: args.stop,
            sampling: Box::new(SamplingSpec::new(&args.sampling, seed)),
            ignore_eos: args.ignore_eos,
            logprobs: args.logprobs,
            stream: args.stream,
            deadline_ms: check_deadline(args.deadline_ms)?,
        })
    }
}

fn check_sampling(s: &Sampling) -> Result<(), Fault> {
    check_range("temperature", s.temperature, 0.0, f32::MAX)?;
    check_range("top_p", s.top_p, f32::MIN_POSITIVE, 1.0)?;
    check_range("min_p", s.min_p, 0.0, 1.0)?;
    check_range("repeat_penalty", s.repeat_penalty, f32::MIN_POSITIVE, f32::MAX)?;
    check_range("frequency_penalty", s.frequency_penalty, f32::MIN, f32::MAX)?;
    check_range("presence_penalty", s.presence_penalty, f32::MIN, f32::MAX)?;
    if s.penalty_last_n > CONTEXT_TOKENS_MAX {
        return invalid(format!("penalty_last_n is {}; the limit is {CONTEXT_TOKENS_MAX}", s.penalty_last_n));
    }
    Ok(())
}

fn check_range(name: &str, value: f32, low: f32, high: f32) -> Result<(), Fault> {
    if value.is_finite() && (low..=high).contains(&value) {
        return Ok(());
    }
    let wanted = match (low, high) {
        (f32::MIN, _) => "a finite number".to_owned(),
        (f32::MIN_POSITIVE, f32::MAX) => "above 0 and finite".to_owned(),
        (f32::MIN_POSITIVE, _) => format!("above 0 and at most {high}"),
        (_, f32::MAX) => format!("at least {low} and finite"),
        _ => format!("from {low} to {high}"),
    };
    invalid(format!("{name} is {value}; it must be {wanted}"))
}

fn check_grammar(s: &Sampling) -> Result<(), Fault> {
    let bytes = match (&s.grammar, &s.json_schema) {
        (Some(_), Some(_)) => return invalid("both grammar and json_schema are given; give one".into()),
        (Some(grammar), None) => grammar.len(),
        (None, Some(schema)) => schema.to_string().len(),
        (None, None) => 0,
    };
    if bytes > GRAMMAR_BYTES_MAX {
        return Err(Fault::new(
            Errno::EMSGSIZE,
            format!("the grammar has {bytes} bytes; the limit is {GRAMMAR_BYTES_MAX}"),
        ));
    }
    Ok(())
}

fn check_deadline(ms: Option<i64>) -> Result<Option<u64>, Fault> {
    match ms {
        Some(ms @ ..=0) => {
            invalid(format!("deadline_ms is {ms}, which is past; give the milliseconds from now, at least 1"))
        }
        ms => Ok(ms.and_then(|ms| u64::try_from(ms).ok())),
    }
}

fn check_stop(stop: &[String]) -> Result<(), Fault> {
    if stop.len() > STOP_STRINGS_MAX {
        let message = format!("{} stop strings; the limit is {STOP_STRINGS_MAX}", stop.len());
        return Err(Fault::new(Errno::E2BIG, message));
    }
    if stop.iter().any(String::is_empty) {
        return invalid("a stop string is empty; leave it out".into());
    }
    match stop.iter().map(String::len).max() {
        Some(bytes) if bytes > STOP_STRING_BYTES_MAX => Err(Fault::new(
            Errno::EMSGSIZE,
            format!("a stop string has {bytes} bytes; the limit is {STOP_STRING_BYTES_MAX}"),
        )),
        _ => Ok(()),
    }
}

fn invalid<T>(message: String) -> Result<T, Fault> {
    Err(Fault::new(Errno::EINVAL, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syscalls::{ContextId, Tokens};

    fn check(change: impl FnOnce(&mut Generate)) -> Result<Valid, (Errno, String)> {
        let mut args = Generate {
            context: ContextId(1),
            max_tokens: None,
            stop: vec![],
            sampling: Sampling::default(),
            ignore_eos: false,
            logprobs: None,
            stream: true,
            deadline_ms: None,
        };
        change(&mut args);
        Valid::check(args, 7).map_err(|f| (f.errno, f.message))
    }

    #[test]
    fn arguments_out_of_range_are_refused_with_limit_and_value() {
        type Case = (fn(&mut Generate), Errno, &'static str);
        let cases: &[Case] = &[
            (|g| g.sampling.temperature = -1.0, Errno::EINVAL, "temperature is -1; it must be at least 0"),
            (|g| g.sampling.temperature = f32::NAN, Errno::EINVAL, "temperature is NaN"),
            (|g| g.sampling.top_p = 0.0, Errno::EINVAL, "top_p is 0; it must be above 0 and at most 1"),
            (|g| g.sampling.min_p = 1.5, Errno::EINVAL, "min_p is 1.5; it must be from 0 to 1"),
            (|g| g.sampling.repeat_penalty = 0.0, Errno::EINVAL, "repeat_penalty is 0"),
            (|g| g.sampling.presence_penalty = f32::INFINITY, Errno::EINVAL, "a finite number"),
            (|g| g.deadline_ms = Some(-5), Errno::EINVAL, "deadline_ms is -5, which is past"),
            (|g| g.deadline_ms = Some(0), Errno::EINVAL, "at least 1"),
            (|g| g.max_tokens = Some(Tokens(0)), Errno::EINVAL, "max_tokens is 0"),
            (|g| g.logprobs = Some(33), Errno::EINVAL, "logprobs is 33; the limit is 32"),
            (|g| g.stop = vec!["x".into(); 17], Errno::E2BIG, "17 stop strings; the limit is 16"),
            (|g| g.stop = vec![String::new()], Errno::EINVAL, "empty"),
            (|g| g.stop = vec!["x".repeat(257)], Errno::EMSGSIZE, "257 bytes; the limit is 256"),
            (|g| g.sampling.grammar = Some("x".repeat(65537)), Errno::EMSGSIZE, "65537 bytes"),
        ];
        for (change, errno, words) in cases {
            let (found, message) = check(change).expect_err(words);
            assert_eq!(found, *errno, "{message}");
            assert!(message.contains(words), "{message} does not say: {words}");
        }
    }

    #[test]
    fn seed_absent_is_the_kernels() {
        assert_eq!(check(|_| ()).map(|v| v.sampling.seed), Ok(7));
        assert_eq!(check(|g| g.sampling.seed = Some(9)).map(|v| v.sampling.seed), Ok(9));
    }
}
