//! Ranks as processes under MPI, on one machine or many: OpenMPI or MPICH, by way of the crate `mpi`.
//!
//! MPI does the collectives. Its default is kept that an error of it ends all ranks: no rank is left waiting. Its own waits
//! look again and again for what has not come, which keeps a processor busy for as long as another rank computes, or is
//! stopped. So all calls are those that return at once, and a rank that waits for long sleeps in between. Counts of MPI are
//! of 31 bits: what is longer goes in several calls.

use std::ffi::c_int;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::ffi;
use mpi::point_to_point::Status;
use mpi::raw::AsRaw;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{Communicator, Source};

use super::error::{RankError, Result};
use super::group::{Combine, Group, Message, Number, Numbers, for_numbers, piece};
use super::traffic::{Counters, Kind, Traffic};

/// A message's tag says what is in it.
const F32: c_int = 1;
const F64: c_int = 2;
const BYTES: c_int = 3;
/// Beside what is in it: more of the same message follows.
const MORE: c_int = 4;

/// Numbers of one call: what its counts can say, with room for a sum of some.
const CALL_MAX: usize = 1 << 30;

/// How long a rank looks again and again for what it waits for: others compute the same, and are often there at once.
const LOOKS: Duration = Duration::from_micros(200);

/// Behind that it sleeps for such a part of what it has waited already, so that it is late by no more than that.
const SLEEP_PART: u32 = 8;

/// The longest sleep: waking so often costs some thousandths of a processor.
const SLEEP_MAX: Duration = Duration::from_millis(5);

/// MPI, from its beginning to its end. All groups must be gone before it is dropped.
pub struct Mpi {
    universe: Universe,
    call_max: usize,
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
            Threading::Multiple => Ok(Mpi { universe, call_max: CALL_MAX }),
            _ => Err(failed("this MPI has no MPI_THREAD_MULTIPLE; use one that was built with it")),
        }
    }

    /// The same, whose calls have so many numbers at most. It must be so on all ranks.
    pub fn in_calls_of(self, call_max: usize) -> Mpi {
        Mpi { call_max, ..self }
    }

    /// All ranks.
    pub fn world(&self) -> Arc<dyn Group> {
        Arc::new(Processes::of(self.universe.world(), self.call_max))
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
    /// Ranks on this machine, once that was asked. All must ask it together, and one that refuses would leave the others.
    here: OnceLock<usize>,
    /// Numbers of one call at most.
    call_max: usize,
    /// Messages that MPI may still be reading.
    sending: Mutex<Vec<Sending>>,
    counters: Counters,
}

/// A message on its way. Its memory stays where it is until MPI has read it.
struct Sending {
    /// Those of its parts that are not done.
    requests: Vec<ffi::MPI_Request>,
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
    fn of(communicator: SimpleCommunicator, call_max: usize) -> Processes {
        let (rank, size) = (communicator.rank() as usize, communicator.size() as usize);
        let (sending, counters) = (Mutex::default(), Counters::default());
        Processes { communicator, rank, size, here: OnceLock::new(), call_max, sending, counters }
    }

    /// Counts what a ring would send; MPI does not say.
    fn count(&self, kind: Kind, rounds: usize, bytes: usize) {
        self.counters.add(kind, rounds * bytes * (self.size - 1) / self.size);
    }

    /// Begins something by a function that fills in its request, and waits for its end. The function's memory must live
    /// until then, which it does if it is the caller's.
    fn wait_for(&self, begin: impl FnOnce(*mut ffi::MPI_Request)) {
        // SAFETY: this is a value of the library's.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        begin(&mut request);
        wait(|| is_done(&mut request));
    }

    /// Lets go of messages that MPI has read.
    fn sent_already(&self) {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.retain_mut(|Sending { requests, message }| {
            requests.retain_mut(|request| !is_done(request));
            if requests.is_empty() {
                // SAFETY: MPI has read all parts, and a message that is dropped is not kept.
                unsafe { ManuallyDrop::drop(message) };
            }
            !requests.is_empty()
        });
    }

    /// Begins to send numbers, in as many calls as it takes.
    fn begin<T: Equivalence>(&self, to: usize, numbers: &[T], tag: c_int) -> Vec<ffi::MPI_Request> {
        let calls = numbers.len().div_ceil(self.call_max).max(1);
        let call = |number: usize| {
            let part = &numbers[number * self.call_max..numbers.len().min((number + 1) * self.call_max)];
            let tag = if number + 1 < calls { tag | MORE } else { tag };
            // SAFETY: the caller keeps the numbers until the request is done; the rest are values.
            unsafe {
                let mut request = ffi::RSMPI_REQUEST_NULL;
                ffi::MPI_Isend(
                    part.as_ptr().cast(),
                    part.len() as c_int,
                    T::equivalent_datatype().as_raw(),
                    to as c_int,
                    tag,
                    self.communicator.as_raw(),
                    &mut request,
                );
                request
            }
        };
        (0..calls).map(call).collect()
    }

    /// Takes a message of numbers whose first part has come, with this tag.
    fn take<T: Equivalence + Copy + Default>(&self, from: usize, mut tag: c_int, count: c_int) -> Vec<T> {
        let mut numbers: Vec<T> = Vec::new();
        let mut count = count as usize;
        loop {
            let before = numbers.len();
            numbers.resize(before + count, T::default());
            let part = &mut numbers[before..];
            // SAFETY: the part has room for what was announced, and lives until the request is done.
            self.wait_for(|request| unsafe {
                ffi::MPI_Irecv(
                    part.as_mut_ptr().cast(),
                    count as c_int,
                    T::equivalent_datatype().as_raw(),
                    from as c_int,
                    tag,
                    self.communicator.as_raw(),
                    request,
                );
            });
            if tag & MORE == 0 {
                return numbers;
            }
            let status = self.announced(from);
            (tag, count) = (status.tag(), status.count(T::equivalent_datatype()) as usize);
        }
    }

    /// Waits until there is a message of another rank, and says what it is. It stays the next one: a group is used by one
    /// thread at a time.
    fn announced(&self, from: usize) -> Status {
        let process = self.communicator.process_at_rank(from as c_int);
        let mut found = None;
        wait(|| {
            found = process.immediate_probe();
            found.is_some()
        });
        found.expect("it has waited for one")
    }

    fn reduce<T: Number + Equivalence>(&self, numbers: &mut [T], combine: Combine) {
        self.count(Kind::AllReduce, 2, size_of_val(numbers));
        let operation = match combine {
            Combine::Sum => SystemOperation::sum(),
            Combine::Max => SystemOperation::max(),
        };
        for part in numbers.chunks_mut(self.call_max) {
            let own = part.to_vec();
            // SAFETY: both have as many numbers as is said, and live until the request is done.
            self.wait_for(|request| unsafe {
                ffi::MPI_Iallreduce(
                    own.as_ptr().cast(),
                    part.as_mut_ptr().cast(),
                    own.len() as c_int,
                    T::equivalent_datatype().as_raw(),
                    operation.as_raw(),
                    self.communicator.as_raw(),
                    request,
                );
            });
        }
    }

    /// The ranks' pieces of so many numbers, by the calls that they go in: of each piece the same part goes at once.
    fn calls(&self, length: usize) -> impl Iterator<Item = Vec<Range<usize>>> + use<> {
        let (size, each) = (self.size, (self.call_max / self.size).max(1));
        let call = move |number: usize| {
            let part = |rank| {
                let piece = piece(length, rank, size);
                let from = |number: usize| (piece.start + number * each).min(piece.end);
                from(number)..from(number + 1)
            };
            (0..size).map(part).collect()
        };
        (0..length.div_ceil(size).div_ceil(each)).map(call)
    }

    fn scatter<T: Number + Equivalence>(&self, numbers: &mut [T]) {
        self.count(Kind::ReduceScatter, 1, size_of_val(numbers));
        for parts in self.calls(numbers.len()) {
            let (own, counts) = (joined(numbers, &parts), counts(&parts));
            let mine = &mut numbers[parts[self.rank].clone()];
            // SAFETY: `own` has as many numbers as the counts add up to, `mine` as many as this rank's count, and all of
            // them live until the request is done.
            self.wait_for(|request| unsafe {
                ffi::MPI_Ireduce_scatter(
                    own.as_ptr().cast(),
                    mine.as_mut_ptr().cast(),
                    counts.as_ptr(),
                    T::equivalent_datatype().as_raw(),
                    SystemOperation::sum().as_raw(),
                    self.communicator.as_raw(),
                    request,
                );
            });
        }
    }

    fn gather<T: Number + Equivalence>(&self, numbers: &mut [T]) {
        self.count(Kind::AllGather, 1, size_of_val(numbers));
        for parts in self.calls(numbers.len()) {
            let (mut all, counts) = (joined(numbers, &parts), counts(&parts));
            let places: Vec<c_int> =
                counts.iter().scan(0, |end, count| Some(std::mem::replace(end, *end + count))).collect();
            let own = numbers[parts[self.rank].clone()].to_vec();
            // SAFETY: `all` has as many numbers as the counts add up to, `own` as many as this rank's count, and all of
            // them live until the request is done.
            self.wait_for(|request| unsafe {
                ffi::MPI_Iallgatherv(
                    own.as_ptr().cast(),
                    own.len() as c_int,
                    T::equivalent_datatype().as_raw(),
                    all.as_mut_ptr().cast(),
                    counts.as_ptr(),
                    places.as_ptr(),
                    T::equivalent_datatype().as_raw(),
                    self.communicator.as_raw(),
                    request,
                );
            });
            let mut from = &all[..];
            for part in parts {
                let (came, rest) = from.split_at(part.len());
                numbers[part].copy_from_slice(came);
                from = rest;
            }
        }
    }

    fn give_all<T: Equivalence>(&self, values: &mut [T], root: usize) {
        for part in values.chunks_mut(self.call_max) {
            // SAFETY: the part has as many values as is said, and lives until the request is done.
            self.wait_for(|request| unsafe {
                ffi::MPI_Ibcast(
                    part.as_mut_ptr().cast(),
                    part.len() as c_int,
                    T::equivalent_datatype().as_raw(),
                    root as c_int,
                    self.communicator.as_raw(),
                    request,
                );
            });
        }
    }
}

/// Whether a request is done, which it then is no more.
fn is_done(request: &mut ffi::MPI_Request) -> bool {
    let mut done: c_int = 0;
    // SAFETY: the request is one of ours that is not done, and `done` outlives the call.
    unsafe { ffi::MPI_Test(request, &mut done, ffi::RSMPI_STATUS_IGNORE) };
    done != 0
}

/// Waits until something is so.
fn wait(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        let waited = begun.elapsed();
        match waited < LOOKS {
            true => thread::yield_now(),
            false => thread::sleep((waited / SLEEP_PART).min(SLEEP_MAX)),
        }
    }
}

/// Parts of numbers, one after another.
fn joined<T: Copy>(numbers: &[T], parts: &[Range<usize>]) -> Vec<T> {
    parts.iter().flat_map(|part| numbers[part.clone()].iter().copied()).collect()
}

fn counts(parts: &[Range<usize>]) -> Vec<c_int> {
    parts.iter().map(|part| part.len() as c_int).collect()
}

impl Drop for Processes {
    fn drop(&mut self) {
        wait(|| {
            self.sent_already();
            self.sending.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
        });
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
        *self.here.get_or_init(|| self.communicator.split_shared(0).size() as usize)
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
        let mut length = [bytes.len() as u64];
        self.give_all(&mut length, root);
        bytes.resize(length[0] as usize, 0);
        self.give_all(bytes, root);
        if self.rank == root {
            self.counters.add(Kind::Broadcast, bytes.len() * (self.size - 1));
        }
        Ok(())
    }

    fn send(&self, to: usize, message: Message) -> Result<()> {
        self.counters.add(Kind::Send, message.bytes());
        self.sent_already();
        let message = ManuallyDrop::new(message);
        let requests = match &*message {
            Message::F32(numbers) => self.begin(to, numbers, F32),
            Message::F64(numbers) => self.begin(to, numbers, F64),
            Message::Bytes(bytes) => self.begin(to, bytes, BYTES),
        };
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        sending.push(Sending { requests, message });
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Message> {
        let status = self.announced(from);
        let tag = status.tag();
        Ok(match tag & !MORE {
            F32 => Message::F32(self.take(from, tag, status.count(f32::equivalent_datatype()))),
            F64 => Message::F64(self.take(from, tag, status.count(f64::equivalent_datatype()))),
            _ => Message::Bytes(self.take(from, tag, status.count(u8::equivalent_datatype()))),
        })
    }

    fn split(&self, colour: usize) -> Result<Arc<dyn Group>> {
        let group = self.communicator.split_by_color(Color::with_value(colour as c_int));
        Ok(Arc::new(Processes::of(group.expect("a colour of a value gives a group"), self.call_max)))
    }

    fn sent(&self) -> Traffic {
        self.counters.sent()
    }
}
