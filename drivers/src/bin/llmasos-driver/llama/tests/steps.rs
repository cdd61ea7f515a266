//! Operations and rows, in and out of the contract.

use super::*;

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
fn blocked_attention_runs_with_heads_that_fit_and_flash_with_others() {
    let said = |heads: u32| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let shape = Shape { heads, kv_heads: heads, ..Shape::preset("tiny").unwrap() };
        shape.write(&path).unwrap();
        let request = LoadRequest { attention: Attention::Blocked, ..request(&path) };
        load(&request).unwrap().description().attention
    };
    let runs =
        cfg!(target_arch = "x86_64") && std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("avx2");
    assert_eq!(said(8), if runs { Attention::Blocked } else { Attention::Flash });
    assert_eq!(said(16), Attention::Flash, "heads of 8 numbers");
}

#[test]
fn shared_and_dropped_sequences_continue_as_if_computed_alone() {
    for attention in [Attention::Plain, Attention::Flash, Attention::Blocked] {
        share_and_drop(attention);
    }
}

fn share_and_drop(attention: Attention) {
    let path = random_model("tiny");
    let mut driver = load(&LoadRequest { attention, ..request(&path) }).unwrap();
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
    assert_eq!(got, alone, "{attention:?}");
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

#[test]
fn vector_that_is_no_number_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bert.gguf");
    let shape = Shape::preset("tiny").unwrap();
    let (family, kind) = (drivers::gguf::random::Family::Bert, drivers::gguf::TensorType::F32);
    Shape { family, kind, kv_heads: shape.heads, tied: true, ..shape }.write(&path).unwrap();
    whole::poison(&path);
    let mut driver = mounted(&path);
    let fault = driver.embed(&[vec![Token(5), whole::POISON]]).unwrap_err();
    assert_eq!(fault.errno, Errno::EIO, "{fault}");
    assert!(driver.embed(&[tokens(&[5, 6, 7])]).is_ok(), "another text has one");
}

#[test]
fn model_with_learned_positions_has_no_more_of_them_than_it_was_trained_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpt2.gguf");
    let shape = Shape::preset("tiny").unwrap();
    let family = drivers::gguf::random::Family::Gpt2;
    Shape { family, kv_heads: shape.heads, context: 64, ..shape }.write(&path).unwrap();
    let mut driver = load(&LoadRequest { context_tokens: Some(256), ..request(&path) }).unwrap();
    let said = driver.description();
    assert_eq!((said.context_tokens, said.context_trained, said.pool_tokens), (64, 64, 256));
    let whole = Row { sample: false, ..row(0, 0, &[40; 64]) };
    assert_eq!(run(driver.as_mut(), vec![], vec![whole]), [RowDone::Computed]);
    let beyond = Step { number: 1, ops: vec![], rows: vec![Row { sample: false, ..row(0, 64, &[40]) }] };
    assert_eq!(driver.step(&beyond).unwrap_err().errno, Errno::EINVAL);
}
