//! The mesh of ranks: data × tensor × pipeline, with a group of ranks along each axis.
//!
//! ```text
//! data       ranks with the same part of the model and different examples; they sum gradients
//! tensor     ranks with different parts of each layer and the same examples; they sum within layers
//! pipeline   ranks with different layers and the same examples; they pass on what comes out
//! ```
//!
//! Ranks are numbered along tensor first, then data, then pipeline, as Megatron-LM does: tensor ranks talk most, and
//! neighbours are on one machine.

use std::ops::Range;
use std::sync::Arc;

use super::error::{RankError, Result};
use super::group::{Alone, Group, piece};
use super::traffic::Traffic;

/// How many ranks there are along each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub data: usize,
    pub tensor: usize,
    pub pipeline: usize,
}

impl Layout {
    /// One rank.
    pub const ONE: Layout = Layout { data: 1, tensor: 1, pipeline: 1 };

    /// Ranks in all.
    pub fn size(&self) -> usize {
        self.data * self.tensor * self.pipeline
    }

    /// Where a rank is: its number along data, tensor and pipeline.
    pub fn place(&self, rank: usize) -> [usize; 3] {
        [rank / self.tensor % self.data, rank % self.tensor, rank / (self.tensor * self.data)]
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "data {} × tensor {} × pipeline {}", self.data, self.tensor, self.pipeline)
    }
}

/// The mesh, as one rank sees it.
#[derive(Debug)]
pub struct Mesh {
    // First, so that it is the first to be dropped: a rank that ends is noted by its end of the world.
    world: Arc<dyn Group>,
    data: Arc<dyn Group>,
    tensor: Arc<dyn Group>,
    pipeline: Arc<dyn Group>,
    layout: Layout,
}

impl Mesh {
    /// One rank.
    pub fn alone() -> Arc<Mesh> {
        let one = || Arc::new(Alone) as Arc<dyn Group>;
        let (world, data, tensor, pipeline) = (one(), one(), one(), one());
        Arc::new(Mesh { world, data, tensor, pipeline, layout: Layout::ONE })
    }

    /// Lays a world out.
    ///
    /// # Errors
    /// [`RankError::World`] if it is of another size.
    pub fn new(world: Arc<dyn Group>, layout: Layout) -> Result<Arc<Mesh>> {
        if world.size() != layout.size() {
            let (wanted, found) = (layout.size(), world.size());
            return Err(RankError::World { layout: layout.to_string(), wanted, found });
        }
        let [data, tensor, stage] = layout.place(world.rank());
        // Those that differ along one axis alone give the same colour.
        let data_group = world.split(stage * layout.tensor + tensor)?;
        let tensor_group = world.split(stage * layout.data + data)?;
        let pipeline = world.split(data * layout.tensor + tensor)?;
        Ok(Arc::new(Mesh { world, data: data_group, tensor: tensor_group, pipeline, layout }))
    }

    /// Ranks along each axis.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// All ranks.
    pub fn world(&self) -> &dyn Group {
        &*self.world
    }

    /// Those with the same part of the model.
    pub fn data(&self) -> &dyn Group {
        &*self.data
    }

    /// Those with other parts of the same layers.
    pub fn tensor(&self) -> &Arc<dyn Group> {
        &self.tensor
    }

    /// Those with other layers.
    pub fn pipeline(&self) -> &dyn Group {
        &*self.pipeline
    }

    /// Whether this is the only rank.
    pub fn is_alone(&self) -> bool {
        self.world.size() == 1
    }

    /// Whether this rank writes the files of a run and tells of it.
    pub fn leads(&self) -> bool {
        self.world.rank() == 0
    }

    /// Which of a layer's `count` heads, columns or rows this rank has.
    pub fn share(&self, count: usize) -> Range<usize> {
        piece(count, self.tensor.rank(), self.tensor.size())
    }

    /// Whether this rank is the first stage of its pipeline.
    pub fn is_first_stage(&self) -> bool {
        self.pipeline.rank() == 0
    }

    /// Whether this rank is the last stage of its pipeline.
    pub fn is_last_stage(&self) -> bool {
        self.pipeline.rank() + 1 == self.pipeline.size()
    }

    /// Which of a model's `count` layers this stage has.
    pub fn stage(&self, count: usize) -> Range<usize> {
        piece(count, self.pipeline.rank(), self.pipeline.size())
    }

    /// What this rank has sent along data, tensor and pipeline.
    pub fn sent(&self) -> [Traffic; 3] {
        [self.data.sent(), self.tensor.sent(), self.pipeline.sent()]
    }
}
