//! What the main loop does with each input.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use syscalls::limits::CALLS_IN_FLIGHT_MAX;
use syscalls::{CallId, Errno, Fault, Frame, Request};
use tokio::time::Instant;

use super::super::connection::{Connection, Reader, answer_id};
use super::super::input::Input;
use super::super::log;
use super::super::settings::Settings;
use super::{LEAVE_PATIENCE, Reactor};
use crate::core::event::{ConnId, Credentials, Event};

impl Reactor {
    pub(super) async fn react(&mut self, input: Input) {
        match input {
            Input::Connected { socket, credentials, group_leader, process, place, turn } => {
                let connection = Connection::new(Arc::new(socket), place);
                let program = self.program_groups.get(&group_leader).copied();
                let credentials = Credentials { program, ..credentials };
                self.connected(connection, credentials, process).await;
                drop(turn);
            }
            Input::Request { conn, request, memory, turn } => {
                self.request(conn, request).await;
                self.flush_if_spoken_to(conn);
                drop((memory, turn));
            }
            Input::Malformed { conn, id, fault, turn } => {
                self.answer(conn, answer_id(id), fault);
                self.flush_if_spoken_to(conn);
                drop(turn);
            }
            Input::ReadEnded { conn } => {
                // A program that closed its sending side alone still reads what it was told in this turn.
                self.flush(conn);
                self.disconnect(conn);
                self.step_pending().await;
            }
            Input::PeerDied { os_pid } => self.peer_died(os_pid).await,
            Input::Writable { conn } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.writable();
                    self.spoken_to.insert(conn);
                }
            }
            Input::ProgramStarted { pid, os_pid, socket, place } => {
                self.program_groups.insert(os_pid, pid);
                let conn = self.connect(Connection::new(Arc::new(socket), place));
                self.step(Event::ProgramStarted { pid, conn, os_pid }).await;
            }
            Input::ProgramPrinted { pid, lines, room } => {
                self.step(Event::ProgramPrinted { pid, lines }).await;
                drop(room);
            }
            Input::WorkerStarted { worker, link } => self.workers.started(worker, link),
            Input::WorkerWritable { worker } => self.workers.writable(worker),
            Input::Worker(event) => {
                match &event {
                    Event::WorkerDied { worker, .. } => self.workers.died(*worker),
                    Event::ProgramRefused { pid, .. } | Event::ProgramEnded { pid, .. } => {
                        self.program_groups.retain(|_, of| of != pid);
                        self.programs.ended(*pid)
                    }
                    _ => {}
                }
                self.step(event).await;
            }
            Input::Reload => self.reload().await,
            Input::Terminate if self.give_up_at.is_some() => self.ended = true,
            Input::Terminate => {
                tracing::info!("asked to end");
                self.give_up_at = Some(Instant::now() + self.end_patience);
                self.manager.stopping(self.end_patience + LEAVE_PATIENCE);
                self.step(Event::Terminate).await;
            }
        }
    }

    /// Reads the configuration again. One that is wrong changes nothing.
    async fn reload(&mut self) {
        self.manager.reloading();
        match Settings::settle(self.flags.clone()) {
            Ok(settings) => {
                log::change(&settings.log);
                tracing::info!("read the configuration again; sockets, folders, devices and mounts stay");
                self.step(Event::Configured { config: Box::new(settings.kernel) }).await;
            }
            Err(e) => tracing::error!("the configuration stays as it was: {e}"),
        }
        self.manager.ready();
    }

    async fn connected(&mut self, connection: Connection, credentials: Credentials, process: OwnedFd) {
        let conn = self.connect(connection);
        self.watch.connected(credentials.os_pid, process, conn);
        self.step(Event::Connected { conn, credentials }).await;
    }

    /// Ends the connections of a process that has died, after what it has sent was read. Of one that did not read nothing
    /// is read either.
    async fn peer_died(&mut self, os_pid: u32) {
        for conn in self.watch.of(os_pid) {
            match self.connections.get(&conn) {
                Some(connection) if connection.is_read() => connection.end_reading(),
                Some(_) | None => self.disconnect(conn),
            }
        }
        self.step_pending().await;
    }

    /// Takes a connection in, and reads from it.
    fn connect(&mut self, connection: Connection) -> ConnId {
        self.connections_so_far += 1;
        let conn = ConnId(self.connections_so_far);
        let reader = Reader {
            conn,
            socket: connection.socket(),
            gate: connection.gate(),
            memory: Arc::clone(&self.memory),
            turns: self.turns.clone(),
            inputs: self.inputs.clone(),
        };
        self.connections.insert(conn, connection);
        tokio::spawn(reader.run());
        conn
    }

    async fn request(&mut self, conn: ConnId, request: Request) {
        let Some(connection) = self.connections.get_mut(&conn).filter(|c| !c.closing) else { return };
        if connection.calls_in_flight >= CALLS_IN_FLIGHT_MAX {
            let sentence = format!(
                "{CALLS_IN_FLIGHT_MAX} of {CALLS_IN_FLIGHT_MAX} calls of this connection are unanswered; wait for one"
            );
            return self.answer(conn, request.id, Fault::new(Errno::EAGAIN, sentence));
        }
        connection.calls_in_flight += 1;
        let call = request.call.name();
        tracing::debug!(
            call,
            pid_llmasos = request.pid.or_else(|| self.kernel.process_of(conn)).map(|pid| u64::from(pid.0)),
            "connection {} calls {call}",
            conn.0
        );
        self.step(Event::Request { conn, request }).await;
    }

    /// Answers a call that the kernel never sees.
    fn answer(&mut self, conn: ConnId, id: CallId, fault: Fault) {
        self.send(conn, &Frame::Reply(id, Err(fault)));
    }
}
