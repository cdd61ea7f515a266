//! The kernel gives what attention is, on tensors of many shapes, and what ggml's kernels give.

#![allow(clippy::unwrap_used)]

use std::ffi::c_void;

use half::f16;
use proptest::prelude::*;

use super::super::accelerator::Abort;
use super::super::accelerator::graph::numbers;
use super::super::threadpool::Threadpool;
use super::check::{Case, Tensors, instance};
use super::kernels::known;
use super::plan::{Mask, Plan};
use super::share::Share;

/// How far a result in 32-bit floats may be from the exact one. Results are averages of values below 1; a score is a
/// sum of up to 256 products of at most 3, each rounded to 2⁻²⁴, and its error is a relative one of the weight.
const APART_MAX: f64 = 5e-5;

/// Attention as it is defined, in 64-bit floats.
fn exact(case: &Case, tensors: &Tensors) -> Vec<f64> {
    let all = case.heads * case.sharers;
    let mut out = vec![0.0; case.numbers()];
    for (at, out) in out.chunks_mut(case.value).enumerate() {
        let (row, head) = (at / all, at % all);
        let slope = slope(case, head);
        let query = &tensors.q[at * case.key..][..case.key];
        let score = |cell: usize| {
            let key = &tensors.k[(cell * case.heads + head / case.sharers) * case.key..][..case.key];
            let product: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * k.to_f64()).sum();
            product * f64::from(case.scale()) + slope * f64::from(case.mask[row * case.cells + cell])
        };
        let scores: Vec<f64> = (0..case.cells).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if top == f64::NEG_INFINITY {
            continue;
        }
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let whole: f64 = weights.iter().sum();
        for (cell, weight) in weights.iter().enumerate() {
            let value = &tensors.v[(cell * case.heads + head / case.sharers) * case.value..][..case.value];
            out.iter_mut().zip(value).for_each(|(sum, v)| *sum += weight / whole * v.to_f64());
        }
    }
    out
}

fn slope(case: &Case, head: usize) -> f64 {
    if case.max_bias == 0.0 {
        return 1.0;
    }
    let even = 1 << (case.heads * case.sharers).ilog2();
    let bias = f64::from(case.max_bias);
    match head < even {
        true => (-bias / even as f64).exp2().powi(head as i32 + 1),
        false => (-bias / 2.0 / even as f64).exp2().powi(2 * (head - even) as i32 + 1),
    }
}

fn assert_near(case: &Case, found: &[f32], expected: &[f64], most: f64, what: &str) {
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(*found) - expected).abs();
        assert!(apart <= most, "{what}: number {at} is {found} for {expected}; {:?}", shape(case));
    }
}

fn shape(case: &Case) -> [usize; 6] {
    [case.key, case.value, case.heads, case.sharers, case.rows, case.cells]
}

/// Who sees what in a pool of cells.
#[derive(Clone, Copy, Debug)]
enum Sight {
    /// A prompt behind a prefix, in cells in order.
    Causal,
    /// Everybody sees the first half, and of the rest each what it holds alone, cell by cell.
    Shared,
    /// Groups of four share a third of the cells each, and single cells belong to one row.
    Groups,
    /// Any cell or not, without a pattern.
    Holes,
    /// Some rows see nothing.
    Nothing,
    /// Numbers are added to the scores.
    Biased,
}

fn mask(sight: Sight, rows: usize, cells: usize, seed: u64) -> Vec<f32> {
    let mut next = numbers(seed);
    let mut entry = |row: usize, cell: usize| {
        let random = next();
        let seen = match sight {
            Sight::Causal => cell + rows <= cells + row,
            Sight::Shared => cell < cells / 2 || cell % rows == row,
            Sight::Groups => cell % 3 == row / 4 % 3 || cell % (2 * rows) == row,
            Sight::Holes | Sight::Biased => random > -0.3,
            Sight::Nothing => row.is_multiple_of(2) && random > 0.8,
        };
        match (seen, sight) {
            (false, _) => f32::NEG_INFINITY,
            (true, Sight::Biased) => -((cell % 64) as f32) / 8.0,
            (true, _) => 0.0,
        }
    };
    (0..rows * cells).map(|at| entry(at / cells, at % cells)).collect()
}

fn cases() -> impl Strategy<Value = Case> {
    let widths = prop::sample::select(vec![16usize, 32, 48, 64, 80, 96, 112, 128, 192, 256]);
    let sights = prop::sample::select(vec![
        Sight::Causal,
        Sight::Shared,
        Sight::Groups,
        Sight::Holes,
        Sight::Nothing,
        Sight::Biased,
    ]);
    let heads = (1usize..=3, 1usize..=8);
    let size = prop_oneof![
        (1usize..=3, 1usize..=700),
        (4usize..=40, 40usize..=300),
        (60usize..=140, 140usize..=200)
    ];
    (widths.clone(), widths, heads, size, sights, any::<u64>(), any::<bool>()).prop_map(
        |(key, value, (heads, sharers), (rows, cells), sight, seed, alibi)| Case {
            key,
            value: if seed % 3 == 0 { value } else { key },
            heads,
            sharers,
            rows,
            cells,
            max_bias: if alibi && matches!(sight, Sight::Biased) { 8.0 } else { 0.0 },
            mask: mask(sight, rows, cells, seed),
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_and_mask_gives_exact_attention_with_every_instruction_set(case in cases()) {
        let tensors = Tensors::new(&case);
        let expected = exact(&case, &tensors);
        for kernels in known() {
            let mut instance = instance(kernels);
            let found = tensors.by(&mut instance, std::ptr::null_mut()).unwrap();
            assert_near(&case, &found, &expected, APART_MAX, kernels.name);
            let pool = Threadpool::new(3).unwrap();
            instance.begin(3);
            let found = tensors.by(&mut instance, pool.raw()).unwrap();
            assert_near(&case, &found, &expected, APART_MAX, "three threads");
            instance.begin(3);
            prop_assert_eq!(&tensors.by(&mut instance, pool.raw()).unwrap(), &found, "the same pass");
        }
    }

    #[test]
    fn plan_and_share_cover_what_each_row_sees_once_and_nothing_else(case in cases(), threads in 1usize..=64) {
        let mask: Vec<f16> = case.mask.iter().map(|m| f16::from_f32(*m)).collect();
        let (rows, cells) = (case.rows, case.cells);
        // SAFETY: the mask has so many rows and cells.
        let plan = unsafe { Plan::new(&Mask { data: mask.as_ptr().cast(), stride: 2 * cells, rows, cells }) };
        let share = Share::new(&plan, case.heads, case.sharers, threads);
        let mut seen = vec![0; case.heads * rows * cells];
        for unit in &share.units {
            let block = &plan.blocks[unit.block];
            for piece in &share.pieces[unit.pieces.clone()] {
                let item = &block.items[piece.item];
                for (at, row) in piece.cells.clone().flat_map(|at| item.runs.iter().cloned().flatten().map(move |row| (at, row))) {
                    let sees = item.seen.as_ref().is_none_or(|seen| seen[at / 64 * block.rows + row] >> (at % 64) & 1 == 1);
                    let place = (unit.head * rows + block.first + row) * cells + item.cells[at] as usize;
                    seen[place] += u32::from(sees);
                }
            }
        }
        for (at, times) in seen.iter().enumerate() {
            let visible = case.mask[at % (rows * cells)] != f32::NEG_INFINITY;
            prop_assert_eq!(*times, u32::from(visible), "row {}, cell {}", at / cells, at % cells);
        }
        let units: usize = share.groups.iter().map(|group| group.units).sum();
        prop_assert_eq!((units, share.groups.len()), (share.units.len(), case.heads * plan.blocks.len()));
    }
}

fn small_case(seed: u64) -> Case {
    let (rows, cells) = (5, 200);
    let mask = mask(Sight::Holes, rows, cells, seed);
    Case { key: 32, value: 32, heads: 2, sharers: 2, rows, cells, max_bias: 0.0, mask, seed }
}

#[test]
fn mask_that_is_written_for_another_pass_is_read_again() {
    let (first, mut second) = (small_case(1), small_case(1));
    second.mask = mask(Sight::Holes, second.rows, second.cells, 2);
    let tensors = Tensors::new(&first);
    for kernels in known() {
        let mut instance = instance(kernels);
        for (case, announced) in [(&first, true), (&second, true), (&first, false)] {
            tensors.write_mask(&case.mask);
            if announced {
                instance.begin(1);
            }
            let found = tensors.by(&mut instance, std::ptr::null_mut()).unwrap();
            assert_near(case, &found, &exact(case, &tensors), APART_MAX, "another mask");
        }
    }
}

#[test]
fn operation_stops_when_it_is_told_to() {
    unsafe extern "C" fn always(_: *mut c_void) -> bool {
        true
    }
    let abort: Abort = (always, std::ptr::null_mut());
    let tensors = Tensors::new(&small_case(3));
    for kernels in known() {
        let mut instance = instance(kernels);
        instance.set_abort(Some(abort));
        let said = tensors.by(&mut instance, std::ptr::null_mut());
        assert!(said.as_ref().is_err_and(|why| why.contains("Stopped")), "{said:?}");
        instance.set_abort(None);
        assert!(tensors.by(&mut instance, std::ptr::null_mut()).is_ok());
    }
}

#[test]
fn kernel_agrees_with_ggml_on_this_machine() {
    super::super::load::start_backend(super::super::arithmetic::Arithmetic::Packed);
    if known().is_empty() {
        return eprintln!("skipped: this CPU has none of the instruction sets");
    }
    assert_eq!(super::agrees(), Ok(()));
}

#[test]
fn result_is_nearer_to_the_exact_one_than_that_of_ggml() {
    let (rows, cells) = (4, 600);
    let mask = mask(Sight::Shared, rows, cells, 1);
    let case = Case { key: 64, value: 64, heads: 2, sharers: 7, rows, cells, max_bias: 0.0, mask, seed: 5 };
    let tensors = Tensors::new(&case);
    let expected = exact(&case, &tensors);
    let apart = |found: Vec<f32>| {
        let each = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs());
        each.fold(0.0, f64::max)
    };
    let ggml = apart(tensors.by_ggml().unwrap());
    for kernels in known() {
        let ours = apart(tensors.by(&mut instance(kernels), std::ptr::null_mut()).unwrap());
        assert!(ours * 10.0 < ggml, "{ours} with {}, {ggml} by ggml", kernels.name);
    }
}
