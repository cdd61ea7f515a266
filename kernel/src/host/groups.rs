//! The process groups of the programs that the daemon has started: which of them somebody who connects comes from.
//!
//! | a group | its number is | leaves it by |
//! |---|---|---|
//! | runs | its program's | the program's end |
//! | is left | its program's still: who has connected may wait to be taken in, and some may not have died yet | the word of whoever takes connections in that all of it is through |
//!
//! What a program has started is killed with it, but what it has sent before is read. Were its group forgotten with the
//! program, such a late connection would pass for one of its user's, who may do more. So the group is remembered until the
//! system has none of it any more, and then until every connection that was accepted before has been taken in: the acceptor
//! sends the word for that behind them. Nobody else can have the number meanwhile but for a moment, and then may do nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd;
use syscalls::Pid;
use tokio::time::sleep;

/// How long to wait first until looking whether a group is gone; each time twice as long, up to the longest.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_LONGEST: Duration = Duration::from_secs(1);

/// The groups of programs, by the numbers of their leaders.
#[derive(Debug, Default)]
pub struct Groups(BTreeMap<u32, Group>);

#[derive(Debug)]
struct Group {
    pid: Pid,
    /// Its program has ended.
    left: bool,
}

impl Groups {
    /// The program of a process leads a group.
    pub fn started(&mut self, leader: u32, pid: Pid) {
        self.0.insert(leader, Group { pid, left: false });
    }

    /// The program of a process has ended. Gives the leader of the group that it leaves.
    pub fn left(&mut self, pid: Pid) -> Option<u32> {
        let (leader, group) = self.0.iter_mut().find(|(_, group)| group.pid == pid && !group.left)?;
        group.left = true;
        Some(*leader)
    }

    /// Nothing comes from a group any more. One that a new program leads meanwhile stays.
    pub fn gone(&mut self, leader: u32) {
        if self.0.get(&leader).is_some_and(|group| group.left) {
            self.0.remove(&leader);
        }
    }

    /// The process whose program leads, or led, this group.
    pub fn process_of(&self, leader: u32) -> Option<Pid> {
        self.0.get(&leader).map(|group| group.pid)
    }
}

/// Waits until the system has nothing of a group.
pub async fn is_gone(leader: u32) {
    let Ok(group) = i32::try_from(leader) else { return };
    let mut pause = LOOK_FIRST;
    while killpg(unistd::Pid::from_raw(group), None) != Err(Errno::ESRCH) {
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn group_is_its_programs_until_all_that_came_from_it_is_through() {
        let mut groups = Groups::default();
        groups.started(70, Pid(4));
        groups.started(80, Pid(5));
        assert_eq!(groups.left(Pid(4)), Some(70));
        assert_eq!(groups.process_of(70), Some(Pid(4)), "a late connection is not its user's");
        groups.gone(70);
        assert_eq!((groups.process_of(70), groups.process_of(80)), (None, Some(Pid(5))));
        assert_eq!((groups.left(Pid(4)), groups.left(Pid(6))), (None, None));
    }

    #[test]
    fn number_that_a_new_program_has_stays_its_own() {
        let mut groups = Groups::default();
        groups.started(70, Pid(4));
        groups.left(Pid(4));
        groups.started(70, Pid(6));
        groups.gone(70);
        assert_eq!(groups.process_of(70), Some(Pid(6)));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn group_is_gone_when_its_last_process_is() {
        let mut command = Command::new("sleep");
        let mut child = command.arg("600").process_group(0).spawn().expect("sleep is part of every Linux");
        let leader = child.id();
        let looking = tokio::time::timeout(Duration::from_millis(50), is_gone(leader)).await;
        assert!(looking.is_err(), "it runs");
        child.kill().expect("it runs");
        child.wait().expect("it is a child");
        tokio::time::timeout(Duration::from_secs(60), is_gone(leader)).await.expect("it is gone");
    }
}
