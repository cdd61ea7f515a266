//! Gradients are on their way to the other ranks while the rest of them is still being computed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use candle_core::DType;
use train::ranks::{Combine, Group, Message, Numbers, Plans, RankError, Traffic};

use super::proof::{Division, GPT2, STEPS, T5, again, division, many};

/// How long a rank waits for a sum that has been promised.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a rank does in a step, as its groups see it.
#[derive(Debug, Default)]
struct Seen {
    /// Sums within layers that it has begun, on the way forward and back.
    within: AtomicUsize,
    /// Buckets of gradients whose sum it has begun.
    buckets: Mutex<usize>,
    more: Condvar,
}

/// Where a rank waits: at the last of so many sums within layers of a step, until half of so many buckets are under way.
#[derive(Clone, Copy, Debug)]
struct Wait {
    within: usize,
    buckets: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    World,
    Data,
    /// The tensor ranks, which sum within layers, on the thread that goes forward and back.
    Tensor,
    /// The data ranks once more, for the thread that sums gradients.
    Gradients,
    Other,
}

#[derive(Debug)]
struct Watched {
    group: Arc<dyn Group>,
    axis: Axis,
    seen: Arc<Seen>,
    wait: Option<Wait>,
    splits: AtomicUsize,
}

impl Watched {
    fn of(group: Arc<dyn Group>, axis: Axis, seen: &Arc<Seen>, wait: Option<Wait>) -> Arc<dyn Group> {
        Arc::new(Watched { group, axis, seen: seen.clone(), wait, splits: AtomicUsize::new(0) })
    }

    fn summing(&self) {
        match self.axis {
            Axis::Gradients => {
                *self.seen.buckets.lock().unwrap() += 1;
                self.seen.more.notify_all();
            }
            Axis::Tensor => {
                let before = self.seen.within.fetch_add(1, Ordering::Relaxed);
                let Some(wait) = self.wait.filter(|wait| before % wait.within + 1 == wait.within) else {
                    return;
                };
                let wanted = before / wait.within * wait.buckets + wait.buckets / 2;
                let begun = self.seen.buckets.lock().unwrap();
                let few = |begun: &mut usize| *begun < wanted;
                let (begun, ended) = self.seen.more.wait_timeout_while(begun, PATIENCE, few).unwrap();
                assert!(!ended.timed_out(), "{begun} of {wanted} buckets are under way, in the first layer");
            }
            _ => {}
        }
    }
}

impl Group for Watched {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn all_reduce(&self, numbers: Numbers<'_>, combine: Combine) -> Result<(), RankError> {
        self.summing();
        self.group.all_reduce(numbers, combine)
    }

    fn reduce_scatter(&self, numbers: Numbers<'_>) -> Result<(), RankError> {
        self.summing();
        self.group.reduce_scatter(numbers)
    }

    fn all_gather(&self, numbers: Numbers<'_>) -> Result<(), RankError> {
        self.group.all_gather(numbers)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<(), RankError> {
        self.group.broadcast(bytes, root)
    }

    fn send(&self, to: usize, message: Message) -> Result<(), RankError> {
        self.group.send(to, message)
    }

    fn receive(&self, from: usize) -> Result<Message, RankError> {
        self.group.receive(from)
    }

    /// A mesh splits a world along data, tensor and pipeline, in this order; a team splits the data ranks.
    fn split(&self, colour: usize) -> Result<Arc<dyn Group>, RankError> {
        let axis = match (self.axis, self.splits.fetch_add(1, Ordering::Relaxed)) {
            (Axis::World, 0) => Axis::Data,
            (Axis::World, 1) => Axis::Tensor,
            (Axis::Data, 0) => Axis::Gradients,
            _ => Axis::Other,
        };
        Ok(Watched::of(self.group.split(colour)?, axis, &self.seen, self.wait))
    }

    fn sent(&self) -> Traffic {
        self.group.sent()
    }
}

/// Trains, and returns how many sums of both kinds there are in a step.
fn watched(text: &str, division: Division, wait: Option<Wait>) -> Wait {
    let ranks: Vec<Arc<Seen>> = (0..division.layout.size()).map(|_| Arc::default()).collect();
    let wrap = |world: Arc<dyn Group>| {
        let seen = &ranks[world.rank()];
        Watched::of(world, Axis::World, seen, wait)
    };
    many(text, DType::F64, division, wrap, |_, _| ());
    let steps = STEPS as usize;
    let within = ranks[0].within.load(Ordering::Relaxed);
    let buckets = *ranks[0].buckets.lock().unwrap();
    assert_eq!([within % steps, buckets % steps], [0, 0], "every step has the same sums");
    Wait { within: within / steps, buckets: buckets / steps }
}

/// The last sum within layers belongs to the first layer, on the way back: a rank that stays there until half of its
/// gradients are under way would stay for ever if they were summed behind it.
#[test]
fn gradients_are_summed_before_the_way_back_is_over() {
    let plain = division(2, 2, 1);
    let zero = Division { plans: Plans { zero: true, ..plain.plans }, ..plain };
    for text in [GPT2, T5] {
        for division in [plain, zero, again(plain)] {
            let sums = watched(text, division, None);
            assert!(sums.within > 8 && sums.buckets > 8, "{sums:?}");
            watched(text, division, Some(sums));
        }
    }
}
