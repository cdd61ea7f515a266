//! Blocks with AMX-BF16: an instruction multiplies two tiles of 16 lines and adds 256 sums of 32 products.
//!
//! Rust has no stable intrinsics for tiles, so they are named in assembly. Nothing else in the process uses them between
//! [`begin`] and [`end`]: the compiler never does, and a task is not interrupted by another one on its thread.

use std::arch::asm;
use std::sync::OnceLock;

use drivers::tiles::{self, Configuration, Unit};

use super::super::scratch::Line;
use super::super::target::Target;
use super::panels::{LINES, PANEL, STEP, put};

/// Bytes of a line of a tile.
const LINE_BYTES: usize = 64;

/// Eight tiles of 16 lines.
static CONFIGURATION: Configuration = Configuration::new([(LINES as u8, LINE_BYTES as u16); 8]);

/// Whether this CPU can, and the system lets this process.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| super::dot::available() && tiles::available(Unit::Bf16))
}

/// Lays out this thread's tiles.
pub(super) fn begin() {
    // SAFETY: `available` said that there are tiles, and the configuration is a valid one.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly)) };
}

/// Frees this thread's tiles, so that the system need not save them.
pub(super) fn end() {
    // SAFETY: as in `begin`.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// The assembly of a block: `$first` fills the four tiles of sums, then each step multiplies two tiles by two.
/// `$from` is what `$first` may read.
macro_rules! multiply {
    ($steps:ident, $a:ident, $b:ident, $c:expr, $row:expr, $from:expr, $from_row:expr, $($first:literal),*) => {
        asm!(
            $($first,)*
            "2:",
            "tileloadd tmm4, [{a} + {line}]",
            "tileloadd tmm6, [{b} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 64], tmm1",
            "tilestored [{low} + {row}], tmm2",
            "tilestored [{low} + {row} + 64], tmm3",
            "/* {from} {from_low} {from_row} */",
            a = inout(reg) $a => _,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            line = in(reg) LINE_BYTES,
            c = in(reg) $c,
            low = in(reg) $c.wrapping_add(LINES * $row),
            row = in(reg) $row * size_of::<f32>(),
            from = in(reg) $from,
            from_low = in(reg) $from.wrapping_add(LINES * $from_row),
            from_row = in(reg) $from_row * size_of::<f32>(),
            options(nostack),
        )
    };
}

/// See [`super::panels::Block`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn block(steps: usize, a: *const Line, b: *const Line, c: Target, size: [usize; 2]) {
    const { assert!(STEP * LINE_BYTES == 2048, "the assembly moves on by so many bytes a step") };
    let nothing: *const f32 = std::ptr::null();
    if size == [PANEL, PANEL] && c.factor == 1.0 {
        let first = c.at(0, 0);
        // SAFETY: the panels have `steps` steps, at least one, and all places of the block are the output's.
        unsafe {
            match (c.steps(), c.from(0, 0)) {
                ((row, Some(from_row)), Some(from)) => multiply!(
                    steps,
                    a,
                    b,
                    first,
                    row,
                    from,
                    from_row,
                    "tileloadd tmm0, [{from} + {from_row}]",
                    "tileloadd tmm1, [{from} + {from_row} + 64]",
                    "tileloadd tmm2, [{from_low} + {from_row}]",
                    "tileloadd tmm3, [{from_low} + {from_row} + 64]"
                ),
                ((row, _), _) => multiply!(
                    steps,
                    a,
                    b,
                    first,
                    row,
                    nothing,
                    0,
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3"
                ),
            }
        }
        return;
    }
    let mut all = [[0.0f32; PANEL]; PANEL];
    let first = all.as_mut_ptr().cast::<f32>();
    // SAFETY: as above, with the block's own numbers as the output; the caller vouches for the places of c.
    unsafe {
        multiply!(
            steps,
            a,
            b,
            first,
            PANEL,
            nothing,
            0,
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3"
        );
        put(&all, c, size);
    }
}
