//! Starts the ranks of a run: one, or several as threads of this process.

use std::any::Any;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Given, place, train_on};
use crate::checkpoint::Folder;
use crate::ranks::{Group, Mesh, RankError, on_threads};
use crate::run::{End, Feed, RunError};

/// Trains, over as many ranks as there are.
pub(super) fn start(given: &Given<'_>, feed: Feed) -> Result<End, RunError> {
    match given.arguments.ranks {
        Some(ranks) => threads(given, feed, ranks as usize),
        None => {
            given.spec.ranks.layout(1)?;
            place::threads(given.spec.threads).map_err(RunError::Unfit)?;
            train_on(Mesh::alone(), given, feed)
        }
    }
}

/// Trains over ranks that are threads and share the compute threads evenly.
fn threads(given: &Given<'_>, feed: Feed, ranks: usize) -> Result<End, RunError> {
    let layout = given.spec.ranks.layout(ranks)?;
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = (given.spec.threads.unwrap_or(processors) / ranks).max(1);
    let feed = Mutex::new(Some(feed));
    let rank = |world: Arc<dyn Group>| {
        let leads = world.rank() == 0;
        let feed = leads.then(|| feed.lock().unwrap_or_else(PoisonError::into_inner).take()).flatten();
        train_on(Mesh::new(world, layout)?, given, feed.unwrap_or_else(Feed::none))
    };
    verdict(given, on_threads(ranks, threads, rank))
}

/// How a run ended whose ranks ended so: the first of them to fail says why. That others were lost follows from it.
fn verdict(
    given: &Given<'_>,
    ends: Vec<std::thread::Result<Result<End, RunError>>>,
) -> Result<End, RunError> {
    let size = ends.len();
    let mut ended = Ok(End::Done);
    let mut failed: Option<(usize, String)> = None;
    for (rank, end) in ends.into_iter().enumerate() {
        match end {
            Ok(Ok(end)) if rank == 0 => ended = Ok(end),
            Ok(Ok(_)) => {}
            Ok(Err(error)) if is_loss(&error) => ended = Err(error),
            // All ranks saw it, and this one tells of it as if there were no others.
            Ok(Err(error)) if rank == 0 => return Err(error),
            Ok(Err(error)) => failed = failed.or(Some((rank, error.to_string()))),
            Err(panic) => failed = failed.or(Some((rank, format!("it panicked: {}", said(&*panic))))),
        }
    }
    let Some((rank, why)) = failed else { return ended };
    let kept = match Folder::of(&given.spec.out).steps().last() {
        Some(step) => format!("the checkpoint of step {step} is kept, go on with --resume"),
        None => "there is no checkpoint yet".into(),
    };
    Err(RunError::Rank { rank, size, why, kept })
}

fn is_loss(error: &RunError) -> bool {
    let (RunError::Ranks(error) | RunError::Train(crate::Error::Ranks(error))) = error else { return false };
    matches!(error, RankError::Lost { .. })
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
