//! Two machines get the same calls. One has room for all of it. On the other one two models share a device with room for
//! one, the pool is full at once, the tiers of the swap area are small, and workers die now and then. Whatever is forked,
//! cut, slid, summed up, swapped and evacuated there, both say the same, and no frame and no slot is lost.

use kernel::core::event::ConnId;
use kernel::core::{DeviceConfig, KernelConfig};
use syscalls::call::*;
use syscalls::reply::Finish;
use syscalls::{CallId, ContextId, Errno, Event, Reply, Token, Tokens};

use crate::chance::Chance;
use crate::machine::{ADMIN, Machine, append_bytes, generate, open};

const ROUNDS: usize = 25;
const CONTEXTS_MAX: usize = 8;

/// Tokens of a context: three pages, so that most of them are full before long.
const CONTEXT_TOKENS: u32 = 192;

const MODELS: [&str; 2] = ["a", "b"];

/// What is asked of one context in a round, one call after the other.
#[derive(Clone, Debug)]
enum Ask {
    Append(String),
    Generate(u32),
}

/// What a call came to, as far as it is the same on every machine.
#[derive(Debug, PartialEq)]
enum Came {
    Length(u32),
    Said(Finish, Vec<Token>, u32),
    Refused(Errno),
}

/// One machine, with its contexts in the order in which they came.
struct Side {
    machine: Machine,
    conn: ConnId,
    contexts: Vec<ContextId>,
    slid: usize,
    compacted: usize,
}

impl Side {
    fn new(config: KernelConfig, script: &str) -> Side {
        let mut machine = Machine::new(config);
        let conn = machine.connect(ADMIN);
        for name in MODELS {
            machine.mount(conn, name, script).expect("there is room, or others make some");
        }
        Side { machine, conn, contexts: vec![], slid: 0, compacted: 0 }
    }

    fn roomy() -> Side {
        Side::new(KernelConfig::default(), "context=4096,pool=65536")
    }

    fn cramped() -> Side {
        let devices = vec![DeviceConfig { name: "cpu".into(), memory_bytes: 800 }];
        let config = KernelConfig {
            devices,
            pool_tokens_min: 320,
            swap_host_bytes: 6 * 4096,
            swap_disk_bytes: 6 * 4096,
            ..KernelConfig::default()
        };
        let script = "context=4096,pool=320,sequences=5,kv=1,compute=100,weights=300,\
                      step_us=100000,token_us=500,save_us=100,load_us=100";
        Side::new(config, script)
    }

    fn open(&mut self, model: &str, on_full: OnFull) {
        let tokens_max = Some(Tokens(CONTEXT_TOKENS));
        let call = Open { model: Some(model.into()), tokens_max, on_full, ..open() };
        let call = self.machine.begin(self.conn, call);
        match self.machine.finish_in_time(self.conn, call) {
            Ok(Reply::Opened { context, .. }) => self.contexts.push(context),
            other => panic!("{other:?}"),
        }
    }

    /// Asks all at once, and tells what each call came to.
    fn ask(&mut self, asks: &[(usize, Ask)]) -> Vec<Came> {
        let begin = |(at, ask): &(usize, Ask)| {
            let context = self.contexts[*at];
            match ask {
                Ask::Append(text) => self.machine.begin(self.conn, append_bytes(context, text)),
                Ask::Generate(tokens) => self.machine.begin(self.conn, generate(context, *tokens)),
            }
        };
        let calls: Vec<CallId> = asks.iter().map(begin).collect();
        calls.into_iter().map(|call| self.came(call)).collect()
    }

    fn came(&mut self, call: CallId) -> Came {
        let reply = self.machine.finish_in_time(self.conn, call);
        for event in self.machine.events(self.conn, call) {
            self.slid += usize::from(matches!(event, Event::Slid { .. }));
            self.compacted += usize::from(matches!(event, Event::Compacted { .. }));
        }
        match reply {
            Ok(Reply::Appended { length, .. }) => Came::Length(length.0),
            Ok(Reply::Generated(reply)) => Came::Said(reply.finish, reply.tokens, reply.length.0),
            Ok(other) => panic!("{other:?}"),
            Err(fault) => Came::Refused(fault.errno),
        }
    }

    fn fork(&mut self, at: usize, length: Option<u32>) -> bool {
        let call = Fork { context: self.contexts[at], copies: 1, length: length.map(Tokens) };
        let reply = self.machine.call(self.conn, call);
        if let Ok(Reply::Forked { contexts }) = &reply {
            self.contexts.extend(contexts);
        }
        reply.is_ok()
    }

    fn cut(&mut self, at: usize, length: u32) -> bool {
        let call = Truncate { context: self.contexts[at], length: Tokens(length) };
        self.machine.call(self.conn, call).is_ok()
    }

    fn close(&mut self, at: usize) {
        let context = self.contexts.remove(at);
        self.machine.call(self.conn, Close { context }).expect("own context");
    }

    fn logs(&mut self) -> Vec<Vec<Token>> {
        let read = |context| ReadTokens { context, from: Tokens(0), to: None };
        let contexts = self.contexts.clone();
        let logs = contexts.into_iter().map(|context| match self.machine.call(self.conn, read(context)) {
            Ok(Reply::Tokens(log)) => log,
            other => panic!("{other:?}"),
        });
        logs.collect()
    }

    /// Checks that nothing is lost when all contexts are closed.
    fn end(&mut self) {
        while !self.contexts.is_empty() {
            self.close(0);
        }
        self.machine.run();
        let stats = self.machine.stat(self.conn);
        assert_eq!(stats.frames_free + stats.frames_cached, stats.frames_total);
        assert_eq!((stats.contexts, self.machine.slots_left(self.conn)), (0, 0));
    }
}

/// What is asked in a round: of some contexts to take a text in, of most of these to say something.
fn asks(chance: &mut Chance, contexts: usize) -> Vec<(usize, Ask)> {
    let mut asks = Vec::new();
    for at in 0..contexts {
        if chance.once_in(4) {
            continue;
        }
        if chance.once_in(2) {
            let words = ["alpha ", "beta and ", "gamma, which is longer "][chance.below(3)];
            asks.push((at, Ask::Append(words.repeat(1 + chance.below(4)))));
        }
        asks.push((at, Ask::Generate(1 + chance.below(60) as u32)));
    }
    asks
}

/// Something happens to the contexts of both, between two rounds.
fn change(chance: &mut Chance, sides: &mut [Side; 2]) {
    let count = sides[0].contexts.len();
    let at = chance.below(count);
    let length = chance.below(150) as u32;
    let whole = chance.once_in(2);
    let done = match chance.below(6) {
        0..3 if count < CONTEXTS_MAX => {
            sides.each_mut().map(|side| side.fork(at, (!whole).then_some(length)))
        }
        3 => sides.each_mut().map(|side| side.cut(at, length)),
        4 if count > 2 => sides.each_mut().map(|side| {
            side.close(at);
            true
        }),
        _ if count < CONTEXTS_MAX => {
            let model = MODELS[chance.below(2)];
            let on_full = [OnFull::Stop, OnFull::Slide, OnFull::Compact][chance.below(3)];
            sides.each_mut().map(|side| {
                side.open(model, on_full);
                true
            })
        }
        _ => [true; 2],
    };
    assert_eq!(done[0], done[1], "one machine refuses what the other one does");
}

fn play(seed: u64) -> [Side; 2] {
    let mut chance = Chance(seed);
    let mut sides = [Side::roomy(), Side::cramped()];
    for (model, on_full) in
        [("a", OnFull::Slide), ("b", OnFull::Compact), ("a", OnFull::Compact), ("b", OnFull::Stop)]
    {
        sides.iter_mut().for_each(|side| side.open(model, on_full));
    }
    let all = (0..4).map(|at| (at, Ask::Append(format!("the beginning of context {at}, which goes on "))));
    let all: Vec<_> = all.collect();
    sides.iter_mut().for_each(|side| drop(side.ask(&all)));
    for round in 0..ROUNDS {
        let asks = asks(&mut chance, sides[0].contexts.len());
        let [expected, came] = sides.each_mut().map(|side| side.ask(&asks));
        for ((expected, came), ask) in expected.iter().zip(&came).zip(&asks) {
            assert_eq!(came, expected, "round {round} of seed {seed}: {ask:?}");
        }
        let cramped = &mut sides[1].machine;
        if chance.once_in(5) && !cramped.workers.is_empty() {
            cramped.run();
            cramped.kill_worker();
        }
        change(&mut chance, &mut sides);
    }
    let [expected, logs] = sides.each_mut().map(Side::logs);
    assert!(logs == expected, "logs of seed {seed} are not the same");
    sides
}

#[test]
fn cramped_machine_says_what_one_with_room_says_and_loses_nothing() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 1..=12 {
        let [_, mut cramped] = play(seed);
        let logs = cramped.machine.logs.clone();
        let said = |words: &str| logs.iter().filter(|line| line.contains(words)).count();
        let stats = cramped.machine.stat(cramped.conn);
        let of_seed = [
            ("slid", cramped.slid),
            ("summed up", cramped.compacted),
            ("evacuated", said("contexts rest")),
            ("forced out", said("has had its turn")),
            ("swapped in", (stats.swap_in_bytes / 4096) as usize),
            ("computed again", stats.tokens_recomputed as usize),
            ("workers died", stats.worker_restarts as usize),
        ];
        of_seed.into_iter().for_each(|(what, n)| *seen.entry(what).or_insert(0) += n);
        cramped.end();
    }
    eprintln!("{seen:?}");
    assert!(seen.values().all(|n| *n > 5), "these mixes say little: {seen:?}");
}
