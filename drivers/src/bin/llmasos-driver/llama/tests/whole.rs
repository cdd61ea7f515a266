//! Models whose sequences are kept or lost as a whole: a recurrent one, one with sliding windows, and a hybrid.
//!
//! Weights are floats here. Rows of other sequences change how sums are rounded, and quantised weights would make more
//! of that than these comparisons of tokens can do with.

use std::os::fd::IntoRawFd;

use drivers::gguf::TensorType;
use drivers::gguf::random::{Family, WINDOW};

use super::*;

/// The recurrent one, the one with windows, and the hybrid.
const FAMILIES: [Family; 3] = [Family::Mamba, Family::Gemma2, Family::Jamba];

/// Tokens of a prompt that goes past the window several times.
const LONG: u32 = 5 * WINDOW;

/// The model of a family, in a folder that is there as long as this.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn new(family: Family, tied: bool) -> Made {
        let made = Made { folder: tempfile::tempdir().unwrap() };
        let shape = Shape { kind: TensorType::F32, tied, ..Shape::preset("tiny").unwrap().of(family) };
        shape.write(&made.path()).unwrap();
        made
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    fn mounted(&self) -> Box<dyn Driver> {
        mounted(&self.path())
    }

    /// What comes behind these tokens in an empty worker.
    fn alone(&self, prompt: &[Token], count: usize) -> Vec<Token> {
        generate(self.mounted().as_mut(), &[(prompt.to_vec(), greedy())], count).remove(0)
    }
}

fn greedy() -> SamplerSpec {
    spec(sampling(|_| {}))
}

/// So many tokens; those of two seeds are other ones at every position.
fn prompt(seed: u32, length: u32) -> Vec<Token> {
    (0..length).map(|at| Token(300 + (at * 37 + seed * 101) % 700)).collect()
}

/// Computes tokens at the end of a sequence without choosing one.
fn compute(driver: &mut dyn Driver, asid: u16, position: u32, tokens: &[Token]) {
    let row = Row { sample: false, tokens: tokens.into(), ..row(asid, position, &[]) };
    assert_eq!(run(driver, vec![], vec![row]), [RowDone::Computed]);
}

/// Goes on with several sequences in the same steps, each behind so many tokens with one more.
fn go_on(driver: &mut dyn Driver, from: &[(u16, u32, Token)], count: usize) -> Vec<Vec<Token>> {
    let open =
        |(asid, ..): &(u16, u32, Token)| Op::SamplerOpen { asid: Asid(*asid), sampler: greedy().into() };
    let mut ops: Vec<Op> = from.iter().map(open).collect();
    let (mut last, mut out) = (from.to_vec(), vec![Vec::new(); from.len()]);
    for _ in 0..count {
        let rows = last.iter().map(|(asid, position, token)| row(*asid, *position, &[token.0])).collect();
        for (at, done) in run(driver, std::mem::take(&mut ops), rows).into_iter().enumerate() {
            let token = sampled(done).token;
            out[at].push(token);
            last[at] = (last[at].0, last[at].1 + 1, token);
        }
    }
    out
}

fn with(prompt: &[Token], token: Token) -> Vec<Token> {
    [prompt, &[token]].concat()
}

#[test]
fn models_that_cannot_be_cut_say_so_and_have_no_pages_guesses_or_withdrawals() {
    for family in FAMILIES {
        let made = Made::new(family, true);
        let driver = made.mounted();
        let said = driver.description();
        assert!(said.generates && !said.ranges && !said.drafts, "{said:?}");
        assert_eq!((said.architecture.as_str(), said.page_bytes), (family.name(), 0));
        assert!(said.pool_bytes > 0, "what it keeps of sequences is counted: {said:?}");
        assert!(driver.withdrawal().is_none(), "a pass runs to its end: nothing could be taken back");
        let deterministic = LoadRequest { deterministic: true, ..request(&made.path()) };
        assert_eq!(load(&deterministic).err().unwrap().errno, Errno::ENOSYS);
    }
}

#[test]
fn sequences_in_one_step_say_what_each_says_alone() {
    for family in FAMILIES {
        let made = Made::new(family, true);
        let lengths = [5, LONG, 1, 40, LONG + 7, 64];
        let prompts: Vec<_> =
            std::iter::zip(1.., lengths).map(|(seed, length)| prompt(seed, length)).collect();
        let jobs: Vec<_> = prompts.iter().map(|prompt| (prompt.clone(), greedy())).collect();
        let together = generate(made.mounted().as_mut(), &jobs, 40);
        for (prompt, said) in prompts.iter().zip(&together) {
            assert_eq!(said, &made.alone(prompt, 40), "{family:?}, behind {} tokens", prompt.len());
        }
    }
}

#[test]
fn what_stands_far_back_shows_in_what_is_said() {
    // Otherwise none of these tests could tell a lost state from one that was kept.
    for family in FAMILIES {
        let made = Made::new(family, true);
        let end = prompt(1, 12);
        let said = [2, 3].map(|seed| made.alone(&[prompt(seed, 60), end.clone()].concat(), 16));
        assert_ne!(said[0], said[1], "{family:?}");
        assert_ne!(said[0], made.alone(&end, 16), "{family:?}");
    }
}

#[test]
fn prompt_computed_in_parts_is_that_of_one_piece() {
    for family in FAMILIES {
        let made = Made::new(family, true);
        let whole = prompt(4, LONG);
        let expected = made.alone(&whole, 16);
        let mut driver = made.mounted();
        let (last, parts) = whole.split_last().unwrap();
        let mut position = 0;
        for part in parts.chunks(23) {
            compute(driver.as_mut(), 0, position, part);
            position += part.len() as u32;
        }
        assert_eq!(go_on(driver.as_mut(), &[(0, position, *last)], 16)[0], expected, "{family:?}");
    }
}

#[test]
fn copies_of_a_whole_sequence_go_on_as_if_computed_again() {
    for family in FAMILIES {
        for length in [WINDOW / 2, LONG] {
            let made = Made::new(family, true);
            let (mut driver, begun) = (made.mounted(), prompt(5, length));
            compute(driver.as_mut(), 0, 0, &begun);
            let share = |to| Op::Share { from: Asid(0), to: Asid(to), length };
            run(driver.as_mut(), vec![share(1), share(2)], vec![]);
            let next = [Token(310), Token(477), Token(310)];
            let expected = next.map(|token| made.alone(&with(&begun, token), 40));
            // One goes on beside the sequence that it was copied from, and one when this is gone.
            let said = go_on(driver.as_mut(), &[(0, length, next[0]), (1, length, next[1])], 40);
            assert_eq!(said, expected[..2], "{family:?}, {length} tokens");
            run(driver.as_mut(), vec![Op::Drop { asid: Asid(0), from: 0 }], vec![]);
            let said = go_on(driver.as_mut(), &[(2, length, next[2])], 40);
            assert_eq!(said, expected[2..], "{family:?}, {length} tokens");
        }
    }
}

#[test]
fn cutting_a_sequence_is_refused_and_leaves_it_as_it_was() {
    for family in FAMILIES {
        let made = Made::new(family, true);
        let (mut driver, begun) = (made.mounted(), prompt(6, LONG));
        compute(driver.as_mut(), 0, 0, &begun);
        let page = PageLabel { from: 0, to: 64, digest: 1, owner: PageOwner::User(7) };
        let slot = Slot::Host(0);
        let ops = [
            Op::Drop { asid: Asid(0), from: LONG - 1 },
            Op::Share { from: Asid(0), to: Asid(1), length: LONG - 1 },
            Op::Save { asid: Asid(0), page, slot },
            Op::Load { asid: Asid(1), page, slot },
        ];
        for op in ops {
            let step = Step { number: 1, ops: vec![op.clone()], rows: vec![] };
            assert_eq!(driver.step(&step).unwrap_err().errno, Errno::EINVAL, "{family:?}: {op:?}");
        }
        let ops = vec![Op::SamplerOpen { asid: Asid(0), sampler: greedy().into() }];
        let rows = vec![Row { draft: tokens(&[310]), ..row(0, LONG, &[310]) }];
        let fault = driver.step(&Step { number: 1, ops, rows }).unwrap_err();
        assert_eq!(fault.errno, Errno::EINVAL, "{family:?}: a guess could not be taken back");
        let said = go_on(driver.as_mut(), &[(0, LONG, Token(310))], 16);
        assert_eq!(said[0], made.alone(&with(&begun, Token(310)), 16), "{family:?}");
    }
}

#[test]
fn sequences_that_come_and_go_in_a_small_pool_change_no_other() {
    // llama.cpp puts new entries where those of others have left their windows.
    for family in FAMILIES {
        let made = Made::new(family, true);
        let mut driver = load(&LoadRequest { context_tokens: Some(512), ..request(&made.path()) }).unwrap();
        let begun = [prompt(7, LONG), prompt(8, 20)];
        for (asid, begun) in begun.iter().enumerate() {
            compute(driver.as_mut(), asid as u16, 0, begun);
        }
        let next = [Token(310), Token(311)];
        let expected = [0, 1].map(|at| made.alone(&with(&begun[at], next[at]), 96));
        let mut from = [(0, LONG, next[0]), (1, 20, next[1])];
        for turn in 0..12 {
            compute(driver.as_mut(), 2, 0, &prompt(20 + turn, 130));
            for (at, said) in go_on(driver.as_mut(), &from, 8).into_iter().enumerate() {
                let begin = 8 * turn as usize;
                assert_eq!(said, expected[at][begin..begin + 8], "{family:?}, sequence {at}, turn {turn}");
                from[at] = (from[at].0, from[at].1 + 8, said[7]);
            }
            run(driver.as_mut(), vec![Op::Drop { asid: Asid(2), from: 0 }], vec![]);
        }
    }
}

#[test]
fn clearing_what_is_free_changes_no_sequence_and_no_copy() {
    for family in FAMILIES {
        let made = Made::new(family, true);
        let (mut driver, begun) = (made.mounted(), [prompt(9, LONG), prompt(10, 30)]);
        compute(driver.as_mut(), 3, 0, &prompt(11, 50));
        compute(driver.as_mut(), 0, 0, &begun[0]);
        compute(driver.as_mut(), 5, 0, &begun[1]);
        let ops = vec![
            Op::Share { from: Asid(0), to: Asid(1), length: LONG },
            Op::Drop { asid: Asid(3), from: 0 },
            Op::Clear,
        ];
        run(driver.as_mut(), ops, vec![]);
        let from = [(0, LONG, Token(310)), (1, LONG, Token(477)), (5, 30, Token(310))];
        let expected =
            [(0, 310), (0, 477), (1, 310)].map(|(at, token)| made.alone(&with(&begun[at], Token(token)), 24));
        assert_eq!(go_on(driver.as_mut(), &from, 24), expected, "{family:?}");
        let all = [0, 1, 5].map(|asid| Op::Drop { asid: Asid(asid), from: 0 });
        run(driver.as_mut(), [all.to_vec(), vec![Op::Clear]].concat(), vec![]);
        let again = generate(driver.as_mut(), &[(begun[1].clone(), greedy())], 8).remove(0);
        assert_eq!(again, made.alone(&begun[1], 8), "{family:?}");
    }
}

#[test]
fn pool_of_another_size_serves_the_same() {
    for family in FAMILIES {
        let made = Made::new(family, true);
        let (mut driver, begun) = (made.mounted(), prompt(12, LONG));
        let expected = made.alone(&begun, 8);
        for tokens in [256, 1024] {
            let ops = vec![Op::Drop { asid: Asid(0), from: 0 }, Op::Resize { tokens }];
            let done = driver.step(&Step { number: 1, ops, rows: vec![] }).unwrap();
            assert!(done.pages[0].is_ok(), "{family:?}: {:?}", done.pages);
            let again = generate(driver.as_mut(), &[(begun.clone(), greedy())], 8).remove(0);
            assert_eq!(again, expected, "{family:?}, in a pool of {tokens}");
        }
    }
}

/// A token whose embedding is no number, so that no output behind it is one.
pub(super) const POISON: Token = Token(299);

/// Puts what is no number into a model whose output layer is another table.
pub(super) fn poison(path: &Path) {
    let header = drivers::gguf::open(path).unwrap();
    let table = header.tensor("token_embd.weight").unwrap();
    let row_bytes = table.dimensions[0] * size_of::<f32>() as u64;
    let at = header.data_offset + table.offset + u64::from(POISON.0) * row_bytes;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let row = f32::NAN.to_le_bytes().repeat(table.dimensions[0] as usize);
    std::os::unix::fs::FileExt::write_all_at(&file, &row, at).unwrap();
}

#[test]
fn row_without_a_choice_leaves_nothing_for_others_to_find() {
    // Gemma 2 has one table for both ends.
    for family in [Family::Llama, Family::Mamba, Family::Jamba] {
        let made = Made::new(family, false);
        poison(&made.path());
        let (mut driver, begun) = (made.mounted(), prompt(13, 70));
        let expected = made.alone(&with(&begun, Token(310)), 12);
        compute(driver.as_mut(), 0, 0, &begun);
        compute(driver.as_mut(), 1, 0, &begun);
        let open = |asid| Op::SamplerOpen { asid: Asid(asid), sampler: greedy().into() };
        let done = run(driver.as_mut(), vec![open(0)], vec![row(0, 70, &[310, POISON.0])]);
        assert!(
            matches!(&done[0], RowDone::Failed(fault) if fault.errno == Errno::EIO),
            "{family:?}: {done:?}"
        );
        let said = go_on(driver.as_mut(), &[(1, 70, Token(310))], 12).remove(0);
        assert_eq!(said, expected, "{family:?}: another one goes on");

        // What can be cut is as it was, anything else is empty and begins again; so does somebody new.
        if !driver.description().ranges {
            compute(driver.as_mut(), 0, 0, &begun);
        }
        compute(driver.as_mut(), 2, 0, &begun);
        let from = [(0, 70, Token(310)), (2, 70, Token(310))];
        let said = go_on(driver.as_mut(), &from, 12);
        assert_eq!(said, [expected.clone(), expected], "{family:?}");
    }
}

#[test]
fn row_without_a_choice_fails_under_a_grammar_and_is_no_end() {
    let made = Made::new(Family::Llama, false);
    poison(&made.path());
    let mut driver = made.mounted();
    let rules = sampling(|s| s.grammar = Some("root ::= [a-z ]*".into()));
    let sampler = SamplerSpec { ignore_eos: false, ..spec(rules) };
    let ops = vec![Op::SamplerOpen { asid: Asid(0), sampler: sampler.into() }];
    let done = run(driver.as_mut(), ops, vec![row(0, 0, &[310, POISON.0])]);
    assert!(matches!(&done[0], RowDone::Failed(fault) if fault.errno == Errno::EIO), "{done:?}");
}

#[test]
fn row_without_a_choice_takes_its_state_along_and_no_row_beside_it() {
    let made = Made::new(Family::Mamba, false);
    poison(&made.path());
    let (mut driver, begun) = (made.mounted(), prompt(15, 70));
    let expected = made.alone(&with(&begun, Token(310)), 12);
    compute(driver.as_mut(), 0, 0, &begun);
    compute(driver.as_mut(), 1, 0, &begun);
    let open = |asid| Op::SamplerOpen { asid: Asid(asid), sampler: greedy().into() };
    let rows = vec![row(0, 70, &[310, POISON.0]), row(1, 70, &[310])];
    let mut done = run(driver.as_mut(), vec![open(0), open(1)], rows);
    let said = vec![sampled(done.remove(1)).token];
    assert!(matches!(&done[0], RowDone::Failed(fault) if fault.errno == Errno::EIO), "{done:?}");
    let more = go_on(driver.as_mut(), &[(1, 71, said[0])], 11).remove(0);
    assert_eq!([said, more].concat(), expected);
    let again = generate(driver.as_mut(), &[(with(&begun, Token(310)), greedy())], 12).remove(0);
    assert_eq!(again, expected, "the sequence is empty and begins anew");
}

#[test]
fn swap_area_of_a_model_without_pages_stays_empty() {
    for family in FAMILIES {
        let made = Made::new(family, true);
        let (host, disk) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let handed = |file: &std::fs::File| Some(file.try_clone().unwrap().into_raw_fd());
        let swap = Some(SwapArea { host_fd: handed(&host), disk_fd: handed(&disk) });
        let mut driver = load(&LoadRequest { swap, ..request(&made.path()) }).unwrap();
        let said = generate(driver.as_mut(), &[(prompt(14, LONG), greedy())], 4).remove(0);
        assert_eq!(said, made.alone(&prompt(14, LONG), 4));
        assert_eq!(driver.description().saved, Default::default());
        assert_eq!(host.metadata().unwrap().len(), 0, "{family:?}");
    }
}
