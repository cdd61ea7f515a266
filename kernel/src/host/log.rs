//! The log: lines on standard error, which a terminal or a file takes from there, or entries of the journal with fields
//! to filter by. It never holds prompts or generated text.
//!
//! A line says in words what it is about. In the journal it has that in fields as well: `MODEL`, `PID_LLMASOS`, `CALL`,
//! and `MESSAGE_ID` of what administrators wait for. As text the fields would repeat the words, so they are left out.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::field::Field;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use super::machine::logs_to_journal;
use crate::core::effect::{Happening, LogLevel, Subject};

/// The levels that `--log` knows.
pub const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// The level where nobody says one.
pub const LEVEL_DEFAULT: &str = "info";

/// What entries of the journal say that they come from.
const IDENTIFIER: &str = "llmasos";

/// Changes the level of a log.
type Change = Box<dyn Fn(&str) + Send + Sync>;

/// That of the log that was started.
static CHANGE: OnceLock<Change> = OnceLock::new();

/// The level of that log, none before it was started.
static LEVEL: Mutex<Option<String>> = Mutex::new(None);

fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("warn,kernel={level},llmasos={level}"))
}

/// The level that the log has, for workers that start.
pub fn level() -> String {
    LEVEL.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| LEVEL_DEFAULT.into())
}

fn note(level: &str) {
    *LEVEL.lock().unwrap_or_else(PoisonError::into_inner) = Some(level.to_owned());
}

/// Logs at another level from now on, and so do workers that start from now on.
pub fn change(level: &str) {
    note(level);
    if let Some(change) = CHANGE.get() {
        change(level);
    }
}

/// Starts to log at a level; libraries only complain.
pub fn start(level: &str) {
    note(level);
    let (filter, handle) = reload::Layer::new(filter(level));
    keep(handle);
    let registry = tracing_subscriber::registry().with(filter);
    // A second daemon in one process, as tests have, logs where the first one does.
    let _ = match logs_to_journal().then(journal).flatten() {
        Some(journal) => registry.with(journal).try_init(),
        None => {
            let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
            let lines = lines.with_ansi(io::stderr().is_terminal()).fmt_fields(debug_fn(write_words));
            // A journal that takes no entries takes lines, and writes its own times.
            match logs_to_journal() {
                true => registry.with(lines.without_time()).try_init(),
                false => registry.with(lines).try_init(),
            }
        }
    };
}

/// The journal's own socket, if it can be reached.
fn journal() -> Option<tracing_journald::Layer> {
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(None).with_syslog_identifier(IDENTIFIER.into()))
}

/// Writes what a line says, without its fields. Names of files and words of workers are in it, which must not act on a
/// terminal.
fn write_words(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        return Ok(());
    }
    let words = format!("{value:?}");
    for c in words.chars() {
        match c {
            '\n' | '\t' => out.write_char(c)?,
            c if c.is_control() => write!(out, "{}", c.escape_unicode())?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}

fn keep(handle: Handle<EnvFilter, Registry>) {
    // A second one changes nothing, as its log is the first one's.
    let _ = CHANGE.set(Box::new(move |level| {
        // It fails where the log is gone, at the process's end.
        let _ = handle.reload(filter(level));
    }));
}

/// Writes a line about a trouble where it begins, and not while it lasts.
pub fn once(lasts: &mut bool, message: &str) {
    if !std::mem::replace(lasts, true) {
        tracing::error!("{message}");
    }
}

/// Writes a line that the kernel wants said.
pub fn say(level: LogLevel, message: &str) {
    say_about(level, &Subject::default(), message);
}

/// Writes a line that the kernel wants said about something.
pub fn say_about(level: LogLevel, subject: &Subject, message: &str) {
    let (model, pid) = (subject.model.as_deref(), subject.pid.map(|pid| u64::from(pid.0)));
    let id = subject.happening.map(message_id);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(message_id = id, model = model, pid_llmasos = pid, "{message}")
        };
    }
    match level {
        LogLevel::Error => line!(error),
        LogLevel::Warn => line!(warn),
        LogLevel::Info => line!(info),
        LogLevel::Debug => line!(debug),
    }
}

/// The number by which the journal knows what happens. Random, and never changed; `OPERATING.md` lists them.
pub fn message_id(happening: Happening) -> &'static str {
    match happening {
        Happening::ModelReady => "6f1d3b1c5a2e4c0f9f3e7a8d0b9c4e21",
        Happening::ModelOffline => "b7c04e92d1f84f6a8f5d2c6e9a3b7d10",
        Happening::ModelUnmounted => "2e9a7c40f6b34d1e8c5b0d7f3a6e9184",
        Happening::WorkerDied => "d4508b6e3c9f4a7db12e6f90c8a7351b",
        Happening::Interrupted => "90c3f7a15be24d6c8e0f4b2d7a6195e3",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Kept;

        fn make_writer(&'a self) -> Kept {
            self.clone()
        }
    }

    #[test]
    fn line_has_its_words_alone_and_nothing_that_acts() {
        let kept = Kept::default();
        let lines =
            tracing_subscriber::fmt::layer().with_writer(kept.clone()).with_ansi(false).without_time();
        let log = tracing_subscriber::registry().with(lines.fmt_fields(debug_fn(write_words)));
        tracing::subscriber::with_default(log, || {
            let model = Some("m".to_owned());
            let subject = Subject { model, happening: Some(Happening::ModelReady), ..Subject::default() };
            say_about(LogLevel::Info, &subject, "model m \u{1b}]0;x\u{7} is \u{9b}31mready");
        });
        let line = String::from_utf8(kept.0.lock().expect("no panic").clone()).expect("text");
        assert!(line.ends_with("model m \\u{1b}]0;x\\u{7} is \\u{9b}31mready\n"), "{line:?}");
        assert!(!line.contains("6f1d") && !line.contains("model=") && line.contains("INFO"), "{line:?}");
    }
}
