//! What a second rank of one thread is worth beside one of them, and what two that do not wait for each other would be:
//! tokens per second of data-parallel training, measured in alternation.
//!
//!     cargo run --release -p llmasos-train --example ranks

mod shapes;

use std::sync::Arc;
use std::time::Instant;

use candle_core::DType;
use train::models::build_on;
use train::optim::{Adam, Optimiser};
use train::random::Philox;
use train::ranks::{BUCKET_BYTES, Group, Layout, Mesh, PipelineSchedule, Plans, Team, on_threads};
use train::{Batch, Gradients, Pass};

use shapes::{SHAPES, Sizes, config};

/// Measurements of each, and the tokens that a rank computes in one.
const ROUNDS: usize = 9;
const TOKENS: usize = 12_288;

/// Steps before the clock runs: they find caches cold.
const COLD: u64 = 2;

/// What runs at a time.
#[derive(Clone, Copy)]
enum Ranks {
    One,
    /// Two that sum their gradients.
    Together,
    /// Two that know nothing of each other: what the machine has to give.
    Apart,
}

fn main() {
    train::memory::keep();
    for (name, shape) in &SHAPES[..2] {
        let mut rates = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (rates, ranks) in rates.iter_mut().zip([Ranks::One, Ranks::Together, Ranks::Apart]) {
                rates.push(rate(*shape, ranks));
            }
        }
        let [one, two, apart] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        println!(
            "{name}: 1 rank {one:.0} tokens/s, 2 ranks {two:.0}, {:.2} times; 2 apart {apart:.0}, {:.2} times (medians of {ROUNDS})",
            two / one,
            apart / one
        );
    }
}

/// Tokens per second over ranks of one thread, each with all rows of the shape.
fn rate(sizes: Sizes, ranks: Ranks) -> f64 {
    match ranks {
        Ranks::One => of(on_threads(1, 1, |world| run(sizes, world))),
        Ranks::Together => of(on_threads(2, 1, |world| run(sizes, world))) * 2.0,
        Ranks::Apart => std::thread::scope(|scope| {
            let alone = || scope.spawn(|| of(on_threads(1, 1, |world| run(sizes, world))));
            [alone(), alone()].map(|rank| rank.join().expect("no rank panics")).iter().sum()
        }),
    }
}

/// The rate of the slowest rank.
fn of(ends: Vec<std::thread::Result<train::Result<f64>>>) -> f64 {
    let rates = ends.into_iter().map(|end| end.expect("no rank panics").expect("no rank fails"));
    rates.fold(f64::INFINITY, f64::min)
}

/// Tokens per second of this rank.
fn run(sizes: Sizes, world: Arc<dyn Group>) -> train::Result<f64> {
    let ranks = world.size();
    let [vocabulary, .., length, rows] = sizes;
    let source = Philox::new(1);
    let token = |i: u64| (source.integer(i) % vocabulary as u64) as u32;
    let count = rows * ranks * length;
    let tokens: Vec<u32> = (0..count as u64).map(token).collect();
    let targets = (1..=count as u64).map(|i| token(i) as i32).collect();
    let batch = Batch::next_token(tokens, targets, length);
    let mesh = Mesh::new(world, Layout { data: ranks, ..Layout::ONE })?;
    let model = build_on(&mesh, &config(sizes), DType::F32, 1)?;
    let schedule = PipelineSchedule::default();
    let plans = Plans { micro_batches: 1, schedule, zero: false, bucket_bytes: BUCKET_BYTES };
    let mut team = Team::new(mesh, plans, model.parameters())?;
    let own = team.share(vec![batch])?;
    let mut gradients = Gradients::new(model.parameters())?;
    let mut adam = Adam::decoupled([0.9, 0.99], 1e-8, 0.1);
    let steps = (TOKENS / (rows * length)).max(1) as u64;
    let mut begun = Instant::now();
    for step in 0..COLD + steps {
        if step == COLD {
            team.mesh().world().barrier()?;
            begun = Instant::now();
        }
        let pass = Pass { denominator: Some(count as f64), ..Pass::training(1, step) };
        team.gradients(model.as_ref(), &own, &pass, &mut gradients, |_| {})?;
        team.clip(model.parameters(), &mut gradients, 1.0)?;
        team.step(&mut adam as &mut dyn Optimiser, model.parameters(), &gradients, 1e-3)?;
        gradients.clear();
    }
    team.mesh().world().barrier()?;
    Ok((steps as usize * rows * length) as f64 / begun.elapsed().as_secs_f64())
}
