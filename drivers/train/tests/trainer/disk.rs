//! Disks that are full for a while, and what of a run is on them when the machine stops.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Place, has};

/// A small disk, on which another program can take all of the room.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one, or says that the test is skipped: only the superuser may.
    fn mount(path: &Path, size: &str) -> Option<Disk> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: no disk can be mounted; run the tests as root");
            return None;
        }
        Some(Disk { path: path.to_owned() })
    }

    fn fill(&self) {
        let file = fs::File::create(self.path.join("filler")).unwrap();
        let chunk = vec![b'x'; 1 << 12];
        while std::io::Write::write_all(&mut &file, &chunk).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.path.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn is_checkpoint(event: &Value, refused: bool) -> bool {
    event["event"] == "checkpoint" && event["error"].is_string() == refused
}

#[test]
fn disk_that_is_full_for_a_while_ends_no_run_and_takes_no_best_checkpoint() {
    let place = Place::default();
    let Some(disk) = Disk::mount(&place.path("disk"), "8m") else { return };
    let out = format!("out={}", disk.path.join("run").display());
    // Each evaluation is better than the one before, so each wants to write the best checkpoint.
    let mut started = place.start(&[
        "--set",
        &out,
        "--set",
        "steps=100000",
        "--set",
        "schedule={\"Constant\":{}}",
        "--set",
        "evaluation.every=10",
        "--set",
        "checkpoint.keep=1",
    ]);
    started.wait_for(|event| is_checkpoint(event, false)).expect("there is a checkpoint");
    disk.fill();
    let mut refused = 0;
    let third = |event: &Value| {
        refused += u32::from(is_checkpoint(event, true));
        refused >= 3
    };
    started.wait_for(third).expect("it goes on while checkpoints are refused");
    let best = || {
        let folder = disk.path.join("run/checkpoints");
        train::checkpoint::Folder::of(&disk.path.join("run")).best().unwrap();
        fs::canonicalize(folder.join("best")).unwrap()
    };
    assert!(best().join("model.safetensors").is_file());
    disk.clear();
    started.wait_for(|event| is_checkpoint(event, false)).expect("there is room again");
    started.wait_for(|event| is_checkpoint(event, false)).expect("and again");
    started.signal(libc::SIGINT);
    let end = started.wait_for(|event| event["event"] == "end").expect("it says that it ends");
    assert_eq!(started.child.wait().unwrap().code(), Some(130));
    assert!(best().join("model.safetensors").is_file());
    let log = fs::read_to_string(disk.path.join("run/log.jsonl")).unwrap();
    let entries: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| {
        let entries = entries.iter().filter(|entry| entry["event"] == kind);
        entries.map(|entry| entry["step"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let last = end["step"].as_u64().unwrap();
    // A step in ten has an entry.
    assert_eq!(of("step").len() as u64, last / 10, "nothing of the log is lost");
    assert!(entries.iter().any(|entry| is_checkpoint(entry, true)), "the log says what was refused");
    let events = fs::read_dir(disk.path.join("run/tensorboard")).unwrap().next().unwrap().unwrap();
    assert!(
        events.metadata().unwrap().len() > 100 * last / 10,
        "{} bytes of events",
        events.metadata().unwrap().len()
    );
}

/// What strace has written, with each call on one line, at its end: its two parts stand apart where it took so long that
/// something of another thread came between them.
fn whole_lines(trace: &str) -> Vec<String> {
    let (mut begun, mut lines) = (BTreeMap::new(), Vec::new());
    for line in trace.lines() {
        // Lines begin with the number of the thread.
        let (thread, said) = line.split_once(' ').unwrap_or((line, ""));
        let said = said.trim_start();
        let resumed = said.strip_prefix("<... ").and_then(|said| said.split_once(" resumed>"));
        if let Some(begin) = said.strip_suffix("<unfinished ...>") {
            begun.insert(thread, begin.trim_end());
        } else if let Some((_, end)) = resumed {
            lines.push(begun.remove(thread).unwrap_or_default().to_owned() + end);
        } else {
            lines.push(said.to_owned());
        }
    }
    lines
}

/// The calls that strace has seen: their names, and the paths of their lines.
fn calls(trace: &str) -> Vec<(String, Vec<String>)> {
    let call = |line: &String| {
        let (name, rest) = line.split_once('(')?;
        let quoted = rest.split('"').skip(1).step_by(2).map(str::to_owned);
        let behind = rest.split('<').skip(1).filter_map(|part| Some(part.split_once('>')?.0.to_owned()));
        let paths: Vec<String> = if name.contains("sync") { behind.collect() } else { quoted.collect() };
        rest.contains("= 0").then(|| (name.to_owned(), paths))
    };
    whole_lines(trace).iter().filter_map(call).collect()
}

#[test]
fn call_that_another_thread_came_between_is_read_as_one() {
    let trace = "7 fsync(3</a> <unfinished ...>\n8 +++ exited with 0 +++\n7 <... fsync resumed>)   = 0\n\
                 7 rename(\"/a\", \"/b\") = 0\n";
    let call = |name: &str, paths: &[&str]| {
        (name.to_owned(), paths.iter().map(|&path| path.to_owned()).collect::<Vec<String>>())
    };
    assert_eq!(calls(trace), [call("fsync", &["/a"]), call("rename", &["/a", "/b"])]);
}

#[test]
fn checkpoint_is_on_the_disk_before_it_has_its_name() {
    let place = Place::default();
    if !has("strace") {
        return;
    }
    let trace = place.path("trace");
    let run = place.command(&["--set", "steps=10"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "4096", "-e", "trace=fsync,fdatasync,/^rename", "-o"]).arg(&trace);
    strace.arg(run.get_program()).args(run.get_args()).env("LLMASOS_SOCKET", place.path("socket"));
    let output = strace.output().unwrap();
    let trace = fs::read_to_string(&trace).unwrap_or_default();
    if !output.status.success() && trace.is_empty() {
        eprintln!("skipped: strace may not watch: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = calls(&trace);
    let folder = fs::canonicalize(place.path("run")).unwrap().join("checkpoints");
    let (unfinished, named) = (folder.join(".step-00000010"), folder.join("step-00000010"));
    let renamed = calls.iter().position(|(name, paths)| {
        name.starts_with("rename") && paths.iter().map(Path::new).eq([unfinished.as_path(), named.as_path()])
    });
    let renamed = renamed.unwrap_or_else(|| panic!("it is renamed: {trace}"));
    let synced = |calls: &[(String, Vec<String>)], path: &Path| {
        let of = |(name, paths): &(String, Vec<String>)| {
            name == "fsync" && paths.iter().any(|p| Path::new(p) == path)
        };
        calls.iter().any(of)
    };
    for entry in fs::read_dir(&named).unwrap() {
        let file = unfinished.join(entry.unwrap().file_name());
        assert!(synced(&calls[..renamed], &file), "{} is not synchronised: {trace}", file.display());
    }
    let above = folder.parent().unwrap();
    for path in [unfinished.as_path(), above, above.parent().unwrap()] {
        assert!(synced(&calls[..renamed], path), "{} is not synchronised: {trace}", path.display());
    }
    // The name itself, before anything else gets one; and those of `last` and `best`.
    let mut names: Vec<usize> =
        (renamed..calls.len()).filter(|at| calls[*at].0.starts_with("rename")).collect();
    names.push(calls.len());
    for pair in names.windows(2) {
        let (name, until) = (&calls[pair[0]], pair[1]);
        let here = name.1.first().is_some_and(|path| Path::new(path).starts_with(&folder));
        assert!(!here || synced(&calls[pair[0]..until], &folder), "{name:?}: {trace}");
    }
}
