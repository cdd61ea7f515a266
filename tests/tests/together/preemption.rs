//! A long prompt of the class `batch` gives way at once to a process that somebody watches, and loses nothing by it
//! but time.

use drivers::gguf::TensorType;
use drivers::gguf::random::Shape;
use harness::Daemon;
use harness::bench::random::Random;
use harness::said::{ROUNDING, Said, assert_same_bits, assert_same_but_for_ties, say};
use harness::steps::{Steps, prompt_tokens};
use syscalls::Token;
use syscalls::call::Class;
use syscalls::client::blocking::Client;

use super::{DETERMINISTIC, MODEL, mount_anew};

/// Two full steps and some more.
const PROMPT: u32 = 4600;

const GENERATE: u32 = 8;

const CELLS: u32 = 8192;

/// How often arrivals may come too late, on a machine that keeps them waiting until the prompt is through.
const TRIES: u32 = 20;

/// So large that a full step takes many times as long as what is left of one must for it to be withdrawn. A
/// deterministic mount needs less for that.
fn shape(deterministic: bool) -> Shape {
    let preset = Shape::preset("tiny").expect("the preset exists");
    let (layers, embedding) = if deterministic { (2, 128) } else { (4, 256) };
    Shape { kind: TensorType::F32, layers, embedding, context: CELLS, ..preset }
}

fn turn(client: &mut Client, prompt: Vec<Token>) -> Said {
    let context = client.open(Some(MODEL)).expect("opens").context;
    client.append_tokens(context, prompt).expect("appends");
    let said = say(client, context, GENERATE);
    client.close(context).expect("closes");
    said
}

fn long() -> Vec<Token> {
    Random(1).tokens(PROMPT)
}

fn short(number: u64) -> Vec<Token> {
    Random(100 + number).tokens(20)
}

/// The long prompt of a process of the class `batch`, with arrivals while it is evaluated: what both say, and how many of
/// its tokens were sent to the worker.
fn together(daemon: &Daemon) -> (Said, Said, u64) {
    let mut steps = Steps::watch(daemon);
    let mut batch = daemon.client_of(Class::Batch);
    let pid = batch.pid();
    let (said, watched) = std::thread::scope(|scope| {
        let working = scope.spawn(|| (turn(&mut batch, long()), batch.stat(Some(pid), None)));
        let mut client = daemon.client_of(Class::Interactive);
        // The first step is over, so the kernel knows what steps cost, and has begun another one.
        steps.wait_for(pid);
        let watched: Vec<Said> = (0..3).map(|number| turn(&mut client, short(number))).collect();
        (working.join().expect("no panic"), watched)
    });
    let (said, stats) = (said.0, said.1.expect("counts"));
    assert_eq!(stats.prompt_tokens_evaluated, u64::from(PROMPT), "what was withdrawn is not counted");
    assert_eq!(stats.tokens_recomputed, 0, "{stats:?}");
    (said, watched[0].clone(), prompt_tokens(&steps.finish(), pid))
}

#[test]
fn batch_work_is_withdrawn_for_interactive_arrivals_and_says_the_same() {
    let daemon = Daemon::start();
    for deterministic in DETERMINISTIC {
        let shape = shape(deterministic);
        mount_anew(&daemon, &shape, CELLS, deterministic);
        let alone = turn(&mut daemon.client(), long());
        mount_anew(&daemon, &shape, CELLS, deterministic);
        let watched_alone = turn(&mut daemon.client(), short(0));

        let withdrawn = (0..TRIES).any(|_| {
            mount_anew(&daemon, &shape, CELLS, deterministic);
            let (said, watched, sent) = together(&daemon);
            for (alone, together, who) in [(&alone, said, "batch"), (&watched_alone, watched, "interactive")]
            {
                let alone = std::slice::from_ref(alone);
                if deterministic {
                    assert_same_bits(alone, &[together], who);
                } else {
                    assert_same_but_for_ties(alone, &[together], ROUNDING, who);
                }
            }
            sent > u64::from(PROMPT)
        });
        assert!(withdrawn, "no step was withdrawn in {TRIES} tries");
    }
}
