//! Data parallel: gradients are summed, and the optimiser's state may be divided.

use std::sync::Arc;

use candle_core::DType;
use train::ops::product::Precision;
use train::ranks::{BUCKET_BYTES, Combine, Group, Kind, Message, Numbers, Plans, RankError, Traffic};

use super::proof::{
    BERT, Division, GPT2, LLAMA, MARIAN, SENTENCES, T5, again, difference, division, many, one, prove,
};

fn zero(division: Division) -> Division {
    Division { plans: Plans { zero: true, ..division.plans }, ..division }
}

#[test]
fn two_data_ranks_compute_what_one_process_does() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
        prove(text, division(2, 1, 1));
    }
}

#[test]
fn data_ranks_with_divided_state_compute_what_one_process_does() {
    for text in [GPT2, MARIAN] {
        prove(text, zero(division(2, 1, 1)));
    }
    prove(LLAMA, zero(division(3, 1, 1)));
}

/// The other proofs sum gradients in many buckets, beside which pieces of divided state lie in other places.
#[test]
fn one_bucket_of_all_gradients_computes_what_one_process_does() {
    let with = |bucket_bytes| {
        let two = division(2, 1, 1);
        Division { plans: Plans { bucket_bytes, ..two.plans }, ..two }
    };
    let buckets = |division| many(GPT2, DType::F64, division, |world| world, |team, _| team.buckets()).1;
    let small = division(2, 1, 1).plans.bucket_bytes;
    assert_eq!(buckets(with(BUCKET_BYTES)), [1, 1]);
    assert!(buckets(with(small)).iter().all(|count| *count > 10), "{:?}", buckets(with(small)));
    for text in [GPT2, MARIAN] {
        prove(text, with(BUCKET_BYTES));
        prove(text, zero(with(BUCKET_BYTES)));
    }
}

/// What is inside of a block is computed again by a tape of its own, which does not know who waits for gradients.
#[test]
fn data_ranks_that_compute_blocks_again_compute_what_one_process_does() {
    for text in [GPT2, LLAMA, BERT, MARIAN, T5] {
        prove(text, again(division(2, 1, 1)));
    }
    prove(GPT2, again(zero(division(2, 1, 1))));
}

/// Each sentence is compared with those of all ranks. Of three ranks two have one pair, and one has two.
#[test]
fn pairs_of_sentences_over_data_ranks_compute_what_one_process_does() {
    for division in [division(2, 1, 1), zero(division(3, 1, 1)), division(2, 2, 1)] {
        prove(SENTENCES, division);
    }
    let stages = division(2, 1, 2);
    prove(SENTENCES, Division { plans: Plans { micro_batches: 1, ..stages.plans }, ..stages });
}

#[test]
fn microbatches_of_a_data_rank_change_nothing() {
    let two = division(2, 1, 1);
    prove(GPT2, Division { plans: Plans { micro_batches: 3, ..two.plans }, ..two });
}

/// A ring of n ranks sends 2·(n − 1) times the gradients in all, and no rank more than its share.
#[test]
fn bytes_for_gradients_are_those_of_a_ring() {
    for ranks in [2, 4] {
        for zero in [false, true] {
            let (plain, steps) = (division(ranks, 1, 1), 20);
            let plans = Plans { zero, ..plain.plans };
            let (_, sent) = many(
                GPT2,
                DType::F64,
                Division { plans, ..plain },
                |world| world,
                |team, model| (team.reduced(), team.mesh().sent()[0], model.parameters().counts().1 as u64),
            );
            let gradients = sent[0].2 * 8;
            let all: u64 = sent.iter().map(|(reduced, ..)| reduced.total()).sum();
            let times = (ranks as u64 - 1) * steps;
            let kind = if zero { Kind::ReduceScatter } else { Kind::AllReduce };
            let rounds = if zero { 1 } else { 2 };
            assert_eq!(all, rounds * times * gradients, "{ranks} ranks");
            assert_eq!(sent.iter().map(|(reduced, ..)| reduced.of(kind)).sum::<u64>(), all);
            let even = all / ranks as u64;
            assert!(
                sent.iter().all(|(reduced, ..)| reduced.total().abs_diff(even) < even / 100 + 64 * steps)
            );
            let gathered: u64 = sent.iter().map(|(_, data, _)| data.of(Kind::AllGather)).sum();
            // Parameters after every step, and two tensors of state at the end.
            assert_eq!(gathered, if zero { (times + 2 * (ranks as u64 - 1)) * gradients } else { 0 });
        }
    }
}

#[test]
fn divided_state_takes_its_share_of_memory() {
    for (text, ranks) in [(GPT2, 2), (LLAMA, 4)] {
        let look = |team: &train::ranks::Team, model: &dyn train::Model| {
            ((team.optimised(model.parameters()), model.parameters().counts().1), team.buckets())
        };
        let (_, seen) = many(text, DType::F64, zero(division(ranks, 1, 1)), |world| world, look);
        let (counts, buckets): (Vec<_>, Vec<usize>) = seen.into_iter().unzip();
        let all = counts[0].1;
        assert_eq!(counts.iter().map(|(own, _)| own).sum::<usize>(), all);
        // Of each bucket a rank may have one number more than another.
        let most = buckets[0];
        assert!(counts.iter().all(|(own, _)| own.abs_diff(all / ranks) <= most), "{counts:?} of {all}");
    }
}

/// A rank whose messages are wrong by a millionth in one number.
#[derive(Debug)]
struct Corrupted(Arc<dyn Group>);

impl Group for Corrupted {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn all_reduce(&self, mut numbers: Numbers<'_>, combine: Combine) -> Result<(), RankError> {
        // Gradients are the only long ones.
        match &mut numbers {
            Numbers::F64(numbers) if numbers.len() > 100 => numbers[17] += 1e-6,
            _ => {}
        }
        self.0.all_reduce(numbers, combine)
    }

    fn reduce_scatter(&self, numbers: Numbers<'_>) -> Result<(), RankError> {
        self.0.reduce_scatter(numbers)
    }

    fn all_gather(&self, numbers: Numbers<'_>) -> Result<(), RankError> {
        self.0.all_gather(numbers)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<(), RankError> {
        self.0.broadcast(bytes, root)
    }

    fn send(&self, to: usize, message: Message) -> Result<(), RankError> {
        self.0.send(to, message)
    }

    fn receive(&self, from: usize) -> Result<Message, RankError> {
        self.0.receive(from)
    }

    fn split(&self, colour: usize) -> Result<Arc<dyn Group>, RankError> {
        Ok(Arc::new(Corrupted(self.0.split(colour)?)))
    }

    fn sent(&self) -> Traffic {
        self.0.sent()
    }
}

#[test]
fn one_wrong_number_in_one_ranks_gradient_is_seen() {
    let wrap = |world: Arc<dyn Group>| -> Arc<dyn Group> {
        if world.rank() == 1 { Arc::new(Corrupted(world)) } else { world }
    };
    let (got, _) = many(GPT2, DType::F64, division(2, 1, 1), wrap, |_, _| ());
    let (away, _) = difference(&one(GPT2, DType::F64, 1.0, Precision::Full), &got);
    assert!(away > 1e-9, "the proofs would not see it: {away:e}");
}
