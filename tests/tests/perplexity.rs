//! The perplexity of a trained model is the same in the trainer and, from the GGUF that it exports, in llama.cpp, to four
//! digits, in the windows of `llama-perplexity`: each one's second half is counted.
//!
//! The model's vocabulary is so small that the daemon tells of all of it how likely it is.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{Daemon, output, shared_data};
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
fn cost(client: &mut Client, window: &[Token]) -> f64 {
    let context = client.open(Some("model")).unwrap().context;
    let half = LENGTH / 2 + 1;
    client.append_tokens(context, window[..half].to_vec()).unwrap();
    let mut sum = 0.0;
    for (at, token) in window.iter().enumerate().skip(half) {
        let one = Generate {
            stream: false,
            logprobs: Some(LOGPROBS_MAX),
            ignore_eos: false,
            ..output::greedy(context, 1)
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

    let mut client = daemon.client();
    let file = daemon.dir().join("model.gguf");
    // The fused kernel sums in 16 bits.
    let mount = Mount { attention: Attention::Plain, ..mount(file.to_str().unwrap(), "model") };
    client.mount_with(mount, |_| {}).unwrap();
    let tokens: Vec<Token> = tokens.into_iter().map(Token).collect();
    let sum: f64 = tokens.chunks_exact(LENGTH).map(|window| cost(&mut client, window)).sum();
    let (ours, theirs) = (ours.mean().exp(), (sum / ours.count).exp());
    println!("perplexity {ours:.5} in the trainer, {theirs:.5} in llama.cpp");
    assert!((2.0..20.0).contains(&ours), "it has learned something, and not all: {ours}");
    assert!((ours - theirs).abs() <= TOLERANCE * ours, "{ours} in the trainer, {theirs} in llama.cpp");
}
