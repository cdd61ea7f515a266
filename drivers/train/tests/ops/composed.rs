//! Composed operations beside the kernels, on the CPU: everything that a device computes but the device itself.

use super::*;

/// Compares the composed form with the kernel, in both types.
pub(super) fn check(op: Operation<'_>, inputs: &[Tensor]) {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
        let inputs: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
        let [(out, found), (wanted_out, wanted)] =
            [Kernels::Composed, Kernels::Fused].map(|kernels| gradients_by(kernels, op, &inputs));
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().chain([&out]).zip(wanted.iter().chain([&wanted_out])) {
            assert_eq!(found.dtype(), dtype);
            close(found, wanted, tolerance);
        }
    }
}

#[test]
fn query_that_sees_nothing_gets_nothing() {
    let what = what(1, 1, Mask { keys: Some(vec![0, 0, 0, 1]), ..Mask::default() }, None);
    let op = |tape: &Tape<'_>, v: &[Value]| attention(tape, Heads::Packed(&v[0]), &what, None).unwrap();
    let inputs = [random(&[2, 2, 12], 1)];
    check(&op, &inputs);
    let (out, gradients) = gradients_by(Kernels::Composed, &op, &inputs);
    let first_row = |tensor: &Tensor| numbers(&tensor.narrow(0, 0, 1).unwrap());
    assert!(first_row(&out).iter().chain(&first_row(&gradients[0])).all(|x| *x == 0.0));
}

#[test]
fn keys_of_earlier_passes_are_seen() {
    let mask = Mask { causal: true, offset: 4, ..Mask::default() };
    let what = what(4, 2, mask, Some(drop_at(3, 0.3, 2)));
    let op = |tape: &Tape<'_>, v: &[Value]| {
        attention(tape, Heads::Separate { q: &v[0], k: &v[1], v: &v[2] }, &what, None).unwrap()
    };
    check(&op, &[random(&[2, 2, 16], 1), random(&[2, 6, 8], 2), random(&[2, 6, 8], 3)]);
}

#[test]
fn places_that_a_table_has_no_row_for_are_zeros() {
    let nowhere = embedding::NOWHERE;
    let ids: Arc<[u32]> = vec![1, nowhere, 1, 0, nowhere, 3].into();
    let op = |tape: &Tape<'_>, v: &[Value]| {
        embedding::embedding(tape, &[(&v[0], ids.clone(), 2.0)], [2, 3]).unwrap()
    };
    check(&op, &[random(&[4, 5], 1)]);
}

#[test]
fn dropout_of_a_part_of_the_heads_and_features_is_that_of_the_whole() {
    let drop = drop_at(7, 0.4, 2).from(3, 130);
    check(&|tape, v| dropout(tape, &v[0], Some(&drop)).unwrap(), &[random(&[2, 3, 70], 1)]);
    let what = what(2, 2, Mask { causal: true, ..Mask::default() }, Some(drop_at(7, 0.4, 2).from(3, 0)));
    check(&|tape, v| attention(tape, Heads::Packed(&v[0]), &what, None).unwrap(), &[random(&[2, 5, 24], 1)]);
}

/// The loss of an output layer, and the gradients of what goes into it and of its parameters.
fn output_layer(kernels: Kernels, dtype: DType, targets: &[i32], smoothing: f64) -> (f64, f64, [Tensor; 3]) {
    let place = Place { kernels, ..Place::on(Device::Cpu) };
    let mut parameters = Parameters::on(&place, dtype, 1);
    let weight = parameters.add("weight", &[6, 4], Init::Normal(1.0)).unwrap();
    let bias = parameters.add("bias", &[6], Init::Normal(1.0)).unwrap();
    let sink = Rc::new(RefCell::new(Gradients::new(&parameters).unwrap()));
    let tape = Tape::recording(sink.clone());
    assert_eq!(tape.kernels(), kernels);
    let (w, b) = (tape.parameter(&parameters, weight), tape.parameter(&parameters, bias));
    let input = tape.input(random(&[2, 3, 4], 1).to_dtype(dtype).unwrap());
    let (loss, dx) = linear_cross_entropy(&tape, &input, &w, Some(&b), targets, weighing(smoothing)).unwrap();
    let sink = sink.borrow();
    (loss.sum, loss.count, [dx.unwrap(), sink.tensor(0).unwrap().unwrap(), sink.tensor(1).unwrap().unwrap()])
}

#[test]
fn output_layer_has_the_loss_and_gradients_of_the_kernel() {
    for targets in [vec![2, -100, 5, 0, 1, 1], vec![2, 3, 5, 0, 1, 1]] {
        for (dtype, smoothing, tolerance) in
            [(DType::F64, 0.0, 1e-12), (DType::F64, 0.1, 1e-12), (DType::F32, 0.1, 2e-5)]
        {
            let [found, wanted] = [Kernels::Composed, Kernels::Fused]
                .map(|kernels| output_layer(kernels, dtype, &targets, smoothing));
            assert!((found.0 - wanted.0).abs() < tolerance * 10.0 && found.1 == wanted.1);
            found.2.iter().zip(&wanted.2).for_each(|(found, wanted)| close(found, wanted, tolerance));
        }
    }
}

/// bf16 has 8 bits: products of numbers that are rounded to it are the kernel's but for the order of sums.
#[test]
fn mixed_precision_rounds_what_the_kernel_rounds() {
    let inputs = [random(&[2, 3, 32], 1), random(&[5, 32], 2)].map(|t| t.to_dtype(DType::F32).unwrap());
    let run = |kernels, precision| {
        let tape = Tape::recording(Rc::default()).with_kernels(kernels).in_precision(precision);
        let values: Vec<Value> = inputs.iter().map(|t| tape.input(t.clone())).collect();
        let y = linear::linear(&tape, &values[0], &values[1], None, Layout::OutIn).unwrap();
        let weight = random(y.tensor().dims(), 99).to_dtype(DType::F32).unwrap();
        let out = y.tensor().clone();
        let gradients = tape.backward(&y, weight, &values).unwrap();
        gradients.into_iter().flatten().chain([out]).collect::<Vec<Tensor>>()
    };
    let mixed = run(Kernels::Composed, Precision::Mixed);
    let full = run(Kernels::Composed, Precision::Full);
    for ((found, wanted), full) in mixed.iter().zip(run(Kernels::Fused, Precision::Mixed)).zip(&full) {
        close(found, &wanted, 1e-5);
        let apart = numbers(found).iter().zip(numbers(full)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart > 1e-4, "nothing was rounded: {apart}");
    }
}
