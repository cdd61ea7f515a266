//! Models: mounting, choosing, embedding, unmounting.

use kernel::core::{Event, KernelConfig};
use syscalls::call::*;
use syscalls::reply::{Finish, ModelInfo, ModelState};
use syscalls::{Errno, Reply};

use crate::machine::{ADMIN, Machine, generate, generated, mount, open};

impl Machine {
    fn models(&mut self, conn: kernel::core::event::ConnId) -> Vec<ModelInfo> {
        match self.call(conn, Models {}) {
            Ok(Reply::Models(list)) => list,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn mount_answers_when_the_model_is_ready_and_is_remembered() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let id = machine.begin(conn, mount("m", "pool=2048,context=1000"));
    assert!(machine.reply(conn, id).is_none());
    assert_eq!(machine.models(conn)[0].state, ModelState::Loading);
    assert!(machine.records.is_empty(), "a model that may not load is not mounted again at every start");
    let Ok(Reply::Mounted(info)) = machine.finish(conn, id) else { panic!("it mounts") };
    assert_eq!((info.state, info.context_tokens, info.frames_total), (ModelState::Ready, 1000, 32));
    let records: Vec<_> = machine.records.values().cloned().collect();

    let mut next = Machine::default();
    next.event(Event::Booted { records });
    let conn = next.connect(ADMIN);
    let opening = next.begin(conn, open());
    assert!(next.reply(conn, opening).is_none(), "it waits for the model");
    assert!(matches!(next.finish(conn, opening), Ok(Reply::Opened { .. })));
}

#[test]
fn mount_refused_leaves_nothing_behind() {
    let mut machine = Machine::default();
    let conn = machine.connect(ADMIN);
    let fault = machine.mount(conn, "m", "refuse=the file is no model").expect_err("refused");
    assert_eq!((fault.errno, fault.message.as_str()), (Errno::ENOEXEC, "the file is no model"));
    let fault = machine.mount(conn, "m", "die_on_load=1").expect_err("died");
    assert_eq!(fault.errno, Errno::EIO);
    assert_eq!(machine.models(conn), []);
    assert!(machine.records.is_empty());
    assert!(machine.mount(conn, "m", "").is_ok());
}

#[test]
fn mount_whose_caller_is_interrupted_goes_on_and_keeps_nobody_from_unmounting() {
    for unmounts in [false, true] {
        let mut machine = Machine::default();
        let (conn, other) = (machine.connect(ADMIN), machine.connect(ADMIN));
        let call = machine.begin(conn, mount("m", ""));
        let pid = machine.pid(conn);
        machine.call(other, Kill { pid, signal: Signal::Int }).expect("it is there");
        assert_eq!(machine.finish(conn, call).expect_err("INT").errno, Errno::EINTR);
        if unmounts {
            machine.call(other, Unmount { name: "m".into(), force: false }).expect("nobody waits for it");
        }
        machine.run();
        let states: Vec<ModelState> = machine.models(other).iter().map(|model| model.state).collect();
        assert_eq!(states, if unmounts { vec![] } else { vec![ModelState::Ready] });
    }
}

#[test]
fn mount_arguments_that_make_no_sense_are_refused() {
    let (mut machine, conn) = Machine::with_model("");
    let errno = |reply: Result<Reply, syscalls::Fault>| reply.expect_err("refused").errno;
    assert_eq!(errno(machine.call(conn, mount("m", ""))), Errno::EEXIST);
    let relative = Mount { path: "model.gguf".into(), ..mount("x", "") };
    assert_eq!(errno(machine.call(conn, relative)), Errno::EINVAL);
    assert_eq!(errno(machine.call(conn, Mount { threads: Some(0), ..mount("x", "") })), Errno::EINVAL);
    assert_eq!(errno(machine.call(conn, mount("a\nb", ""))), Errno::EINVAL);
    assert_eq!(errno(machine.call(conn, mount(&"x".repeat(200), ""))), Errno::EINVAL);
    for n in 1..64 {
        machine.mount(conn, &format!("m{n}"), "").expect("within the limit");
    }
    assert_eq!(errno(machine.call(conn, mount("one more", ""))), Errno::E2BIG);
}

#[test]
fn model_not_named_is_the_only_one_or_the_configured_one() {
    let config = KernelConfig { default_model: Some("b".into()), ..KernelConfig::default() };
    let mut machine = Machine::new(config);
    let conn = machine.connect(ADMIN);
    assert_eq!(machine.call(conn, open()).expect_err("none").errno, Errno::ENOENT);
    machine.mount(conn, "a", "").expect("mounts");
    let opened = |reply| match reply {
        Ok(Reply::Opened { model, .. }) => model,
        other => panic!("{other:?}"),
    };
    assert_eq!(opened(machine.call(conn, open())), "a");
    machine.mount(conn, "c", "").expect("mounts");
    let fault = machine.call(conn, open()).expect_err("not clear which");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("a, c"), "{fault}");
    machine.mount(conn, "b", "").expect("mounts");
    assert_eq!(opened(machine.call(conn, open())), "b");
    let named = Open { model: Some("d".into()), ..open() };
    assert_eq!(machine.call(conn, named).expect_err("none").errno, Errno::ENOENT);
}

#[test]
fn embed_goes_to_the_encoder() {
    let (mut machine, conn) = Machine::with_model("");
    machine.mount(conn, "bert", "generates=0,embedding=16").expect("mounts");
    let embed = |model: Option<&str>, texts: &[&str]| Embed {
        model: model.map(str::to_owned),
        texts: texts.iter().map(|t| (*t).to_owned()).collect(),
    };
    let Ok(Reply::Embedded(vectors)) = machine.call(conn, embed(None, &["one", "two"])) else { panic!() };
    assert_eq!(vectors.iter().map(Vec::len).collect::<Vec<_>>(), [16, 16]);
    assert!(machine.call(conn, open()).is_ok(), "the encoder is no choice for open");
    let fault = machine.call(conn, Open { model: Some("bert".into()), ..open() });
    assert_eq!(fault.expect_err("no generator").errno, Errno::ENOSYS);
    let many = vec![""; 1025];
    assert_eq!(machine.call(conn, embed(None, &many)).expect_err("too many").errno, Errno::E2BIG);
}

#[test]
fn tokenize_and_detokenize_undo_each_other() {
    let (mut machine, conn) = Machine::with_model("");
    let call = Tokenize { model: None, text: "häh?".into(), bos: true, special: false };
    let Ok(Reply::Tokens(tokens)) = machine.call(conn, call) else { panic!("it has tokens") };
    assert_eq!(tokens.len(), 6);
    let call = Detokenize { model: None, tokens: tokens[1..].to_vec() };
    assert_eq!(machine.call(conn, call), Ok(Reply::Text("häh?".into())));
    let call = Detokenize { model: None, tokens: vec![syscalls::Token(1 << 30)] };
    assert_eq!(machine.call(conn, call).expect_err("no token").errno, Errno::EINVAL);
}

#[test]
fn unmount_with_contexts_needs_force() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "unmount");
    let running = machine.begin(conn, generate(context, 1000));
    machine.turn();
    let unmount = |force| Unmount { name: "m".into(), force };
    let fault = machine.call(conn, unmount(false)).expect_err("in use");
    assert_eq!(fault.errno, Errno::EBUSY);
    assert!(machine.call(conn, unmount(true)).is_ok());
    assert_eq!(generated(machine.finish(conn, running)).finish, Finish::Interrupted);
    machine.run();
    assert!(machine.workers.is_empty() && machine.records.is_empty());
    assert_eq!(machine.models(conn), []);
    assert_eq!(machine.call(conn, unmount(true)).expect_err("gone").errno, Errno::ENOENT);
    assert!(machine.mount(conn, "m", "").is_ok(), "the name is free again");
}
