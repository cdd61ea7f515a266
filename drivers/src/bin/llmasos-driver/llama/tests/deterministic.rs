//! Deterministic mounts: the same to the last bit, whatever else goes on.

use std::os::fd::IntoRawFd;
use std::time::{Duration, Instant};

use super::*;

const PROMPT: usize = 150;

const GENERATED: usize = 24;

/// What came out of a choice, to the last bit.
type Bits = (Token, u32, Vec<(Token, u32)>);

fn bits(sampled: &Sampled) -> Bits {
    let logprob = sampled.logprob.as_ref().unwrap();
    let top = logprob.top.iter().map(|(token, _, value)| (*token, value.to_bits())).collect();
    (sampled.token, logprob.logprob.to_bits(), top)
}

fn prompt(seed: u32, count: usize) -> Vec<Token> {
    (0..count as u32).map(|at| Token(40 + (at * 37 + seed * 11) % 200)).collect()
}

fn sampler(generated: &[Token]) -> Box<SamplerSpec> {
    let sampling = sampling(|s| (s.temperature, s.top_k) = (1.0, 0));
    Box::new(SamplerSpec { logprobs: Some(8), generated: generated.to_vec(), ..spec(sampling) })
}

fn deterministic(path: &Path, attention: Attention) -> Box<dyn Driver> {
    let swap = Some(SwapArea { host_fd: Some(tempfile::tempfile().unwrap().into_raw_fd()), disk_fd: None });
    // One with a thread alone, the other with two that share each pass.
    let threads = Some(if attention == Attention::Flash { 2 } else { 1 });
    load(&LoadRequest { deterministic: true, attention, swap, threads, ..request(path) }).unwrap()
}

/// One sequence: what it has, and what is to be computed next.
struct Sequence {
    asid: u16,
    position: u32,
    feed: Vec<Token>,
    out: Vec<Bits>,
}

impl Sequence {
    fn new(asid: u16, prompt: Vec<Token>) -> Sequence {
        Sequence { asid, position: 0, feed: prompt, out: Vec::new() }
    }

    fn opened(&self) -> Op {
        let generated: Vec<Token> = self.out.iter().map(|bits| bits.0).collect();
        Op::SamplerOpen { asid: Asid(self.asid), sampler: sampler(&generated) }
    }

    /// The next row, of so many tokens at most.
    fn row(&self, most: usize) -> Row {
        let now = self.feed.len().min(most);
        Row {
            asid: Asid(self.asid),
            position: self.position,
            tokens: self.feed[..now].into(),
            sample: now == self.feed.len(),
            draft: vec![],
        }
    }

    fn heard(&mut self, row: &Row, done: &RowDone) {
        self.position += row.tokens.len() as u32;
        self.feed.drain(..row.tokens.len());
        if let RowDone::Sampled(sampled) = done {
            self.out.extend(sampled.iter().map(bits));
            self.position += sampled.len() as u32 - 1;
            self.feed.push(sampled.last().unwrap().token);
        }
    }

    fn step(&mut self, driver: &mut dyn Driver, ops: Vec<Op>, most: usize) {
        let next = self.row(most);
        let done = run(driver, ops, vec![next.clone()]).remove(0);
        assert!(!matches!(done, RowDone::Failed(_)), "{done:?}");
        self.heard(&next, &done);
    }
}

/// A generation alone on a driver of its own.
fn alone(path: &Path, attention: Attention) -> Vec<Bits> {
    let mut driver = deterministic(path, attention);
    let mut sequence = Sequence::new(0, prompt(0, PROMPT));
    let mut ops = vec![sequence.opened()];
    while sequence.out.len() < GENERATED {
        sequence.step(driver.as_mut(), std::mem::take(&mut ops), usize::MAX);
    }
    sequence.out
}

/// Models whose kernels differ: plain numbers, and weights that are packed for the CPU's special units.
fn models() -> Vec<PathBuf> {
    use drivers::gguf::TensorType::{F16, Q4_0, Q8_0};
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let write = |kind| {
        let path = folder.path().join(format!("{kind:?}-{:?}.gguf", std::thread::current().id()));
        if !path.exists() {
            Shape { kind, embedding: 256, ..Shape::preset("tiny").unwrap() }.write(&path).unwrap();
        }
        path
    };
    [F16, Q8_0, Q4_0].map(write).into()
}

fn check(other: impl Fn(&Path, Attention) -> Vec<Bits>) {
    for path in models() {
        for attention in [Attention::Plain, Attention::Flash] {
            let (expected, got) = (alone(&path, attention), other(&path, attention));
            let differs = std::iter::zip(&expected, &got).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{} with {attention:?}", path.display());
            assert_eq!(got.len(), expected.len());
        }
    }
}

#[test]
fn sequence_beside_seven_others_is_as_alone() {
    check(|path, attention| {
        let mut driver = deterministic(path, attention);
        let lengths = [PROMPT, 3, 64, 65, 200, 17, 128, 90];
        let mut all: Vec<Sequence> =
            (0..8).map(|at| Sequence::new(at, prompt(at.into(), lengths[usize::from(at)]))).collect();
        let mut ops: Vec<Op> = all.iter().map(Sequence::opened).collect();
        while all[0].out.len() < GENERATED {
            let rows: Vec<Row> = all.iter().map(|sequence| sequence.row(usize::MAX)).collect();
            let done = run(driver.as_mut(), std::mem::take(&mut ops), rows.clone());
            for (sequence, (row, done)) in all.iter_mut().zip(rows.iter().zip(&done)) {
                sequence.heard(row, done);
            }
        }
        all.swap_remove(0).out
    });
}

#[test]
fn prompt_in_chunks_of_any_size_is_as_whole() {
    check(|path, attention| {
        let mut driver = deterministic(path, attention);
        let mut sequence = Sequence::new(3, prompt(0, PROMPT));
        let mut ops = vec![sequence.opened()];
        for most in [1, 7, 16, 50, 3, 33].into_iter().cycle() {
            sequence.step(driver.as_mut(), std::mem::take(&mut ops), most);
            if sequence.out.len() == GENERATED {
                break;
            }
        }
        sequence.out
    });
}

#[test]
fn sequence_shared_in_the_middle_is_as_computed() {
    check(|path, attention| {
        let mut driver = deterministic(path, attention);
        let mut other = Sequence::new(0, [prompt(0, 101), prompt(9, 30)].concat());
        let ops = vec![other.opened()];
        other.step(driver.as_mut(), ops, usize::MAX);
        let mut sequence = Sequence::new(1, prompt(0, PROMPT));
        (sequence.position, sequence.feed) = (101, prompt(0, PROMPT)[101..].to_vec());
        // What was computed last is not what the sequence is to have.
        let last = Row { sample: false, ..row(1, 0, &[99; 20]) };
        assert_eq!(run(driver.as_mut(), vec![], vec![last]), [RowDone::Computed]);
        let share = Op::Share { from: Asid(0), to: Asid(1), length: 101 };
        let mut ops = vec![Op::Drop { asid: Asid(1), from: 0 }, share, sequence.opened()];
        while sequence.out.len() < GENERATED {
            sequence.step(driver.as_mut(), std::mem::take(&mut ops), usize::MAX);
            other.step(driver.as_mut(), vec![], usize::MAX);
        }
        sequence.out
    });
}

#[test]
fn sequence_saved_and_loaded_in_mid_generation_is_as_one_that_stayed() {
    check(|path, attention| {
        let mut driver = deterministic(path, attention);
        let mut sequence = Sequence::new(0, prompt(0, PROMPT));
        let mut ops = vec![sequence.opened()];
        while sequence.out.len() < 11 {
            sequence.step(driver.as_mut(), std::mem::take(&mut ops), usize::MAX);
        }
        let pages: Vec<PageLabel> = (0..sequence.position)
            .step_by(64)
            .map(|from| PageLabel {
                from,
                to: sequence.position.min(from + 64),
                digest: 0,
                owner: PageOwner::User(0),
            })
            .collect();
        let paging = |save: bool, asid: u16| {
            let op = move |(slot, page): (usize, &PageLabel)| {
                let (asid, page, slot) = (Asid(asid), *page, Slot::Host(slot as u32));
                if save { Op::Save { asid, page, slot } } else { Op::Load { asid, page, slot } }
            };
            pages.iter().enumerate().map(op).collect::<Vec<_>>()
        };
        let ops = [paging(true, 0), vec![Op::Drop { asid: Asid(0), from: 0 }], paging(false, 5)].concat();
        let done = driver.step(&Step { number: 2, ops, rows: vec![] }).unwrap();
        assert!(done.pages.iter().all(Result::is_ok), "{:?}", done.pages);
        sequence.asid = 5;
        let mut ops = vec![sequence.opened()];
        while sequence.out.len() < GENERATED {
            sequence.step(driver.as_mut(), std::mem::take(&mut ops), usize::MAX);
        }
        sequence.out
    });
}

#[test]
fn sequence_dropped_and_computed_again_is_as_one_that_stayed() {
    check(|path, attention| {
        let mut driver = deterministic(path, attention);
        let mut sequence = Sequence::new(0, prompt(0, PROMPT));
        let mut ops = vec![sequence.opened()];
        while sequence.out.len() < 13 {
            sequence.step(driver.as_mut(), std::mem::take(&mut ops), usize::MAX);
        }
        // The log again, as a prompt, in another worker.
        let log: Vec<Token> =
            prompt(0, PROMPT).into_iter().chain(sequence.out.iter().map(|bits| bits.0)).collect();
        (sequence.position, sequence.feed) = (0, log);
        let mut driver = deterministic(path, attention);
        let mut ops = vec![sequence.opened()];
        while sequence.out.len() < GENERATED {
            sequence.step(driver.as_mut(), std::mem::take(&mut ops), 100);
        }
        sequence.out
    });
}

#[test]
fn guesses_change_nothing() {
    check(|path, attention| {
        let expected = alone(path, attention);
        let mut driver = deterministic(path, attention);
        let mut sequence = Sequence::new(0, prompt(0, PROMPT));
        let mut ops = vec![sequence.opened()];
        while sequence.out.len() < GENERATED {
            let coming = &expected[sequence.out.len()..];
            let right = coming.iter().take(sequence.out.len() % 23).map(|bits| bits.0);
            let next = Row { draft: right.chain([Token(7), Token(8)]).collect(), ..sequence.row(usize::MAX) };
            let done = run(driver.as_mut(), std::mem::take(&mut ops), vec![next.clone()]).remove(0);
            sequence.heard(&next, &done);
        }
        sequence.out.truncate(GENERATED);
        sequence.out
    });
}

#[test]
fn withdrawn_step_leaves_the_sequence_as_it_was() {
    check(|path, attention| {
        let mut driver = deterministic(path, attention);
        let mut sequence = Sequence::new(0, prompt(0, PROMPT));
        let mut ops = vec![sequence.opened()];
        while sequence.out.len() < GENERATED {
            let rows = [sequence.row(usize::MAX)];
            driver.withdrawal().unwrap().withdraw(99);
            let done = driver.step(&Step {
                number: 99,
                ops: vec![],
                rows: vec![Row { sample: false, ..rows[0].clone() }],
            });
            assert_eq!(done.unwrap().rows, [RowDone::Withdrawn]);
            sequence.step(driver.as_mut(), std::mem::take(&mut ops), usize::MAX);
        }
        sequence.out
    });
}

#[test]
fn step_withdrawn_among_its_guesses_keeps_what_was_chosen() {
    const COUNT: usize = 200;
    let mut driver = deterministic(&models()[0], Attention::Plain);
    let mut number = 100;
    // From the beginning, in as few rows as there need be: the first one may be withdrawn after a while.
    let mut generate = |guesses: &[Bits], after: Option<Duration>| {
        let mut sequence = Sequence::new(0, prompt(0, 20));
        let mut ops = vec![Op::Drop { asid: Asid(0), from: 0 }, sequence.opened()];
        let (mut first, mut took) = (None, Duration::ZERO);
        while sequence.out.len() < COUNT {
            number += 1;
            let coming = guesses.get(sequence.out.len()..COUNT - 1).unwrap_or_default();
            let draft = coming.iter().map(|bits| bits.0).collect();
            let next = Row { draft, ..sequence.row(usize::MAX) };
            let step = Step { number, ops: std::mem::take(&mut ops), rows: vec![next.clone()] };
            let (withdrawal, running, begin) = (driver.withdrawal().unwrap(), number, Instant::now());
            let done = std::thread::scope(|threads| {
                if let Some(after) = after.filter(|_| first.is_none()) {
                    threads.spawn(move || {
                        while withdrawal.running() != Some(running) || begin.elapsed() < after {
                            std::thread::yield_now();
                        }
                        withdrawal.withdraw(running);
                    });
                }
                driver.step(&step).unwrap().rows.remove(0)
            });
            took = took.max(begin.elapsed());
            if done != RowDone::Withdrawn {
                sequence.heard(&next, &done);
            }
            first = first.or(Some(sequence.out.len()));
        }
        (sequence.out, first.unwrap(), took)
    };
    let (expected, ..) = generate(&[], None);
    let (all, first, took) = generate(&expected, None);
    assert_eq!((all == expected, first), (true, COUNT));
    let mut among = false;
    // Beside others on the machine all of one round may come too early or too late.
    for part in (1..20).cycle().take(400) {
        let (all, first, _) = generate(&expected, Some(took * part / 20));
        assert!(all == expected, "withdrawn when {first} tokens were chosen");
        among |= (1..COUNT).contains(&first);
        if among && part == 19 {
            break;
        }
    }
    assert!(among, "no step was stopped among its guesses");
}

#[test]
fn pool_of_a_deterministic_mount_is_counted_and_made_another_size() {
    let path = random_model("tiny");
    let request = LoadRequest { deterministic: true, context_tokens: Some(256), ..request(&path) };
    let mut driver = load(&request).unwrap();
    let filled = |asid, count| Row { sample: false, ..row(asid, 0, &vec![40; count]) };
    assert_eq!(run(driver.as_mut(), vec![], vec![filled(0, 200)]), [RowDone::Computed]);
    let done = run(driver.as_mut(), vec![], vec![filled(1, 57), filled(2, 56)]);
    assert!(matches!(&done[0], RowDone::Failed(fault) if fault.errno == Errno::ENOMEM), "{done:?}");
    assert_eq!(done[1], RowDone::Computed);
    let empty = [0, 1, 2].map(|asid| Op::Drop { asid: Asid(asid), from: 0 }).to_vec();
    let before = driver.description().pool_bytes;
    let ops = [empty, vec![Op::Resize { tokens: 512 }]].concat();
    assert_eq!(run(driver.as_mut(), ops, vec![filled(0, 256)]), [RowDone::Computed]);
    assert_eq!(run(driver.as_mut(), vec![], vec![filled(1, 256)]), [RowDone::Computed]);
    assert_eq!((driver.description().pool_tokens, driver.description().pool_bytes), (512, 2 * before));
}
