//! The driver gives what llama.cpp and the models' own implementations give.

use super::*;

const GOLDEN: [(&str, &str); 3] = [
    ("tinystories_656k", "TinyStories-656K/TinyStories-656K-F32.gguf"),
    ("tinystories_656k", "TinyStories-656K/TinyStories-656K-F16.gguf"),
    ("stories260K", "stories260K/stories260Ktok512.gguf"),
];

#[test]
fn greedy_tokens_equal_the_golden_ones_alone_and_eight_at_once() {
    for (name, file) in GOLDEN {
        let (Some((prompt, expected)), Some(path)) = (golden(name), shared(file)) else { return };
        for attention in [Attention::Plain, Attention::Flash, Attention::Blocked] {
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
fn quantised_models_give_what_a_plain_loop_over_llama_cpp_gives() {
    for kind in ["Q8_0", "Q4_0"] {
        let Some(path) = shared(&format!("TinyStories-656K/TinyStories-656K-{kind}.gguf")) else { return };
        let (prompt, _) = golden("tinystories_656k").unwrap();
        let expected = plain_loop(&path, &prompt, 40);
        let mut driver = mounted(&path);
        let jobs = vec![(prompt, spec(sampling(|s| s.top_k = 0))); 8];
        let mut same = 0;
        for generated in generate(driver.as_mut(), &jobs, expected.len()) {
            same += assert_same_but_for_a_tie(&generated, &expected, kind);
        }
        assert!(same * 2 > 8 * expected.len(), "{kind}: rounding decided all but {same} tokens");
    }
}

/// By how much rounding may change a logit where weights are quantised. Eight sequences at once go through other kernels
/// than one, which ones depends on the processor.
const ROUNDING: f32 = 0.2;

/// Checks that the tokens are the same up to a choice, if there is one, that rounding decided; tells how many are.
fn assert_same_but_for_a_tie(generated: &[Token], expected: &[(Token, Vec<f32>)], kind: &str) -> usize {
    assert_eq!(generated.len(), expected.len(), "{kind}");
    let same = generated.iter().zip(expected).take_while(|(token, (best, _))| *token == best).count();
    if let (Some(token), Some((best, logits))) = (generated.get(same), expected.get(same)) {
        let gap = logits[best.0 as usize] - logits[token.0 as usize];
        assert!(gap <= ROUNDING, "{kind}, token {same}: {token:?} is {gap} below {best:?}");
    }
    same
}

/// Greedy choices of one sequence, one token at a time, without anything of the driver between; each with the logits.
fn plain_loop(path: &Path, prompt: &[Token], count: usize) -> Vec<(Token, Vec<f32>)> {
    let (model, settings) = bare(path, 1);
    let mut context = Context::new(&model, &settings).unwrap();
    let (mut feed, mut position, mut out) = (prompt.to_vec(), 0, Vec::new());
    while out.len() < count {
        context.batch().clear();
        let place = context.batch().add(0, position, &feed, Output::Last);
        context.decode().unwrap();
        position += feed.len() as u32;
        let logits = context.logits(place).unwrap();
        let possible = (0..logits.len() as u32).filter(|id| !model.ends(Token(*id)));
        let best = possible.max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize])).unwrap();
        out.push((Token(best), logits.to_vec()));
        feed = vec![Token(best)];
    }
    out
}

#[test]
fn sentence_encoder_gives_the_golden_vectors() {
    let Some(folder) = shared("all-MiniLM-L6-v2") else { return };
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("minilm.gguf");
    drivers::gguf::convert::bert_from_hf(&folder, &path).unwrap();
    let mut driver = mounted(&path);
    let all: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(shared("golden.json").unwrap()).unwrap()).unwrap();
    let golden = &all["all-MiniLM-L6-v2"];
    let texts: Vec<Vec<Token>> = (golden["sentences"].as_array().unwrap().iter())
        .map(|text| {
            let text = text.as_str().unwrap().to_string();
            driver.text().tokenize(&TokenizeRequest { text, bos: true, special: false }).unwrap()
        })
        .collect();
    let vectors = driver.embed(&texts).unwrap();
    for (at, (text, vector)) in texts.iter().zip(&vectors).enumerate() {
        let ids: Vec<u64> =
            golden["ids"][at].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!(text.iter().map(|token| u64::from(token.0)).collect::<Vec<_>>(), ids);
        for (n, expected) in golden["embedding_first8"][at].as_array().unwrap().iter().enumerate() {
            let expected = expected.as_f64().unwrap();
            assert!(
                (f64::from(vector[n]) - expected).abs() < 2e-3,
                "text {at}: {} for {expected}",
                vector[n]
            );
        }
        for (other, expected) in golden["cosine"][at].as_array().unwrap().iter().enumerate() {
            let cosine: f32 = vector.iter().zip(&vectors[other]).map(|(x, y)| x * y).sum();
            assert!((f64::from(cosine) - expected.as_f64().unwrap()).abs() < 5e-3, "texts {at} and {other}");
        }
    }
}
