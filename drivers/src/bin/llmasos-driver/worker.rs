//! The worker's life: it loads a model, then serves the kernel on its standard input until the kernel is gone.
//!
//! Four threads share the work. The *main* thread owns the driver and runs steps. The *reader* takes messages
//! off the socket. The *text* thread answers what needs the vocabulary alone, while a step runs. The *watch*
//! waits for the end of the socket and then ends the process at once, in mid-decode if need be: there is nothing
//! to save, and nobody to tell.

use std::io::{self, BufReader};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, Sender, bounded};
use drivers::wire::{
    Answer, DriverFault, FromWorker, LoadRequest, Question, Step, ToWorker, TokenizeRequest, receive, send,
};
use drivers::{Driver, TextCodec, Withdrawal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use syscalls::{Errno, Token};

/// The kernel's end of the socket pair, by its place among the file descriptors.
const KERNEL_FD: RawFd = 0;

/// Questions that wait for the text thread. More stay in the socket, where the kernel counts them.
const QUESTIONS_WAITING_MAX: usize = 256;

/// Steps and embeddings that wait for the main thread: the kernel has one step under way at a time.
const WORK_WAITING_MAX: usize = 64;

/// Stack of the text thread: tokenizers that fall back to `std::regex` recurse once for each character of a
/// word. Pages that are not touched cost nothing.
const TEXT_STACK_BYTES: usize = 256 << 20;

/// What the main thread does.
enum Work {
    Step(Step),
    Embed(u64, Vec<Vec<Token>>),
}

/// The way back to the kernel, shared by the threads that answer.
#[derive(Clone)]
struct Kernel(Arc<Mutex<UnixStream>>);

impl Kernel {
    fn say(&self, message: &FromWorker) -> io::Result<()> {
        let mut stream = self.0.lock().expect("a thread that panics ends the process");
        send(&mut *stream, message)
    }

    /// Answers a question; one whose answer is longer than a message may be gets that for an answer. Nothing of such a
    /// message has been sent.
    fn answer(&self, number: u64, answer: Result<Answer, DriverFault>) -> io::Result<()> {
        match self.say(&FromWorker::Answer(number, answer)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let fault = DriverFault::new(Errno::E2BIG, format!("{error}; ask for less at once"));
                self.say(&FromWorker::Answer(number, Err(fault)))
            }
            other => other,
        }
    }
}

/// Loads the model and serves until the kernel is gone.
///
/// # Errors
///
/// Standard input is no socket, or a thread cannot be started. A model that cannot be loaded is told to the
/// kernel and is no error here.
pub fn run(request: LoadRequest) -> Result<()> {
    end_on_panic();
    survive_full_files()?;
    let stream = kernel_stream()?;
    watch_kernel(stream.try_clone()?)?;
    let kernel = Kernel(Arc::new(Mutex::new(stream.try_clone()?)));
    let mut progress = |fraction| {
        let _ = kernel.say(&FromWorker::Loading(fraction));
    };
    let mut driver = match load(&request, &mut progress) {
        Ok(driver) => driver,
        Err(fault) => {
            tracing::warn!("cannot load {}: {fault}", request.path);
            kernel.say(&FromWorker::Refused(fault)).context("telling the kernel that loading failed")?;
            return Ok(());
        }
    };
    kernel.say(&FromWorker::Ready(Box::new(driver.description().clone())))?;
    let work = start_threads(stream, driver.text(), driver.withdrawal(), &kernel)?;
    serve(driver.as_mut(), &work, &kernel)
}

/// Sets up the driver that the path asks for.
fn load(request: &LoadRequest, progress: &mut dyn FnMut(f32)) -> Result<Box<dyn Driver>, DriverFault> {
    if request.path.starts_with("sim:") {
        return drivers::sim::load(request);
    }
    crate::llama::load(request, progress)
}

/// A swap file that may not grow is an error of the write, as a full disk is, and not the worker's death by SIGXFSZ.
fn survive_full_files() -> Result<()> {
    // SAFETY: a signal that is ignored runs no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.context("ignoring SIGXFSZ")?;
    Ok(())
}

/// A thread that panics would leave the kernel waiting; the whole worker dies instead and is replaced.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn kernel_stream() -> Result<UnixStream> {
    // SAFETY: the file descriptor is open, or the first read says that it is not; nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(KERNEL_FD) };
    let stream = UnixStream::from(fd);
    stream.local_addr().context("standard input is no socket; the daemon starts this program")?;
    Ok(stream)
}

/// Ends the process as soon as the other side is closed.
fn watch_kernel(stream: UnixStream) -> Result<()> {
    let watch = move || loop {
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLHUP)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EBADF) => {
                // SAFETY: `_exit` runs no destructors and no handlers, which a running decode could not survive.
                unsafe { libc::_exit(0) }
            }
            Err(_) => {}
        }
    };
    thread::Builder::new().name("watch".into()).spawn(watch)?;
    Ok(())
}

fn start_threads(
    stream: UnixStream,
    text: Arc<dyn TextCodec>,
    withdrawal: Option<Arc<Withdrawal>>,
    kernel: &Kernel,
) -> Result<Receiver<Work>> {
    let (work_in, work_out) = bounded(WORK_WAITING_MAX);
    let (questions_in, questions_out) = bounded(QUESTIONS_WAITING_MAX);
    let to_text = work_in.clone();
    let answers = kernel.clone();
    thread::Builder::new()
        .name("text".into())
        .stack_size(TEXT_STACK_BYTES)
        .spawn(move || answer_all(&*text, &questions_out, &to_text, &answers))?;
    thread::Builder::new()
        .name("reader".into())
        .spawn(move || read_all(BufReader::new(stream), &work_in, &questions_in, withdrawal.as_deref()))?;
    Ok(work_out)
}

/// Hands each message to the thread that does it, until the socket ends. A withdrawal reaches the step that runs.
fn read_all(
    mut stream: BufReader<UnixStream>,
    work: &Sender<Work>,
    questions: &Sender<(u64, Question)>,
    withdrawal: Option<&Withdrawal>,
) {
    loop {
        let sent = match receive::<ToWorker>(&mut stream) {
            Ok(Some(ToWorker::Step(step))) => work.send(Work::Step(step)).is_ok(),
            Ok(Some(ToWorker::Withdraw(number))) => {
                withdrawal.inspect(|withdrawal| withdrawal.withdraw(number));
                true
            }
            Ok(Some(ToWorker::Ask(number, question))) => questions.send((number, question)).is_ok(),
            Ok(None) => return,
            Err(error) => {
                tracing::error!("the kernel cannot be understood: {error}");
                std::process::exit(1);
            }
        };
        if !sent {
            return;
        }
    }
}

/// Answers questions in their order; texts to embed go on to the main thread as tokens.
fn answer_all(
    text: &dyn TextCodec,
    questions: &Receiver<(u64, Question)>,
    work: &Sender<Work>,
    kernel: &Kernel,
) {
    for (number, question) in questions {
        let answer = match question {
            Question::Tokenize(request) => text.tokenize(&request).map(Answer::Tokens),
            Question::Detokenize(tokens) => text.detokenize(&tokens).map(Answer::Bytes),
            Question::Chat(request) => text.chat(&request).map(Answer::Chat),
            Question::Embed(texts) => match tokens_to_embed(text, texts) {
                Ok(texts) => {
                    if work.send(Work::Embed(number, texts)).is_err() {
                        return;
                    }
                    continue;
                }
                Err(fault) => Err(fault),
            },
        };
        if kernel.answer(number, answer).is_err() {
            return;
        }
    }
}

fn tokens_to_embed(text: &dyn TextCodec, texts: Vec<String>) -> Result<Vec<Vec<Token>>, DriverFault> {
    let whole = |text| TokenizeRequest { text, bos: true, special: false };
    texts.into_iter().map(|one| text.tokenize(&whole(one))).collect()
}

/// Runs steps and embeddings in the order in which they came.
fn serve(driver: &mut dyn Driver, work: &Receiver<Work>, kernel: &Kernel) -> Result<()> {
    for work in work {
        let answered = match work {
            Work::Step(step) => match driver.step(&step) {
                Ok(done) => kernel.say(&FromWorker::Done(done)),
                Err(fault) => kernel.say(&FromWorker::StepFailed(step.number, fault)),
            },
            Work::Embed(number, texts) => kernel.answer(number, driver.embed(&texts).map(Answer::Vectors)),
        };
        answered.context("answering the kernel")?;
    }
    Ok(())
}
