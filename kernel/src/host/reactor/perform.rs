//! What the kernel wants done, and the disk.

use std::time::Duration;

use drivers::wire::{DriverFault, ToWorker};
use syscalls::{Errno, Frame, Reply};

use super::super::log;
use super::super::store::{Change, refusal};
use super::Reactor;
use crate::core::effect::{Effect, Record};
use crate::core::event::Event;
use crate::core::image::Entry;

impl Reactor {
    pub(super) async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { conn, frame } => self.deliver(conn, &frame),
            Effect::Report { conn, call, event } => self.deliver(conn, &Frame::Event(call, event)),
            Effect::Hangup { conn } => self.hang_up(conn),
            Effect::Inspect { model, load, delay_ms } => {
                self.inspector.inspect(model, load, Duration::from_millis(delay_ms));
            }
            Effect::StartWorker { worker, load, digest, delay_ms } => {
                let swap = self.swaps.of(worker.model, &load.name);
                self.workers.start(worker, load, digest, swap, Duration::from_millis(delay_ms));
            }
            Effect::StopWorker { worker } => self.workers.stop(worker),
            Effect::KillWorker { worker } => self.workers.kill(worker),
            Effect::ClearSlot { model, slot, bytes } => self.swaps.clear(model, slot, bytes),
            Effect::DropSwap { model } => self.swaps.remove(model),
            Effect::StartProgram { pid, program } => self.programs.start(pid, program),
            Effect::SignalProgram { pid, signal } => self.programs.signal(pid, signal),
            Effect::EndProgram { pid, grace_ms } => self.programs.stop(pid, Duration::from_millis(grace_ms)),
            Effect::Submit { worker, step } => {
                let number = step.number;
                if let Err(e) = self.workers.say(worker, &ToWorker::Step(step)) {
                    let fault = DriverFault::new(Errno::E2BIG, format!("the step is too large: {e}"));
                    self.pending.push_back(Event::StepFailed { worker, number, fault });
                }
            }
            Effect::Withdraw { worker, number } => {
                if let Err(e) = self.workers.say(worker, &ToWorker::Withdraw(number)) {
                    // The step then runs through, which costs time and nothing else.
                    tracing::warn!("step {number} could not be withdrawn: {e}");
                }
            }
            Effect::Ask { worker, number, question } => {
                if let Err(e) = self.workers.say(worker, &ToWorker::Ask(number, question)) {
                    let fault = DriverFault::new(Errno::E2BIG, format!("the question is too large: {e}"));
                    self.pending.push_back(Event::Answered { worker, number, answer: Err(fault) });
                }
            }
            Effect::WakeAt(at) => self.wake_at = at.map(|at| self.started + Duration::from_micros(at.0)),
            Effect::Persist(record) => self.keep(Change::Persist(record)).await,
            Effect::Keep { number, record } => self.keep_for(number, *record).await,
            Effect::PutBack(records) => self.store.put_back(records),
            Effect::Forget(key) => self.keep(Change::Forget(key)).await,
            Effect::Journal(entries) => self.write(&entries),
            Effect::Checkpoint(entries) => self.rewrite(&entries),
            Effect::Store { number, uid, order } => {
                if let Err(fault) = self.values.order(number, uid, order) {
                    self.pending.push_back(Event::Stored { number, result: Err(fault) });
                }
            }
            Effect::Log(level, message) => log::say(level, &message),
            Effect::LogAbout(level, subject, message) => log::say_about(level, &subject, &message),
            Effect::Exit => self.ended = true,
        }
    }

    /// Makes a change in the store. What was said before goes out first: the disk may take its time.
    async fn keep(&mut self, change: Change) {
        self.write_all();
        if let Err(e) = self.store.make(change).await {
            tracing::error!("a record could not be kept, so the next start will not know of it: {e}");
        }
    }

    /// Writes a record that a call waits for.
    async fn keep_for(&mut self, number: u64, record: Record) {
        self.write_all();
        let kept = self.store.keep(record).await;
        let result = kept.map(|()| Reply::Done {}).map_err(|e| refusal(&e));
        self.pending.push_back(Event::Stored { number, result });
    }

    /// Writes what changed of processes that outlive the daemon. What was not written comes again with all else.
    fn write(&mut self, entries: &[Entry]) {
        if let Err(e) = self.journal.append(entries) {
            log::once(
                &mut self.journal_fails,
                &format!("{e}; processes do not outlive the daemon until it can"),
            );
        }
        if self.journal.is_long() && !self.pending.contains(&Event::JournalLong) {
            self.pending.push_back(Event::JournalLong);
        }
    }

    fn rewrite(&mut self, entries: &[Entry]) {
        match self.journal.rewrite(entries) {
            Ok(()) if std::mem::take(&mut self.journal_fails) => {
                tracing::info!("the journal of processes is written again");
            }
            Ok(()) => {}
            Err(e) if self.journal.retry_at().is_none() => {
                tracing::warn!("{e}; the journal of processes cannot be made shorter, and goes on");
            }
            Err(e) => {
                log::once(
                    &mut self.journal_fails,
                    &format!("{e}; processes do not outlive the daemon until it can"),
                );
            }
        }
    }
}
