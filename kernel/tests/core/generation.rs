//! Generation: text, ends, limits.

use syscalls::call::*;
use syscalls::reply::Finish;
use syscalls::{Errno, Event, Tokens};

use crate::machine::{Machine, generate, generated, reference};

#[test]
fn generation_streamed_says_what_the_reply_says() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "once upon a time");
    let id = machine.begin(conn, generate(context, 20));
    let reply = generated(machine.finish(conn, id));
    let mut text = String::new();
    let mut tokens = Vec::new();
    for event in machine.events(conn, id) {
        let Event::Tokens { text: more, tokens: some, .. } = event else { panic!("{event:?}") };
        text.push_str(more);
        tokens.extend(some.iter().copied());
    }
    assert_eq!((reply.finish, reply.text.as_str()), (Finish::Length, text.as_str()));
    assert_eq!(reply.tokens, tokens);
    assert_eq!(tokens.len(), 20);
    assert_eq!(reply.length, Tokens("once upon a time".len() as u32 + 20));
    assert_eq!(reply.usage.prompt_tokens_evaluated, 16);
    assert_eq!(reply.usage.tokens_generated, 20);
}

#[test]
fn generation_continued_equals_one_in_one_piece() {
    let whole = reference("", "the quick brown fox", 50);
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "the quick brown fox");
    let pieces: Vec<String> = (0..5).map(|_| machine.generate(conn, context, 10).text).collect();
    assert_eq!(pieces.concat(), whole);
    let stats = machine.stat(conn);
    assert_eq!(stats.tokens_recomputed, 0);
    assert_eq!(stats.tokens_generated, 50);
}

#[test]
fn generation_in_chunks_equals_one_prefill() {
    let prompt = "a".repeat(1000);
    let whole = reference("", &prompt, 20);
    assert_eq!(reference("batch=7", &prompt, 20), whole);
}

#[test]
fn generation_stop_string_ends_it_and_is_no_text() {
    let (mut machine, conn) = Machine::with_model("text=echo");
    let context = machine.open_with(conn, "count: one two three");
    let stop = vec![" th".to_owned()];
    let reply = generated(machine.call(conn, Generate { stop, ..generate(context, 100) }));
    assert_eq!((reply.finish, reply.text.as_str()), (Finish::Stop, "count: one two"));
    assert_eq!(reply.tokens.len(), "count: one two th".len());
}

#[test]
fn generation_at_end_of_text_keeps_the_end_token() {
    let (mut machine, conn) = Machine::with_model("text=echo");
    let context = machine.open_with(conn, "hi");
    let reply = generated(machine.call(conn, Generate { max_tokens: None, ..generate(context, 1) }));
    assert_eq!((reply.finish, reply.text.as_str()), (Finish::Eos, "hi"));
    assert_eq!(reply.tokens.len(), 3);
    assert_eq!(reply.length, Tokens(5));
}

#[test]
fn generation_of_wide_characters_streams_whole_ones() {
    let (mut machine, conn) = Machine::with_model("text=echo");
    let context = machine.open_with(conn, "日本€");
    let id = machine.begin(conn, generate(context, 100));
    let reply = generated(machine.finish(conn, id));
    assert_eq!(reply.text, "日本€");
    let texts = machine.events(conn, id).iter().map(|e| match e {
        Event::Tokens { text, .. } => text.clone(),
        other => panic!("{other:?}"),
    });
    let texts: Vec<String> = texts.filter(|t| !t.is_empty()).collect();
    assert_eq!(texts, ["日", "本", "€"]);
}

#[test]
fn generation_in_full_context_says_so() {
    let (mut machine, conn) = Machine::with_model("context=64");
    let context = machine.open_with(conn, &"x".repeat(60));
    let reply = machine.generate(conn, context, 100);
    assert_eq!((reply.finish, reply.length), (Finish::ContextFull, Tokens(64)));
    let reply = machine.generate(conn, context, 100);
    assert_eq!((reply.finish, reply.tokens.len()), (Finish::ContextFull, 0));
}

#[test]
fn generation_of_empty_context_is_refused() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open(conn);
    let fault = machine.call(conn, generate(context, 1)).expect_err("nothing to continue");
    assert_eq!(fault.errno, Errno::EINVAL);
}

#[test]
fn generation_with_seed_repeats_and_without_does_not() {
    let (mut machine, conn) = Machine::with_model("text=alphabet");
    let mut run = |seed| {
        let context = machine.open_with(conn, "seed");
        let sampling = Sampling { seed, temperature: 2.0, ..Sampling::default() };
        generated(machine.call(conn, Generate { sampling, ..generate(context, 30) }))
    };
    let (first, second, third) = (run(None), run(None), run(Some(5)));
    assert_ne!(first.seed, second.seed);
    assert_ne!(first.text, second.text);
    assert_eq!(run(Some(first.seed)).text, first.text);
    assert_eq!(third.seed, 5);
}

#[test]
fn generation_limit_of_process_ends_it() {
    let (mut machine, conn) = Machine::with_model("");
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::GeneratedTokens, value: Some(8), then: None };
    machine.call(conn, limit).expect("own limit");
    let context = machine.open_with(conn, "limits");
    assert_eq!(machine.generate(conn, context, 100).tokens.len(), 8);
    let fault = machine.call(conn, generate(context, 1)).expect_err("over the limit");
    assert_eq!(fault.errno, Errno::E2BIG);
    assert!(fault.message.contains("8"), "{fault}");
}

#[test]
fn generation_limit_of_process_ends_all_that_run_at_once() {
    let (mut machine, conn) = Machine::with_model("");
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::GeneratedTokens, value: Some(20), then: None };
    machine.call(conn, limit).expect("own limit");
    let contexts: Vec<_> = (0..8).map(|n| machine.open_with(conn, &format!("{n} of eight"))).collect();
    let calls: Vec<_> = contexts.into_iter().map(|c| machine.begin(conn, generate(c, 100))).collect();
    let replies: Vec<_> = calls.into_iter().map(|call| generated(machine.finish(conn, call))).collect();
    let came: usize = replies.iter().map(|reply| reply.tokens.len()).sum();
    assert!((20..28).contains(&came), "{came} tokens of 20, and one more for each in the last step at most");
    assert!(replies.iter().all(|reply| reply.finish == Finish::Length));
}

#[test]
fn logprobs_asked_for_come_with_every_token() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "odds");
    let call = Generate { logprobs: Some(3), stream: false, ..generate(context, 5) };
    let reply = generated(machine.call(conn, call));
    assert_eq!(reply.logprobs.len(), 5);
    assert!(reply.logprobs.iter().all(|l| l.top.len() == 3 && l.logprob <= 0.0));
}

#[test]
fn grammar_that_the_driver_refuses_fails_the_call_alone() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "grammar");
    let sampling = Sampling { grammar: Some("root ::= x".into()), ..Sampling::default() };
    let fault = machine.call(conn, Generate { sampling, ..generate(context, 5) }).expect_err("refused");
    assert_eq!(fault.errno, Errno::ENOSYS);
    assert_eq!(machine.generate(conn, context, 5).text, reference("", "grammar", 5));
}
