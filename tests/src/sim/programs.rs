//! The clients of a load: each is a process that carries out its tasks by system calls, as a program would.
//!
//! A task is a thread of acts. It makes one call at a time, and goes on when the reply is there. What is refused for
//! now (EAGAIN, EMFILE) is asked again a second later; any other fault ends the answer, which counts as failed, and
//! the task goes on behind it.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail};
use kernel::core::Event as Happening;
use kernel::core::event::ConnId;
use syscalls::call::{Append, Close, Fork, Generate, Hello, Open, Spawn};
use syscalls::client::hello;
use syscalls::reply::{Frame, GeneratedReply};
use syscalls::{Call, CallId, ContextId, Errno, Event, Fault, Pid, Reply, Tokens};

use super::chance::mix;
use super::load::{Act, Client, Load};
use super::measure::Measure;

/// The world that programs live in.
pub type World = super::world::World<Alarm>;

/// Connections that clients have at most; with more clients than this, several share one, as behind a gateway.
const CONNECTIONS_MAX: usize = 2048;

/// How long a program waits before it asks again what was refused for now.
const AGAIN_US: u64 = 1_000_000;

/// What programs wait for beside replies.
#[derive(Clone, Copy, Debug)]
pub enum Alarm {
    /// A task begins.
    Begin(usize),
    /// A thread has thought, or tries again.
    Resume(u64),
    /// A connection reads again.
    Reads(ConnId),
    /// A client goes away.
    Leaves(usize),
}

/// A client's process.
#[derive(Clone, Copy, Debug)]
struct Process {
    conn: ConnId,
    /// Absent where it is the connection's own.
    acts_as: Option<Pid>,
    pid: Pid,
    /// It shares its connection, so going away would take others with it.
    shares: bool,
}

/// A task that is being carried out.
#[derive(Clone, Debug)]
struct Thread {
    task: usize,
    copy: u32,
    turn: u32,
    at: usize,
    context: Option<ContextId>,
    /// When the client began to wait for the answer of now.
    asked: Option<u64>,
    /// When its last token came.
    last: Option<u64>,
}

/// All clients.
pub struct Programs<'a> {
    load: &'a Load,
    processes: Vec<Process>,
    threads: HashMap<u64, Thread>,
    calls: HashMap<CallId, u64>,
    last_thread: u64,
    models: usize,
    generate: Generate,
    open: Open,
    /// What is measured.
    pub measure: Measure,
    /// Answers that came whole.
    pub answers: u64,
    /// Answers that failed.
    pub failed: BTreeMap<String, u64>,
    /// Answers whose client has gone.
    pub abandoned: u64,
    /// Calls that were made again.
    pub refused: u64,
    /// Digests of answers.
    pub texts: BTreeMap<(u32, u32, u32), u64>,
}

impl<'a> Programs<'a> {
    /// Connects the clients of a load, which use `models` models in turns, and sets the alarms of their tasks.
    ///
    /// # Errors
    ///
    /// The kernel refuses a process.
    pub fn start(world: &mut World, load: &'a Load, models: usize) -> Result<Programs<'a>> {
        let template =
            serde_json::json!({"context": 0, "sampling": {"temperature": 0.0}, "ignore_eos": true});
        let mut programs = Programs {
            load,
            processes: Vec::with_capacity(load.clients.len()),
            threads: HashMap::new(),
            calls: HashMap::new(),
            last_thread: 0,
            models,
            generate: serde_json::from_value(template)?,
            open: serde_json::from_value(serde_json::json!({}))?,
            measure: Measure::default(),
            answers: 0,
            failed: BTreeMap::new(),
            abandoned: 0,
            refused: 0,
            texts: BTreeMap::new(),
        };
        let each = load.clients.len().div_ceil(CONNECTIONS_MAX).max(1);
        for group in load.clients.chunks(each) {
            programs.connect_group(world, group)?;
        }
        let now = world.now();
        load.tasks.iter().enumerate().for_each(|(n, task)| world.alarm(now + task.at_us, Alarm::Begin(n)));
        Ok(programs)
    }

    fn connect_group(&mut self, world: &mut World, group: &[Client]) -> Result<()> {
        let (conn, own) = connect(world, &group[0])?;
        if let [_] = group {
            self.processes.push(Process { conn, acts_as: None, pid: own, shares: false });
            return Ok(());
        }
        for client in group {
            let (class, nice) = (Some(client.class), Some(client.nice));
            let spawn = Spawn { class, nice, ..spawn(&client.name)? };
            let Reply::Spawned { pid } = world.finish(conn, None, spawn)? else {
                bail!("spawn has another reply")
            };
            self.processes.push(Process { conn, acts_as: Some(pid), pid, shares: true });
        }
        Ok(())
    }

    /// The clients' processes.
    pub fn pids(&self) -> impl Iterator<Item = Pid> + '_ {
        self.processes.iter().map(|p| p.pid)
    }

    /// Ends all processes.
    pub fn leave(&mut self, world: &mut World) {
        for process in &self.processes {
            world.event(Happening::Disconnected { conn: process.conn });
        }
    }

    /// Tasks that are under way.
    pub fn under_way(&self) -> usize {
        self.threads.len()
    }

    /// Something that a program waited for has come.
    pub fn alarm(&mut self, world: &mut World, alarm: Alarm) -> Result<()> {
        match alarm {
            Alarm::Begin(task) => {
                let thread = Thread { task, copy: 0, turn: 0, at: 0, context: None, asked: None, last: None };
                let number = self.enter(thread);
                self.go_on(world, number);
            }
            Alarm::Resume(thread) => self.go_on(world, thread),
            Alarm::Reads(conn) => world.event(Happening::OutputLow { conn }),
            Alarm::Leaves(client) => self.go_away(world, client)?,
        }
        Ok(())
    }

    fn enter(&mut self, thread: Thread) -> u64 {
        self.last_thread += 1;
        self.threads.insert(self.last_thread, thread);
        self.last_thread
    }

    /// Begins the next act of a thread, if there is one.
    fn go_on(&mut self, world: &mut World, number: u64) {
        let load = self.load;
        let Some(thread) = self.threads.get_mut(&number) else { return };
        let task = &load.tasks[thread.task];
        let Some(act) = task.acts.get(thread.at) else {
            self.threads.remove(&number);
            return;
        };
        if let Act::Think(us) = act {
            thread.at += 1;
            return world.alarm(world.now() + us, Alarm::Resume(number));
        }
        let Some(call) = self.call_of(number, act) else {
            // Without a context there is nothing to do to it.
            return self.next_act(world, number);
        };
        let waits = |thread: &&mut Thread| thread.asked.is_none() && !matches!(act, Act::Close);
        if let Some(thread) = self.threads.get_mut(&number).filter(waits) {
            thread.asked = Some(world.now());
            self.measure.asks(task.client, world.now());
        }
        if matches!(call, Call::Generate(_)) {
            self.meet_faults(world, task.client);
        }
        let process = self.processes[task.client];
        let id = world.call(process.conn, process.acts_as, call);
        self.calls.insert(id, number);
    }

    fn call_of(&self, number: u64, act: &Act) -> Option<Call> {
        let thread = self.threads.get(&number)?;
        if let Act::Open = act {
            let model = self.load.tasks[thread.task].client % self.models;
            return Some(Open { model: Some(model_name(model)), ..self.open.clone() }.into());
        }
        let context = thread.context?;
        match act {
            Act::Append(parts) => {
                let mut tokens = Vec::with_capacity(parts.iter().map(|p| p.tokens as usize).sum());
                parts.iter().for_each(|part| part.write(&mut tokens));
                Some(
                    Append { context, text: None, tokens: Some(tokens), messages: None, special: false }
                        .into(),
                )
            }
            Act::Generate(tokens) => {
                Some(Generate { context, max_tokens: Some(Tokens(*tokens)), ..self.generate.clone() }.into())
            }
            Act::Fork(copies) => Some(Fork { context, copies: *copies, length: None }.into()),
            Act::Close => Some(Close { context }.into()),
            Act::Open | Act::Think(_) => None,
        }
    }

    fn next_act(&mut self, world: &mut World, number: u64) {
        if let Some(thread) = self.threads.get_mut(&number) {
            thread.at += 1;
            self.go_on(world, number);
        }
    }

    fn meet_faults(&mut self, world: &mut World, client: usize) {
        let process = self.processes[client];
        if let Some(us) = world.faults().slow_reader_us() {
            world.event(Happening::OutputHigh { conn: process.conn });
            world.alarm(world.now() + us, Alarm::Reads(process.conn));
        }
        if !process.shares
            && let Some(us) = world.faults().disconnect_us()
        {
            world.alarm(world.now() + us, Alarm::Leaves(client));
        }
    }

    /// A client goes away with all that it waits for, and comes back as another process.
    fn go_away(&mut self, world: &mut World, client: usize) -> Result<()> {
        let conn = self.processes[client].conn;
        let load = self.load;
        let now = world.now();
        self.threads.retain(|_, thread| {
            if load.tasks[thread.task].client != client {
                return true;
            }
            if thread.asked.is_some() {
                self.abandoned += 1;
                self.measure.answered(client, now);
            }
            false
        });
        world.event(Happening::Disconnected { conn });
        let (conn, pid) = connect(world, &load.clients[client])?;
        self.processes[client] = Process { conn, acts_as: None, pid, shares: false };
        Ok(())
    }

    /// A program reads something.
    pub fn heard(&mut self, world: &mut World, frame: Frame) {
        match frame {
            Frame::Event(id, Event::Tokens { tokens, .. }) => {
                if let Some(number) = self.calls.get(&id).copied() {
                    self.tokens_came(world.now(), number, tokens.len() as u64);
                }
            }
            Frame::Event(..) => {}
            Frame::Reply(id, reply) => {
                if let Some(number) = self.calls.remove(&id) {
                    self.replied(world, number, reply);
                }
            }
        }
    }

    fn tokens_came(&mut self, now: u64, number: u64, tokens: u64) {
        let Some(thread) = self.threads.get_mut(&number) else { return };
        let class = self.load.clients[self.load.tasks[thread.task].client].class;
        let since = thread.last.or(thread.asked).unwrap_or(now);
        self.measure.tokens(class, thread.last.is_none(), now - since, tokens, now);
        thread.last = Some(now);
    }

    fn replied(&mut self, world: &mut World, number: u64, reply: Result<Reply, Fault>) {
        let Some(thread) = self.threads.get_mut(&number) else { return };
        match reply {
            Err(fault) if matches!(fault.errno, Errno::EAGAIN | Errno::EMFILE) => {
                self.refused += 1;
                return world.alarm(world.now() + AGAIN_US, Alarm::Resume(number));
            }
            Err(fault) => {
                *self.failed.entry(format!("{:?}", fault.errno)).or_default() += 1;
                self.answer_ended(world.now(), number);
            }
            Ok(Reply::Opened { context, .. }) => thread.context = Some(context),
            Ok(Reply::Forked { contexts }) => return self.fork(world, number, contexts),
            Ok(Reply::Generated(answer)) => {
                self.answers += 1;
                self.keep_text(number, &answer);
                self.answer_ended(world.now(), number);
            }
            Ok(_) => {}
        }
        self.next_act(world, number);
    }

    fn keep_text(&mut self, number: u64, answer: &GeneratedReply) {
        let Some(thread) = self.threads.get_mut(&number) else { return };
        let digest = answer.tokens.iter().fold(0, |digest, token| mix(digest, token.0.into()));
        self.texts.insert((thread.task as u32, thread.copy, thread.turn), digest);
        thread.turn += 1;
    }

    fn answer_ended(&mut self, now: u64, number: u64) {
        let Some(thread) = self.threads.get_mut(&number) else { return };
        thread.last = None;
        if thread.asked.take().is_some() {
            self.measure.answered(self.load.tasks[thread.task].client, now);
        }
    }

    /// The copies go on with what is left to do, and the context itself is closed.
    fn fork(&mut self, world: &mut World, number: u64, copies: Vec<ContextId>) {
        let Some(thread) = self.threads.remove(&number) else { return };
        let (now, client) = (world.now(), self.load.tasks[thread.task].client);
        let (at, asked) = (thread.at + 1, Some(now));
        for (copy, context) in (1..).zip(copies) {
            self.measure.asks(client, now);
            let copy = Thread { copy, at, context: Some(context), asked, ..thread.clone() };
            let number = self.enter(copy);
            self.go_on(world, number);
        }
        self.measure.answered(client, now);
        if let Some(context) = thread.context {
            let process = self.processes[client];
            world.call(process.conn, process.acts_as, Close { context });
        }
    }
}

/// The name that a model is mounted under.
pub fn model_name(number: usize) -> String {
    format!("m{number}")
}

fn connect(world: &mut World, client: &Client) -> Result<(ConnId, Pid)> {
    let conn = world.connect();
    let (class, nice) = (client.class, client.nice);
    match world.finish(conn, None, Hello { class, nice, ..hello(&client.name) })? {
        Reply::Hello(hello) => Ok((conn, hello.pid)),
        _ => bail!("hello has another reply"),
    }
}

/// A call that makes a child with its parent's class and nice value.
///
/// # Errors
///
/// None: every other argument may be left out.
pub fn spawn(name: &str) -> Result<Spawn> {
    Ok(serde_json::from_value(serde_json::json!({"name": name}))?)
}

#[cfg(test)]
mod tests {
    use syscalls::call::Class;

    use super::super::load::{Part, Task, clients};
    use super::super::run::{Operator, Setting};
    use super::super::world::Passed;
    use super::*;

    #[test]
    fn task_whose_context_is_not_opened_waits_for_no_answer_afterwards() {
        let (mut world, _) = Operator::boot(&Setting::default()).expect("the model mounts");
        let prompt = vec![Part { seed: 1, tokens: 8 }];
        let tasks = [0, 1].map(|client| Task::request(0, client, prompt.clone(), 2));
        let load = Load::new("two".into(), clients(2, "c", Class::Normal), Vec::from(tasks));
        // The second client wants a second model, which is not there.
        let mut programs = Programs::start(&mut world, &load, 2).expect("both connect");
        while let Some(passed) = world.advance() {
            if let Passed::Alarm(alarm) = passed {
                programs.alarm(&mut world, alarm).expect("nobody goes away");
            }
            while let Some((_, frame)) = world.heard() {
                programs.heard(&mut world, frame);
            }
        }
        assert_eq!((programs.answers, programs.failed.values().sum::<u64>()), (1, 1));
        assert_eq!([0, 1].map(|client| programs.measure.waits(client)), [false; 2]);
    }
}
