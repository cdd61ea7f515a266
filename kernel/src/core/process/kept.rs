//! What is kept for processes until it is taken: messages, and replies that nobody has heard. There are so many of them for
//! each process, and so many bytes for each user over all of his processes, of which he may have a thousand.

use syscalls::limits::{MAILBOX_BYTES_PER_USER_MAX, RESULTS_BYTES_PER_USER_MAX, RESULTS_KEPT_MAX};
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::call::CallNo;
use super::super::image::Kept;
use super::{Ended, Process, ProcessTable};

impl Process {
    /// Bytes of the messages that wait for it.
    pub(in crate::core) fn mail_bytes(&self) -> u64 {
        self.mailbox.iter().map(|(_, data)| data.bytes()).sum()
    }

    /// Bytes of the replies that are kept for it.
    pub(in crate::core) fn reply_bytes(&self) -> u64 {
        self.results.iter().map(|ended| ended.result.bytes()).sum()
    }

    /// The reply that goes for the next one.
    fn oldest_reply(&self) -> Option<&Ended> {
        self.results.front().filter(|_| self.results.len() >= RESULTS_KEPT_MAX)
    }
}

impl ProcessTable {
    /// Checks that so many bytes may wait for the processes of a user beside those that do.
    ///
    /// # Errors
    ///
    /// EAGAIN with the bytes that wait and the limit.
    pub(in crate::core) fn check_mail(&self, uid: u32, bytes: u64) -> Result<(), Fault> {
        let has = self.mail.of(uid);
        if has.saturating_add(bytes) <= MAILBOX_BYTES_PER_USER_MAX as u64 {
            return Ok(());
        }
        let message = format!(
            "messages of {has} bytes wait for processes of user {uid}, and this one has {bytes}; the limit is {MAILBOX_BYTES_PER_USER_MAX}; receive some, and try again"
        );
        Err(Fault::new(Errno::EAGAIN, message))
    }

    /// Lets a message wait for a process.
    pub(in crate::core) fn put_message(&mut self, pid: Pid, from: Pid, data: Kept) {
        let Some(process) = self.living_mut(pid) else { return };
        let (uid, bytes) = (process.id.uid, data.bytes());
        process.mailbox.push_back((from, data));
        self.mail.grow(uid, bytes);
    }

    /// Takes the first message that waits for a process.
    pub(in crate::core) fn take_message(&mut self, pid: Pid) -> Option<(Pid, Kept)> {
        let process = self.living_mut(pid)?;
        let uid = process.id.uid;
        let (from, data) = process.mailbox.pop_front()?;
        self.mail.shrink(uid, data.bytes());
        Some((from, data))
    }

    /// The reply to a call of a process as it is kept; where its user has too much of them, the fault that says so.
    pub(in crate::core) fn as_kept(&self, pid: Pid, result: &Result<Reply, Fault>) -> Kept {
        let kept = Kept::of(result);
        let (Some(process), Ok(_)) = (self.living(pid), result) else { return kept };
        let (uid, bytes) = (process.id.uid, kept.bytes());
        let goes = process.oldest_reply().map_or(0, |ended| ended.result.bytes());
        let has = self.replies.of(uid).saturating_sub(goes);
        if has.saturating_add(bytes) <= RESULTS_BYTES_PER_USER_MAX as u64 {
            return kept;
        }
        let message = format!(
            "the reply has {bytes} bytes and is not kept: replies of {has} bytes are kept for processes of user {uid}, and the limit is {RESULTS_BYTES_PER_USER_MAX}; follow calls that have ended, and make this one again"
        );
        Kept::of(&Err::<Reply, Fault>(Fault::new(Errno::E2BIG, message)))
    }

    /// Keeps a reply for a process, in the place of the oldest if there are too many.
    pub(in crate::core) fn keep_reply(&mut self, pid: Pid, ended: Ended) {
        let Some(process) = self.living_mut(pid) else { return };
        let (uid, bytes) = (process.id.uid, ended.result.bytes());
        let goes = process.oldest_reply().map_or(0, |ended| ended.result.bytes());
        if process.results.len() >= RESULTS_KEPT_MAX {
            process.results.pop_front();
        }
        process.results.push_back(ended);
        self.replies.grow(uid, bytes);
        self.replies.shrink(uid, goes);
    }

    /// Takes the reply to a call of a process.
    pub(in crate::core) fn take_reply(&mut self, pid: Pid, call: CallNo) -> Option<Ended> {
        let process = self.living_mut(pid)?;
        let uid = process.id.uid;
        let at = process.results.iter().position(|ended| ended.call == call)?;
        let ended = process.results.remove(at)?;
        self.replies.shrink(uid, ended.result.bytes());
        Some(ended)
    }
}

#[cfg(test)]
mod tests {
    use syscalls::call::{Class, Lifetime};

    use super::super::super::capability::Caps;
    use super::super::super::counters::Counters;
    use super::super::super::event::Now;
    use super::super::super::group::GroupId;
    use super::super::Identity;
    use super::*;

    const USER: u32 = 7;

    /// A table with a process of the user's for each of these pids.
    fn table(pids: &[Pid]) -> ProcessTable {
        let mut table = ProcessTable::new();
        for pid in pids {
            let id = Identity {
                pid: *pid,
                parent: Pid::KERNEL,
                uid: USER,
                os_pid: 0,
                name: "test".into(),
                class: Class::Normal,
                nice: 0,
                group: GroupId::ROOT,
                started: Now(0),
                counters: Counters::default(),
            };
            table.enter(Process::new(id, None, Lifetime::Detached, Caps::USER));
        }
        table
    }

    fn ended(call: u64, result: Kept) -> Ended {
        Ended { call: CallNo(call), name: "stat".into(), context: None, result, sent: false }
    }

    fn of_keys(bytes: usize) -> Result<Reply, Fault> {
        Ok(Reply::Keys(vec!["k".repeat(bytes)]))
    }

    #[test]
    fn messages_are_bounded_for_a_user_over_all_of_his_processes() {
        let mut table = table(&[Pid(2), Pid(3)]);
        let (one, all) = (Kept::of(&"a message"), MAILBOX_BYTES_PER_USER_MAX as u64);
        table.put_message(Pid(2), Pid(9), one.clone());
        table.put_message(Pid(3), Pid(9), one.clone());
        let left = all - 2 * one.bytes();
        assert!(table.check_mail(USER, left).is_ok() && table.check_mail(USER + 1, all).is_ok());
        let fault = table.check_mail(USER, left + 1).expect_err("one byte too many");
        let has = format!("{} bytes wait for processes of user 7", 2 * one.bytes());
        assert!(fault.errno == Errno::EAGAIN && fault.message.contains(&has), "{fault}");
        assert_eq!(table.take_message(Pid(2)), Some((Pid(9), one.clone())));
        assert!(table.check_mail(USER, all - one.bytes()).is_ok(), "there is room for what was taken");
        table.bury(Pid(3), 0);
        assert!(table.check_mail(USER, all).is_ok(), "nothing waits for who has ended");
    }

    #[test]
    fn reply_beyond_what_is_kept_for_a_user_is_told_to_whoever_fetches_it() {
        let mut table = table(&[Pid(2), Pid(3)]);
        let first = table.as_kept(Pid(2), &of_keys(100));
        assert_eq!(first.read(), Ok(of_keys(100)));
        table.keep_reply(Pid(2), ended(1, first.clone()));
        // As if others of his had the rest.
        let others = RESULTS_BYTES_PER_USER_MAX as u64 - 2 * first.bytes();
        table.replies.grow(USER, others);
        assert_eq!(table.as_kept(Pid(3), &of_keys(100)).read(), Ok(of_keys(100)), "it just fits");
        let refused: Result<Reply, Fault> =
            table.as_kept(Pid(3), &of_keys(101)).read().expect("it is a reply");
        let fault = refused.expect_err("it does not");
        assert!(fault.errno == Errno::E2BIG && fault.message.contains("user 7"), "{fault}");
        let own = Err(Fault::new(Errno::EIO, "x".repeat(200)));
        assert_eq!(table.as_kept(Pid(3), &own).read(), Ok(own.clone()), "faults are always told");
        assert_eq!(table.take_reply(Pid(2), CallNo(1)).map(|e| e.result), Some(first));
        assert_eq!(table.as_kept(Pid(3), &of_keys(101)).read(), Ok(of_keys(101)), "one was fetched");
    }

    #[test]
    fn oldest_reply_makes_room_for_the_next_one() {
        let mut table = table(&[Pid(2)]);
        let kept = table.as_kept(Pid(2), &of_keys(100));
        (0..RESULTS_KEPT_MAX as u64).for_each(|n| table.keep_reply(Pid(2), ended(n, kept.clone())));
        let had = table.replies.of(USER);
        table.replies.grow(USER, RESULTS_BYTES_PER_USER_MAX as u64 - had);
        let next = table.as_kept(Pid(2), &of_keys(100));
        assert_eq!(next, kept);
        table.keep_reply(Pid(2), ended(99, next));
        assert_eq!(table.replies.of(USER), RESULTS_BYTES_PER_USER_MAX as u64);
        assert!(
            table.take_reply(Pid(2), CallNo(0)).is_none() && table.take_reply(Pid(2), CallNo(1)).is_some()
        );
    }
}
