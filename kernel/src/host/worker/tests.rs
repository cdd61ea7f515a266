//! Workers that are shell scripts: how they start, what of their words is passed on, and how they end.

use std::fs;

use drivers::wire::{DriverFault, encode};
use syscalls::Errno;
use syscalls::call::Attention;

use super::*;
use crate::core::event::ModelId;
use crate::host::scripted;

const WORKER: WorkerId = WorkerId { model: ModelId(1), incarnation: 1 };

fn load() -> Box<LoadRequest> {
    Box::new(LoadRequest {
        path: "sim:".into(),
        context_tokens: None,
        sequences_max: 1,
        attention: Attention::Auto,
        gpu_layers: None,
        threads: None,
        cache_dir: None,
        ..LoadRequest::default()
    })
}

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A worker that is a shell script, with a file of words beside it; gives all that the main loop is told.
struct Scripted {
    _folder: tempfile::TempDir,
    inputs: mpsc::Receiver<Input>,
    stop: Option<oneshot::Sender<Kill>>,
}

fn start(script: &str, words: &[FromWorker]) -> Scripted {
    start_with(script, words, |_| {})
}

/// The same, with a supervisor that was told something else.
fn start_with(script: &str, words: &[FromWorker], change: impl FnOnce(&mut Supervisor)) -> Scripted {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("worker");
    let mut bytes = Vec::new();
    words.iter().for_each(|w| encode(w, &mut bytes).expect("small"));
    fs::write(folder.path().join("words"), bytes).expect("writes");
    scripted::write(&program, &format!("cd {}\n{script}", folder.path().display()));
    let (sender, inputs) = mpsc::channel(16);
    let (stop, stopped) = oneshot::channel();
    let mut supervisor = Supervisor {
        worker: WORKER,
        load: load(),
        digest: None,
        digests: Arc::default(),
        swap: Arc::default(),
        delay: Duration::ZERO,
        patience: DEADLINE,
        program,
        starter: Arc::default(),
        inputs: sender,
        stop: stopped,
    };
    change(&mut supervisor);
    tokio::spawn(supervisor.run());
    Scripted { _folder: folder, inputs, stop: Some(stop) }
}

impl Scripted {
    async fn next(&mut self) -> Option<Event> {
        loop {
            match timeout(DEADLINE, self.inputs.recv()).await.expect("says something")? {
                Input::Worker(event) => return Some(event),
                Input::WorkerStarted { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// How it died, which must be its last word.
    async fn death(&mut self) -> String {
        match (self.next().await, self.next().await) {
            (Some(Event::WorkerDied { worker: WORKER, how }), None) => how,
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn worker_that_dies_is_reported_with_the_way_it_died() {
    assert_eq!(start("exit 3", &[]).death().await, "exit status 3");
    assert_eq!(start("kill -SEGV $$", &[]).death().await, "killed by SIGSEGV");
}

#[tokio::test(flavor = "current_thread")]
async fn worker_that_cannot_be_started_is_reported() {
    let (inputs, mut received) = mpsc::channel(4);
    let (_stop, stopped) = oneshot::channel();
    let program = PathBuf::from("/nonexistent/worker");
    let delay = Duration::ZERO;
    let (digest, digests, swap, starter) = (None, Arc::default(), Arc::default(), Arc::default());
    let (worker, load, stop, patience) = (WORKER, load(), stopped, DEADLINE);
    Supervisor { worker, load, digest, digests, swap, delay, patience, program, starter, inputs, stop }
        .run()
        .await;
    let Some(Input::Worker(Event::WorkerDied { how, .. })) = received.recv().await else { panic!("silent") };
    assert!(how.contains("/nonexistent/worker"), "{how}");
}

#[tokio::test(flavor = "current_thread")]
async fn words_of_a_worker_come_before_its_death() {
    let refused = DriverFault::new(Errno::ENOEXEC, "not a model");
    let words = [FromWorker::Loading(0.5), FromWorker::Refused(refused.clone())];
    let mut worker = start("cat words >&0; exit 1", &words);
    assert!(matches!(worker.next().await, Some(Event::WorkerLoading { os_pid, .. }) if os_pid > 1));
    assert_eq!(worker.next().await, Some(Event::WorkerRefused { worker: WORKER, fault: refused }));
    assert_eq!(worker.death().await, "exit status 1");
}

#[tokio::test(flavor = "current_thread")]
async fn worker_that_speaks_nonsense_is_killed() {
    let mut worker = start("printf '\\377\\377\\377\\377nonsense' >&0; exec cat <&0", &[]);
    let how = worker.death().await;
    assert!(how.starts_with("spoke nonsense"), "{how}");
}

#[tokio::test(flavor = "current_thread")]
async fn worker_told_to_stop_reads_the_end_and_exits() {
    let mut worker = start("cat words >&0; cat <&0 >/dev/null; exit 7", &[FromWorker::Loading(0.0)]);
    assert!(matches!(worker.next().await, Some(Event::WorkerLoading { .. })));
    drop(worker.stop.take());
    assert_eq!(worker.death().await, "exit status 7");
}

#[tokio::test(flavor = "current_thread")]
async fn worker_that_does_not_stop_is_killed_with_its_children() {
    let script = "cat words >&0; trap '' TERM; while :; do sleep 60; done";
    let impatient = |supervisor: &mut Supervisor| supervisor.patience = Duration::from_millis(200);
    let mut worker = start_with(script, &[FromWorker::Loading(0.0)], impatient);
    assert!(matches!(worker.next().await, Some(Event::WorkerLoading { .. })));
    drop(worker.stop.take());
    assert_eq!(worker.death().await, "killed by SIGKILL");
}

#[tokio::test(flavor = "current_thread")]
async fn worker_to_be_killed_is_asked_nothing() {
    // One that is asked reads the end of its socket, and exits by itself.
    let mut worker = start("cat words >&0; cat <&0 >/dev/null; exit 7", &[FromWorker::Loading(0.0)]);
    assert!(matches!(worker.next().await, Some(Event::WorkerLoading { .. })));
    worker.stop.take().expect("not stopped yet").send(Kill).expect("its task stands by it");
    assert_eq!(worker.death().await, "killed by SIGKILL");
}

#[tokio::test(flavor = "current_thread")]
async fn model_that_cannot_be_read_is_a_death_and_no_refusal() {
    let (inputs, mut received) = mpsc::channel(4);
    let (_stop, stop) = oneshot::channel();
    let mut load = load();
    load.path = "/nonexistent/model.gguf".into();
    let (worker, program, delay) = (WORKER, PathBuf::from("/bin/true"), Duration::ZERO);
    let (digest, digests, swap) = (Some(Digest([0; 32])), Arc::default(), Arc::default());
    let (starter, patience) = (Arc::default(), DEADLINE);
    Supervisor { worker, load, digest, digests, swap, delay, patience, program, starter, inputs, stop }
        .run()
        .await;
    let Some(Input::Worker(Event::WorkerDied { how, .. })) = received.recv().await else {
        panic!("something else than a death")
    };
    assert!(how.contains("/nonexistent/model.gguf"), "{how}");
}

/// A worker that takes the name of its model away, and then copies what it was handed.
const COPY: &str = r#"fd=$(printf %s "$3" | sed 's/.*"files":\[\([0-9]*\)\].*/\1/')
    mv "$OTHER" "$MODEL" && cat "/proc/self/fd/$fd" >"$MODEL.got"; exit 4"#;

#[tokio::test(flavor = "current_thread")]
async fn worker_has_the_file_that_was_checked_and_the_next_one_is_not_started_on_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("m"), "first").expect("writes");
    fs::write(path("other"), "other").expect("writes");
    let digests = Arc::new(Digests::default());
    let files = ModelFiles::open(&path("m")).expect("opens").expect("it is a file");
    let first = digests.of(&files, |_| {}).expect("readable");
    let on_first = |supervisor: &mut Supervisor| {
        supervisor.load.path = path("m");
        (supervisor.digest, supervisor.digests) = (Some(first), Arc::clone(&digests));
    };
    let script = COPY.replace("$MODEL", &path("m")).replace("$OTHER", &path("other"));
    assert_eq!(start_with(&script, &[], on_first).death().await, "exit status 4");
    assert_eq!(fs::read_to_string(path("m.got")).expect("it was copied"), "first");
    let mut next = start_with("exit 0", &[], on_first);
    let Some(Event::WorkerRefused { fault, .. }) = next.next().await else { panic!("it is started") };
    assert!(fault.message.contains("has changed") && fault.message.contains(&path("m")), "{fault}");
    assert_eq!(next.death().await, "its model was refused");
}

#[tokio::test(flavor = "current_thread")]
async fn worker_of_a_file_that_nobody_has_checked_is_not_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("m");
    fs::write(&file, "unread").expect("writes");
    let mut worker = start_with("exit 0", &[], |s| s.load.path = file.display().to_string());
    assert!(matches!(worker.next().await, Some(Event::WorkerRefused { .. })));
    assert_eq!(worker.death().await, "its model was refused");
}

#[tokio::test(flavor = "current_thread")]
async fn worker_stopped_before_its_delay_is_over_never_starts() {
    let (inputs, mut received) = mpsc::channel(4);
    let (stop, stopped) = oneshot::channel();
    drop(stop);
    let (program, delay) = (PathBuf::from("/nonexistent/worker"), Duration::from_secs(3600));
    let (digest, digests, swap, starter) = (None, Arc::default(), Arc::default(), Arc::default());
    let (worker, load, stop, patience) = (WORKER, load(), stopped, DEADLINE);
    Supervisor { worker, load, digest, digests, swap, delay, patience, program, starter, inputs, stop }
        .run()
        .await;
    let Some(Input::Worker(Event::WorkerDied { how, .. })) = received.recv().await else { panic!("silent") };
    assert!(how.contains("before it was started"), "{how}");
}
