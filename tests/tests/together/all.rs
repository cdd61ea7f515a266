//! Sharing, forks, swapping, preemption, sliding and compacting at the same time, in a pool that has room for a third of it.

use std::sync::atomic::{AtomicU32, Ordering};

use drivers::gguf::TensorType;
use drivers::gguf::random::Shape;
use harness::bench::random::Random;
use harness::said::{ROUNDING, Said, assert_same_bits, assert_same_but_for_ties, measured, say};
use harness::steps::{Steps, prompt_tokens};
use harness::{Daemon, wait_until};
use syscalls::call::{Append, Class, OnFull, Open};
use syscalls::client::blocking::Client;
use syscalls::reply::ProcessState;
use syscalls::{ContextId, Event, Reply, Tokens};

use super::{DETERMINISTIC, MODEL, PAGE, mount_anew};

/// Cells of the pool.
const CELLS: u32 = 24 * PAGE;

/// How often no step may be withdrawn, on a machine that keeps those waiting for whom it would be until it is through.
const TRIES: u32 = 20;

/// Contexts that slid, and that compacted, when all ran together.
static SLID: AtomicU32 = AtomicU32::new(0);
static COMPACTED: AtomicU32 = AtomicU32::new(0);

/// What a program does, always the same: what it says depends on nothing else.
struct Program {
    name: String,
    class: Class,
    run: fn(&mut Client, u64) -> Vec<Said>,
    seed: u64,
}

impl Program {
    fn new(name: &str, class: Class, run: fn(&mut Client, u64) -> Vec<Said>, seed: u64) -> Program {
        Program { name: format!("{name} {seed}"), class, run, seed }
    }
}

/// All programs, the one first that fills the pool alone. What a summary says can only be compared where rounding does
/// not decide it, because nobody sees its tokens.
fn programs(deterministic: bool) -> Vec<Program> {
    let several = |name, run, count| (0..count).map(move |seed| Program::new(name, Class::Normal, run, seed));
    let first = Program::new("long", Class::Batch, long, 0);
    let watched = Program::new("watched", Class::Interactive, watched, 0);
    [first, watched]
        .into_iter()
        .chain(several("sharer", sharer, 3))
        .chain(several("forker", forker, 2))
        .chain(several("slider", slider, 2))
        .chain(several("compacter", compacter, if deterministic { 2 } else { 0 }))
        .chain(several("turns", turns, 3))
        .collect()
}

fn opened(client: &mut Client) -> ContextId {
    client.open(Some(MODEL)).expect("opens").context
}

fn add(client: &mut Client, context: ContextId, seed: u64, tokens: u32) {
    client.append_tokens(context, Random(seed).tokens(tokens)).expect("appends");
}

/// A long prompt: it is evaluated in steps that are worth withdrawing.
fn long(client: &mut Client, _: u64) -> Vec<Said> {
    let context = opened(client);
    add(client, context, 1, CELLS - 2 * PAGE);
    vec![say(client, context, 16)]
}

/// Somebody who comes again and again.
fn watched(client: &mut Client, _: u64) -> Vec<Said> {
    (0..6)
        .map(|number| {
            let context = opened(client);
            add(client, context, 10 + number, 20);
            let said = say(client, context, 6);
            client.close(context).expect("closes");
            said
        })
        .collect()
}

/// One of several with the same instructions.
fn sharer(client: &mut Client, seed: u64) -> Vec<Said> {
    let context = opened(client);
    add(client, context, 2, 4 * PAGE);
    add(client, context, 20 + seed, 40);
    vec![say(client, context, 60)]
}

/// One that goes on in four ways at once.
fn forker(client: &mut Client, seed: u64) -> Vec<Said> {
    let context = opened(client);
    add(client, context, 30 + seed, 3 * PAGE + 20);
    let mut said = vec![say(client, context, 5)];
    let copies = client.fork(context, 3).expect("forks");
    for (number, copy) in copies.iter().enumerate() {
        add(client, *copy, 40 + number as u64, 10 + number as u32);
    }
    let all = [vec![context], copies].concat();
    let calls: Vec<_> = all.iter().map(|c| client.start(measured(*c, 40)).expect("starts")).collect();
    for call in calls {
        let Reply::Generated(reply) = client.finish(call, |_| {}).expect("generates") else {
            panic!("the reply of another call")
        };
        said.push(reply.into());
    }
    said
}

fn opened_small(client: &mut Client, on_full: OnFull) -> ContextId {
    let (model, tokens_max) = (Some(MODEL.into()), Some(Tokens(4 * PAGE)));
    client.open_with(Open { model, tokens_max, on_full, prefix: None }).expect("opens").context
}

/// One that outgrows its window.
fn slider(client: &mut Client, seed: u64) -> Vec<Said> {
    let context = opened_small(client, OnFull::Slide);
    add(client, context, 50 + seed, 3 * PAGE);
    let count = |event| {
        if let Event::Slid { .. } = event {
            SLID.fetch_add(1, Ordering::Relaxed);
        }
    };
    let reply = client.generate(measured(context, 200), count).expect("generates");
    assert_eq!(reply.tokens.len(), 200);
    vec![reply.into()]
}

/// One that is given more than its window holds, a part at a time, and sums up what was before.
fn compacter(client: &mut Client, seed: u64) -> Vec<Said> {
    let context = opened_small(client, OnFull::Compact);
    add(client, context, 60 + seed, 3 * PAGE);
    (0..4)
        .map(|part| {
            let tokens = Some(Random(70 + 10 * seed + part).tokens(40));
            let append = Append { context, text: None, tokens, messages: None, special: false };
            let call = client.start(append).expect("starts");
            let count = |event| {
                if let Event::Compacted { .. } = event {
                    COMPACTED.fetch_add(1, Ordering::Relaxed);
                }
            };
            client.finish(call, count).expect("appends");
            say(client, context, 20)
        })
        .collect()
}

/// A conversation that rests between its turns, so that others take its pages.
fn turns(client: &mut Client, seed: u64) -> Vec<Said> {
    let context = opened(client);
    (0..4)
        .map(|turn| {
            add(client, context, 100 + 10 * seed + turn, 70);
            say(client, context, 20)
        })
        .collect()
}

fn shape() -> Shape {
    let preset = Shape::preset("tiny").expect("the preset exists");
    Shape { kind: TensorType::F32, layers: 3, context: 4096, ..preset }
}

/// What each program says on a mount that it has for itself.
fn alone(daemon: &Daemon, programs: &[Program], deterministic: bool) -> Vec<Vec<Said>> {
    let run = |program: &Program| {
        mount_anew(daemon, &shape(), CELLS, deterministic);
        (program.run)(&mut daemon.client(), program.seed)
    };
    programs.iter().map(run).collect()
}

/// What all say together on one mount, and whether a step of the first one's prompt was withdrawn.
fn together(daemon: &Daemon, programs: &[Program]) -> (Vec<Vec<Said>>, bool) {
    let mut steps = Steps::watch(daemon);
    let mut clients: Vec<_> = programs.iter().map(|program| daemon.client_of(program.class)).collect();
    let first = clients[0].pid();
    let mut stranger = daemon.client();
    let said = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (program, client) in programs.iter().zip(&mut clients) {
            threads.push(scope.spawn(|| (program.run)(client, program.seed)));
            if threads.len() == 1 {
                wait_until("the long prompt is being evaluated", || {
                    let processes = stranger.ps().expect("lists");
                    processes.iter().any(|p| p.pid == first && p.state == ProcessState::Running)
                });
            }
        }
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let stats = stranger.stat(Some(first), None).expect("its client is connected");
    steps.wait_for(first);
    let sent = prompt_tokens(&steps.finish(), first);
    // What is computed again begins with a token that was generated and never evaluated, each time.
    (said, sent > stats.prompt_tokens_evaluated + stats.tokens_recomputed + u64::from(PAGE))
}

#[test]
fn every_process_says_what_it_says_alone() {
    for deterministic in DETERMINISTIC {
        let programs = programs(deterministic);
        let daemon = Daemon::start();
        let alone = alone(&daemon, &programs, deterministic);
        let mut withdrawn = false;
        for _ in 0..TRIES {
            withdrawn |= say_the_same_together(&daemon, &programs, &alone, deterministic);
            if withdrawn {
                break;
            }
        }
        assert!(withdrawn, "no step was withdrawn in {TRIES} tries");
    }
}

/// Runs all programs together, and checks that each says what it says alone although everything happens to them that
/// should. Tells whether a step was withdrawn, too, which chance decides.
fn say_the_same_together(
    daemon: &Daemon,
    programs: &[Program],
    alone: &[Vec<Said>],
    deterministic: bool,
) -> bool {
    mount_anew(daemon, &shape(), CELLS, deterministic);
    [&SLID, &COMPACTED].into_iter().for_each(|count| count.store(0, Ordering::Relaxed));
    let (together, withdrawn) = together(daemon, programs);
    let stats = daemon.client().stat(None, Some(MODEL)).expect("counts");
    assert!(stats.prompt_tokens_shared >= u64::from(2 * 4 * PAGE), "nothing was shared: {stats:?}");
    assert!(stats.swap_out_bytes > 0 && stats.swap_in_bytes > 0, "nothing was swapped: {stats:?}");
    assert!(stats.refaults > 0, "nothing came back: {stats:?}");
    assert!(SLID.load(Ordering::Relaxed) >= 2, "nothing slid");
    let compacted = COMPACTED.load(Ordering::Relaxed);
    assert!(compacted >= 2 || !deterministic, "nothing was summed up when there was more to read");
    let mut same = 0;
    for ((program, alone), together) in programs.iter().zip(alone).zip(&together) {
        if deterministic {
            assert_same_bits(alone, together, &program.name);
        } else {
            same += assert_same_but_for_ties(alone, together, ROUNDING, &program.name);
        }
    }
    let all: usize = alone.iter().flatten().map(|said| said.tokens.len()).sum();
    assert!(deterministic || same * 2 > all, "rounding decided all but {same} of {all} tokens");
    withdrawn
}
