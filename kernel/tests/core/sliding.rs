//! Contexts that slide when they are full.

use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::reply::Finish;
use syscalls::{ContextId, Errno, Event, Reply, Token, Tokens};

use crate::machine::{Machine, append_bytes, generate, generated, open};

impl Machine {
    fn open_sliding(&mut self, conn: ConnId, tokens_max: u32) -> ContextId {
        self.open_full(conn, OnFull::Slide, tokens_max)
    }

    fn open_full(&mut self, conn: ConnId, on_full: OnFull, tokens_max: u32) -> ContextId {
        match self.call(conn, Open { on_full, tokens_max: Some(Tokens(tokens_max)), ..open() }) {
            Ok(Reply::Opened { context, .. }) => context,
            other => panic!("{other:?}"),
        }
    }

    /// Puts what the model says to the oldest part of a log, and to the kernel's instruction, in the place of that.
    fn sum_up(&mut self, conn: ConnId, log: &mut Vec<Token>, event: &Event) {
        let Event::Compacted { kept, tokens, summary, messages: 0 } = event else { panic!("{event:?}") };
        let part = kept.0 as usize..(kept.0 + tokens.0) as usize;
        let mut asked = log[..part.end].to_vec();
        asked.extend(bytes("\n\nSummary of everything above, in a few sentences:\n"));
        let said: Vec<Token> = (0..summary.0)
            .map(|_| {
                let token = self.next(conn, &asked);
                asked.push(token);
                token
            })
            .collect();
        log.splice(part, said);
    }

    fn log(&mut self, conn: ConnId, context: ContextId) -> Vec<Token> {
        match self.call(conn, ReadTokens { context, from: Tokens(0), to: None }) {
            Ok(Reply::Tokens(log)) => log,
            other => panic!("{other:?}"),
        }
    }

    /// What comes behind a log, on a context of its own.
    fn next(&mut self, conn: ConnId, log: &[Token]) -> Token {
        let context = self.open(conn);
        let tokens = Some(log.to_vec());
        self.call(conn, Append { context, text: None, tokens, messages: None, special: false })
            .expect("it fits");
        let token = self.generate(conn, context, 1).tokens[0];
        self.call(conn, Close { context }).expect("own context");
        token
    }
}

fn bytes(text: &str) -> Vec<Token> {
    text.bytes().map(|b| Token(b.into())).collect()
}

/// What a log says.
fn said(log: &[Token]) -> String {
    let said: Vec<u8> = log.iter().filter_map(|t| u8::try_from(t.0).ok()).collect();
    String::from_utf8_lossy(&said).into_owned()
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

fn say(context: ContextId, messages: Vec<Message>) -> Append {
    Append { context, text: None, tokens: None, messages: Some(messages), special: false }
}

fn compactions(events: &[Event]) -> usize {
    events.iter().filter(|e| matches!(e, Event::Compacted { .. })).count()
}

fn slides(events: &[Event]) -> usize {
    events.iter().filter(|e| matches!(e, Event::Slid { .. })).count()
}

#[test]
fn generation_longer_than_the_window_goes_on_from_the_first_page_and_the_latest_part() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let context = machine.open_sliding(conn, 256);
    let prompt = "the beginning stays ".repeat(5);
    machine.call(conn, append_bytes(context, &prompt)).expect("it fits");
    let call = machine.begin(conn, generate(context, 600));
    let reply = generated(machine.finish(conn, call));
    assert_eq!((reply.finish, reply.tokens.len()), (Finish::Length, 600));
    let events = machine.events(conn, call).to_vec();
    assert!((6..=8).contains(&slides(&events)), "{} slides of 64 tokens", slides(&events));
    // The same by hand: each token follows from what the context held when it came.
    let mut log: Vec<Token> = prompt.bytes().map(|b| Token(b.into())).collect();
    let mut at = 0;
    for event in &events {
        match event {
            Event::Tokens { tokens, .. } => {
                if (at as u32).is_multiple_of(23) {
                    assert_eq!(machine.next(conn, &log), tokens[0], "token {at}");
                }
                assert_eq!(reply.tokens[at], tokens[0]);
                log.push(tokens[0]);
                at += 1;
            }
            Event::Slid { kept, tokens, .. } => {
                assert_eq!(kept.0, 64);
                drop(log.drain(64..64 + tokens.0 as usize));
            }
            _ => {}
        }
    }
    assert_eq!(machine.log(conn, context), log);
    assert!(log.len() <= 256);
}

#[test]
fn append_beyond_the_window_slides_and_one_that_cannot_fit_is_refused() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let context = machine.open_sliding(conn, 256);
    for n in 0..20 {
        machine.call(conn, append_bytes(context, &format!("part {n} ").repeat(8))).expect("it slides");
        assert!(machine.log(conn, context).len() <= 256);
    }
    let had = machine.log(conn, context);
    assert!(had.starts_with(&"part 0 ".bytes().map(|b| Token(b.into())).collect::<Vec<_>>()));
    let fault = machine.append(conn, context, &"x".repeat(250)).expect_err("longer than what may go");
    assert_eq!(fault.errno, Errno::ENOSPC);
    assert_eq!(machine.log(conn, context), had, "and nothing has changed");
}

#[test]
fn context_too_small_to_slide_is_refused_and_the_smallest_one_slides() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    for (tokens_max, on_full) in [(1, OnFull::Slide), (2, OnFull::Slide), (2, OnFull::Compact)] {
        let small = Open { on_full, tokens_max: Some(Tokens(tokens_max)), ..open() };
        let fault = machine.call(conn, small).expect_err("nothing of it could go");
        assert_eq!(fault.errno, Errno::EINVAL);
        assert!(fault.message.contains(&format!("tokens_max is {tokens_max}")), "{fault}");
    }
    machine.open_full(conn, OnFull::Stop, 1);
    let context = machine.open_sliding(conn, 3);
    for _ in 0..5 {
        machine.append(conn, context, "x").expect("it slides");
        assert!(machine.log(conn, context).len() <= 3);
    }
    assert_eq!(machine.generate(conn, context, 20).tokens.len(), 20);
    assert!(machine.log(conn, context).len() <= 3);
}

#[test]
fn generation_without_a_limit_ends_although_the_context_is_never_full() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let context = machine.open_sliding(conn, 200);
    machine.call(conn, append_bytes(context, "endless")).expect("it fits");
    let reply = generated(machine.call(conn, Generate { max_tokens: None, ..generate(context, 1) }));
    assert_eq!((reply.finish, reply.tokens.len()), (Finish::Length, 200));
}

#[test]
fn sampled_generation_that_slides_survives_the_worker() {
    let call = |context| Generate {
        sampling: Sampling { seed: Some(5), temperature: 1.2, repeat_penalty: 1.2, ..Sampling::default() },
        ..generate(context, 500)
    };
    let run = |kills: &[usize]| {
        let (mut machine, conn) = Machine::with_model("text=alphabet,pool=4096,context=1024");
        let context = machine.open_sliding(conn, 256);
        machine.call(conn, append_bytes(context, &"once ".repeat(20))).expect("it fits");
        let running = machine.begin(conn, call(context));
        for had in kills {
            while machine.events(conn, running).len() < *had {
                assert!(machine.turn());
            }
            machine.kill_worker();
        }
        generated(machine.finish(conn, running)).tokens
    };
    assert_eq!(run(&[]), run(&[50, 200, 400]));
}

#[test]
fn conversation_that_slides_keeps_its_instructions_and_the_latest_messages() {
    let (mut machine, conn) = Machine::with_model("template=chatml,text=echo,pool=4096,context=1024");
    let context = machine.open_sliding(conn, 512);
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let say =
        |messages| Append { context, text: None, tokens: None, messages: Some(messages), special: false };
    machine
        .call(conn, say(vec![message("system", "be brief"), message("user", "first words")]))
        .expect("fits");
    machine.generate(conn, context, 50);
    let mut slid = 0;
    for n in 0..12 {
        let call =
            machine.begin(conn, say(vec![message("user", &format!("question number {n} about things"))]));
        machine.finish(conn, call).expect("it slides");
        slid += slides(machine.events(conn, call));
        assert_eq!(machine.generate(conn, context, 60).text, format!("question number {n} about things"));
    }
    assert!(slid > 0);
    let log = machine.log(conn, context);
    let said: Vec<u8> = log.iter().filter_map(|t| u8::try_from(t.0).ok()).collect();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        said.starts_with("system\nbe brief\n") && said.contains("number 10") && !said.contains("first"),
        "{said}"
    );
}

#[test]
fn context_that_compacts_goes_on_from_a_summary_of_its_own() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let open = Open { on_full: OnFull::Compact, tokens_max: Some(Tokens(512)), ..open() };
    let Ok(Reply::Opened { context, .. }) = machine.call(conn, open) else { panic!("it opens") };
    let prompt = "a long story that goes on and on ".repeat(10);
    machine.call(conn, append_bytes(context, &prompt)).expect("it fits");
    let call = machine.begin(conn, generate(context, 700));
    let reply = generated(machine.finish(conn, call));
    assert_eq!((reply.finish, reply.tokens.len()), (Finish::Length, 700));
    let mut log: Vec<Token> = prompt.bytes().map(|b| Token(b.into())).collect();
    let mut compacted = 0;
    let mut came = reply.tokens.iter();
    for event in machine.events(conn, call).to_vec() {
        match event {
            Event::Tokens { tokens, .. } => {
                assert_eq!(came.next(), Some(&tokens[0]), "the reply has them in their order");
                if log.len().is_multiple_of(97) {
                    assert_eq!(machine.next(conn, &log), tokens[0]);
                }
                log.push(tokens[0]);
            }
            event @ Event::Compacted { kept: Tokens(64), .. } => {
                machine.sum_up(conn, &mut log, &event);
                compacted += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(compacted >= 2, "{compacted}");
    assert_eq!(machine.log(conn, context), log);
    let pid = machine.pid(conn);
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!(info.contexts, 1, "the kernel's own context is gone");
}

/// A conversation that begins with so long instructions, and generates so much that its window is filled over and over.
fn instructed(machine: &mut Machine, conn: ConnId, on_full: OnFull, length: usize) -> (String, Vec<Event>) {
    let open = Open { on_full, tokens_max: Some(Tokens(512)), ..open() };
    let Ok(Reply::Opened { context, .. }) = machine.call(conn, open) else { panic!("it opens") };
    let system = "rules ".repeat(100)[..length].to_owned();
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let messages = Some(vec![message("system", &system), message("user", "tell me a story")]);
    machine
        .call(conn, Append { context, text: None, tokens: None, messages, special: false })
        .expect("it fits");
    let call = machine.begin(conn, generate(context, 700));
    assert_eq!(generated(machine.finish(conn, call)).tokens.len(), 700);
    let log = machine.log(conn, context);
    let said: Vec<u8> = log.iter().filter_map(|t| u8::try_from(t.0).ok()).collect();
    (String::from_utf8_lossy(&said).into_owned(), machine.events(conn, call).to_vec())
}

#[test]
fn instructions_stay_to_the_token_when_a_context_slides_or_compacts() {
    for on_full in [OnFull::Slide, OnFull::Compact] {
        let (mut machine, conn) = Machine::with_model("template=chatml,pool=4096,context=1024");
        let (said, events) = instructed(&mut machine, conn, on_full, 200);
        let begins = format!("system\n{}\n", &"rules ".repeat(100)[..200]);
        assert!(said.starts_with(&begins) && !said.contains("story"), "{said}");
        // With the token that begins the text, and those around the message.
        let kept = begins.len() as u32 + 3;
        let moves: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Slid { kept, .. } => Some((OnFull::Slide, kept.0)),
                Event::Compacted { kept, .. } => Some((OnFull::Compact, kept.0)),
                _ => None,
            })
            .collect();
        assert!(moves.len() > 1 && moves.iter().all(|m| *m == (on_full, kept)), "{moves:?}, not {kept}");
    }
}

#[test]
fn instructions_longer_than_half_of_the_window_slide_like_the_rest_and_the_log_says_so() {
    for on_full in [OnFull::Slide, OnFull::Compact] {
        let (mut machine, conn) = Machine::with_model("template=chatml,pool=4096,context=1024");
        let (said, events) = instructed(&mut machine, conn, on_full, 300);
        assert!(said.starts_with("system\nrules ") && !said.contains("story"), "{said}");
        let first = events.iter().find(|e| !matches!(e, Event::Tokens { .. }));
        assert!(matches!(first, Some(Event::Slid { kept: Tokens(64), .. })), "{first:?}");
        let told = machine.logs.iter().filter(|l| l.contains("more than half of its window of 512")).count();
        assert_eq!(told, 1, "{:?}", machine.logs);
    }
}

#[test]
fn segment_that_a_context_was_opened_on_stays_when_it_slides() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let context = machine.open_with(conn, &"all begin so ".repeat(10));
    let share = Share { context, name: "rules".into(), length: None, mode: 0o600 };
    machine.call(conn, share).expect("own context");
    let prefix = Some("rules".into());
    let open = Open { on_full: OnFull::Slide, tokens_max: Some(Tokens(300)), prefix, ..open() };
    let Ok(Reply::Opened { context, .. }) = machine.call(conn, open) else { panic!("it opens") };
    let call = machine.begin(conn, generate(context, 600));
    generated(machine.finish(conn, call));
    let kept: Vec<_> = machine
        .events(conn, call)
        .iter()
        .filter_map(|e| if let Event::Slid { kept, .. } = e { Some(kept.0) } else { None })
        .collect();
    assert!(kept.len() > 2 && kept.iter().all(|k| *k == 130), "{kept:?}");
    let begins: Vec<Token> = "all begin so ".repeat(10).bytes().map(|b| Token(b.into())).collect();
    assert!(machine.log(conn, context).starts_with(&begins));
}

#[test]
fn append_that_lacks_room_waits_for_a_summary_and_comes_behind_it() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let context = machine.open_full(conn, OnFull::Compact, 512);
    let (mut log, mut compacted) = (vec![], 0);
    for n in 0..12 {
        let text = format!("part {n} of a long story, ").repeat(5);
        let call = match n % 2 {
            0 => append_bytes(context, &text),
            _ => crate::machine::append(context, &text),
        };
        let call = machine.begin(conn, call);
        // One that comes meanwhile waits behind it.
        let next = machine.begin(conn, append_bytes(context, "and then "));
        let reply = machine.finish(conn, call);
        machine.finish(conn, next).expect("it fits");
        for event in machine.events(conn, call).to_vec() {
            machine.sum_up(conn, &mut log, &event);
            compacted += 1;
        }
        log.extend(bytes(&text));
        let added = Tokens(text.len() as u32);
        assert_eq!(reply, Ok(Reply::Appended { length: Tokens(log.len() as u32), added }));
        for event in machine.events(conn, next).to_vec() {
            machine.sum_up(conn, &mut log, &event);
        }
        log.extend(bytes("and then "));
        assert!(machine.log(conn, context) == log, "after part {n}");
    }
    assert!(compacted >= 3, "{compacted}");
    let expected = machine.next(conn, &log);
    assert_eq!(machine.generate(conn, context, 1).tokens, [expected], "and it goes on from there");
    let fault = machine.append(conn, context, &"x".repeat(500)).expect_err("longer than what may go");
    assert_eq!(fault.errno, Errno::ENOSPC, "at once, and without a summary");
}

#[test]
fn append_that_waits_for_a_summary_can_be_interrupted_and_closed() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024,step_us=1000");
    let pid = machine.pid(conn);
    let waiting = |machine: &mut Machine| {
        let context = machine.open_full(conn, OnFull::Compact, 512);
        machine.append(conn, context, &"so far ".repeat(70)).expect("it fits");
        let call = machine.begin(conn, append_bytes(context, &"more ".repeat(10)));
        machine.turn();
        assert!(machine.reply(conn, call).is_none(), "it waits");
        (context, call)
    };
    let (context, call) = waiting(&mut machine);
    machine.call(conn, Kill { pid, signal: Signal::Int }).expect("its own");
    assert_eq!(machine.finish(conn, call).expect_err("interrupted").errno, Errno::EINTR);
    machine.run();
    assert!(!said(&machine.log(conn, context)).contains("more"), "nothing was added");
    assert_eq!(machine.append(conn, context, "!").map(|_| ()), Ok(()), "and it goes on");
    let (context, call) = waiting(&mut machine);
    machine.call(conn, Close { context }).expect("own context");
    assert!(machine.finish(conn, call).is_err());
    machine.run();
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!(info.contexts, 1, "the kernel's own contexts are gone");
}

/// Twelve questions, more than there is room for, and their answers; what was told of room that was made.
fn converse(machine: &mut Machine, conn: ConnId, context: ContextId) -> Vec<Event> {
    let mut all = vec![];
    for n in 0..12 {
        let question = format!("question number {n} about things");
        let call = machine.begin(conn, say(context, vec![message("user", &question)]));
        machine.finish(conn, call).expect("it makes room");
        all.extend(machine.events(conn, call).to_vec());
        assert_eq!(machine.generate(conn, context, 60).text, question);
    }
    all
}

#[test]
fn conversation_that_compacts_has_a_summary_in_the_place_of_its_oldest_messages() {
    let (mut machine, conn) = Machine::with_model("template=chatml,text=echo,pool=4096,context=1024");
    let context = machine.open_full(conn, OnFull::Compact, 512);
    let begins = vec![message("system", "be brief"), message("user", "first words")];
    machine.call(conn, say(context, begins)).expect("fits");
    machine.generate(conn, context, 50);
    let all = converse(&mut machine, conn, context);
    assert!(compactions(&all) >= 2 && slides(&all) == 0, "{all:?}");
    let dropped =
        |e: &Event| matches!(e, Event::Compacted { messages, summary, .. } if *messages > 0 && summary.0 > 0);
    assert!(all.iter().all(dropped), "{all:?}");
    let said = said(&machine.log(conn, context));
    assert!(said.starts_with("system\nbe brief\n"), "{said}");
    // The model without a model says again what it was asked.
    let exchange =
        "user\nSum up our conversation so far in a few sentences.\nassistant\nSum up our conversation";
    assert!(said.contains(exchange) && said.contains("number 10") && !said.contains("first"), "{said}");
    assert_eq!(
        said.matches("Sum up our").count(),
        2,
        "of an older summary there is only what was said of it: {said}"
    );
    let pid = machine.pid(conn);
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!(info.contexts, 1, "the kernel's own context is gone");
}

#[test]
fn conversation_that_cannot_compact_drops_messages() {
    let (mut machine, conn) = Machine::with_model("template=chatml,text=echo,pool=4096,context=1024");
    let context = machine.open_full(conn, OnFull::Compact, 512);
    let pid = machine.pid(conn);
    let limit = Setlimit { pid, limit: Limit::Contexts, value: Some(1), then: None };
    machine.call(conn, limit).expect("own limit");
    let all = converse(&mut machine, conn, context);
    assert!(slides(&all) >= 2 && compactions(&all) == 0, "{all:?}");
}

#[test]
fn append_that_waits_for_a_summary_outlives_the_daemon() {
    let (mut before, _) = Machine::with_model("pool=4096,context=1024");
    let conn = before.connect_lasting(7, Lifetime::Persistent);
    let context = before.open_full(conn, OnFull::Compact, 512);
    before.append(conn, context, &"so far ".repeat(72)).expect("it fits");
    let call = before.begin(conn, append_bytes(context, "and what comes then"));
    before.turn();
    before.turn();
    assert!(before.reply(conn, call).is_none(), "it waits");
    let pid = before.pid(conn);
    let mut machine = before.crashed(kernel::core::KernelConfig::default());
    machine.run();
    let user = machine.connect(7);
    machine.call(user, Attach { pid, force: true }).expect("its own process");
    let read = ReadTokens { context, from: Tokens(0), to: None };
    let Ok(Reply::Tokens(log)) = machine.call_as(user, Some(pid), read) else { panic!("it is there") };
    assert!(said(&log).ends_with("so far and what comes then"), "{}", said(&log));
    assert!(log.len() < 490, "a summary has made room");
}

#[test]
fn context_that_cannot_compact_slides() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let pid = machine.pid(conn);
    machine
        .call(conn, Setlimit { pid, limit: Limit::Contexts, value: Some(1), then: None })
        .expect("own limit");
    let open = Open { on_full: OnFull::Compact, tokens_max: Some(Tokens(256)), ..open() };
    let Ok(Reply::Opened { context, .. }) = machine.call(conn, open) else { panic!("it opens") };
    machine.call(conn, append_bytes(context, &"no room for another ".repeat(8))).expect("it fits");
    let call = machine.begin(conn, generate(context, 300));
    assert_eq!(generated(machine.finish(conn, call)).tokens.len(), 300);
    assert!(slides(machine.events(conn, call)) > 0);
}

#[test]
fn context_whose_summary_cannot_be_asked_for_slides() {
    let (mut machine, conn) = Machine::with_model("pool=4096,context=1024");
    let pid = machine.pid(conn);
    let context = machine.open_full(conn, OnFull::Compact, 512);
    machine.append(conn, context, &"so far ".repeat(70)).expect("it fits");
    let call = machine.begin(conn, append_bytes(context, &"more ".repeat(10)));
    let info = machine.ps(conn).into_iter().find(|p| p.pid == pid).expect("it lives");
    assert_eq!(info.contexts, 2, "a summary is being written");
    // There is room for some words behind what it is to sum up, but not for what asks for it.
    let value = Some(info.context_tokens + 10);
    machine.call(conn, Setlimit { pid, limit: Limit::ContextTokens, value, then: None }).expect("own limit");
    machine.finish(conn, call).expect("it makes room");
    let events = machine.events(conn, call);
    assert_eq!((slides(events), compactions(events)), (1, 0), "{events:?}");
    assert!(
        said(&machine.log(conn, context)).ends_with("far more more more more more more more more more more ")
    );
}
