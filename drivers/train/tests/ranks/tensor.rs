//! Tensor parallel: layers are divided as in Megatron-LM.

use candle_core::DType;
use train::ranks::{Kind, Layout, Mesh, on_threads};

use super::proof::{BERT, GPT2, LLAMA, MARIAN, ROWS, T5, adapted, again, config, division, many, prove};

#[test]
fn two_tensor_ranks_compute_what_one_process_does() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
        prove(text, division(1, 2, 1));
    }
}

#[test]
fn adapters_over_tensor_ranks_compute_what_one_process_does() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
        prove(&adapted(text), division(1, 2, 1));
    }
    prove(&adapted(LLAMA), division(2, 2, 2));
}

/// Ranks sum within layers a second time for what they compute again.
#[test]
fn tensor_ranks_that_compute_blocks_again_compute_what_one_process_does() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
        prove(text, again(division(1, 2, 1)));
    }
}

/// Four ranks, of which two have more rows of the vocabulary and columns of layers than the others.
#[test]
fn four_tensor_ranks_compute_what_one_process_does() {
    for text in [GPT2, MARIAN] {
        prove(text, division(1, 4, 1));
    }
}

#[test]
fn parameters_of_a_rank_shrink_as_they_must() {
    let counts = |tensor| {
        let look = |_: &train::ranks::Team, model: &dyn train::Model| {
            let parameters = model.parameters();
            let whole = |p: &&train::Parameter| p.part.is_whole();
            let replicated: usize = parameters.iter().filter(whole).map(train::Parameter::count).sum();
            (parameters.counts().0, replicated)
        };
        many(GPT2, DType::F64, division(1, tensor, 1), |world| world, look).1
    };
    let all = counts(1)[0].0;
    // Positions, norms, and the biases that are added once: 12 × 16, 9 × 2 × 16, and 4 × 2 × 16.
    let replicated = 12 * 16 + 9 * 32 + 4 * 32;
    for ranks in [2, 4] {
        let counts = counts(ranks);
        assert!(counts.iter().all(|(_, whole)| *whole == replicated), "{counts:?}");
        let divided: usize = counts.iter().map(|(own, whole)| own - whole).sum();
        assert_eq!(divided, all - replicated);
        // The vocabulary of 23 rows of 16 is not divided evenly.
        assert!(
            counts.iter().all(|(own, whole)| (own - whole).abs_diff(divided / ranks) <= 16),
            "{counts:?}"
        );
    }
}

/// Each layer sums its result twice on the way forward and its input's gradient twice on the way back; so do both ends
/// once; and the loss needs four numbers for each target (the greatest logit, and three sums).
#[test]
fn bytes_within_layers_are_those_of_megatron() {
    let (layers, width, length, steps) = (4, 16, 6, 20);
    let (_, sent) = many(
        GPT2,
        DType::F64,
        division(1, 2, 1),
        |world| world,
        |team, _| team.mesh().sent()[1].of(Kind::AllReduce),
    );
    let activations = ROWS * length * width * (4 * layers + 2);
    let targets: usize = (0..steps).map(|step| super::proof::batch(GPT2, step).counted()).sum();
    let numbers = activations * steps as usize + 4 * targets;
    assert_eq!(sent.iter().sum::<u64>(), 2 * 8 * numbers as u64);
}

#[test]
fn layers_that_cannot_be_divided_are_refused_with_the_numbers() {
    let refused = |text: &'static str, layout: Layout| {
        let ends = on_threads(layout.size(), 1, |world| {
            let mesh = Mesh::new(world, layout).unwrap();
            train::models::build_on(&mesh, &config(text), DType::F32, 1).err().map(|error| error.to_string())
        });
        ends.into_iter().next().unwrap().unwrap().unwrap()
    };
    let heads = refused(LLAMA, Layout { data: 1, tensor: 4, pipeline: 1 });
    assert!(heads.contains("4 heads with 2 of keys are not divided by 4 tensor ranks"), "{heads}");
    let layers = refused(GPT2, Layout { data: 1, tensor: 1, pipeline: 5 });
    assert!(layers.contains("4 layers cannot be divided over 5 stages"), "{layers}");
}
