//! A soak: clients that do anything at random for as long as one likes, on a daemon whose workers are killed and whose
//! models come and go meanwhile; and what is left of it all when they rest.
//!
//! Time is cut into rounds. In each, every client works through operations that chance chooses and ends as it happens to,
//! in the midst of a generation as often as not. Then all is quiet: what outlives its process is removed, and frames,
//! contexts, processes, descriptors, children and memory are counted. Growth is how much more memory the last quarter of
//! the rounds rests at than the second: the first one warms up caches and the allocator. What is bounded and comes slowly
//! is filled before the first round ([`fill`]): what databases keep in memory of all that was written to them, and what
//! the kernel knows of each page in the swap area, which is small here.

mod client;
mod fill;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use syscalls::call::{Discard, Snapshots, StoreDelete, StoreList, Unshare};
use syscalls::client::blocking::Client;
use syscalls::reply::{ModelInfo, ModelState, Stats};
use syscalls::{Reply, Tokens};

use crate::sim::chance::Chance;
use crate::{DEADLINE, Daemon, process, starter, wait_until};
use client::Busy;

/// Models that are there all the time: a real one, and two without weights whose memory is short.
const MODELS: [&str; 3] = ["starter", "tight", "slow"];
const TIGHT: &str = "context=512,pool=1024,sequences=8";
const SLOW: &str = "row_us=300,context=1024,pool=4096";

/// Bytes of the tiers of the swap area.
const SWAP_HOST: u64 = 1 << 20;
const SWAP_DISK: u64 = 4 << 20;

/// One that comes and goes.
const PASSING: &str = "passing";

/// The store that clients write to.
const STORE: &str = "soak";

/// How long ends that are under way take to be through at most when all have left, on a machine that has little else to
/// do. They are waited for longer where it is known what they should come to.
const SETTLE: Duration = Duration::from_secs(5);

/// Between two things that happen to workers and models.
const TROUBLE_EVERY: Duration = Duration::from_millis(700);

/// How long, and with how many.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub time: Duration,
    pub rounds: usize,
    pub clients: usize,
    /// Whether what is bounded and comes slowly is filled before the first round.
    pub fill: bool,
    pub seed: u64,
}

/// What a soak came to.
#[derive(Debug, Default)]
pub struct Report {
    /// By name, how often an operation succeeded, and how often it was refused.
    pub operations: BTreeMap<&'static str, (u64, u64)>,
    pub workers_killed: u64,
    pub mounts: u64,
    pub tokens: u64,
    /// Resident memory of the daemon at each rest, in KiB.
    pub resident_kib: Vec<u64>,
    /// Pages in the swap area before the first round, and at each rest.
    pub pages: Vec<u64>,
    /// What was still there at a rest and should not have been; empty where all is well.
    pub leaks: Vec<String>,
}

impl Report {
    /// By how much more memory the daemon rests at in the last quarter of the rounds than in the second, in percent.
    pub fn growth_percent(&self) -> f64 {
        let quarter = (self.resident_kib.len() / 4).max(1);
        let mean = |rests: &[u64]| rests.iter().sum::<u64>() as f64 / rests.len() as f64;
        let early = mean(&self.resident_kib[quarter..(2 * quarter).min(self.resident_kib.len())]);
        let late = mean(&self.resident_kib[self.resident_kib.len() - quarter..]);
        (late / early - 1.0) * 100.0
    }

    /// Operations in all that were done, and those that were refused.
    pub fn totals(&self) -> (u64, u64) {
        self.operations.values().fold((0, 0), |(done, refused), (d, r)| (done + d, refused + r))
    }

    /// What keeps the soak from saying anything: operations that were refused each time, or most of all. A daemon that does
    /// nothing leaves nothing.
    pub fn untried(&self) -> Vec<String> {
        let (done, refused) = self.totals();
        let mostly = (done <= refused).then(|| format!("{refused} operations were refused, and {done} done"));
        let never = self.operations.iter().filter(|(_, (done, _))| *done == 0);
        never
            .map(|(name, (_, refused))| format!("{name} was refused {refused} times, and never done"))
            .chain(mostly)
            .collect()
    }
}

/// What there is of everything when nobody does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    contexts: u64,
    frames_taken: u64,
    processes: u64,
    files: usize,
    children: usize,
}

impl Level {
    /// Whether there is more of anything than there was.
    fn exceeds(&self, other: &Level) -> bool {
        self.contexts > other.contexts
            || self.frames_taken > other.frames_taken
            || self.processes > other.processes
            || self.files > other.files
            || self.children > other.children
    }
}

/// Runs a soak.
///
/// # Panics
///
/// The daemon dies, does not come to rest, or answers what it should not.
pub fn run(setting: Setting) -> Report {
    // Workers are killed all the time here, which is no fault of theirs.
    let deaths = u32::MAX;
    let daemon = Daemon::start_configured(&format!(
        "(swap_host_bytes: {SWAP_HOST}, swap_disk_bytes: {SWAP_DISK}, worker_deaths_max: {deaths})"
    ));
    daemon.mount(&starter(), MODELS[0]);
    daemon.mount_sim(MODELS[1], TIGHT);
    daemon.mount_sim(MODELS[2], SLOW);
    let mut report = Report::default();
    let mut chance = Chance::new(setting.seed);
    if setting.fill {
        fill::databases(&daemon);
        fill::swap_area(&daemon);
    }
    report.pages.push(pages(&daemon));
    let mut busy: Vec<Busy> = (0..setting.clients).map(|n| Busy::new(n, setting.seed)).collect();
    let quiet = rest(&daemon, None);
    let round = setting.time / u32::try_from(setting.rounds).expect("rounds are few");
    for number in 0..setting.rounds {
        let until = Instant::now() + round;
        std::thread::scope(|scope| {
            for client in &mut busy {
                let daemon = &daemon;
                scope.spawn(move || client.work(daemon, until));
            }
            trouble(&daemon, &mut chance, until, &mut report);
        });
        let level = rest(&daemon, Some(&quiet));
        if level.exceeds(&quiet) {
            report.leaks.push(format!("after round {number}: {level:?}, and at first {quiet:?}"));
        }
        report.resident_kib.push(daemon.resident_kib());
        report.pages.push(pages(&daemon));
    }
    report.tokens = stats(&daemon).tokens_generated;
    busy.into_iter().for_each(|client| client.tell(&mut report.operations));
    report
}

/// Kills workers, and mounts and unmounts a model, until the round is over.
fn trouble(daemon: &Daemon, chance: &mut Chance, until: Instant, report: &mut Report) {
    let mut client = daemon.client();
    while Instant::now() + TROUBLE_EVERY < until {
        std::thread::sleep(TROUBLE_EVERY);
        let models = client.models().expect("lists");
        match chance.below(3) {
            0 => {
                let ready: Vec<u32> = (models.iter())
                    .filter(|m| m.state == ModelState::Ready && m.worker_os_pid != 0)
                    .map(|m| m.worker_os_pid)
                    .collect();
                if !ready.is_empty() {
                    process::kill(ready[chance.below(ready.len() as u64) as usize], Signal::SIGKILL);
                    report.workers_killed += 1;
                }
            }
            _ if models.iter().any(|m| m.name == PASSING) => unmount_passing(&mut client),
            _ => {
                daemon.mount_sim(PASSING, "context=256");
                report.mounts += 1;
            }
        }
    }
    if client.models().expect("lists").iter().any(|m| m.name == PASSING) {
        unmount_passing(&mut client);
    }
}

fn unmount_passing(client: &mut Client) {
    client.unmount(PASSING, true).expect("it is mounted, and force unmounts it");
}

fn stats(daemon: &Daemon) -> Stats {
    daemon.client().stat(None, None).expect("counts")
}

/// Pages in the swap area.
fn pages(daemon: &Daemon) -> u64 {
    let stats = stats(daemon);
    stats.pages_host + stats.pages_disk
}

/// Removes what outlives its process, waits until all is as quiet as it was, and counts.
fn rest(daemon: &Daemon, expected: Option<&Level>) -> Level {
    let mut client = daemon.client();
    for segment in client.segments().expect("lists") {
        client.call(Unshare { name: segment.name }).expect("it is this user's own");
    }
    if let Reply::Snapshots(snapshots) = client.call(Snapshots {}).expect("lists") {
        for snapshot in snapshots {
            client.call(Discard { name: snapshot.name }).expect("it is this user's own");
        }
    }
    let list = StoreList { store: STORE.into(), prefix: String::new() };
    if let Reply::Keys(keys) = client.call(list).expect("lists") {
        for key in keys {
            client.call(StoreDelete { store: STORE.into(), key }).expect("deletes");
        }
    }
    let ready = |m: &ModelInfo| m.state == ModelState::Ready;
    wait_until("all workers are ready", || client.models().expect("lists").iter().all(ready));
    let begin = Instant::now();
    loop {
        let level = measure(daemon, &mut client);
        let settled = expected.is_some_and(|expected| !level.exceeds(expected));
        let most = if expected.is_some() { DEADLINE } else { SETTLE };
        if settled || begin.elapsed() > most {
            return level;
        }
        std::thread::sleep(SETTLE / 100);
    }
}

fn measure(daemon: &Daemon, client: &mut Client) -> Level {
    let stats = client.stat(None, None).expect("counts");
    Level {
        contexts: stats.contexts,
        frames_taken: stats.frames_total - stats.frames_free - stats.frames_cached,
        processes: stats.processes,
        files: process::open_files(daemon.os_pid()),
        children: process::children(daemon.os_pid()).len(),
    }
}

/// The most tokens that one operation generates.
const GENERATE_MAX: Tokens = Tokens(24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_were_refused_each_time_have_tried_nothing() {
        let untried = |operations: &[(&'static str, (u64, u64))]| {
            Report { operations: operations.iter().copied().collect(), ..Report::default() }.untried().len()
        };
        assert_eq!(untried(&[("open", (9, 3)), ("close", (8, 0))]), 0);
        assert_eq!(untried(&[("open", (9, 3)), ("close", (0, 1))]), 1);
        assert_eq!(untried(&[("open", (2, 3))]), 1, "most were refused");
        assert_eq!(untried(&[]), 1, "there were none");
    }
}
