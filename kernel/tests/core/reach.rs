//! Whoever could not come in although all gave what they have to takes nothing from anybody.

use kernel::core::event::ConnId;
use syscalls::CallId;
use syscalls::call::Class;

use crate::machine::{Machine, generate, generated, reference};

const USER: u32 = 7;

/// Nine frames.
const SCRIPT: &str = "pool=576,context=576";

/// The beginning that two contexts have in common: two whole pages.
const COMMON: usize = 128;

fn text(n: usize, tokens: usize) -> String {
    format!("{n} and ").chars().rev().cycle().take(tokens).collect()
}

/// A machine on which one generation stays for long and has four frames, one of a lower class has two, and an idle context
/// has three, of which two begin as [`COMMON`] tokens do. Gives the connections and calls of those that run.
fn crowded() -> (Machine, [(ConnId, CallId); 2]) {
    let (mut machine, _) = Machine::with_model(SCRIPT);
    let idle = machine.connect(USER);
    let context = machine.open_with(idle, &format!("{}..", text(1, COMMON)));
    machine.generate(idle, context, 1);
    let runs = [(Class::Interactive, 200, 50), (Class::Batch, 70, 50)].map(|(class, prompt, tokens)| {
        let conn = machine.connect_as(USER, class, 0);
        let context = machine.open_with(conn, &text(prompt, prompt));
        (conn, machine.begin(conn, generate(context, tokens)))
    });
    while machine.events(runs[0].0, runs[0].1).is_empty() {
        assert!(machine.turn());
    }
    assert_eq!(
        [machine.frames_had(idle), machine.frames_had(runs[0].0), machine.frames_had(runs[1].0)],
        [3, 4, 2]
    );
    (machine, runs)
}

impl Machine {
    fn frames_had(&mut self, conn: ConnId) -> u32 {
        let pid = self.pid(conn);
        self.ps(conn).iter().find(|p| p.pid == pid).map_or(0, |p| p.frames)
    }

    /// Begins a generation that shares the idle context's beginning and has a prompt of so many tokens.
    fn begin_behind_common(&mut self, tokens: usize) -> (ConnId, CallId, String) {
        let conn = self.connect_as(USER, Class::Interactive, 0);
        let prompt = format!("{}{}", text(1, COMMON), text(3, tokens - COMMON));
        let context = self.open_with(conn, &prompt);
        (conn, self.begin(conn, generate(context, 5)), prompt)
    }
}

#[test]
fn one_that_shares_what_an_idle_one_has_and_would_not_fit_pushes_nobody_out() {
    let (mut machine, [stays, lower]) = crowded();
    // Six pages, two of them shared: one more than there is beside the four that stay.
    let (conn, call, prompt) = machine.begin_behind_common(330);
    for _ in 0..10 {
        machine.turn();
        assert!(machine.reply(stays.0, stays.1).is_none() && machine.reply(conn, call).is_none());
        assert_eq!(machine.frames_had(lower.0), 2, "it gives its frames in vain");
    }
    assert_eq!(generated(machine.finish(conn, call)).text, reference("", &prompt, 5));
    assert_eq!(generated(machine.finish(lower.0, lower.1)).text, reference("", &text(70, 70), 50));
}

#[test]
fn one_that_shares_what_an_idle_one_has_and_fits_comes_in_at_once() {
    let (mut machine, [stays, lower]) = crowded();
    // Five pages, as many as there are beside the four that stay.
    let (conn, call, prompt) = machine.begin_behind_common(310);
    assert_eq!(generated(machine.finish(conn, call)).text, reference("", &prompt, 5));
    assert!(machine.reply(stays.0, stays.1).is_none(), "it took nothing from its own class");
    assert_eq!(generated(machine.finish(lower.0, lower.1)).text, reference("", &text(70, 70), 50));
}
