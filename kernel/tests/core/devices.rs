//! Device memory: who is admitted, who makes room, and what the ledger says. Bytes are small numbers here.

use drivers::wire::LoadRequest;
use kernel::core::event::ConnId;
use kernel::core::{DeviceConfig, Event, KernelConfig};
use syscalls::call::*;
use syscalls::reply::{DeviceInfo, ModelInfo, ModelState};
use syscalls::{ContextId, Errno, Fault, Reply, Tokens};

use crate::machine::{ADMIN, Job, Machine, generate, generated, mount, open, reference};

fn config(devices: &[(&str, u64)]) -> KernelConfig {
    let device = |(name, memory_bytes): &(&str, u64)| DeviceConfig {
        name: (*name).into(),
        memory_bytes: *memory_bytes,
    };
    KernelConfig {
        devices: devices.iter().map(device).collect(),
        pool_tokens_min: 128,
        ..KernelConfig::default()
    }
}

fn machine(devices: &[(&str, u64)]) -> (Machine, ConnId) {
    let mut machine = Machine::new(config(devices));
    let conn = machine.connect(ADMIN);
    (machine, conn)
}

/// A model of so many bytes of weights, with a pool of 256 tokens of a byte each and 100 bytes of buffers.
fn script(weights: u32) -> String {
    format!("context=256,kv=1,compute=100,weights={weights}")
}

impl Machine {
    fn model(&mut self, conn: ConnId, name: &str) -> ModelInfo {
        let Ok(Reply::Models(list)) = self.call(conn, Models {}) else { panic!("it lists") };
        list.into_iter().find(|m| m.name == name).expect("it is mounted")
    }

    fn model_state(&mut self, conn: ConnId, name: &str) -> ModelState {
        self.model(conn, name).state
    }

    fn devices(&mut self, conn: ConnId) -> Vec<DeviceInfo> {
        match self.call(conn, Sysinfo {}) {
            Ok(Reply::Sysinfo(info)) => info.devices,
            other => panic!("{other:?}"),
        }
    }

    pub fn free(&mut self, conn: ConnId) -> Vec<u64> {
        self.devices(conn).iter().map(|d| d.free_bytes).collect()
    }

    fn mount_of(&mut self, conn: ConnId, name: &str, weights: u32) -> Result<ModelInfo, Fault> {
        self.mount(conn, name, &script(weights))
    }

    fn open_on(&mut self, conn: ConnId, model: &str) -> Result<Reply, Fault> {
        self.call(conn, Open { model: Some(model.into()), ..open() })
    }

    fn context_on(&mut self, conn: ConnId, model: &str, tokens_max: Option<u32>) -> syscalls::ContextId {
        let call = Open { model: Some(model.into()), tokens_max: tokens_max.map(Tokens), ..open() };
        match self.call(conn, call) {
            Ok(Reply::Opened { context, .. }) => context,
            other => panic!("{other:?}"),
        }
    }

    fn last_load(&self) -> &LoadRequest {
        self.loads.last().expect("a worker was started")
    }
}

#[test]
fn mount_is_entered_in_the_ledger_and_unmount_takes_it_out() {
    let (mut machine, conn) = machine(&[("cpu", 1000)]);
    machine.mount_of(conn, "a", 300).expect("there is room");
    let shares = machine.model(conn, "a").memory;
    assert_eq!(shares.len(), 1);
    let share = &shares[0];
    assert_eq!((share.device.as_str(), share.model.as_str()), ("cpu", "a"));
    assert_eq!((share.weights_bytes, share.pool_bytes, share.compute_bytes), (300, 256, 100));
    let devices = machine.devices(conn);
    assert_eq!((devices[0].memory_bytes, devices[0].free_bytes), (1000, 344));
    assert_eq!(devices[0].shares, shares);
    machine.call(conn, Unmount { name: "a".into(), force: false }).expect("nobody uses it");
    assert_eq!(machine.devices(conn)[0].shares[0].model, "", "its worker has not ended");
    machine.run();
    assert_eq!(machine.free(conn), [1000]);
}

#[test]
fn mount_without_room_is_refused_with_the_sum_before_anything_is_loaded() {
    let (mut machine, conn) = machine(&[("cpu", 8 << 30)]);
    let large = |weights: u64| format!("context=1024,kv={},compute={},weights={weights}", 1 << 20, 200 << 20);
    machine.mount(conn, "a", &large(4 << 30)).expect("there is room");
    let context = machine.context_on(conn, "a", None);
    machine.append(conn, context, "in use").expect("it fits");
    machine.begin(conn, generate(context, 1000));
    let call = Mount { context: Some(Tokens(1024)), ..mount("b", &large(4 << 30)) };
    let fault = machine.call(conn, call).expect_err("no room");
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert_eq!(
        fault.message,
        "model b needs 5.2 GiB (weights 4.0, pool 1.0, compute 0.2) on cpu; 8.0 GiB in all, 5.2 taken by a (5.2); \
         unmount what is not needed, mount it with a smaller --context, or give the daemon more --device-memory"
    );
    assert_eq!(machine.loads.len(), 1, "no worker was started for it");
    let Ok(Reply::Models(list)) = machine.call(conn, Models {}) else { panic!("it lists") };
    assert_eq!(list.len(), 1);
    assert_eq!(machine.records.len(), 1);
}

#[test]
fn file_that_is_no_model_is_refused_as_before() {
    let (mut machine, conn) = machine(&[("cpu", 1000)]);
    let fault = machine.mount(conn, "m", "nonsense=1").expect_err("no such setting");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("nonsense"), "{fault}");
    let call = Mount { path: "/nonexistent.gguf".into(), ..mount("m", "") };
    assert_eq!(machine.call(conn, call).expect_err("no such file").errno, Errno::ENOENT);
    assert!(machine.loads.is_empty());
}

#[test]
fn pool_gets_smaller_where_the_mount_does_not_fix_it() {
    let (mut machine, conn) = machine(&[("cpu", 600)]);
    let info = machine.mount_of(conn, "a", 300).expect("a smaller pool has room");
    assert_eq!((info.frames_total, info.context_tokens), (3, 192));
    assert_eq!(machine.free(conn), [600 - 300 - 100 - 192]);
    let (mut machine, conn) = self::machine(&[("cpu", 600)]);
    let fixed = Mount { context: Some(Tokens(256)), ..mount("a", &script(300)) };
    assert_eq!(machine.call(conn, fixed).expect_err("no room").errno, Errno::ENOMEM);
    let fault = machine.mount_of(conn, "a", 373).expect_err("not even for the smallest pool");
    assert!(fault.message.contains("needs at least 601 B (weights 373, pool 128, compute 100)"), "{fault}");
    assert!(fault.message.contains("600 B in all, nothing taken"), "{fault}");
}

#[test]
fn idle_models_make_room_least_recently_used_first() {
    let (mut machine, conn) = machine(&[("cpu", 1400)]);
    machine.mount_of(conn, "a", 300).expect("room");
    machine.mount_of(conn, "b", 300).expect("room");
    // b is older than a now.
    let call = Tokenize { model: Some("a".into()), text: "x".into(), bos: false, special: false };
    machine.call(conn, call).expect("tokenizes");
    machine.mount_of(conn, "c", 300).expect("b makes room");
    assert_eq!(machine.model_state(conn, "b"), ModelState::Unloaded);
    assert_eq!(machine.model_state(conn, "a"), ModelState::Ready);
    assert_eq!(machine.workers.len(), 2);
    assert_eq!(machine.records.len(), 3, "it stays mounted");
}

#[test]
fn unloaded_model_is_loaded_again_when_it_is_used() {
    let (mut machine, conn) = machine(&[("cpu", 800)]);
    machine.mount_of(conn, "a", 300).expect("room");
    machine.mount_of(conn, "b", 300).expect("a makes room");
    assert_eq!(machine.model_state(conn, "a"), ModelState::Unloaded);
    let context = machine.context_on(conn, "a", None);
    assert_eq!(machine.model_state(conn, "b"), ModelState::Unloaded);
    machine.append(conn, context, "again").expect("it fits");
    assert_eq!(machine.generate(conn, context, 20).text, reference("", "again", 20));
    machine.call(conn, Close { context }).expect("own context");
    let embed = Embed { model: Some("b".into()), texts: vec!["text".into()] };
    assert!(matches!(machine.call(conn, embed), Ok(Reply::Embedded(_))));
    assert_eq!(machine.model_state(conn, "b"), ModelState::Ready);
}

#[test]
fn model_that_runs_stays_and_the_other_is_refused_until_its_last_context_is_closed() {
    let (mut machine, conn) = machine(&[("cpu", 800)]);
    machine.mount_of(conn, "a", 300).expect("room");
    machine.mount_of(conn, "b", 300).expect("a makes room");
    let context = machine.context_on(conn, "b", None);
    machine.append(conn, context, "in use").expect("it fits");
    let call = machine.begin(conn, generate(context, 200));
    let fault = machine.open_on(conn, "a").expect_err("b is in use");
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert!(fault.message.contains("taken by b (656)"), "{fault}");
    assert_eq!(machine.model_state(conn, "a"), ModelState::Unloaded, "it is still mounted");
    machine.call(conn, Close { context }).expect("own context");
    assert!(machine.reply(conn, call).is_some());
    assert!(machine.open_on(conn, "a").is_ok());
}

#[test]
fn nobody_is_disturbed_in_vain() {
    let (mut machine, conn) = machine(&[("cpu", 2000)]);
    machine.mount_of(conn, "small", 100).expect("room");
    machine.mount_of(conn, "large", 600).expect("room");
    let fault = machine.mount_of(conn, "huge", 1900).expect_err("larger than the device");
    assert_eq!(fault.errno, Errno::ENOMEM);
    assert_eq!(machine.model_state(conn, "small"), ModelState::Ready);
    assert_eq!(machine.model_state(conn, "large"), ModelState::Ready);
    // The older one alone would not be enough, and the younger one is: it goes alone.
    machine.mount_of(conn, "other", 850).expect("large makes room");
    assert_eq!(machine.model_state(conn, "small"), ModelState::Ready);
    assert_eq!(machine.model_state(conn, "large"), ModelState::Unloaded);
}

#[test]
fn memory_of_a_worker_that_was_stopped_is_free_when_it_is_dead() {
    let (mut machine, conn) = machine(&[("cpu", 800)]);
    machine.mount_of(conn, "a", 300).expect("room");
    let call = machine.begin(conn, mount("b", &script(300)));
    machine.turn();
    assert!(matches!(machine.jobs.front(), Some(Job::Died(..))), "the old worker is told to stop first");
    assert_eq!(machine.jobs.len(), 1, "and the new one is not started before it has");
    machine.turn();
    assert!(matches!(machine.jobs.front(), Some(Job::Start(..))));
    assert!(machine.finish(conn, call).is_ok());
}

const PROMPTS: [&str; 4] = ["one", "two", "three", "four"];

/// A model with a pool of 1024 tokens on a device of 2000, and a context of up to 256 tokens for each of the prompts.
fn four_contexts() -> (Machine, ConnId, Vec<ContextId>) {
    let (mut machine, conn) = machine(&[("cpu", 2000)]);
    machine.mount(conn, "a", "pool=1024,context=256,kv=1,compute=100,weights=300").expect("room");
    let contexts: Vec<_> = PROMPTS.iter().map(|_| machine.context_on(conn, "a", None)).collect();
    for (context, prompt) in contexts.iter().zip(PROMPTS) {
        machine.append(conn, *context, prompt).expect("it fits");
    }
    (machine, conn, contexts)
}

#[test]
fn pool_of_a_model_in_use_makes_room_and_its_contexts_lose_nothing() {
    let (mut machine, conn, contexts) = four_contexts();
    let calls: Vec<_> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 200))).collect();
    while machine.events(conn, calls[0]).len() < 50 {
        assert!(machine.turn());
    }
    // 424 of 1024 bytes of the pool are in the way; pools have multiples of 64.
    let fixed = Mount { context: Some(Tokens(256)), ..mount("b", &script(644)) };
    machine.call(conn, fixed).expect("a makes room");
    assert_eq!(machine.model(conn, "a").frames_total, 576 / 64);
    assert_eq!(machine.free(conn), [2000 - 976 - 1000]);
    for (call, prompt) in calls.into_iter().zip(PROMPTS) {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", prompt, 200), "{prompt}");
    }
    assert_eq!(machine.stat(conn).worker_restarts, 0);
}

#[test]
fn pool_grows_again_when_the_other_model_is_unmounted_and_its_contexts_lose_nothing() {
    let swapping = KernelConfig { swap_host_bytes: 100 * 4096, ..config(&[("cpu", 2000)]) };
    let mut machine = Machine::new(swapping);
    let conn = machine.connect(ADMIN);
    machine.mount(conn, "a", "pool=1024,context=256,kv=1,compute=100,weights=300").expect("room");
    let context = machine.context_on(conn, "a", None);
    machine.append(conn, context, "one").expect("it fits");
    let whole = reference("", "one", 240);
    assert_eq!(machine.generate(conn, context, 100).text, whole[..100]);
    let fixed = Mount { context: Some(Tokens(256)), ..mount("b", &script(644)) };
    machine.call(conn, fixed.clone()).expect("a makes room");
    assert_eq!(machine.model(conn, "a").frames_total, 576 / 64);
    let computed = machine.stat(conn).tokens_recomputed;
    machine.call(conn, Unmount { name: "b".into(), force: false }).expect("nobody uses it");
    machine.run();
    assert_eq!(machine.model(conn, "a").frames_total, 1024 / 64);
    assert_eq!(machine.free(conn), [2000 - 300 - 100 - 1024]);
    assert_eq!(machine.generate(conn, context, 140).text, whole[100..]);
    assert_eq!(machine.stat(conn).tokens_recomputed, computed, "its pages were saved");
    machine.call(conn, fixed).expect("a makes room once more");
    assert_eq!(machine.model(conn, "a").frames_total, 576 / 64);
}

#[test]
fn pool_that_rests_without_swap_stays_and_grows_when_generations_wait_for_frames() {
    let (mut machine, conn, contexts) = four_contexts();
    for context in &contexts {
        machine.generate(conn, *context, 150);
    }
    let fixed = Mount { context: Some(Tokens(256)), ..mount("b", &script(644)) };
    machine.call(conn, fixed).expect("a makes room");
    // So that something would be lost.
    machine.generate(conn, contexts[0], 1);
    machine.call(conn, Unmount { name: "b".into(), force: false }).expect("nobody uses it");
    machine.run();
    assert_eq!(machine.model(conn, "a").frames_total, 576 / 64);
    let calls: Vec<_> = contexts.iter().map(|c| machine.begin(conn, generate(*c, 80))).collect();
    for (call, prompt) in calls.into_iter().zip(PROMPTS).skip(1) {
        assert_eq!(generated(machine.finish(conn, call)).text, reference("", prompt, 230)[150..], "{prompt}");
    }
    assert_eq!(machine.model(conn, "a").frames_total, 1024 / 64);
}

#[test]
fn pool_gets_no_smaller_than_the_largest_context_that_is_open() {
    let (mut machine, conn) = machine(&[("cpu", 1500)]);
    machine.mount(conn, "a", "pool=1024,context=1024,kv=1,compute=100,weights=300").expect("room");
    let context = machine.context_on(conn, "a", Some(900));
    machine.append(conn, context, "in use").expect("it fits");
    machine.begin(conn, generate(context, 800));
    let fixed = |weights| Mount { context: Some(Tokens(64)), ..mount("b", &script(weights)) };
    let fault = machine.call(conn, fixed(100)).expect_err("a needs its pool");
    assert_eq!(fault.errno, Errno::ENOMEM);
    machine.call(conn, Close { context }).expect("own context");
    let context = machine.context_on(conn, "a", Some(300));
    machine.call(conn, fixed(100)).expect("a makes room");
    assert_eq!(machine.model(conn, "a").context_tokens, 832);
    machine.append(conn, context, "still here").expect("it fits");
    assert_eq!(machine.generate(conn, context, 290).text, reference("", "still here", 290));
}

#[test]
fn worker_that_dies_keeps_its_share_and_one_given_up_does_not() {
    let (mut machine, conn) = machine(&[("cpu", 1000)]);
    machine.mount_of(conn, "a", 300).expect("room");
    machine.kill_worker();
    assert_eq!(machine.free(conn), [344]);
    machine.run();
    assert_eq!(machine.free(conn), [344]);
    for _ in 0..6 {
        if !machine.workers.is_empty() {
            machine.kill_worker();
        }
        machine.run();
    }
    assert_eq!(machine.model_state(conn, "a"), ModelState::Offline);
    assert_eq!(machine.free(conn), [1000]);
}

#[test]
fn worker_that_dies_while_its_pool_changes_starts_with_the_new_one() {
    let (mut machine, conn) = machine(&[("cpu", 1500)]);
    machine.mount(conn, "a", "pool=1024,context=256,kv=1,compute=100,weights=300").expect("room");
    machine.context_on(conn, "a", None);
    let fixed = Mount { context: Some(Tokens(64)), ..mount("b", &script(100)) };
    let call = machine.begin(conn, fixed);
    machine.turn();
    assert!(matches!(machine.jobs.front(), Some(Job::Step(..))), "the operation is under way");
    machine.kill_worker();
    assert!(machine.finish(conn, call).is_ok());
    machine.run();
    assert_eq!(machine.model(conn, "a").frames_total, 832 / 64);
}

#[test]
fn models_go_to_the_graphics_device_with_most_room() {
    let (mut machine, conn) = machine(&[("cpu", 5000), ("gpu:0", 1000), ("gpu:1", 1500)]);
    machine.mount_of(conn, "a", 600).expect("room");
    assert_eq!(machine.model(conn, "a").device, "gpu:1");
    machine.mount_of(conn, "b", 500).expect("room");
    assert_eq!(
        (machine.model(conn, "b").device.as_str(), machine.last_load().gpu_layers),
        ("gpu:0", Some(2))
    );
    assert_eq!(machine.free(conn), [5000, 144, 544]);
    let on = |device: &str| Mount { device: Some(device.into()), ..mount("c", &script(100)) };
    let fault = machine.call(conn, on("gpu:7")).expect_err("no such device");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("there are cpu, gpu:0, gpu:1"), "{fault}");
    machine.call(conn, on("cpu")).expect("room");
    assert_eq!(machine.model(conn, "c").device, "cpu");
    assert_eq!(machine.free(conn), [4544, 144, 544]);
}

#[test]
fn layers_are_split_between_a_graphics_device_and_main_memory() {
    // Ten layers of 100 bytes of weights and 64 of pool; buffers of 100.
    let ten = "layers=10,context=64,kv=10,compute=100,weights=1000";
    let (mut machine, conn) = machine(&[("cpu", 5000), ("gpu:0", 1000)]);
    let info = machine.mount(conn, "a", ten).expect("room for five layers there");
    assert_eq!((info.device.as_str(), info.gpu_layers, info.layers), ("gpu:0", 6, 11));
    assert_eq!(
        (machine.last_load().device.as_deref(), machine.last_load().gpu_layers),
        (Some("gpu:0"), Some(6))
    );
    assert_eq!(machine.free(conn), [5000 - 5 * 164 - 100, 1000 - 5 * 164 - 100]);
    let shares: Vec<(String, u64)> =
        info.memory.iter().map(|s| (s.device.clone(), s.weights_bytes)).collect();
    assert_eq!(shares, [("cpu".into(), 500), ("gpu:0".into(), 500)]);
    let fixed = |layers| Mount { gpu_layers: Some(layers), ..mount("b", ten) };
    machine.call(conn, Unmount { name: "a".into(), force: false }).expect("nobody uses it");
    machine.call(conn, fixed(3)).expect("room for two layers there");
    assert_eq!(machine.free(conn), [5000 - 8 * 164 - 100, 1000 - 2 * 164 - 100]);
    machine.call(conn, Unmount { name: "b".into(), force: false }).expect("nobody uses it");
    let fault = machine.call(conn, fixed(11)).expect_err("not all of them");
    assert!(fault.message.contains("on gpu:0; 1.0 KiB in all"), "{fault}");
    machine.call(conn, fixed(0)).expect("room in main memory");
    assert_eq!(machine.free(conn), [5000 - 10 * 164 - 100, 1000]);
}

#[test]
fn models_of_an_earlier_boot_push_nobody_out_and_load_when_they_are_used() {
    let (mut machine, conn) = machine(&[("cpu", 1400)]);
    for name in ["a", "b", "c"] {
        machine.mount_of(conn, name, 300).expect("others make room");
    }
    let records = machine.records.values().cloned().collect();
    let mut next = Machine::new(config(&[("cpu", 1400)]));
    next.event(Event::Booted { records });
    next.run();
    let conn = next.connect(ADMIN);
    assert_eq!(next.model_state(conn, "a"), ModelState::Ready);
    assert_eq!(next.model_state(conn, "b"), ModelState::Ready);
    assert_eq!(next.model_state(conn, "c"), ModelState::Unloaded);
    assert!(next.open_on(conn, "c").is_ok());
    assert_eq!(next.model_state(conn, "a"), ModelState::Unloaded);
}

#[test]
fn nothing_is_placed_before_the_devices_are_known() {
    let mut machine = Machine::new(KernelConfig { devices_to_come: true, ..config(&[("cpu", 5000)]) });
    let conn = machine.connect(ADMIN);
    let call = machine.begin(conn, mount("a", &script(300)));
    machine.run();
    assert!(machine.reply(conn, call).is_none() && machine.loads.is_empty());
    let found = vec![DeviceConfig { name: "gpu:0".into(), memory_bytes: 1000 }];
    machine.event(Event::DevicesFound { devices: found });
    assert!(machine.finish(conn, call).is_ok());
    assert_eq!(machine.model(conn, "a").device, "gpu:0");
}

#[test]
fn mount_that_waits_for_memory_can_be_taken_back() {
    let (mut machine, conn) = machine(&[("cpu", 800)]);
    machine.mount_of(conn, "a", 300).expect("room");
    let call = machine.begin(conn, mount("b", &script(300)));
    machine.turn();
    machine.call(conn, Unmount { name: "b".into(), force: true }).expect("it is not needed");
    assert_eq!(machine.finish(conn, call).expect_err("gone").errno, Errno::ECANCELED);
    machine.run();
    assert_eq!(machine.free(conn), [800]);
    assert!(machine.open_on(conn, "a").is_ok(), "and the other one comes back");
}
