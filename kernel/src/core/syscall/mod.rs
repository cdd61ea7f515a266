//! System calls: one file for each, and the one place where their outcome takes effect.
//!
//! A call is a function of the kernel, the caller and its arguments. It checks, acts, and says how its reply comes
//! about ([`Next`]); it never writes to a connection itself. A call that is misused gets a fault and changes
//! nothing.

mod absent;
mod append;
mod attach;
mod close;
mod compute;
mod detach;
mod detokenize;
mod embed;
mod exit;
mod follow;
mod fork;
mod generate;
mod groups;
mod hello;
mod inspect;
mod kill;
mod kill_group;
mod models;
mod mount;
mod named;
mod nesting;
mod open;
mod output;
mod ps;
mod receive;
mod segments;
mod send;
mod service_list;
mod service_restart;
mod service_start;
mod service_status;
mod service_stop;
mod setgroup;
mod setlimit;
mod setpolicy;
mod setpriority;
mod share;
mod shutdown;
mod sigwait;
mod snapshot;
mod spawn;
mod stat;
mod store;
mod subscribe;
mod sysinfo;
mod tokenize;
mod tokens;
mod trace;
mod train;
mod truncate;
mod unmount;
mod wait;
mod r#yield;

use drivers::wire::Question;
use syscalls::call::{Follow, Signal};
use syscalls::limits::CALLS_IN_FLIGHT_MAX;
use syscalls::reply::Frame;
use syscalls::{Call, CallId, ContextId, Errno, Fault, Pid, Reply, Request};

use super::Kernel;
use super::call::{CallNo, Opening, Pending, Waits};
use super::capability::{Caps, taken_by};
use super::context::Work;
use super::effect::{Effect, StoreOrder};
use super::event::{ConnId, ModelId, Now};
use super::snapshot::SnapshotRecord;
use nesting::check_nesting;

/// Who makes a call.
#[derive(Clone, Debug)]
struct Caller {
    conn: ConnId,
    /// The process that acts.
    pid: Pid,
    uid: u32,
    caps: Caps,
    /// The number of its call in traces, where it is traced.
    traced: Option<u64>,
}

/// How the reply of a call comes about.
enum Next {
    /// It is here.
    Reply(Reply),
    /// The call gets in line on a context.
    Queue(ContextId, Work),
    /// The worker of a model answers.
    Ask(ModelId, Question),
    /// The host does something with the values of the caller's user.
    Store(StoreOrder),
    /// The host keeps this snapshot of a context.
    Keep(ContextId, Box<SnapshotRecord>),
    /// It gets in line to compute on a device for so many microseconds.
    Turn { device: usize, us: u32 },
    /// Something else must happen first; ETIMEDOUT if it does not within so many milliseconds.
    Wait(Waits, Option<u64>),
    /// It is here, and then this process ends.
    End(Pid, u8),
    /// It is here, and then these processes get a signal.
    Signal(Vec<Pid>, Signal),
    /// It is here, and then this process is taken off its connection.
    Detach(Pid),
    /// It is the reply of this other call.
    Follow(CallNo, Follow),
    /// It is here, and then the daemon ends.
    Terminate,
}

type Outcome = Result<Next, Fault>;

/// What is answered at once, if anything is.
fn outcome_of(outcome: &Outcome) -> Option<Result<&Reply, &Fault>> {
    match outcome {
        Ok(Next::Reply(reply)) => Some(Ok(reply)),
        Ok(Next::End(..) | Next::Signal(..) | Next::Detach(_) | Next::Terminate) => Some(Ok(&Reply::Done {})),
        Err(fault) => Some(Err(fault)),
        Ok(
            Next::Queue(..)
            | Next::Ask(..)
            | Next::Store(_)
            | Next::Keep(..)
            | Next::Turn { .. }
            | Next::Wait(..)
            | Next::Follow(..),
        ) => None,
    }
}

/// A call that is done and has nothing to say.
const DONE: Outcome = Ok(Next::Reply(Reply::Done {}));

impl Kernel {
    /// Takes a request.
    pub(super) fn request(&mut self, conn: ConnId, request: Request) {
        if !self.connections.contains_key(&conn) {
            return;
        }
        self.counters.calls += 1;
        let id = request.id;
        let outcome = match request.call {
            Call::Hello(args) => self.hello(conn, args).map(Next::Reply),
            call => match check_nesting(&call).and_then(|()| self.caller(conn, id, request.pid)) {
                Ok(caller) => return self.act(&caller, id, call),
                Err(fault) => Err(fault),
            },
        };
        if let Ok(Next::Reply(reply)) = outcome {
            self.send(conn, Frame::Reply(id, Ok(reply)));
        } else if let Err(fault) = outcome {
            self.send(conn, Frame::Reply(id, Err(fault)));
        }
    }

    /// Settles who acts: the connection's own process, or one that it spawned.
    fn caller(&mut self, conn: ConnId, id: CallId, acting: Option<Pid>) -> Result<Caller, Fault> {
        let connection = self.connections.get(&conn).expect("the caller has looked");
        let Some(own) = connection.pid else {
            return Err(Fault::new(Errno::EPROTO, "the first call must be hello"));
        };
        if connection.in_flight.len() >= CALLS_IN_FLIGHT_MAX {
            let message = format!(
                "{CALLS_IN_FLIGHT_MAX} calls are unanswered, which is the limit; wait for some of them"
            );
            return Err(Fault::new(Errno::EAGAIN, message));
        }
        if connection.in_flight.contains(&id) {
            let message = format!("request {id} is not answered yet; give each request a number of its own");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let pid = acting.unwrap_or(own);
        self.check_acts_for(conn, own, pid)?;
        let process = self.process(pid)?;
        let caller = Caller { conn, pid, uid: process.id.uid, caps: process.caps, traced: None };
        self.calls.of_user().check(caller.uid, caller.caps, 1, self.config.user.calls, "calls")?;
        if let Some(process) = self.processes.living_mut(pid) {
            process.id.counters.calls += 1;
        }
        Ok(caller)
    }

    /// Checks that a process may act for another: it is on the same connection and below it.
    fn check_acts_for(&self, conn: ConnId, own: Pid, pid: Pid) -> Result<(), Fault> {
        let process = self.process(pid)?;
        if process.conn == Some(conn) && self.processes.descends(pid, own) {
            return Ok(());
        }
        let message = format!("process {pid} is no descendant of process {own}, so {own} cannot act for it");
        Err(Fault::new(Errno::EPERM, message))
    }

    /// Carries a call out, and makes its outcome take effect.
    fn act(&mut self, caller: &Caller, id: CallId, call: Call) {
        let name = call.name();
        let caller = &Caller { traced: self.trace_call(caller.pid, &call), ..caller.clone() };
        let outcome = self.carry_out(caller, call);
        if let Some(result) = outcome_of(&outcome) {
            self.remember_call(caller.pid, name, self.now, result);
            self.trace_return(caller.pid, (caller.traced, name), self.now, result);
        }
        match outcome {
            Ok(Next::Reply(reply)) => self.send(caller.conn, Frame::Reply(id, Ok(reply))),
            Err(fault) => self.send(caller.conn, Frame::Reply(id, Err(fault))),
            Ok(Next::End(pid, status)) => {
                self.send(caller.conn, Frame::Reply(id, Ok(Reply::Done {})));
                self.end_process(pid, status);
            }
            Ok(Next::Signal(pids, signal)) => {
                self.send(caller.conn, Frame::Reply(id, Ok(Reply::Done {})));
                pids.into_iter().for_each(|pid| self.signal(pid, signal));
            }
            Ok(Next::Detach(pid)) => {
                self.send(caller.conn, Frame::Reply(id, Ok(Reply::Done {})));
                self.detach(pid);
            }
            Ok(Next::Follow(call, args)) => {
                if let Some(connection) = self.connections.get_mut(&caller.conn) {
                    connection.in_flight.insert(id);
                }
                if let Some(pending) = self.calls.get_mut(call) {
                    // Its answer is that of this call, too.
                    pending.traced = pending.traced.or(caller.traced);
                }
                self.follow(call, super::call::Caller { conn: caller.conn, call: id }, args.replay);
            }
            Ok(Next::Terminate) => {
                self.send(caller.conn, Frame::Reply(id, Ok(Reply::Done {})));
                self.terminate();
            }
            Ok(Next::Queue(context, work)) => {
                let call = self.keep(caller, id, name, Waits::Context(context), None);
                self.enqueue(context, call, work);
            }
            Ok(Next::Ask(model, question)) => {
                let call = self.keep(caller, id, name, Waits::Answer(model), None);
                if let Err(fault) = self.ask(model, call, None, question) {
                    self.finish(call, Err(fault));
                }
            }
            Ok(Next::Store(order)) => {
                let call = self.keep(caller, id, name, Waits::Store, None);
                self.store_orders.insert(call.0, caller.uid);
                self.out.push(Effect::Store { number: call.0, uid: caller.uid, order });
            }
            Ok(Next::Keep(context, record)) => {
                let call = self.keep(caller, id, name, Waits::Store, None);
                self.keep_snapshot(call, context, *record);
            }
            Ok(Next::Turn { device, us }) => {
                let call = self.keep(caller, id, name, Waits::Turn, None);
                self.turns.wait(call, caller.pid, device, us);
            }
            Ok(Next::Wait(waits, timeout_ms)) => self.wait_for(caller, id, name, waits, timeout_ms),
        }
    }

    /// Keeps a call until something else has happened, and tells whoever is to do that.
    fn wait_for(
        &mut self,
        caller: &Caller,
        id: CallId,
        name: &'static str,
        waits: Waits,
        timeout_ms: Option<u64>,
    ) {
        let told = waits.clone();
        let call = self.keep(caller, id, name, waits, timeout_ms);
        match told {
            Waits::Mount(model) => self.wait_for_model(model, call, None),
            Waits::Open(model, open) => self.wait_for_model(model, call, Some(open)),
            Waits::Events(kinds) => self.subscriptions.insert(call, caller.conn, caller.uid, kinds),
            Waits::Calls(args) => self.begin_trace(call, caller.conn, &args),
            Waits::Output(pid, lines) => self.follow_output(pid, call, caller.conn, lines),
            Waits::Service(name, _) => {
                if let Some(service) = self.services.get_mut(&name) {
                    service.waiters.insert(call);
                }
            }
            _ => {}
        }
    }

    /// Has a call wait until a model is there, and perhaps open a context on it then.
    fn wait_for_model(&mut self, id: ModelId, call: CallNo, open: Option<Box<Opening>>) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.waiters.push((call, open));
        self.demand(id);
    }

    fn carry_out(&mut self, caller: &Caller, call: Call) -> Outcome {
        if let Some((capability, what)) = taken_by(&call) {
            caller.caps.need(capability, what)?;
        }
        match call {
            Call::Hello(_) => Err(Fault::new(Errno::EPROTO, "hello comes once, first")),
            Call::Spawn(args) => self.sys_spawn(caller, args),
            Call::Exit(args) => self.sys_exit(caller, &args),
            Call::Wait(args) => self.sys_wait(caller, &args),
            Call::Detach(args) => self.sys_detach(caller, &args),
            Call::Attach(args) => self.sys_attach(caller, &args),
            Call::Follow(args) => self.sys_follow(caller, args),
            Call::Kill(args) => self.sys_kill(caller, &args),
            Call::KillGroup(args) => self.sys_kill_group(caller, &args),
            Call::Output(args) => self.sys_output(caller, &args),
            Call::Sigwait(args) => self.sys_sigwait(caller, &args),
            Call::Ps(args) => Ok(Next::Reply(self.sys_ps(caller, &args))),
            Call::Inspect(args) => self.sys_inspect(caller, &args),
            Call::Stat(args) => self.sys_stat(caller, &args),
            Call::Setpriority(args) => self.sys_setpriority(caller, &args),
            Call::Setpolicy(args) => self.sys_setpolicy(&args),
            Call::Setgroup(args) => self.sys_setgroup(caller, &args),
            Call::Groups(_) => Ok(Next::Reply(self.sys_groups(caller))),
            Call::Setlimit(args) => self.sys_setlimit(caller, &args),
            Call::Open(args) => self.sys_open(caller, args),
            Call::Fork(args) => self.sys_fork(caller, args),
            Call::Close(args) => self.sys_close(caller, &args),
            Call::Append(args) => self.sys_append(caller, args),
            Call::Generate(args) => self.sys_generate(caller, args),
            Call::Truncate(args) => self.sys_truncate(caller, &args),
            Call::Tokens(args) => self.sys_tokens(caller, args),
            Call::Share(args) => self.sys_share(caller, args),
            Call::Unshare(args) => self.sys_unshare(caller, &args),
            Call::Snapshot(args) => self.sys_snapshot(caller, args),
            Call::Restore(args) => self.sys_restore(caller, args),
            Call::Snapshots(_) => Ok(Next::Reply(self.sys_snapshots(caller))),
            Call::Discard(args) => self.sys_discard(caller, &args),
            Call::ServiceStart(args) => self.sys_service_start(caller, args),
            Call::ServiceStop(args) => self.sys_service_stop(caller, &args),
            Call::ServiceRestart(args) => self.sys_service_restart(caller, &args),
            Call::ServiceStatus(args) => self.sys_service_status(caller, &args),
            Call::ServiceList(_) => Ok(Next::Reply(self.sys_service_list())),
            Call::Segments(_) => Ok(Next::Reply(self.sys_segments(caller))),
            Call::Tokenize(args) => self.sys_tokenize(args),
            Call::Detokenize(args) => self.sys_detokenize(args),
            Call::Embed(args) => self.sys_embed(args),
            Call::Send(args) => self.sys_send(caller, args),
            Call::Receive(args) => self.sys_receive(caller, &args),
            Call::StorePut(args) => self.sys_store_put(caller, args),
            Call::StoreGet(args) => self.sys_store_get(caller, args),
            Call::StoreDelete(args) => self.sys_store_delete(caller, args),
            Call::StoreList(args) => self.sys_store_list(caller, args),
            Call::StoreSearch(args) => self.sys_store_search(caller, args),
            Call::Mount(args) => self.sys_mount(args),
            Call::Unmount(args) => self.sys_unmount(&args),
            Call::Compute(args) => self.sys_compute(caller, &args),
            Call::Yield(_) => self.sys_yield(caller),
            Call::Train(args) => self.sys_train(caller, &args),
            Call::Models(_) => Ok(Next::Reply(self.sys_models())),
            Call::Subscribe(args) => self.sys_subscribe(caller, &args),
            Call::Trace(args) => self.sys_trace(caller, args),
            Call::Sysinfo(_) => Ok(Next::Reply(self.sys_sysinfo())),
            Call::Shutdown(_) => self.sys_shutdown(),
            call => Err(absent::fault(&call)),
        }
    }

    /// Keeps a call until its reply has come about.
    fn keep(
        &mut self,
        caller: &Caller,
        id: CallId,
        name: &'static str,
        waits: Waits,
        timeout_ms: Option<u64>,
    ) -> CallNo {
        let call = self.calls.number();
        let deadline = timeout_ms.map(|ms| Now(self.now.0.saturating_add(ms.saturating_mul(1000))));
        let waits_for = self.waited_for(caller.pid, &waits);
        let (pid, since) = (caller.pid, self.now);
        let heard = Some(super::call::Caller { conn: caller.conn, call: id });
        let (uid, traced) = (caller.uid, caller.traced);
        self.calls.insert(
            call,
            Pending { caller: heard, pid, uid, name, since, waits, waits_for, deadline, traced },
        );
        if let Some(awaited) = waits_for {
            self.inherit_of(caller.pid, awaited);
        }
        if let Some(process) = self.processes.living_mut(caller.pid) {
            process.calls.insert(call);
        }
        if let Some(connection) = self.connections.get_mut(&caller.conn) {
            connection.in_flight.insert(id);
        }
        call
    }
}
