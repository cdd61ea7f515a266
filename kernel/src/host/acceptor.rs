//! Taking connections in: who has connected is found out, one after another, before the main loop hears of him.
//!
//! A connection needs a place, since each takes a descriptor; one that there is none for is told so and closed. Where the
//! system refuses to accept, newcomers wait in the socket until it can. That a process group is gone comes through here
//! too, so that the loop hears of it behind every connection that was accepted before.
//!
//! When the daemon is to end, the loop aborts this: newcomers wait in the socket for the next one, and who was being
//! taken in sees his connection end before anything was said.

use std::sync::Arc;
use std::time::Duration;

use syscalls::{Fault, Frame, reply::NO_CALL};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::input::Input;
use super::log;
use super::peer::Peer;
use super::places::Places;
use super::turns::Turns;
use crate::core::event::Credentials;

/// How long to wait before accepting again after the system refused, for one, because of too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What takes connections in.
pub struct Acceptor {
    pub listener: UnixListener,
    /// The admin group.
    pub admins: Option<u32>,
    pub places: Arc<Places>,
    pub turns: Turns,
    /// The leaders of process groups that are gone.
    pub gone_groups: mpsc::Receiver<u32>,
    pub inputs: mpsc::Sender<Input>,
}

impl Acceptor {
    /// Takes connections in, one after another, until it is aborted.
    pub async fn run(mut self) {
        let mut failing = false;
        loop {
            let input = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        if std::mem::take(&mut failing) {
                            tracing::info!("connections are accepted again");
                        }
                        self.take_in(socket).await
                    }
                    Err(e) => {
                        log::once(
                            &mut failing,
                            &format!("no connection can be accepted: {e}; trying again until one can"),
                        );
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        None
                    }
                },
                // Behind all that was accepted before.
                Some(leader) = self.gone_groups.recv() => Some(Input::GroupGone { leader }),
            };
            if let Some(input) = input
                && self.inputs.send(input).await.is_err()
            {
                return;
            }
        }
    }

    /// Finds out who has connected, in his turn; none where nobody can be let in.
    async fn take_in(&self, socket: UnixStream) -> Option<Input> {
        let place = match self.places.take() {
            Ok(place) => place,
            Err(fault) => {
                turn_away(&socket, fault);
                return None;
            }
        };
        let turn = self.turns.take(None).await;
        // Nobody is there any more, or nobody that could be told from another.
        let peer = Peer::of(&socket).ok()?;
        let credentials = Credentials {
            uid: peer.uid,
            os_pid: peer.os_pid(),
            os_parent: peer.parent(),
            executable: peer.executable(),
            admin: peer.is_admin(self.admins),
            program: None,
        };
        let group_leader = peer.group_leader()?;
        let process = peer.into_process();
        Some(Input::Connected { socket, credentials, group_leader, process, place, turn })
    }
}

fn turn_away(socket: &UnixStream, fault: Fault) {
    let mut line = Vec::new();
    Frame::Reply(NO_CALL, Err(fault)).write_line(&mut line);
    // A socket that is new takes a line, unless the program is gone.
    let _ = socket.try_write(&line);
}
