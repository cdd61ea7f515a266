//! The layers of Mamba: a state for each sequence in the place of keys and values.
//!
//! The sizes beside the width are those of the published models, and weights are begun as Mamba begins them, except
//! that states fade more slowly: in a test as short as ours, what stands a hundred tokens back must still show.

use std::io::{self, Write};

use super::super::header::Value;
use super::super::tensor::{TensorInfo, TensorType};
use super::super::write::Plan;
use super::{Shape, Tensors};

/// Numbers of the state for each inner number.
const STATE: u32 = 16;

/// Positions that the convolution looks at.
const KERNEL: u32 = 4;

/// Inner numbers for each of the width. llama.cpp has no other.
const EXPANSION: u32 = 2;

/// Numbers of the width for each one that a time step is made of.
const WIDTH_PER_RANK: u32 = 16;

/// What time steps are around: softplus(−3) is 0.05.
const STEP_BIAS: f32 = -3.0;

/// How fast the slowest number of a state fades; number n of them fades n times as fast.
const SLOWEST: f32 = 0.125;

impl Shape {
    fn inner(&self) -> u32 {
        EXPANSION * self.embedding
    }

    fn rank(&self) -> u32 {
        self.embedding.div_ceil(WIDTH_PER_RANK)
    }

    /// Says how large the states are.
    pub(super) fn plan_states(&self, plan: &mut Plan) {
        let sizes = [
            ("conv_kernel", KERNEL),
            ("inner_size", self.inner()),
            ("state_size", STATE),
            ("time_step_rank", self.rank()),
        ];
        for (key, size) in sizes {
            plan.set(&format!("{}.ssm.{key}", self.family.name()), Value::U32(size));
        }
    }
}

impl Tensors<'_> {
    /// What mixes the positions in a Mamba layer. Small tables are kept in full, as llama.cpp's converter does.
    pub(super) fn mamba_mixer(&mut self, at: &str) {
        let (width, inner, rank) = (self.shape.embedding, self.shape.inner(), self.shape.rank());
        self.matrix(&format!("{at}.ssm_in"), width, 2 * inner);
        self.table(&format!("{at}.ssm_conv1d.weight"), KERNEL, inner);
        self.vector(&format!("{at}.ssm_conv1d.bias"), inner);
        self.matrix(&format!("{at}.ssm_x"), inner, rank + 2 * STATE);
        self.table(&format!("{at}.ssm_dt.weight"), rank, inner);
        self.vector(&format!("{at}.ssm_dt.bias"), inner);
        self.table(&format!("{at}.ssm_a"), STATE, inner);
        self.vector(&format!("{at}.ssm_d"), inner);
        self.matrix(&format!("{at}.ssm_out"), inner, width);
    }

    /// The norms between them that Jamba has besides.
    pub(super) fn jamba_mixer_norms(&mut self, at: &str) {
        for (name, width) in [("dt", self.shape.rank()), ("b", STATE), ("c", STATE)] {
            self.vector(&format!("{at}.ssm_{name}_norm.weight"), width);
        }
    }

    fn table(&mut self, name: &str, inputs: u32, outputs: u32) {
        self.plan.tensor(name, &[inputs.into(), outputs.into()], TensorType::F32);
    }
}

/// The value of all numbers of a vector that is no norm.
pub(super) fn vector_value(name: &str) -> f32 {
    match name.rsplit_once(".ssm_") {
        Some((_, "dt.bias")) => STEP_BIAS,
        Some((_, "d")) => 1.0,
        _ => 0.0,
    }
}

/// Writes how fast states fade, if that is what the tensor says. It is below 0, or states would grow for ever.
pub(super) fn fill_decays(tensor: &TensorInfo, out: &mut dyn Write) -> Option<io::Result<()>> {
    if !tensor.name.ends_with(".ssm_a") {
        return None;
    }
    let row: Vec<u8> = (1..=STATE).flat_map(|n| (-SLOWEST * n as f32).to_le_bytes()).collect();
    Some(out.write_all(&row.repeat(tensor.dimensions[1] as usize)))
}
