//! Weights that are packed when a model is loaded.

use drivers::gguf::TensorType;
use drivers::gguf::random::{Family, Shape};
use syscalls::Token;

use super::super::accelerator::{Kernel, usable};
use super::super::load::start_backend;
use super::super::made::Made;
use super::estimate::logged;
use super::*;

/// How far numbers may be apart, of the greatest magnitude among them. Two kernels add floats in orders of their own, and a
/// number that is rounded to the other side is a hundredth of its block apart; with weights in wrong places nothing is alike.
const APART_MAX: f32 = 0.03;

/// The logits behind passes of one row, of some, and of many.
fn logits(file: &str, packing: Packing) -> Vec<f32> {
    let settings = ModelSettings { gpu_layers: Some(0), packing };
    let model = Model::load(file, &settings, &mut |_| {}).unwrap();
    let settings = ContextSettings {
        tokens: 256,
        batch_tokens: 256,
        ubatch_tokens: 256,
        sequences: 4,
        outputs: 4,
        threads: 2,
        attention: Attention::Flash,
        embeddings: false,
    };
    let mut context = Context::new(&model, &settings).unwrap();
    let (mut all, mut position) = (Vec::new(), 0);
    for count in [1, 5, 12, 70] {
        let tokens: Vec<Token> = (0..count).map(|at| Token(40 + at * 7 % 200)).collect();
        context.batch().clear();
        let place = context.batch().add(0, position, &tokens, Output::Last);
        context.decode().unwrap();
        all.extend_from_slice(context.logits(place).unwrap());
        position += count;
    }
    all
}

#[test]
fn packed_weights_give_what_those_in_the_file_do() {
    start_backend(Arithmetic::Packed);
    let shape = |kind, family| Shape { kind, embedding: 288, ..Shape::preset("tiny").unwrap().of(family) };
    // One that has its rows in more dimensions, and one whose types have no kernel here.
    for (kind, family) in [
        (TensorType::Q8_0, Family::Qwen2),
        (TensorType::Q8_0, Family::Mamba),
        (TensorType::F32, Family::Llama),
    ] {
        let made = Made::of(&shape(kind, family)).unwrap();
        let plain = logits(&made.path(), Packing::None);
        let (packed, log) = logged(|| logits(&made.path(), Packing::Best));
        let is_packed = log.contains("llmasos_packed model buffer size");
        assert_eq!(is_packed, usable(Kernel::Products) && kind == TensorType::Q8_0, "{log}");
        let greatest = plain.iter().fold(0.0f32, |most, n| most.max(n.abs()));
        let apart = plain.iter().zip(&packed).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= APART_MAX * greatest, "{kind:?}, {family:?}: {apart} of {greatest}");
    }
}
