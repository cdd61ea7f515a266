//! The log: lines on standard error, which a terminal, a file or the journal takes from there. It never holds
//! prompts or generated text.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::machine::logs_to_journal;
use crate::core::effect::LogLevel;

/// The levels that `--log` knows.
pub const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Starts to log at a level; libraries only complain.
pub fn start(level: &str) {
    let filter = EnvFilter::new(format!("warn,kernel={level},llmasos={level}"));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // A second daemon in one process, as tests have, logs where the first one does.
    let _ = if logs_to_journal() {
        subscriber.with_ansi(false).without_time().try_init()
    } else {
        subscriber.with_ansi(io::stderr().is_terminal()).try_init()
    };
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
