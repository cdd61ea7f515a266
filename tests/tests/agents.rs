//! What many processes on one model are promised, in counters: nothing is evaluated twice, whoever needs it and
//! whatever memory lacks, and nobody fails for his neighbours.
//!
//! `make bench-agents` measures the same cases against llama-server, with models of a real size.

use std::path::PathBuf;
use std::sync::Barrier;

use drivers::gguf::random::Shape;
use harness::Daemon;
use harness::bench::random::Random;
use harness::said::greedy;
use syscalls::call::{Attention, Mount, OnFull, Open, Segments, Share, Unshare};
use syscalls::client::blocking::Client;
use syscalls::client::mount;
use syscalls::reply::{Finish, Frame, GeneratedReply, Reply, Stats};
use syscalls::{ContextId, Token, Tokens};

const MODEL: &str = "m";

/// Positions of a page.
const PAGE: u32 = 64;

/// So few tokens at the end of a context are quicker computed than kept, so they may be evaluated again.
const TAIL: u32 = 16;

/// A daemon with a model of random weights in a pool of so many cells.
fn daemon(cells: u32) -> Daemon {
    let daemon = Daemon::start();
    let path: PathBuf = daemon.dir().join("tiny.gguf");
    let preset = Shape::preset("tiny").expect("the preset exists");
    Shape { context: cells, ..preset }.write(&path).expect("a model can be written");
    let path = path.to_str().expect("UTF-8");
    let mount = Mount {
        context: Some(Tokens(cells)),
        attention: Attention::Flash,
        threads: Some(1),
        ..mount(path, MODEL)
    };
    daemon.client().mount_with(mount, |_| {}).expect("mounts");
    daemon
}

fn stats(daemon: &Daemon) -> Stats {
    daemon.client().stat(None, None).expect("counts")
}

fn open(client: &mut Client) -> ContextId {
    client.open(Some(MODEL)).expect("opens").context
}

fn turn(client: &mut Client, context: ContextId, new: Vec<Token>, generate: u32) -> GeneratedReply {
    client.append_tokens(context, new).expect("appends");
    client.generate(greedy(context, generate), |_| {}).expect("generates")
}

/// Programs that each add their prompt and generate, all at once.
fn at_once(daemon: &Daemon, prompts: &[Vec<Token>], generate: u32) -> Vec<GeneratedReply> {
    let start = Barrier::new(prompts.len());
    std::thread::scope(|scope| {
        let programs: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let (start, mut client) = (&start, daemon.client());
                scope.spawn(move || {
                    let context = open(&mut client);
                    start.wait();
                    turn(&mut client, context, prompt.clone(), generate)
                })
            })
            .collect();
        programs.into_iter().map(|p| p.join().expect("no panic")).collect()
    })
}

#[test]
fn agents_with_a_common_prompt_at_once_evaluate_it_once() {
    let (agents, common, own) = (8, 8 * PAGE, 16);
    let daemon = daemon(agents * (common + 2 * PAGE));
    let mut random = Random(1);
    let shared = random.tokens(common);
    let prompts: Vec<_> = (0..agents).map(|_| [shared.clone(), random.tokens(own)].concat()).collect();
    let replies = at_once(&daemon, &prompts, 8);
    assert!(replies.iter().all(|reply| reply.tokens.len() == 8), "{replies:?}");
    let stats = stats(&daemon);
    let new = u64::from(common + agents * own);
    assert!(stats.prompt_tokens_evaluated <= new, "{new} tokens are new: {stats:?}");
    assert!(stats.prompt_tokens_shared >= u64::from((agents - 1) * common), "{stats:?}");
    assert_eq!(stats.tokens_recomputed, 0, "{stats:?}");
}

#[test]
fn agents_that_take_turns_in_memory_for_two_evaluate_only_what_is_new() {
    let (agents, common, own, generate, turns) = (6, 4 * PAGE, 2 * PAGE, 4, 3);
    let conversation = common + turns * (own + generate);
    let daemon = daemon((2 * conversation).next_multiple_of(PAGE));
    let mut random = Random(2);
    let shared = random.tokens(common);
    let mut programs: Vec<_> = (0..agents)
        .map(|_| {
            let mut client = daemon.client();
            let context = open(&mut client);
            (client, context)
        })
        .collect();
    for number in 0..turns {
        for (client, context) in &mut programs {
            let mine = random.tokens(own);
            let new = if number == 0 { [shared.clone(), mine].concat() } else { mine };
            assert_eq!(turn(client, *context, new, generate).tokens.len(), generate as usize);
        }
    }
    let stats = stats(&daemon);
    // The last token of a turn is evaluated with the next one.
    let new = u64::from(common + agents * (turns * own + turns - 1));
    let tails = u64::from(agents * (turns - 1) * TAIL);
    let evaluated = stats.prompt_tokens_evaluated + stats.tokens_recomputed;
    assert!(evaluated <= new + tails, "{new} tokens are new: {stats:?}");
    assert!(stats.swap_out_bytes > 0 && stats.swap_in_bytes > 0, "{stats:?}");
}

#[test]
fn conversations_that_do_not_fit_together_all_finish_in_full() {
    let (streams, prompt, generate) = (8, 2 * PAGE, 2 * PAGE);
    let daemon = daemon(streams * (prompt + generate) / 2);
    let mut random = Random(3);
    let prompts: Vec<_> = (0..streams).map(|_| random.tokens(prompt)).collect();
    for reply in at_once(&daemon, &prompts, generate) {
        assert_eq!(reply.finish, Finish::Length);
        assert_eq!(reply.tokens.len(), generate as usize);
    }
    let stats = stats(&daemon);
    let new = u64::from(streams * prompt);
    assert!(stats.prompt_tokens_evaluated <= new, "{new} tokens are new: {stats:?}");
    // What had to go comes back from the host's memory, so hardly anything is done twice.
    let work = u64::from(streams * (prompt + generate));
    assert!(stats.tokens_recomputed <= work / 10, "{stats:?}");
}

#[test]
fn fork_of_a_deep_context_evaluates_nothing_and_every_copy_goes_on() {
    let (prompt, copies, generate) = (16 * PAGE, 32, 4);
    let daemon = daemon(prompt + PAGE + copies * 2 * PAGE);
    let mut client = daemon.client();
    let context = open(&mut client);
    turn(&mut client, context, Random(4).tokens(prompt), 1);
    let before = stats(&daemon);
    let contexts = client.fork(context, copies).expect("forks");
    let forked = stats(&daemon);
    assert_eq!(contexts.len(), copies as usize);
    assert_eq!(forked.prompt_tokens_evaluated, before.prompt_tokens_evaluated);
    assert_eq!(forked.steps, before.steps, "a fork is no work for the model");
    assert_eq!(forked.frames_free, before.frames_free, "a fork takes no memory");
    let calls: Vec<_> =
        contexts.iter().map(|c| client.start(greedy(*c, generate)).expect("starts")).collect();
    let mut open = calls.len();
    while open > 0 {
        if let Frame::Reply(id, reply) = client.next_frame().expect("comes") {
            assert!(calls.contains(&id));
            let Ok(Reply::Generated(reply)) = reply else { panic!("{reply:?}") };
            assert_eq!(reply.tokens.len(), generate as usize);
            open -= 1;
        }
    }
    let after = stats(&daemon);
    // The last token of the context has no entry yet, so each copy that goes on evaluates it: one at most.
    let evaluated = after.prompt_tokens_evaluated - forked.prompt_tokens_evaluated;
    assert!(evaluated <= u64::from(copies), "{after:?}");
    assert_eq!(after.tokens_recomputed, before.tokens_recomputed, "{after:?}");
}

#[test]
fn segment_outlives_the_daemon_killed_and_ended_and_goes_for_good_when_it_is_removed() {
    let mut daemon = Daemon::start();
    daemon.mount_sim("m", "pool=4096,context=1024");
    let mut client = daemon.client();
    let rules = "Everything that an agent has to know. ".repeat(8);
    let context = open(&mut client);
    client.append_text(context, &rules).expect("fits");
    let alone = client.generate(greedy(context, 16), |_| {}).expect("generates").text;
    let again = open(&mut client);
    client.append_text(again, &rules).expect("fits");
    let share = Share { context: again, name: "rules".into(), length: None, mode: 0o640 };
    client.call(share).expect("own context");
    let listed = client.call(Segments {}).expect("lists");
    drop(client);
    for end in [Daemon::kill9, |daemon: &mut Daemon| assert!(daemon.terminate().success())] {
        end(&mut daemon);
        daemon.restart();
        let mut client = daemon.client();
        assert_eq!(client.call(Segments {}).expect("lists"), listed);
        let on_rules =
            Open { model: None, tokens_max: None, on_full: OnFull::Stop, prefix: Some("rules".into()) };
        let context = client.open_with(on_rules).expect("opens when its model has been loaded").context;
        assert_eq!(client.generate(greedy(context, 16), |_| {}).expect("generates").text, alone);
    }
    daemon.client().call(Unshare { name: "rules".into() }).expect("his own");
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.client().call(Segments {}), Ok(Reply::Segments(vec![])));
}
