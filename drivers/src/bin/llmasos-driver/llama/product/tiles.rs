//! The inner loop with AMX-INT8: an instruction multiplies a tile of sixteen rows of the pass with one of sixteen rows of
//! weights, and adds 256 sums of 32 products.
//!
//! Rust has no stable intrinsics for tiles, so they are named in assembly. ggml lays out the tiles of a thread once and
//! relies on that, so whoever uses them here puts them back as they were.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use drivers::tiles::{Configuration, Unit, available};

use super::vnni::{WIDTH, fetch, scales};
use super::{BLOCK, Block, Blocks, CHUNK, COLUMNS_TILED, Columns, PANEL, TileLayout, Tiled};

pub const TILED: Tiled = Tiled { begin, end, multiply };

/// Tiles 0 and 1 have sums, 4 and 5 rows of the pass, 6 and 7 groups of four numbers of weights.
static LAYOUT: Configuration = Configuration::new([
    (16, 64),
    (16, 64),
    (0, 0),
    (0, 0),
    (COLUMNS_TILED as u8, BLOCK as u16),
    (COLUMNS_TILED as u8, BLOCK as u16),
    ((BLOCK / 4) as u8, 64),
    ((BLOCK / 4) as u8, 64),
]);

/// Sums of a tile: for each row of the pass those of sixteen rows of weights.
#[repr(C, align(64))]
struct Sums([[i32; WIDTH]; COLUMNS_TILED]);

/// Whether this CPU can, and the system lets this process.
pub fn there() -> bool {
    available(Unit::Bytes)
}

fn begin() -> TileLayout {
    let mut before = TileLayout([0; 64]);
    // SAFETY: the kernel is used where there are tiles; as many bytes are written as there is room for, and the new
    // layout is a valid one.
    unsafe {
        asm!("sttilecfg [{}]", in(reg) &raw mut before, options(nostack));
        asm!("ldtilecfg [{}]", in(reg) &LAYOUT, options(nostack, readonly));
    }
    before
}

fn end(before: &TileLayout) {
    // SAFETY: the CPU wrote this; where nothing was laid out, this frees the tiles.
    unsafe { asm!("ldtilecfg [{}]", in(reg) before, options(nostack, readonly)) }
}

/// Multiplies two blocks of half a panel with the rows, each in a tile of its own.
///
/// # Safety
///
/// The tiles are laid out; there are these blocks of the rows and, or one behind the last one, of the weights.
unsafe fn two_blocks(weights: *const Block, half: usize, rows: *const i8, to: *mut Sums) {
    const { assert!(size_of::<Block>() == 1088 && size_of::<Sums>() == 1024, "the assembly steps so far") };
    // SAFETY: the caller's conditions.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm4, [{rows} + {row}]",
            "tileloadd tmm5, [{rows} + {row} + 32]",
            "tileloadd tmm6, [{weights} + {fours}]",
            "tileloadd tmm7, [{weights} + {fours} + 1088]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm5, tmm7",
            "tilestored [{to} + {line}], tmm0",
            "tilestored [{to} + {line} + 1024], tmm1",
            rows = in(reg) rows,
            row = in(reg) CHUNK * BLOCK,
            weights = in(reg) weights.cast::<u8>().add(half * WIDTH * 4),
            fours = in(reg) PANEL * 4,
            to = in(reg) to,
            line = in(reg) WIDTH * size_of::<i32>(),
            options(nostack),
        );
    }
}

/// See [`Tiled::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
unsafe fn multiply(blocks: &Blocks, columns: &Columns, count: usize, sums: *mut f32) {
    const N: usize = COLUMNS_TILED;
    // Tiles of two pairs of blocks: while one is turned into floats, the other is computed.
    let mut room = MaybeUninit::<[Sums; 4]>::uninit();
    let room: *mut Sums = room.as_mut_ptr().cast();
    let pairs = blocks.count.div_ceil(2);
    for half in 0..2 {
        let at_half = |n: usize| sums.wrapping_add(n * PANEL + half * WIDTH);
        // SAFETY: the caller's conditions; chunks of rows have room for CHUNK blocks, of which there is an even number.
        unsafe {
            let compute = |pair: usize| {
                let rows = columns.numbers.add(2 * pair * BLOCK);
                two_blocks(blocks.first.add(2 * pair), half, rows, room.add(pair % 2 * 2));
            };
            let mut floats = [_mm512_setzero_ps(); N];
            if !blocks.begins {
                for (n, floats) in floats.iter_mut().enumerate() {
                    if n < count {
                        *floats = _mm512_loadu_ps(at_half(n));
                    }
                }
            }
            compute(0);
            for pair in 0..pairs {
                if pair + 1 < pairs {
                    compute(pair + 1);
                }
                if pair % 2 == half {
                    fetch(blocks, 2 * pair);
                    fetch(blocks, 2 * pair + 1);
                }
                for at in 2 * pair..blocks.count.min(2 * pair + 2) {
                    let whole = &*room.add(at % 4);
                    let weights = scales(&*blocks.first.add(at), half);
                    for (n, floats) in floats.iter_mut().enumerate() {
                        let scale = _mm512_set1_ps(columns.scales.add(n * CHUNK + at).read());
                        let whole = _mm512_load_si512(whole.0[n].as_ptr().cast());
                        let scale = _mm512_mul_ps(weights, scale);
                        *floats = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, *floats);
                    }
                }
            }
            for (n, floats) in floats.into_iter().enumerate() {
                if n < count {
                    _mm512_storeu_ps(at_half(n), floats);
                }
            }
        }
    }
}
