//! How models come and go.

use drivers::wire::{DriverFault, ModelDescription, PAGE_TOKENS};
use syscalls::call::Mount;
use syscalls::event::WorkerChange;
use syscalls::{ContextId, Errno, Event, Fault, Reply};

use super::super::Kernel;
use super::super::call::{CallNo, Opening};
use super::super::device::Holder;
use super::super::effect::{Effect, Happening, LogLevel, Record, Subject};
use super::super::event::{ModelId, Now, WorkerId};
use super::super::memory::Memory;
use super::super::process::Interrupted;
use super::{Model, State};

/// The largest pool that is believed, in tokens: the frames of a terabyte at a kilobyte a token.
const POOL_TOKENS_MAX: u32 = 1 << 30;

/// The most tokens of a tile that are believed. Those of tensor units have up to 256 rows.
const ROW_TILE_MAX: u32 = 1024;

impl Kernel {
    /// Enters a model and has its file looked at; its first worker is started when it has a place in memory.
    pub(in crate::core) fn enter_model(&mut self, name: String, mount: Mount) -> ModelId {
        self.next_model += 1;
        let id = ModelId(self.next_model);
        self.models.insert(id, Model::new(id, name, mount));
        self.inspect_model(id, 0);
        id
    }

    /// Has the file of a model looked at.
    pub(in crate::core) fn inspect_model(&mut self, id: ModelId, delay_ms: u64) {
        let Some(model) = self.models.get(&id) else { return };
        let load = Box::new(model.load_request(&self.config, &self.devices));
        self.out.push(Effect::Inspect { model: id, load, delay_ms });
    }

    /// Mounts again what was mounted when the daemon ended, publishes what was shared on it, and makes processes of those
    /// that outlived it.
    pub(in crate::core) fn booted(&mut self, records: Vec<Record>) {
        let (mut segments, mut registered) = (Vec::new(), Vec::new());
        let (mut processes, mut images, mut interrupted) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Mount(mount) => {
                    let Some(name) = mount.name.clone() else { continue };
                    if self.models.values().all(|m| m.name != name) {
                        self.enter_model(name, mount);
                    }
                }
                Record::Registered(registration) => registered.push(registration),
                Record::Segment(segment) => segments.push(segment),
                Record::Snapshot(snapshot) => self.snapshots.insert(*snapshot),
                Record::Process(image) => processes.push(*image),
                Record::Context(image) => images.push(*image),
                Record::Numbered(last) => self.processes.count_from(last),
                Record::Interrupted { pid, uid, name } => interrupted.push(Interrupted { pid, uid, name }),
            }
        }
        self.restore_registered(registered);
        segments.into_iter().for_each(|segment| self.restore_segment(*segment));
        self.restore(processes, images, interrupted);
    }

    /// Has the store given all records that it should have. A model that is being mounted has none yet.
    pub(in crate::core) fn put_records_back(&mut self) {
        let mounted = self.models.values().filter(|m| !m.is_being_mounted());
        let mounts = mounted.map(|m| Record::Mount(m.mount.clone()));
        let registered = self.registered.values().cloned().map(Record::Registered);
        let records = mounts.chain(registered).chain(self.segment_records()).chain(self.snapshots.records());
        let records: Vec<Record> = records.collect();
        let line =
            format!("the store of records was begun anew; {} records are written to it", records.len());
        self.out.push(Effect::Log(LogLevel::Warn, line));
        self.out.push(Effect::PutBack(records));
    }

    /// Has a new worker of a model started.
    pub(in crate::core) fn start_worker(&mut self, id: ModelId, delay_ms: u64) {
        self.resize_at_start(id);
        let now = self.now;
        let Some(model) = self.models.get_mut(&id) else { return };
        model.incarnation += 1;
        model.worker_os_pid = 0;
        model.started = Now(now.0.saturating_add(delay_ms.saturating_mul(1000)));
        model.heard = model.started;
        let load = Box::new(model.load_request(&self.config, &self.devices));
        let (worker, digest) = (model.worker(), model.digest);
        self.out.push(Effect::StartWorker { worker, load, digest, delay_ms });
        self.worker_changed(id, WorkerChange::Starting, "");
    }

    /// The file of a model is being read; whoever waits for it hears how far that has come.
    pub(in crate::core) fn checking(&mut self, id: ModelId, fraction: f32) {
        let Some(model) = self.models.get(&id) else { return };
        let what = format!("checking {}", model.name);
        for (call, _) in model.waiters.clone() {
            self.report(call, Event::Progress { fraction, what: what.clone() });
        }
    }

    pub(in crate::core) fn worker_loading(&mut self, worker: WorkerId, os_pid: u32, fraction: f32) {
        let now = self.now;
        let Some(model) = self.live_model(worker) else { return };
        model.worker_os_pid = os_pid;
        model.heard = now;
        let what = format!("loading {}", model.name);
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        for (call, _) in model.waiters.clone() {
            self.report(call, Event::Progress { fraction, what: what.clone() });
        }
    }

    pub(in crate::core) fn worker_ready(
        &mut self,
        worker: WorkerId,
        os_pid: u32,
        description: Box<ModelDescription>,
    ) {
        let (sequences_max, now) = (self.config.sequences_max, self.now);
        let Some(model) = self.live_model(worker) else { return };
        if model.is_ready() {
            return self.worker_broken(worker, "it said twice that it is ready");
        }
        model.worker_os_pid = os_pid;
        if let Err(why) = check(&description, sequences_max) {
            return self.worker_no_good(worker, Fault::new(Errno::EIO, why));
        }
        let other = model.description.as_ref().is_some_and(|d| d.fingerprint != description.fingerprint);
        if other {
            let fault = Fault::new(Errno::EIO, "the file is another model than before");
            return self.worker_no_good(worker, fault);
        }
        let first = model.state == State::Loading;
        model.state = State::Ready;
        if first {
            model.turn_since = now;
        }
        model.shortages = 0;
        (model.last_use, model.load_us) = (now, now.0.saturating_sub(model.started.0));
        model.memory = Some(Memory::new(&description));
        model.slots.describe(&description);
        model.description = Some(description);
        let (name, mount) = (model.name.clone(), model.mount.clone());
        let subject = Subject::of_model(&name, Happening::ModelReady);
        self.out.push(Effect::LogAbout(LogLevel::Info, subject, format!("model {name} is ready")));
        self.check_segments_of(worker.model);
        self.take_in_saved(worker.model);
        if first {
            self.out.push(Effect::Persist(Record::Mount(mount)));
            self.register(worker.model);
        }
        self.compare_with_estimate(worker.model);
        self.worker_changed(worker.model, WorkerChange::Ready, "");
        self.serve_waiters(worker.model);
        self.wake_contexts(worker.model);
        self.devices.reconsider();
    }

    fn serve_waiters(&mut self, id: ModelId) {
        let Some(info) = self.models.get(&id).map(|m| self.model_info(m)) else { return };
        let Some(model) = self.models.get_mut(&id) else { return };
        for (call, open) in std::mem::take(&mut model.waiters) {
            match open {
                None => self.finish(call, Ok(Reply::Mounted(info.clone()))),
                Some(open) => {
                    let pid = self.calls.get(call).map(|p| p.pid);
                    let Some(pid) = pid else { continue };
                    let reply = match &*open {
                        Opening::New(open) => self.open_context(pid, id, open),
                        Opening::Snapshot(name) => self.restore_snapshot(pid, id, name),
                    };
                    self.finish(call, reply);
                }
            }
        }
    }

    /// A call that waits to open on a model is withdrawn, which may have been all that the model was wanted for.
    pub(in crate::core) fn withdraw_opening(&mut self, id: ModelId, call: CallNo) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.waiters.retain(|(waiter, _)| *waiter != call);
        self.note_rest(id);
    }

    /// A worker cannot load its model, or could not be started, and is about to be gone.
    pub(in crate::core) fn worker_refused(&mut self, worker: WorkerId, fault: DriverFault) {
        let Some(model) = self.live_model(worker).filter(|m| !m.is_ready()) else { return };
        if fault.is_shortage() && !model.is_being_mounted() {
            return self.worker_starved(worker, &fault);
        }
        self.devices.leave(worker);
        self.cannot_load(worker.model, Fault::new(fault.errno, fault.message));
    }

    /// A worker has loaded what cannot be used.
    fn worker_no_good(&mut self, worker: WorkerId, fault: Fault) {
        self.out.push(Effect::StopWorker { worker });
        self.devices.leave(worker);
        self.cannot_load(worker.model, fault);
    }

    /// A worker cannot be had: a mount that somebody waits for is undone, any other model goes offline.
    pub(in crate::core) fn cannot_load(&mut self, id: ModelId, fault: Fault) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let waited_for = model.is_being_mounted();
        // What its worker still says is not heard.
        model.incarnation += 1;
        model.worker_os_pid = 0;
        if waited_for {
            let waiters = std::mem::take(&mut model.waiters).into_iter().map(|(call, _)| call);
            // It has no contexts yet, so no question is of one.
            let questions = model.questions.take_calls().into_iter().map(|(call, _)| call);
            let calls: Vec<CallNo> = waiters.chain(questions).collect();
            self.devices.release(Holder::Model(id));
            for call in calls {
                self.finish(call, Err(fault.clone()));
            }
            self.worker_changed(id, WorkerChange::Gone, &fault.message);
            self.models.remove(&id);
            self.devices.reconsider();
            self.out.push(Effect::DropSwap { model: id });
        } else {
            self.take_offline(id, fault.message);
        }
    }

    /// Gives a model up until it is mounted again. Its contexts stay, and every call that needs it fails.
    pub(super) fn take_offline(&mut self, id: ModelId, trouble: String) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let subject = Subject::of_model(&model.name, Happening::ModelOffline);
        let line = format!("model {} is offline: {trouble}", model.name);
        self.out.push(Effect::LogAbout(LogLevel::Error, subject, line));
        model.state = State::Offline(trouble);
        model.placement = None;
        model.resize = None;
        model.evacuate = None;
        self.devices.release(Holder::Model(id));
        self.devices.reconsider();
        let Err(fault) = model.check_usable() else { return };
        for (call, _) in std::mem::take(&mut model.waiters) {
            self.finish(call, Err(fault.clone()));
        }
        self.worker_changed(id, WorkerChange::Gone, &fault.message);
        self.fail_calls(id, &fault);
        self.fail_sleepers(id, &fault);
    }

    /// Fails every question and generation of a model.
    pub(in crate::core) fn fail_calls(&mut self, id: ModelId, fault: &Fault) {
        let Some(model) = self.models.get_mut(&id) else { return };
        for (call, context) in model.questions.take_calls() {
            self.fail_question(call, context, fault);
        }
        let Some(model) = self.models.get(&id) else { return };
        let contexts: Vec<ContextId> = model.contexts.iter().copied().collect();
        for context in contexts {
            self.fail_generation(context, fault.clone());
        }
    }

    /// Fails the questions to a model that are of no context's calls.
    pub(in crate::core) fn fail_questions_without_context(&mut self, id: ModelId, fault: &Fault) {
        let Some(model) = self.models.get_mut(&id) else { return };
        for call in model.questions.take_calls_without_context() {
            self.finish(call, Err(fault.clone()));
        }
    }

    /// Answers the call of a question with a fault.
    pub(super) fn fail_question(&mut self, call: CallNo, context: Option<ContextId>, fault: &Fault) {
        match context {
            Some(context) => self.finish_head(context, call, Err(fault.clone())),
            None => self.finish(call, Err(fault.clone())),
        }
    }

    /// Takes a model away with everything on it.
    pub(in crate::core) fn remove_model(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        let (name, worker) = (model.name.clone(), model.worker());
        let runs = model.placement.is_some();
        let fault = Fault::new(Errno::ECANCELED, format!("model {name} is being unmounted"));
        let contexts: Vec<ContextId> = model.contexts.iter().copied().collect();
        for context in contexts {
            self.close_context(context, &fault);
        }
        self.forget_asleep(|image| image.model == name, &fault);
        self.lend_to_computing(id, Default::default());
        self.worker_changed(id, WorkerChange::Gone, "unmounted");
        let Some(mut model) = self.models.remove(&id) else { return };
        self.count_rows(&model.in_flight.take().map_or(vec![], |step| step.groups), -1);
        self.give_slots_back(&model);
        self.forget_segments_of(id);
        for (call, _) in model.questions.take_calls() {
            self.finish(call, Err(fault.clone()));
        }
        for (call, _) in model.waiters {
            self.finish(call, Err(fault.clone()));
        }
        self.devices.leave_line(id);
        if runs {
            self.devices.leave(worker);
            self.out.push(Effect::StopWorker { worker });
        }
        self.out.push(Effect::DropSwap { model: id });
        self.unregister(&name);
        self.out.push(Effect::Forget(Record::Mount(model.mount).key()));
        let subject = Subject::of_model(&name, Happening::ModelUnmounted);
        self.out.push(Effect::LogAbout(LogLevel::Info, subject, format!("model {name} is unmounted")));
    }
}

/// Checks what a worker says of its model as far as the kernel relies on it.
fn check(d: &ModelDescription, sequences_max: u16) -> Result<(), String> {
    let limits: [(&str, u32, u32, u32); 5] = [
        ("pool tokens", d.pool_tokens, PAGE_TOKENS, POOL_TOKENS_MAX),
        ("sequences", u32::from(d.sequences), 1, u32::from(sequences_max)),
        ("batch tokens", d.batch_tokens, 1, POOL_TOKENS_MAX),
        ("tokens of a tile", d.row_tile, 1, ROW_TILE_MAX),
        ("context tokens", d.context_tokens, 1, POOL_TOKENS_MAX),
    ];
    let wrong = limits.iter().find(|(_, value, low, high)| d.generates && (value < low || value > high));
    match wrong {
        Some((what, value, low, high)) => {
            Err(format!("the worker reports {value} {what}; the kernel can use {low} to {high}"))
        }
        None if d.pool_tokens > POOL_TOKENS_MAX => Err("the worker reports an impossible pool".into()),
        None => Ok(()),
    }
}
