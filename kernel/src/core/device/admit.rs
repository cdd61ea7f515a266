//! Admission: the line of inspected models, and what becomes of each.

use std::sync::Arc;

use drivers::estimate::Estimate;
use drivers::wire::DriverFault;
use syscalls::call::Attention;
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::config::DeviceConfig;
use super::super::effect::{Effect, LogLevel};
use super::super::event::ModelId;
use super::super::model::{Model, State};
use super::super::registration::Digest;
use super::Placement;
use super::fit::Wish;

impl Kernel {
    /// The host has found these devices beside those of the configuration.
    pub(in crate::core) fn devices_found(&mut self, found: &[DeviceConfig]) {
        found.iter().for_each(|device| self.devices.add(device));
        (self.devices.known, self.devices.changed) = (true, true);
    }

    /// The host has looked at the file of a model.
    pub(in crate::core) fn inspected(
        &mut self,
        id: ModelId,
        estimate: Result<Estimate, DriverFault>,
        digest: Option<Digest>,
    ) {
        let waits = |m: &&mut Model| m.state == State::Loading && m.estimate.is_none();
        let Some(model) = self.models.get_mut(&id).filter(waits) else { return };
        model.digest = digest;
        let (name, path) = (model.name.clone(), model.mount.path.clone());
        if let Err(fault) = self.check_registered(&name, &path, digest) {
            return self.cannot_load(id, fault);
        }
        let Some(model) = self.models.get_mut(&id) else { return };
        match estimate {
            Ok(estimate) => {
                model.estimate = Some(Arc::new(estimate));
                model.shortages = 0;
                self.stand_in_line_for_memory(id);
            }
            Err(fault) if self.inspect_again(id, &fault) => {}
            Err(fault) => self.cannot_load(id, Fault::new(fault.errno, fault.message)),
        }
    }

    /// Lets a model wait for a place.
    fn stand_in_line_for_memory(&mut self, id: ModelId) {
        self.devices.line.push_back(id);
        self.devices.changed = true;
    }

    /// Has a model loaded that gave its memory to others, because somebody uses it.
    pub(in crate::core) fn demand(&mut self, id: ModelId) {
        let now = self.now;
        let Some(model) = self.models.get_mut(&id).filter(|m| m.state == State::Unloaded) else { return };
        model.state = State::Loading;
        model.waits_since.get_or_insert(now);
        self.stand_in_line_for_memory(id);
    }

    /// Places those in line as far as there is room. Called after every event; it does nothing unless one of them
    /// came, or memory did.
    pub(in crate::core) fn place_waiting(&mut self) {
        if self.devices.look_again.is_some_and(|at| at <= self.now) {
            (self.devices.look_again, self.devices.changed) = (None, true);
        }
        while self.devices.known && std::mem::take(&mut self.devices.changed) {
            self.call_up_wanted();
            while let Some(id) = self.devices.line.pop_front() {
                if !self.place(id) {
                    self.devices.line.push_front(id);
                    break;
                }
            }
            self.enlarge_pools();
        }
    }

    /// Places the first in line, or refuses it. False where it must wait for memory that is on its way.
    fn place(&mut self, id: ModelId) -> bool {
        let Some(model) = self.models.get(&id) else { return true };
        let Some(estimate) = model.estimate.clone() else { return true };
        if model.description.is_some() && !self.is_wanted(model) {
            self.stay_unloaded(id);
            return true;
        }
        let wish = match self.wish(model, &estimate) {
            Ok(wish) => wish,
            Err(fault) => {
                self.no_place(id, fault, false);
                return true;
            }
        };
        let now = wish.fit(&self.devices.free());
        let soon = wish.fit(&self.free_soon());
        match (now, soon) {
            // A better place that is about to be free is worth waiting for.
            (Some(placement), _) if now == soon => {
                self.load_at(id, placement, &estimate);
                true
            }
            (_, Some(_)) => false,
            (_, None) if !self.is_wanted(model) => {
                self.leave_unloaded(id);
                true
            }
            (_, None) => match self.room_for(id, &wish, self.now) {
                Some(room) => {
                    // It is there when workers have ended, or a step has.
                    self.make_room(room);
                    false
                }
                None => {
                    let (comes, fits) =
                        (self.room_may_come(id, &wish), wish.fits_at_least(&self.devices.sizes()));
                    let fault = self.refusal(id, &wish);
                    self.look_again_later();
                    if !comes {
                        self.no_place(id, fault, fits);
                    }
                    !comes
                }
            },
        }
    }

    /// What a mount asks for.
    ///
    /// # Errors
    ///
    /// EINVAL for a device that there is not.
    pub(super) fn wish<'a>(&self, model: &Model, estimate: &'a Estimate) -> Result<Wish<'a>, Fault> {
        let device = match &model.mount.device {
            Some(name) => Some(self.devices.find(name).ok_or_else(|| self.no_such_device(name))?),
            None => None,
        };
        let pool_tokens = estimate.pool_tokens;
        // What the mount fixes stays as it is.
        let pool_min = if model.mount.context.is_some() {
            pool_tokens
        } else {
            self.config.pool_tokens_min.min(pool_tokens)
        };
        let may_fuse = model.mount.attention == Attention::Auto;
        let wish =
            Wish { estimate, device, gpu_layers: model.mount.gpu_layers, may_fuse, pool_min, pool_tokens };
        let largest = self.sleepers_tokens_max(model).max(self.contexts_tokens_max(model));
        let largest = largest.next_multiple_of(estimate.pool_multiple.max(1));
        let roomy = Wish { pool_min: pool_min.max(largest.min(pool_tokens)), ..wish };
        // On devices that have become smaller those go on that can.
        Ok(if roomy.fits_at_least(&self.devices.sizes()) { roomy } else { wish })
    }

    /// Enters a model in the ledger and has its worker started.
    fn load_at(&mut self, id: ModelId, placement: Placement, estimate: &Estimate) {
        self.devices.enter(id, &placement, estimate);
        if let Some(model) = self.models.get_mut(&id) {
            model.placement = Some(placement);
            model.last_use = self.now;
            (model.waits_since, model.forced_out) = (None, false);
        }
        self.start_worker(id, 0);
    }

    /// Whoever wanted a model back that had given its memory to others has left.
    fn stay_unloaded(&mut self, id: ModelId) {
        let Some(model) = self.models.get_mut(&id) else { return };
        model.state = State::Unloaded;
        model.waits_since = None;
    }

    /// Nobody waits for a model that does not fit beside the others, so nobody makes room for it.
    fn leave_unloaded(&mut self, id: ModelId) {
        self.stay_unloaded(id);
        let Some(model) = self.models.get(&id) else { return };
        let message =
            format!("model {} is not loaded: others take the memory; it is when it is used", model.name);
        self.out.push(Effect::Log(LogLevel::Warn, message));
    }

    /// A model cannot be had now. A first mount is undone; one that was there before stays mounted. What contexts on it wait
    /// for waits on if it `fits` the devices: others rest some time, or have had their turns. So do all questions to one that
    /// was forced out for others.
    fn no_place(&mut self, id: ModelId, fault: Fault, fits: bool) {
        let Some(model) = self.models.get_mut(&id) else { return };
        if model.description.is_none() && model.waiters.iter().any(|(_, open)| open.is_none()) {
            return self.cannot_load(id, fault);
        }
        model.state = State::Unloaded;
        let message = format!("model {} is not loaded: {fault}", model.name);
        self.out.push(Effect::Log(LogLevel::Warn, message));
        for (call, _) in std::mem::take(&mut model.waiters) {
            self.finish(call, Err(fault.clone()));
        }
        match fits {
            true if self.models.get(&id).is_some_and(|m| m.forced_out) => {}
            true => self.fail_questions_without_context(id, &fault),
            false => self.fail_calls(id, &fault),
        }
        self.note_whether_wanted(id);
    }

    pub(in crate::core) fn no_such_device(&self, name: &str) -> Fault {
        let names: Vec<&str> = self.devices.list.iter().map(|d| d.name.as_str()).collect();
        let name = super::super::model::shown(name);
        Fault::new(Errno::EINVAL, format!("there is no device {name}; there are {}", names.join(", ")))
    }
}
