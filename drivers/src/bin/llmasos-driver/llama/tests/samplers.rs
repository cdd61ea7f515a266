//! Grammars, seeds, penalties and logprobs.

use std::collections::BTreeMap;

use super::*;

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

#[test]
fn tokens_that_a_grammar_allows_are_as_likely_as_they_are_among_these() {
    const CHOICES: u64 = 400;
    let mut driver = mounted(&random_model("tiny"));
    let vocabulary = driver.description().vocabulary;
    let plain = |s: &mut Sampling| (s.temperature, s.top_k, s.top_p, s.min_p) = (1.0, 0, 1.0, 0.0);
    let mut first = |sampling: SamplingSpec, logprobs: Option<u32>| {
        let sampler = SamplerSpec { logprobs, ..spec(sampling) };
        let ops = vec![
            Op::Drop { asid: Asid(0), from: 0 },
            Op::SamplerOpen { asid: Asid(0), sampler: sampler.into() },
        ];
        sampled(run(driver.as_mut(), ops, vec![row(0, 0, &[40, 41])]).remove(0))
    };
    let all = first(sampling(plain), Some(vocabulary)).logprob.unwrap().top;
    let mut allowed: Vec<(Token, f64)> = all
        .iter()
        .filter(|(_, piece, _)| !piece.is_empty() && piece.iter().all(u8::is_ascii_lowercase))
        .map(|(token, _, logprob)| (*token, f64::from(*logprob).exp()))
        .collect();
    // In the order of the vocabulary, in which a random number passes them.
    allowed.sort_by_key(|(token, _)| *token);
    let total: f64 = allowed.iter().map(|(_, likely)| likely).sum();
    let (mut before, mut quarters, mut expected) = (0.0, BTreeMap::new(), [0.0; 4]);
    for (token, likely) in allowed {
        let quarter = ((before / total * 4.0) as usize).min(3);
        before += likely;
        expected[quarter] += likely / total * CHOICES as f64;
        quarters.insert(token, quarter);
    }
    let mut counts = [0i32; 4];
    for seed in 0..CHOICES {
        let limited = sampling(|s| {
            plain(s);
            s.grammar = Some("root ::= [a-z]+".into());
        });
        let chosen = first(SamplingSpec { seed, ..limited }, None).token;
        counts[quarters[&chosen]] += 1;
    }
    for (count, expected) in counts.iter().zip(expected) {
        assert!((f64::from(*count) - expected).abs() < 40.0, "{counts:?}, expected {expected} here");
    }
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
fn grammar_of_groups_in_groups_without_end_fails_its_own_row() {
    let mut driver = mounted(&random_model("tiny"));
    let grammar = Some(format!("root ::= {}", "(".repeat(60_000)));
    let open = Op::SamplerOpen { asid: Asid(0), sampler: spec(sampling(|s| s.grammar = grammar)).into() };
    let done = run(driver.as_mut(), vec![open], vec![row(0, 0, &[40])]);
    assert!(matches!(&done[0], RowDone::Failed(fault) if fault.message.contains("60000 deep")), "{done:?}");
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
fn grammar_that_is_not_valid_is_told_what_is_wrong_with_it() {
    let model = Model::load(
        random_model("tiny").to_str().unwrap(),
        &ModelSettings { gpu_layers: None, packing: Packing::None },
        &mut |_| {},
    )
    .unwrap();
    let fault = |text: &str| Grammar::new(&model, &drivers::wire::Grammar::Gbnf(text.into())).err().unwrap();
    assert!(fault("root ::= (").message.contains("expecting ')'"), "{}", fault("root ::= ("));
    assert!(fault("start ::= \"a\"").message.contains("root"), "{}", fault("start ::= \"a\""));
    assert!(
        fault("root ::= root \"a\"").message.contains("left recursion"),
        "{}",
        fault("root ::= root \"a\"")
    );
}
