//! What is said to programs: gathered, and written as far as their sockets take it.

use std::time::Duration;

use syscalls::Frame;
use syscalls::limits::{OUTPUT_BYTES_HIGH, OUTPUT_BYTES_MAX};
use tokio::time::{Instant, timeout_at};

use super::super::connection::{Flushed, Level};
use super::super::input::Input;
use super::Reactor;
use crate::core::event::{ConnId, Event};

/// How long programs may take to read the last words.
pub(super) const FAREWELL_PATIENCE: Duration = Duration::from_secs(2);

impl Reactor {
    /// Sends a frame of the kernel.
    pub(super) fn deliver(&mut self, conn: ConnId, frame: &Frame) {
        if let (Frame::Reply(..), Some(connection)) = (frame, self.connections.get_mut(&conn)) {
            connection.calls_in_flight = connection.calls_in_flight.saturating_sub(1);
        }
        self.send(conn, frame);
    }

    /// Appends a frame to what the turn will write. A large amount is written at once, to keep it small.
    pub(super) fn send(&mut self, conn: ConnId, frame: &Frame) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        self.spoken_to.insert(conn);
        if connection.push(frame) > OUTPUT_BYTES_HIGH {
            self.flush(conn);
        }
    }

    pub(super) fn hang_up(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.closing = true;
            self.spoken_to.insert(conn);
        }
    }

    /// Ends a connection, and tells the kernel after the effects at hand.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        if self.connections.remove(&conn).is_some() {
            self.spoken_to.remove(&conn);
            self.watch.disconnected(conn);
            self.pending.push_back(Event::Disconnected { conn });
        }
    }

    /// Writes all that this turn has to say, until the kernel has nothing to add.
    pub(super) async fn flush_all(&mut self) {
        loop {
            self.write_all();
            if self.pending.is_empty() {
                return;
            }
            self.step_pending().await;
        }
    }

    pub(super) fn write_all(&mut self) {
        self.workers.flush();
        while let Some(conn) = self.spoken_to.pop_first() {
            self.flush(conn);
        }
    }

    /// Writes to a connection that something was said to in this turn.
    pub(super) fn flush_if_spoken_to(&mut self, conn: ConnId) {
        if self.spoken_to.remove(&conn) {
            self.flush(conn);
        }
    }

    /// Writes what one connection takes, and draws the conclusions.
    pub(super) fn flush(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let flushed = connection.flush();
        match connection.level() {
            Some(Level::High) => self.pending.push_back(Event::OutputHigh { conn }),
            Some(Level::Low) => self.pending.push_back(Event::OutputLow { conn }),
            None => {}
        }
        let closing = connection.closing;
        let waiting = connection.waiting();
        match flushed {
            Flushed::All if closing => self.disconnect(conn),
            Flushed::Gone => self.disconnect(conn),
            Flushed::Blocked | Flushed::StillBlocked if waiting > OUTPUT_BYTES_MAX => {
                tracing::warn!("closing connection {}: {waiting} bytes wait unread", conn.0);
                self.disconnect(conn);
            }
            Flushed::Blocked => {
                let (socket, inputs) = (connection.socket(), self.inputs.clone());
                tokio::spawn(async move {
                    // An error is an end of the connection, which the next write finds.
                    let _ = socket.writable().await;
                    // The loop is gone only when the daemon ends.
                    let _ = inputs.send(Input::Writable { conn }).await;
                });
            }
            Flushed::All | Flushed::StillBlocked => {}
        }
    }

    /// Lets programs read what was said to them last.
    pub(super) async fn farewell(&mut self) {
        self.write_all();
        let deadline = Instant::now() + FAREWELL_PATIENCE;
        for connection in self.connections.values_mut() {
            let socket = connection.socket();
            while connection.flush() != Flushed::Gone && connection.waiting() > 0 {
                if timeout_at(deadline, socket.writable()).await.is_err() {
                    break;
                }
            }
        }
        self.connections.clear();
    }
}
