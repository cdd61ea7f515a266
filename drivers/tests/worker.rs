//! The worker process as the kernel sees it: over the socket, with its deaths.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use drivers::gguf::random::Shape;
use drivers::wire::{
    Answer, Asid, FromWorker, LoadRequest, MESSAGE_BYTES_MAX, ModelDescription, Op, PageLabel, PageOwner,
    Question, Row, RowDone, SamplerSpec, SamplingSpec, Slot, Step, StepDone, SwapArea, ToWorker,
    TokenizeRequest, receive, send,
};
use syscalls::call::{Attention, Sampling};
use syscalls::{Errno, Token};

/// How long anything here may take on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(120);

struct Worker {
    child: Child,
    stream: UnixStream,
}

impl Worker {
    fn start(path: &str, cache: Option<&Path>) -> Worker {
        Worker::start_with_swap(path, cache, None)
    }

    /// Starts a worker that inherits a file for the host tier.
    fn start_with_swap(path: &str, cache: Option<&Path>, host: Option<&File>) -> Worker {
        let host = host.map(AsRawFd::as_raw_fd);
        let load = LoadRequest {
            path: path.into(),
            context_tokens: None,
            sequences_max: 8,
            attention: Attention::Auto,
            gpu_layers: None,
            threads: Some(2),
            cache_dir: cache.map(|cache| cache.to_str().expect("UTF-8").into()),
            swap: host.map(|host| SwapArea { host_fd: Some(host), disk_fd: None }),
            ..LoadRequest::default()
        };
        let (stream, theirs) = UnixStream::pair().expect("a socket pair");
        stream.set_read_timeout(Some(DEADLINE)).expect("a limit on waiting");
        let mut command = Command::new(env!("CARGO_BIN_EXE_llmasos-driver"));
        command
            .args(["run", "--load", &serde_json::to_string(&load).expect("JSON")])
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        // SAFETY: between fork and exec the closure makes one system call, on a file that is open.
        unsafe {
            command.pre_exec(move || match host {
                Some(fd) if libc::fcntl(fd, libc::F_SETFD, 0) < 0 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let child = command.spawn().expect("the worker starts");
        Worker { child, stream }
    }

    fn hear(&mut self) -> FromWorker {
        loop {
            match receive(&mut self.stream).expect("the worker speaks the wire") {
                Some(FromWorker::Loading(_)) => {}
                Some(message) => return message,
                None => panic!("the worker is gone: {:?}", self.child.wait()),
            }
        }
    }

    fn ready(&mut self) -> ModelDescription {
        match self.hear() {
            FromWorker::Ready(description) => *description,
            other => panic!("not ready: {other:?}"),
        }
    }

    fn say(&mut self, message: ToWorker) {
        send(&mut self.stream, &message).expect("the worker reads");
    }

    fn run(&mut self, number: u64, ops: Vec<Op>, rows: Vec<Row>) -> StepDone {
        self.say(ToWorker::Step(Step { number, ops, rows }));
        match self.hear() {
            FromWorker::Done(done) => done,
            other => panic!("no step: {other:?}"),
        }
    }

    fn ended(mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the worker lives on");
            std::thread::yield_now();
        }
    }
}

fn model(folder: &Path) -> PathBuf {
    let path = folder.join("model.gguf");
    Shape::preset("tiny").expect("the preset exists").write(&path).expect("it can be written");
    path
}

fn greedy(tokens: Vec<Token>) -> Step {
    let sampling = SamplingSpec::new(&Sampling { temperature: 0.0, ..Sampling::default() }, 1);
    let sampler =
        SamplerSpec { sampling, history: vec![], generated: vec![], ignore_eos: true, logprobs: None };
    let ops = vec![
        Op::Drop { asid: Asid(0), from: 0 },
        Op::SamplerOpen { asid: Asid(0), sampler: Box::new(sampler) },
    ];
    Step {
        number: 7,
        ops,
        rows: vec![Row { asid: Asid(0), position: 0, tokens: tokens.into(), sample: true, draft: vec![] }],
    }
}

#[test]
fn worker_loads_steps_answers_and_ends_with_its_kernel() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = model(folder.path());
    let mut worker = Worker::start(path.to_str().expect("UTF-8"), Some(folder.path()));
    let description = worker.ready();
    assert_eq!((description.driver.as_str(), description.sequences), ("llama", 8));
    assert_ne!(description.attention, Attention::Auto);

    let text = "the same text";
    worker.say(ToWorker::Ask(
        3,
        Question::Tokenize(TokenizeRequest { text: text.into(), bos: false, special: false }),
    ));
    let tokens = match worker.hear() {
        FromWorker::Answer(3, Ok(Answer::Tokens(tokens))) => tokens,
        other => panic!("no tokens: {other:?}"),
    };
    worker.say(ToWorker::Ask(4, Question::Detokenize(tokens.clone())));
    assert_eq!(worker.hear(), FromWorker::Answer(4, Ok(Answer::Bytes(text.into()))));
    worker.say(ToWorker::Ask(5, Question::Embed(vec![text.into()])));
    assert!(matches!(worker.hear(), FromWorker::Answer(5, Err(fault)) if fault.errno == Errno::ENOSYS));

    worker.say(ToWorker::Step(greedy(tokens)));
    match worker.hear() {
        FromWorker::Done(done) => {
            assert_eq!(done.number, 7);
            assert!(matches!(done.rows[..], [RowDone::Sampled(_)]), "{done:?}");
        }
        other => panic!("no step: {other:?}"),
    }
    worker.say(ToWorker::Step(greedy(vec![Token(u32::MAX)])));
    assert!(matches!(worker.hear(), FromWorker::StepFailed(7, fault) if fault.errno == Errno::EINVAL));

    let kept = std::fs::read_dir(folder.path()).expect("the folder").flatten();
    let names: Vec<_> = kept.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.starts_with("arithmetic-")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("attention-")), "{names:?}");

    let Worker { child, stream } = worker;
    let (rest, _) = UnixStream::pair().expect("a socket pair");
    drop(stream);
    assert_eq!(Worker { child, stream: rest }.ended(), Some(0));
}

#[test]
fn answer_longer_than_a_message_is_a_fault_and_the_worker_lives() {
    let mut worker = Worker::start("sim:", None);
    worker.ready();
    // Each has a name of twelve bytes.
    let tokens = vec![Token(258); MESSAGE_BYTES_MAX / 12 + 1];
    worker.say(ToWorker::Ask(1, Question::Detokenize(tokens)));
    assert!(matches!(worker.hear(), FromWorker::Answer(1, Err(fault)) if fault.errno == Errno::E2BIG));
    worker.say(ToWorker::Ask(2, Question::Detokenize(vec![Token(65)])));
    assert_eq!(worker.hear(), FromWorker::Answer(2, Ok(Answer::Bytes(b"A".into()))));
}

#[test]
fn page_that_a_dead_worker_saved_is_loaded_by_the_next_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = model(folder.path());
    let file = tempfile::tempfile().expect("a file");
    let start = || Worker::start_with_swap(path.to_str().expect("UTF-8"), Some(folder.path()), Some(&file));
    let asid = Asid(0);
    let tokens = vec![Token(65); 64].into();
    let computed = Row { asid, position: 0, tokens, sample: false, draft: vec![] };
    let page = PageLabel { from: 0, to: 64, digest: 3, owner: PageOwner::User(7) };
    let slot = Slot::Host(2);

    let mut first = start();
    assert!(first.ready().page_bytes > 0);
    assert_eq!(first.run(1, vec![], vec![computed]).rows, [RowDone::Computed]);
    let saved = first.run(2, vec![Op::Save { asid, page, slot }], vec![]);
    assert!(matches!(saved.pages[..], [Ok(_)]), "{saved:?}");
    first.child.kill().expect("it can be killed");

    let mut second = start();
    second.ready();
    let loaded = second.run(1, vec![Op::Load { asid, page, slot }], vec![]);
    assert!(matches!(loaded.pages[..], [Ok(_)]), "{loaded:?}");
    let next = Row { asid, position: 64, tokens: vec![Token(66)].into(), sample: false, draft: vec![] };
    assert_eq!(second.run(2, vec![], vec![next]).rows, [RowDone::Computed]);
}

#[test]
fn step_withdrawn_over_the_socket_is_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = model(folder.path());
    let mut worker = Worker::start(path.to_str().expect("UTF-8"), None);
    worker.ready();
    worker.say(ToWorker::Withdraw(7));
    worker.say(ToWorker::Step(greedy(vec![Token(65); 100])));
    assert!(matches!(worker.hear(), FromWorker::Done(done) if done.rows == [RowDone::Withdrawn]));
    worker.say(ToWorker::Step(Step { number: 8, ..greedy(vec![Token(65); 100]) }));
    assert!(
        matches!(worker.hear(), FromWorker::Done(done) if matches!(done.rows[..], [RowDone::Sampled(_)]))
    );
}

#[test]
fn worker_in_the_middle_of_a_step_ends_with_its_kernel() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = model(folder.path());
    let mut worker = Worker::start(path.to_str().expect("UTF-8"), None);
    let description = worker.ready();
    let most = description.batch_tokens.min(description.context_tokens);
    worker.say(ToWorker::Step(greedy(vec![Token(65); most as usize])));
    let Worker { child, stream } = worker;
    let (rest, _) = UnixStream::pair().expect("a socket pair");
    drop(stream);
    assert_eq!(Worker { child, stream: rest }.ended(), Some(0));
}

#[test]
fn worker_that_hangs_ends_with_its_kernel() {
    let mut worker = Worker::start("sim:hang_at_step=7", None);
    worker.ready();
    worker.say(ToWorker::Step(greedy(vec![Token(65)])));
    let Worker { child, stream } = worker;
    let (rest, _) = UnixStream::pair().expect("a socket pair");
    drop(stream);
    assert_eq!(Worker { child, stream: rest }.ended(), Some(0));
}

#[test]
fn file_that_cannot_be_loaded_is_refused_with_the_reason() {
    let mut worker = Worker::start("/nowhere/model.gguf", None);
    match worker.hear() {
        FromWorker::Refused(fault) => assert_eq!(fault.errno, Errno::ENOENT),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(worker.ended(), Some(0));
}

#[test]
fn probe_passes_on_this_machine() {
    for arithmetic in ["packed", "unpacked"] {
        let status = Command::new(env!("CARGO_BIN_EXE_llmasos-driver"))
            .args(["probe", "--arithmetic", arithmetic])
            .status()
            .expect("the worker starts");
        assert!(status.success(), "{arithmetic}: {status}");
    }
}
