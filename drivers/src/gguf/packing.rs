//! Which weights ggml, or the llama driver's own kernel, multiplies by in a layout of its own on this CPU.
//!
//! Such weights are copied out of the file when a model is loaded. For a matrix that is only multiplied by, the copy
//! takes the place of what is mapped. A table that the input looks rows up in and the output multiplies by is needed
//! both ways, and is in memory twice.

use super::tensor::{TensorInfo, TensorType};

/// Rows of a tile of AMX, two of which are multiplied at once.
const AMX_ROWS: u64 = 32;

/// Rows that the repacked layouts put beside each other.
const REPACKED_ROWS: u64 = 8;

/// Rows that the llama driver's own layout of Q8_0 puts beside each other.
pub const PANEL_ROWS: u64 = 32;

/// The units that there are layouts for on this family of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// What the driver's own kernel takes.
    vnni: bool,
    amx: bool,
    avx2: bool,
    avx512: bool,
}

impl Units {
    /// Those of this machine.
    #[cfg(target_arch = "x86_64")]
    pub fn here() -> Units {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        /// Where leaf 7 tells AMX-INT8: the bit of EDX.
        const AMX_INT8: u32 = 1 << 25;
        let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
        Units {
            vnni: has_byte_products(),
            amx: features & AMX_INT8 != 0 && is_x86_feature_detected!("avx512vnni"),
            avx2: is_x86_feature_detected!("avx2"),
            avx512: is_x86_feature_detected!("avx512f"),
        }
    }

    /// Of other families, none is known here.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn here() -> Units {
        Units { vnni: false, amx: false, avx2: false, avx512: false }
    }

    /// Bytes of a matrix in a layout of its own, where it gets one, by the conditions and sizes of ggml's `amx` and
    /// `repack.cpp`, and of the driver's products.
    pub fn packed_bytes(self, matrix: &TensorInfo) -> Option<u64> {
        let [columns, rows, ..] = matrix.dimensions[..] else { return None };
        // AMX multiplies by single matrices alone, not by those of experts; the repacked layouts are for both.
        let is_single = matrix.dimensions[2..].iter().all(|count| *count == 1);
        if self.vnni && is_single && matrix.kind == TensorType::Q8_0 {
            let blocks = columns / matrix.kind.block_elements();
            // One more lies behind the last.
            let packed = rows.div_ceil(PANEL_ROWS).saturating_mul(blocks).saturating_add(1);
            return Some(packed.saturating_mul(PANEL_ROWS * matrix.kind.block_bytes()));
        }
        if self.amx && is_single && rows.is_multiple_of(AMX_ROWS) {
            if matrix.kind == TensorType::F16 && columns.is_multiple_of(16) {
                return Some(matrix.bytes);
            }
            // A sum or scales in a form of their own stand beside each block.
            let beside = match matrix.kind {
                TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q6_K => Some(0),
                TensorType::Q8_0 | TensorType::Q4_K | TensorType::Q5_K => Some(4),
                TensorType::IQ4_XS => Some(2),
                _ => None,
            };
            let blocks = matrix.elements() / matrix.kind.block_elements();
            if let Some(bytes) = beside.filter(|_| columns.is_multiple_of(matrix.kind.block_elements())) {
                return Some(matrix.bytes.saturating_add(blocks * bytes));
            }
        }
        let unit = match matrix.kind {
            TensorType::Q4_0 | TensorType::Q4_K | TensorType::IQ4_NL | TensorType::MXFP4 => self.avx2,
            TensorType::Q2_K => self.avx512,
            _ => false,
        };
        (unit && rows.is_multiple_of(REPACKED_ROWS)).then_some(matrix.bytes)
    }
}

/// Whether this CPU has what the llama driver's own products with Q8_0 need: AVX-512 with byte products (VNNI).
#[cfg(target_arch = "x86_64")]
pub fn has_byte_products() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("f16c")
}

#[cfg(test)]
mod tests {
    use super::super::tensor::tensor_bytes;
    use super::*;

    fn packed(units: Units, kind: TensorType, rows: u64) -> Option<u64> {
        packed_as(units, kind, vec![128, rows])
    }

    fn packed_as(units: Units, kind: TensorType, dimensions: Vec<u64>) -> Option<u64> {
        let name = "blk.0.ffn_up.weight".into();
        let bytes = tensor_bytes(&dimensions, kind).expect("small");
        units.packed_bytes(&TensorInfo { name, kind, dimensions, offset: 0, bytes })
    }

    #[test]
    fn layouts_are_for_types_and_shapes_that_a_unit_takes() {
        let plain = Units { vnni: false, amx: false, avx2: false, avx512: false };
        let avx2 = Units { avx2: true, ..plain };
        let amx = Units { amx: true, avx2: true, avx512: true, ..plain };
        assert_eq!(packed(plain, TensorType::Q4_0, 1024), None);
        assert_eq!(packed(avx2, TensorType::Q4_0, 1024), Some(1024 * 4 * 18));
        assert_eq!(
            (packed(avx2, TensorType::Q4_0, 1021), packed(avx2, TensorType::Q8_0, 1024)),
            (None, None)
        );
        assert_eq!(packed(amx, TensorType::Q8_0, 1024), Some(1024 * 4 * (34 + 4)), "each block has a sum");
        assert_eq!(packed(amx, TensorType::F16, 1024), Some(1024 * 128 * 2));
        assert_eq!((packed(amx, TensorType::Q8_0, 1000), packed(amx, TensorType::F32, 1024)), (None, None));
        let own = Units { vnni: true, ..amx };
        assert_eq!(packed(own, TensorType::Q8_0, 1000), Some((1024 * 4 + 32) * 34), "panels are whole");
        assert_eq!(packed(own, TensorType::F16, 1024), packed(amx, TensorType::F16, 1024));
    }

    #[test]
    fn experts_are_repacked_but_not_laid_out_for_amx() {
        let amx = Units { vnni: false, amx: true, avx2: true, avx512: true };
        let experts = |kind, count| packed_as(amx, kind, vec![128, 1024, count]);
        assert_eq!(experts(TensorType::Q8_0, 8), None);
        assert_eq!(experts(TensorType::Q4_0, 8), Some(8 * 1024 * 4 * 18));
        assert_eq!(experts(TensorType::Q8_0, 1), Some(1024 * 4 * (34 + 4)), "one is a matrix as any");
    }
}
