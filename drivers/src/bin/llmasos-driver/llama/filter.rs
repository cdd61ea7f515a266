//! The filters between logits and a choice: top-k, top-p, min-p and temperature, in this order, as llama.cpp has
//! them. They work on the row of logits and never build an array of the whole vocabulary unless all of it is asked
//! for, and they break ties by the order of the vocabulary, so that the same logits always give the same choice.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use drivers::wire::SamplingSpec;
use syscalls::Token;

/// How many candidates top-p looks at first where top-k leaves all; it looks at eight times as many until the
/// mass is reached.
const NUCLEUS_FIRST: usize = 256;

/// A token that may be chosen. The greater one is likelier, or earlier in the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub logit: f32,
    pub token: Token,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.logit.total_cmp(&other.logit).then(other.token.cmp(&self.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Chooses with a random number in 0..1. None where no logit is a possible one.
pub fn pick(logits: &[f32], sampling: &SamplingSpec, random: f64) -> Option<Token> {
    if sampling.temperature <= 0.0 {
        return likeliest(logits);
    }
    let kept = filter(logits, sampling);
    let best = kept.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
    let weight =
        |candidate: &Candidate| (f64::from(candidate.logit - best) / f64::from(sampling.temperature)).exp();
    let mut left = random * kept.iter().map(weight).sum::<f64>();
    for candidate in &kept {
        left -= weight(candidate);
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    kept.last().map(|candidate| candidate.token)
}

/// The first of the greatest logits.
fn likeliest(logits: &[f32]) -> Option<Token> {
    let best = greatest(logits);
    if best == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|logit| *logit == best).map(|at| Token(at as u32))
}

/// The greatest logit, or minus infinity where none is a number. In lanes, so that the compiler makes vector
/// instructions of it: a row of logits has 150,000 of them, once for each token.
fn greatest(logits: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; 32];
    let (chunks, rest) = logits.as_chunks::<32>();
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *logit);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, greater)
}

/// Natural logarithms of probabilities, by logits of this row. Of what is impossible or no number it is the least that
/// there is, since replies have no form for what is not finite.
pub fn likelihood(logits: &[f32]) -> impl Fn(f32) -> f32 + use<> {
    let best = greatest(logits);
    let mass: f64 = possible(logits).map(|candidate| f64::from(candidate.logit - best).exp()).sum();
    let total = f64::from(best) + mass.ln();
    move |logit| ((f64::from(logit) - total) as f32).max(f32::MIN)
}

/// What top-k, top-p and min-p leave: at least the likeliest, if anything is possible.
fn filter(logits: &[f32], sampling: &SamplingSpec) -> Vec<Candidate> {
    let mut kept = match sampling.top_k {
        0 => possible(logits).collect(),
        k => top(logits, k as usize),
    };
    if sampling.top_p < 1.0 {
        keep_nucleus(&mut kept, sampling.top_p);
    }
    if sampling.min_p > 0.0 {
        let best = kept.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
        let least = best + sampling.min_p.min(1.0).ln();
        kept.retain(|candidate| candidate.logit >= least);
    }
    kept
}

fn possible(logits: &[f32]) -> impl Iterator<Item = Candidate> {
    (logits.iter().enumerate())
        .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
        .map(|(id, logit)| Candidate { logit: *logit, token: Token(id as u32) })
}

/// The `k` likeliest, likeliest first.
pub fn top(logits: &[f32], k: usize) -> Vec<Candidate> {
    let mut heap = BinaryHeap::with_capacity(k.min(logits.len()) + 1);
    let mut least = f32::NEG_INFINITY;
    for (id, logit) in logits.iter().enumerate() {
        // Equal logits keep the earlier token; this also leaves out what is no number.
        if *logit > least {
            heap.push(std::cmp::Reverse(Candidate { logit: *logit, token: Token(id as u32) }));
            if heap.len() > k {
                heap.pop();
            }
            if heap.len() == k {
                least = heap.peek().map_or(least, |least| least.0.logit);
            }
        }
    }
    heap.into_sorted_vec().into_iter().map(|candidate| candidate.0).collect()
}

/// Keeps the smallest set whose probabilities sum to `mass`, likeliest first.
fn keep_nucleus(kept: &mut Vec<Candidate>, mass: f32) {
    let Some(best) = kept.iter().max().map(|candidate| candidate.logit) else { return };
    let weight = |candidate: &Candidate| f64::from(candidate.logit - best).exp();
    let wanted = f64::from(mass) * kept.iter().map(weight).sum::<f64>();
    let mut sorted = NUCLEUS_FIRST;
    loop {
        let all = sorted >= kept.len();
        if !all {
            kept.select_nth_unstable_by(sorted, |a, b| b.cmp(a));
        }
        let front = sorted.min(kept.len());
        kept[..front].sort_unstable_by(|a, b| b.cmp(a));
        let mut sum = 0.0;
        let within = kept[..front].iter().position(|candidate| {
            sum += weight(candidate);
            sum >= wanted
        });
        if let Some(last) = within {
            return kept.truncate(last + 1);
        }
        if all {
            return;
        }
        sorted *= 8;
    }
}

/// The random number in 0..1 for the choice of token number `n` (splitmix64, as a hash of seed and count).
pub fn uniform(seed: u64, n: u64) -> f64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = (seed ^ n.wrapping_mul(STEP)).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(change: impl FnOnce(&mut SamplingSpec)) -> SamplingSpec {
        let mut sampling = SamplingSpec::new(&syscalls::call::Sampling::default(), 7);
        change(&mut sampling);
        sampling
    }

    /// Logits without an order, with some equal ones and some impossible ones.
    fn logits(count: u32) -> Vec<f32> {
        (0..count)
            .map(|at| match at % 11 {
                0 => f32::NEG_INFINITY,
                1 => 3.0,
                _ => (uniform(5, at.into()) * 12.0) as f32 - 4.0,
            })
            .collect()
    }

    #[test]
    fn likeliest_is_the_first_of_the_greatest_and_never_what_is_no_number() {
        for count in [1, 5, 32, 33, 1000] {
            let mut logits = logits(count);
            logits.push(f32::NAN);
            logits.extend([20.0, 20.0, f32::NAN]);
            assert_eq!(likeliest(&logits), Some(Token(count + 1)));
        }
        assert_eq!(likeliest(&[f32::NEG_INFINITY, f32::NAN]), None);
        assert_eq!(pick(&[f32::NEG_INFINITY, f32::NAN], &sampling(|_| {}), 0.5), None);
    }

    #[test]
    fn likelihood_of_what_is_no_number_is_finite() {
        let of = likelihood(&[1.0, f32::NAN, f32::NEG_INFINITY, 1.0]);
        assert!((of(1.0) - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!([of(f32::NAN), of(f32::NEG_INFINITY)], [f32::MIN; 2]);
    }

    #[test]
    fn top_is_what_sorting_all_would_give() {
        let logits = logits(500);
        let mut sorted: Vec<_> = possible(&logits).collect();
        sorted.sort_by(|a, b| b.cmp(a));
        for k in [1, 2, 40, 400, 1000] {
            assert_eq!(top(&logits, k), sorted[..k.min(sorted.len())], "k = {k}");
        }
    }

    #[test]
    fn nucleus_is_the_same_however_many_candidates_are_sorted_first() {
        let logits = logits(5000);
        for mass in [0.1, 0.5, 0.9, 0.999] {
            let mut few: Vec<_> = possible(&logits).collect();
            keep_nucleus(&mut few, mass);
            let mut all = top(&logits, logits.len());
            let weight = |c: &Candidate| f64::from(c.logit).exp();
            let total: f64 = all.iter().map(weight).sum();
            let mut sum = 0.0;
            let last = all.iter().position(|candidate| {
                sum += weight(candidate) / total;
                sum >= f64::from(mass)
            });
            all.truncate(last.expect("the mass is below 1") + 1);
            assert_eq!(few, all, "mass {mass}");
        }
    }

    #[test]
    fn choices_follow_the_probabilities() {
        let logits = [1.0f32.ln(), 2.0f32.ln(), 5.0f32.ln(), f32::NEG_INFINITY];
        let plain = sampling(|s| (s.temperature, s.top_k, s.top_p, s.min_p) = (1.0, 0, 1.0, 0.0));
        let mut counts = [0i32; 4];
        for n in 0..8000 {
            let token = pick(&logits, &plain, uniform(3, n)).expect("a choice");
            counts[token.0 as usize] += 1;
        }
        for (count, expected) in counts.iter().zip([1000, 2000, 5000, 0]) {
            assert!((count - expected).abs() < 200, "{counts:?}");
        }
        let filtered = sampling(|s| (s.temperature, s.top_k, s.top_p, s.min_p) = (1.0, 0, 1.0, 0.3));
        assert_eq!(filter(&logits, &filtered).len(), 2, "one of five is below three tenths");
    }
}
