//! Pipeline parallel, and the product of all three.

use candle_core::DType;
use train::ranks::{Kind, PipelineSchedule, Plans};

use super::proof::{
    BERT, Division, GPT2, LLAMA, MARIAN, ROWS, T5, again, division, many, prove, prove_in, prove_mixed,
};

fn gpipe(division: Division) -> Division {
    Division { plans: Plans { schedule: PipelineSchedule::GPipe, ..division.plans }, ..division }
}

#[test]
fn two_stages_compute_what_one_process_does() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
        prove(text, division(1, 1, 2));
    }
}

/// More stages than two: one in the middle has neither end, and of an encoder-decoder the table of tokens is on three.
#[test]
fn more_stages_compute_what_one_process_does() {
    for text in [GPT2, T5] {
        prove(text, division(1, 1, 4));
    }
    prove(MARIAN, gpipe(division(1, 1, 3)));
}

#[test]
fn eight_ranks_of_all_three_kinds_compute_what_one_process_does() {
    let eight = division(2, 2, 2);
    for text in [GPT2, LLAMA] {
        prove(text, eight);
    }
    for text in [BERT, MARIAN, T5] {
        prove(text, Division { plans: Plans { zero: true, ..eight.plans }, ..gpipe(eight) });
    }
}

#[test]
fn stages_that_compute_blocks_again_compute_what_one_process_does() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
        prove(text, again(division(1, 1, 2)));
    }
    let eight = division(2, 2, 2);
    prove(LLAMA, again(eight));
    prove(MARIAN, again(Division { plans: Plans { zero: true, ..eight.plans }, ..gpipe(eight) }));
}

#[test]
fn ranks_compute_in_mixed_precision_what_one_process_does() {
    for division in [division(2, 1, 1), division(1, 2, 1), division(1, 1, 2), division(2, 2, 2)] {
        for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
            prove_mixed(text, division);
        }
    }
}

#[test]
fn ranks_compute_in_f32_what_one_process_does() {
    for division in [division(2, 1, 1), division(1, 2, 1), division(1, 1, 2), division(2, 2, 2)] {
        prove_in(DType::F32, 1e-4, GPT2, division);
        prove_in(DType::F32, 1e-4, LLAMA, division);
    }
}

#[test]
fn activations_in_flight_are_no_more_than_stages() {
    for stages in [2, 3, 4] {
        let staged = division(1, 1, stages);
        let plans = Plans { micro_batches: 8, ..staged.plans };
        let kept =
            |plans| many(GPT2, DType::F64, Division { plans, ..staged }, |w| w, |team, _| team.kept()).1;
        let one_by_one = kept(plans);
        assert!(one_by_one.iter().enumerate().all(|(stage, kept)| *kept == stages - stage), "{one_by_one:?}");
        assert_eq!(kept(Plans { schedule: PipelineSchedule::GPipe, ..plans }), vec![8; stages]);
    }
}

#[test]
fn bytes_between_stages_are_activations_and_their_gradients() {
    let (width, length, steps) = (16, 6, 20);
    let (_, sent) =
        many(GPT2, DType::F64, division(1, 1, 3), |w| w, |team, _| team.mesh().sent()[2].of(Kind::Send));
    let one_way = (ROWS * length * width * steps * 8) as u64;
    assert_eq!(sent, [one_way, 2 * one_way, one_way]);
}

#[test]
fn parameters_of_stages_are_those_of_their_layers() {
    let (_, counts) = many(
        LLAMA,
        DType::F64,
        division(1, 1, 2),
        |w| w,
        |_, model| {
            let names: Vec<String> = model.parameters().iter().map(|p| p.name().to_owned()).collect();
            let layer = |number: usize| names.iter().any(|name| name.contains(&format!("layers.{number}.")));
            ([0, 1, 2, 3].map(layer), model.parameters().counts().0)
        },
    );
    assert_eq!(counts[0].0, [true, true, false, false]);
    assert_eq!(counts[1].0, [false, false, true, true]);
    // The table of tokens and the output layer are equally large; the last stage has the last norm besides.
    assert_eq!(counts[0].1 + 16, counts[1].1);
}
