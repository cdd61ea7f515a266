//! What a second rank of one thread is worth beside one of them: tokens per second of data-parallel training, measured in
//! alternation.
//!
//!     cargo run --release -p llmasos-train --example ranks

mod shapes;

use std::time::Instant;

use candle_core::DType;
use train::models::build_on;
use train::optim::{Adam, Optimiser};
use train::random::Philox;
use train::ranks::{Layout, Mesh, PipelineSchedule, Plans, Team, on_threads};
use train::{Batch, Gradients, Pass};

use shapes::{SHAPES, Sizes, config};

/// Measurements of each, of so many steps.
const ROUNDS: usize = 5;
const STEPS: u64 = 8;

fn main() {
    train::memory::keep();
    for (name, shape) in &SHAPES[..2] {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (rates, ranks) in rates.iter_mut().zip([1, 2]) {
                rates.push(rate(*shape, ranks));
            }
        }
        let [one, two] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        println!(
            "{name}: 1 rank {one:.0} tokens/s, 2 ranks {two:.0}, {:.2} times (medians of {ROUNDS})",
            two / one
        );
    }
}

/// Tokens per second over so many ranks of one thread, each with all rows of the shape.
fn rate(sizes: Sizes, ranks: usize) -> f64 {
    let config = config(sizes);
    let [vocabulary, .., length, rows] = sizes;
    let source = Philox::new(1);
    let token = |i: u64| (source.integer(i) % vocabulary as u64) as u32;
    let count = rows * ranks * length;
    let batch = || {
        let tokens: Vec<u32> = (0..count as u64).map(token).collect();
        let targets = (1..=count as u64).map(|i| token(i) as i32).collect();
        Batch::next_token(tokens, targets, length)
    };
    let rank = |world| -> train::Result<f64> {
        let mesh = Mesh::new(world, Layout { data: ranks, ..Layout::ONE })?;
        let model = build_on(&mesh, &config, DType::F32, 1)?;
        let plans = Plans { micro_batches: 1, schedule: PipelineSchedule::default(), zero: false };
        let mut team = Team::new(mesh, plans, model.parameters())?;
        let mut gradients = Gradients::new(model.parameters())?;
        let mut adam = Adam::decoupled([0.9, 0.99], 1e-8, 0.1);
        let mut begun = Instant::now();
        for step in 0..STEPS + 2 {
            // The first steps find caches cold.
            if step == 2 {
                team.mesh().world().barrier()?;
                begun = Instant::now();
            }
            let batches = team.share(vec![batch()])?;
            let pass = Pass { denominator: Some(count as f64), ..Pass::training(1, step) };
            team.gradients(model.as_ref(), &batches, &pass, &mut gradients, |_| {})?;
            team.clip(model.parameters(), &mut gradients, 1.0)?;
            team.step(&mut adam as &mut dyn Optimiser, model.parameters(), &gradients, 1e-3)?;
            gradients.clear();
        }
        team.mesh().world().barrier()?;
        Ok((STEPS as usize * count) as f64 / begun.elapsed().as_secs_f64())
    };
    let ends = on_threads(ranks, 1, rank);
    let rates = ends.into_iter().map(|end| end.expect("no rank panics").expect("no rank fails"));
    rates.fold(f64::INFINITY, f64::min)
}
