//! Collectives: what ranks do together. Every rank of a group makes the same calls in the same order, and each call
//! returns when this rank's part is done. Threads, MPI and NCCL are behind this trait; [`Alone`] is one rank, for which all of
//! them are nothing.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::error::{RankError, Result};
use super::traffic::Traffic;

/// Numbers that a collective works on in place.
#[derive(Debug)]
pub enum Numbers<'n> {
    F32(&'n mut [f32]),
    F64(&'n mut [f64]),
}

/// Runs an expression over the slice of numbers, whatever their type is.
macro_rules! for_numbers {
    ($all:expr, $numbers:ident => $body:expr) => {
        match $all {
            $crate::ranks::Numbers::F32($numbers) => $body,
            $crate::ranks::Numbers::F64($numbers) => $body,
        }
    };
}
pub(super) use for_numbers;

/// What one rank sends to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bytes(Vec<u8>),
}

impl Message {
    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        match self {
            Message::F32(numbers) => size_of_val(numbers.as_slice()),
            Message::F64(numbers) => size_of_val(numbers.as_slice()),
            Message::Bytes(bytes) => bytes.len(),
        }
    }
}

/// A type of number that ranks send.
pub trait Number: Copy + PartialOrd + std::ops::AddAssign + Send + Sync + 'static {
    /// A slice for a collective.
    fn numbers(slice: &mut [Self]) -> Numbers<'_>;
    /// A message of these numbers.
    fn message(numbers: Vec<Self>) -> Message;
    /// The numbers of a message, if they are of this type.
    fn of_message(message: Message) -> Option<Vec<Self>>;
}

macro_rules! number {
    ($type:ty, $variant:ident) => {
        impl Number for $type {
            fn numbers(slice: &mut [Self]) -> Numbers<'_> {
                Numbers::$variant(slice)
            }

            fn message(numbers: Vec<Self>) -> Message {
                Message::$variant(numbers)
            }

            fn of_message(message: Message) -> Option<Vec<Self>> {
                match message {
                    Message::$variant(numbers) => Some(numbers),
                    _ => None,
                }
            }
        }
    };
}
number!(f32, F32);
number!(f64, F64);

/// How numbers of several ranks become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    Sum,
    Max,
}

/// Ranks that do things together, as one of them sees them.
///
/// # Invariants
/// A group is used by one thread of a rank at a time. All ranks of a group get the same bits out of an all-reduce: what
/// each of them has a copy of stays the same everywhere.
pub trait Group: Send + Sync + fmt::Debug {
    /// The number of this rank, from 0 on.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Puts what all ranks have together, for all of them.
    ///
    /// # Errors
    /// [`RankError::Lost`] where a rank is gone; so do all others.
    fn all_reduce(&self, numbers: Numbers<'_>, combine: Combine) -> Result<()>;

    /// Sums; afterwards this rank's [piece] is the sum, and the rest means nothing.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    fn reduce_scatter(&self, numbers: Numbers<'_>) -> Result<()>;

    /// Gives this rank's [piece] to all, and takes theirs.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    fn all_gather(&self, numbers: Numbers<'_>) -> Result<()>;

    /// Gives all the bytes of `root`.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()>;

    /// Sends to another rank. It does not wait until that one receives, unless very much is under way.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    fn send(&self, to: usize, message: Message) -> Result<()>;

    /// Receives the next message of another rank.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    fn receive(&self, from: usize) -> Result<Message>;

    /// How many ranks share this machine.
    fn here(&self) -> usize {
        self.size()
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    fn barrier(&self) -> Result<()> {
        self.all_reduce(Numbers::F64(&mut [0.0]), Combine::Max)
    }

    /// The group of those that give the same colour, in the same order.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    fn split(&self, colour: usize) -> Result<Arc<dyn Group>>;

    /// What this rank has sent in this group.
    fn sent(&self) -> Traffic;
}

impl dyn Group + '_ {
    /// Sums some numbers over all ranks.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    pub fn sum<const N: usize>(&self, mut numbers: [f64; N]) -> Result<[f64; N]> {
        self.all_reduce(Numbers::F64(&mut numbers), Combine::Sum)?;
        Ok(numbers)
    }

    /// The greatest of a number over all ranks.
    ///
    /// # Errors
    /// See [`Group::all_reduce`].
    pub fn max(&self, number: f64) -> Result<f64> {
        let mut numbers = [number];
        self.all_reduce(Numbers::F64(&mut numbers), Combine::Max)?;
        Ok(numbers[0])
    }

    /// Receives numbers of a type and count that both sides know.
    ///
    /// # Errors
    /// [`RankError::Transport`] where the message is something else; else see [`Group::all_reduce`].
    pub fn receive_numbers<T: Number>(&self, from: usize, count: usize) -> Result<Vec<T>> {
        let message = self.receive(from)?;
        let bytes = message.bytes();
        T::of_message(message).filter(|numbers| numbers.len() == count).ok_or_else(|| RankError::Transport {
            call: "receive",
            why: format!("{bytes} bytes from rank {from}, where {count} numbers were expected"),
        })
    }
}

/// The part of `length` that belongs to a rank: as even as it can be.
pub fn piece(length: usize, rank: usize, size: usize) -> Range<usize> {
    length * rank / size..length * (rank + 1) / size
}

/// One rank.
#[derive(Debug)]
pub struct Alone;

impl Group for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _: Numbers<'_>, _: Combine) -> Result<()> {
        Ok(())
    }

    fn reduce_scatter(&self, _: Numbers<'_>) -> Result<()> {
        Ok(())
    }

    fn all_gather(&self, _: Numbers<'_>) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _: &mut Vec<u8>, _: usize) -> Result<()> {
        Ok(())
    }

    fn send(&self, to: usize, _: Message) -> Result<()> {
        Err(RankError::Transport { call: "send", why: format!("there is no rank {to} besides this one") })
    }

    fn receive(&self, from: usize) -> Result<Message> {
        Err(RankError::Transport {
            call: "receive",
            why: format!("there is no rank {from} besides this one"),
        })
    }

    fn split(&self, _: usize) -> Result<Arc<dyn Group>> {
        Ok(Arc::new(Alone))
    }

    fn sent(&self) -> Traffic {
        Traffic::default()
    }
}
