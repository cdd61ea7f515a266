//! Collectives by NCCL, for ranks that have a card of NVIDIA's each.
//!
//! The ranks are there already, as threads or under MPI, and know each other by a group: it gives all of them NCCL's
//! unique id, and goes on to carry bytes and what one rank sends to another. Numbers lie in main memory, so each collective
//! copies them to the card and back.
//!
//! NCCL and CUDA are loaded when the first group is made. A rank that dies leaves those that wait in a collective waiting:
//! under MPI it ends them, and threads end with their process.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaStream, DeviceRepr, DriverError};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::{Comm, Id, NcclType, ReduceOp};

use super::error::{RankError, Result};
use super::group::{Combine, Group, Message, Number, Numbers, piece};
use super::traffic::{Counters, Kind, Traffic};

/// Ranks that do collectives by NCCL, as one of them sees them.
pub struct Nccl {
    /// The same ranks by other means.
    control: Arc<dyn Group>,
    stream: Arc<CudaStream>,
    communicator: Mutex<Comm>,
    counters: Counters,
}

// SAFETY: a communicator may be used by any thread, by one at a time; it is behind a lock.
unsafe impl Send for Nccl {}
// SAFETY: see above.
unsafe impl Sync for Nccl {}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} by NCCL", self.control.rank(), self.control.size())
    }
}

/// A type of number that cards add.
trait OnCard: Number + NcclType + DeviceRepr {}
impl OnCard for f32 {}
impl OnCard for f64 {}

impl Nccl {
    /// The same ranks, which do their collectives by NCCL from now on. Each has a card of its machine: the first rank
    /// there the first card.
    ///
    /// # Errors
    /// NCCL or CUDA is not there, or there are fewer cards than ranks on this machine.
    pub fn over(control: Arc<dyn Group>) -> Result<Arc<dyn Group>> {
        // SAFETY: it opens libraries and closes them again.
        let [cuda, nccl] =
            unsafe { [cudarc::driver::sys::is_culib_present(), cudarc::nccl::sys::is_culib_present()] };
        for (there, library, from) in
            [(cuda, "libcuda", "NVIDIA's driver"), (nccl, "libnccl", "NVIDIA's package libnccl2")]
        {
            if !there {
                return Err(RankError::Unfit(format!(
                    "--nccl: {library} is not on this machine; install {from}, or leave --nccl out"
                )));
            }
        }
        let here = control.here();
        let cards = CudaContext::device_count().map_err(failed("cuInit"))? as usize;
        if here > cards {
            return Err(RankError::Unfit(format!(
                "--nccl: {here} ranks share this machine and its {cards} cards; each needs a card of its own"
            )));
        }
        let card = control.rank() % here;
        let stream = CudaContext::new(card).and_then(|context| context.new_stream());
        Nccl::on(control, stream.map_err(failed("cuCtxCreate"))?)
    }

    fn on(control: Arc<dyn Group>, stream: Arc<CudaStream>) -> Result<Arc<dyn Group>> {
        if control.size() == 1 {
            return Ok(control);
        }
        let mut bytes = Vec::new();
        if control.rank() == 0 {
            let id = Id::new().map_err(refused("ncclGetUniqueId"))?;
            bytes.extend(id.internal().iter().map(|byte| *byte as u8));
        }
        control.broadcast(&mut bytes, 0)?;
        let id: [u8; 128] = bytes.try_into().map_err(|bytes: Vec<u8>| RankError::Transport {
            call: "ncclGetUniqueId",
            why: format!("an id of {} bytes came; rank 0 has failed", bytes.len()),
        })?;
        stream.context().bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
        let id = Id::uninit(id.map(|byte| byte as std::ffi::c_char));
        let communicator = Comm::from_rank(stream.clone(), control.rank(), control.size(), id)
            .map_err(refused("ncclCommInitRank"))?;
        Ok(Arc::new(Nccl {
            control,
            stream,
            communicator: Mutex::new(communicator),
            counters: Counters::default(),
        }))
    }

    /// The communicator, with its card as this thread's.
    fn communicator(&self) -> Result<MutexGuard<'_, Comm>> {
        self.stream.context().bind_to_thread().map_err(failed("cuCtxSetCurrent"))?;
        Ok(self.communicator.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts what a ring sends; NCCL does not say.
    fn count(&self, kind: Kind, rounds: usize, bytes: usize) {
        self.counters.add(kind, rounds * bytes * (self.size() - 1) / self.size());
    }

    fn reduce<T: OnCard>(&self, numbers: &mut [T], combine: Combine) -> Result<()> {
        self.count(Kind::AllReduce, 2, size_of_val(numbers));
        let operation = match combine {
            Combine::Sum => ReduceOp::Sum,
            Combine::Max => ReduceOp::Max,
        };
        let communicator = self.communicator()?;
        let mut there = self.stream.clone_htod(numbers).map_err(failed("cuMemcpyHtoD"))?;
        communicator.all_reduce_in_place(&mut there, &operation).map_err(refused("ncclAllReduce"))?;
        self.fetch(&there, numbers)
    }

    /// Copies from the card, when all before it is done.
    fn fetch<T: OnCard>(&self, there: &cudarc::driver::CudaSlice<T>, numbers: &mut [T]) -> Result<()> {
        self.stream.memcpy_dtoh(there, numbers).map_err(failed("cuMemcpyDtoH"))?;
        self.stream.synchronize().map_err(failed("cuStreamSynchronize"))
    }

    /// NCCL's pieces are equally long, and ours are as even as they can be: shorter ones are filled up.
    fn longest(&self, length: usize) -> usize {
        length.div_ceil(self.size())
    }

    fn scatter<T: OnCard + Default>(&self, numbers: &mut [T]) -> Result<()> {
        self.count(Kind::ReduceScatter, 1, size_of_val(numbers));
        let (size, longest) = (self.size(), self.longest(numbers.len()));
        let mut filled = vec![T::default(); size * longest];
        for rank in 0..size {
            let own = piece(numbers.len(), rank, size);
            filled[rank * longest..rank * longest + own.len()].copy_from_slice(&numbers[own]);
        }
        let communicator = self.communicator()?;
        let there = self.stream.clone_htod(&filled).map_err(failed("cuMemcpyHtoD"))?;
        let mut sum = self.stream.clone_htod(&vec![T::default(); longest]).map_err(failed("cuMemcpyHtoD"))?;
        communicator
            .reduce_scatter(&there, &mut sum, &ReduceOp::Sum)
            .map_err(refused("ncclReduceScatter"))?;
        let mut own = vec![T::default(); longest];
        self.fetch(&sum, &mut own)?;
        let mine = piece(numbers.len(), self.rank(), size);
        let count = mine.len();
        numbers[mine].copy_from_slice(&own[..count]);
        Ok(())
    }

    fn gather<T: OnCard + Default>(&self, numbers: &mut [T]) -> Result<()> {
        self.count(Kind::AllGather, 1, size_of_val(numbers));
        let (size, longest) = (self.size(), self.longest(numbers.len()));
        let mine = piece(numbers.len(), self.rank(), size);
        let mut own = vec![T::default(); longest];
        own[..mine.len()].copy_from_slice(&numbers[mine]);
        let mut all = vec![T::default(); size * longest];
        let communicator = self.communicator()?;
        let there = self.stream.clone_htod(&own).map_err(failed("cuMemcpyHtoD"))?;
        let mut gathered = self.stream.clone_htod(&all).map_err(failed("cuMemcpyHtoD"))?;
        communicator.all_gather(&there, &mut gathered).map_err(refused("ncclAllGather"))?;
        self.fetch(&gathered, &mut all)?;
        for rank in 0..size {
            let part = piece(numbers.len(), rank, size);
            let count = part.len();
            numbers[part].copy_from_slice(&all[rank * longest..rank * longest + count]);
        }
        Ok(())
    }
}

impl Group for Nccl {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn size(&self) -> usize {
        self.control.size()
    }

    fn here(&self) -> usize {
        self.control.here()
    }

    fn all_reduce(&self, numbers: Numbers<'_>, combine: Combine) -> Result<()> {
        match numbers {
            Numbers::F32(numbers) => self.reduce(numbers, combine),
            Numbers::F64(numbers) => self.reduce(numbers, combine),
        }
    }

    fn reduce_scatter(&self, numbers: Numbers<'_>) -> Result<()> {
        match numbers {
            Numbers::F32(numbers) => self.scatter(numbers),
            Numbers::F64(numbers) => self.scatter(numbers),
        }
    }

    fn all_gather(&self, numbers: Numbers<'_>) -> Result<()> {
        match numbers {
            Numbers::F32(numbers) => self.gather(numbers),
            Numbers::F64(numbers) => self.gather(numbers),
        }
    }

    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()> {
        self.control.broadcast(bytes, root)
    }

    fn send(&self, to: usize, message: Message) -> Result<()> {
        self.control.send(to, message)
    }

    fn receive(&self, from: usize) -> Result<Message> {
        self.control.receive(from)
    }

    fn split(&self, colour: usize) -> Result<Arc<dyn Group>> {
        Nccl::on(self.control.split(colour)?, self.stream.clone())
    }

    fn sent(&self) -> Traffic {
        let (own, control) = (self.counters.sent(), self.control.sent());
        own.with(&control)
    }
}

fn failed(call: &'static str) -> impl FnOnce(DriverError) -> RankError {
    move |error| RankError::Transport { call, why: error.to_string() }
}

fn refused(call: &'static str) -> impl FnOnce(NcclError) -> RankError {
    move |error| RankError::Transport { call, why: format!("NCCL says {:?}", error.0) }
}
