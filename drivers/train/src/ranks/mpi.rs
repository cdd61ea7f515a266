//! Ranks as processes under MPI, on one machine or many: OpenMPI or MPICH, by way of the crate `mpi`.
//!
//! MPI does the collectives. Its default is kept that an error of it ends all ranks: no rank is left waiting.

use std::ffi::c_int;
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::{Equivalence, PartitionMut};
use mpi::environment::Universe;
use mpi::ffi;
use mpi::point_to_point::MatchedReceiveVec;
use mpi::raw::AsRaw;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{Communicator, CommunicatorCollectives, Root, Source};

use super::error::{RankError, Result};
use super::group::{Combine, Group, Message, Number, Numbers, for_numbers, piece};
use super::traffic::{Counters, Kind, Traffic};

/// A message's tag says what is in it.
const F32: c_int = 1;
const F64: c_int = 2;
const BYTES: c_int = 3;

/// MPI, from its beginning to its end. All groups must be gone before it is dropped.
pub struct Mpi {
    universe: Universe,
}

impl Mpi {
    /// Begins.
    ///
    /// # Errors
    /// [`RankError::Transport`] if MPI was built without threads: gradients are summed while others are computed.
    pub fn start() -> Result<Mpi> {
        let failed = |why: &str| RankError::Transport { call: "MPI_Init_thread", why: why.into() };
        let begun = mpi::initialize_with_threading(Threading::Multiple);
        let (universe, threading) = begun.ok_or_else(|| failed("it was called before"))?;
        match threading {
            Threading::Multiple => Ok(Mpi { universe }),
            _ => Err(failed("this MPI has no MPI_THREAD_MULTIPLE; use one that was built with it")),
        }
    }

    /// All ranks.
    pub fn world(&self) -> Arc<dyn Group> {
        Arc::new(Processes::of(self.universe.world()))
    }

    /// Ends all ranks at once, because this one has failed.
    pub fn abort(&self) -> ! {
        self.universe.world().abort(1)
    }
}

/// A group of processes, as one of them sees it.
struct Processes {
    communicator: SimpleCommunicator,
    rank: usize,
    size: usize,
    /// Messages that MPI may still be reading.
    sending: Mutex<Vec<Sending>>,
    counters: Counters,
}

/// A message on its way. Its memory stays where it is until MPI has read it.
struct Sending {
    request: ffi::MPI_Request,
    message: ManuallyDrop<Message>,
}

// SAFETY: MPI was begun with MPI_THREAD_MULTIPLE, so any thread may use its handles.
unsafe impl Send for Processes {}
// SAFETY: see above; a group is used by one thread at a time, and `sending` is behind a lock.
unsafe impl Sync for Processes {}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} processes", self.rank, self.size)
    }
}

impl Processes {
    fn of(communicator: SimpleCommunicator) -> Processes {
        let (rank, size) = (communicator.rank() as usize, communicator.size() as usize);
        Processes { communicator, rank, size, sending: Mutex::default(), counters: Counters::default() }
    }

    /// Counts what a ring would send; MPI does not say.
    fn count(&self, kind: Kind, rounds: usize, bytes: usize) {
        self.counters.add(kind, rounds * bytes * (self.size - 1) / self.size);
    }

    /// Lets go of messages that MPI has read; of all of them, if it is to wait.
    fn sent_already(&self, wait: bool) {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.retain_mut(|Sending { request, message }| {
            let mut done: c_int = 0;
            // SAFETY: the request is one of ours that is not done, and `done` outlives the call.
            unsafe {
                if wait {
                    ffi::MPI_Wait(request, ffi::RSMPI_STATUS_IGNORE);
                    done = 1;
                } else {
                    ffi::MPI_Test(request, &mut done, ffi::RSMPI_STATUS_IGNORE);
                }
                if done != 0 {
                    ManuallyDrop::drop(message);
                }
            }
            done == 0
        });
    }

    fn begin<T: Equivalence>(&self, to: usize, numbers: &[T], tag: c_int) -> ffi::MPI_Request {
        // SAFETY: the caller keeps the numbers until the request is done; the rest are values.
        unsafe {
            let mut request = ffi::RSMPI_REQUEST_NULL;
            ffi::MPI_Isend(
                numbers.as_ptr().cast(),
                numbers.len() as c_int,
                T::equivalent_datatype().as_raw(),
                to as c_int,
                tag,
                self.communicator.as_raw(),
                &mut request,
            );
            request
        }
    }

    fn reduce<T: Number + Equivalence>(&self, numbers: &mut [T], combine: Combine) {
        self.count(Kind::AllReduce, 2, size_of_val(numbers));
        let own = numbers.to_vec();
        match combine {
            Combine::Sum => self.communicator.all_reduce_into(&own[..], numbers, SystemOperation::sum()),
            Combine::Max => self.communicator.all_reduce_into(&own[..], numbers, SystemOperation::max()),
        }
    }

    /// How many numbers each rank's piece has, and where it begins.
    fn pieces(&self, length: usize) -> (Vec<c_int>, Vec<c_int>) {
        let pieces = (0..self.size).map(|rank| piece(length, rank, self.size));
        pieces.map(|piece| (piece.len() as c_int, piece.start as c_int)).unzip()
    }

    fn scatter<T: Number + Equivalence>(&self, numbers: &mut [T]) {
        self.count(Kind::ReduceScatter, 1, size_of_val(numbers));
        let (own, (counts, _)) = (numbers.to_vec(), self.pieces(numbers.len()));
        let mine = piece(numbers.len(), self.rank, self.size);
        // SAFETY: `own` has as many numbers as the counts add up to, and `mine` as many as this rank's count.
        unsafe {
            ffi::MPI_Reduce_scatter(
                own.as_ptr().cast(),
                numbers[mine].as_mut_ptr().cast(),
                counts.as_ptr(),
                T::equivalent_datatype().as_raw(),
                SystemOperation::sum().as_raw(),
                self.communicator.as_raw(),
            );
        }
    }

    fn gather<T: Number + Equivalence>(&self, numbers: &mut [T]) {
        self.count(Kind::AllGather, 1, size_of_val(numbers));
        let (counts, places) = self.pieces(numbers.len());
        let own = numbers[piece(numbers.len(), self.rank, self.size)].to_vec();
        let mut all = PartitionMut::new(numbers, counts, places);
        self.communicator.all_gather_varcount_into(&own[..], &mut all);
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.sent_already(true);
    }
}

impl Group for Processes {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn here(&self) -> usize {
        self.communicator.split_shared(0).size() as usize
    }

    fn all_reduce(&self, numbers: Numbers<'_>, combine: Combine) -> Result<()> {
        for_numbers!(numbers, numbers => self.reduce(numbers, combine));
        Ok(())
    }

    fn reduce_scatter(&self, numbers: Numbers<'_>) -> Result<()> {
        for_numbers!(numbers, numbers => self.scatter(numbers));
        Ok(())
    }

    fn all_gather(&self, numbers: Numbers<'_>) -> Result<()> {
        for_numbers!(numbers, numbers => self.gather(numbers));
        Ok(())
    }

    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()> {
        let process = self.communicator.process_at_rank(root as c_int);
        let mut length = bytes.len() as u64;
        process.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        process.broadcast_into(&mut bytes[..]);
        if self.rank == root {
            self.counters.add(Kind::Broadcast, bytes.len() * (self.size - 1));
        }
        Ok(())
    }

    fn send(&self, to: usize, message: Message) -> Result<()> {
        self.counters.add(Kind::Send, message.bytes());
        self.sent_already(false);
        let message = ManuallyDrop::new(message);
        let request = match &*message {
            Message::F32(numbers) => self.begin(to, numbers, F32),
            Message::F64(numbers) => self.begin(to, numbers, F64),
            Message::Bytes(bytes) => self.begin(to, bytes, BYTES),
        };
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.push(Sending { request, message });
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Message> {
        let process = self.communicator.process_at_rank(from as c_int);
        let probed = process.matched_probe();
        Ok(match probed.1.tag() {
            F32 => Message::F32(probed.matched_receive_vec().0),
            F64 => Message::F64(probed.matched_receive_vec().0),
            _ => Message::Bytes(probed.matched_receive_vec().0),
        })
    }

    fn split(&self, colour: usize) -> Result<Arc<dyn Group>> {
        let group = self.communicator.split_by_color(Color::with_value(colour as c_int));
        Ok(Arc::new(Processes::of(group.expect("a colour of a value gives a group"))))
    }

    fn sent(&self) -> Traffic {
        self.counters.sent()
    }
}
