//! Greedy output through the daemon equals llama.cpp's own, token for token, up to a choice that rounding decides.
//!
//! `tests/golden/greedy.json` holds what `llama-server` chose on the same files with the same prompts, with each
//! of its attention kernels: the two round differently, and on a quantised model a near tie goes the other way. So it may
//! on a processor with other units than the one on which they were written down; what comes behind it is not compared.

use std::path::Path;

use harness::said::{ROUNDING, ROUNDING_QUANTISED, Said, say};
use harness::{Daemon, shared_data};
use serde::Deserialize;
use syscalls::Token;
use syscalls::call::{Attention, Mount};
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

fn greedy(client: &mut Client, model: &str, prompt: &[Token], count: usize) -> Said {
    let context = client.open(Some(model)).expect("opens").context;
    client.append_tokens(context, prompt.to_vec()).expect("appends");
    let said = say(client, context, count as u32);
    client.close(context).expect("closes");
    said
}

impl Golden {
    /// Checks what was said, and tells how many tokens of it are the same.
    #[track_caller]
    fn check(&self, said: &Said, who: &str) -> usize {
        let rounding = if self.file.contains("-Q") { ROUNDING_QUANTISED } else { ROUNDING };
        let same = said.tokens.iter().zip(&self.greedy).take_while(|(a, b)| a == b).count();
        if let (Some(here), Some(there)) = (said.logprobs.get(same), self.greedy.get(same)) {
            let gap = here.top[0].logprob - here.top[1].logprob;
            let tie = here.top[1].token == *there && gap <= rounding;
            let (file, attention) = (&self.file, self.attention);
            assert!(tie, "{file}, {attention:?}, {who}, token {same}: {there:?}, and {here:?} here");
        }
        same
    }
}

#[test]
fn greedy_output_of_one_and_of_eight_equals_llama_cpp() {
    let Some(shared) = shared_data() else { return };
    let daemon = Daemon::start();
    let (mut same, mut all) = (0, 0);
    for golden in golden() {
        let file = shared.join("models").join(&golden.file);
        let path = file.to_str().expect("UTF-8");
        let mount = Mount { attention: golden.attention, ..mount(path, "golden") };
        daemon.client().mount_with(mount, |_| {}).expect("mounts");
        let count = golden.greedy.len();
        let alone = greedy(&mut daemon.client(), "golden", &golden.prompt, count);
        same += golden.check(&alone, "alone");
        let together = std::thread::scope(|scope| {
            let programs: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| greedy(&mut daemon.client(), "golden", &golden.prompt, count)))
                .collect();
            programs.into_iter().map(|p| p.join().expect("no panic")).collect::<Vec<_>>()
        });
        same += together.iter().map(|said| golden.check(said, "one of eight")).sum::<usize>();
        all += 9 * count;
        daemon.client().unmount("golden", false).expect("unmounts");
    }
    assert!(same * 2 > all, "rounding decided all but {same} of {all} tokens");
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
