//! Collectives over sending and receiving alone, along a ring (Patarasuk and Yuan, "Bandwidth optimal all-reduce
//! algorithms for clusters of workstations", 2009): each rank sends 2·(n − 1)/n of the numbers, however many ranks there
//! are. A piece is summed along the ring in one order and then handed round, so all ranks have the same bits.

use super::error::Result;
use super::group::{Combine, Number, piece};
use super::traffic::Kind;

/// What carries messages between the ranks of a ring.
pub(super) trait Wire {
    /// This rank's number and how many there are.
    fn place(&self) -> [usize; 2];

    /// Sends to the next rank.
    fn put<T: Number>(&self, numbers: &[T], kind: Kind) -> Result<()>;

    /// Receives so many numbers from the rank before.
    fn take<T: Number>(&self, count: usize) -> Result<Vec<T>>;
}

/// Combines; afterwards this rank's piece is whole.
pub(super) fn reduce_scatter<T: Number>(
    wire: &impl Wire,
    numbers: &mut [T],
    combine: Combine,
    kind: Kind,
) -> Result<()> {
    let ([rank, size], length) = (wire.place(), numbers.len());
    let part = |number: usize| piece(length, number % size, size);
    // Piece p begins its way behind rank p, and so ends it there.
    let parts: Vec<_> = (1..=size).map(|step| part(rank + 2 * size - step)).collect();
    for pair in parts.windows(2) {
        wire.put(&numbers[pair[0].clone()], kind)?;
        let came = wire.take::<T>(pair[1].len())?;
        let mine = numbers[pair[1].clone()].iter_mut().zip(came);
        match combine {
            Combine::Sum => mine.for_each(|(mine, came)| *mine += came),
            Combine::Max => mine.for_each(|(mine, came)| {
                if came > *mine {
                    *mine = came;
                }
            }),
        }
    }
    Ok(())
}

/// Hands the pieces round.
pub(super) fn all_gather<T: Number>(wire: &impl Wire, numbers: &mut [T], kind: Kind) -> Result<()> {
    let ([rank, size], length) = (wire.place(), numbers.len());
    let part = |number: usize| piece(length, number % size, size);
    let parts: Vec<_> = (0..size).map(|step| part(rank + size - step)).collect();
    for pair in parts.windows(2) {
        wire.put(&numbers[pair[0].clone()], kind)?;
        let came = wire.take::<T>(pair[1].len())?;
        numbers[pair[1].clone()].copy_from_slice(&came);
    }
    Ok(())
}
