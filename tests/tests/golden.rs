//! Greedy output through the daemon equals llama.cpp's own, token for token.
//!
//! `tests/golden/greedy.json` holds what `llama-server` chose on the same files with the same prompts, with each
//! of its attention kernels: the two round differently, and on a quantised model a near tie goes the other way.

use std::path::Path;

use harness::said;
use harness::{Daemon, shared_data};
use serde::Deserialize;
use syscalls::Token;
use syscalls::call::{Attention, Generate, Mount};
use syscalls::client::blocking::Client;
use syscalls::client::mount;

/// What llama.cpp chose on one file.
#[derive(Deserialize)]
struct Golden {
    /// Under `models` of the shared data.
    file: String,
    attention: Attention,
    prompt: Vec<Token>,
    greedy: Vec<Token>,
}

fn golden() -> Vec<Golden> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/greedy.json");
    let text = std::fs::read_to_string(path).expect("the golden file is part of the project");
    serde_json::from_str(&text).expect("the golden file is valid")
}

fn greedy(client: &mut Client, model: &str, prompt: &[Token], count: usize) -> Vec<Token> {
    let context = client.open(Some(model)).expect("opens").context;
    client.append_tokens(context, prompt.to_vec()).expect("appends");
    let request = Generate { stream: false, ..said::greedy(context, count as u32) };
    let tokens = client.generate(request, |_| {}).expect("generates").tokens;
    client.close(context).expect("closes");
    tokens
}

#[test]
fn greedy_output_of_one_and_of_eight_equals_llama_cpp() {
    let Some(shared) = shared_data() else { return };
    let daemon = Daemon::start();
    for golden in golden() {
        let file = shared.join("models").join(&golden.file);
        let path = file.to_str().expect("UTF-8");
        let mount = Mount { attention: golden.attention, ..mount(path, "golden") };
        daemon.client().mount_with(mount, |_| {}).expect("mounts");
        let count = golden.greedy.len();
        let alone = greedy(&mut daemon.client(), "golden", &golden.prompt, count);
        assert_eq!(alone, golden.greedy, "{}, {:?}, alone", golden.file, golden.attention);
        let together = std::thread::scope(|scope| {
            let programs: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| greedy(&mut daemon.client(), "golden", &golden.prompt, count)))
                .collect();
            programs.into_iter().map(|p| p.join().expect("no panic")).collect::<Vec<_>>()
        });
        for tokens in together {
            assert_eq!(tokens, golden.greedy, "{}, {:?}, one of eight", golden.file, golden.attention);
        }
        daemon.client().unmount("golden", false).expect("unmounts");
    }
}

#[test]
fn golden_covers_every_gguf_of_the_shared_models() {
    let Some(shared) = shared_data() else { return };
    let covered: Vec<String> = golden().into_iter().map(|g| g.file).collect();
    for folder in std::fs::read_dir(shared.join("models")).expect("readable").flatten() {
        for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_some_and(|e| e == "gguf") {
                let name =
                    path.strip_prefix(shared.join("models")).expect("below").to_string_lossy().into_owned();
                assert!(covered.contains(&name), "{name} has no golden tokens");
            }
        }
    }
}
