//! What a sequence has given up is nowhere in the worker's memory once the worker was told to clear.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;

use super::super::clear::Blank;
use super::super::swap::HEADER_BYTES;
use super::*;

/// One page and one entry: the second page has the form of a single entry.
const LENGTH: u32 = 65;

/// Layers of the model.
const LAYERS: usize = 2;

/// What is looked for is kept with this added, so that the search does not find itself.
const MASK: u8 = 0x5a;

/// Tokens that no other test has.
fn prompt(salt: u32) -> Vec<Token> {
    (0..LENGTH).map(|at| Token(300 + (at * 53 + salt) % 700)).collect()
}

fn fill(asid: u16, salt: u32) -> Row {
    Row { sample: false, tokens: prompt(salt).into(), ..row(asid, 0, &[]) }
}

/// What to look for: the keys of a sequence's last entry in the last layer, which depend on all tokens before it.
struct Trace(Vec<u8>);

impl Trace {
    fn of(driver: &mut dyn Driver, deterministic: bool, host: &File, asid: u16) -> Trace {
        let page = PageLabel { from: LENGTH - 1, to: LENGTH, digest: 1, owner: PageOwner::User(7) };
        let ops = vec![Op::Save { asid: Asid(asid), page, slot: Slot::Host(0) }];
        let done = driver.step(&Step { number: 1, ops, rows: vec![] }).unwrap();
        assert!(done.pages[0].is_ok(), "{:?}", done.pages);
        // In front of the entries of a deterministic mount stand its tokens.
        let begin = HEADER_BYTES + if deterministic { size_of::<u32>() } else { 0 };
        let mut state = vec![0; host.metadata().unwrap().len() as usize - begin];
        host.read_exact_at(&mut state, begin as u64).unwrap();
        let keys = Blank::of(&state).expect("it is in the form that is known").last_keys(LAYERS);
        let masked = state[keys].iter().map(|byte| byte ^ MASK).collect();
        state.fill(0);
        Trace(std::hint::black_box(masked))
    }

    /// How often it is in the memory of this process.
    fn count(&self) -> usize {
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut buffer = vec![0; 1 << 20];
        let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
        let mut count = 0;
        for map in maps.lines().filter(|map| map.split(' ').nth(1).is_some_and(|may| may.starts_with("rw"))) {
            let (from, to) = map.split(' ').next().unwrap().split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            let (mut at, to) = (address(from), address(to));
            while at + (self.0.len() as u64) < to {
                let bytes = buffer.len().min((to - at) as usize);
                // Another test may have given it back meanwhile.
                let Ok(read) = memory.read_at(&mut buffer[..bytes], at) else { break };
                count +=
                    self.places(&buffer[..read]).filter(|place| !own.contains(&(at + *place as u64))).count();
                if read < self.0.len() {
                    break;
                }
                // It may lie across the end of what was read.
                at += (read - self.0.len() + 1) as u64;
            }
        }
        buffer.fill(0);
        count
    }

    fn places<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let is_here = |at: &usize| std::iter::zip(&bytes[*at..], &self.0).all(|(a, b)| *a == b ^ MASK);
        (0..bytes.len().saturating_sub(self.0.len() - 1)).filter(is_here)
    }
}

fn check(attention: Attention, deterministic: bool, salt: u32) {
    let path = random_model("tiny");
    let host = tempfile::tempfile().unwrap();
    let host_fd = Some(host.try_clone().unwrap().into_raw_fd());
    let swap = Some(SwapArea { host_fd, disk_fd: None });
    let mut driver = load(&LoadRequest { swap, attention, deterministic, ..request(&path) }).unwrap();
    let driver = driver.as_mut();
    // Another sequence stays, and goes on as if nothing had been.
    assert_eq!(run(driver, vec![], vec![fill(1, salt + 1)]), [RowDone::Computed]);
    assert_eq!(run(driver, vec![], vec![fill(0, salt)]), [RowDone::Computed]);
    let trace = Trace::of(driver, deterministic, &host, 0);
    run(driver, vec![Op::Drop { asid: Asid(0), from: 0 }], vec![]);
    assert!(trace.count() > 0, "what is given up lies about until then");
    run(driver, vec![Op::Clear], vec![]);
    assert_eq!(trace.count(), 0);
    let mut untouched = load(&LoadRequest { attention, deterministic, ..request(&path) }).unwrap();
    assert_eq!(run(untouched.as_mut(), vec![], vec![fill(1, salt + 1)]), [RowDone::Computed]);
    let go_on = |driver: &mut dyn Driver| {
        let open = Op::SamplerOpen { asid: Asid(1), sampler: spec(sampling(|_| {})).into() };
        sampled(run(driver, vec![open], vec![row(1, LENGTH, &[5])]).remove(0)).token
    };
    assert_eq!(go_on(driver), go_on(untouched.as_mut()));
    // With nobody left there is nothing to work around.
    run(driver, vec![Op::Drop { asid: Asid(1), from: 0 }, Op::Clear], vec![]);
}

#[test]
fn entries_given_up_are_nowhere_after_the_pool_was_cleared() {
    check(Attention::Plain, false, 11);
    check(Attention::Flash, false, 222);
}

#[test]
fn entries_given_up_by_a_deterministic_mount_are_nowhere_after_it_was_cleared() {
    check(Attention::Plain, true, 3333);
}

#[test]
fn pool_without_a_free_cell_has_nothing_to_clear() {
    let request = LoadRequest { context_tokens: Some(256), ..request(&random_model("tiny")) };
    let mut driver = load(&request).unwrap();
    let driver = driver.as_mut();
    let whole = Row { sample: false, ..row(0, 0, &[41; 256]) };
    assert_eq!(driver.description().pool_tokens, 256);
    assert_eq!(run(driver, vec![], vec![whole]), [RowDone::Computed]);
    run(driver, vec![Op::Clear], vec![]);
    let drop = Op::Drop { asid: Asid(0), from: 255 };
    let last = Row { sample: false, ..row(0, 255, &[41]) };
    assert_eq!(run(driver, vec![drop, Op::Clear], vec![last]), [RowDone::Computed]);
}

#[test]
fn sequences_that_are_taken_out_to_clear_the_rest_go_on_as_before() {
    let path = random_model("tiny");
    let (model, settings) = bare(&path, 4);
    let next = |rewritten: bool| {
        let mut context = Context::new(&model, &settings).unwrap();
        for (sequence, salt) in [(0, 44), (1, 55)] {
            context.batch().clear();
            context.batch().add(sequence, 0, &prompt(salt), Output::None);
            context.decode().unwrap();
        }
        context.drop_from(Asid(0), 0);
        assert!(!rewritten || context.rewrite());
        context.batch().clear();
        let place = context.batch().add(1, LENGTH, &[Token(5)], Output::Last);
        context.decode().unwrap();
        context.logits(place).unwrap().to_vec()
    };
    let (as_before, rewritten) = (next(false), next(true));
    // Cells lie elsewhere, so sums have another order.
    let far = std::iter::zip(&as_before, &rewritten).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-2, "logits differ by up to {far}");
}
