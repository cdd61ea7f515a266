//! What the journal gets of a daemon that systemd has started: entries with fields to filter by.
//!
//! There is no systemd here. A mount namespace of the test's own has a socket where the journal's is, and the daemon
//! finds its standard error named in `JOURNAL_STREAM`, which is how it knows the journal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use harness::{DEADLINE, binary, skipped, wait_for};
use syscalls::client::blocking::Client;

/// Puts the folder `$1` where the journal has its socket, then becomes the rest.
const INSIDE: &str = r#"
    mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$1" /run/systemd/journal || exit 99
    export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)
    shift
    exec "$@"
"#;

/// Runs something in a mount namespace with the journal's socket in a folder.
fn inside(folder: &str, argv: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", INSIDE, "sh", folder]).args(argv);
    command
}

/// The fields of an entry, as journald reads them: `NAME=value` lines, and where a value has line breaks the name, the
/// length in eight bytes, and the value.
fn fields(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&entry[..end]).into_owned();
        entry = &entry[end + 1..];
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let (length, rest) = entry.split_at(8);
                let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
                let value = String::from_utf8_lossy(&rest[..length]).into_owned();
                entry = &rest[length + 1..];
                (line, value)
            }
        };
        fields.insert(name, value);
    }
    fields
}

/// The daemon under the journal.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // `exec` has made it the very process that was started.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn entries_of_the_journal_have_fields() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    if !inside(path, &["true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skipped("the journal's fields: this machine lets nobody make a mount namespace");
    }
    let journal = UnixDatagram::bind(folder.path().join("socket")).expect("binds");
    journal.set_read_timeout(Some(DEADLINE)).expect("sets");
    let (socket, data) = (format!("{path}/llmasos.sock"), format!("{path}/data"));
    let stderr = fs::File::create(folder.path().join("stderr")).expect("a file");
    let llmasos = binary("llmasos");
    let argv =
        [llmasos.to_str().expect("UTF-8"), "daemon", "--socket", &socket, "--data", &data, "--log", "debug"];
    let mut command = inside(path, &argv);
    command.env("XDG_CONFIG_HOME", path).env_remove("LLMASOS_CONFIG").stdin(Stdio::null()).stderr(stderr);
    let daemon = Daemon(command.spawn().expect("starts"));
    let mut client = wait_for("the daemon", || Client::connect(socket.as_ref(), "test").ok());
    client.mount("sim:", "m", |_| {}).expect("mounts");
    client.models().expect("lists");
    let mut entries = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    let is = |entry: &BTreeMap<String, String>, name: &str, value: &str| {
        entry.get(name).is_some_and(|found| found == value)
    };
    let ready = |entry: &BTreeMap<String, String>| is(entry, "MESSAGE", "model m is ready");
    let called = |entry: &BTreeMap<String, String>| is(entry, "CALL", "models");
    while !(entries.iter().any(ready) && entries.iter().any(called)) {
        let length = journal.recv(&mut bytes).expect("an entry comes in time");
        entries.push(fields(&bytes[..length]));
    }
    let ready = entries.iter().find(|entry| ready(entry)).expect("it came");
    assert!(is(ready, "MODEL", "m") && is(ready, "SYSLOG_IDENTIFIER", "llmasos"), "{ready:?}");
    assert!(
        is(ready, "MESSAGE_ID", "6f1d3b1c5a2e4c0f9f3e7a8d0b9c4e21") && is(ready, "PRIORITY", "5"),
        "{ready:?}"
    );
    let called = entries.iter().find(|entry| called(entry)).expect("it came");
    assert!(is(called, "PID_LLMASOS", &client.pid().0.to_string()), "{called:?}");
    let lines = fs::read_to_string(folder.path().join("stderr")).expect("reads");
    assert!(!lines.contains("model m is ready"), "nothing is said twice: {lines}");
    drop(daemon);
}
