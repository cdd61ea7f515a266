//! The kernel gives what a product of quantised numbers is, and the same bits whatever else is computed.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::super::arithmetic::Arithmetic;
use super::super::load::start_backend;
use super::super::threadpool::Threadpool;
use super::check::{Case, Tensors, instance};
use super::{BLOCK, BLOCK_BYTES, Kernel, kernel};

/// The result's numbers as they are defined, with for each the sum of the magnitudes that are added.
fn exact(case: Case, tensors: &Tensors) -> Vec<(f64, f64)> {
    let width = case.blocks * BLOCK;
    let mut out = Vec::new();
    for row in tensors.rows.chunks(width) {
        for weights in tensors.weights.chunks(case.blocks * BLOCK_BYTES) {
            let blocks = weights.chunks(BLOCK_BYTES).zip(row.chunks(BLOCK));
            let sums = blocks.map(|(weights, numbers)| {
                let greatest = numbers.iter().fold(0f32, |a, b| a.max(b.abs()));
                let inverse = if greatest == 0.0 { 0.0 } else { 127.0 / greatest };
                let whole = numbers.iter().map(|n| (n * inverse).round_ties_even() as i32);
                let sum: i32 = weights[2..].iter().zip(whole).map(|(w, n)| i32::from(*w as i8) * n).sum();
                let scale = half::f16::from_le_bytes([weights[0], weights[1]]).to_f64();
                scale * half::f16::from_f32(greatest / 127.0).to_f64() * f64::from(sum)
            });
            out.push(sums.fold((0.0, 0.0), |(sum, all), one| (sum + one, all + one.abs())));
        }
    }
    out
}

/// The kernel, with ggml set up beside it.
fn here() -> Option<Kernel> {
    start_backend(Arithmetic::Packed);
    let kernel = kernel();
    if kernel.is_none() {
        eprintln!("skipped: this CPU has no byte products");
    }
    kernel
}

fn raw(pool: Option<&Threadpool>) -> llama_cpp_sys_2::ggml_threadpool_t {
    pool.map_or(std::ptr::null_mut(), Threadpool::raw)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn product_is_what_it_is_by_definition(
        (blocks, outputs, columns) in (1..40usize, 1..100usize, 1..80usize),
        threads in 1..4u32,
        tiles in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let Some(kernel) = here() else { return Ok(()) };
        let kernel = Kernel { tiled: kernel.tiled.filter(|_| tiles), ..kernel };
        let case = Case { blocks, outputs, columns, seed };
        let tensors = Tensors::new(case);
        let pool = Threadpool::new(threads);
        let mut instance = instance(kernel);
        instance.begin(threads as usize);
        let found = tensors.by(&mut instance, raw(pool.as_ref())).unwrap();
        for (at, (found, (sum, all))) in found.iter().zip(exact(case, &tensors)).enumerate() {
            // One rounding to a float for each block, and two of the scales.
            let most = all * 2f64.powi(-23) * (blocks + 2) as f64;
            prop_assert!((f64::from(*found) - sum).abs() <= most, "number {at} is {found} for {sum}; {case:?}");
        }
    }
}

#[test]
fn row_comes_out_the_same_whatever_else_is_in_the_pass() {
    let Some(kernel) = here() else { return };
    let whole = Case { blocks: 21, outputs: 75, columns: 130, seed: 3 };
    let all = Tensors::new(whole);
    let pool = Threadpool::new(2);
    let with = |kernel| {
        let mut together = instance(kernel);
        together.begin(2);
        all.by(&mut together, raw(pool.as_ref())).unwrap()
    };
    let together = with(kernel);
    let by_vectors = with(Kernel { tiled: None, ..kernel });
    assert!(
        together.iter().zip(&by_vectors).all(|(a, b)| a.to_bits() == b.to_bits()),
        "tiles and vectors differ"
    );
    for column in [0, 1, 64, 129] {
        // The same weights come of the same seed, and the row takes the place of the first.
        let mut one = Tensors::new(Case { columns: 1, ..whole });
        assert_eq!(one.weights, all.weights);
        one.put_row(&all.rows[column * whole.blocks * BLOCK..][..whole.blocks * BLOCK]);
        let alone = one.by(&mut instance(kernel), std::ptr::null_mut()).unwrap();
        let bits = |numbers: &[f32]| numbers.iter().map(|n| n.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            bits(&alone[..whole.outputs]),
            bits(&together[column * whole.outputs..][..whole.outputs]),
            "row {column}"
        );
    }
}

#[test]
fn what_is_no_number_is_none_in_every_result_of_its_row() {
    let Some(kernel) = here() else { return };
    for (at, wrong) in [(0, f32::NAN), (40, f32::INFINITY), (63, -f32::NAN)] {
        let case = Case { blocks: 2, outputs: 40, columns: 3, seed: 1 };
        let mut tensors = Tensors::new(case);
        let mut row = tensors.rows[..2 * BLOCK].to_vec();
        row[at] = wrong;
        tensors.put_row(&row);
        let found = tensors.by(&mut instance(kernel), std::ptr::null_mut()).unwrap();
        assert!(found[..case.outputs].iter().all(|n| !n.is_finite()), "{wrong} at {at}: {found:?}");
        assert!(found[case.outputs..].iter().all(|n| n.is_finite()), "{wrong} at {at}: {found:?}");
    }
}

#[test]
fn product_is_stopped_when_the_callback_says_so() {
    let Some(kernel) = here() else { return };
    unsafe extern "C" fn always(_: *mut std::ffi::c_void) -> bool {
        true
    }
    let tensors = Tensors::new(Case { blocks: 2, outputs: 400, columns: 3, seed: 1 });
    let mut instance = instance(kernel);
    instance.set_abort(Some((always, std::ptr::null_mut())));
    let stopped = tensors.by(&mut instance, std::ptr::null_mut());
    assert_eq!(stopped, Err("the product was not done: Stopped".into()));
    instance.set_abort(None);
    tensors.by(&mut instance, std::ptr::null_mut()).unwrap();
}

#[test]
fn kernel_gives_what_ggml_gives() {
    if here().is_some() {
        super::agrees().unwrap();
    }
}
