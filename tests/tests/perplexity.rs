//! The perplexity of a trained model is the same in the trainer and, from the GGUF that it exports, in llama.cpp, to four
//! digits, in the windows of `llama-perplexity`: each one's second half is counted. Files of 16 bits have it up to their
//! rounding, and llama.cpp takes what is exported of an encoder-decoder.
//!
//! The model's vocabulary is so small that the daemon tells of all of it how likely it is.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{Daemon, said, shared_data};
use syscalls::call::{Attention, Generate, Mount};
use syscalls::client::blocking::Client;
use syscalls::client::mount;
use syscalls::limits::LOGPROBS_MAX;
use syscalls::{Token, Tokens};
use train::trained::{Trained, Which, loss_of_windows};

/// Tokens of a window, and windows.
const LENGTH: usize = 64;
const WINDOWS: usize = 16;

/// How far apart the two may be, as a part of either.
const TOLERANCE: f64 = 1e-4;

/// Letters and spaces of the validation part of wikitext-2, or of a text of the project where that is not there.
fn text() -> String {
    let shared = shared_data().map(|data| data.join("lm/wikitext-2"));
    let files = shared.into_iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let validation = files.map(|file| file.path()).find(|path| path.to_string_lossy().contains("valid"));
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drivers/README.md");
    let text = fs::read_to_string(validation.unwrap_or(readme)).unwrap();
    let kept = text.chars().map(|c| c.to_ascii_lowercase()).filter(|c| c.is_ascii_lowercase() || *c == ' ');
    kept.take(60_000).collect()
}

fn trainer(daemon: &Daemon, arguments: &[&str]) {
    let mut command = Command::new(harness::binary("llmasos-trainer"));
    let output = command.current_dir(daemon.dir()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The sum of what the counted tokens of a window cost, from what the daemon tells before each of them.
fn cost(client: &mut Client, model: &str, window: &[Token]) -> f64 {
    let context = client.open(Some(model)).unwrap().context;
    let half = LENGTH / 2 + 1;
    client.append_tokens(context, window[..half].to_vec()).unwrap();
    let mut sum = 0.0;
    for (at, token) in window.iter().enumerate().skip(half) {
        let one = Generate {
            stream: false,
            logprobs: Some(LOGPROBS_MAX),
            ignore_eos: false,
            ..said::greedy(context, 1)
        };
        let told = client.generate(one, |_| {}).unwrap().logprobs;
        let likely = told[0].top.iter().find(|other| other.token == *token).expect("all tokens are told");
        sum -= f64::from(likely.logprob);
        client.truncate(context, Tokens(at as u32)).unwrap();
        client.append_tokens(context, vec![*token]).unwrap();
    }
    client.close(context).unwrap();
    sum
}

/// The perplexity of a file in llama.cpp over so many targets.
fn perplexity(daemon: &Daemon, name: &str, tokens: &[Token], count: f64) -> f64 {
    let mut client = daemon.client();
    let file = daemon.dir().join(format!("{name}.gguf"));
    // The fused kernel sums in 16 bits.
    let mount = Mount { attention: Attention::Plain, ..mount(file.to_str().unwrap(), name) };
    client.mount_with(mount, |_| {}).unwrap();
    let sum: f64 = tokens.chunks_exact(LENGTH).map(|window| cost(&mut client, name, window)).sum();
    (sum / count).exp()
}

#[test]
fn perplexity_of_the_trainer_is_llama_cpps_of_the_exported_file() {
    let daemon = Daemon::start();
    let text = text();
    fs::write(daemon.dir().join("text.txt"), &text).unwrap();
    let spec = format!(
        r#"(model: Gpt(layers: 2, heads: 2, width: 64, context: {LENGTH}), data: (train: Text(["text.txt"])),
            tokeniser: (kind: Train(Char)), schedule: Cosine(warmup: 10), optimiser: AdamW(lr: 0.003),
            batch: 8, steps: 120, threads: 1, out: "run")"#
    );
    fs::write(daemon.dir().join("spec.ron"), spec).unwrap();
    trainer(&daemon, &["run", "spec.ron", "--alone", "--quiet", "--cache", "cache"]);
    trainer(&daemon, &["export", "run", "--last", "--format", "gguf", "--out", "model.gguf"]);

    let trained = Trained::load(&daemon.dir().join("run"), Which::Newest).unwrap();
    assert!(trained.config.vocabulary() <= LOGPROBS_MAX as usize, "{}", trained.config.vocabulary());
    let tokens = trained.tokeniser.encode(&text[..WINDOWS * LENGTH]).unwrap();
    let ours = loss_of_windows(&*trained.model().unwrap(), &tokens, LENGTH).unwrap();

    let tokens: Vec<Token> = tokens.into_iter().map(Token).collect();
    let (count, ours) = (ours.count, ours.mean().exp());
    let theirs = perplexity(&daemon, "model", &tokens, count);
    println!("perplexity {ours:.5} in the trainer, {theirs:.5} in llama.cpp");
    assert!((2.0..20.0).contains(&ours), "it has learned something, and not all: {ours}");
    assert!((ours - theirs).abs() <= TOLERANCE * ours, "{ours} in the trainer, {theirs} in llama.cpp");

    // Of matrices that are rounded to 11 and to 8 bits.
    for (matrices, tolerance) in [("f16", 1e-3), ("bf16", 1e-2)] {
        let file = format!("{matrices}.gguf");
        trainer(
            &daemon,
            &["export", "run", "--last", "--format", "gguf", "--matrices", matrices, "--out", &file],
        );
        let size = |name: &str| fs::metadata(daemon.dir().join(name)).unwrap().len();
        assert!(size(&file) * 3 < size("model.gguf") * 2, "{} bytes", size(&file));
        let theirs = perplexity(&daemon, matrices, &tokens, count);
        println!("perplexity {theirs:.5} in llama.cpp with matrices in {matrices}");
        assert!((ours - theirs).abs() <= tolerance * ours, "{ours}, and {theirs} in {matrices}");
    }
}

/// llama.cpp finds every tensor and the vocabulary of the file before the driver says that it runs no such models.
#[test]
fn encoder_decoder_that_is_exported_is_loaded_by_llama_cpp_which_the_driver_then_refuses() {
    let daemon = Daemon::start();
    fs::write(daemon.dir().join("text.txt"), text()).unwrap();
    let spec = r#"(model: T5(layers: 2, heads: 2, width: 32, context: 32), data: (train: Text(["text.txt"])),
            tokeniser: (kind: Train(Unigram(200))), batch: 4, steps: 5, threads: 1, out: "run")"#;
    fs::write(daemon.dir().join("spec.ron"), spec).unwrap();
    trainer(&daemon, &["run", "spec.ron", "--alone", "--quiet", "--cache", "cache"]);
    for matrices in ["f32", "f16", "bf16"] {
        let file = format!("{matrices}.gguf");
        trainer(
            &daemon,
            &["export", "run", "--last", "--format", "gguf", "--matrices", matrices, "--out", &file],
        );
        let path = daemon.dir().join(&file);
        let refused = daemon.client().mount(path.to_str().unwrap(), matrices, |_| {}).unwrap_err();
        assert!(refused.message.contains("runs no encoder-decoder models"), "{refused}");
        // One tensor fewer, and llama.cpp does not load it.
        let mut bytes = fs::read(&path).unwrap();
        let name = b"enc.output_norm.weight";
        let at = bytes.windows(name.len()).position(|found| found == name).unwrap();
        bytes[at] = b'x';
        fs::write(&path, bytes).unwrap();
        let refused = daemon.client().mount(path.to_str().unwrap(), matrices, |_| {}).unwrap_err();
        assert!(!refused.message.contains("runs no encoder-decoder models"), "{refused}");
    }
}
