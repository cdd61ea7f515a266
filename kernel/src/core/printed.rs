//! What programs print: the last lines of each, and those who follow them.
//!
//! A *ring* is there from the start of a program. It is open until the host says that the program has ended, and kept
//! until as many others have ended since; so the last words of a program can be read when its process is gone. Nothing is
//! kept for a follower: he is told from the ring, and one that did not read goes on where he was, or hears how many lines
//! have gone meanwhile. So what programs print is bounded, however much it is, and is never in the daemon's log.

use std::collections::{BTreeMap, VecDeque};

use syscalls::event::{OutputLine, Stream};
use syscalls::limits::{PRINTED_BYTES_MAX, PRINTED_ENDED_MAX, PRINTED_LINES_MAX};
use syscalls::reply::OutputReply;
use syscalls::{Event, Pid, Reply};

use super::Kernel;
use super::call::CallNo;
use super::event::{ConnId, Now};

/// A line as it comes from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    pub stream: Stream,
    pub text: String,
    /// It was longer than a line may be, and the next one goes on with it.
    pub cut: bool,
}

/// The last lines of a program.
#[derive(Debug, Default)]
struct Ring {
    uid: u32,
    lines: VecDeque<OutputLine>,
    /// Of their texts.
    bytes: usize,
    /// The number of the next line.
    next: u64,
    open: bool,
    /// It is a service's, who keeps it.
    kept: bool,
    followers: BTreeMap<CallNo, Follower>,
}

/// Who is told of each line.
#[derive(Debug)]
struct Follower {
    conn: ConnId,
    /// The line that he is told next.
    next: u64,
}

impl Ring {
    fn push(&mut self, now: Now, pid: Pid, printed: Printed) {
        let Printed { stream, text, cut } = printed;
        self.bytes += text.len();
        self.lines.push_back(OutputLine { number: self.next, at_us: now.0, pid, stream, text, cut });
        self.next += 1;
        while self.lines.len() > PRINTED_LINES_MAX || self.bytes > PRINTED_BYTES_MAX {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.text.len());
        }
    }

    /// The number of the oldest line that is kept.
    fn first(&self) -> u64 {
        self.next - self.lines.len() as u64
    }

    fn last(&self, lines: Option<u32>) -> Vec<OutputLine> {
        let lines = lines.map_or(usize::MAX, |lines| lines as usize);
        self.lines.iter().skip(self.lines.len().saturating_sub(lines)).cloned().collect()
    }

    fn reply(&self, lines: Vec<OutputLine>) -> OutputReply {
        OutputReply { lines, dropped: self.first(), ended: !self.open }
    }
}

/// The rings of all programs, by their processes.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    rings: BTreeMap<Pid, Ring>,
    /// Closed ones, that of the program first that ended first.
    ended: VecDeque<Pid>,
}

impl Outputs {
    /// A program is started, and prints from now on.
    pub(super) fn begin(&mut self, pid: Pid, uid: u32) {
        self.rings.insert(pid, Ring { uid, open: true, ..Ring::default() });
    }

    /// The program of a process goes on with what an earlier one of the same service has printed, if its user is the
    /// same, and the service keeps the ring.
    pub(super) fn continue_as(&mut self, before: Option<Pid>, pid: Pid) {
        let before = before.and_then(|before| self.rings.remove(&before));
        let Some(ring) = self.rings.get_mut(&pid) else { return };
        ring.kept = true;
        if let Some(before) = before.filter(|before| before.uid == ring.uid) {
            (ring.lines, ring.bytes, ring.next) = (before.lines, before.bytes, before.next);
        }
    }

    /// A service that kept a ring is gone.
    pub(super) fn forget(&mut self, pid: Pid) {
        if self.rings.get(&pid).is_some_and(|ring| ring.kept && !ring.open) {
            self.rings.remove(&pid);
        }
    }

    /// Whose program it is that has, or had, this process.
    pub(super) fn owner(&self, pid: Pid) -> Option<u32> {
        self.rings.get(&pid).map(|ring| ring.uid)
    }

    /// Whether more may come.
    pub(super) fn is_open(&self, pid: Pid) -> bool {
        self.rings.get(&pid).is_some_and(|ring| ring.open)
    }

    /// The last lines of a program; so many, or all that are kept.
    pub(super) fn last(&self, pid: Pid, lines: Option<u32>) -> Option<OutputReply> {
        self.rings.get(&pid).map(|ring| ring.reply(ring.last(lines)))
    }

    /// Somebody follows no more.
    pub(super) fn unfollow(&mut self, pid: Pid, call: CallNo) {
        if let Some(ring) = self.rings.get_mut(&pid) {
            ring.followers.remove(&call);
        }
    }

    /// Closed rings go in the order in which they were closed.
    fn forget_oldest(&mut self) {
        while self.ended.len() > PRINTED_ENDED_MAX {
            if let Some(oldest) = self.ended.pop_front() {
                self.rings.remove(&oldest);
            }
        }
    }

    /// Checks what must hold between two events: bounds, and that those are followed whose program runs.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub(super) fn check(&self, mut alive: impl Iterator<Item = Pid>, follows: impl Fn(CallNo, Pid) -> bool) {
        let open = self.rings.iter().filter(|(_, ring)| ring.open).map(|(pid, _)| *pid);
        assert!(open.eq(alive.by_ref()), "the rings that are open are those of programs that run");
        let closed = self.rings.values().filter(|ring| !ring.open && !ring.kept).count();
        assert!(closed == self.ended.len() && closed <= PRINTED_ENDED_MAX, "{closed} rings are closed");
        for (pid, ring) in &self.rings {
            let bytes: usize = ring.lines.iter().map(|line| line.text.len()).sum();
            assert_eq!(bytes, ring.bytes, "process {pid}");
            assert!(bytes <= PRINTED_BYTES_MAX && ring.lines.len() <= PRINTED_LINES_MAX, "process {pid}");
            assert!(ring.followers.keys().all(|call| follows(*call, *pid)), "process {pid}");
            assert!(ring.open || ring.followers.is_empty(), "process {pid} is followed beyond its end");
        }
    }
}

impl Kernel {
    /// A program has printed. One whose process has ended may still do so.
    pub(super) fn printed(&mut self, pid: Pid, lines: Vec<Printed>) {
        let now = self.now;
        let Some(ring) = self.outputs.rings.get_mut(&pid).filter(|ring| ring.open) else { return };
        lines.into_iter().for_each(|line| ring.push(now, pid, line));
        self.tell_followers(pid);
    }

    /// A program prints no more. Its followers have heard all, and that was it.
    pub(super) fn output_ended(&mut self, pid: Pid) {
        let Some(ring) = self.outputs.rings.get_mut(&pid).filter(|ring| ring.open) else { return };
        ring.open = false;
        let (reply, kept) = (ring.reply(Vec::new()), ring.kept);
        // One that does not read is told what the ring still has, since there is no later.
        let late: Vec<CallNo> = ring.followers.keys().copied().collect();
        for call in late {
            self.tell_follower(pid, call);
            self.finish(call, Ok(Reply::Output(reply.clone())));
        }
        if !kept {
            self.outputs.ended.push_back(pid);
            self.outputs.forget_oldest();
        }
    }

    /// Has a call follow a program, from so many of its last lines on.
    pub(super) fn follow_output(&mut self, pid: Pid, call: CallNo, conn: ConnId, lines: Option<u32>) {
        let Some(ring) = self.outputs.rings.get_mut(&pid) else { return };
        let back = lines.map_or(u64::MAX, u64::from).min(ring.lines.len() as u64);
        ring.followers.insert(call, Follower { conn, next: ring.next - back });
        self.tell_followers(pid);
    }

    /// Tells followers on a connection that reads again what was printed meanwhile.
    pub(super) fn tell_printed(&mut self, conn: ConnId) {
        let on_it = |ring: &Ring| ring.followers.values().any(|f| f.conn == conn);
        let rings = self.outputs.rings.iter().filter(|(_, ring)| on_it(ring)).map(|(pid, _)| *pid);
        rings.collect::<Vec<_>>().into_iter().for_each(|pid| self.tell_followers(pid));
    }

    fn tell_followers(&mut self, pid: Pid) {
        let Some(ring) = self.outputs.rings.get(&pid) else { return };
        let reads = |f: &Follower| self.connections.get(&f.conn).is_some_and(|c| !c.congested);
        let reading: Vec<CallNo> =
            ring.followers.iter().filter(|(_, f)| reads(f)).map(|(call, _)| *call).collect();
        reading.into_iter().for_each(|call| self.tell_follower(pid, call));
    }

    fn tell_follower(&mut self, pid: Pid, call: CallNo) {
        let Some(ring) = self.outputs.rings.get_mut(&pid) else { return };
        let (first, next) = (ring.first(), ring.next);
        let Some(follower) = ring.followers.get_mut(&call).filter(|f| f.next < next) else { return };
        let lost = first.saturating_sub(follower.next);
        let told = usize::try_from(follower.next.saturating_sub(first)).unwrap_or(usize::MAX);
        follower.next = next;
        let lines: Vec<OutputLine> = ring.lines.iter().skip(told).cloned().collect();
        if lost > 0 {
            self.report(call, Event::Lost { events: lost });
        }
        self.report(call, Event::Output { lines });
    }
}
