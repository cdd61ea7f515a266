//! Starts the ranks of a run: one, or several as threads of this process.

use std::any::Any;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Given, place, train_on};
use crate::checkpoint::Folder;
#[cfg(feature = "mpi")]
use crate::ranks::together;
use crate::ranks::{Group, Mesh, RankError, on_threads};
use crate::run::{End, Feed, RunError};

/// Trains, over as many ranks as there are.
pub(super) fn start(given: &Given<'_>, feed: Feed) -> Result<End, RunError> {
    if given.arguments.nccl && given.arguments.ranks.is_none() && super::mpi::started().is_none() {
        return Err(RunError::Unfit("--nccl is for several ranks; say how many with --ranks".into()));
    }
    if let Some(found) = super::mpi::started().filter(|_| given.arguments.ranks.is_none()) {
        return processes(given, feed, found);
    }
    match given.arguments.ranks {
        Some(ranks) if given.arguments.mpi => {
            let ranks = ranks as usize;
            given.spec.ranks.layout(ranks)?;
            match super::mpi::become_mpirun(ranks)? {}
        }
        Some(ranks) => threads(given, feed, ranks as usize),
        None => {
            given.spec.ranks.layout(1)?;
            place::threads(given.spec.threads).map_err(RunError::Unfit)?;
            train_on(Mesh::alone(), given, feed)
        }
    }
}

/// Compute threads of each of so many ranks on this machine.
fn threads_of_each(given: &Given<'_>, ranks: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (given.spec.threads.unwrap_or(processors) / ranks).max(1)
}

/// Ranks that do their collectives as was asked for.
fn collectives(given: &Given<'_>, world: Arc<dyn Group>) -> Result<Arc<dyn Group>, RunError> {
    if !given.arguments.nccl {
        return Ok(world);
    }
    #[cfg(feature = "nccl")]
    return Ok(crate::ranks::Nccl::over(world)?);
    #[cfg(not(feature = "nccl"))]
    Err(RunError::Unfit(
        "this program was built without NCCL; build it with --features nccl, or leave --nccl out".into(),
    ))
}

/// Trains over ranks that are threads and share the compute threads evenly.
fn threads(given: &Given<'_>, feed: Feed, ranks: usize) -> Result<End, RunError> {
    let layout = given.spec.ranks.layout(ranks)?;
    let threads = threads_of_each(given, ranks);
    let feed = Mutex::new(Some(feed));
    let rank = |world: Arc<dyn Group>| {
        let leads = world.rank() == 0;
        let feed = leads.then(|| feed.lock().unwrap_or_else(PoisonError::into_inner).take()).flatten();
        let world = collectives(given, world)?;
        train_on(Mesh::new(world, layout)?, given, feed.unwrap_or_else(Feed::none))
    };
    verdict(given, on_threads(ranks, threads, rank))
}

/// Trains as one of several processes under MPI. What all of them know is told by the first; a rank that fails alone
/// tells why and ends the others, which wait for it.
#[cfg(feature = "mpi")]
fn processes(given: &Given<'_>, feed: Feed, _: usize) -> Result<End, RunError> {
    let mpi = crate::ranks::Mpi::start()?;
    let world = mpi.world();
    let (rank, size) = (world.rank(), world.size());
    let threads = threads_of_each(given, world.here());
    let done = (|| {
        let begun = place::threads(Some(threads)).map_err(RunError::Unfit);
        let layout = together(&*world, begun.and_then(|()| Ok(given.spec.ranks.layout(size)?)))?;
        let mesh = Mesh::new(collectives(given, world)?, layout)?;
        train_on(mesh, given, feed)
    })();
    let Err(error) = done else { return done };
    match everywhere(&error) {
        true if rank == 0 => Err(error),
        // The first one tells of it.
        true => Err(RunError::Told),
        false => {
            eprintln!("llmasos-trainer: {}", failed(given, rank, size, error.to_string()));
            mpi.abort()
        }
    }
}

#[cfg(not(feature = "mpi"))]
fn processes(_: &Given<'_>, _: Feed, found: usize) -> Result<End, RunError> {
    Err(RunError::Unfit(format!("this is one of {found} ranks, and {}", super::mpi::NONE)))
}

/// Whether all ranks see an error, in the same place: one that they have agreed on, or that is in what they have summed.
#[cfg(feature = "mpi")]
fn everywhere(error: &RunError) -> bool {
    use RunError::{NotFinite, Ranks};
    let agreed = matches!(error, Ranks(RankError::Refused { .. } | RankError::Specification { .. }));
    agreed || matches!(error, NotFinite { .. })
}

/// How a run ended whose ranks ended so: the first of them to fail says why. That others were lost follows from it.
fn verdict(
    given: &Given<'_>,
    ends: Vec<std::thread::Result<Result<End, RunError>>>,
) -> Result<End, RunError> {
    let size = ends.len();
    let mut ended = Ok(End::Done);
    let mut first: Option<(usize, String)> = None;
    for (rank, end) in ends.into_iter().enumerate() {
        match end {
            Ok(Ok(end)) if rank == 0 => ended = Ok(end),
            Ok(Ok(_)) => {}
            Ok(Err(error)) if is_loss(&error) => ended = Err(error),
            // All ranks saw it, and this one tells of it as if there were no others.
            Ok(Err(error)) if rank == 0 => return Err(error),
            Ok(Err(error)) => first = first.or(Some((rank, error.to_string()))),
            Err(panic) => first = first.or(Some((rank, format!("it panicked: {}", said(&*panic))))),
        }
    }
    let Some((rank, why)) = first else { return ended };
    Err(failed(given, rank, size, why))
}

/// What is told of a rank that failed.
fn failed(given: &Given<'_>, rank: usize, size: usize, why: String) -> RunError {
    let kept = match Folder::of(&given.spec.out).steps().last() {
        Some(step) => format!("the checkpoint of step {step} is kept, go on with --resume"),
        None => "there is no checkpoint yet".into(),
    };
    RunError::Rank { rank, size, why, kept }
}

fn is_loss(error: &RunError) -> bool {
    let (RunError::Ranks(error) | RunError::Train(crate::Error::Ranks(error))) = error else { return false };
    matches!(error, RankError::Lost { .. })
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
