//! What the main loop does with each input.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use syscalls::limits::CALLS_IN_FLIGHT_MAX;
use syscalls::{CallId, Errno, Fault, Frame, Pid, Request};
use tokio::time::Instant;

use super::super::connection::{Connection, NEWCOMER_PATIENCE, Reader, answer_id};
use super::super::groups;
use super::super::input::Input;
use super::super::inspect::on_its_own_thread;
use super::super::log;
use super::super::settings::Settings;
use super::super::turns::manners::Manners;
use super::super::watch::PeerNo;
use super::{LEAVE_PATIENCE, Reactor};
use crate::core::event::{ConnId, Credentials, Event};

impl Reactor {
    pub(super) async fn react(&mut self, input: Input) {
        match input {
            Input::Connected { socket, credentials, group_leader, process, place, turn } => {
                let connection = Connection::new(Arc::new(socket), place);
                let program = self.groups.process_of(group_leader);
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
            Input::PeerDied { peer } => self.peer_died(peer).await,
            Input::Writable { conn } => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.writable();
                    self.spoken_to.insert(conn);
                }
            }
            Input::ProgramStarted { pid, uid, os_pid, socket, place } => {
                self.groups.started(os_pid, pid);
                let conn = self.connect(Connection::new(Arc::new(socket), place), uid);
                self.step(Event::ProgramStarted { pid, conn, os_pid }).await;
            }
            Input::GroupGone { leader } => self.groups.gone(leader),
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
                        self.leave_group(*pid);
                        self.programs.ended(*pid)
                    }
                    _ => {}
                }
                self.step(event).await;
            }
            Input::Reload => self.reload(),
            Input::Settled { number, settled } if number == self.reloads => self.settled(*settled).await,
            // It was asked for again meanwhile.
            Input::Settled { .. } => {}
            // Asked for once more, it listens to nobody first, and then not even to the kernel.
            Input::Terminate if self.end_at.is_some() => self.end_at = Some(Instant::now()),
            Input::Terminate if self.give_up_at.is_some() => self.ended = true,
            Input::Terminate => {
                tracing::info!("asked to end");
                self.acceptor.abort();
                self.end_at = Some(Instant::now() + NEWCOMER_PATIENCE);
                self.give_up_at = Some(Instant::now() + self.end_patience);
                self.manager.stopping(self.end_patience + LEAVE_PATIENCE);
            }
        }
    }

    /// Has the configuration read again, on a thread of its own: users are looked up for it, which a directory of the
    /// network may hold up.
    fn reload(&mut self) {
        self.manager.reloading();
        self.reloads += 1;
        let (number, flags, inputs) = (self.reloads, self.flags.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let settled = on_its_own_thread(move || Settings::settle(flags)).await;
            let settled = settled.map_err(|e| e.to_string()).and_then(|s| s.map_err(|e| e.to_string()));
            // The loop is gone only when the daemon ends.
            let _ = inputs.send(Input::Settled { number, settled: Box::new(settled) }).await;
        });
    }

    /// The configuration was read again. One that is wrong changes nothing.
    async fn settled(&mut self, settled: Result<Settings, String>) {
        match settled {
            Ok(settings) => {
                log::change(&settings.log);
                tracing::info!("read the configuration again; sockets, folders, devices and mounts stay");
                self.step(Event::Configured { config: Box::new(settings.kernel) }).await;
            }
            Err(e) => tracing::error!("the configuration stays as it was: {e}"),
        }
        if self.give_up_at.is_none() {
            self.manager.ready();
        }
    }

    /// A program has ended. Its group is remembered until nothing can come from it any more.
    fn leave_group(&mut self, pid: Pid) {
        let Some(leader) = self.groups.left(pid) else { return };
        let gone = self.gone.clone();
        tokio::spawn(async move {
            groups::is_gone(leader).await;
            // The acceptor is gone only when the daemon ends.
            let _ = gone.send(leader).await;
        });
    }

    async fn connected(&mut self, connection: Connection, credentials: Credentials, process: OwnedFd) {
        let conn = self.connect(connection, credentials.uid);
        self.watch.connected(credentials.os_pid, process, conn);
        self.step(Event::Connected { conn, credentials }).await;
    }

    /// Ends the connections of a process that has died, after what it has sent was read. Of one that did not read nothing
    /// is read either, and of one that does not read the answers no more is (`flush`).
    async fn peer_died(&mut self, peer: PeerNo) {
        for conn in self.watch.of(peer) {
            match self.connections.get_mut(&conn) {
                Some(connection) if connection.is_read() => {
                    connection.bereft = true;
                    connection.end_reading();
                }
                Some(_) | None => self.disconnect(conn),
            }
        }
        self.step_pending().await;
    }

    /// Takes a connection of a user in, and reads from it.
    fn connect(&mut self, connection: Connection, uid: u32) -> ConnId {
        self.connections_so_far += 1;
        let conn = ConnId(self.connections_so_far);
        let reader = Reader {
            conn,
            socket: connection.socket(),
            gate: connection.gate(),
            memory: Arc::clone(&self.memory),
            turns: self.turns.clone(),
            whose: Some(uid),
            manners: Manners::unknown(),
            half: self.halves.of(uid),
            inputs: self.inputs.clone(),
        };
        self.connections.insert(conn, connection);
        tokio::spawn(reader.run());
        conn
    }

    /// Whether somebody has just connected, and has not asked for anything yet.
    pub(super) fn has_newcomers(&self) -> bool {
        self.connections.values().any(Connection::is_new)
    }

    /// Ends the connections of those who have not been greeted, at the end of the kernel, and takes nobody else in.
    pub(super) fn let_strangers_go(&mut self) {
        self.acceptor.abort();
        // Who was refused hears why.
        self.write_all();
        let is_stranger = |(conn, connection): (&ConnId, &Connection)| {
            (connection.waiting() == 0 && self.kernel.process_of(*conn).is_none()).then_some(*conn)
        };
        let strangers: Vec<ConnId> = self.connections.iter().filter_map(is_stranger).collect();
        strangers.into_iter().for_each(|conn| self.disconnect(conn));
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
        connection.heard(&request.call);
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
