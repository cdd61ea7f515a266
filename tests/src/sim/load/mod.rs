//! Loads: which clients there are, and what each asks for and when.
//!
//! A load is plain data that a seed or a file determines. It says nothing of how long answers take: a client that
//! waits for an answer before it goes on has both in one [`Task`].

pub mod azure;
pub mod mooncake;
pub mod synthetic;

use syscalls::Token;
use syscalls::call::Class;

use super::calibration::VOCABULARY;
use super::chance::mix;

/// One client, which is one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// What `ps` shows.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// Its nice value.
    pub nice: i8,
}

/// A part of a prompt: tokens that follow from a seed. Equal parts at equal places are equal prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it says.
    pub seed: u64,
    /// How long it is.
    pub tokens: u32,
}

impl Part {
    /// Its tokens. None of them is a special one.
    pub fn write(self, out: &mut Vec<Token>) {
        let range = u64::from(VOCABULARY) - 1024;
        out.extend((0..self.tokens).map(|n| Token(1024 + (mix(self.seed, n.into()) % range) as u32)));
    }
}

/// Something that a task does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Opens a context; the acts behind it are about this one.
    Open,
    /// Adds to the context.
    Append(Vec<Part>),
    /// Generates so many tokens and waits for them.
    Generate(u32),
    /// Does something else for so many microseconds.
    Think(u64),
    /// Copies the context; each copy does the acts that are left, and the context itself is closed.
    Fork(u32),
    /// Closes the context.
    Close,
}

/// What a client does from some time on, one act after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// When it begins, in microseconds.
    pub at_us: u64,
    /// Which client, by its place in the load.
    pub client: usize,
    /// The acts.
    pub acts: Vec<Act>,
}

impl Task {
    /// One request of a server's log: a prompt, an answer, and nothing kept.
    pub fn request(at_us: u64, client: usize, prompt: Vec<Part>, generate: u32) -> Task {
        Task {
            at_us,
            client,
            acts: vec![Act::Open, Act::Append(prompt), Act::Generate(generate), Act::Close],
        }
    }

    /// Tokens that its longest context comes to.
    fn longest(&self) -> u64 {
        let mut longest = 0;
        let mut length = 0;
        for act in &self.acts {
            match act {
                Act::Open => length = 0,
                Act::Append(parts) => length += parts.iter().map(|p| u64::from(p.tokens)).sum::<u64>(),
                Act::Generate(tokens) => length += u64::from(*tokens),
                Act::Think(_) | Act::Fork(_) | Act::Close => {}
            }
            longest = longest.max(length);
        }
        longest
    }
}

/// A whole load.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// What it is, in a few words.
    pub name: String,
    /// The clients.
    pub clients: Vec<Client>,
    /// What they do, by time.
    pub tasks: Vec<Task>,
    /// Tasks that were left out because no context can hold them.
    pub left_out: usize,
}

impl Load {
    /// A load of tasks in any order.
    pub fn new(name: String, clients: Vec<Client>, mut tasks: Vec<Task>) -> Load {
        tasks.sort_by_key(|t| t.at_us);
        Load { name, clients, tasks, left_out: 0 }
    }

    /// Leaves out what does not fit a context of so many tokens. Every policy then has the same to do.
    pub fn within(mut self, context_tokens: u32) -> Load {
        let before = self.tasks.len();
        self.tasks.retain(|t| t.longest() <= u64::from(context_tokens));
        self.left_out += before - self.tasks.len();
        self
    }

    /// Makes all arrivals so many times further apart.
    pub fn stretched(mut self, factor: f64) -> Load {
        self.tasks.iter_mut().for_each(|t| t.at_us = (t.at_us as f64 * factor) as u64);
        self
    }
}

/// Clients of equal standing.
pub fn clients(count: usize, name: &str, class: Class) -> Vec<Client> {
    (0..count).map(|n| Client { name: format!("{name}{n}"), class, nice: 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_within_a_context_leaves_out_what_cannot_fit() {
        let part = |tokens| vec![Part { seed: 1, tokens }];
        let tasks = vec![Task::request(9, 0, part(90), 10), Task::request(3, 0, part(90), 11)];
        let load = Load::new("two".into(), clients(1, "c", Class::Normal), tasks).within(100);
        assert_eq!((load.tasks.len(), load.left_out), (1, 1));
        assert_eq!(load.tasks[0].at_us, 9);
        assert_eq!(load.stretched(2.0).tasks[0].at_us, 18);
    }

    #[test]
    fn part_of_a_prompt_follows_from_its_seed() {
        let tokens = |seed| {
            let mut out = Vec::new();
            Part { seed, tokens: 64 }.write(&mut out);
            out
        };
        assert_eq!(tokens(5), tokens(5));
        assert_ne!(tokens(5)[..4], tokens(6)[..4]);
        assert!(tokens(5).iter().all(|t| t.0 < VOCABULARY));
    }
}
