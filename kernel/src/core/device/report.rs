//! What is said of devices: the sum that refuses a mount, and the shares that `models` and `sysinfo` show.

use drivers::estimate::Needs;
use syscalls::reply::{DeviceInfo, DeviceShare};
use syscalls::{Errno, Fault};

use super::super::Kernel;
use super::super::effect::{Effect, LogLevel};
use super::super::event::ModelId;
use super::super::model::{Model, State};
use super::fit::Wish;
use super::{Device, Holder, Placement};

/// Devices whose sums a refusal shows.
const DEVICES_SHOWN_MAX: usize = 4;

/// Units of bytes, largest first.
const UNITS: [(u64, &str); 4] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];

impl Kernel {
    /// Why a model has no place, line by line.
    pub(super) fn refusal(&self, id: ModelId, wish: &Wish) -> Fault {
        let name = self.models.get(&id).map_or("", |m| &m.name);
        let graphics = self.devices.list.len() > 1 && wish.gpu_layers != Some(0);
        let considered: Vec<usize> = match wish.device {
            Some(device) => vec![device],
            None if graphics && wish.gpu_layers.is_some() => (1..self.devices.list.len()).collect(),
            None if graphics => (1..self.devices.list.len()).chain([0]).collect(),
            None => vec![0],
        };
        let sums = considered.into_iter().take(DEVICES_SHOWN_MAX).map(|device| self.sum(device, wish));
        let sums: Vec<String> = sums.collect();
        let least = if wish.pool_min < wish.pool_tokens { "at least " } else { "" };
        Fault::new(
            Errno::ENOMEM,
            format!(
                "model {name} needs {least}{}; unmount what is not needed, mount it with a smaller --context, or give the daemon more --device-memory",
                sums.join("; nor is there room for "),
            ),
        )
    }

    /// `5.2 GiB (weights 4.1, pool 0.9, compute 0.2) on cpu; 8.0 GiB in all, 6.1 taken by a (4.0) and b (2.1)`.
    fn sum(&self, number: usize, wish: &Wish) -> String {
        let device = &self.devices.list[number];
        let all = wish.estimate.layers_max();
        let gpu_layers = if number == 0 { 0 } else { wish.gpu_layers.unwrap_or(all) };
        let pool_tokens = wish.pool_min.min(wish.pool_tokens);
        let placement = Placement { device: number, gpu_layers, pool_tokens, fused: wish.may_fuse };
        let shares = placement.shares(wish.estimate);
        let needs = shares
            .into_iter()
            .filter(|(d, _)| *d == number)
            .map(|(_, n)| n)
            .fold(Needs::default(), |a, b| a + b);
        let of = unit(needs.total());
        let figure = |bytes| figure(bytes, of);
        format!(
            "{} {} (weights {}, pool {}, compute {}) on {}; {} {} in all, {}",
            figure(needs.total()),
            of.1,
            figure(needs.weights),
            figure(needs.pool),
            figure(needs.compute),
            device.name,
            figure(device.memory_bytes),
            of.1,
            self.takers(device, of),
        )
    }

    fn takers(&self, device: &Device, of: (u64, &str)) -> String {
        if device.taken.is_empty() {
            return "nothing taken".into();
        }
        let one = |(holder, needs): (&Holder, &Needs)| {
            let name = self.holder_name(*holder);
            let name = if name.is_empty() { "a worker that ends" } else { name };
            format!("{name} ({})", figure(needs.total(), of))
        };
        let mut takers: Vec<String> = device.taken.iter().map(one).collect();
        let last = takers.pop().unwrap_or_default();
        let list = if takers.is_empty() { last } else { format!("{} and {last}", takers.join(", ")) };
        format!("{} taken by {list}", figure(device.taken_bytes(), of))
    }

    fn holder_name(&self, holder: Holder) -> &str {
        match holder {
            Holder::Model(id) => self.models.get(&id).map_or("", |m| &m.name),
            Holder::Leaving(_) => "",
        }
    }

    /// Every device, and who takes what of it.
    pub(in crate::core) fn device_infos(&self) -> Vec<DeviceInfo> {
        let info = |device: &Device| DeviceInfo {
            name: device.name.clone(),
            memory_bytes: device.memory_bytes,
            free_bytes: device.memory_bytes.saturating_sub(device.taken_bytes()),
            shares: device
                .taken
                .iter()
                .map(|(holder, needs)| share(&device.name, self.holder_name(*holder), needs))
                .collect(),
        };
        self.devices.list.iter().map(info).collect()
    }

    /// What a model takes of each device.
    pub(in crate::core) fn model_shares(&self, model: &Model) -> Vec<DeviceShare> {
        let of = |device: &Device| {
            let needs = device.taken.get(&Holder::Model(model.id))?;
            Some(share(&device.name, &model.name, needs))
        };
        self.devices.list.iter().filter_map(of).collect()
    }

    /// Says in the log when a worker takes more than was estimated. The ledger keeps its figures.
    pub(in crate::core) fn compare_with_estimate(&mut self, id: ModelId) {
        let Some(model) = self.models.get(&id) else { return };
        let Some(d) = &model.description else { return };
        let taken = d.weights_bytes.saturating_add(d.pool_bytes).saturating_add(d.compute_bytes);
        let entered = |device: &Device| device.taken.get(&Holder::Model(id)).map_or(0, Needs::total);
        let entered = self.devices.list.iter().map(entered).fold(0, u64::saturating_add);
        if taken > entered {
            let name = &model.name;
            let message = format!("model {name} takes {taken} bytes; its header led to {entered}");
            self.out.push(Effect::Log(LogLevel::Warn, message));
        }
    }

    /// Checks that the ledger has what the models have, and no device is promised twice.
    ///
    /// # Panics
    ///
    /// Where it is not so.
    pub(in crate::core) fn check_devices(&self) {
        for (number, device) in self.devices.list.iter().enumerate() {
            assert!(device.taken_bytes() <= device.memory_bytes, "{} is overdrawn", device.name);
            for (holder, needs) in &device.taken {
                let Holder::Model(id) = holder else { continue };
                let model = &self.models[id];
                let placement = model.placement.expect("who takes memory has a place");
                let shares = placement.shares(model.estimate.as_ref().expect("it was inspected"));
                let own = shares.into_iter().filter(|(d, _)| *d == number).map(|(_, n)| n);
                assert_eq!(
                    *needs,
                    own.fold(Needs::default(), |a, b| a + b),
                    "model {} on {}",
                    model.name,
                    device.name
                );
            }
        }
        for model in self.models.values() {
            let (placed, name, state) = (model.placement.is_some(), &model.name, &model.state);
            let waits = self.devices.line.contains(&model.id);
            assert!(model.evacuate.is_none() || placed, "{name} is to give what it has not");
            assert!(!waits || (*state == State::Loading && !placed), "{name} waits in vain");
            match state {
                State::Loading => {}
                State::Ready | State::Restarting => assert!(placed, "{name} is nowhere"),
                State::Offline(_) | State::Unloaded => assert!(!placed, "{name} holds memory"),
            }
        }
    }
}

fn share(device: &str, model: &str, needs: &Needs) -> DeviceShare {
    DeviceShare {
        device: device.into(),
        model: model.into(),
        weights_bytes: needs.weights,
        pool_bytes: needs.pool,
        compute_bytes: needs.compute,
    }
}

/// The unit in which a number is at least 1.
fn unit(bytes: u64) -> (u64, &'static str) {
    *UNITS.iter().find(|(size, _)| bytes >= *size).unwrap_or(&UNITS[3])
}

fn figure(bytes: u64, (size, _): (u64, &str)) -> String {
    if size == 1 { bytes.to_string() } else { format!("{:.1}", bytes as f64 / size as f64) }
}
