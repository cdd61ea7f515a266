//! Training over many ranks: data parallel, tensor parallel and pipeline parallel, and any product of the three.
//!
//! ```text
//! group.rs      collectives, behind one trait         mesh.rs      who is where, and the groups along each axis
//! threads.rs    ranks as threads of one process       part.rs      which part of a whole tensor a rank has
//! mpi.rs        ranks as processes under MPI        nccl.rs      collectives on cards, for either
//! ring.rs       collectives over sending alone        collect.rs   from parts to whole tensors, and back
//! agree.rs      what ranks agree on before they go on together
//! plan.rs, reducer.rs    gradients are summed while others are still computed
//! zero.rs       the optimiser's state, divided over data ranks
//! tensor.rs     where layers that are divided over tensor ranks touch the others
//! cross_entropy.rs, composed.rs    the output layer, with the vocabulary divided over tensor ranks
//! pipeline.rs   microbatches through the stages of a pipeline    text.rs    tokens, one after another
//! rows.rs       rows of all data ranks, for losses that compare them
//! team.rs       what a step does over ranks
//! ```
//!
//! A run computes the same whatever the layout, up to the order of sums: examples are dealt out of the one order of the
//! data, first values and dropout depend on what a number is, gradients are divided by the targets of the whole step, and
//! checkpoints are of whole tensors.

mod agree;
mod collect;
mod composed;
mod cross_entropy;
mod error;
mod group;
mod mesh;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod part;
mod pipeline;
mod plan;
mod reducer;
mod ring;
mod rows;
mod team;
mod tensor;
mod text;
mod threads;
mod traffic;
mod zero;

pub use agree::{agree, together};
pub use cross_entropy::{Head, divided_cross_entropy};
pub use error::RankError;
pub use group::{Alone, Combine, Group, Message, Number, Numbers, piece};
pub use mesh::{Layout, Mesh};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use part::Part;
pub use pipeline::PipelineSchedule;
pub use plan::BUCKET_BYTES;
pub(crate) use rows::all_rows;
pub use team::{Plans, Team};
pub use tensor::{enter, gathered, leave};
pub use threads::{Threads, on_threads};
pub use traffic::{Counters, Kind, Traffic};
