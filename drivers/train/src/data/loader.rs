//! The loader: a thread that makes batches ahead of the training step.
//!
//! The channel between them is bounded, so the loader is at most [`BATCHES_AHEAD`] batches ahead and otherwise sleeps.
//! Each batch brings the position behind it; a checkpoint keeps that of the last batch that was trained on, and what
//! the loader had made beyond it is made again.

use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, bounded};

use super::collate::Collator;
use super::examples::Position;
use super::limits::BATCHES_AHEAD;
use crate::Batch;

/// A batch and what is behind it.
#[derive(Debug)]
pub struct Loaded {
    pub batch: Batch,
    pub next: Position,
}

/// A running loader; dropping it ends the thread.
pub struct Loader {
    batches: Option<Receiver<Loaded>>,
    thread: Option<JoinHandle<()>>,
    waited: u64,
}

impl Loader {
    /// Starts making batches of `rows` examples from a position on.
    ///
    /// # Errors
    ///
    /// The system has no thread for it.
    pub fn start(collator: Collator, rows: usize, mut position: Position) -> std::io::Result<Loader> {
        let (sender, batches) = bounded(BATCHES_AHEAD);
        let thread = std::thread::Builder::new().name("loader".into()).spawn(move || {
            loop {
                let (batch, next) = collator.batch(position, rows);
                position = next;
                if sender.send(Loaded { batch, next }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Loader { batches: Some(batches), thread: Some(thread), waited: 0 })
    }

    /// The next batch.
    ///
    /// # Panics
    ///
    /// Where the loader's thread has panicked.
    pub fn take(&mut self) -> Loaded {
        let batches = self.batches.as_ref().expect("it is taken away by drop alone");
        batches.try_recv().unwrap_or_else(|_| {
            self.waited += 1;
            batches.recv().expect("the loader runs until its receiver is gone")
        })
    }

    /// How often the step had to wait for a batch.
    pub fn waited(&self) -> u64 {
        self.waited
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened, and has ended the step that waited for it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::data::{About, Examples, Order, Task, TokenWriter};
    use crate::token::{Family, Kind, train, usual};

    #[test]
    fn batches_that_are_ready_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let special: Vec<String> = usual(Family::Decoder).iter().map(|token| (*token).to_owned()).collect();
        let none = std::iter::empty::<Result<String, crate::data::DataError>>();
        let tokeniser = train(Kind::Byte, &special, none).unwrap();
        let mut writer = TokenWriter::create(&folder.path().join("a"), tokeniser.size(), [0; 24]).unwrap();
        writer.push(&[1; 100]).unwrap();
        writer.end(0);
        let file = Arc::new(writer.finish(&About::default()).unwrap());
        let examples = Examples::new(file, Task::NextToken { length: 8 }, Order::Sequential, 1).unwrap();
        let collator = Collator::new(examples, &tokeniser).unwrap();
        let mut loader = Loader::start(collator, 2, Position::default()).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while loader.batches.as_ref().unwrap().len() < BATCHES_AHEAD {
            assert!(Instant::now() < until, "the loader makes {BATCHES_AHEAD} batches ahead");
            std::thread::yield_now();
        }
        (0..BATCHES_AHEAD).for_each(|_| drop(loader.take()));
        assert_eq!(loader.waited(), 0);
    }
}
