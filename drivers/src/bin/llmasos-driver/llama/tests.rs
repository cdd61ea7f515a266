//! The driver as the kernel sees it, on models made here and, where they are, on the shared ones.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use drivers::Driver;
use drivers::gguf::random::Shape;
use drivers::wire::{
    Asid, DriverFault, LoadRequest, Op, Row, RowDone, Sampled, SamplerSpec, SamplingSpec, Step,
    TokenizeRequest,
};
use syscalls::call::{Attention, Sampling};
use syscalls::{Errno, Token};

use super::arithmetic::Arithmetic;
use super::load::load_with;

/// A model made of random weights, written once for all tests.
fn random_model(preset: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let path = folder.path().join(format!("{preset}-{:?}.gguf", std::thread::current().id()));
    if !path.exists() {
        Shape::preset(preset).unwrap().write(&path).unwrap();
    }
    path
}

/// A file of the shared models, where they are.
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LLMASOS_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"));
    let path = root.join("data/models").join(name);
    if !path.exists() {
        eprintln!("skipped: no {} under $LLMASOS_SHARED", name);
        return None;
    }
    Some(path)
}

fn request(path: &Path) -> LoadRequest {
    LoadRequest {
        path: path.to_str().unwrap().into(),
        context_tokens: None,
        sequences_max: 16,
        attention: Attention::Plain,
        gpu_layers: None,
        threads: Some(2),
        cache_dir: None,
    }
}

/// Loads without the trial of the CPU, for which this program would have to be the worker.
fn load(request: &LoadRequest) -> Result<Box<dyn Driver>, DriverFault> {
    let header = drivers::gguf::open(Path::new(&request.path))?;
    load_with(request, header, Arithmetic::Packed, &mut |_| {})
}

fn mounted(path: &Path) -> Box<dyn Driver> {
    load(&request(path)).unwrap()
}

fn sampling(change: impl FnOnce(&mut Sampling)) -> SamplingSpec {
    let mut sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    change(&mut sampling);
    SamplingSpec::new(&sampling, 42)
}

fn spec(sampling: SamplingSpec) -> SamplerSpec {
    SamplerSpec { sampling, history: vec![], generated: vec![], ignore_eos: true, logprobs: None }
}

fn tokens(ids: &[u32]) -> Vec<Token> {
    ids.iter().copied().map(Token).collect()
}

/// Runs one step and answers its rows.
fn run(driver: &mut dyn Driver, ops: Vec<Op>, rows: Vec<Row>) -> Vec<RowDone> {
    driver.step(&Step { number: 1, ops, rows }).unwrap().rows
}

fn sampled(done: RowDone) -> Sampled {
    match done {
        RowDone::Sampled(sampled) => sampled,
        other => panic!("no token came: {other:?}"),
    }
}

/// Generates for several sequences at once, each with its prompt and sampler, from empty sequences.
fn generate(driver: &mut dyn Driver, jobs: &[(Vec<Token>, SamplerSpec)], count: usize) -> Vec<Vec<Token>> {
    let asid = |at: usize| Asid(at as u16);
    let open = |(at, (_, sampler)): (usize, &(Vec<Token>, SamplerSpec))| {
        [
            Op::Drop { asid: asid(at), from: 0 },
            Op::SamplerOpen { asid: asid(at), sampler: sampler.clone().into() },
        ]
    };
    let mut ops: Vec<Op> = jobs.iter().enumerate().flat_map(open).collect();
    let mut feed: Vec<Vec<Token>> = jobs.iter().map(|(prompt, _)| prompt.clone()).collect();
    let mut positions = vec![0; jobs.len()];
    let mut out = vec![Vec::new(); jobs.len()];
    for _ in 0..count {
        let rows = (0..jobs.len())
            .map(|at| Row { asid: asid(at), position: positions[at], tokens: feed[at].clone(), sample: true })
            .collect();
        for (at, done) in run(driver, std::mem::take(&mut ops), rows).into_iter().enumerate() {
            positions[at] += feed[at].len() as u32;
            let token = sampled(done).token;
            out[at].push(token);
            feed[at] = vec![token];
        }
    }
    out
}

/// What the reference implementations chose greedily.
fn golden(model: &str) -> Option<(Vec<Token>, Vec<Token>)> {
    let text = std::fs::read_to_string(shared("golden.json")?).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = |key: &str| {
        let ids = all[model][key].as_array().unwrap().iter();
        ids.map(|id| Token(id.as_u64().unwrap() as u32)).collect()
    };
    Some((list("prompt_ids"), list("greedy_40")))
}

const GOLDEN: [(&str, &str); 3] = [
    ("tinystories_656k", "TinyStories-656K/TinyStories-656K-F32.gguf"),
    ("tinystories_656k", "TinyStories-656K/TinyStories-656K-F16.gguf"),
    ("stories260K", "stories260K/stories260Ktok512.gguf"),
];

#[test]
fn greedy_tokens_equal_the_golden_ones_alone_and_eight_at_once() {
    for (name, file) in GOLDEN {
        let (Some((prompt, expected)), Some(path)) = (golden(name), shared(file)) else { return };
        for attention in [Attention::Plain, Attention::Flash] {
            let request = LoadRequest { attention, ..request(&path) };
            let mut driver = load(&request).unwrap();
            for count in [1, 8] {
                let jobs = vec![(prompt.clone(), spec(sampling(|_| {}))); count];
                for generated in generate(driver.as_mut(), &jobs, expected.len()) {
                    assert_eq!(generated, expected, "{file} with {attention:?}, {count} at once");
                }
            }
        }
    }
}

#[test]
fn description_says_what_the_file_holds() {
    let driver = mounted(&random_model("tiny"));
    let said = driver.description();
    assert_eq!((said.driver.as_str(), said.device.as_str()), ("llama", "cpu"));
    assert!(said.generates && !said.embeds && !said.chat_template && said.any_text && said.ranges);
    assert!(said.pool_tokens >= said.context_tokens && said.pool_tokens.is_multiple_of(256));
    assert_eq!((said.sequences, said.threads, said.attention), (16, 2, Attention::Plain));
    assert_ne!(said.fingerprint, 0);
}

#[test]
fn text_of_any_script_comes_back_from_its_tokens() {
    let driver = mounted(&random_model("tiny"));
    let text = "naïve 中文 🦀\n\t<|endoftext|>";
    let request = TokenizeRequest { text: text.into(), bos: false, special: false };
    let tokens = driver.text().tokenize(&request).unwrap();
    assert_eq!(driver.text().detokenize(&tokens).unwrap(), text.as_bytes());
    let outside = driver.text().detokenize(&[Token(u32::MAX)]).unwrap_err();
    assert_eq!(outside.errno, Errno::EINVAL);
}

#[test]
fn text_outside_of_a_vocabulary_without_bytes_is_refused() {
    let Some(path) = shared("TinyStories-656K/TinyStories-656K-Q8_0.gguf") else { return };
    let driver = mounted(&path);
    assert!(!driver.description().any_text);
    for special in [false, true] {
        let request = TokenizeRequest { text: "Once 从前".into(), bos: true, special };
        let fault = driver.text().tokenize(&request).unwrap_err();
        assert_eq!(fault.errno, Errno::EILSEQ);
        assert!(fault.message.contains("'从', character 6 "), "{}", fault.message);
    }
    let request = TokenizeRequest { text: "Once upon a time".into(), bos: true, special: false };
    let (prompt, _) = golden("tinystories_656k").unwrap();
    assert_eq!(driver.text().tokenize(&request).unwrap(), prompt);
}

#[test]
fn generation_set_up_again_anywhere_goes_on_with_the_same_tokens() {
    let path = random_model("tiny");
    let mut driver = mounted(&path);
    let prompt = tokens(&[40, 50, 60, 70]);
    let rules = "root ::= [a-z ]*";
    let kinds: [(&str, SamplingSpec); 4] = [
        ("greedy", sampling(|_| {})),
        ("temperature", sampling(|s| s.temperature = 0.9)),
        ("penalties", sampling(|s| (s.temperature, s.repeat_penalty, s.top_k) = (1.2, 1.5, 0))),
        ("grammar", sampling(|s| (s.temperature, s.grammar) = (1.0, Some(rules.into())))),
    ];
    for (name, sampling) in kinds {
        let whole = generate(driver.as_mut(), &[(prompt.clone(), spec(sampling.clone()))], 24).remove(0);
        for cut in [1, 7, 23] {
            let mut other = mounted(&path);
            let context = [&prompt[..], &whole[..cut]].concat();
            let sampler = SamplerSpec { generated: whole[..cut].to_vec(), ..spec(sampling.clone()) };
            let rest = generate(other.as_mut(), &[(context, sampler)], whole.len() - cut).remove(0);
            assert_eq!(rest, whole[cut..], "{name}, cut at {cut}");
        }
    }
}

#[test]
fn grammar_and_schema_constrain_what_is_generated() {
    let mut driver = mounted(&random_model("tiny"));
    let schema = serde_json::json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 1}},
        "required": ["n"], "additionalProperties": false});
    let cases = [
        sampling(|s| s.grammar = Some(r#"root ::= "yes" | "no""#.into())),
        sampling(|s| (s.temperature, s.json_schema) = (1.0, Some(schema.clone()))),
    ];
    for (at, sampling) in cases.into_iter().enumerate() {
        let sampler = SamplerSpec { ignore_eos: false, ..spec(sampling) };
        let ops = vec![
            Op::Drop { asid: Asid(0), from: 0 },
            Op::SamplerOpen { asid: Asid(0), sampler: sampler.into() },
        ];
        let mut done = sampled(run(driver.as_mut(), ops, vec![row(0, 0, &[40, 41])]).remove(0));
        let (mut text, mut position) = (Vec::new(), 2);
        while !done.end {
            text.extend(&done.piece);
            assert!(position < 100, "the grammar does not end: {}", String::from_utf8_lossy(&text));
            let next = vec![row(0, position, &[done.token.0])];
            done = sampled(run(driver.as_mut(), vec![], next).remove(0));
            position += 1;
        }
        let text = String::from_utf8(text).unwrap();
        if at == 0 {
            assert!(text == "yes" || text == "no", "{text}");
        } else {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!((1..=99).contains(&value["n"].as_u64().unwrap()), "{text}");
        }
    }
}

fn row(asid: u16, position: u32, ids: &[u32]) -> Row {
    Row { asid: Asid(asid), position, tokens: tokens(ids), sample: true }
}

#[test]
fn grammar_that_is_not_valid_fails_its_own_row_alone() {
    let mut driver = mounted(&random_model("tiny"));
    let open = |asid, grammar: Option<&str>| Op::SamplerOpen {
        asid: Asid(asid),
        sampler: spec(sampling(|s| s.grammar = grammar.map(Into::into))).into(),
    };
    let ops = vec![open(0, Some("root ::= (")), open(1, None), open(2, Some("root ::= root \"a\""))];
    let done = run(driver.as_mut(), ops, vec![row(0, 0, &[40]), row(1, 0, &[40]), row(2, 0, &[40])]);
    for at in [0, 2] {
        assert!(matches!(&done[at], RowDone::Failed(fault) if fault.errno == Errno::EINVAL), "{done:?}");
    }
    assert!(matches!(done[1], RowDone::Sampled(_)), "{done:?}");
    let ops = vec![open(0, None)];
    assert!(matches!(run(driver.as_mut(), ops, vec![row(0, 0, &[40])])[0], RowDone::Sampled(_)));
}

#[test]
fn shared_and_dropped_sequences_continue_as_if_computed_alone() {
    let mut driver = mounted(&random_model("tiny"));
    let greedy = || spec(sampling(|_| {}));
    let (long, other) = (tokens(&[40, 41, 42, 43, 44, 45]), tokens(&[40, 41, 42, 50]));
    let alone = generate(driver.as_mut(), &[(other.clone(), greedy())], 8).remove(0);
    generate(driver.as_mut(), &[(long, greedy())], 3);
    let ops = vec![
        Op::Share { from: Asid(0), to: Asid(1), length: 5 },
        Op::Drop { asid: Asid(0), from: 0 },
        Op::Drop { asid: Asid(1), from: 3 },
        Op::SamplerOpen { asid: Asid(1), sampler: greedy().into() },
    ];
    let mut got = vec![sampled(run(driver.as_mut(), ops, vec![row(1, 3, &[50])]).remove(0)).token];
    while got.len() < alone.len() {
        let next = row(1, 3 + got.len() as u32, &[got.last().unwrap().0]);
        got.push(sampled(run(driver.as_mut(), vec![], vec![next]).remove(0)).token);
    }
    assert_eq!(got, alone);
}

#[test]
fn step_that_breaks_the_contract_is_refused_and_changes_nothing() {
    let mut driver = mounted(&random_model("tiny"));
    let said = driver.description().clone();
    let bad_rows = [
        row(0, 1, &[40]),
        row(0, 0, &[]),
        row(0, 0, &[said.vocabulary]),
        row(said.sequences, 0, &[40]),
        row(0, 0, &vec![40; said.batch_tokens as usize + 1]),
    ];
    for bad in bad_rows {
        let ops = vec![Op::SamplerOpen { asid: Asid(0), sampler: spec(sampling(|_| {})).into() }];
        let step = Step { number: 1, ops, rows: vec![bad.clone()] };
        assert_eq!(driver.step(&step).unwrap_err().errno, Errno::EINVAL, "{bad:?}");
    }
    let bad_ops = [
        Op::Share { from: Asid(0), to: Asid(1), length: 1 },
        Op::Drop { asid: Asid(0), from: 1 },
        Op::SamplerClose { asid: Asid(u16::MAX) },
    ];
    for bad in bad_ops {
        let step = Step { number: 1, ops: vec![bad.clone()], rows: vec![] };
        assert_eq!(driver.step(&step).unwrap_err().errno, Errno::EINVAL, "{bad:?}");
    }
    let without_sampler = Step { number: 1, ops: vec![], rows: vec![row(0, 0, &[40])] };
    assert_eq!(driver.step(&without_sampler).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn row_that_does_not_fit_the_pool_fails_alone_and_fits_when_room_is_made() {
    let path = random_model("tiny");
    let request = LoadRequest { context_tokens: Some(256), ..request(&path) };
    let mut driver = load(&request).unwrap();
    let computed = |asid, count| Row { sample: false, ..row(asid, 0, &vec![40; count]) };
    let done = run(driver.as_mut(), vec![], vec![computed(0, 100), computed(1, 100)]);
    assert_eq!(done, [RowDone::Computed, RowDone::Computed]);
    let done = run(driver.as_mut(), vec![], vec![computed(2, 57), computed(3, 56)]);
    assert!(matches!(&done[0], RowDone::Failed(fault) if fault.errno == Errno::ENOMEM), "{done:?}");
    assert_eq!(done[1], RowDone::Computed);
    let ops = vec![Op::Drop { asid: Asid(0), from: 0 }];
    assert_eq!(run(driver.as_mut(), ops, vec![computed(2, 57)]), [RowDone::Computed]);
}

#[test]
fn logprobs_are_those_of_the_model_before_filters() {
    let mut driver = mounted(&random_model("tiny"));
    let sampler =
        SamplerSpec { logprobs: Some(3), ..spec(sampling(|s| (s.temperature, s.top_k) = (1.0, 1))) };
    let ops = vec![Op::SamplerOpen { asid: Asid(0), sampler: sampler.into() }];
    let done = sampled(run(driver.as_mut(), ops, vec![row(0, 0, &[40, 41])]).remove(0));
    let logprob = done.logprob.unwrap();
    assert_eq!(logprob.top.len(), 3);
    assert_eq!((logprob.top[0].0, logprob.top[0].2), (done.token, logprob.logprob));
    assert!(logprob.top[0].2 >= logprob.top[1].2 && logprob.top[1].2 >= logprob.top[2].2);
    assert!(logprob.logprob < -0.001, "with one candidate left the filtered probability would be 1");
}

#[test]
fn file_that_is_no_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not.gguf");
    std::fs::write(&path, b"GGUFnonsense").unwrap();
    let fault = load(&request(&path)).err().unwrap();
    assert_eq!(fault.errno, Errno::ENOEXEC);
    let fault = load(&request(&folder.path().join("none.gguf"))).err().unwrap();
    assert_eq!(fault.errno, Errno::ENOENT);
}

#[test]
fn encoder_embeds_and_does_not_generate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bert.gguf");
    let shape = Shape::preset("tiny").unwrap();
    let bert =
        Shape { family: drivers::gguf::random::Family::Bert, kv_heads: shape.heads, tied: true, ..shape };
    bert.write(&path).unwrap();
    let mut driver = mounted(&path);
    let said = driver.description().clone();
    assert!(said.embeds && !said.generates, "{said:?}");
    let texts = [tokens(&[5, 6, 7]), tokens(&[5, 6, 7, 8, 9]), tokens(&[5, 6, 7])];
    let vectors = driver.embed(&texts).unwrap();
    assert_eq!(vectors[0].len(), said.embedding as usize);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    assert!((dot(&vectors[0], &vectors[2]) - 1.0).abs() < 1e-4, "the same text has the same vector");
    assert!(dot(&vectors[0], &vectors[1]) < 0.9999, "another text has another vector");
    let long = vec![Token(5); said.context_tokens as usize + 1];
    assert_eq!(driver.embed(&[long]).unwrap_err().errno, Errno::ENOSPC);
    let step = Step { number: 1, ops: vec![], rows: vec![] };
    assert_eq!(driver.step(&step).unwrap_err().errno, Errno::ENOSYS);
}
