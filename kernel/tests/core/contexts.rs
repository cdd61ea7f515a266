//! Contexts: appending, forking, cutting, chat, and the order of calls.

use syscalls::call::*;
use syscalls::reply::Finish;
use syscalls::{CallId, ContextId, Errno, Event, Reply, Token, Tokens};

use crate::machine::{ADMIN, Machine, append, generate, generated, reference};

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

fn append_messages(context: ContextId, messages: Vec<Message>) -> Append {
    Append { context, text: None, tokens: None, messages: Some(messages), special: false }
}

#[test]
fn append_longer_than_the_context_names_both_numbers() {
    let (mut machine, conn) = Machine::with_model("context=128");
    let context = machine.open_with(conn, "abc");
    let fault = machine.append(conn, context, &"x".repeat(200)).expect_err("too long");
    assert_eq!(fault.errno, Errno::ENOSPC);
    assert!(fault.message.contains("203") && fault.message.contains("128"), "{fault}");
    assert!(fault.message.contains("--context"), "{fault}");
    assert_eq!(machine.append(conn, context, "d").expect("there is room"), 4);
}

#[test]
fn append_of_unknown_token_is_refused() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open(conn);
    let call = Append {
        context,
        text: None,
        tokens: Some(vec![Token(5), Token(1 << 20)]),
        messages: None,
        special: false,
    };
    assert_eq!(machine.call(conn, call).expect_err("no such token").errno, Errno::EINVAL);
}

#[test]
fn fork_of_running_context_continues_as_the_parent_would() {
    let whole = reference("", "run and fork", 60);
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "run and fork");
    let running = machine.begin(conn, generate(context, 60));
    while machine.events(conn, running).len() < 20 {
        assert!(machine.turn());
    }
    let child = machine.fork(conn, context, 1)[0];
    let had = machine.events(conn, running).len() as u32;
    let child_text = machine.generate(conn, child, 60 - had).text;
    assert_eq!(generated(machine.finish(conn, running)).text, whole);
    assert_eq!(whole[had as usize..], child_text);
}

#[test]
fn fork_shares_what_is_computed() {
    let prompt = "p".repeat(500);
    let whole = reference("", &prompt, 30);
    let (mut machine, conn) = Machine::with_model("pool=1024,context=1024");
    let context = machine.open_with(conn, &prompt);
    machine.generate(conn, context, 1);
    machine.call(conn, Truncate { context, length: Tokens(500) }).expect("shorter");
    let copies = machine.fork(conn, context, 6);
    let calls: Vec<CallId> = copies.iter().map(|c| machine.begin(conn, generate(*c, 30))).collect();
    for call in calls {
        assert_eq!(generated(machine.finish(conn, call)).text, whole);
    }
    let stats = machine.stat(conn);
    assert_eq!(stats.tokens_recomputed, 0);
    assert_eq!(stats.prompt_tokens_evaluated, 500 + 6, "each copy computes its last token only");
    assert_eq!(stats.prompt_tokens_shared, 6 * 499);
}

#[test]
fn fork_of_a_sequence_that_cannot_be_cut_shares_all_of_it_or_nothing() {
    let prompt = "p".repeat(500);
    let whole = reference("", &prompt, 31);
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024,ranges=false");
    let context = machine.open_with(conn, &prompt);
    machine.generate(conn, context, 1);
    let copies = machine.fork(conn, context, 6);
    let calls: Vec<CallId> = copies.iter().map(|c| machine.begin(conn, generate(*c, 30))).collect();
    for call in calls {
        assert_eq!(generated(machine.finish(conn, call)).text, whole[1..]);
    }
    let stats = machine.stat(conn);
    let computed = stats.prompt_tokens_evaluated + stats.tokens_recomputed;
    assert!(computed <= 500 + 6, "each copy computes its last token only: {stats:?}");

    let child = match machine.call(conn, Fork { context, copies: 1, length: Some(Tokens(300)) }) {
        Ok(Reply::Forked { contexts }) => contexts[0],
        other => panic!("{other:?}"),
    };
    assert_eq!(machine.generate(conn, child, 12).text, reference("", &prompt[..300], 12));
    let stats = machine.stat(conn);
    assert!(stats.prompt_tokens_evaluated + stats.tokens_recomputed >= computed + 300, "{stats:?}");
}

#[test]
fn fork_of_a_sequence_that_cannot_be_cut_with_a_row_under_way_goes_on_as_it_does() {
    let whole = reference("", "run and fork", 60);
    let (mut machine, conn) = Machine::with_model("ranges=false");
    let context = machine.open_with(conn, "run and fork");
    let running = machine.begin(conn, generate(context, 60));
    for _ in 0..5 {
        let seen = machine.events(conn, running).len();
        while machine.events(conn, running).len() == seen {
            assert!(machine.turn());
        }
        let child = machine.fork(conn, context, 1)[0];
        let had = machine.events(conn, running).len();
        assert_eq!(machine.generate(conn, child, 5).text, whole[had..had + 5]);
    }
    assert_eq!(generated(machine.finish(conn, running)).text, whole);
    assert_eq!(machine.stat(conn).worker_restarts, 0);
}

#[test]
fn fork_before_anything_is_computed_computes_the_beginning_once() {
    let prompt = "q".repeat(700);
    let whole = reference("", &prompt, 10);
    let (mut machine, conn) = Machine::with_model("batch=128");
    let context = machine.open_with(conn, &prompt);
    let copies = machine.fork(conn, context, 8);
    let calls: Vec<CallId> = copies.iter().map(|c| machine.begin(conn, generate(*c, 10))).collect();
    for call in calls {
        assert_eq!(generated(machine.finish(conn, call)).text, whole);
    }
    assert_eq!(machine.stat(conn).prompt_tokens_evaluated, 700 + 7);
}

#[test]
fn fork_up_to_a_length_and_longer_than_the_context() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "abcdef");
    let child = match machine.call(conn, Fork { context, copies: 1, length: Some(Tokens(3)) }) {
        Ok(Reply::Forked { contexts }) => contexts[0],
        other => panic!("{other:?}"),
    };
    assert_eq!(machine.generate(conn, child, 12).text, reference("", "abc", 12));
    let fault = machine.call(conn, Fork { context, copies: 1, length: Some(Tokens(7)) });
    assert_eq!(fault.expect_err("too long").errno, Errno::EINVAL);
    let fault = machine.call(conn, Fork { context, copies: 0, length: None });
    assert_eq!(fault.expect_err("no copies").errno, Errno::EINVAL);
}

#[test]
fn truncate_then_generate_repeats_what_was_cut() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, &"t".repeat(100));
    let first = machine.generate(conn, context, 40).text;
    for length in [100, 100, 130] {
        machine.call(conn, Truncate { context, length: Tokens(length) }).expect("shorter");
        let again = machine.generate(conn, context, 140 - length).text;
        assert_eq!(again, first[length as usize - 100..]);
    }
    let fault = machine.call(conn, Truncate { context, length: Tokens(141) });
    assert_eq!(fault.expect_err("longer").errno, Errno::EINVAL);
}

#[test]
fn calls_sent_without_waiting_are_carried_out_in_order() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open(conn);
    let first = machine.begin(conn, append(context, "one "));
    let second = machine.begin(conn, append(context, "two"));
    let third = machine.begin(conn, generate(context, 10));
    let fourth = machine.begin(conn, append(context, " three"));
    let fifth = machine.begin(conn, ReadTokens { context, from: Tokens(0), to: None });
    machine.run();
    for id in [first, second, fourth] {
        assert!(matches!(machine.reply(conn, id), Some(Ok(Reply::Appended { .. }))));
    }
    let text = generated(machine.finish(conn, third)).text;
    let whole = machine.open(conn);
    machine.call(conn, append(whole, "one two")).expect("it fits");
    assert_eq!(text, machine.generate(conn, whole, 10).text);
    let tokens = match machine.finish(conn, fifth) {
        Ok(Reply::Tokens(tokens)) => tokens,
        other => panic!("{other:?}"),
    };
    let bytes: Vec<u8> = tokens.iter().filter_map(|t| u8::try_from(t.0).ok()).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), format!("one two{text} three"));
}

#[test]
fn calls_beyond_the_line_are_told_to_come_again() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open(conn);
    let ids: Vec<CallId> = (0..70).map(|_| machine.begin(conn, append(context, "x"))).collect();
    machine.run();
    let refused = ids.iter().filter(|id| match machine.reply(conn, **id) {
        Some(Err(fault)) => fault.errno == Errno::EAGAIN,
        _ => false,
    });
    assert_eq!(refused.count(), 6);
}

#[test]
fn chat_keeps_what_it_has_and_remembers_answers() {
    let (mut machine, conn) = Machine::with_model("template=chatml,text=echo");
    let context = machine.open(conn);
    machine.call(conn, append_messages(context, vec![message("user", "hello")])).expect("a template");
    let first = machine.generate(conn, context, 100);
    assert_eq!((first.finish, first.text.as_str()), (Finish::Eos, "hello"));
    machine.call(conn, append_messages(context, vec![message("user", "again")])).expect("a template");
    let second = machine.generate(conn, context, 100);
    assert_eq!(second.text, "again");
    // All of the first turn but its end token, which the template replaces.
    assert_eq!(second.usage.prompt_tokens_shared, first.length.0 - 1);
    let tokens = match machine.call(conn, ReadTokens { context, from: Tokens(0), to: None }) {
        Ok(Reply::Tokens(tokens)) => tokens,
        other => panic!("{other:?}"),
    };
    let said: Vec<u8> = tokens.iter().filter_map(|t| u8::try_from(t.0).ok()).collect();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(said, "user\nhello\nassistant\nhello\nuser\nagain\nassistant\nagain");
}

#[test]
fn chat_without_template_is_refused_with_advice() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open(conn);
    let fault = machine.call(conn, append_messages(context, vec![message("user", "hello")]));
    let fault = fault.expect_err("no template");
    assert_eq!(fault.errno, Errno::ENOSYS);
    assert!(fault.message.contains("no chat template"), "{fault}");
}

#[test]
fn close_ends_what_runs_on_it() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "close me");
    let running = machine.begin(conn, generate(context, 1000));
    let waiting = machine.begin(conn, append(context, "more"));
    while machine.events(conn, running).len() < 5 {
        assert!(machine.turn());
    }
    assert!(machine.call(conn, Close { context }).is_ok());
    let reply = generated(machine.finish(conn, running));
    assert_eq!(reply.finish, Finish::Interrupted);
    assert_eq!(reply.tokens.len(), 5);
    assert_eq!(machine.finish(conn, waiting).expect_err("withdrawn").errno, Errno::ECANCELED);
    machine.run();
    let stats = machine.stat(conn);
    assert_eq!(stats.frames_free, stats.frames_total);
    assert_eq!(machine.call(conn, Close { context }).expect_err("closed").errno, Errno::EBADF);
}

#[test]
fn context_of_another_process_is_not_there() {
    let (mut machine, conn) = Machine::with_model("");
    let other = machine.connect(ADMIN);
    let context = machine.open_with(conn, "mine");
    assert_eq!(machine.call(other, generate(context, 1)).expect_err("not his").errno, Errno::EBADF);
}

#[test]
fn contexts_beyond_the_limit_are_refused() {
    let (mut machine, conn) = Machine::with_model("");
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::Contexts, value: Some(3), then: None };
    machine.call(conn, limit).expect("own limit");
    let context = machine.open_with(conn, "abc");
    let fault = machine.call(conn, Fork { context, copies: 3, length: None }).expect_err("four in all");
    assert_eq!(fault.errno, Errno::EMFILE);
    assert!(fault.message.contains('3'), "{fault}");
    machine.fork(conn, context, 2);
    let limit = Setlimit { pid, limit: Limit::ContextTokens, value: Some(10), then: None };
    machine.call(conn, limit).expect("own limit");
    assert_eq!(machine.append(conn, context, "de").expect_err("11 tokens").errno, Errno::E2BIG);
    assert_eq!(machine.generate(conn, context, 9).finish, Finish::ContextFull);
    let fault = machine.call(conn, generate(context, 1)).expect_err("not a token more");
    assert_eq!(fault.errno, Errno::E2BIG);
    assert!(fault.message.contains("has 10 tokens in its contexts and its limit is 10"), "{fault}");
    machine.call(conn, Truncate { context, length: Tokens(2) }).expect("shorter");
    assert_eq!(machine.generate(conn, context, 1).finish, Finish::Length);
}

#[test]
fn events_of_stream_false_are_none() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "quiet");
    let id = machine.begin(conn, Generate { stream: false, ..generate(context, 5) });
    machine.run();
    assert_eq!(machine.events(conn, id), Vec::<Event>::new().as_slice());
}
