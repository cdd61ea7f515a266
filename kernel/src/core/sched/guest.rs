//! Turns in memory for classes that higher ones keep out of it.
//!
//! A class that waits in line for memory and has nobody in it, while higher classes run, is owed its twentieth of the
//! device's time all the same. Once it is owed [`OWED_US_MAX`], its first in line comes in as a *guest*: it takes what
//! it lacks from the last of all that run, whatever their class, but for `realtime`. Its turn lasts until it has been
//! charged with what its class was owed and has [`GUEST_TOKENS_MIN`] tokens more, or its generation ends or rests, as it
//! does when its process has used a rate up: at a low one it would never be charged with what its class is owed. In its
//! turn it has rows as one whose class is owed time, grows at the cost of others, and gives nothing but to `realtime`; so
//! it gets on, and the turn ends. What the turn took beyond the debt is held against its class, down to
//! [`OWED_US_MIN`].

use syscalls::ContextId;
use syscalls::call::Class;

use super::super::Kernel;
use super::super::context::Context;
use super::super::event::ModelId;
use super::super::memory::{Reach, Room};
use super::admit::Admission;
use super::{CLASSES, OWED_SHARE, OWED_US_MAX, Place, Sched};

/// The least that a guest generates in its turn: a page. With fewer, bringing it in could be all that comes of it.
const GUEST_TOKENS_MIN: u32 = 64;

/// The most that is held against a class: as much as it gets back in twenty times this.
const OWED_US_MIN: i64 = -20 * OWED_US_MAX;

/// What classes are owed that are kept out of memory, and who has a turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    owed_us: [i64; 4],
    guest: Option<Guest>,
}

#[derive(Clone, Copy, Debug)]
struct Guest {
    context: ContextId,
    class: Class,
    /// What its generation still has to get when its turn may end.
    left: u32,
}

impl Sched {
    /// Whether a context has a turn in memory.
    pub(in crate::core) fn is_guest(&self, context: ContextId) -> bool {
        self.turns.guest.is_some_and(|guest| guest.context == context)
    }

    /// Credits classes that are kept out of memory with their share of a step, and charges a guest's class.
    pub(super) fn settle_turns(&mut self, charged: [u64; 4], elapsed_us: u64) {
        if self.line.is_empty() && self.turns.owed_us == [0; 4] {
            return;
        }
        let share = i64::try_from(elapsed_us).unwrap_or(i64::MAX) / OWED_SHARE;
        for class in CLASSES {
            let at = class as usize;
            let owed_us = &mut self.turns.owed_us[at];
            if self.turns.guest.is_some_and(|guest| guest.class == class) {
                let had = i64::try_from(charged[at]).unwrap_or(i64::MAX);
                *owed_us = (*owed_us + share).saturating_sub(had).max(OWED_US_MIN);
                // As long as its turn lasts.
                self.owed_us[at] = OWED_US_MAX;
                continue;
            }
            let kept_out = charged[..at].iter().any(|us| *us > 0)
                && self.line.first_of_class(class).is_some()
                && !self.running.iter().any(|runner| runner.owner.class == class);
            *owed_us = (*owed_us + share).min(if kept_out { OWED_US_MAX } else { 0 });
        }
    }
}

impl Kernel {
    /// Ends the turn in memory that is over, and gives one to whom it is due.
    pub(super) fn admit_guest(&mut self, id: ModelId, admission: &mut Admission) {
        self.end_turn(id);
        let Some(sched) = self.models.get(&id).map(|m| &m.sched) else { return };
        let due = |class: &Class| sched.turns.owed_us[*class as usize] >= OWED_US_MAX;
        if sched.turns.guest.is_some() || !CLASSES.iter().any(due) {
            return;
        }
        let firsts = CLASSES.iter().copied().filter(|class| due(class));
        let firsts: Vec<_> =
            firsts.filter_map(|class| Some((class, sched.line.first_of_class(class)?))).collect();
        for (class, context) in firsts {
            if self.is_throttled(context) {
                continue;
            }
            match self.bring_in(context, Reach::All, &mut admission.for_prefixes) {
                Room::Made => return self.begin_turn(id, context, class),
                Room::Wait | Room::OwnLimit(_) => {}
                Room::Never(fault) => self.fail_generation(context, fault),
            }
        }
    }

    fn begin_turn(&mut self, id: ModelId, context: ContextId, class: Class) {
        let left = self.contexts.get(&context).map_or(0, tokens_left).saturating_sub(GUEST_TOKENS_MIN);
        let Some(model) = self.models.get_mut(&id) else { return };
        model.sched.turns.guest = Some(Guest { context, class, left });
        model.sched.owed_us[class as usize] = OWED_US_MAX;
    }

    fn end_turn(&mut self, id: ModelId) {
        let Some(model) = self.models.get(&id) else { return };
        let Some(guest) = model.sched.turns.guest else { return };
        let rests = model.sched.running.iter().any(|r| r.context == guest.context && self.rests(model, r));
        let running = self.contexts.get(&guest.context).filter(|c| c.place == Place::Running && !rests);
        let Some(model) = self.models.get_mut(&id) else { return };
        let paid = model.sched.turns.owed_us[guest.class as usize] <= 0;
        if running.is_none_or(|context| paid && tokens_left(context) <= guest.left) {
            model.sched.turns.guest = None;
        }
    }
}

/// What the generation of a context still has to get.
fn tokens_left(context: &Context) -> u32 {
    context.generation.as_ref().map_or(0, |generation| generation.left(context.length()))
}
