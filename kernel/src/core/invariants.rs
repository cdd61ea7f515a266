//! The invariants of the whole state, for tests: the cost grows with everything there is.

use std::collections::{BTreeMap, BTreeSet};

use drivers::wire::PAGE_TOKENS;
use syscalls::call::Lifetime;
use syscalls::limits::{CALLS_REMEMBERED_MAX, RESULTS_KEPT_MAX};
use syscalls::{ContextId, Pid};

use super::Kernel;
use super::call::Waits;
use super::context::Context;
use super::event::ModelId;
use super::group::GroupId;
use super::process::Run;
use super::sched::{Owner, Place};
use super::user::Tally;

impl Kernel {
    /// Checks what must hold between any two events.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub fn check_invariants(&self) {
        if self.ended {
            return;
        }
        for model in self.models.keys() {
            self.check_memory(*model);
            self.check_running(*model);
        }
        for context in self.contexts.values() {
            self.check_context(context);
            self.check_page_table(context);
        }
        self.check_processes();
        self.check_pressure();
        self.check_traces();
        self.check_calls();
        self.check_devices();
        self.check_swap();
        self.check_registrations();
        self.check_users();
        self.check_programs_alive();
    }

    /// No frame, slot, sequence id or node of the tree is lost, and page tables cover what is computed.
    fn check_memory(&self, id: ModelId) {
        let model = &self.models[&id];
        let on_it = || self.contexts.values().filter(|c| c.model == id);
        assert!(
            on_it().map(|c| c.id).eq(model.contexts.iter().copied()),
            "a model's contexts are those on it"
        );
        let resident: Vec<&Context> = on_it().filter(|c| c.resident.is_some()).collect();
        model.slots.check(model.tree.all_saved().map(|(_, saved)| saved.slot));
        model.tree.check();
        let Some(memory) = &model.memory else {
            assert!(resident.is_empty(), "nobody is resident without a worker");
            assert!(model.tree.memberships().is_empty(), "nobody is in the tree without a worker");
            return;
        };
        let remnants = || memory.remnants.iter();
        let cached: usize = remnants().map(|(_, r)| r.resident.pages.len()).sum();
        memory.pool.check(resident.iter().map(|c| c.frames() as usize).sum::<usize>() + cached);
        memory.asids.check(resident.len() + memory.remnants.len());
        assert_eq!(memory.aged.len(), memory.remnants.len());
        assert!(remnants().all(|(id, r)| memory.aged.contains(&(r.pinned, r.tick, *id))));
        self.check_tree(id);
        for context in resident {
            assert!(context.computed() <= context.length(), "{} computed what is not there", context.id);
            assert!(
                context.frames() >= context.computed().div_ceil(PAGE_TOKENS),
                "{} lacks pages",
                context.id
            );
        }
    }

    /// The tree knows of each sequence what it has and is to compute, and of each page on its way to a slot whose
    /// word it waits for.
    fn check_tree(&self, id: ModelId) {
        let model = &self.models[&id];
        let Some(memory) = model.memory.as_ref().filter(|m| m.ranges) else { return };
        let contexts = model.contexts.iter().filter_map(|c| Some((*c, self.contexts[c].resident.as_ref()?)));
        let remnants = memory.remnants.iter().map(|(id, r)| (*id, &r.resident));
        let mut expected = BTreeMap::new();
        for (id, r) in contexts.chain(remnants) {
            assert_eq!(r.held, r.computed / PAGE_TOKENS, "the tree is behind with {id}");
            let counts = [r.held as usize, r.path.len() - r.held as usize, usize::from(r.tail.is_some())];
            if counts != [0, 0, 0] {
                expected.insert(id, counts);
            }
        }
        assert_eq!(model.tree.memberships(), expected);
        let told = model.page_ops.iter().chain(model.in_flight.iter().flat_map(|s| &s.pages));
        let written: BTreeSet<_> = told.filter_map(|sent| sent.writes()).collect();
        let unwritten = model.tree.all_saved().filter(|(_, saved)| !saved.ready);
        unwritten.for_each(|(_, saved)| assert!(written.contains(&saved.slot), "{:?} is lost", saved.slot));
    }

    /// What is left of the swap area is what models do not have of it, and processes are charged for what is
    /// theirs.
    fn check_swap(&self) {
        let (mut host, mut disk) = (self.swap.host, self.swap.disk);
        let mut charged: BTreeMap<Pid, u64> = BTreeMap::new();
        for model in self.models.values() {
            let taken = model.slots.taken();
            host += u64::from(taken.0) * model.slots.room();
            disk += u64::from(taken.1) * model.slots.room();
            let pids = model.tree.all_saved().filter_map(|(_, saved)| saved.charged);
            pids.for_each(|pid| *charged.entry(pid).or_default() += 1);
        }
        assert_eq!((host, disk), (self.config.swap_host_bytes, self.config.swap_disk_bytes));
        for process in self.processes.all_living() {
            let pid = process.id.pid;
            assert_eq!(process.swap_pages, charged.get(&pid).copied().unwrap_or_default(), "process {pid}");
        }
    }

    /// The generations in memory are all in the array, in their order, and what is copied there is what it was copied
    /// from.
    fn check_running(&self, id: ModelId) {
        let model = &self.models[&id];
        let runs = |c: &ContextId| self.contexts[c].place == Place::Running;
        let mut expected: Vec<(Pid, ContextId)> =
            model.contexts.iter().filter(|c| runs(c)).map(|c| (self.contexts[c].owner, *c)).collect();
        expected.sort_unstable();
        let running = &model.sched.running;
        assert!(running.iter().map(|r| (r.owner.pid, r.context)).eq(expected.iter().copied()));
        for runner in running.iter() {
            let (pid, account) = (runner.owner.pid, runner.owner.account);
            let process = self.processes.living(pid).expect("a running context has a living owner");
            assert_eq!(runner.owner, Owner::of(process, account), "the copy of process {pid} is old");
            assert!(model.sched.accounts.is_of(account, pid), "process {pid} has another's account");
            assert_eq!(Some(runner.call), self.contexts[&runner.context].generating());
            let load = expected.iter().filter(|(owner, _)| *owner == pid).count();
            assert_eq!(running.of(pid) as usize, load, "process {pid}");
        }
    }

    /// A context is where it belongs: it runs exactly if it has a generation and nothing holds its process.
    fn check_context(&self, context: &Context) {
        let id = context.id;
        let process = self.processes.living(context.owner).expect("a context has a living owner");
        assert!(process.contexts.contains(&id));
        assert!(context.length() <= context.tokens_max);
        let may_run = process.run == Run::Going && self.is_read(process) && !context.is_compacting();
        let runs = context.generation.is_some() && may_run;
        assert_eq!(context.place.runs(), runs, "{id} is {:?}", context.place);
        let in_memory = matches!(context.place, Place::Running | Place::Idle(_));
        assert_eq!(in_memory, context.resident.is_some(), "{id} is {:?}", context.place);
        assert!(context.in_step <= self.models[&context.model].in_flight.is_some());
        if let Some(generation) = &context.generation {
            assert_eq!(context.queue.front().map(|q| q.call), Some(generation.call));
            assert!(context.remaining() > 0, "{id} has nothing to compute");
        } else if !context.in_step && !context.is_compacting() {
            let begun = context.queue.front().is_none_or(|q| q.work.is_none());
            assert!(begun, "the first call of {id} has not begun");
        }
    }

    /// Every page of a context is counted in one place.
    fn check_page_table(&self, context: &Context) {
        let (table, sharers) = self.page_table(context);
        let places = [table.resident, table.swapped_host, table.swapped_disk, table.missing];
        assert_eq!(places.iter().sum::<u32>(), table.total, "{}", context.id);
        assert!(
            table.shared <= table.resident && (table.shared == 0) == sharers.is_empty(),
            "{}",
            context.id
        );
    }

    /// A process is marked as traced exactly if it is in a trace.
    fn check_traces(&self) {
        let traced = self.processes.all_living().filter(|p| p.traced).map(|p| p.id.pid);
        assert_eq!(traced.collect::<BTreeSet<_>>(), self.traces.pids());
    }

    /// What processes are charged with is what their contexts have.
    fn check_processes(&self) {
        let mut sums: BTreeMap<Pid, (u64, u64, Vec<ContextId>)> = BTreeMap::new();
        for context in self.contexts.values() {
            let sum = sums.entry(context.owner).or_default();
            sum.0 += u64::from(context.length());
            sum.1 += u64::from(context.frames());
            sum.2.push(context.id);
        }
        for process in self.processes.all_living() {
            let pid = process.id.pid;
            let (tokens, frames, contexts) = sums.remove(&pid).unwrap_or_default();
            assert_eq!((process.context_tokens, process.frames), (tokens, frames), "process {pid}");
            assert!(process.contexts.iter().copied().eq(contexts), "process {pid}");
            assert!(process.calls.iter().all(|call| self.calls.waits(*call).is_some()), "process {pid}");
            match process.conn {
                Some(conn) => {
                    let connection = self.connections.get(&conn).expect("its connection is there");
                    assert!(connection.processes.contains(&pid));
                }
                None => {
                    let lasts = process.program || process.lifetime != Lifetime::Connection;
                    assert!(lasts, "process {pid} is nobody's");
                }
            }
            assert!(process.results.len() <= RESULTS_KEPT_MAX);
            assert!(process.recent.len() <= CALLS_REMEMBERED_MAX);
        }
    }

    /// A group counts the generations in line and in memory of the processes in it, at any depth, and their rows.
    fn check_pressure(&self) {
        let mut counted: BTreeMap<GroupId, [i32; 3]> = BTreeMap::new();
        let mut count = |group: GroupId, what: usize, by: i32| {
            self.groups.around(group).for_each(|id| counted.entry(id).or_default()[what] += by);
        };
        for context in self.contexts.values() {
            let owner = self.processes.living(context.owner).expect("a context has a living owner");
            match context.place {
                Place::Waiting => count(owner.id.group, 0, 1),
                Place::Running => count(owner.id.group, 1, 1),
                Place::Parked | Place::Idle(_) => {}
            }
        }
        let steps = self.models.values().filter_map(|m| m.in_flight.as_ref());
        for (group, rows) in steps.flat_map(|step| &step.groups) {
            if self.groups.get(*group).is_some() {
                count(*group, 2, *rows);
            }
        }
        for (id, group) in self.groups.all() {
            let tasks = group.pressure.tasks();
            let has = [tasks.waiting, tasks.running, tasks.in_step].map(|n| n as i32);
            assert_eq!(has, counted.get(&id).copied().unwrap_or_default(), "{}", self.groups.name(id));
        }
    }

    /// What users have is what there is, and nobody may do more than the process on his connection that began him.
    fn check_users(&self) {
        let uid = |pid: Pid| self.processes.identity(pid).expect("it is in the table").uid;
        assert_eq!(*self.processes.of_user(), self.processes.pids().map(uid).collect());
        assert_eq!(self.contexts_of, self.contexts.values().map(|c| uid(c.owner)).collect());
        assert_eq!(self.connections_of, self.connections.values().map(|c| c.credentials.uid).collect());
        let (mut mail, mut replies) = (Tally::default(), Tally::default());
        for process in self.processes.all_living() {
            mail.grow(process.id.uid, process.mail_bytes());
            replies.grow(process.id.uid, process.reply_bytes());
        }
        assert_eq!((&self.processes.mail, &self.processes.replies), (&mail, &replies));
        let calls = self.calls.numbers().into_iter().filter_map(|call| self.calls.get(call));
        assert_eq!(*self.calls.of_user(), calls.map(|pending| uid(pending.pid)).collect());
        for process in self.processes.all_living() {
            let pid = process.id.pid;
            assert!(process.caps.are_within(process.bound), "process {pid} may do more than it began with");
            let parent = self.processes.living(process.id.parent).filter(|p| p.conn.is_some());
            if let Some(parent) = parent.filter(|parent| parent.conn == process.conn) {
                assert!(process.caps.are_within(parent.caps), "process {pid} may do more than its parent");
            }
        }
    }

    /// A process that has a program has one that the host knows of, and output goes where it belongs.
    fn check_programs_alive(&self) {
        let with_program = |pid: &Pid| self.processes.living(*pid).is_some_and(|p| p.program);
        let having = self.processes.all_living().filter(|p| p.program).map(|p| p.id.pid);
        assert!(self.programs.pids().filter(with_program).eq(having), "a program is lost");
        let follows = |call, pid: Pid| matches!(self.calls.waits(call), Some(super::call::Waits::Output(p, _)) if *p == pid);
        self.outputs.check(self.programs.pids(), follows);
        let waits = |call, name: &str| matches!(self.calls.waits(call), Some(super::call::Waits::Service(n, _)) if n == name);
        self.services.check(|pid| self.programs.has(pid), waits);
    }

    /// Every call without an answer can still get one.
    fn check_calls(&self) {
        let (waiting, known) = self.turns.all();
        for (call, pid) in waiting {
            let pending = self.calls.get(call).expect("who waits for a turn has a call");
            assert!(pending.pid == pid && pending.waits == Waits::Turn);
        }
        for pid in known {
            assert!(self.processes.living(pid).is_some(), "who computes lives");
        }
        for number in self.calls.numbers() {
            let pending = self.calls.get(number).expect("it is listed");
            let process = self.processes.living(pending.pid).expect("a call has a living process");
            assert!(process.calls.contains(&number));
            match pending.caller {
                Some(caller) => {
                    let connection = self.connections.get(&caller.conn).expect("its connection is there");
                    assert!(connection.in_flight.contains(&caller.call));
                    assert_eq!(process.conn, Some(caller.conn), "a stranger hears call {number:?}");
                }
                None => {
                    let lasts = process.program || process.lifetime != Lifetime::Connection;
                    assert!(lasts, "nobody hears call {number:?}");
                }
            }
            if let Waits::Answer(model) = pending.waits {
                assert!(self.models.contains_key(&model), "call {number:?} waits for a model that is gone");
            }
            if let Waits::Context(context) = pending.waits {
                let awake =
                    self.contexts.get(&context).is_some_and(|c| c.queue.iter().any(|q| q.call == number));
                let asleep =
                    self.asleep.get(&context).is_some_and(|c| c.queue.iter().any(|q| q.call == number));
                assert!(awake || asleep, "call {number:?} is in no line");
            }
        }
    }
}
