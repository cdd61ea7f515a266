//! Ranks as threads of one process, each with compute threads of its own: one rank for each core, and tests.
//!
//! Messages are moved through bounded channels. A rank that is gone closes its ends of them, which its neighbours notice
//! at once, theirs theirs, and so on; the first one that is gone is noted, so all name the same.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::error::{RankError, Result};
use super::group::{Combine, Group, Message, Number, Numbers, for_numbers};
use super::ring::{self, Wire};
use super::traffic::{Counters, Kind, Traffic};

/// Messages that may be under way between two ranks before the sender waits.
const MESSAGES_MAX: usize = 64;

/// A group of threads, as one of them sees it.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    /// The members' numbers in the world.
    members: Arc<[usize]>,
    to: Vec<Sender<Packet>>,
    from: Vec<Receiver<Packet>>,
    counters: Counters,
    fate: Arc<Fate>,
}

#[derive(Debug)]
enum Packet {
    Message(Message),
    /// A member's ends of a new group.
    Group(Box<Threads>),
}

/// Which rank was the first that went.
#[derive(Debug)]
struct Fate {
    size: usize,
    first: Mutex<Option<(usize, &'static str)>>,
}

impl Fate {
    fn note(&self, rank: usize, why: &'static str) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert((rank, why));
    }

    fn lost(&self, neighbour: usize) -> RankError {
        let first = *self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let (rank, why) = first.unwrap_or((neighbour, "it ended"));
        RankError::Lost { rank, size: self.size, why: why.into() }
    }
}

impl Threads {
    /// A world of so many ranks.
    pub fn world(size: usize) -> Vec<Arc<dyn Group>> {
        let fate = Arc::new(Fate { size, first: Mutex::default() });
        let all = Threads::group((0..size).collect(), &fate).into_iter();
        all.map(|rank| Arc::new(rank) as Arc<dyn Group>).collect()
    }

    fn group(members: Arc<[usize]>, fate: &Arc<Fate>) -> Vec<Threads> {
        let size = members.len();
        let mut to: Vec<Vec<Sender<Packet>>> = (0..size).map(|_| Vec::new()).collect();
        let mut from: Vec<Vec<Receiver<Packet>>> = (0..size).map(|_| Vec::new()).collect();
        for to in &mut to {
            for from in &mut from {
                let (sender, receiver) = bounded(MESSAGES_MAX);
                to.push(sender);
                from.push(receiver);
            }
        }
        let ends = to.into_iter().zip(from).enumerate();
        let one = |(rank, (to, from))| {
            let (members, fate, counters) = (members.clone(), fate.clone(), Counters::default());
            Threads { rank, members, to, from, counters, fate }
        };
        ends.map(one).collect()
    }

    fn give(&self, to: usize, packet: Packet) -> Result<()> {
        self.to[to].send(packet).map_err(|_| self.fate.lost(self.members[to]))
    }

    fn get(&self, from: usize) -> Result<Packet> {
        self.from[from].recv().map_err(|_| self.fate.lost(self.members[from]))
    }

    fn message(&self, from: usize) -> Result<Message> {
        match self.get(from)? {
            Packet::Message(message) => Ok(message),
            Packet::Group(_) => unreachable!("all ranks make the same calls in the same order"),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fate.note(self.members[self.rank], "it panicked");
        } else if self.members.len() == self.fate.size {
            self.fate.note(self.members[self.rank], "it ended");
        }
    }
}

impl Wire for Threads {
    fn place(&self) -> [usize; 2] {
        [self.rank, self.members.len()]
    }

    fn put<T: Number>(&self, numbers: &[T], kind: Kind) -> Result<()> {
        self.counters.add(kind, size_of_val(numbers));
        let next = (self.rank + 1) % self.members.len();
        self.give(next, Packet::Message(T::message(numbers.to_vec())))
    }

    fn take<T: Number>(&self, count: usize) -> Result<Vec<T>> {
        let before = (self.rank + self.members.len() - 1) % self.members.len();
        let numbers = T::of_message(self.message(before)?).filter(|numbers| numbers.len() == count);
        Ok(numbers.expect("all ranks make the same calls in the same order"))
    }
}

impl Group for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn all_reduce(&self, numbers: Numbers<'_>, combine: Combine) -> Result<()> {
        for_numbers!(numbers, numbers => {
            ring::reduce_scatter(self, numbers, combine, Kind::AllReduce)?;
            ring::all_gather(self, numbers, Kind::AllReduce)
        })
    }

    fn reduce_scatter(&self, numbers: Numbers<'_>) -> Result<()> {
        for_numbers!(numbers, numbers => ring::reduce_scatter(self, numbers, Combine::Sum, Kind::ReduceScatter))
    }

    fn all_gather(&self, numbers: Numbers<'_>) -> Result<()> {
        for_numbers!(numbers, numbers => ring::all_gather(self, numbers, Kind::AllGather))
    }

    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()> {
        if self.rank != root {
            let Message::Bytes(came) = self.message(root)? else {
                unreachable!("all ranks make the same calls in the same order")
            };
            *bytes = came;
            return Ok(());
        }
        for to in (0..self.members.len()).filter(|&to| to != root) {
            self.counters.add(Kind::Broadcast, bytes.len());
            self.give(to, Packet::Message(Message::Bytes(bytes.clone())))?;
        }
        Ok(())
    }

    fn send(&self, to: usize, message: Message) -> Result<()> {
        self.counters.add(Kind::Send, message.bytes());
        self.give(to, Packet::Message(message))
    }

    fn receive(&self, from: usize) -> Result<Message> {
        self.message(from)
    }

    fn split(&self, colour: usize) -> Result<Arc<dyn Group>> {
        let mut colours = vec![0.0; self.members.len()];
        colours[self.rank] = colour as f64;
        self.all_reduce(Numbers::F64(&mut colours), Combine::Sum)?;
        let own: Vec<usize> = (0..colours.len()).filter(|&rank| colours[rank] as usize == colour).collect();
        if own[0] != self.rank {
            return match self.get(own[0])? {
                Packet::Group(group) => Ok(Arc::from(*group)),
                Packet::Message(_) => unreachable!("all ranks make the same calls in the same order"),
            };
        }
        let members = own.iter().map(|&rank| self.members[rank]).collect();
        let mut groups = Threads::group(members, &self.fate).into_iter();
        let mine = groups.next().expect("this rank is in it");
        for (&to, group) in own[1..].iter().zip(groups) {
            self.give(to, Packet::Group(Box::new(group)))?;
        }
        Ok(Arc::new(mine))
    }

    fn sent(&self) -> Traffic {
        self.counters.sent()
    }
}

/// Runs `work` as so many ranks, each with `threads` compute threads, and returns what each said, or how it panicked.
///
/// # Panics
/// If the system has no threads left.
pub fn on_threads<R: Send>(
    ranks: usize,
    threads: usize,
    work: impl Fn(Arc<dyn Group>) -> R + Sync,
) -> Vec<std::thread::Result<R>> {
    std::thread::scope(|scope| {
        let start = |world: Arc<dyn Group>| {
            let (rank, work) = (world.rank(), &work);
            let name = format!("rank-{rank}");
            let run = move || {
                let name = move |thread| format!("rank-{rank}-{thread}");
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
                pool.expect("the system has threads for the ranks").install(|| work(world))
            };
            std::thread::Builder::new().name(name).spawn_scoped(scope, run).expect("there is a thread")
        };
        let running: Vec<_> = Threads::world(ranks).into_iter().map(start).collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    })
}
