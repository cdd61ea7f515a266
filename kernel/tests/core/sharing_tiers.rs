//! Several models and one swap area: pages of a model that were used long ago make room for those of another one.

use kernel::core::KernelConfig;
use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::reply::Stats;
use syscalls::{ContextId, Reply, Token};

use crate::machine::{ADMIN, Machine, generate, generated, open, reference};

/// A pool for one context of three pages and some tokens.
const SCRIPT: &str = "pool=256,context=256";

/// Tokens of a prompt, and of an answer.
const TOKENS: (usize, u32) = (192, 5);

/// A machine with these bytes in each tier, and models of these names whose pages have these bytes.
fn machine(host: u64, disk: u64, models: &[(&str, u64)]) -> (Machine, ConnId) {
    let config = KernelConfig { swap_host_bytes: host, swap_disk_bytes: disk, ..KernelConfig::default() };
    let mut machine = Machine::new(config);
    let conn = machine.connect(ADMIN);
    for (name, page_bytes) in models {
        machine.mount(conn, name, &format!("{SCRIPT},page_bytes={page_bytes}")).expect("there is room");
    }
    (machine, conn)
}

fn prompt(n: usize) -> String {
    format!("{n} and ").chars().cycle().take(TOKENS.0).collect()
}

impl Machine {
    fn begin_contexts(
        &mut self,
        conn: ConnId,
        model: &str,
        numbers: std::ops::Range<usize>,
    ) -> Vec<ContextId> {
        let begin = |n| {
            let Ok(Reply::Opened { context, .. }) =
                self.call(conn, Open { model: Some(model.into()), ..open() })
            else {
                panic!("it opens")
            };
            self.append(conn, context, &prompt(n)).expect("it fits");
            assert_eq!(self.generate(conn, context, TOKENS.1).text, reference("", &prompt(n), TOKENS.1));
            context
        };
        numbers.map(begin).collect()
    }

    /// What it costs a model to go on with contexts once more: tokens that are computed again, and bytes that are loaded.
    fn turn_of(&mut self, conn: ConnId, model: &str, contexts: &[ContextId]) -> (u64, u64) {
        let before = self.stat_of(conn, model);
        for context in contexts {
            let append = Append {
                context: *context,
                text: None,
                tokens: Some(vec![Token(65)]),
                messages: None,
                special: false,
            };
            self.call(conn, append).expect("it fits");
            drop(generated(self.call(conn, generate(*context, 1))));
        }
        let after = self.stat_of(conn, model);
        (after.tokens_recomputed - before.tokens_recomputed, after.swap_in_bytes - before.swap_in_bytes)
    }

    fn stat_of(&mut self, conn: ConnId, model: &str) -> Stats {
        match self.call(conn, Stat { pid: None, model: Some(model.into()) }) {
            Ok(Reply::Stat(stats)) => stats,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pages_of_closed_contexts_make_room_for_those_of_another_model() {
    for (host, disk) in [(12, 0), (0, 12), (6, 6)] {
        let (mut machine, conn) = machine(host * 4096, disk * 4096, &[("a", 4096), ("b", 4096)]);
        let old = machine.begin_contexts(conn, "a", 0..6);
        let a = machine.stat_of(conn, "a");
        assert_eq!((a.pages_host, a.pages_disk), (host, disk), "a has all of it");
        old.into_iter().for_each(|context| drop(machine.call(conn, Close { context })));
        let contexts = machine.begin_contexts(conn, "b", 10..13);
        machine.turn_of(conn, "b", &contexts);
        let (again, loaded) = machine.turn_of(conn, "b", &contexts);
        assert!(again <= 3 * 16, "{again} tokens were computed again with {host} and {disk}");
        assert_eq!(loaded, 3 * 3 * 4096, "of each context its whole pages");
        assert_eq!(machine.stat(conn).pages_corrupted, 0);
    }
}

#[test]
fn pages_that_are_used_stay_and_older_ones_of_the_other_model_go() {
    // Both have two contexts that take turns, and a has left pages of others; all but these have slots.
    let (mut machine, conn) = machine(13 * 4096, 0, &[("a", 4096), ("b", 4096)]);
    let old = machine.begin_contexts(conn, "a", 0..6);
    old.into_iter().for_each(|context| drop(machine.call(conn, Close { context })));
    let ours = [machine.begin_contexts(conn, "a", 6..8), machine.begin_contexts(conn, "b", 8..10)];
    for _ in 0..2 {
        machine.turn_of(conn, "a", &ours[0]);
        machine.turn_of(conn, "b", &ours[1]);
    }
    for (model, contexts) in ["a", "b"].into_iter().zip(&ours) {
        let (again, loaded) = machine.turn_of(conn, model, contexts);
        assert!(again <= 2 * 16 && loaded == 2 * 3 * 4096, "{model}: {again} tokens, {loaded} bytes");
    }
}

#[test]
fn pages_of_another_size_make_as_much_room_as_is_needed() {
    for (a, b) in [(4096, 16384), (16384, 4096), (12288, 8192)] {
        let (mut machine, conn) = machine(12 * 16384, 0, &[("a", a), ("b", b)]);
        let old = machine.begin_contexts(conn, "a", 0..17);
        old.into_iter().for_each(|context| drop(machine.call(conn, Close { context })));
        let contexts = machine.begin_contexts(conn, "b", 20..23);
        machine.turn_of(conn, "b", &contexts);
        let (again, _) = machine.turn_of(conn, "b", &contexts);
        assert!(again <= 3 * 16, "{again} tokens were computed again with pages of {a} and {b} bytes");
        let (left, used) = (machine.stat_of(conn, "a").pages_host, machine.stat_of(conn, "b").pages_host);
        assert!(left * a + used * b <= 12 * 16384, "{left} of {a} and {used} of {b}");
        assert!(left > 0, "no more of them go than have to");
    }
}

#[test]
fn pages_of_another_size_stay_where_they_were_used_later_than_the_models_own() {
    let (mut machine, conn) = machine(21 * 4096, 0, &[("a", 4096), ("b", 16384)]);
    let begin = |machine: &mut Machine, model: &str, n: usize, tokens: usize| {
        let Ok(Reply::Opened { context, .. }) =
            machine.call(conn, Open { model: Some(model.into()), ..open() })
        else {
            panic!("it opens")
        };
        machine.append(conn, context, &prompt(n).repeat(2)[..tokens]).expect("it fits");
        machine.generate(conn, context, TOKENS.1);
    };
    // Each context takes the whole pool, and the pages of the one before it are saved: first one of a, the oldest of all,
    // then four of b, four of a, and four of b, for which nothing is free.
    begin(&mut machine, "a", 1, 60);
    begin(&mut machine, "a", 2, 250);
    begin(&mut machine, "b", 3, 250);
    begin(&mut machine, "b", 4, 250);
    begin(&mut machine, "a", 5, 250);
    assert_eq!(machine.stat_of(conn, "a").pages_host, 5);
    begin(&mut machine, "b", 6, 250);
    let left = ["a", "b"].map(|model| machine.stat_of(conn, model).pages_host);
    assert_eq!(left, [4, 4], "the oldest one of a goes, and of b those that are older than the others of a");
}

#[test]
fn tier_smaller_than_a_page_takes_nothing_from_others() {
    let (mut machine, conn) = machine(3 * 4096, 0, &[("a", 4096), ("b", 16384)]);
    machine.begin_contexts(conn, "a", 0..3);
    let contexts = machine.begin_contexts(conn, "b", 3..5);
    machine.turn_of(conn, "b", &contexts);
    assert_eq!(machine.stat_of(conn, "a").pages_host, 3, "b could have none");
    assert_eq!(machine.stat_of(conn, "b").pages_host, 0);
}
