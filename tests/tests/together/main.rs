//! Processes together on one model: what comes out for each is what comes out when it is alone, whatever was taken
//! back, guessed, shared, forked, saved or slid on the way.
//!
//! On a deterministic mount to the last bit; on others as far as rounding goes (`harness::said`).

mod all;
mod drafts;
mod preemption;

use std::path::Path;

use drivers::gguf::random::Shape;
use harness::Daemon;
use syscalls::Tokens;
use syscalls::call::{Attention, Mount};
use syscalls::client::mount;

/// The name of the model.
const MODEL: &str = "m";

/// Positions of a page.
const PAGE: u32 = 64;

/// Both ways to mount.
const DETERMINISTIC: [bool; 2] = [true, false];

/// A model of random weights in a pool of so many cells, on a new mount: no page of an earlier one is there, and no
/// cost of a step is known.
fn mount_anew(daemon: &Daemon, shape: &Shape, cells: u32, deterministic: bool) {
    let path = daemon.dir().join(format!("random-{}.gguf", shape.embedding));
    if !path.exists() {
        shape.write(&path).expect("a model can be written");
    }
    mount_file(daemon, &path, cells, deterministic);
}

fn mount_file(daemon: &Daemon, path: &Path, cells: u32, deterministic: bool) {
    let mut client = daemon.client();
    if !client.models().expect("lists").is_empty() {
        client.unmount(MODEL, true).expect("it is mounted");
    }
    let path = path.to_str().expect("UTF-8");
    let context = Some(Tokens(cells));
    // One thread: two that wait for each other take many times as long on a machine that is busy with other tests.
    let mount =
        Mount { context, attention: Attention::Flash, threads: Some(1), deterministic, ..mount(path, MODEL) };
    client.mount_with(mount, |_| {}).expect("mounts");
}
