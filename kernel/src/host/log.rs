//! The log: lines on standard error, which a terminal, a file or the journal takes from there. It never holds
//! prompts or generated text.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use super::machine::logs_to_journal;
use crate::core::effect::LogLevel;

/// The levels that `--log` knows.
pub const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Changes the level of a log.
type Change = Box<dyn Fn(&str) + Send + Sync>;

/// That of the log that was started.
static CHANGE: OnceLock<Change> = OnceLock::new();

fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("warn,kernel={level},llmasos={level}"))
}

/// Logs at another level from now on.
pub fn change(level: &str) {
    if let Some(change) = CHANGE.get() {
        change(level);
    }
}

/// Starts to log at a level; libraries only complain.
pub fn start(level: &str) {
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(io::stderr).with_target(false);
    // A second daemon in one process, as tests have, logs where the first one does.
    let _ = if logs_to_journal() {
        let lines = lines.with_ansi(false).without_time().with_filter_reloading();
        keep(lines.reload_handle());
        lines.try_init()
    } else {
        let lines = lines.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
        keep(lines.reload_handle());
        lines.try_init()
    };
}

fn keep<S: 'static>(handle: Handle<EnvFilter, S>) {
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
    match level {
        LogLevel::Error => tracing::error!("{message}"),
        LogLevel::Warn => tracing::warn!("{message}"),
        LogLevel::Info => tracing::info!("{message}"),
        LogLevel::Debug => tracing::debug!("{message}"),
    }
}
