//! Loads without a trace behind them: each shows one thing that a scheduler or a memory manager can get wrong.

use syscalls::call::Class;

use super::{Act, Client, Load, Part, Task, clients};
use crate::sim::chance::{Chance, mix};

/// The synthetic loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Requests that come independently of each other.
    Poisson,
    /// Sixteen requests at once, and then a pause.
    Bursts,
    /// Agents with a common beginning that take turns with tools.
    Agents,
    /// Batch jobs, and short questions of people beside them.
    Batch,
    /// Four that generate, and one prompt of 6,000 tokens beside them.
    Long,
    /// Two clients, of which one asks twice as often as the other, and both for more than there is.
    Greedy,
    /// Poisson, agents and batch jobs together.
    Mixed,
}

const SECOND: f64 = 1e6;

/// The instructions that all agents begin with.
const COMMON: Part = Part { seed: 0xC0_FFEE, tokens: 1500 };

/// Makes a load of about so many tasks on so many clients. `pace` is how many times faster than on a device of
/// speed 1 tasks arrive.
pub fn make(kind: Kind, count: usize, clients_count: usize, pace: f64, seed: u64) -> Load {
    let second = SECOND / pace;
    let chance = Chance::of(seed, 2 + kind as u64);
    let maker = Maker { chance, seed, second };
    let (clients, tasks) = match kind {
        Kind::Poisson => maker.poisson(count, clients_count),
        Kind::Bursts => maker.bursts(count, clients_count),
        Kind::Agents => maker.agents(count, clients_count),
        Kind::Batch => maker.batch(count),
        Kind::Long => maker.long(),
        Kind::Greedy => maker.greedy(count),
        Kind::Mixed => maker.mixed(count, clients_count),
    };
    Load::new(format!("{kind:?}, {} tasks", tasks.len()).to_lowercase(), clients, tasks)
}

type Made = (Vec<Client>, Vec<Task>);

struct Maker {
    chance: Chance,
    seed: u64,
    /// Microseconds of a second at the pace asked for.
    second: f64,
}

impl Maker {
    fn part(&mut self, median: f64) -> Part {
        let tokens = self.chance.log_normal(median, 0.8).clamp(8.0, 4096.0) as u32;
        Part { seed: self.chance.bits(), tokens }
    }

    fn answer(&mut self, mean: f64) -> u32 {
        self.chance.exponential(mean).clamp(4.0, 512.0) as u32
    }

    fn request(&mut self, at: f64, client: usize) -> Task {
        let prompt = vec![self.part(200.0)];
        let answer = self.answer(60.0);
        Task::request(at as u64, client, prompt, answer)
    }

    fn poisson(mut self, count: usize, clients_count: usize) -> Made {
        let mut at = 0.0;
        let tasks = (0..count).map(|_| {
            at += self.chance.exponential(1.1 * self.second);
            let client = self.chance.below(clients_count as u64) as usize;
            self.request(at, client)
        });
        let tasks = tasks.collect();
        (clients(clients_count, "client", Class::Normal), tasks)
    }

    fn bursts(mut self, count: usize, clients_count: usize) -> Made {
        let task = |n: usize| self.request((n / 16) as f64 * 20.0 * self.second, n % clients_count);
        (clients(clients_count, "client", Class::Normal), (0..count).map(task).collect())
    }

    /// Each agent has six turns in one context; its tool takes five seconds on average.
    fn agents(mut self, count: usize, clients_count: usize) -> Made {
        let agents = clients_count.min(count).max(1);
        let tasks = (0..count).map(|n| {
            let mut acts = vec![Act::Open, Act::Append(vec![COMMON, self.part(64.0)])];
            for turn in 0..6 {
                if turn > 0 {
                    acts.push(Act::Think(self.chance.exponential(5.0 * self.second) as u64));
                    acts.push(Act::Append(vec![self.part(80.0)]));
                }
                acts.push(Act::Generate(self.answer(40.0)));
            }
            acts.push(Act::Close);
            let at = (n / agents) as f64 * 60.0 * self.second + self.chance.fraction() * 5.0 * self.second;
            Task { at_us: at as u64, client: n % agents, acts }
        });
        let tasks = tasks.collect();
        (clients(agents, "agent", Class::Normal), tasks)
    }

    /// Four batch jobs of several prompts each, and a person who asks something now and then.
    fn batch(mut self, count: usize) -> Made {
        let mut all = clients(4, "job", Class::Batch);
        all.push(Client { name: "person".into(), class: Class::Interactive, nice: 0 });
        let each = (count / 5).max(1);
        let mut tasks = Vec::new();
        for client in 0..4 {
            let mut acts = Vec::new();
            for n in 0..each {
                let prompt = Part { seed: mix(self.seed, (client * 1000 + n) as u64), tokens: 512 };
                acts.extend([Act::Open, Act::Append(vec![prompt]), Act::Generate(128), Act::Close]);
            }
            tasks.push(Task { at_us: 0, client, acts });
        }
        let mut at = 0.0;
        for _ in 0..each {
            at += self.chance.exponential(6.0 * self.second);
            let prompt = Part { seed: self.chance.bits(), tokens: 32 };
            tasks.push(Task::request(at as u64, 4, vec![prompt], 32));
        }
        (all, tasks)
    }

    fn long(mut self) -> Made {
        let mut all = clients(4, "generator", Class::Normal);
        all.push(Client { name: "reader".into(), class: Class::Normal, nice: 0 });
        let request = |seed: u64, at: f64, client, tokens, answer| {
            Task::request(at as u64, client, vec![Part { seed, tokens }], answer)
        };
        let mut tasks: Vec<Task> = (0..4).map(|n| request(self.chance.bits(), 0.0, n, 64, 1000)).collect();
        tasks.push(request(self.chance.bits(), 5.0 * self.second, 4, 6000, 32));
        (all, tasks)
    }

    /// Three and six requests a second, as many of both, each of 160 tokens in and 32 out: about 2.8 a second is what
    /// the device can do.
    fn greedy(mut self, count: usize) -> Made {
        let task = |n: usize| {
            let (client, nth) = (n % 2, n / 2);
            let apart = self.second / [3.0, 6.0][client];
            let prompt = Part { seed: self.chance.bits(), tokens: 160 };
            Task::request((nth as f64 * apart) as u64, client, vec![prompt], 32)
        };
        let tasks = (0..count).map(task).collect();
        (clients(2, "client", Class::Normal), tasks)
    }

    fn mixed(self, count: usize, clients_count: usize) -> Made {
        let part =
            |purpose| Maker { chance: Chance::of(self.seed, purpose), seed: self.seed, second: self.second };
        let each = (clients_count / 2).max(1);
        let (mut all, mut tasks) = (Vec::new(), Vec::new());
        let slow = Maker { second: 3.0 * self.second, ..part(10) };
        let made =
            [slow.poisson(count / 2, each), part(11).agents(count / 8, each), part(12).batch(count / 8)];
        for (more, of_them) in made {
            let first = all.len();
            tasks.extend(of_them.into_iter().map(|t| Task { client: first + t.client, ..t }));
            all.extend(more);
        }
        (all, tasks)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_load_follows_from_its_seed_and_fits_its_clients() {
        for kind in Kind::value_variants() {
            let load = |seed| make(*kind, 60, 8, 1.0, seed);
            assert_eq!(load(1), load(1));
            assert_ne!(load(1).tasks, load(2).tasks, "{kind:?}");
            assert!(!load(1).tasks.is_empty());
            assert!(load(1).tasks.iter().all(|t| t.client < load(1).clients.len()), "{kind:?}");
            assert!(load(1).tasks.is_sorted_by_key(|t| t.at_us));
        }
    }
}
