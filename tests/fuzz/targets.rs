//! What is fuzzed: everything that reads bytes of somebody who may mean harm. Each target is a function that must return
//! for any bytes at all, and that checks what must hold of what it made of them.
//!
//! `make fuzz` runs them under libFuzzer, which looks for bytes that reach further; `tests/tests/fuzz.rs` runs them
//! on seeds and random changes of seeds in every `make test`.

use std::io::Cursor;
use std::sync::atomic::{AtomicU32, Ordering};

use apps::recording::{self, Header, RecordedModel, Recorder};
use apps::replay;
use apps::shell::syntax;
use drivers::gguf;
use drivers::gguf::random::Shape;
use drivers::wire::{FromWorker, LoadRequest, Question, Step, ToWorker, decode, encode};
use kernel::host::settings::Settings;
use syscalls::call::Attention;
use syscalls::codec::{Line, LineReader};
use syscalls::{CallId, Errno, Event, Fault, Frame, Pid, Reply, Request, Token};

/// A target by its name, and inputs to begin with.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target { name: "requests", run: requests, seeds: request_seeds },
    Target { name: "frames", run: frames, seeds: frame_seeds },
    Target { name: "worker_wire", run: worker_wire, seeds: worker_wire_seeds },
    Target { name: "gguf", run: gguf, seeds: gguf_seeds },
    Target { name: "config", run: config, seeds: config_seeds },
    Target { name: "shell", run: shell, seeds: shell_seeds },
    Target { name: "recordings", run: recordings, seeds: recording_seeds },
];

/// A sentence for people is longer than nothing and shorter than a page, whatever is wrong.
const SENTENCE_BYTES_MAX: usize = 4096;

/// The longest line of a stream that is fuzzed.
const LINE_BYTES_MAX: usize = 1 << 10;

fn assert_sentence(sentence: &str) {
    assert!(!sentence.trim().is_empty(), "an error says nothing");
    assert!(sentence.len() <= SENTENCE_BYTES_MAX, "an error says {} bytes", sentence.len());
}

/// What programs send: a stream cut into lines, each of them a request. The first byte says how the stream is cut into
/// reads.
pub fn requests(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let mut reader = LineReader::new(LINE_BYTES_MAX);
    for read in stream.chunks(usize::from(*cut) + 1) {
        reader.push(read);
        while let Some(line) = reader.next_line() {
            match line {
                Line::TooLong(length) => assert!(length > LINE_BYTES_MAX as u64),
                Line::Whole(line) => request(&line),
            }
        }
    }
}

fn request(line: &[u8]) {
    match Request::from_line(line) {
        Err((_, fault)) => assert_sentence(&fault.message),
        Ok(request) => {
            let Ok(line) = request.to_line() else { return };
            let again = Request::from_line(line.strip_suffix(b"\n").unwrap_or(&line));
            assert_eq!(again.as_ref(), Ok(&request), "a request is read as it was written");
        }
    }
}

fn request_seeds() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"id":1,"call":"hello","args":{"version":1,"name":"x","class":"batch","nice":-3}}"#,
        r#"{"id":2,"call":"open","args":{"model":"m","tokens_max":64,"on_full":"slide"}}"#,
        r#"{"id":3,"pid":7,"call":"append","args":{"context":1,"text":"été 今天"}}"#,
        r#"{"id":4,"call":"append","args":{"context":1,"messages":[{"role":"user","content":"hi"}]}}"#,
        r#"{"id":5,"call":"generate","args":{"context":1,"max_tokens":5,"stop":["x"],"sampling":{"seed":1,"temperature":0.5}}}"#,
        r#"{"id":6,"call":"kill","args":{"pid":2,"signal":"TERM"}}"#,
        r#"{"id":7,"call":"store_put","args":{"store":"s","key":"k","value":{"a":[1,null,-2.5e3]}}}"#,
        r#"{"id":8,"call":"setlimit","args":{"pid":2,"limit":"contexts","value":3}}"#,
        r#"{"id":9,"call":"mount","args":{"path":"sim:step_us=5","name":"m"}}"#,
        r#"{"id":10,"call":"ps"}"#,
    ];
    let whole = lines.join("\n") + "\n";
    let mut seeds: Vec<Vec<u8>> = lines.iter().map(|line| format!("\u{7f}{line}\n").into_bytes()).collect();
    seeds.push(format!("\u{3}{whole}").into_bytes());
    seeds
}

/// What the daemon sends, as a client reads it.
pub fn frames(line: &[u8]) {
    match Frame::from_line(line) {
        Err(sentence) => assert_sentence(&sentence),
        Ok(frame) => {
            let mut line = Vec::new();
            frame.write_line(&mut line);
            let again = Frame::from_line(line.strip_suffix(b"\n").unwrap_or(&line));
            assert_eq!(again.as_ref(), Ok(&frame), "a frame is read as it was written");
        }
    }
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let frames = [
        Frame::Reply(CallId(1), Ok(Reply::Done {})),
        Frame::Reply(CallId(2), Ok(Reply::Keys(vec!["a".into(), "b".into()]))),
        Frame::Reply(CallId(3), Ok(Reply::Value(Some(serde_json::json!({"a": [1, 2.5, null]}))))),
        Frame::Reply(CallId(4), Err(Fault::new(Errno::ENOSPC, "context is full"))),
    ];
    let line = |frame: &Frame| {
        let mut line = Vec::new();
        frame.write_line(&mut line);
        line.pop();
        line
    };
    // A number of more digits than a float tells apart.
    let long = format!(r#"{{"id":5,"ok":{{"value":{{"a":1{}}}}}}}"#, "8".repeat(92));
    frames.iter().map(line).chain([long.into_bytes()]).collect()
}

/// What kernel and worker say to each other, either way.
pub fn worker_wire(bytes: &[u8]) {
    read_message::<ToWorker>(bytes);
    read_message::<FromWorker>(bytes);
}

fn read_message<T>(bytes: &[u8])
where
    T: serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    match decode::<T>(bytes) {
        Ok(None) => {}
        Err(e) => assert_sentence(&e.to_string()),
        Ok(Some((message, used))) => {
            assert!(used <= bytes.len());
            let mut written = Vec::new();
            encode(&message, &mut written).expect("it was no longer than a message may be");
            let (again, _) = decode::<T>(&written).expect("it was written here").expect("it is whole");
            // By their words: a number that is none does not equal itself.
            assert_eq!(format!("{again:?}"), format!("{message:?}"), "a message is read as it was written");
        }
    }
}

fn worker_wire_seeds() -> Vec<Vec<u8>> {
    let question = Question::Detokenize(vec![Token(1), Token(300)]);
    let words: [ToWorker; 3] =
        [ToWorker::Step(Step::default()), ToWorker::Withdraw(7), ToWorker::Ask(1, question)];
    let answers = [FromWorker::Loading(0.5), FromWorker::Ready(Box::default())];
    words.iter().map(message).chain(answers.iter().map(message)).collect()
}

fn message<T: serde::Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("it is small");
    bytes
}

/// The header of a model file.
pub fn gguf(bytes: &[u8]) {
    let read = gguf::read(Cursor::new(bytes), bytes.len() as u64);
    match read.and_then(|header| gguf::check_runnable(&header).map(|()| header)) {
        Err(e) => assert_sentence(&e.to_string()),
        // Whatever it estimates, it must come to an end.
        Ok(header) => {
            if let Err(e) = gguf::estimate(&header, &[], &LoadRequest::default()) {
                assert_sentence(&e.to_string());
            }
        }
    }
}

fn gguf_seeds() -> Vec<Vec<u8>> {
    let mut shape = Shape::preset("tiny").expect("the preset exists");
    (shape.embedding, shape.feed_forward, shape.vocabulary, shape.context) = (64, 64, 300, 64);
    (shape.layers, shape.heads, shape.kv_heads) = (1, 2, 2);
    // Tests of one process ask for seeds at the same time.
    static FILES: AtomicU32 = AtomicU32::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("llmasos-fuzz-{}-{number}.gguf", std::process::id()));
    shape.write(&path).expect("a small file can be written");
    let bytes = std::fs::read(&path).expect("it was written");
    std::fs::remove_file(&path).expect("it was written");
    vec![bytes, b"GGUF\x03\0\0\0".to_vec()]
}

/// The daemon's configuration.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(e) = Settings::from_text(text) {
        assert_sentence(&e.to_string());
    }
}

fn config_seeds() -> Vec<Vec<u8>> {
    let full = include_bytes!("../../kernel/dist/llmasos.ron").to_vec();
    let some = br#"(log: "debug", mounts: [(path: "/m.gguf", name: "m", context: 8192)], policy: "edf",
        devices: [(name: "cuda:0", memory: "12GiB")], jail: (strictness: off))"#;
    vec![full, some.to_vec(), b"()".to_vec()]
}

/// A line of the shell, or a script.
pub fn shell(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    if let Err(e) = syntax::parse(source) {
        assert_sentence(&e.message);
        assert!(e.at <= source.len() && e.line(source) >= 1);
        assert!(e.show(source).contains('^'));
    }
}

fn shell_seeds() -> Vec<Vec<u8>> {
    let lines = [
        "generate --raw 'Once upon' > story.txt &",
        "a=1 b=\"$HOME $x\" cmd \\\n  more | other 2>&1 >> log && next || last; fi",
        "cat <<'END' | wc\ntext ${x} $(y)\nEND\n",
        "echo \"été\" '今天' # a comment",
        "kill -STOP 4; wait %1; ! true",
    ];
    lines.iter().map(|line| line.as_bytes().to_vec()).collect()
}

/// What `trace -o` has written, as `replay` reads it.
pub fn recordings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match recording::read(text) {
        Err(refused) => assert_sentence(&refused.to_string()),
        Ok(recording) => {
            for event in &recording.events {
                let line = serde_json::to_string(event).expect("events hold nothing that JSON lacks");
                // A number too large for its field is written as none.
                if let Ok(again) = serde_json::from_str::<Event>(&line) {
                    assert_eq!(&again, event, "an event is read as it was written");
                }
            }
            if let Err(unfit) = replay::wanted(&recording) {
                assert_sentence(&unfit.to_string());
            }
        }
    }
}

fn recording_seeds() -> Vec<Vec<u8>> {
    let (at_us, pid, took_us) = (5, Pid(7), 9);
    let called = |number, call: &str, args| Event::Called { at_us, pid, number, call: call.into(), args };
    let returned = |number, call: &str, result| Event::Returned {
        at_us,
        pid,
        number,
        call: call.into(),
        took_us,
        result: Some(result),
        fault: None,
    };
    let events = [
        called(1, "open", serde_json::json!({"model": "m", "tokens_max": 64})),
        returned(
            1,
            "open",
            serde_json::json!({"opened": {"context": 3, "model": "m", "length": 0, "tokens_max": 64}}),
        ),
        called(2, "append", serde_json::json!({"context": 3, "text": "été 今天"})),
        returned(2, "append", serde_json::json!({"appended": {"length": 9, "added": 9}})),
        called(3, "kill", serde_json::json!({"pid": 2, "signal": "TERM"})),
    ];
    let settings = recording::Settings { follow: true, tokens: false };
    let header = Header {
        models: vec![RecordedModel {
            name: "m".into(),
            path: "sim:".into(),
            fingerprint: "f".into(),
            context_tokens: 64,
            attention: Attention::default(),
            device: "cpu".into(),
            threads: 2,
        }],
        ..Header::new("0.1.0", &[], settings)
    };
    let written = |events: &[Event]| {
        let mut recorder = Recorder::new(Vec::new(), &header).expect("memory can be written");
        events.iter().for_each(|event| recorder.take(event).expect("memory can be written"));
        recorder.finish().expect("memory can be written").0
    };
    vec![written(&events), written(&events[..1]), written(&[])]
}
