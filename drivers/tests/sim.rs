//! The sim driver keeps the driver's contract, and notices when a kernel does not.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use drivers::Driver;
use drivers::sim::{EOS, IM_END, SimDriver, UnitClock, load_with};
use drivers::wire::{
    Asid, ChatRequest, DriverFault, Grammar, LoadRequest, Op, PageLabel, PageOwner, Row, RowDone, Sampled,
    SamplerSpec, SamplingSpec, Slot, Step, TokenizeRequest,
};
use syscalls::call::{Attention, Message, Sampling};
use syscalls::{Errno, Token};

fn try_mount(script: &str) -> Result<SimDriver, DriverFault> {
    let request = LoadRequest {
        path: format!("sim:{script}"),
        context_tokens: None,
        sequences_max: 8,
        attention: Attention::Auto,
        gpu_layers: None,
        threads: None,
        cache_dir: None,
        ..LoadRequest::default()
    };
    load_with(&request, Arc::new(UnitClock))
}

fn mount(script: &str) -> SimDriver {
    try_mount(script).unwrap()
}

fn tokens(text: &str) -> Vec<Token> {
    text.bytes().map(|byte| Token(byte.into())).collect()
}

fn greedy() -> SamplerSpec {
    let sampling = SamplingSpec::new(&Sampling { temperature: 0.0, ..Sampling::default() }, 7);
    SamplerSpec { sampling, history: Vec::new(), generated: Vec::new(), ignore_eos: false, logprobs: None }
}

fn warm(seed: u64) -> SamplerSpec {
    SamplerSpec { sampling: SamplingSpec::new(&Sampling::default(), seed), ..greedy() }
}

fn open(asid: u16, sampler: SamplerSpec) -> Op {
    Op::SamplerOpen { asid: Asid(asid), sampler: Box::new(sampler) }
}

fn row(asid: u16, position: usize, tokens: Vec<Token>, sample: bool) -> Row {
    Row { asid: Asid(asid), position: position as u32, tokens: tokens.into(), sample, draft: vec![] }
}

fn run(driver: &mut SimDriver, ops: Vec<Op>, rows: Vec<Row>) -> Vec<RowDone> {
    driver.step(&Step { number: 1, ops, rows }).unwrap().rows
}

fn sampled(done: &RowDone) -> &Sampled {
    match done {
        RowDone::Sampled(sampled) => &sampled[0],
        other => panic!("nothing was sampled: {other:?}"),
    }
}

/// Prefills a prompt into an empty sequence and generates up to `count` tokens.
fn generate(
    driver: &mut SimDriver,
    asid: u16,
    prompt: &str,
    sampler: SamplerSpec,
    count: usize,
) -> Vec<Token> {
    let mut feed = tokens(prompt);
    let mut ops = vec![open(asid, sampler)];
    let mut position = driver.held(Asid(asid)).len();
    let mut generated = Vec::new();
    for _ in 0..count {
        let length = feed.len();
        let done = run(driver, std::mem::take(&mut ops), vec![row(asid, position, feed, true)]);
        let chosen = sampled(&done[0]);
        generated.push(chosen.token);
        if chosen.end {
            break;
        }
        position += length;
        feed = vec![chosen.token];
    }
    generated
}

fn text(tokens: &[Token]) -> String {
    tokens.iter().filter_map(|token| u8::try_from(token.0).ok()).map(char::from).collect()
}

#[test]
fn same_content_by_any_path_gives_the_same_text() {
    let mut driver = mount("");
    let whole = generate(&mut driver, 0, "once upon a time", greedy(), 40);
    assert_eq!(whole.len(), 40);

    run(&mut driver, vec![], vec![row(1, 0, tokens("once upon"), false)]);
    assert_eq!(generate(&mut driver, 1, " a time", greedy(), 40), whole, "in two pieces");

    run(&mut driver, vec![Op::Share { from: Asid(0), to: Asid(2), length: 9 }], vec![]);
    assert_eq!(generate(&mut driver, 2, " a time", greedy(), 40), whole, "on a shared prefix");

    run(&mut driver, vec![Op::Drop { asid: Asid(0), from: 9 }], vec![]);
    assert_eq!(generate(&mut driver, 0, " a time", greedy(), 40), whole, "after dropping the end");

    run(&mut driver, vec![Op::Share { from: Asid(0), to: Asid(3), length: 8 }], vec![]);
    assert_ne!(
        generate(&mut driver, 3, " a time", greedy(), 40),
        whole,
        "on a prefix that is one token short"
    );
}

#[test]
fn sampler_set_up_again_in_mid_generation_goes_on_the_same() {
    let mut driver = mount("");
    let whole = generate(&mut driver, 0, "prompt", warm(42), 30);
    assert_ne!(generate(&mut driver, 1, "prompt", warm(43), 30), whole, "another seed, other text");

    let replayed = format!("prompt{}", text(&whole[..10]));
    let resumed = SamplerSpec { generated: whole[..10].to_vec(), ..warm(42) };
    assert_eq!(generate(&mut mount(""), 0, &replayed, resumed, 20), whole[10..]);
}

#[test]
fn cells_are_counted_once_however_many_share_them() {
    let mut driver = mount("pool=64,context=64");
    run(&mut driver, vec![], vec![row(0, 0, tokens(&"a".repeat(40)), false)]);
    run(&mut driver, vec![Op::Share { from: Asid(0), to: Asid(1), length: 30 }], vec![]);
    assert_eq!(driver.cells_free(), 24);
    run(&mut driver, vec![Op::Drop { asid: Asid(0), from: 0 }], vec![]);
    assert_eq!(driver.cells_free(), 34);

    let done = run(
        &mut driver,
        vec![],
        vec![row(1, 30, tokens(&"b".repeat(34)), false), row(2, 0, tokens("c"), false)],
    );
    assert_eq!(done[0], RowDone::Computed);
    assert!(matches!(&done[1], RowDone::Failed(fault) if fault.errno == Errno::ENOMEM), "{:?}", done[1]);
    assert_eq!(driver.held(Asid(2)), []);
}

#[test]
fn step_that_breaks_the_contract_is_refused_and_changes_nothing() {
    let mut driver = mount("batch=64,context=64");
    run(&mut driver, vec![], vec![row(0, 0, tokens("abc"), false)]);
    let share = |from, to, length| Op::Share { from: Asid(from), to: Asid(to), length };
    let drop = |from| Op::Drop { asid: Asid(0), from };
    let cases: Vec<(&str, Vec<Op>, Vec<Row>)> = vec![
        ("at position 2", vec![], vec![row(0, 2, tokens("d"), false)]),
        ("without tokens", vec![], vec![row(0, 3, vec![], false)]),
        ("has no sampler", vec![], vec![row(0, 3, tokens("d"), true)]),
        (
            "two rows for sequence 0",
            vec![],
            vec![row(0, 3, tokens("d"), false), row(0, 4, tokens("e"), false)],
        ),
        ("share into sequence 0", vec![share(0, 0, 1)], vec![]),
        ("share 4 of the 3 tokens", vec![share(0, 1, 4)], vec![]),
        ("drop from 4 the 3 tokens", vec![drop(4)], vec![]),
        ("sequence 8 does not exist", vec![], vec![row(8, 0, tokens("d"), false)]),
        ("token 260 of a vocabulary of 260", vec![], vec![row(0, 3, vec![Token(260)], false)]),
        ("a step of 65 tokens", vec![], vec![row(0, 3, tokens(&"x".repeat(65)), false)]),
        ("outgrows the context", vec![], vec![row(0, 3, tokens(&"x".repeat(62)), false)]),
        ("at position 3", vec![drop(0)], vec![row(0, 3, tokens("d"), false)]),
    ];
    for (wanted, ops, rows) in cases {
        let fault = driver.step(&Step { number: 2, ops, rows }).unwrap_err();
        assert_eq!(fault.errno, Errno::EINVAL);
        assert!(fault.message.contains(wanted), "`{}` does not say `{wanted}`", fault.message);
        assert_eq!(text(&driver.held(Asid(0))), "abc", "after: {wanted}");
    }
}

#[test]
fn echo_says_the_prompt_and_ends() {
    let generated = generate(&mut mount("text=echo"), 0, "say it again", greedy(), 100);
    assert_eq!(text(&generated), "say it again");
    assert_eq!(generated.last(), Some(&EOS));
}

#[test]
fn answers_come_for_the_prompts_that_match() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"[{"match":"capital of France","answer":"Paris."}]"#).unwrap();
    let script = format!("text=echo,template=chatml,answers={}", file.path().display());
    let mut driver = mount(&script);
    let message = |content: &str| Message { role: "user".into(), content: content.into() };
    let ask = |driver: &mut SimDriver, asid, content: &str| {
        let request = ChatRequest { messages: vec![message(content)], held: vec![] };
        let prompt = driver.text().chat(&request).unwrap().append;
        let done = run(driver, vec![open(asid, greedy())], vec![row(asid, 0, prompt.clone(), true)]);
        let mut said = vec![sampled(&done[0]).token];
        while said.last() != Some(&EOS) {
            let position = prompt.len() + said.len() - 1;
            let done = run(driver, vec![], vec![row(asid, position, vec![*said.last().unwrap()], true)]);
            said.push(sampled(&done[0]).token);
        }
        text(&said)
    };
    assert_eq!(ask(&mut driver, 0, "What is the capital of France?"), "Paris.");
    assert_eq!(ask(&mut driver, 1, "anything else"), "anything else");
}

#[test]
fn end_of_text_comes_unless_it_is_to_be_ignored() {
    let ends = generate(&mut mount("eos=10"), 0, "x", greedy(), 200);
    assert!(ends.len() < 200 && ends.last() == Some(&EOS));
    let ignored = generate(&mut mount("eos=10"), 0, "x", SamplerSpec { ignore_eos: true, ..greedy() }, 200);
    assert_eq!(ignored.len(), 200);
    assert!(!ignored.contains(&EOS));
}

#[test]
fn logprobs_are_of_the_chosen_token_and_its_rivals() {
    let mut driver = mount("");
    let sampler = SamplerSpec { logprobs: Some(3), ..greedy() };
    let done = run(&mut driver, vec![open(0, sampler)], vec![row(0, 0, tokens("ab"), true)]);
    let chosen = sampled(&done[0]);
    let logprob = chosen.logprob.as_ref().unwrap();
    assert_eq!(logprob.top.len(), 3);
    assert_eq!((logprob.top[0].0, &logprob.top[0].1), (chosen.token, &chosen.piece));
    assert_eq!(logprob.top[0].2, logprob.logprob);
    let mass: f32 = logprob.top.iter().map(|(_, _, logprob)| logprob.exp()).sum();
    assert!(mass <= 1.0 && logprob.top.is_sorted_by(|a, b| a.2 >= b.2));
}

#[test]
fn grammars_fail_the_row_and_leave_the_sequence() {
    let mut driver = mount("");
    let mut sampler = greedy();
    sampler.sampling.grammar = Some(Grammar::Gbnf("root ::= \"a\"".into()));
    let done = run(&mut driver, vec![open(0, sampler)], vec![row(0, 0, tokens("ab"), true)]);
    assert!(matches!(&done[0], RowDone::Failed(fault) if fault.errno == Errno::ENOSYS));
    assert_eq!(driver.held(Asid(0)), []);
}

#[test]
fn failing_step_leaves_everything_and_may_be_sent_again() {
    let mut driver = mount("fail_step=5");
    let step = |number| Step { number, ops: vec![], rows: vec![row(0, 0, tokens("abc"), false)] };
    assert_eq!(driver.step(&step(5)).unwrap_err().errno, Errno::EIO);
    assert_eq!(driver.held(Asid(0)), []);
    assert_eq!(driver.step(&step(6)).unwrap().rows, [RowDone::Computed]);
}

#[test]
fn what_follows_a_page_that_fails_to_load_fails_with_it() {
    let mut driver = mount("");
    let page = PageLabel { from: 0, to: 64, digest: 1, owner: PageOwner::User(7) };
    let (loaded, copy) = (Asid(0), Asid(1));
    let ops = vec![
        Op::Load { asid: loaded, page, slot: Slot::Host(3) },
        Op::Share { from: loaded, to: copy, length: 64 },
        Op::Save { asid: loaded, page, slot: Slot::Host(4) },
        Op::Drop { asid: loaded, from: 32 },
    ];
    let rows = vec![row(1, 64, tokens("x"), false)];
    let done = driver.step(&Step { number: 1, ops, rows }).unwrap();
    assert!(done.pages.len() == 2 && done.pages.iter().all(Result::is_err), "{done:?}");
    assert!(matches!(&done.rows[..], [RowDone::Failed(fault)] if fault.errno == Errno::EIO), "{done:?}");
    assert!(driver.held(copy).is_empty());
}

#[test]
fn garbage_is_an_answer_that_no_kernel_can_take() {
    let step = Step { number: 3, ops: vec![], rows: vec![row(0, 0, tokens("abc"), false)] };
    let done = mount("garbage_at_step=3").step(&step).unwrap();
    assert_ne!((done.number, done.rows.len()), (3, 1));
}

#[test]
fn refusal_carries_the_sentence_of_the_script() {
    let fault = try_mount("refuse=no such weights").map(|_| ()).unwrap_err();
    assert_eq!((fault.errno, fault.message.as_str()), (Errno::ENOEXEC, "no such weights"));
}

#[test]
#[should_panic(expected = "sim: aborted: step 9")]
fn death_comes_at_the_step_of_the_script() {
    let mut driver = mount("die_at_step=9");
    for number in 1..=9 {
        driver.step(&Step { number, ops: vec![], rows: vec![] }).unwrap();
    }
}

#[test]
#[should_panic(expected = "the text has `poison`")]
fn deadly_text_kills_even_in_two_pieces() {
    let mut driver = mount("die_on_text=poison");
    run(&mut driver, vec![], vec![row(0, 0, tokens("some poi"), false)]);
    run(&mut driver, vec![], vec![row(0, 8, tokens("son"), false)]);
}

#[test]
fn costs_follow_the_script() {
    let mut driver = mount("step_us=1000,token_us=10,row_us=100");
    let rows = vec![row(0, 0, tokens("abc"), false), row(1, 0, tokens("de"), false)];
    let done = driver.step(&Step { number: 1, ops: vec![], rows }).unwrap();
    assert_eq!(done.elapsed_us, 1000 + 2 * 100 + 5 * 10);
}

#[test]
fn special_names_are_tokens_only_when_asked() {
    let codec = mount("").text();
    let request = |special| TokenizeRequest { text: "a<|im_end|>".into(), bos: false, special };
    assert_eq!(codec.tokenize(&request(true)).unwrap(), [Token(97), IM_END]);
    let plain = codec.tokenize(&request(false)).unwrap();
    assert_eq!(codec.detokenize(&plain).unwrap(), b"a<|im_end|>");
    assert_eq!(plain.len(), 11);
    assert_eq!(codec.detokenize(&[Token(999)]).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn ascii_vocabulary_names_the_character_that_it_lacks() {
    let codec = mount("ascii=true").text();
    let request = TokenizeRequest { text: "abc 中文".into(), bos: false, special: false };
    let fault = codec.tokenize(&request).unwrap_err();
    assert_eq!(fault.errno, Errno::EILSEQ);
    assert!(fault.message.contains('中'), "{}", fault.message);
}

#[test]
fn chat_keeps_what_the_context_already_holds() {
    let codec = mount("template=chatml").text();
    let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let first = vec![message("user", "hello")];
    let opened = codec.chat(&ChatRequest { messages: first.clone(), held: vec![] }).unwrap();
    assert_eq!(opened.keep, 0);

    let mut held = opened.append.clone();
    held.extend(tokens("hi"));
    let more = [first, vec![message("assistant", "hi"), message("user", "bye")]].concat();
    let delta = codec.chat(&ChatRequest { messages: more, held: held.clone() }).unwrap();
    assert_eq!(delta.keep as usize, held.len());
    assert_eq!(delta.append[0], IM_END);

    let none = mount("").text().chat(&ChatRequest { messages: vec![], held: vec![] });
    assert_eq!(none.unwrap_err().errno, Errno::ENOSYS);
}

#[test]
fn embeddings_of_texts_with_common_words_are_near() {
    let mut driver = mount("");
    let texts = ["the cat sat on the mat", "a cat on a mat", "quarterly revenue grew"].map(tokens);
    let vectors = driver.embed(&texts).unwrap();
    let dot = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum::<f32>();
    assert!(dot(0, 1) > dot(0, 2), "{} and {}", dot(0, 1), dot(0, 2));
    assert!((dot(0, 0) - 1.0).abs() < 1e-5);
    assert_eq!(mount("embeds=false").embed(&texts).unwrap_err().errno, Errno::ENOSYS);
}

#[test]
fn scripts_that_make_no_sense_are_refused_in_words() {
    for (script, wanted) in [
        ("sed=1", "no setting `sed`"),
        ("seed", "write name=value"),
        ("seed=many", "`seed` is `many`"),
        ("vocabulary=10", "`vocabulary` is `10`"),
        ("text=prose", "`alphabet`, `echo` or `markov`"),
        ("answers=/nowhere", "the answers in `/nowhere`"),
    ] {
        let fault = try_mount(script).map(|_| ()).unwrap_err();
        assert!(fault.message.contains(wanted), "`{}` does not say `{wanted}`", fault.message);
    }
}
