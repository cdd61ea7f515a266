//! What a run computes on.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::error::SpecError;

/// The processor, or a card by its number on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceSpec {
    /// The CPU, with this library's own kernels.
    #[default]
    Cpu,
    /// A card of NVIDIA's. Where several ranks share a machine, the first has this one, and the others the next.
    Cuda(usize),
    /// A card of Apple's.
    Metal(usize),
}

impl DeviceSpec {
    /// Opens it, for rank number `rank` of those on this machine.
    ///
    /// # Errors
    /// [`SpecError::Unfit`] if this program was built without it, with how to build it, or the machine has none.
    pub fn open(self, rank: usize) -> Result<Device, SpecError> {
        let (feature, needs, built, opened) = match self {
            DeviceSpec::Cpu => return Ok(Device::Cpu),
            DeviceSpec::Cuda(first) => {
                ("cuda", "CUDA's toolkit", cfg!(feature = "cuda"), Device::new_cuda(first + rank))
            }
            DeviceSpec::Metal(first) => ("metal", "macOS", cfg!(feature = "metal"), Device::new_metal(first)),
        };
        if !built {
            return Err(SpecError::Unfit(format!(
                "`device` is {self:?}, and this program was built without {feature}; build it with `cargo build --release -p \
                 llmasos-train --features {feature}`, which needs {needs}, or set `device` to Cpu"
            )));
        }
        opened.map_err(|error| {
            SpecError::Unfit(format!(
                "`device` is {self:?}, which cannot be opened for rank {rank} of this machine: {error}; name a card that \
                 is there, or set `device` to Cpu"
            ))
        })
    }
}
