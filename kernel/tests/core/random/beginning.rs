//! What a history begins with: a machine of any size, with one model.

use std::collections::BTreeSet;

use kernel::core::{DeviceConfig, Event as Input, KernelConfig, Policy};

use super::stores::Kept;
use super::{History, MODELS, Seen, host};
use crate::chance::Chance;
use crate::machine::{ADMIN, Machine};

impl History {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let (pool, sequences) = (256 + 64 * chance.below(10), 2 + chance.below(8));
        let batch = [8, 64, 512][chance.below(3)];
        let (token_us, drafts) = ([30, 1000][chance.below(2)], chance.below(2));
        // Tiers of all sizes, none included, disks that are full before the kernel thinks so, damaged pages, dear
        // and cheap ones, and models that have no pages.
        let tier = [0, 3, 20, 1000];
        let (host, disk) = (tier[chance.below(4)], tier[chance.below(4)]);
        let (host_pages, disk_pages) = (1 + chance.below(40), 1 + chance.below(40));
        let corrupt = [0, 0, 1, 7][chance.below(4)];
        let load_us = [0, 100, 5000][chance.below(3)];
        let ranges = !chance.once_in(8);
        // Workers that have all the cells that they say, and some with fewer, but enough for every context alone.
        let cells = [0, 0, 0, 256 + 64 * chance.below(4)][chance.below(4)];
        let script = format!(
            "cells={cells},eos=40,context=256,pool={pool},sequences={sequences},batch={batch},step_us=900,row_us=100,token_us={token_us},drafts={drafts},\
             host_pages={host_pages},disk_pages={disk_pages},corrupt_every={corrupt},load_us={load_us},\
             save_us=50,ranges={ranges},kv=1,compute=50"
        );
        // Room for two or three models, if they make room for each other.
        let device = |name: &str, memory_bytes: usize| DeviceConfig {
            name: name.into(),
            memory_bytes: memory_bytes as u64,
        };
        let devices = vec![device("cpu", 1400 + chance.below(1000)), device("gpu:0", chance.below(1200))];
        let fair_lag_us = [0, 5_000, 10_000_000][chance.below(3)];
        let policy = Policy::ALL[chance.below(5)].1;
        let config = KernelConfig {
            devices,
            pool_tokens_min: 256,
            swap_host_bytes: host * 4096,
            swap_disk_bytes: disk * 4096,
            fair_lag_us,
            fair_lag_tokens: [0, 8192][chance.below(2)],
            policy,
            ..KernelConfig::default()
        };
        let services = host::services(&mut chance);
        let mut machine = Machine::new(KernelConfig { services, ..config.clone() });
        machine.event(Input::Booted { records: vec![] });
        let conn = machine.connect(ADMIN);
        machine.mount(conn, MODELS[0], &script).expect("one has room");
        History {
            machine,
            config,
            script,
            chance,
            programs: Vec::new(),
            generated: Vec::new(),
            lasting: BTreeSet::new(),
            host: host::Host::default(),
            kept: Kept::default(),
            stopping: BTreeSet::new(),
            steady: BTreeSet::new(),
            seen: Seen::default(),
        }
    }
}
