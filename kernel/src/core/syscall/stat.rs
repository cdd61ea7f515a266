//! `stat`: the counters of the system, of a model, or of a process. A process's counters are for its own user.

use drivers::wire::Slot;
use syscalls::call::Stat;
use syscalls::reply::Stats;
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::process::Process;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_stat(&self, caller: &Caller, args: &Stat) -> Outcome {
        let stats = match (args.pid, &args.model) {
            (Some(_), Some(_)) => {
                let message = "both pid and model are given; give one, or none for the whole system";
                return Err(Fault::new(Errno::EINVAL, message));
            }
            (None, None) => self.system_stats(),
            (Some(pid), None) => self.process_stats(caller, pid)?,
            (None, Some(name)) => self.model_stats(name)?,
        };
        Ok(Next::Reply(Reply::Stat(stats)))
    }

    /// The counters and levels of the whole system.
    pub fn system_stats(&self) -> Stats {
        let frames = self.models.values().map(|m| m.frames());
        let (total, free) =
            frames.fold((0, 0), |(t, f), (total, free)| (t + u64::from(total), f + u64::from(free)));
        let cached = self.models.values().map(|m| u64::from(m.frames_cached())).sum();
        let pages = self.models.values().map(|m| m.slots.taken());
        let (host, disk) =
            pages.fold((0, 0), |(h, d), (host, disk)| (h + u64::from(host), d + u64::from(disk)));
        Stats {
            frames_total: total,
            frames_free: free,
            frames_cached: cached,
            pages_host: host,
            pages_disk: disk,
            processes: self.processes.len() as u64,
            contexts: self.contexts.len() as u64,
            uptime_ms: self.now.0 / 1000,
            ..self.counters.stats()
        }
    }

    fn model_stats(&self, name: &str) -> Result<Stats, Fault> {
        let model = self.model_named(name)?;
        let (total, free) = model.frames();
        let owners = model.contexts.iter().filter_map(|c| self.contexts.get(c)).map(|c| c.owner);
        let processes: std::collections::BTreeSet<Pid> = owners.collect();
        let (host, disk) = model.slots.taken();
        Ok(Stats {
            frames_total: u64::from(total),
            frames_free: u64::from(free),
            frames_cached: u64::from(model.frames_cached()),
            pages_host: u64::from(host),
            pages_disk: u64::from(disk),
            processes: processes.len() as u64,
            contexts: model.contexts.len() as u64,
            uptime_ms: self.now.0 / 1000,
            ..model.counters.stats()
        })
    }

    /// Saved pages of a process in the two tiers. Looks through all slots, so that no step has to count.
    fn pages_of(&self, process: &Process) -> (u64, u64) {
        if process.swap_pages == 0 {
            return (0, 0);
        }
        let saved = self.models.values().flat_map(|m| m.tree.all_saved());
        let own = saved.filter(|(_, saved)| saved.charged == Some(process.id.pid));
        let host = own.filter(|(_, saved)| matches!(saved.slot, Slot::Host(_))).count() as u64;
        (host, process.swap_pages.saturating_sub(host))
    }

    pub(super) fn process_stats(&self, caller: &Caller, pid: Pid) -> Result<Stats, Fault> {
        let process = self.subject(caller, pid)?;
        let (host, disk) = self.pages_of(process);
        Ok(Stats {
            frames_total: process.frames,
            pages_host: host,
            pages_disk: disk,
            processes: 1,
            contexts: process.contexts.len() as u64,
            uptime_ms: self.now.0.saturating_sub(process.id.started.0) / 1000,
            ..process.id.counters.stats()
        })
    }
}
