//! Steps that the kernel takes back while they run.

use std::time::{Duration, Instant};

use super::*;

/// How long a pass may take to begin on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(120);

fn prompt(seed: u32) -> Vec<Token> {
    (0..600).map(|at| Token(40 + (at * 37 + seed) % 200)).collect()
}

/// Two sequences, one with a beginning, whose rows make more than one graph.
fn step(number: u64) -> Step {
    let ops = vec![Op::SamplerOpen { asid: Asid(0), sampler: spec(sampling(|_| {})).into() }];
    let rows = vec![
        Row { tokens: prompt(1).into(), ..row(0, 3, &[]) },
        Row { sample: false, tokens: prompt(2).into(), ..row(1, 0, &[]) },
    ];
    Step { number, ops, rows }
}

fn driver() -> Box<dyn Driver> {
    let mut driver =
        load(&LoadRequest { context_tokens: Some(1300), ..request(&random_model("tiny")) }).unwrap();
    run(driver.as_mut(), vec![], vec![Row { sample: false, ..row(0, 0, &[41, 42, 43]) }]);
    driver
}

/// Runs the step, withdrawing it after some looks at whether it runs.
fn run_and_withdraw(driver: &mut dyn Driver, number: u64, looks: u32) -> StepDone {
    let withdrawal = driver.withdrawal().unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let deadline = Instant::now() + DEADLINE;
            while withdrawal.running() != Some(number) {
                assert!(Instant::now() < deadline, "the step never began");
                std::thread::yield_now();
            }
            (0..looks).for_each(|_| std::thread::yield_now());
            withdrawal.withdraw(number);
        });
        driver.step(&step(number)).unwrap()
    })
}

#[test]
fn step_withdrawn_at_any_moment_leaves_everything_as_before() {
    let mut driver = driver();
    let expected = self::driver().step(&step(1)).unwrap().rows;
    assert!(matches!(expected[0], RowDone::Sampled(_)), "{expected:?}");
    let mut withdrawn = 0;
    for number in 2..40 {
        let done = run_and_withdraw(driver.as_mut(), number, (number as u32 - 2) * 40);
        if done.rows == [RowDone::Withdrawn, RowDone::Withdrawn] {
            withdrawn += 1;
        } else {
            // It was through before it was withdrawn.
            assert_eq!(done.rows, expected);
            let ops = vec![Op::Drop { asid: Asid(0), from: 3 }, Op::Drop { asid: Asid(1), from: 0 }];
            run(driver.as_mut(), ops, vec![]);
        }
        // The pool has room for the step once, so nothing of it may be left.
        assert_eq!(driver.step(&step(1000 + number)).unwrap().rows, expected, "after step {number}");
        let ops = vec![Op::Drop { asid: Asid(0), from: 3 }, Op::Drop { asid: Asid(1), from: 0 }];
        run(driver.as_mut(), ops, vec![]);
    }
    assert!(withdrawn > 0, "no step was stopped");
}

#[test]
fn step_withdrawn_before_it_begins_is_not_run_and_its_operations_are_done() {
    let mut driver = driver();
    driver.withdrawal().unwrap().withdraw(7);
    let done = driver.step(&Step {
        ops: vec![Op::Drop { asid: Asid(0), from: 1 }],
        ..Step { number: 7, ..Step::default() }
    });
    assert_eq!(done.unwrap().rows, []);
    let rows = vec![Row { sample: false, ..row(0, 1, &[42]) }];
    driver.withdrawal().unwrap().withdraw(8);
    let done = driver.step(&Step { number: 8, ops: vec![], rows: rows.clone() }).unwrap();
    assert_eq!(done.rows, [RowDone::Withdrawn]);
    let done = driver.step(&Step { number: 9, ops: vec![], rows }).unwrap();
    assert_eq!(done.rows, [RowDone::Computed], "the withdrawal of step 8 is not one of step 9");
}
