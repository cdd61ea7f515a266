//! Every operation against finite differences in f64, and against the same formula in candle's own operations, whose
//! gradients candle computes; and their composed forms against the kernels.

#![allow(clippy::unwrap_used)]

mod composed;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use train::Gradients;
use train::model::DropoutKey;
use train::models::config::Activation;
use train::ops::attention::{Attention, Heads, Mask, Relative, attention};
use train::ops::cross_entropy::{Weighing, cross_entropy, linear_cross_entropy};
use train::ops::dropout::{Dropout, dropout, residual};
use train::ops::linear::Layout;
use train::ops::product::Precision;
use train::ops::rope::Angles;
use train::ops::{Kernels, activation, embedding, linear, norm, pool, rope};
use train::parameters::{Init, Parameters, Place};
use train::random::Philox;
use train::tape::{Tape, Value};

fn random(shape: &[usize], seed: u64) -> Tensor {
    let source = Philox::new(seed);
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count as u64).map(|i| source.normal(i)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

type Operation<'o> = &'o dyn for<'t> Fn(&Tape<'t>, &[Value]) -> Value;

/// The result of an operation's kernel, and the gradients of Σ weight · op(inputs).
fn gradients(op: Operation<'_>, inputs: &[Tensor]) -> (Tensor, Vec<Tensor>) {
    gradients_by(Kernels::Fused, op, inputs)
}

fn gradients_by(kernels: Kernels, op: Operation<'_>, inputs: &[Tensor]) -> (Tensor, Vec<Tensor>) {
    let tape = Tape::recording(Rc::default()).with_kernels(kernels);
    let values: Vec<Value> = inputs.iter().map(|t| tape.input(t.clone())).collect();
    let y = op(&tape, &values);
    let weight = random(y.tensor().dims(), 99).to_dtype(y.tensor().dtype()).unwrap();
    let out = y.tensor().clone();
    let gradients = tape.backward(&y, weight, &values).unwrap();
    (out, gradients.into_iter().map(|g| g.expect("each input has a gradient")).collect())
}

fn loss(op: Operation<'_>, inputs: &[Tensor]) -> f64 {
    let values: Vec<Value> = inputs.iter().cloned().map(Value::constant).collect();
    let y = op(&Tape::idle(), &values);
    let weight = random(y.tensor().dims(), 99);
    numbers(y.tensor()).iter().zip(numbers(&weight)).map(|(y, w)| y * w).sum()
}

/// Compares with central differences in f64, then f32 with f64, and in both the composed form with the kernel.
fn check(op: Operation<'_>, inputs: &[Tensor]) {
    let (out, found) = gradients(op, inputs);
    for (which, gradient) in found.iter().enumerate() {
        let (shape, values) = (inputs[which].dims().to_vec(), numbers(&inputs[which]));
        for (i, found) in numbers(gradient).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[i] += by;
                let mut inputs = inputs.to_vec();
                inputs[which] = Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap();
                loss(op, &inputs)
            };
            let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (found - wanted).abs() < 1e-6 * (1.0 + wanted.abs()),
                "input {which}, number {i}: {found}, {wanted}"
            );
        }
    }
    let narrow: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
    let (out_32, found_32) = gradients(op, &narrow);
    for (wide, narrow) in found.iter().chain([&out]).zip(found_32.iter().chain([&out_32])) {
        close(narrow, wide, 2e-5);
    }
    composed::check(op, inputs);
}

fn close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims());
    for (i, (a, b)) in numbers(a).into_iter().zip(numbers(b)).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "number {i}: {a} and {b}");
    }
}

#[test]
fn linear_of_either_layout_has_right_gradients() {
    let (x, bias) = (random(&[2, 3, 4], 1), random(&[5], 3));
    let op = |tape: &Tape<'_>, v: &[Value]| {
        linear::linear(tape, &v[0], &v[1], Some(&v[2]), Layout::OutIn).unwrap()
    };
    check(&op, &[x.clone(), random(&[5, 4], 2), bias.clone()]);
    let op = |tape: &Tape<'_>, v: &[Value]| linear::linear(tape, &v[0], &v[1], None, Layout::InOut).unwrap();
    check(&op, &[x, random(&[4, 5], 2)]);
}

#[test]
fn norms_have_right_gradients() {
    let inputs = [random(&[2, 3, 37], 1), random(&[37], 2), random(&[37], 3)];
    let op = |tape: &Tape<'_>, v: &[Value]| norm::layer_norm(tape, &v[0], &v[1], Some(&v[2]), 1e-5).unwrap();
    check(&op, &inputs);
    let op = |tape: &Tape<'_>, v: &[Value]| norm::rms_norm(tape, &v[0], &v[1], 1e-5).unwrap();
    check(&op, &inputs[..2]);
}

#[test]
fn activations_and_gates_have_right_gradients() {
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh, Activation::Relu]
    {
        let inputs = [(random(&[2, 3, 40], 1) * 2.0).unwrap(), random(&[2, 3, 40], 2)];
        check(&|tape, v| activation::activation(tape, &v[0], kind).unwrap(), &inputs[..1]);
        check(&|tape, v| activation::gated(tape, &v[0], &v[1], kind).unwrap(), &inputs);
    }
}

#[test]
fn activations_far_from_zero_stay_finite() {
    let x = Tensor::new(&[-1e30f32, -200.0, -88.5, -20.0, 20.0, 88.5, 200.0, 1e10], &Device::Cpu).unwrap();
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh, Activation::Relu]
    {
        let y = activation::activation(&Tape::idle(), &Value::constant(x.clone()), kind).unwrap();
        assert!(numbers(y.tensor()).iter().all(|y| y.is_finite()), "{kind:?}: {:?}", numbers(y.tensor()));
    }
}

#[test]
fn rope_has_right_gradients() {
    let rotation = rope::Rotation { scale: 1.3, ..rope::Rotation::plain(8, 10_000.0) };
    let angles = Angles::new(&[0, 1, 2, 7, 8, 9], &rotation);
    check(&|tape, v| rope::rope(tape, &v[0], &angles).unwrap(), &[random(&[2, 3, 16], 1)]);
}

#[test]
fn embedding_of_two_tables_has_right_gradients() {
    let ids: [Arc<[u32]>; 2] = [vec![1, 4, 1, 0, 2, 1].into(), vec![0, 1, 2, 0, 1, 2].into()];
    let op = |tape: &Tape<'_>, v: &[Value]| {
        let tables = [(&v[0], ids[0].clone(), 3.0), (&v[1], ids[1].clone(), 1.0)];
        embedding::embedding(tape, &tables, [2, 3]).unwrap()
    };
    check(&op, &[random(&[5, 4], 1), random(&[3, 4], 2)]);
}

#[test]
fn pooling_has_right_gradients() {
    let x = random(&[2, 3, 4], 1);
    let weights = pool::mean_weights(Some(&[1, 1, 0, 1, 1, 1]), 2, 3);
    check(&|tape, v| pool::weighted(tape, &v[0], weights.clone()).unwrap(), std::slice::from_ref(&x));
    check(&|tape, v| pool::unit(tape, &v[0]).unwrap(), std::slice::from_ref(&x));
    check(&|tape, v| pool::scaled(tape, &v[0], 0.3).unwrap(), &[x]);
}

fn drop_at(site: u32, probability: f64, rows: u64) -> Dropout {
    let samples: Arc<[u64]> = (0..rows).map(|i| i + 10).collect();
    Dropout::new(DropoutKey { seed: 5, step: 3 }, site, probability, &samples).unwrap()
}

#[test]
fn dropout_has_right_gradients_and_keeps_the_mean() {
    let drop = drop_at(7, 0.3, 2);
    let inputs = [random(&[2, 3, 70], 1), random(&[2, 3, 70], 2)];
    check(&|tape, v| dropout(tape, &v[0], Some(&drop)).unwrap(), &inputs[..1]);
    check(&|tape, v| residual(tape, &v[0], &v[1], Some(&drop)).unwrap(), &inputs);
    check(&|tape, v| residual(tape, &v[0], &v[1], None).unwrap(), &inputs);
    let ones = Tensor::ones((2, 100, 500), DType::F32, &Device::Cpu).unwrap();
    let y = dropout(&Tape::idle(), &Value::constant(ones), Some(&drop)).unwrap();
    let mean = numbers(y.tensor()).iter().sum::<f64>() / 100_000.0;
    assert!((mean - 1.0).abs() < 0.01, "mean {mean}");
}

/// A row's factors depend on its sample and not on the batch that it is in.
#[test]
fn dropout_in_another_batch_drops_the_same() {
    let samples: [Arc<[u64]>; 2] = [Arc::new([3, 4]), Arc::new([4])];
    let [both, one] = samples.map(|s| Dropout::new(DropoutKey { seed: 1, step: 2 }, 9, 0.5, &s).unwrap());
    let (mut a, mut b) = ([0f32; 100], [0f32; 100]);
    both.factors(1, 6, 2, &mut a);
    one.factors(0, 6, 2, &mut b);
    assert_eq!(a, b);
    both.factors(0, 6, 2, &mut b);
    assert_ne!(a, b);
}

fn what(heads: usize, kv_heads: usize, mask: Mask, dropout: Option<Dropout>) -> Attention {
    Attention { heads, kv_heads, scale: 0.5, mask: Arc::new(mask), dropout }
}

#[test]
fn attention_of_one_projection_has_right_gradients() {
    let causal = Mask { causal: true, ..Mask::default() };
    for dropout in [None, Some(drop_at(3, 0.4, 2))] {
        let what = what(2, 2, causal.clone(), dropout);
        check(
            &|tape, v| attention(tape, Heads::Packed(&v[0]), &what, None).unwrap(),
            &[random(&[2, 5, 24], 1)],
        );
    }
}

#[test]
fn attention_with_shared_keys_gaps_and_bias_has_right_gradients() {
    let mask = Mask { keys: Some(vec![1, 1, 1, 0, 1, 1, 0, 1, 1, 0]), ..Mask::default() };
    let what = what(4, 2, mask, Some(drop_at(3, 0.2, 2)));
    let buckets: Arc<[u32]> = (0..15).map(|i| i % 4).collect();
    let op = |tape: &Tape<'_>, v: &[Value]| {
        let relative = Relative { table: &v[3], buckets: buckets.clone() };
        attention(tape, Heads::Separate { q: &v[0], k: &v[1], v: &v[2] }, &what, Some(relative)).unwrap()
    };
    check(&op, &[random(&[2, 3, 16], 1), random(&[2, 5, 8], 2), random(&[2, 5, 8], 3), random(&[4, 4], 4)]);
}

#[test]
fn attention_of_packed_documents_has_right_gradients() {
    let documents = vec![0, 0, 1, 1, 1, 0, 1, 1, 2, 2];
    let mask = Mask { causal: true, segments: Some([documents.clone(), documents]), ..Mask::default() };
    let what = what(2, 2, mask, None);
    check(&|tape, v| attention(tape, Heads::Packed(&v[0]), &what, None).unwrap(), &[random(&[2, 5, 12], 1)]);
}

#[test]
fn attention_of_a_query_that_sees_nothing_is_zero_with_zero_gradients() {
    let what = what(1, 1, Mask { keys: Some(vec![0, 0]), ..Mask::default() }, None);
    let (out, gradients) = gradients(
        &|tape, v| attention(tape, Heads::Packed(&v[0]), &what, None).unwrap(),
        &[random(&[1, 2, 12], 1)],
    );
    assert!(numbers(&out).iter().chain(&numbers(&gradients[0])).all(|x| *x == 0.0));
}

/// More queries than a block, against candle's formula and its gradients.
#[test]
fn attention_in_blocks_is_the_plain_formula() {
    let (rows, length, heads, size) = (2, 150, 2, 8);
    let inputs: Vec<Tensor> = (0..3).map(|i| random(&[rows, length, heads * size], i)).collect();
    let what = what(heads, heads, Mask { causal: true, ..Mask::default() }, None);
    let op = |tape: &Tape<'_>, v: &[Value]| {
        attention(tape, Heads::Separate { q: &v[0], k: &v[1], v: &v[2] }, &what, None).unwrap()
    };
    let (out, found) = gradients(&op, &inputs);
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let head = |v: &Var| {
        v.reshape((rows, length, heads, size)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
    };
    let hidden: Vec<f64> =
        (0..length * length).map(|i| if i % length > i / length { f64::NEG_INFINITY } else { 0.0 }).collect();
    let hidden = Tensor::from_vec(hidden, (length, length), &Device::Cpu).unwrap();
    let scores = (head(&vars[0]).matmul(&head(&vars[1]).t().unwrap()).unwrap() * 0.5).unwrap();
    let scores = scores.broadcast_add(&hidden).unwrap();
    let shifted = scores.broadcast_sub(&scores.max_keepdim(3).unwrap().detach()).unwrap().exp().unwrap();
    let weights = shifted.broadcast_div(&shifted.sum_keepdim(3).unwrap()).unwrap();
    let wanted = weights.matmul(&head(&vars[2])).unwrap().transpose(1, 2).unwrap();
    let wanted = wanted.reshape((rows, length, heads * size)).unwrap();
    close(&out, &wanted, 1e-12);
    let store = (&wanted * random(wanted.dims(), 99)).unwrap().sum_all().unwrap().backward().unwrap();
    for (var, found) in vars.iter().zip(&found) {
        close(found, store.get(var).unwrap(), 1e-10);
    }
}

#[test]
fn attention_with_keys_of_earlier_passes_is_the_whole_ones_last_row() {
    let qkv = random(&[1, 6, 24], 1);
    let causal = Mask { causal: true, ..Mask::default() };
    let tape = Tape::idle();
    let whole =
        attention(&tape, Heads::Packed(&Value::constant(qkv.clone())), &what(2, 2, causal, None), None)
            .unwrap();
    let part = |i: usize, first: usize, count: usize| {
        Value::constant(qkv.narrow(2, i * 8, 8).unwrap().narrow(1, first, count).unwrap())
    };
    let mask = Mask { causal: true, offset: 4, ..Mask::default() };
    let (q, k, v) = (part(0, 4, 2), part(1, 0, 6), part(2, 0, 6));
    let last =
        attention(&tape, Heads::Separate { q: &q, k: &k, v: &v }, &what(2, 2, mask, None), None).unwrap();
    close(last.tensor(), &whole.tensor().narrow(1, 4, 2).unwrap(), 1e-14);
}

fn weighing(label_smoothing: f64) -> Weighing {
    Weighing { label_smoothing, denominator: Some(7.0) }
}

#[test]
fn cross_entropy_has_right_gradients() {
    let (logits, targets) = (random(&[4, 6], 1), [2, -100, 5, 0]);
    for smoothing in [0.0, 0.1] {
        let (loss, gradient) = cross_entropy(&logits, &targets, weighing(smoothing)).unwrap();
        assert_eq!(loss.count, 3.0);
        let values = numbers(&logits);
        for (i, found) in numbers(&gradient).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[i] += by;
                let logits = Tensor::from_vec(values, (4, 6), &Device::Cpu).unwrap();
                cross_entropy(&logits, &targets, weighing(smoothing)).unwrap().0.sum / 7.0
            };
            let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - wanted).abs() < 1e-8, "number {i}: {found}, {wanted}");
        }
    }
}

/// With the output layer, in one chunk and with rows left out, it is the two operations one after the other.
#[test]
fn linear_cross_entropy_is_linear_then_cross_entropy() {
    for targets in [vec![2, -100, 5, 0, 1, 1], vec![2, 3, 5, 0, 1, 1]] {
        let mut parameters = Parameters::new(DType::F64, 1);
        let weight = parameters.add("weight", &[6, 4], Init::Normal(1.0)).unwrap();
        let bias = parameters.add("bias", &[6], Init::Normal(1.0)).unwrap();
        let x = random(&[2, 3, 4], 1);
        let run = |fused: bool| {
            let sink = Rc::new(RefCell::new(Gradients::new(&parameters).unwrap()));
            let tape = Tape::recording(sink.clone());
            let (w, b) = (tape.parameter(&parameters, weight), tape.parameter(&parameters, bias));
            let input = tape.input(x.clone());
            let (loss, dx) = if fused {
                let (loss, dx) =
                    linear_cross_entropy(&tape, &input, &w, Some(&b), &targets, weighing(0.1)).unwrap();
                (loss, dx.unwrap())
            } else {
                let y = linear::linear(&tape, &input, &w, Some(&b), Layout::OutIn).unwrap();
                let (loss, slopes) = cross_entropy(y.tensor(), &targets, weighing(0.1)).unwrap();
                (loss, tape.backward(&y, slopes, &[input]).unwrap().remove(0).unwrap())
            };
            let sink = sink.borrow();
            (loss, [dx, sink.tensor(0).unwrap().unwrap(), sink.tensor(1).unwrap().unwrap()])
        };
        let ((loss, fused), (plain_loss, plain)) = (run(true), run(false));
        assert!((loss.sum - plain_loss.sum).abs() < 1e-12 && loss.count == plain_loss.count);
        fused.iter().zip(&plain).for_each(|(a, b)| close(a, b, 1e-13));
    }
}

#[test]
fn cross_entropy_with_a_target_outside_of_the_classes_says_which() {
    let error = cross_entropy(&random(&[2, 6], 1), &[0, 6], weighing(0.0)).unwrap_err().to_string();
    assert!(error.contains("target 6") && error.contains("6 classes"), "{error}");
}
