//! AMX, the matrix units of some x86 CPUs: whether there are any, and how their tiles are laid out.
//!
//! Rust has no stable intrinsics for them, so whoever computes with tiles names the instructions in assembly.

use std::sync::OnceLock;

/// What a unit multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// bf16 numbers, with sums in floats.
    Bf16,
    /// Bytes, with sums in whole numbers.
    Bytes,
}

/// How tiles are laid out: palette 1, and the rows and bytes of each (Intel's manual, volume 1, chapter 18).
#[repr(C, align(64))]
pub struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Eight tiles, each of so many rows (16 at most) of so many bytes (64 at most); none where both are 0.
    pub const fn new(tiles: [(u8, u16); 8]) -> Configuration {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut at = 0;
        while at < tiles.len() {
            (rows[at], row_bytes[at]) = tiles[at];
            at += 1;
        }
        Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// Whether this CPU has the unit, and the system lets this process use it.
pub fn available(unit: Unit) -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    has(unit) && *PERMITTED.get_or_init(permitted)
}

/// Whether the CPU has tiles and the unit (CPUID 7, EDX bits 24, and 22 or 25), and the system saves tiles (XCR0 bits 17
/// and 18).
fn has(unit: Unit) -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const SAVED: u64 = 0b11 << 17;
    let units = 1 << 24
        | match unit {
            Unit::Bf16 => 1 << 22,
            Unit::Bytes => 1 << 25,
        };
    let (leaf, basic) = (std::arch::x86_64::__cpuid_count(7, 0), std::arch::x86_64::__cpuid(1));
    let there = leaf.edx & units == units && basic.ecx & OSXSAVE != 0;
    // SAFETY: the system has XGETBV enabled, by CPUID's own word; register 0 is always there.
    there && unsafe { std::arch::x86_64::_xgetbv(0) } & SAVED == SAVED
}

/// Asks Linux for tiles, which it gives to processes that ask alone: their registers take 8 KiB in each thread.
fn permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call changes nothing but what the process may use.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}
