//! One run: a load on a kernel under a policy, from the mounting of the models to the last answer.

use std::io::Write;

use anyhow::{Result, bail, ensure};
use apps::timeline::Timeline;
use kernel::core::event::ConnId;
use syscalls::Reply;
use syscalls::call::{Mount, Ps, Stat, Subscribe};
use syscalls::client::hello;
use syscalls::reply::{Frame, Stats};

use super::calibration::Device;
use super::fault::{FaultRates, Faults};
use super::load::Load;
use super::measure::Report;
use super::policy;
use super::probe::Probe;
use super::programs::{Programs, World, model_name};
use super::world::Passed;

/// What a load runs on.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The policy, by its name.
    pub policy: String,
    /// What each model runs on.
    pub device: Device,
    /// How many models there are, each with a device and a worker of its own.
    pub models: usize,
    /// What goes wrong.
    pub faults: FaultRates,
    /// The seed of everything that chance decides.
    pub seed: u64,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            policy: policy::DEFAULT.into(),
            device: Device::default(),
            models: 1,
            faults: FaultRates::default(),
            seed: 1,
        }
    }
}

/// The administrator's connection: it mounts, watches and asks for counters.
pub struct Operator {
    conn: ConnId,
}

impl Operator {
    /// Makes a kernel, and mounts its models.
    ///
    /// # Errors
    ///
    /// There is no such policy, or a model is refused.
    pub fn boot(setting: &Setting) -> Result<(World, Operator)> {
        let faults = Faults::new(setting.faults, setting.seed);
        let mut world = World::new(policy::config(&setting.policy)?, setting.seed, faults);
        let conn = world.connect();
        world.finish(conn, None, hello("operator"))?;
        for number in 0..setting.models {
            let path = format!("sim:{}", setting.device.script());
            let mount: Mount =
                serde_json::from_value(serde_json::json!({"path": path, "name": model_name(number)}))?;
            world.finish(conn, None, mount)?;
        }
        Ok((world, Operator { conn }))
    }

    /// The counters of the system.
    ///
    /// # Errors
    ///
    /// The kernel refuses to tell them.
    pub fn stats(&self, world: &mut World) -> Result<Stats> {
        match world.finish(self.conn, None, Stat { pid: None, model: None })? {
            Reply::Stat(stats) => Ok(stats),
            _ => bail!("stat has another reply"),
        }
    }

    /// Device time that processes were charged with, in the order of their numbers in `pids`.
    fn service_us(&self, world: &mut World, programs: &Programs) -> Result<Vec<u64>> {
        let Reply::Processes(list) = world.finish(self.conn, None, Ps { all: false })? else {
            bail!("ps has another reply")
        };
        let by_pid = list.iter().map(|p| (p.pid, p.service_us)).collect::<std::collections::BTreeMap<_, _>>();
        Ok(programs.pids().map(|pid| by_pid.get(&pid).copied().unwrap_or_default()).collect())
    }
}

/// Runs a load to its end, and checks that nothing was lost on the way: every task has ended, and when the clients
/// have gone every frame is free again.
///
/// # Errors
///
/// There is no such policy, something was lost, or the timeline cannot be written.
pub fn run<W: Write>(
    load: &Load,
    setting: &Setting,
    mut timeline: Option<&mut Timeline<W>>,
) -> Result<(Report, Probe)> {
    let (mut world, operator) = Operator::boot(setting)?;
    if timeline.is_some() {
        world.call(operator.conn, None, Subscribe { kinds: vec![], timeout_ms: None });
    }
    let mut programs = Programs::start(&mut world, load, setting.models)?;
    world.probe = Probe::default();
    while let Some(passed) = world.advance() {
        if let Passed::Alarm(alarm) = passed {
            programs.alarm(&mut world, alarm)?;
        }
        while let Some((conn, frame)) = world.heard() {
            match (frame, timeline.as_deref_mut()) {
                (Frame::Event(_, event), Some(timeline)) if conn == operator.conn => timeline.take(&event)?,
                (frame, _) => programs.heard(&mut world, frame),
            }
        }
    }
    ensure!(
        programs.under_way() == 0,
        "{} tasks never end, and nothing is left to happen",
        programs.under_way()
    );
    let probe = world.probe.clone();
    let stats = operator.stats(&mut world)?;
    let service = operator.service_us(&mut world, &programs)?;
    check_conservation(&mut world, &operator, &mut programs)?;
    let report = Report {
        policy: setting.policy.clone(),
        fairness: programs.measure.fairness(&service),
        stats,
        answers: programs.answers,
        failed: programs.failed,
        abandoned: programs.abandoned,
        refused: programs.refused,
        deaths: world.deaths(),
        faults: world.faults().struck(),
        texts: programs.texts,
        measure: programs.measure,
    };
    Ok((report, probe))
}

fn check_conservation(world: &mut World, operator: &Operator, programs: &mut Programs) -> Result<()> {
    world.check_invariants();
    programs.leave(world);
    while world.advance().is_some() {}
    world.check_invariants();
    let left = operator.stats(world)?;
    // What ended contexts leave stays until somebody wants its frames.
    ensure!(
        left.contexts == 0 && left.frames_free + left.frames_cached == left.frames_total,
        "{} contexts are left, and of {} frames {} are free and {} cached",
        left.contexts,
        left.frames_total,
        left.frames_free,
        left.frames_cached
    );
    Ok(())
}
