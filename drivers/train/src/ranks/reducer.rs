//! Sums gradients over the data ranks while the rest of them is still being computed.
//!
//! Going backwards, the tape hands each gradient that is final to a thread of its own, which fills buckets with them and
//! sums each bucket over the ranks as soon as it is full. All ranks sum buckets in the plan's order, whatever the order
//! in which they are filled. Buffers travel to that thread and back; nobody waits until all are asked back.

use std::sync::Arc;
use std::thread::JoinHandle;

use candle_core::{CpuStorage, DType};
use crossbeam::channel::{Receiver, Sender, bounded};

use super::error::{RankError, Result};
use super::group::{Combine, Group, Number, piece};
use super::plan::{Bucket, Plan};
use super::traffic::Traffic;
use crate::Gradients;
use crate::gradients::Ready;
use crate::ops::real::Real;

/// What is left of a gradient at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduce {
    /// The sum, on every rank.
    All,
    /// Of each bucket, the sum of this rank's piece.
    Scatter,
}

/// What the thread gives back.
enum Done {
    /// A gradient's buffer: with the sum, where all is reduced.
    Buffer(usize, CpuStorage),
    /// This rank's piece of a bucket.
    Piece(usize, CpuStorage),
    Failed(RankError),
}

/// The thread, and the ways to it and from it, which have room for all buffers of a step: nobody waits for room.
pub(super) struct Reducer {
    plan: Arc<Plan>,
    jobs: Option<Sender<Ready>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    group: Arc<dyn Group>,
}

impl Reducer {
    /// Starts the thread. `group` is for it alone.
    pub fn start(plan: Arc<Plan>, group: Arc<dyn Group>, how: Reduce, dtype: DType) -> Result<Reducer> {
        let count = plan.places().count();
        let (jobs, work) = bounded(count);
        let (finished, done) = bounded(count + plan.buckets.len() + 1);
        let (its_plan, its_group) = (plan.clone(), group.clone());
        let serve = move || {
            let server = (its_plan, its_group, how);
            let served = match dtype {
                DType::F64 => serve::<f64>(&server, &work, &finished),
                _ => serve::<f32>(&server, &work, &finished),
            };
            if let Err(error) = served {
                let _ = finished.send(Done::Failed(error));
            }
        };
        let thread = std::thread::Builder::new().name("reducer".into()).spawn(serve);
        let thread = thread
            .map_err(|error| RankError::Transport { call: "starting a thread", why: error.to_string() })?;
        Ok(Reducer { plan, jobs: Some(jobs), done, thread: Some(thread), group })
    }

    /// In how many parts gradients are summed.
    pub fn buckets(&self) -> usize {
        self.plan.buckets.len()
    }

    /// What this rank has sent for gradients.
    pub fn sent(&self) -> Traffic {
        self.group.sent()
    }

    /// From here on gradients that are final are taken.
    pub fn watch(&self, gradients: &mut Gradients) {
        gradients.watch(self.jobs.clone());
    }

    /// Waits for all sums. Gives this rank's pieces to `take`, where they are scattered.
    pub fn finish(
        &self,
        gradients: &mut Gradients,
        mut take: impl FnMut(usize, CpuStorage),
    ) -> crate::Result<()> {
        self.plan.places().try_for_each(|(_, entry)| gradients.finished(entry.id))?;
        gradients.watch(None);
        let mut missing = self.plan.places().count();
        while missing > 0 {
            match self.done.recv() {
                Ok(Done::Buffer(id, values)) => {
                    gradients.give_back(id, values)?;
                    missing -= 1;
                }
                Ok(Done::Piece(bucket, values)) => take(bucket, values),
                Ok(Done::Failed(error)) => return Err(error.into()),
                Err(_) => {
                    let why = "it panicked".into();
                    return Err(RankError::Transport { call: "summing gradients", why }.into());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened, and has failed the step that waited for it.
            let _ = thread.join();
        }
    }
}

/// Sums until nobody has gradients any more.
fn serve<T: Real>(
    (plan, group, how): &(Arc<Plan>, Arc<dyn Group>, Reduce),
    jobs: &Receiver<Ready>,
    done: &Sender<Done>,
) -> Result<()> {
    let mut flats: Vec<Vec<T>> = plan.buckets.iter().map(|b| vec![T::zero(); b.length]).collect();
    let count = plan.places().map(|(_, entry)| entry.id + 1).max().unwrap_or(0);
    let mut place = vec![(0, 0..0); count];
    plan.places().for_each(|(bucket, entry)| place[entry.id] = (bucket, entry.range.clone()));
    loop {
        let mut waiting: Vec<usize> = plan.buckets.iter().map(|bucket| bucket.entries.len()).collect();
        let mut buffers: Vec<Option<CpuStorage>> = vec![None; count];
        let mut next = 0;
        while next < plan.buckets.len() {
            let Ok(Ready { id, values, written }) = jobs.recv() else { return Ok(()) };
            let (bucket, range) = place[id].clone();
            let flat = &mut flats[bucket][range];
            match T::cpu_storage_as_slice(&values) {
                Ok(values) if written => flat.copy_from_slice(values),
                _ => flat.fill(T::zero()),
            }
            buffers[id] = Some(values);
            waiting[bucket] -= 1;
            while waiting.get(next) == Some(&0) {
                reduce(group.as_ref(), *how, &mut flats[next])?;
                give(&plan.buckets[next], next, &flats[next], *how, group.as_ref(), &mut buffers, done);
                next += 1;
            }
        }
        if plan.buckets.is_empty() && jobs.recv().is_err() {
            return Ok(());
        }
    }
}

fn reduce<T: Number>(group: &dyn Group, how: Reduce, flat: &mut [T]) -> Result<()> {
    match how {
        Reduce::All => group.all_reduce(T::numbers(flat), Combine::Sum),
        Reduce::Scatter => group.reduce_scatter(T::numbers(flat)),
    }
}

/// Gives back what a bucket was filled from. Whoever waits may be gone; then nobody wants it.
fn give<T: Real>(
    bucket: &Bucket,
    number: usize,
    flat: &[T],
    how: Reduce,
    group: &dyn Group,
    buffers: &mut [Option<CpuStorage>],
    done: &Sender<Done>,
) {
    if how == Reduce::Scatter {
        let own = piece(flat.len(), group.rank(), group.size());
        let _ = done.send(Done::Piece(number, T::to_cpu_storage(&flat[own])));
    }
    for entry in &bucket.entries {
        let mut values = buffers[entry.id].take().expect("a full bucket has all of them");
        if how == Reduce::All {
            T::slice_mut(&mut values).copy_from_slice(&flat[entry.range.clone()]);
        }
        let _ = done.send(Done::Buffer(entry.id, values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Init, Parameters};
    use crate::ranks::on_threads;

    /// Such as where a stage's shared table comes last on one rank, and the tape hands parameters over as it meets them.
    #[test]
    fn buckets_that_ranks_fill_in_other_orders_are_summed_in_one() {
        let mut parameters = Parameters::new(DType::F64, 1);
        let counts = [3, 5, 2, 7];
        for (id, count) in counts.into_iter().enumerate() {
            parameters.add(format!("p{id}"), &[count], Init::Zeros).expect("a new name");
        }
        let orders = [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]];
        let ends = on_threads(orders.len(), 1, |world| {
            let rank = world.rank();
            let plan = Arc::new(Plan::new(&parameters, 1));
            assert_eq!(plan.buckets.len(), counts.len());
            let reducer = Reducer::start(plan, world.split(0)?, Reduce::All, DType::F64)?;
            let mut gradients = Gradients::new(&parameters)?;
            for step in 0..4 {
                let own = |rank: usize, id: usize| (100 * step + 10 * rank + id) as f64;
                for (id, count) in counts.iter().enumerate() {
                    gradients.set(id, &vec![own(rank, id); *count])?;
                }
                reducer.watch(&mut gradients);
                orders[rank].iter().try_for_each(|id| gradients.finished(*id))?;
                reducer.finish(&mut gradients, |_, _| {})?;
                for (id, count) in counts.into_iter().enumerate() {
                    let sum: f64 = (0..orders.len()).map(|rank| own(rank, id)).sum();
                    assert_eq!(
                        gradients.slice::<f64>(id),
                        Some(&vec![sum; count][..]),
                        "{id} of rank {rank}"
                    );
                }
            }
            Ok::<_, crate::Error>(())
        });
        ends.into_iter().for_each(|end| end.expect("the rank lives").expect("the sums come"));
    }
}
