//! Twenty steps of every model whose operations are composed, beside the kernels: losses, norms, weights and what the
//! optimiser remembers. On the CPU, so that nothing but a device itself is missing.

use train::ops::Kernels;
use train::ranks::Plans;

use super::proof::*;

/// The same with composed operations.
fn composed(division: Division) -> Division {
    Division { how: How { kernels: Kernels::Composed, ..division.how }, ..division }
}

#[test]
fn composed_operations_train_every_model_as_the_kernels_do() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5, SENTENCES] {
        prove(text, composed(division(1, 1, 1)));
    }
}

#[test]
fn composed_operations_that_are_computed_again_train_as_the_kernels_do() {
    for text in [GPT2, LLAMA, T5] {
        prove(text, composed(again(division(1, 1, 1))));
    }
}

#[test]
fn composed_adapters_are_trained_as_the_kernels_train_them() {
    prove(&adapted(LLAMA), composed(division(1, 1, 1)));
}

#[test]
fn composed_operations_in_mixed_precision_round_as_the_kernels_do() {
    for text in [GPT2, LLAMA, BERT] {
        prove_mixed(text, composed(division(1, 1, 1)));
    }
}

#[test]
fn composed_operations_train_over_ranks_of_every_kind() {
    for (text, division) in [
        (GPT2, division(2, 1, 1)),
        (LLAMA, division(1, 2, 1)),
        (T5, division(1, 1, 2)),
        (BERT, division(2, 2, 1)),
        (MARIAN, division(1, 2, 2)),
        (SENTENCES, division(2, 1, 1)),
    ] {
        prove(text, composed(division));
    }
    let whole = division(2, 1, 1);
    prove(GPT2, composed(Division { plans: Plans { zero: true, ..whole.plans }, ..whole }));
}
