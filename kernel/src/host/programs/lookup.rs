//! Looking a program up: which file it is, and who its user is to the system.
//!
//! A file may lie on a file server, and users in a directory of the network, and either may not answer for as long as it
//! likes. So each look-up has a thread of its own, and a time. A thread that hangs cannot be ended: those of one user hold
//! up no more than his own programs, and only so many of them are there. What is not found in time is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use syscalls::{Errno, Fault};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::inspect::on_its_own_thread;
use crate::core::effect::Program;
use crate::jail::User;

/// Look-ups of one user that run at once. The others wait, with the time that each has.
pub const OF_USER_MAX: usize = 4;

/// How long a look-up may take. A directory of users that is asked over the network answers within a second, or gives up
/// after five to ten.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What was found of a program.
#[derive(Debug)]
pub struct Found {
    pub path: PathBuf,
    /// Whom it runs as, where that is another user than the daemon's.
    pub user: Option<User>,
}

/// Finds a program, in whatever time that takes.
pub type Find = dyn Fn(&Program) -> Result<Found, Fault> + Send + Sync;

/// Looks programs up.
pub struct Lookups {
    find: Arc<Find>,
    patience: Duration,
    /// The room of each user who has a look-up under way.
    of_users: Mutex<BTreeMap<u32, Weak<Semaphore>>>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}

impl Lookups {
    /// None is under way; they will be done by `find`.
    pub fn new(find: Arc<Find>, patience: Duration) -> Self {
        Lookups { find, patience, of_users: Mutex::default() }
    }

    /// Looks a program up.
    ///
    /// # Errors
    ///
    /// Whatever it cannot be started for, EAGAIN where there is no thread to be had, and ETIMEDOUT.
    pub async fn look_up(&self, program: &Program) -> Result<Found, Fault> {
        match timeout(self.patience, self.find(program.clone())).await {
            Ok(found) => found,
            Err(_) => Err(self.too_long(program)),
        }
    }

    async fn find(&self, program: Program) -> Result<Found, Fault> {
        let room = self.room_of(program.uid);
        let place = room.clone().acquire_owned().await.expect("nobody closes it");
        let find = Arc::clone(&self.find);
        let found = on_its_own_thread(move || {
            // Taken for as long as the thread is there, whoever still waits for it.
            let _place = (place, room);
            find(&program)
        });
        let no_thread = |e| Fault::new(Errno::EAGAIN, format!("the program cannot be looked for: {e}"));
        found.await.map_err(no_thread)?
    }

    fn room_of(&self, uid: u32) -> Arc<Semaphore> {
        let mut of_users = self.of_users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = of_users.get(&uid).and_then(Weak::upgrade) {
            return room;
        }
        of_users.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Semaphore::new(OF_USER_MAX));
        of_users.insert(uid, Arc::downgrade(&room));
        room
    }

    fn too_long(&self, program: &Program) -> Fault {
        let (name, uid, patience) = (&program.argv[0], program.uid, self.patience);
        let message = format!(
            "{name} was not started: to find it and its user {uid} took longer than {patience:?}, which is the limit; a file \
             system or the system's directory of users does not answer"
        );
        Fault::new(Errno::ETIMEDOUT, message)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Look-ups that hang for user 1 until something is sent or the sender is gone, and count how many have begun.
    fn hanging(patience: Duration) -> (Arc<Lookups>, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, began) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel::<()>();
        let goes_on = Mutex::new(goes_on);
        let find = move |program: &Program| {
            begun.send(()).expect("the test counts");
            if program.uid == 1 {
                let _ = goes_on.lock().map(|goes_on| goes_on.recv());
            }
            Ok(Found { path: PathBuf::from(&program.argv[0]), user: None })
        };
        (Arc::new(Lookups::new(Arc::new(find), patience)), began, go_on)
    }

    fn program(uid: u32) -> Program {
        Program::new(vec!["/bin/true".into()], uid)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn look_up_that_hangs_is_given_up_and_names_what_it_was() {
        let (lookups, _began, _go_on) = hanging(Duration::from_millis(20));
        let fault = lookups.look_up(&program(1)).await.expect_err("it hangs");
        assert_eq!(fault.errno, Errno::ETIMEDOUT);
        assert!(fault.message.contains("/bin/true") && fault.message.contains("user 1"), "{fault}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn look_ups_of_a_user_that_hang_are_bounded_and_hold_nobody_else_up() {
        let (lookups, began, go_on) = hanging(Duration::from_millis(20));
        for _ in 0..OF_USER_MAX + 3 {
            lookups.look_up(&program(1)).await.expect_err("it hangs");
        }
        for _ in 0..OF_USER_MAX {
            began.recv_timeout(PATIENCE).expect("it has a thread");
        }
        assert!(began.try_recv().is_err(), "no more threads than that");
        let found = async |uid| while lookups.look_up(&program(uid)).await.is_err() {};
        timeout(PATIENCE, found(2)).await.expect("another user's are found");
        drop(go_on);
        timeout(PATIENCE, found(1)).await.expect("and his own, when what hung is over");
    }
}
