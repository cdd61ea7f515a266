//! How a run is divided over ranks.

use serde::{Deserialize, Serialize};

use super::error::SpecError;
use crate::ranks::{BUCKET_BYTES, Layout, PipelineSchedule, Plans, RankError};

/// The layout of ranks. A run computes the same in every one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RanksSpec {
    /// Ranks that each compute a part of a batch; as many as there are for it where it is not said.
    pub data: Option<usize>,
    /// Ranks that each have a part of every layer.
    pub tensor: usize,
    /// Ranks that each have some of the layers.
    pub pipeline: usize,
    /// Parts that a rank's rows of a batch are cut into; as many as there are stages where it is not said.
    pub micro_batches: Option<usize>,
    /// In which order a stage computes microbatches.
    pub schedule: PipelineSchedule,
    /// Whether the optimiser's state is divided over the data ranks (ZeRO-1).
    pub zero: bool,
}

impl Default for RanksSpec {
    fn default() -> RanksSpec {
        RanksSpec {
            data: None,
            tensor: 1,
            pipeline: 1,
            micro_batches: None,
            schedule: PipelineSchedule::default(),
            zero: false,
        }
    }
}

impl RanksSpec {
    /// The layout of a world of so many ranks.
    ///
    /// # Errors
    /// [`RankError::World`] with both numbers.
    pub fn layout(&self, world: usize) -> Result<Layout, RankError> {
        let each = self.tensor * self.pipeline;
        let data = self.data.unwrap_or((world / each).max(1));
        let layout = Layout { data, tensor: self.tensor, pipeline: self.pipeline };
        match layout.size() == world {
            true => Ok(layout),
            false => {
                let wanted = layout.size();
                Err(RankError::World { layout: layout.to_string(), wanted, found: world })
            }
        }
    }

    /// How the ranks work together.
    pub fn plans(&self) -> Plans {
        let micro_batches = self.micro_batches.unwrap_or(self.pipeline);
        Plans { micro_batches, schedule: self.schedule, zero: self.zero, bucket_bytes: BUCKET_BYTES }
    }

    /// Whether all numbers can be meant.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        /// More ranks than any run has.
        const RANKS_MAX: usize = 65_536;
        for (field, value) in [
            ("ranks.data", self.data.unwrap_or(1)),
            ("ranks.tensor", self.tensor),
            ("ranks.pipeline", self.pipeline),
            ("ranks.micro_batches", self.micro_batches.unwrap_or(1)),
        ] {
            if value == 0 || value > RANKS_MAX {
                let range = format!("within 1 and {RANKS_MAX}");
                return Err(SpecError::Range { field, value: value.to_string(), range });
            }
        }
        Ok(())
    }
}
