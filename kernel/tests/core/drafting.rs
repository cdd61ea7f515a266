//! Drafting: guesses make text that repeats itself come sooner, and never make it another.

use syscalls::call::*;
use syscalls::reply::Finish;

use crate::machine::{ADMIN, Machine, generate, generated, reference};

/// A step costs so much that rows are nearly free.
const FREE: &str = "step_us=9000,row_us=100,token_us=10,pool=16384";

/// A prompt that says things several times.
fn prompt() -> String {
    "the frame goes to the page, the page goes to the table, the table goes to the kernel. ".repeat(5)
}

#[test]
fn echo_of_the_prompt_takes_fewer_steps_and_is_the_same() {
    let run = |script: &str| {
        let (mut machine, conn) = Machine::with_model(script);
        let context = machine.open_with(conn, &prompt());
        let before = machine.steps.len();
        let reply = machine.generate(conn, context, 400);
        (reply.text, reply.tokens, machine.steps.len() - before, machine.stat(conn))
    };
    let plain = run(&format!("{FREE},text=echo"));
    let drafted = run(&format!("{FREE},text=echo,drafts=1"));
    assert_eq!((&plain.0, &plain.1), (&drafted.0, &drafted.1));
    assert!(drafted.2 * 2 < plain.2, "{} steps instead of {}", drafted.2, plain.2);
    let (guessed, right) = (drafted.3.tokens_drafted, drafted.3.tokens_accepted);
    assert!(right > 150 && right * 2 > guessed, "{right} of {guessed}");
    assert_eq!(plain.3.tokens_drafted, 0);
}

#[test]
fn text_that_repeats_nothing_is_not_drafted_for_long() {
    let (mut machine, conn) = Machine::with_model(&format!("{FREE},text=alphabet,drafts=1"));
    let context = machine.open_with(conn, &prompt());
    machine.generate(conn, context, 500);
    let stats = machine.stat(conn);
    assert!(stats.tokens_drafted < 25, "{} tokens were guessed for nothing", stats.tokens_drafted);
}

#[test]
fn drafts_are_not_sent_where_rows_are_dear() {
    let (mut machine, conn) = Machine::with_model("step_us=100,row_us=100,token_us=10000,text=echo,drafts=1");
    let context = machine.open_with(conn, &prompt());
    machine.generate(conn, context, 300);
    let stats = machine.stat(conn);
    assert!(stats.tokens_drafted < 40, "{} tokens were guessed at full price", stats.tokens_drafted);
}

#[test]
fn generation_that_ends_inside_a_draft_leaves_its_context_right() {
    for (max_tokens, stop) in [(Some(33), None), (None, Some("to the kern")), (Some(64), Some("kernel"))] {
        let script = |drafts| format!("{FREE},text=echo,drafts={drafts}");
        let run = |drafts: u8| {
            let (mut machine, conn) = Machine::with_model(&script(drafts));
            let context = machine.open_with(conn, &prompt());
            let call = Generate {
                max_tokens: max_tokens.map(syscalls::Tokens),
                stop: stop.into_iter().map(str::to_owned).collect(),
                ..generate(context, 1)
            };
            let first = generated(machine.call(conn, call.clone()));
            // Another one waits in line, and goes on from what is left.
            let ids = [machine.begin(conn, call.clone()), machine.begin(conn, call)];
            let others = ids.map(|id| generated(machine.finish(conn, id)));
            let tokens: Vec<_> =
                std::iter::once(first).chain(others).map(|r| (r.text, r.tokens, r.finish)).collect();
            (tokens, machine.stat(conn).tokens_accepted)
        };
        let (plain, drafted) = (run(0), run(1));
        assert_eq!(plain.0, drafted.0, "{max_tokens:?} {stop:?}");
        assert!(drafted.1 > 0, "nothing was drafted");
        assert_ne!(plain.0[0].2, Finish::Interrupted);
    }
}

#[test]
fn drafts_of_many_contexts_under_pressure_change_no_text() {
    let (mut machine, conn) = Machine::with_model("pool=1024,context=1024,text=markov,drafts=1");
    let other = machine.connect(ADMIN);
    let texts: Vec<String> = (0..6).map(|n| format!("{n} {}", "lalala lolo ".repeat(8))).collect();
    let calls: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| {
            let conn = if n % 2 == 0 { conn } else { other };
            let context = machine.open_with(conn, text);
            (conn, machine.begin(conn, generate(context, 150)))
        })
        .collect();
    for ((conn, call), text) in calls.into_iter().zip(&texts) {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("text=markov", text, 150));
    }
}
