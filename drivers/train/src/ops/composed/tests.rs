//! Work that is cut into parts, in parts that are small.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{Kernels, attention, cross_entropy};
use crate::Gradients;
use crate::model::DropoutKey;
use crate::ops::attention::{Attention, Mask, Sizes};
use crate::ops::cross_entropy::Weighing;
use crate::ops::dropout::Dropout;
use crate::parameters::{Init, Parameters, Place};
use crate::random::Philox;
use crate::tape::Tape;

fn random(shape: &[usize], seed: u64) -> Tensor {
    let source = Philox::new(seed);
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(|i| source.normal(i)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn close(a: &Tensor, b: &Tensor) {
    let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(a.dims(), b.dims());
    numbers(a).iter().zip(numbers(b)).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{a} and {b}"));
}

#[test]
fn attention_a_query_at_a_time_is_the_attention_of_all() {
    let samples: Arc<[u64]> = Arc::new([4, 9]);
    let mask = Mask {
        causal: true,
        keys: Some(vec![1, 1, 0, 1, 1, 1, 1, 1, 1, 0]),
        segments: Some([vec![0, 0, 0, 1, 1, 0, 0, 0, 0, 0], vec![0, 0, 0, 1, 1, 0, 0, 0, 0, 0]]),
        offset: 0,
    };
    let dropout = Dropout::new(DropoutKey { seed: 5, step: 3 }, 7, 0.3, &samples);
    let what = Attention { heads: 4, kv_heads: 2, scale: 0.5, mask: Arc::new(mask), dropout };
    let sizes = Sizes { rows: 2, queries: 5, keys: 5, heads: 4, kv_heads: 2, size: 3 };
    let inputs = [random(&[2, 5, 12], 1), random(&[2, 5, 6], 2), random(&[2, 5, 6], 3), random(&[3, 4], 4)];
    let buckets: Arc<[u32]> = (0..25).map(|i| i % 3).collect();
    let run = |scores: usize| {
        let tape = Tape::recording(Rc::default()).with_kernels(Kernels::Composed);
        let values = inputs.clone().map(|tensor| tape.input(tensor));
        let [q, k, v, table] = inputs.clone();
        let of: Vec<_> = values.iter().collect();
        let bias = Some((table, buckets.clone()));
        let y = attention::within(scores, &tape, &[q, k, v], (of.as_slice(), false), (sizes, &what, bias))
            .unwrap();
        let out = y.tensor().clone();
        let gradients = tape.backward(&y, random(&[2, 5, 12], 9), &values).unwrap();
        gradients.into_iter().map(|gradient| gradient.unwrap()).chain([out]).collect::<Vec<_>>()
    };
    let whole = run(attention::SCORES);
    for scores in [1, 2 * 2 * 4 * 5] {
        run(scores).iter().zip(&whole).for_each(|(part, whole)| close(part, whole));
    }
}

#[test]
fn output_layer_of_some_rows_at_a_time_is_that_of_all() {
    let place = Place { kernels: Kernels::Composed, ..Place::on(Device::Cpu) };
    let mut parameters = Parameters::on(&place, DType::F64, 1);
    let weight = parameters.add("weight", &[6, 4], Init::Normal(1.0)).unwrap();
    let bias = parameters.add("bias", &[6], Init::Normal(1.0)).unwrap();
    let targets: Vec<i32> = (0..40).map(|i| if i % 7 == 3 { crate::IGNORE } else { i % 6 }).collect();
    let weighing = Weighing { label_smoothing: 0.1, denominator: None };
    let run = |logits: usize| {
        let sink = Rc::new(RefCell::new(Gradients::new(&parameters).unwrap()));
        let tape = Tape::recording(sink.clone());
        let (w, b) = (tape.parameter(&parameters, weight), tape.parameter(&parameters, bias));
        let x = tape.input(random(&[40, 4], 1));
        let with = (weighing, targets.iter().filter(|target| **target != crate::IGNORE).count());
        let (loss, dx) = cross_entropy::within(logits, &tape, &x, &w, Some(&b), &targets, with).unwrap();
        let sink = sink.borrow();
        let sums = [0, 1].map(|id| sink.tensor(id).unwrap().unwrap());
        (loss, [dx.unwrap(), sums[0].clone(), sums[1].clone()])
    };
    // 16 rows at a time, the least.
    let ((in_parts, parts), (whole, all)) = (run(1), run(cross_entropy::LOGITS));
    assert!((in_parts.sum - whole.sum).abs() < 1e-10 && in_parts.count == whole.count);
    parts.iter().zip(&all).for_each(|(part, whole)| close(part, whole));
}
