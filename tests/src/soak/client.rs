//! One client of a soak: does what chance chooses, and leaves as it happens to.

use std::collections::BTreeMap;
use std::time::Instant;

use syscalls::call::{
    Call, Discard, Lifetime, Open, ReadTokens, Restore, Share, Signal, Snapshot, Spawn, StoreGet, StorePut,
    Subscribe,
};
use syscalls::client::blocking::Client;
use syscalls::{ContextId, Errno, Fault, Reply, Tokens};

use super::{GENERATE_MAX, MODELS, PASSING, STORE};
use crate::said::greedy;
use crate::sim::chance::Chance;
use crate::{DEADLINE, Daemon};

/// Contexts that a client has at most.
const CONTEXTS_MAX: usize = 8;

/// What an operation may be refused with where models go away, workers die twice, and memory is short. Anything else
/// would be the daemon's fault, or the soak's.
const REFUSALS: [Errno; 13] = [
    Errno::EAGAIN,
    Errno::EBADF,
    Errno::EBUSY,
    Errno::ECANCELED,
    Errno::EINTR,
    Errno::EIO,
    Errno::EMFILE,
    Errno::ENODEV,
    Errno::ENOENT,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::E2BIG,
    Errno::ESRCH,
];

const PHRASES: [&str; 4] = [
    "It was a dark night, and ",
    "The prince said that he would never go back to the house by the sea. ",
    "Once upon a time there was a machine that did what it was told, and nothing else. ",
    "And then ",
];

/// What is done, and under which name it is counted.
type Operation = (&'static str, fn(&mut Busy, &Daemon) -> Result<(), Fault>);

const OPERATIONS: [Operation; 17] = [
    ("open", Busy::open),
    ("append", Busy::append),
    ("append", Busy::append),
    ("generate", Busy::generate),
    ("generate", Busy::generate),
    ("generate", Busy::generate),
    ("fork", Busy::fork),
    ("cut", Busy::cut),
    ("share", Busy::share),
    ("snapshot", Busy::snapshot),
    ("kill", Busy::kill),
    ("hold", Busy::hold),
    ("leave", Busy::leave_behind),
    ("program", Busy::program),
    ("disconnect", Busy::disconnect),
    ("store", Busy::store),
    ("close", Busy::close),
];

/// A client, and what came of its operations.
pub(super) struct Busy {
    number: usize,
    chance: Chance,
    client: Option<Client>,
    contexts: Vec<ContextId>,
    tally: BTreeMap<&'static str, (u64, u64)>,
}

impl Busy {
    pub fn new(number: usize, seed: u64) -> Busy {
        let chance = Chance::of(seed, 1000 + number as u64);
        Busy { number, chance, client: None, contexts: Vec::new(), tally: BTreeMap::new() }
    }

    /// Works until the time is over, and leaves.
    pub fn work(&mut self, daemon: &Daemon, until: Instant) {
        while Instant::now() < until {
            let (name, operation) = OPERATIONS[self.below(OPERATIONS.len())];
            let done = operation(self, daemon);
            let tally = self.tally.entry(name).or_default();
            match done {
                Ok(()) => tally.0 += 1,
                Err(fault) if REFUSALS.contains(&fault.errno) => tally.1 += 1,
                Err(fault) => panic!("{name}: {fault}\nlog of the daemon:\n{}", daemon.log()),
            }
        }
        self.leave();
    }

    /// Adds its counts.
    pub fn tell(self, operations: &mut BTreeMap<&'static str, (u64, u64)>) {
        for (name, (done, refused)) in self.tally {
            let all = operations.entry(name).or_default();
            *all = (all.0 + done, all.1 + refused);
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.chance.below(n as u64) as usize
    }

    fn client(&mut self, daemon: &Daemon) -> &mut Client {
        self.client.get_or_insert_with(|| {
            let mut client = daemon.client();
            client.set_timeout(Some(DEADLINE)).expect("a duration");
            client
        })
    }

    fn leave(&mut self) {
        self.client = None;
        self.contexts.clear();
    }

    /// One of its contexts, opened if it has none.
    fn context(&mut self, daemon: &Daemon) -> Result<ContextId, Fault> {
        if self.contexts.is_empty() {
            self.open(daemon)?;
        }
        let at = self.below(self.contexts.len());
        Ok(self.contexts[at])
    }

    fn open(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        if self.contexts.len() >= CONTEXTS_MAX {
            return self.close(daemon);
        }
        let names = [MODELS[0], MODELS[1], MODELS[2], PASSING];
        let name = names[self.below(names.len())];
        let context = self.client(daemon).open(Some(name))?.context;
        self.contexts.push(context);
        Ok(())
    }

    fn append(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let (context, phrase) = (self.context(daemon)?, PHRASES[self.below(PHRASES.len())]);
        self.client(daemon).append_text(context, phrase).map(drop)
    }

    fn generate(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        self.append(daemon)?;
        let context = self.context(daemon)?;
        let count = 1 + self.below(GENERATE_MAX.0 as usize) as u32;
        self.client(daemon).append_text(context, " ")?;
        self.client(daemon).generate(greedy(context, count), |_| {}).map(drop)
    }

    fn fork(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let context = self.context(daemon)?;
        let copies = self.client(daemon).fork(context, 2)?;
        self.contexts.extend(copies);
        while self.contexts.len() > CONTEXTS_MAX {
            self.close(daemon)?;
        }
        Ok(())
    }

    fn cut(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let context = self.context(daemon)?;
        let read = self.client(daemon).call(ReadTokens { context, from: Tokens(0), to: None })?;
        let Reply::Tokens(tokens) = read else { panic!("{read:?}") };
        let length = Tokens(self.below(tokens.len() + 1) as u32);
        self.client(daemon).truncate(context, length)
    }

    fn close(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let at = self.below(self.contexts.len().max(1));
        if at >= self.contexts.len() {
            return Ok(());
        }
        let context = self.contexts.swap_remove(at);
        self.client(daemon).close(context)
    }

    fn share(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let name = format!("segment-{}", self.number);
        self.append(daemon)?;
        let context = self.context(daemon)?;
        self.client(daemon).append_text(context, "a beginning")?;
        let share = Share { context, name: name.clone(), length: None, mode: 0o400 };
        self.client(daemon).call(share)?;
        let open = Open { model: None, tokens_max: None, on_full: Default::default(), prefix: Some(name) };
        let opened = self.client(daemon).open_with(open)?;
        self.client(daemon).close(opened.context)
    }

    fn snapshot(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let name = format!("snapshot-{}", self.number);
        let context = self.context(daemon)?;
        self.client(daemon).append_text(context, "what is kept")?;
        self.client(daemon).call(Snapshot { context, name: name.clone() })?;
        let restored = self.client(daemon).call(Restore { name: name.clone() })?;
        let Reply::Opened { context, .. } = restored else { panic!("{restored:?}") };
        self.client(daemon).close(context)?;
        self.client(daemon).call(Discard { name }).map(drop)
    }

    /// Starts a child that generates, and kills it.
    fn kill(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let client = self.client(daemon);
        let child = client.spawn("child")?;
        let began = begin_as(client, child);
        client.kill(child, Signal::Kill)?;
        client.wait(Some(child))?;
        began
    }

    /// Starts a child that generates, holds it, and kills it held or when it has gone on.
    fn hold(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let goes_on = self.below(2) == 0;
        let client = self.client(daemon);
        let child = client.spawn("held")?;
        let began = begin_as(client, child);
        client.kill(child, Signal::Stop)?;
        if goes_on {
            client.kill(child, Signal::Cont)?;
        }
        client.kill(child, Signal::Kill)?;
        client.wait(Some(child))?;
        began
    }

    /// Starts a child that generates, leaves it, and kills it from another connection.
    fn leave_behind(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let lifetime = [Lifetime::Detached, Lifetime::Persistent][self.below(2)];
        let client = self.client(daemon);
        let spawned =
            client.call(Spawn { lifetime: Some(lifetime), ..syscalls::client::spawn("left behind") })?;
        let Reply::Spawned { pid: child } = spawned else { panic!("{spawned:?}") };
        let left = begin_as(client, child).and_then(|()| client.detach(Some(child)));
        // Whatever came of that: it would outlive the round.
        daemon.client().kill(child, Signal::Kill)?;
        left
    }

    /// Has the daemon start a program, and kills it.
    fn program(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let argv = vec!["/bin/sleep".into(), "600".into()];
        let client = self.client(daemon);
        let spawned = client.call(Spawn { argv, ..syscalls::client::spawn("program") })?;
        let Reply::Spawned { pid } = spawned else { panic!("{spawned:?}") };
        client.kill(pid, Signal::Kill)?;
        client.wait(Some(pid)).map(drop)
    }

    /// Goes away in the midst of a generation, or of events.
    fn disconnect(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let call: Call = match self.below(2) {
            0 => greedy(self.context(daemon)?, 200).into(),
            _ => Subscribe { kinds: vec![], timeout_ms: None }.into(),
        };
        self.client(daemon).start(call)?;
        self.client(daemon).ps()?;
        self.leave();
        Ok(())
    }

    fn store(&mut self, daemon: &Daemon) -> Result<(), Fault> {
        let (store, number) = (STORE.to_owned(), self.below(10));
        let key = format!("{}-{number}", self.number);
        let value = serde_json::json!(self.chance.bits());
        self.client(daemon).call(StorePut {
            store: store.clone(),
            key: key.clone(),
            value: value.clone(),
        })?;
        let read = self.client(daemon).call(StoreGet { store, key })?;
        assert_eq!(read, Reply::Value(Some(value)), "it reads what it wrote");
        Ok(())
    }
}

fn begin_as(client: &mut Client, child: syscalls::Pid) -> Result<(), Fault> {
    let open =
        Open { model: Some(MODELS[2].into()), tokens_max: None, on_full: Default::default(), prefix: None };
    let opened = client.call_as(child, open)?;
    let Reply::Opened { context, .. } = opened else { panic!("{opened:?}") };
    let append = syscalls::call::Append {
        context,
        text: Some("doomed".into()),
        tokens: None,
        messages: None,
        special: false,
    };
    client.call_as(child, append)?;
    client.start_as(child, greedy(context, 200)).map(drop)
}
