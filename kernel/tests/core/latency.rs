//! The latency target: a long prompt beside generators.

use kernel::core::KernelConfig;
use syscalls::CallId;
use syscalls::call::*;

use crate::machine::{ADMIN, Machine, generate};

/// Attention that grows with depth: the 8,000th token of a prompt takes five times as long as the first.
const STEP_US: u64 = 9000;
const ROW_US: u64 = 1000;
const TOKEN_US: u64 = 100;
const DEPTH_NS: u64 = 50;

fn script() -> String {
    format!(
        "step_us={STEP_US},row_us={ROW_US},token_us={TOKEN_US},depth_ns={DEPTH_NS},pool=65536,context=16384"
    )
}

/// How long a prompt takes at best if each step may take so long, by somebody who knows all costs.
fn best_us(prompt: u64, decode_us: u64, step_us: u64) -> u64 {
    let (mut at, mut us) = (0, 0);
    while at < prompt {
        let chunk_us = |n: u64| ROW_US + n * TOKEN_US + (n * at + n * n / 2) * DEPTH_NS / 1000;
        let chunk = (1..=2048).take_while(|n| decode_us + chunk_us(*n) <= step_us).last().unwrap_or(1);
        let chunk = chunk.min(prompt - at);
        us += decode_us + chunk_us(chunk);
        at += chunk;
    }
    us
}

#[test]
fn long_prompt_beside_generators_keeps_the_target_and_gets_on() {
    for percent in [150, 200, 300] {
        let config = KernelConfig { latency_target_percent: percent, ..KernelConfig::default() };
        let mut machine = Machine::new(config);
        let conn = machine.connect(ADMIN);
        machine.mount(conn, "m", &script()).expect("it mounts");
        let generators: Vec<_> = (0..4).map(|_| machine.connect(ADMIN)).collect();
        for (n, conn) in generators.iter().enumerate() {
            machine.endless(*conn, &format!("generator {n} {}", "x".repeat(100)));
        }
        for _ in 0..300 {
            machine.turn();
        }
        let before = machine.now;
        machine.turn();
        let normal_us = machine.now - before;
        let arriving = machine.connect(ADMIN);
        let long = machine.open_with(arriving, &"p".repeat(8000));
        let (begin, first_step) = (machine.now, machine.steps.len());
        let call: CallId = machine.begin(arriving, generate(long, 1));
        let mut gaps = Vec::new();
        while machine.reply(arriving, call).is_none() {
            let before = machine.now;
            assert!(machine.turn());
            gaps.push(machine.now - before);
        }
        let beside = machine.steps[first_step..].iter().filter(|step| step.rows.len() >= 4).count();
        assert!(beside >= gaps.len() - 3, "the generators had part in {beside} of {} steps", gaps.len());
        let target_us = normal_us * u64::from(percent) / 100;
        let worst = gaps.iter().max().copied().unwrap_or(0);
        assert!(
            worst <= target_us * 5 / 4,
            "at {percent} %: a gap of {worst} µs where {normal_us} are normal"
        );
        let late = gaps.iter().filter(|gap| **gap > target_us * 11 / 10).count();
        assert!(late * 20 <= gaps.len(), "at {percent} %: {late} of {} gaps are too long", gaps.len());
        let (took, best) = (machine.now - begin, best_us(8000, normal_us, target_us));
        eprintln!(
            "{percent} %: worst gap {worst} of {target_us} µs, the prompt took {took} µs, {best} at best"
        );
        assert!(took <= best * 5 / 4, "at {percent} %: the prompt took {took} µs where {best} do");
    }
}

#[test]
fn prompt_of_a_higher_class_does_not_wait_for_the_target() {
    let (mut machine, batch) = Machine::with_model(&script());
    let pid = machine.pid(batch);
    let class = Some(Class::Batch);
    machine.call(batch, Setpriority { pid, class, nice: None }).expect("anybody may");
    machine.endless(batch, "generates for nobody");
    for _ in 0..50 {
        machine.turn();
    }
    let watched = machine.connect_as(ADMIN, Class::Interactive, 0);
    let context = machine.open_with(watched, &"p".repeat(2000));
    let begin = machine.now;
    let call = machine.begin(watched, generate(context, 1));
    machine.finish(watched, call).expect("it ends");
    let took = machine.now - begin;
    let alone = STEP_US + ROW_US + 2000 * TOKEN_US + 2000 * 1000 * DEPTH_NS / 1000;
    assert!(took < alone * 5 / 4 + 20_000, "{took} µs where {alone} would do alone");
}
