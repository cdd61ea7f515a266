//! One worker process: its start, its words, its end.
//!
//! A task of its own stands by each worker from the effect that asked for it until `WorkerDied`, which it always
//! sends, and sends last. Restarts are the kernel's decision: each one is a new worker with its own task.
//!
//! A worker runs foreign C++ on foreign files. So its words are read with bounds, nonsense ends it, and when it
//! is told to stop and does not, it is killed. It dies with the daemon (it reads the end of its socket, and the
//! system kills it), and a terminal's Ctrl-C does not reach it.

mod start;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use drivers::files::ModelFiles;
use drivers::wire::{FromWorker, LoadRequest, decode};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use start::{NotStarted, open_model, spawn};

use super::digest::Digests;
use super::input::Input;
use super::starter::{Starter, own_cache};
use super::swap::SwapFiles;
use crate::core::event::{Event, WorkerId};
use crate::core::registration::Digest;

/// How long a worker may take to exit after its socket was closed, before it is killed.
pub const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that one read takes at most.
const READ_BYTES: usize = 64 << 10;

/// What the task of a worker needs.
pub struct Supervisor {
    pub worker: WorkerId,
    pub load: Box<LoadRequest>,
    /// What the model's file must be, where it has one.
    pub digest: Option<Digest>,
    pub digests: Arc<Digests>,
    /// The model's swap files, which the worker inherits.
    pub swap: Arc<SwapFiles>,
    /// To wait before the start.
    pub delay: Duration,
    /// The executable.
    pub program: PathBuf,
    pub starter: Arc<Starter>,
    pub inputs: mpsc::Sender<Input>,
    /// Kills the worker when something is sent, and asks it to end when the sender is dropped.
    pub stop: oneshot::Receiver<Kill>,
}

/// That a worker is to be killed at once.
#[derive(Debug)]
pub struct Kill;

/// Why the task stopped to listen to its worker.
enum End {
    /// It closed its socket.
    Hangup,
    /// It exited, while somebody else still held its socket.
    Exited(ExitStatus),
    /// It said what cannot be understood.
    Nonsense(io::Error),
    /// Its model's file is not the one that it was when its start was allowed.
    OtherFile,
    /// It was told to stop.
    Stopped,
    /// It is to be killed, since it hangs or cannot be relied on.
    Killed,
}

/// What has come of a worker.
struct Heard {
    /// Of messages that are not whole yet.
    bytes: Vec<u8>,
    /// The files of its model, until it has loaded them.
    files: Option<ModelFiles>,
}

impl Supervisor {
    /// Starts the worker, passes on what it says, and reports its end.
    pub async fn run(mut self) {
        let worker = self.worker;
        let how = match self.live().await {
            Ok(how) => how,
            Err(why) => {
                if let Some(fault) = why.fault() {
                    self.say(Event::WorkerRefused { worker, fault }).await;
                }
                why.how()
            }
        };
        self.say(Event::WorkerDied { worker, how }).await;
    }

    async fn live(&mut self) -> Result<String, NotStarted> {
        let Supervisor { load, digest, digests, delay, stop, .. } = self;
        let opened = async {
            sleep(*delay).await;
            open_model(load, *digest, digests).await
        };
        let files = tokio::select! {
            _ = stop => return Ok("stopped before it was started".into()),
            opened = opened => opened?,
        };
        self.load.files = files.as_ref().map(ModelFiles::descriptors).unwrap_or_default();
        let refused = NotStarted::about("its connection");
        let (near, far) = std::os::unix::net::UnixStream::pair().map_err(&refused)?;
        near.set_nonblocking(true).map_err(&refused)?;
        let link = Arc::new(UnixStream::from_std(near).map_err(&refused)?);
        self.load.swap = self.swap.area();
        self.load.cache_dir =
            self.load.cache_dir.take().and_then(|all| own_cache(&all, self.digest.as_ref()));
        let mut child = spawn(&self.starter, &self.program, &self.load, far.into())?;
        let os_pid = child.id().unwrap_or_default();
        let started = Input::WorkerStarted { worker: self.worker, link: Arc::clone(&link) };
        // The main loop is gone only when the daemon ends.
        let _ = self.inputs.send(started).await;
        let end = self.listen(&mut child, &link, os_pid, files).await;
        let how = conclude(end, child, &link, os_pid).await;
        // One that was taken over may have left children behind. They are in its group, which the jail lets none of them leave.
        kill_group(os_pid);
        Ok(how)
    }

    /// Whether nobody has written to the files while the worker loaded them.
    fn are_whole(&self, files: &ModelFiles) -> bool {
        self.digest.is_none_or(|digest| self.digests.are_still(files, &digest))
    }

    /// Passes on what the worker says until one of its ends comes.
    async fn listen(
        &mut self,
        child: &mut Child,
        link: &UnixStream,
        os_pid: u32,
        files: Option<ModelFiles>,
    ) -> End {
        let mut heard = Heard { bytes: Vec::new(), files };
        loop {
            let exited = tokio::select! {
                biased;
                stop = &mut self.stop => return if stop.is_ok() { End::Killed } else { End::Stopped },
                _ = link.readable() => None,
                status = child.wait() => status.ok(),
            };
            // What it said before it exited still counts.
            match (self.pass_on(link, &mut heard, os_pid).await, exited) {
                (Ok(_), Some(status)) => return End::Exited(status),
                (Ok(true), None) => {}
                (Ok(false), None) => return End::Hangup,
                (Err(e), _) if e.kind() == io::ErrorKind::InvalidData => return End::Nonsense(e),
                (Err(e), _) if e.kind() == io::ErrorKind::StaleNetworkFileHandle => return End::OtherFile,
                (Err(_), _) => return End::Hangup,
            }
        }
    }

    /// Passes on all that has come. Gives whether more can come.
    async fn pass_on(&self, link: &UnixStream, heard: &mut Heard, os_pid: u32) -> io::Result<bool> {
        loop {
            match read_some(link, &mut heard.bytes) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            let mut used = 0;
            while let Some((message, bytes)) = decode::<FromWorker>(&heard.bytes[used..])? {
                used += bytes;
                // It has mapped them, and nobody needs them open any more.
                let loaded = matches!(message, FromWorker::Ready(_)).then(|| heard.files.take()).flatten();
                if loaded.is_some_and(|files| !self.are_whole(&files)) {
                    return Err(io::ErrorKind::StaleNetworkFileHandle.into());
                }
                self.say(event(self.worker, os_pid, message)).await;
            }
            heard.bytes.drain(..used);
        }
    }

    async fn say(&self, event: Event) {
        // The main loop is gone only when the daemon ends.
        let _ = self.inputs.send(Input::Worker(event)).await;
    }
}

/// Sees the worker off, and says how it ended.
async fn conclude(end: End, mut child: Child, link: &UnixStream, os_pid: u32) -> String {
    let said = match end {
        End::Exited(status) => return describe(status),
        End::Hangup => None,
        End::Stopped => {
            close(link);
            None
        }
        End::Killed => {
            kill_group(os_pid);
            None
        }
        End::Nonsense(e) => {
            kill_group(os_pid);
            Some(format!("spoke nonsense: {e}"))
        }
        End::OtherFile => {
            kill_group(os_pid);
            Some("somebody wrote to its model's file while it was loaded".into())
        }
    };
    let status = match timeout(EXIT_PATIENCE, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            kill_group(os_pid);
            child.wait().await
        }
    };
    said.unwrap_or_else(|| status.map_or_else(|e| format!("could not be waited for: {e}"), describe))
}

fn close(link: &UnixStream) {
    // It fails where the worker is gone already.
    let _ =
        nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(link), nix::sys::socket::Shutdown::Both);
}

/// Kills the worker and the children that it probes itself with.
fn kill_group(os_pid: u32) {
    match i32::try_from(os_pid) {
        // It fails where all of them are gone already.
        Ok(pid) if pid > 1 => drop(killpg(Pid::from_raw(pid), Signal::SIGKILL)),
        _ => {}
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(number), _) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {}", signal.as_str()),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, code) => format!("exit status {}", code.unwrap_or_default()),
    }
}

fn read_some(link: &UnixStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; READ_BYTES];
    let bytes = link.try_read(&mut buffer)?;
    into.extend_from_slice(&buffer[..bytes]);
    Ok(bytes)
}

fn event(worker: WorkerId, os_pid: u32, message: FromWorker) -> Event {
    match message {
        FromWorker::Ready(description) => Event::WorkerReady { worker, os_pid, description },
        FromWorker::Refused(fault) => Event::WorkerRefused { worker, fault },
        FromWorker::Loading(fraction) => Event::WorkerLoading { worker, os_pid, fraction },
        FromWorker::Done(done) => Event::StepDone { worker, done },
        FromWorker::StepFailed(number, fault) => Event::StepFailed { worker, number, fault },
        FromWorker::Answer(number, answer) => Event::Answered { worker, number, answer },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use drivers::wire::{DriverFault, encode};
    use syscalls::Errno;
    use syscalls::call::Attention;

    use super::*;
    use crate::core::event::ModelId;

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
        let script = format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display());
        fs::write(&program, script).expect("writes");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("sets");
        let (sender, inputs) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel();
        let mut supervisor = Supervisor {
            worker: WORKER,
            load: load(),
            digest: None,
            digests: Arc::default(),
            swap: Arc::default(),
            delay: Duration::ZERO,
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
                match timeout(Duration::from_secs(20), self.inputs.recv()).await.expect("says something")? {
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
        let (worker, load, stop) = (WORKER, load(), stopped);
        Supervisor { worker, load, digest, digests, swap, delay, program, starter, inputs, stop }.run().await;
        let Some(Input::Worker(Event::WorkerDied { how, .. })) = received.recv().await else {
            panic!("silent")
        };
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
        let mut worker = start(script, &[FromWorker::Loading(0.0)]);
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
        let starter = Arc::default();
        Supervisor { worker, load, digest, digests, swap, delay, program, starter, inputs, stop }.run().await;
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
        let (worker, load, stop) = (WORKER, load(), stopped);
        Supervisor { worker, load, digest, digests, swap, delay, program, starter, inputs, stop }.run().await;
        let Some(Input::Worker(Event::WorkerDied { how, .. })) = received.recv().await else {
            panic!("silent")
        };
        assert!(how.contains("before it was started"), "{how}");
    }
}
