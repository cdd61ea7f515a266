//! Bad input costs its sender one clear error, and nobody else anything.

mod death;
mod limits;
mod swap;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use harness::said::greedy;
use harness::{DEADLINE, Daemon, shared_data, wait_until};
use serde_json::Value;
use syscalls::call::Append;
use syscalls::client::blocking::Client;
use syscalls::limits::LINE_BYTES_MAX;
use syscalls::{Errno, Fault};

/// The text that `prompt` continues with; deterministic on the sim driver.
fn continued(client: &mut Client, prompt: &str, count: u32) -> Result<String, Fault> {
    let context = client.open(Some("sim"))?.context;
    client.append_text(context, prompt)?;
    let reply = client.generate(greedy(context, count), |_| {})?;
    client.close(context)?;
    Ok(reply.text)
}

/// Runs `attack` while a neighbour generates, and checks that the neighbour's text is what it is alone.
fn beside_a_neighbour(script: &str, attack: impl FnOnce(&Daemon)) {
    let daemon = Daemon::start();
    daemon.mount_sim("sim", script);
    let alone = continued(&mut daemon.client(), "neighbour", 400).expect("generates alone");
    std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| continued(&mut daemon.client(), "neighbour", 400));
        attack(&daemon);
        let beside = neighbour.join().expect("no panic").expect("the neighbour's call must succeed");
        assert_eq!(beside, alone);
    });
    daemon.client().stat(None, None).expect("the daemon lives");
}

/// A connection that speaks in bytes.
struct Raw {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Raw {
    fn connect(daemon: &Daemon) -> Raw {
        let writer = UnixStream::connect(daemon.socket()).expect("connects");
        writer.set_read_timeout(Some(DEADLINE)).expect("sets");
        Raw { reader: BufReader::new(writer.try_clone().expect("clones")), writer }
    }

    fn greeted(daemon: &Daemon) -> Raw {
        let mut raw = Raw::connect(daemon);
        let reply = raw.ask(br#"{"id":1,"call":"hello","args":{"version":1}}"#);
        assert_eq!(reply["id"], 1, "{reply}");
        raw
    }

    fn ask(&mut self, line: &[u8]) -> Value {
        self.writer.write_all(line).expect("writes");
        self.writer.write_all(b"\n").expect("writes");
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the daemon answers in time");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line:?}"))
    }

    fn is_served(&mut self) {
        let reply = self.ask(br#"{"id":99,"call":"sysinfo"}"#);
        assert!(reply["ok"]["sysinfo"].is_object(), "{reply}");
    }
}

fn errno(reply: &Value) -> &str {
    reply["error"]["errno"].as_str().unwrap_or_else(|| panic!("an error was expected: {reply}"))
}

#[test]
fn line_of_100_mb_costs_one_fault_and_no_memory() {
    beside_a_neighbour("row_us=500", |daemon| {
        let before = daemon.resident_kib();
        let mut raw = Raw::greeted(daemon);
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            raw.writer.write_all(&chunk).expect("writes");
        }
        let reply = raw.ask(b"");
        assert_eq!((errno(&reply), reply["id"].as_u64()), ("EMSGSIZE", Some(0)));
        let message = reply["error"]["message"].as_str().expect("a sentence");
        assert!(message.contains(&LINE_BYTES_MAX.to_string()), "{message}");
        assert!(message.contains(&(100 << 20).to_string()) || message.contains("104857601"), "{message}");
        raw.is_served();
        let grown = daemon.resident_kib().saturating_sub(before);
        assert!(grown < 24 << 10, "the daemon grew by {grown} KiB");
    });
}

#[test]
fn line_that_is_no_request_is_answered_and_the_connection_lives() {
    let daemon = Daemon::start();
    let mut raw = Raw::greeted(&daemon);
    for (line, expected) in [
        (&b"{"[..], "EPROTO"),
        (b"", "EPROTO"),
        (b"\xff\xfe", "EPROTO"),
        (b"[1,2,3]", "EPROTO"),
        (b"null", "EPROTO"),
        (br#"{"call":"ps"}"#, "EPROTO"),
        (br#"{"id":"seven","call":"ps"}"#, "EPROTO"),
        (br#"{"id":-1,"call":"ps"}"#, "EPROTO"),
        (br#"{"id":7,"call":"ps","extra":1}"#, "EPROTO"),
        (br#"{"id":7,"call":"frobnicate"}"#, "ENOSYS"),
        (br#"{"id":7,"call":"kill","args":{"pid":"one"}}"#, "EINVAL"),
        (br#"{"id":7,"call":"kill","args":{"pid":-4}}"#, "EINVAL"),
        (br#"{"id":7,"call":"kill","args":[]}"#, "EINVAL"),
        (br#"{"id":7,"call":"kill","args":{"pid":4294967295}}"#, "ESRCH"),
        (br#"{"id":7,"call":"close","args":{"context":123456}}"#, "EBADF"),
        (br#"{"id":7,"pid":424242,"call":"ps"}"#, "ESRCH"),
        (br#"{"id":7,"call":"hello","args":{"version":1}}"#, "EPROTO"),
    ] {
        let reply = raw.ask(line);
        assert_eq!(errno(&reply), expected, "{}: {reply}", String::from_utf8_lossy(line));
        assert!(!reply["error"]["message"].as_str().expect("a sentence").is_empty());
    }
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    assert_eq!(errno(&raw.ask(&deep)), "EPROTO");
    raw.is_served();
}

#[test]
fn call_before_hello_and_wrong_version_are_refused() {
    let daemon = Daemon::start();
    assert_eq!(errno(&Raw::connect(&daemon).ask(br#"{"id":1,"call":"ps"}"#)), "EPROTO");
    let reply = Raw::connect(&daemon).ask(br#"{"id":1,"call":"hello","args":{"version":999}}"#);
    assert_eq!(errno(&reply), "EPROTONOSUPPORT");
}

#[test]
fn client_that_disconnects_in_mid_generation_frees_its_frames() {
    beside_a_neighbour("row_us=500", |daemon| {
        let mut client = daemon.client();
        let pid = client.pid();
        let context = client.open(None).expect("opens").context;
        client.append_text(context, &"x".repeat(1000)).expect("appends");
        client.start(greedy(context, 1000)).expect("starts");
        client.next_frame().expect("the generation has begun");
        drop(client);
        let mut watcher = daemon.client();
        wait_until("the process is gone", || watcher.ps().expect("lists").iter().all(|p| p.pid != pid));
    });
}

#[test]
fn frames_are_all_free_when_every_client_has_gone() {
    let daemon = Daemon::start();
    daemon.mount_sim("sim", "");
    for n in 0..8 {
        let mut client = daemon.client();
        let context = client.open(None).expect("opens").context;
        client.append_text(context, &"y".repeat(100 * n + 1)).expect("appends");
        client.start(greedy(context, 50)).expect("starts");
        client.next_frame().expect("the generation has begun");
    }
    let mut watcher = daemon.client();
    wait_until("all frames are free", || {
        let stats = watcher.stat(None, None).expect("reports");
        stats.frames_total > 0 && stats.frames_free + stats.frames_cached == stats.frames_total
    });
}

#[test]
fn client_that_never_reads_stops_itself_alone() {
    beside_a_neighbour("context=1000000,pool=1048576", |daemon| {
        let mut raw = Raw::greeted(daemon);
        let opened = raw.ask(br#"{"id":2,"call":"open","args":{}}"#);
        let context = opened["ok"]["opened"]["context"].as_u64().expect("opened");
        raw.ask(
            format!(r#"{{"id":3,"call":"append","args":{{"context":{context},"text":"go"}}}}"#).as_bytes(),
        );
        let line = format!(
            r#"{{"id":4,"call":"generate","args":{{"context":{context},"ignore_eos":true,"logprobs":32}}}}"#
        );
        raw.writer.write_all(line.as_bytes()).expect("writes");
        raw.writer.write_all(b"\n").expect("writes");
        let mut watcher = daemon.client();
        wait_until("its process waits for its reader", || {
            let processes = watcher.ps().expect("lists");
            processes.iter().any(|p| p.waits_for.as_deref().is_some_and(|w| w.contains("reader")))
        });
        let resident = daemon.resident_kib();
        assert!(resident < 200 << 10, "unread output is bounded");
        harness::figure(
            "slow reader",
            &format!("held up with {resident} KiB in the daemon, its neighbour unchanged"),
        );
        // It goes on when it reads again.
        let mut some = vec![0; 4 << 20];
        raw.reader.read_exact(&mut some).expect("more comes");
    });
}

#[test]
fn prompt_longer_than_the_context_names_both_lengths() {
    beside_a_neighbour("context=512,row_us=500", |daemon| {
        let mut client = daemon.client();
        let context = client.open(None).expect("opens").context;
        // One more for the beginning of the text.
        let fault = client.append_text(context, &"z".repeat(9000)).expect_err("does not fit");
        assert_eq!(fault.errno, Errno::ENOSPC);
        assert!(fault.message.contains("9001") && fault.message.contains("512"), "{fault}");
        client.append_text(context, "fits").expect("the context is as it was");
    });
}

#[test]
fn text_that_kills_the_worker_costs_its_sender_alone() {
    beside_a_neighbour("row_us=500,die_on_text=poison", |daemon| {
        let mut client = daemon.client();
        let context = client.open(None).expect("opens").context;
        let fault = match client.append_text(context, "this is poison to the worker") {
            Ok(_) => client.generate(greedy(context, 5), |_| {}).expect_err("the worker dies of it"),
            Err(fault) => fault,
        };
        assert_eq!(fault.errno, Errno::EIO, "{fault}");
        let stats = client.stat(None, None).expect("reports");
        assert!(stats.worker_restarts >= 1, "{stats:?}");
    });
}

#[test]
fn worker_killed_by_hand_is_replaced_and_nothing_is_lost() {
    beside_a_neighbour("row_us=2000", |daemon| {
        let worker = daemon.client().models().expect("lists")[0].worker_os_pid;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker as i32), nix::sys::signal::Signal::SIGKILL)
            .expect("kills");
        let mut watcher = daemon.client();
        wait_until("another worker runs", || {
            let model = &watcher.models().expect("lists")[0];
            model.worker_os_pid != 0 && model.worker_os_pid != worker
        });
    });
}

#[test]
fn append_with_two_kinds_of_content_is_refused() {
    let daemon = Daemon::start();
    daemon.mount_sim("sim", "");
    let mut client = daemon.client();
    let context = client.open(None).expect("opens").context;
    let both =
        Append { context, text: Some("a".into()), tokens: Some(Vec::new()), messages: None, special: false };
    assert_eq!(client.append(both).expect_err("two kinds").errno, Errno::EINVAL);
    let none = Append { context, text: None, tokens: None, messages: None, special: false };
    assert_eq!(client.append(none).expect_err("no kind").errno, Errno::EINVAL);
}

/// Writes a damaged copy of the starter and gives its path.
fn damaged(dir: &Path, name: &str, damage: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(harness::starter()).expect("the starter is part of the project");
    damage(&mut bytes);
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("writes");
    path
}

#[test]
fn model_file_damaged_gives_one_sentence_and_no_worker() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let header_counts = |at: usize| move |bytes: &mut Vec<u8>| bytes[at..at + 8].fill(0x7f);
    let cases = [
        ("text.gguf", damaged(dir.path(), "text.gguf", |b| *b = b"once upon a time".to_vec())),
        ("empty.gguf", damaged(dir.path(), "empty.gguf", Vec::clear)),
        ("version.gguf", damaged(dir.path(), "version.gguf", |b| b[4] = 77)),
        ("tensors.gguf", damaged(dir.path(), "tensors.gguf", header_counts(8))),
        ("metadata.gguf", damaged(dir.path(), "metadata.gguf", header_counts(16))),
        ("short.gguf", damaged(dir.path(), "short.gguf", |b| b.truncate(b.len() / 2))),
        ("header.gguf", damaged(dir.path(), "header.gguf", |b| b.truncate(100))),
        ("strange.gguf", damaged(dir.path(), "strange.gguf", |b| rename_architecture(b))),
    ];
    let daemon = Daemon::start();
    daemon.mount_sim("sim", "");
    for (name, path) in cases {
        let out = daemon.llmasos(["mount", path.to_str().expect("UTF-8"), "--name", "bad"]);
        let errors = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{name}: {errors}");
        assert!(errors.contains(name), "{name}: {errors}");
        assert_eq!(errors.trim().lines().count(), 1, "{name}: {errors}");
        let path = path.to_str().expect("UTF-8");
        let fault = daemon.client().mount(path, "bad", |_| {}).expect_err("is no model");
        assert_eq!(fault.errno, Errno::ENOEXEC, "{name}: {fault}");
    }
    let missing = daemon.llmasos(["mount", "/nowhere/model.gguf"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/model.gguf"));
    assert_eq!(daemon.client().models().expect("lists").len(), 1);
    continued(&mut daemon.client(), "still", 5).expect("the neighbour's model serves");
}

/// Calls the model's family something that no driver knows.
fn rename_architecture(bytes: &mut [u8]) {
    let key = b"general.architecture";
    let at = bytes.windows(key.len()).position(|w| w == key).expect("has the key") + key.len();
    // Behind the key: the value's type (4 bytes), its length (8 bytes), its bytes.
    bytes[at + 12] = b'x';
}

#[test]
fn text_outside_a_models_alphabet_is_refused_and_the_worker_lives() {
    let Some(shared) = shared_data() else { return };
    let daemon = Daemon::start();
    let model = shared.join("models/TinyStories-656K/TinyStories-656K-F16.gguf");
    daemon.client().mount(model.to_str().expect("UTF-8"), "stories", |_| {}).expect("mounts");
    let mut client = daemon.client();
    let context = client.open(None).expect("opens").context;
    let fault = client.append_text(context, "今天天气怎么样？").expect_err("no byte tokens");
    assert_eq!(fault.errno, Errno::EILSEQ);
    assert!(fault.message.contains('今'), "{fault}");
    client.append_text(context, "Once upon a time").expect("the context is as it was");
    client.generate(greedy(context, 8), |_| {}).expect("generates");
    assert_eq!(client.stat(None, None).expect("reports").worker_restarts, 0);
}

#[test]
fn second_daemon_on_the_socket_is_refused_and_the_first_serves() {
    let daemon = Daemon::start();
    let out = daemon.second_daemon();
    assert_eq!(out.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(errors.contains(daemon.socket().to_str().expect("UTF-8")), "{errors}");
    daemon.client().sysinfo().expect("the first daemon serves");
}

#[test]
fn socket_file_of_a_dead_daemon_is_replaced() {
    let mut daemon = Daemon::start();
    daemon.kill9();
    assert!(daemon.socket().exists(), "kill -9 leaves the file behind");
    daemon.restart();
    daemon.client().sysinfo().expect("serves again");
}
