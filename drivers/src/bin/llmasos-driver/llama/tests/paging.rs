//! Pages that leave the pool and come back, and pools of another size.

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;

use drivers::wire::SWAP_SLOTS_AT;

use super::*;

const PROMPT: u32 = 150;
const OWNER: PageOwner = PageOwner::User(7);

fn prompt() -> Vec<Token> {
    (0..PROMPT).map(|at| Token(40 + at * 37 % 200)).collect()
}

/// The pages of the prompt, the last one in part.
fn pages() -> [PageLabel; 3] {
    [(0, 64), (64, 128), (128, PROMPT)].map(|(from, to)| PageLabel {
        from,
        to,
        digest: u128::from(to) << 80,
        owner: OWNER,
    })
}

const SLOTS: [Slot; 3] = [Slot::Host(5), Slot::Disk(0), Slot::Host(2)];

/// The two files of a swap area, held beside the driver.
struct Area {
    host: File,
    disk: File,
}

impl Area {
    fn new() -> Area {
        Area { host: tempfile::tempfile().unwrap(), disk: tempfile::tempfile().unwrap() }
    }

    fn mount(&self, path: &Path, change: impl FnOnce(&mut LoadRequest)) -> Box<dyn Driver> {
        let handed = |file: &File| Some(file.try_clone().unwrap().into_raw_fd());
        let swap = Some(SwapArea { host_fd: handed(&self.host), disk_fd: handed(&self.disk) });
        let mut request = LoadRequest { swap, ..request(path) };
        change(&mut request);
        load(&request).unwrap()
    }
}

fn run_whole(driver: &mut dyn Driver, ops: Vec<Op>, rows: Vec<Row>) -> StepDone {
    driver.step(&Step { number: 1, ops, rows }).unwrap()
}

/// Computes the prompt in sequence 0, saves its pages and drops it.
fn save_prompt(driver: &mut dyn Driver) {
    let whole = Row { sample: false, tokens: prompt().into(), ..row(0, 0, &[]) };
    assert_eq!(run(driver, vec![Op::Drop { asid: Asid(0), from: 0 }], vec![whole]), [RowDone::Computed]);
    let saves = std::iter::zip(pages(), SLOTS).map(|(page, slot)| Op::Save { asid: Asid(0), page, slot });
    let ops = saves.chain([Op::Drop { asid: Asid(0), from: 0 }]).collect();
    let done = run_whole(driver, ops, vec![]);
    assert!(done.pages.len() == 3 && done.pages.iter().all(Result::is_ok), "{:?}", done.pages);
}

fn load_ops(asid: u16) -> Vec<Op> {
    let load = |(page, slot)| Op::Load { asid: Asid(asid), page, slot };
    std::iter::zip(pages(), SLOTS).map(load).collect()
}

/// Goes on behind a prompt whose entries are there.
fn go_on(driver: &mut dyn Driver, asid: u16, count: usize) -> Vec<Token> {
    let mut ops = vec![
        Op::Drop { asid: Asid(asid), from: PROMPT - 1 },
        Op::SamplerOpen { asid: Asid(asid), sampler: spec(sampling(|_| {})).into() },
    ];
    let (mut position, mut last, mut out) = (PROMPT - 1, prompt()[PROMPT as usize - 1], Vec::new());
    while out.len() < count {
        let done = run(driver, std::mem::take(&mut ops), vec![row(asid, position, &[last.0])]).remove(0);
        (position, last) = (position + 1, sampled(done).token);
        out.push(last);
    }
    out
}

#[test]
fn pages_saved_and_loaded_anywhere_go_on_as_if_they_had_stayed() {
    let path = random_model("tiny");
    for attention in [Attention::Plain, Attention::Flash] {
        let area = Area::new();
        let mut driver = area.mount(&path, |request| request.attention = attention);
        let expected = generate(driver.as_mut(), &[(prompt(), spec(sampling(|_| {})))], 8).remove(0);
        save_prompt(driver.as_mut());
        let between = Row { sample: false, ..row(1, 0, &[50; 40]) };
        run(driver.as_mut(), vec![], vec![between.clone()]);
        let done = run_whole(driver.as_mut(), load_ops(2), vec![]);
        assert!(done.pages.iter().all(Result::is_ok), "{:?}", done.pages);
        assert_eq!(
            go_on(driver.as_mut(), 2, 8),
            expected,
            "{attention:?}, in another place of the same pool"
        );

        let mut other = area.mount(&path, |request| request.attention = attention);
        run(other.as_mut(), vec![], vec![between]);
        let mut ops = load_ops(3);
        ops.push(Op::Share { from: Asid(3), to: Asid(4), length: PROMPT });
        assert!(run_whole(other.as_mut(), ops, vec![]).pages.iter().all(Result::is_ok));
        assert_eq!(go_on(other.as_mut(), 3, 8), expected, "{attention:?}, in another worker");
        assert_eq!(go_on(other.as_mut(), 4, 8), expected, "{attention:?}, shared after it was loaded");
    }
}

#[test]
fn pages_are_as_large_as_the_description_says() {
    let area = Area::new();
    let mut driver = area.mount(&random_model("tiny"), |_| {});
    save_prompt(driver.as_mut());
    let said = driver.description().page_bytes;
    let used = area.disk.metadata().unwrap().len() - SWAP_SLOTS_AT;
    assert_eq!(used, said, "the disk's slot 0 has a whole page");
    let mut magic = [0; 6];
    area.host.read_exact_at(&mut magic, 5 * said.next_multiple_of(4096)).unwrap();
    assert_eq!(&magic, b"llmpag");
}

#[test]
fn damaged_page_fails_alone_and_leaves_the_sequence_as_it_was() {
    let area = Area::new();
    let mut driver = area.mount(&random_model("tiny"), |_| {});
    save_prompt(driver.as_mut());
    let mut byte = [0];
    area.disk.read_exact_at(&mut byte, SWAP_SLOTS_AT + 1000).unwrap();
    area.disk.write_all_at(&[byte[0] ^ 1], SWAP_SLOTS_AT + 1000).unwrap();
    let mut ops = load_ops(2);
    ops.push(Op::Share { from: Asid(2), to: Asid(3), length: PROMPT });
    ops.push(Op::Move { from: Slot::Disk(0), to: Slot::Host(0) });
    ops.push(Op::Move { from: Slot::Host(5), to: Slot::Disk(7) });
    let computed = Row { sample: false, ..row(0, 0, &[40]) };
    let missing = Row { sample: false, ..row(3, PROMPT, &[40]) };
    let done = run_whole(driver.as_mut(), ops, vec![computed, missing]);
    let failed: Vec<bool> = done.pages.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, true, true, false], "{:?}", done.pages);
    let fault = done.pages[1].clone().unwrap_err();
    assert!(fault.errno == Errno::EIO && fault.message.contains("damaged"), "{fault}");
    assert_eq!(done.rows[0], RowDone::Computed);
    assert!(matches!(&done.rows[1], RowDone::Failed(fault) if fault.errno == Errno::EIO), "{done:?}");
    // The first page is there, and the rest can be computed behind it.
    let expected = generate(
        area.mount(&random_model("tiny"), |_| {}).as_mut(),
        &[(prompt(), spec(sampling(|_| {})))],
        8,
    );
    let rest = Row { sample: false, tokens: prompt()[64..].into(), ..row(2, 64, &[]) };
    assert_eq!(run(driver.as_mut(), vec![], vec![rest]), [RowDone::Computed]);
    assert_eq!(go_on(driver.as_mut(), 2, 8), expected[0]);
}

#[test]
fn page_of_another_model_or_sequence_is_not_loaded() {
    let area = Area::new();
    save_prompt(area.mount(&random_model("tiny"), |_| {}).as_mut());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    Shape { seed: 99, ..Shape::preset("tiny").unwrap() }.write(&path).unwrap();
    let mut other = area.mount(&path, |_| {});
    let load = |page, slot| vec![Op::Load { asid: Asid(0), page, slot }];
    let fault_of = |driver: &mut dyn Driver, ops| run_whole(driver, ops, vec![]).pages.remove(0).unwrap_err();
    let fault = fault_of(other.as_mut(), load(pages()[0], SLOTS[0]));
    assert!(fault.errno == Errno::EIO && fault.message.contains("another model"), "{fault}");
    let mut same = area.mount(&random_model("tiny"), |_| {});
    let fault = fault_of(same.as_mut(), load(PageLabel { digest: 1, ..pages()[0] }, SLOTS[0]));
    assert!(fault.errno == Errno::EIO && fault.message.contains("another one"), "{fault}");
    let fault = fault_of(same.as_mut(), load(pages()[0], Slot::Host(99)));
    assert!(fault.errno == Errno::EIO && fault.message.contains("no page"), "{fault}");
    assert_eq!(run_whole(same.as_mut(), load(pages()[0], SLOTS[0]), vec![]).pages.len(), 1);
}

#[test]
fn page_that_finds_no_room_fails_and_is_loaded_when_there_is_some() {
    let area = Area::new();
    let mut driver = area.mount(&random_model("tiny"), |request| request.context_tokens = Some(256));
    save_prompt(driver.as_mut());
    let most = Row { sample: false, ..row(1, 0, &[50; 200]) };
    run(driver.as_mut(), vec![], vec![most]);
    let load = |asid| Op::Load { asid: Asid(asid), page: pages()[0], slot: SLOTS[0] };
    let done = run_whole(driver.as_mut(), vec![load(2)], vec![]);
    assert!(matches!(&done.pages[0], Err(fault) if fault.errno == Errno::ENOMEM), "{done:?}");
    let ops = vec![Op::Drop { asid: Asid(1), from: 0 }, load(2)];
    assert!(run_whole(driver.as_mut(), ops, vec![]).pages[0].is_ok());
}

#[test]
fn full_disk_fails_the_save_and_nothing_else() {
    let full = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let area = Area { host: tempfile::tempfile().unwrap(), disk: full };
    let mut driver = area.mount(&random_model("tiny"), |_| {});
    let whole = Row { sample: false, tokens: prompt().into(), ..row(0, 0, &[]) };
    run(driver.as_mut(), vec![], vec![whole]);
    let save = |slot| Op::Save { asid: Asid(0), page: pages()[0], slot };
    let done = run_whole(driver.as_mut(), vec![save(Slot::Disk(0)), save(Slot::Host(0))], vec![]);
    assert!(matches!(&done.pages[0], Err(fault) if fault.message.contains("No space left")), "{done:?}");
    assert!(done.pages[1].is_ok());
    let without = LoadRequest { swap: None, ..request(&random_model("tiny")) };
    let mut without = load(&without).unwrap();
    run(without.as_mut(), vec![], vec![Row { sample: false, tokens: prompt().into(), ..row(0, 0, &[]) }]);
    let done = run_whole(without.as_mut(), vec![save(Slot::Host(0))], vec![]);
    assert!(matches!(&done.pages[0], Err(fault) if fault.message.contains("no swap file")), "{done:?}");
}

#[test]
fn paging_that_breaks_the_contract_is_refused() {
    let mut driver = Area::new().mount(&random_model("tiny"), |_| {});
    run(driver.as_mut(), vec![], vec![Row { sample: false, ..row(0, 0, &[40; 70]) }]);
    let page = |from, to| PageLabel { from, to, digest: 0, owner: OWNER };
    let save = |page| vec![Op::Save { asid: Asid(0), page, slot: Slot::Host(0) }];
    let load = |asid, page| vec![Op::Load { asid: Asid(asid), page, slot: Slot::Host(0) }];
    let bad = [
        save(page(0, 65)),
        save(page(1, 64)),
        save(page(64, 64)),
        save(page(64, 71)),
        load(0, page(0, 64)),
        load(0, page(64, 128)),
        load(1, page(64, 128)),
        load(u16::MAX, page(0, 64)),
        vec![Op::Resize { tokens: 256 }],
        vec![Op::Drop { asid: Asid(0), from: 0 }, Op::Resize { tokens: 0 }],
        vec![Op::Drop { asid: Asid(0), from: 0 }, Op::Resize { tokens: 65 }],
    ];
    for ops in bad {
        let step = Step { number: 1, ops: ops.clone(), rows: vec![] };
        assert_eq!(driver.step(&step).unwrap_err().errno, Errno::EINVAL, "{ops:?}");
    }
    let rows = vec![Row { sample: false, ..row(1, 64, &[40]) }];
    let step = Step { number: 1, ops: load(1, page(0, 64)), rows };
    assert_eq!(driver.step(&step).unwrap_err().errno, Errno::EINVAL, "a row behind a page");
}

#[test]
fn pool_is_as_large_as_it_is_made() {
    let path = random_model("tiny");
    let mut driver = load(&LoadRequest { context_tokens: Some(1024), ..request(&path) }).unwrap();
    let prompt = tokens(&[40, 50, 60]);
    let expected = generate(driver.as_mut(), &[(prompt.clone(), spec(sampling(|_| {})))], 6);
    let before = driver.description().clone();
    let empty = || [0, 1].map(|asid| Op::Drop { asid: Asid(asid), from: 0 }).to_vec();
    let half = |asid, tokens: u32| Row { sample: false, ..row(asid, 0, &vec![40; tokens as usize / 2]) };
    for tokens in [320, 2048, 128] {
        let ops = [empty(), vec![Op::Resize { tokens }]].concat();
        let done = run_whole(driver.as_mut(), ops, vec![half(0, tokens)]);
        assert!(done.pages[0].is_ok() && done.rows == [RowDone::Computed], "{done:?}");
        assert_eq!(run(driver.as_mut(), vec![], vec![half(1, tokens)]), [RowDone::Computed]);
        let more = run(driver.as_mut(), vec![], vec![half(2, 2)]);
        assert!(matches!(&more[0], RowDone::Failed(fault) if fault.errno == Errno::ENOMEM), "{more:?}");
        assert_eq!(driver.description().pool_tokens, tokens);
        run(driver.as_mut(), empty(), vec![]);
        let again = generate(driver.as_mut(), &[(prompt.clone(), spec(sampling(|_| {})))], 6);
        assert_eq!(again, expected, "in a pool of {tokens}");
    }
    assert!(driver.description().pool_bytes < before.pool_bytes, "{:?}", driver.description());
    assert_eq!(driver.description().context_tokens, before.context_tokens);
}
