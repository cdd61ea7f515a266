//! Mounts, and models that come back, whose worker fails behind their admission: the ledger is as it was before, whoever
//! waits hears the same error once, and nobody else notices.

use drivers::sim::{SimSwap, SimWorker};
use drivers::wire::ModelDescription;
use kernel::core::event::{ConnId, WorkerId};
use kernel::core::{DeviceConfig, Event, KernelConfig};
use syscalls::call::*;
use syscalls::reply::ModelState;
use syscalls::{CallId, ContextId, Errno, Fault, Reply};

use crate::machine::{ADMIN, Job, Machine, generate, generated, mount, open, reference};

/// A model of 300 bytes of weights, with a pool of 256 tokens of a byte each and 100 bytes of buffers.
const SCRIPT: &str = "context=256,kv=1,compute=100,weights=300";

/// What such a model takes.
const TAKES: u64 = 656;

const PROMPT: &str = "a context on the other model";

/// Longer than a worker may take to load without a word.
const HANG_MS: u64 = 700_000;

fn machine(memory_bytes: u64) -> (Machine, ConnId) {
    let devices = vec![DeviceConfig { name: "cpu".into(), memory_bytes }];
    let mut machine = Machine::new(KernelConfig { devices, pool_tokens_min: 128, ..KernelConfig::default() });
    let conn = machine.connect(ADMIN);
    (machine, conn)
}

impl Machine {
    /// Takes the order to start a worker away from the host.
    fn take_start(&mut self) -> (WorkerId, ModelDescription) {
        self.turn_up_to(|job| matches!(job, Job::Start(..)));
        let Some(Job::Start(worker, load, _)) = self.jobs.pop_front() else { panic!("it was looked at") };
        let Ok(Ok(started)) = SimWorker::start_with(&load, SimSwap::default()) else {
            panic!("it would start")
        };
        (worker, started.description().clone())
    }

    /// A worker says that it is ready, and something else of its model than there is.
    fn become_ready_with(&mut self, change: impl Fn(&mut ModelDescription)) {
        let (worker, mut description) = self.take_start();
        change(&mut description);
        self.event(Event::WorkerReady { worker, os_pid: 7, description: Box::new(description) });
    }

    fn names(&mut self, conn: ConnId) -> Vec<(String, ModelState)> {
        let Ok(Reply::Models(list)) = self.call(conn, Models {}) else { panic!("it lists") };
        list.into_iter().map(|model| (model.name, model.state)).collect()
    }

    /// The one error that all of these calls get.
    fn one_fault(&mut self, calls: &[(ConnId, CallId)]) -> Fault {
        let faults: Vec<Fault> =
            calls.iter().map(|(conn, id)| self.finish(*conn, *id).expect_err("it failed")).collect();
        assert!(faults.iter().all(|fault| *fault == faults[0]), "{faults:?}");
        faults[0].clone()
    }
}

/// A mount that fails while two programs that open on the model, and one that asks it something, wait for it. Gives the
/// error.
fn failed(script: &str, happen: impl Fn(&mut Machine)) -> Fault {
    let (mut machine, conn) = machine(2 * TAKES);
    machine.mount(conn, "a", SCRIPT).expect("there is room");
    let context = machine.open_with(conn, PROMPT);
    let before = machine.generate(conn, context, 10).text;
    let (free, records) = (machine.free(conn), machine.records.len());
    let mut calls = vec![(conn, machine.begin(conn, mount("b", script)))];
    for _ in 0..2 {
        let other = machine.connect(7);
        calls.push((other, machine.begin(other, Open { model: Some("b".into()), ..open() })));
    }
    let asks = Tokenize { model: Some("b".into()), text: "text".into(), bos: true, special: false };
    let other = machine.connect(7);
    calls.push((other, machine.begin(other, asks)));
    happen(&mut machine);
    let fault = machine.one_fault(&calls);
    machine.short_of = None;
    machine.run();
    assert_eq!(machine.free(conn), free, "{fault}");
    assert_eq!(machine.names(conn), [("a".into(), ModelState::Ready)], "{fault}");
    assert_eq!(machine.records.len(), records, "nothing of it is kept");
    let text = before + &machine.generate(conn, context, 10).text;
    assert_eq!(text, reference("", PROMPT, 20));
    let stats = machine.stat(conn);
    assert_eq!((stats.tokens_recomputed, stats.worker_restarts), (0, 0), "the other model was not touched");
    machine.mount(conn, "b", SCRIPT).expect("its name and its memory are free");
    fault
}

#[test]
fn mount_whose_file_cannot_be_read_is_undone() {
    let fault = failed("no_such_setting=1", |_| {});
    assert_eq!(fault.errno, Errno::EINVAL);
}

#[test]
fn mount_that_the_sum_refuses_is_undone() {
    let fault = failed("context=256,kv=1,compute=100,weights=3000", |_| {});
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert!(
        fault.message.contains("model b needs at least") && fault.message.contains("taken by a"),
        "{fault}"
    );
}

#[test]
fn mount_whose_worker_refuses_the_file_is_undone() {
    let fault = failed(&format!("{SCRIPT},refuse=the file is no model"), |_| {});
    assert_eq!((fault.errno, fault.message.as_str()), (Errno::ENOEXEC, "the file is no model"));
}

#[test]
fn mount_whose_worker_dies_while_it_loads_is_undone() {
    let fault = failed(&format!("{SCRIPT},die_on_load=1"), |_| {});
    assert_eq!(fault.errno, Errno::EIO);
    assert!(fault.message.starts_with("the worker died while it loaded the model: "), "{fault}");
    let killed = failed(SCRIPT, |machine| {
        let (worker, _) = machine.take_start();
        machine.event(Event::WorkerDied { worker, how: "killed by SIGKILL".into() });
    });
    assert!(killed.message.ends_with("killed by SIGKILL"), "{killed}");
}

#[test]
fn mount_whose_worker_cannot_be_started_is_undone() {
    for errno in [Errno::EMFILE, Errno::EAGAIN, Errno::ENOMEM] {
        let fault = failed(SCRIPT, |machine| machine.short_of = Some(errno));
        assert_eq!(fault.errno, errno);
        assert!(fault.message.contains("could not be started"), "{fault}");
    }
}

#[test]
fn mount_whose_worker_hangs_while_it_loads_is_undone() {
    let fault = failed(SCRIPT, |machine| {
        machine.take_start();
        machine.pass_ms(HANG_MS);
    });
    assert_eq!(fault.errno, Errno::EIO);
    assert!(fault.message.contains("counts as hung"), "{fault}");
}

#[test]
fn mount_whose_worker_says_what_cannot_be_is_undone() {
    let fault = failed(SCRIPT, |machine| machine.become_ready_with(|d| d.pool_tokens = 1));
    assert_eq!(fault.errno, Errno::EIO);
    assert!(fault.message.contains("the worker reports 1 pool tokens; the kernel can use 64 to"), "{fault}");
}

#[test]
fn mount_that_fails_gives_its_memory_to_the_next_in_line() {
    let (mut machine, conn) = machine(TAKES);
    let first = machine.begin(conn, mount("a", &format!("{SCRIPT},refuse=the file is no model")));
    let second = machine.begin(conn, mount("b", SCRIPT));
    assert_eq!(machine.finish(conn, first).expect_err("refused").errno, Errno::ENOEXEC);
    assert!(machine.reply(conn, second).is_none(), "it waits for the worker's end");
    assert!(matches!(machine.finish(conn, second), Ok(Reply::Mounted(info)) if info.name == "b"));
    assert_eq!(machine.free(conn), [0]);
}

#[test]
fn worker_that_refuses_and_dies_late_keeps_its_memory_until_then() {
    let (mut machine, conn) = machine(2 * TAKES);
    machine.mount(conn, "a", SCRIPT).expect("there is room");
    let fault = machine.mount(conn, "b", &format!("{SCRIPT},refuse=the file is no model"));
    assert!(fault.is_err());
    assert_eq!(machine.free(conn), [0], "it has not ended");
    machine.run();
    assert_eq!(machine.free(conn), [TAKES]);
}

/// A model that gave its memory to another one and fails to come back for a generation and a text. Gives their error.
fn failed_to_return(happen: impl Fn(&mut Machine)) -> Fault {
    let (mut machine, conn) = machine(TAKES);
    machine.mount(conn, "b", SCRIPT).expect("there is room");
    let context = machine.open_with(conn, PROMPT);
    machine.generate(conn, context, 10);
    machine.mount(conn, "a", SCRIPT).expect("b rests");
    let (records, other) = (machine.records.len(), machine.fork(conn, context, 1)[0]);
    let calls: Vec<(ConnId, CallId)> =
        [begin_generation(&mut machine, conn, context), begin_text(&mut machine, conn, other)]
            .map(|call| (conn, call))
            .into();
    happen(&mut machine);
    let fault = machine.one_fault(&calls);
    machine.run();
    assert_eq!(machine.free(conn), [TAKES], "nobody has it");
    assert!(machine.names(conn).iter().any(|(name, state)| name == "b" && *state == ModelState::Offline));
    assert_eq!(machine.records.len(), records, "it stays mounted");
    // The context is there, and the other model has the memory for whoever wants it.
    let Ok(Reply::Tokens(log)) = machine.call(conn, read_all(context)) else { panic!("it is there") };
    assert_eq!(log.len(), PROMPT.len() + 10);
    let Ok(Reply::Opened { context, .. }) = machine.call(conn, Open { model: Some("a".into()), ..open() })
    else {
        panic!("there is room for a")
    };
    machine.append(conn, context, PROMPT).expect("it fits");
    assert_eq!(machine.generate(conn, context, 10).text, reference("", PROMPT, 10));
    fault
}

fn begin_generation(machine: &mut Machine, conn: ConnId, context: ContextId) -> CallId {
    machine.begin(conn, generate(context, 10))
}

fn begin_text(machine: &mut Machine, conn: ConnId, context: ContextId) -> CallId {
    machine.begin(conn, crate::machine::append(context, "text that a worker has to tokenise"))
}

fn read_all(context: ContextId) -> ReadTokens {
    ReadTokens { context, from: syscalls::Tokens(0), to: None }
}

#[test]
fn model_that_is_another_file_when_it_comes_back_goes_offline_alone() {
    let fault = failed_to_return(|machine| machine.become_ready_with(|d| d.fingerprint ^= 1));
    assert_eq!(fault.errno, Errno::ENODEV);
    assert!(fault.message.contains("model b is offline: the file is another model than before"), "{fault}");
}

#[test]
fn model_whose_worker_refuses_its_file_when_it_comes_back_goes_offline_alone() {
    let fault = failed_to_return(|machine| {
        let (worker, _) = machine.take_start();
        let fault = drivers::wire::DriverFault::new(Errno::EIO, "the file is cut off");
        machine.event(Event::WorkerRefused { worker, fault });
        machine.jobs.push_back(Job::Died(worker, "exit status 1".into()));
    });
    assert_eq!(fault.errno, Errno::ENODEV);
    assert!(fault.message.contains("model b is offline: the file is cut off"), "{fault}");
}

#[test]
fn model_that_the_system_is_short_of_memory_for_comes_back_when_it_is_not() {
    let (mut machine, conn) = machine(TAKES);
    machine.mount(conn, "b", SCRIPT).expect("there is room");
    let context = machine.open_with(conn, PROMPT);
    let before = machine.generate(conn, context, 10).text;
    machine.mount(conn, "a", SCRIPT).expect("b rests");
    machine.short_of = Some(Errno::ENOMEM);
    let call = machine.begin(conn, generate(context, 10));
    for _ in 0..20 {
        machine.turn();
    }
    assert!(machine.reply(conn, call).is_none(), "it waits");
    assert_eq!(machine.free(conn), [0], "its place is kept meanwhile");
    machine.short_of = None;
    let text = before + &generated(machine.finish_in_time(conn, call)).text;
    assert_eq!(text, reference("", PROMPT, 20));
}

#[test]
fn model_that_rests_and_has_no_worker_for_want_of_memory_gives_its_place() {
    let (mut machine, conn) = machine(TAKES);
    machine.mount(conn, "b", SCRIPT).expect("there is room");
    let context = machine.open_with(conn, PROMPT);
    let before = machine.generate(conn, context, 10).text;
    machine.short_of = Some(Errno::ENOMEM);
    machine.kill_worker();
    machine.turn();
    let call = machine.begin(conn, mount("a", SCRIPT));
    for _ in 0..20 {
        if machine.loads_of("a") == 0 {
            machine.turn();
        }
    }
    assert_eq!(machine.loads_of("a"), 1, "it need not wait for one that cannot be loaded");
    machine.short_of = None;
    machine.finish(conn, call).expect("there is room");
    let text = before + &machine.generate(conn, context, 10).text;
    assert_eq!(text, reference("", PROMPT, 20));
}
