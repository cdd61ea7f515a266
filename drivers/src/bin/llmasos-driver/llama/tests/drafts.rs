//! Guesses change how many steps a generation takes, and none of its tokens.

use super::*;

/// How many guesses a row has.
const GUESSES: usize = 5;

/// Generates one sequence with guesses made from what comes; answers the tokens and how many steps they took.
fn generate_guessing(
    driver: &mut dyn Driver,
    prompt: &[Token],
    sampler: &SamplerSpec,
    expected: &[Token],
    guess: fn(&[Token]) -> Vec<Token>,
) -> (Vec<Token>, usize) {
    let mut ops = vec![
        Op::Drop { asid: Asid(0), from: 0 },
        Op::SamplerOpen { asid: Asid(0), sampler: sampler.clone().into() },
    ];
    let (mut feed, mut position, mut out, mut steps) = (prompt.to_vec(), 0, Vec::new(), 0);
    while out.len() < expected.len() {
        let coming = &expected[out.len()..expected.len().min(out.len() + GUESSES)];
        let draft = guess(coming);
        let next =
            Row { asid: Asid(0), position, tokens: feed.clone().into(), sample: true, draft: draft.clone() };
        let done = run(driver, std::mem::take(&mut ops), vec![next]).remove(0);
        let RowDone::Sampled(sampled) = done else { panic!("no token came: {done:?}") };
        let accepted = sampled.len() - 1;
        assert!(sampled[..accepted].iter().map(|s| s.token).eq(draft[..accepted].iter().copied()));
        position += (feed.len() + accepted) as u32;
        feed = vec![sampled[accepted].token];
        out.extend(sampled.iter().map(|sampled| sampled.token));
        steps += 1;
    }
    out.truncate(expected.len());
    (out, steps)
}

fn kinds() -> Vec<(&'static str, SamplingSpec)> {
    vec![
        ("greedy", sampling(|_| {})),
        ("temperature", sampling(|s| s.temperature = 0.9)),
        ("penalties", sampling(|s| (s.temperature, s.repeat_penalty, s.top_k) = (1.2, 1.5, 0))),
        ("grammar", sampling(|s| (s.temperature, s.grammar) = (1.0, Some("root ::= [a-z ]*".into())))),
    ]
}

fn other(token: Token) -> Token {
    Token(token.0 ^ 1)
}

/// Checks all samplers and all guesses; right ones save steps.
fn check(driver: &mut dyn Driver, prompt: &[Token], count: usize, kinds: Vec<(&str, SamplingSpec)>) {
    for (name, sampling) in kinds {
        let sampler = spec(sampling);
        let expected = generate(driver, &[(prompt.to_vec(), sampler.clone())], count).remove(0);
        type Guess = fn(&[Token]) -> Vec<Token>;
        let guesses: [(&str, Guess); 3] = [
            ("right", <[Token]>::to_vec),
            ("wrong", |coming| coming.iter().map(|token| other(*token)).collect()),
            ("half right", |coming| {
                let half = coming.len() / 2;
                let wrong = coming[half..].iter().map(|token| other(*token));
                coming[..half].iter().copied().chain(wrong).collect()
            }),
        ];
        for (kind, guess) in guesses {
            let (got, steps) = generate_guessing(driver, prompt, &sampler, &expected, guess);
            assert_eq!(got, expected, "{name}, guesses {kind}");
            match kind {
                "right" => assert!(steps <= count.div_ceil(GUESSES), "{name}: {steps} steps"),
                "wrong" => assert_eq!(steps, count, "{name}"),
                _ => assert!(steps < count, "{name}: {steps} steps"),
            }
        }
    }
}

#[test]
fn guesses_change_no_token_whatever_the_sampler() {
    for attention in [Attention::Plain, Attention::Flash] {
        let mut driver = load(&LoadRequest { attention, ..request(&random_model("tiny")) }).unwrap();
        assert!(driver.description().drafts);
        check(driver.as_mut(), &tokens(&[40, 50, 60, 70]), 24, kinds());
    }
}

#[test]
fn guesses_change_no_token_of_the_shared_models() {
    for (model, file) in [
        ("stories260K", "stories260K/stories260Ktok512.gguf"),
        ("tinystories_656k", "TinyStories-656K/TinyStories-656K-Q8_0.gguf"),
    ] {
        let (Some((prompt, _)), Some(path)) = (golden(model), shared(file)) else { return };
        let without_grammar = kinds().into_iter().filter(|(name, _)| *name != "grammar").collect();
        check(mounted(&path).as_mut(), &prompt, 40, without_grammar);
    }
}

#[test]
fn entries_of_wrong_guesses_are_gone() {
    let mut driver =
        load(&LoadRequest { context_tokens: Some(256), ..request(&random_model("tiny")) }).unwrap();
    let sampler = spec(sampling(|_| {}));
    let expected = generate(driver.as_mut(), &[(tokens(&[40; 200]), sampler.clone())], 3).remove(0);
    let ops =
        vec![Op::Drop { asid: Asid(0), from: 0 }, Op::SamplerOpen { asid: Asid(0), sampler: sampler.into() }];
    let wrong = Row { draft: vec![other(expected[0]); 50], ..row(0, 0, &[40; 200]) };
    let done = run(driver.as_mut(), ops, vec![wrong]);
    assert!(matches!(&done[0], RowDone::Sampled(sampled) if sampled.len() == 1), "{done:?}");
    let rest = Row { sample: false, ..row(1, 0, &[40; 56]) };
    assert_eq!(run(driver.as_mut(), vec![], vec![rest]), [RowDone::Computed], "56 cells are free again");
    // Where there is no room for guesses, the row goes without.
    let ops = vec![Op::Drop { asid: Asid(1), from: 55 }];
    let next = Row { draft: vec![expected[1]; 9], ..row(0, 200, &[expected[0].0]) };
    let done = run(driver.as_mut(), ops, vec![next]);
    assert!(matches!(&done[0], RowDone::Sampled(sampled) if sampled[0].token == expected[1]), "{done:?}");
}

#[test]
fn guesses_beyond_what_a_step_can_check_are_left_out() {
    let mut driver = mounted(&random_model("tiny"));
    let prompt = tokens(&[40, 50]);
    let expected = generate(driver.as_mut(), &[(prompt.clone(), spec(sampling(|_| {})))], 200).remove(0);
    let open = |asid| {
        let sampler = spec(sampling(|_| {})).into();
        [Op::Drop { asid: Asid(asid), from: 0 }, Op::SamplerOpen { asid: Asid(asid), sampler }]
    };
    let rows = (0..3).map(|asid| Row {
        draft: expected[..100].to_vec(),
        tokens: prompt.clone().into(),
        ..row(asid, 0, &[])
    });
    let done = run(driver.as_mut(), (0..3).flat_map(open).collect(), rows.collect());
    let counts: Vec<usize> = (done.iter())
        .map(|done| match done {
            RowDone::Sampled(sampled) => {
                assert!(
                    sampled.iter().map(|sampled| sampled.token).eq(expected[..sampled.len()].iter().copied())
                );
                sampled.len()
            }
            other => panic!("no token came: {other:?}"),
        })
        .collect();
    assert_eq!(counts, [101, 26, 1], "128 tokens have output");
}

#[test]
fn guesses_that_cannot_be_checked_are_refused() {
    let mut driver = mounted(&random_model("tiny"));
    let vocabulary = driver.description().vocabulary;
    let ops = vec![Op::SamplerOpen { asid: Asid(0), sampler: spec(sampling(|_| {})).into() }];
    let bad = [
        Row { sample: false, draft: tokens(&[40]), ..row(0, 0, &[40]) },
        Row { draft: tokens(&[vocabulary]), ..row(0, 0, &[40]) },
        Row { draft: vec![Token(40); driver.description().batch_tokens as usize], ..row(0, 0, &[40]) },
    ];
    for bad in bad {
        let step = Step { number: 1, ops: ops.clone(), rows: vec![bad.clone()] };
        assert_eq!(driver.step(&step).unwrap_err().errno, Errno::EINVAL, "{bad:?}");
    }
}
