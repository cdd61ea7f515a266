//! Shared segments: who may open on them, what is shared, and how long they live.

use kernel::core::Event as Input;
use kernel::core::effect::Record;
use kernel::core::event::ConnId;
use syscalls::call::*;
use syscalls::reply::SegmentInfo;
use syscalls::{ContextId, Errno, Fault, Reply, Tokens};

use crate::machine::{ADMIN, Machine, append_bytes, generate, generated, open, reference};

fn text(n: usize, tokens: usize) -> String {
    format!("segment {n} ").chars().cycle().take(tokens).collect()
}

impl Machine {
    fn share(&mut self, conn: ConnId, context: ContextId, mode: u32) -> Result<(), Fault> {
        let share = Share { context, name: "rules".into(), length: None, mode };
        self.call(conn, share).map(drop)
    }

    fn open_on_rules(&mut self, conn: ConnId) -> Result<ContextId, Fault> {
        match self.call(conn, Open { prefix: Some("rules".into()), ..open() })? {
            Reply::Opened { context, .. } => Ok(context),
            other => panic!("{other:?}"),
        }
    }

    fn segments(&mut self, conn: ConnId) -> Vec<SegmentInfo> {
        match self.call(conn, Segments {}) {
            Ok(Reply::Segments(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    fn evaluated(&mut self, conn: ConnId) -> u64 {
        self.stat(conn).prompt_tokens_evaluated
    }
}

#[test]
fn segment_is_shared_across_users_and_what_is_behind_it_is_not() {
    let (mut machine, admin) = Machine::with_model("pool=8192,context=2048");
    let (owner, one, two) = (machine.connect(7), machine.connect(8), machine.connect(9));
    let rules = text(1, 700);
    let context = machine.open_with(owner, &rules);
    machine.generate(owner, context, 1);
    machine.call(owner, Truncate { context, length: Tokens(700) }).expect("own context");
    machine.share(owner, context, 0o644).expect("own context");
    machine.call(owner, Exit { status: 0 }).expect("it ends");
    let before = machine.evaluated(admin);
    let question = text(2, 200);
    let expected = reference("", &format!("{rules}{question}"), 20);
    for (n, conn) in [one, two, one].into_iter().enumerate() {
        let context = machine.open_on_rules(conn).expect("everyone may");
        machine.append(conn, context, &question).expect("it fits");
        assert_eq!(machine.generate(conn, context, 20).text, expected, "{n}");
    }
    // Each user computes its own question, and the second time the last token alone.
    assert_eq!(machine.evaluated(admin) - before, 200 + 200 + 1);
}

#[test]
fn segment_not_computed_yet_is_computed_once() {
    let (mut machine, admin) = Machine::with_model("pool=8192,context=2048,batch=128");
    let conns: Vec<ConnId> = (7..11).map(|uid| machine.connect(uid)).collect();
    let rules = text(1, 640);
    let context = machine.open_with(conns[0], &rules);
    machine.share(conns[0], context, 0o604).expect("own context");
    let mut calls = vec![];
    for conn in &conns {
        let context = machine.open_on_rules(*conn).expect("everyone may");
        machine.call(*conn, append_bytes(context, "and now?")).expect("it fits");
        calls.push(machine.begin(*conn, generate(context, 10)));
    }
    let expected = reference("", &format!("{rules}and now?"), 10);
    for (conn, call) in conns.iter().zip(calls) {
        assert_eq!(generated(machine.finish(*conn, call)).text, expected);
    }
    assert_eq!(machine.evaluated(admin), 640 + 4 * 8);
}

#[test]
fn segment_of_another_user_is_his_alone_unless_published() {
    let (mut machine, admin) = Machine::with_model("");
    let (owner, other) = (machine.connect(7), machine.connect(8));
    let context = machine.open_with(owner, "secret rules");
    machine.share(owner, context, 0o600).expect("own context");
    assert!(machine.open_on_rules(owner).is_ok());
    assert!(machine.open_on_rules(admin).is_ok(), "the administrator may");
    let fault = machine.open_on_rules(other).expect_err("not for others");
    assert_eq!(fault.errno, Errno::EPERM);
    assert!(fault.message.contains("0o600"), "{fault}");
    let seen = |machine: &mut Machine, conn| machine.segments(conn).len();
    assert_eq!([owner, admin, other].map(|conn| seen(&mut machine, conn)), [1, 1, 0]);
    let theirs = machine.open_with(other, "other rules");
    assert_eq!(machine.share(other, theirs, 0o644).expect_err("the name is taken").errno, Errno::EPERM);
    let remove = Unshare { name: "rules".into() };
    assert_eq!(machine.call(other, remove.clone()).expect_err("not his").errno, Errno::EPERM);
    machine.share(owner, context, 0o644).expect("the owner replaces it");
    assert_eq!(seen(&mut machine, other), 1, "it is published");
    assert!(machine.open_on_rules(other).is_ok());
    machine.call(owner, remove.clone()).expect("its owner");
    assert_eq!(machine.open_on_rules(owner).expect_err("it is gone").errno, Errno::ENOENT);
    assert_eq!(machine.call(owner, remove).expect_err("it is gone").errno, Errno::ENOENT);
}

#[test]
fn segment_outlives_its_process_pressure_and_the_worker() {
    let (mut machine, conn) = Machine::with_swap("pool=512,context=512", 64, 0);
    let owner = machine.connect(7);
    let rules = text(1, 256);
    let context = machine.open_with(owner, &rules);
    machine.generate(owner, context, 1);
    let share = Share { context, name: "rules".into(), length: Some(Tokens(256)), mode: 0o600 };
    machine.call(owner, share).expect("own context");
    machine.call(owner, Exit { status: 0 }).expect("it ends");
    for n in 2..6 {
        let context = machine.open_with(conn, &text(n, 300));
        machine.generate(conn, context, 10);
    }
    machine.kill_worker();
    let (expected, before) = (reference("", &format!("{rules}!"), 10), machine.evaluated(conn));
    let user = machine.connect(7);
    let context = machine.open_on_rules(user).expect("his own");
    machine.append(user, context, "!").expect("it fits");
    assert_eq!(machine.generate(user, context, 10).text, expected);
    assert!(machine.evaluated(conn) - before <= 257);
    let info = &machine.segments(conn)[0];
    assert_eq!((info.name.as_str(), info.uid, info.mode, info.length), ("rules", 7, 0o600, Tokens(256)));
    machine.call(conn, Unmount { name: "m".into(), force: true }).expect("the administrator");
    assert!(machine.segments(conn).is_empty(), "it goes with its model");
}

#[test]
fn context_cut_below_its_segment_shares_nothing_of_its_own_with_others() {
    let (mut machine, admin) = Machine::with_model("pool=8192,context=2048");
    let (one, two) = (machine.connect(7), machine.connect(8));
    let rules = text(1, 640);
    let context = machine.open_with(one, &rules);
    machine.generate(one, context, 1);
    let share = Share { context, name: "rules".into(), length: Some(Tokens(640)), mode: 0o644 };
    machine.call(one, share).expect("own context");
    let private = format!("my own {}", text(9, 313));
    let mut evaluated = vec![];
    for conn in [one, two] {
        let context = machine.open_on_rules(conn).expect("everyone may");
        machine.call(conn, Truncate { context, length: Tokens(320) }).expect("own context");
        machine.append(conn, context, &private).expect("it fits");
        let before = machine.evaluated(admin);
        let expected = reference("", &format!("{}{private}", &rules[..320]), 10);
        assert_eq!(machine.generate(conn, context, 10).text, expected);
        evaluated.push(machine.evaluated(admin) - before);
    }
    assert_eq!(evaluated, [320, 320], "each computes what is private, and no more");
}

#[test]
fn chat_on_a_segment_goes_on_from_its_instructions() {
    let (mut machine, conn) = Machine::with_model("template=chatml,text=echo,pool=8192,context=2048");
    let message = |role: &str, content: String| Message { role: role.into(), content };
    let say = |context, messages| Append {
        context,
        text: None,
        tokens: None,
        messages: Some(messages),
        special: false,
    };
    let context = machine.open(conn);
    machine.call(conn, say(context, vec![message("system", text(1, 400))])).expect("a template");
    machine.share(conn, context, 0o600).expect("own context");
    let mut evaluated = vec![];
    for name in ["one", "two"] {
        let context = machine.open_on_rules(conn).expect("his own");
        machine.call(conn, say(context, vec![message("user", name.into())])).expect("a template");
        let before = machine.evaluated(conn);
        assert_eq!(machine.generate(conn, context, 50).text, name);
        evaluated.push(machine.evaluated(conn) - before);
    }
    assert!(evaluated[0] > 400 && evaluated[1] < 40, "{evaluated:?}");
}

#[test]
fn share_misused_is_refused() {
    let (mut machine, conn) = Machine::with_model("");
    let context = machine.open_with(conn, "some text");
    let share = |length, mode| Share { context, name: "rules".into(), length, mode };
    for (call, words) in [
        (share(Some(Tokens(0)), 0o600), "unshare"),
        (share(Some(Tokens(10)), 0o600), "has 9 tokens"),
        (share(None, 0o1000), "0o777"),
        (Share { name: String::new(), ..share(None, 0o600) }, "0 bytes"),
    ] {
        let fault = machine.call(conn, call).expect_err(words);
        assert_eq!(fault.errno, Errno::EINVAL);
        assert!(fault.message.contains(words), "{fault}");
    }
    let other = machine.connect(7);
    let context = machine.open_with(other, "x");
    for n in 0..64 {
        machine.call(other, Share { context, name: format!("s{n}"), length: None, mode: 0o600 }).expect("64");
    }
    let fault = machine.call(other, Share { context, name: "s64".into(), length: None, mode: 0o600 });
    assert_eq!(fault.expect_err("one too many").errno, Errno::EMFILE);
    assert!(machine.connect(ADMIN) > other);
}

impl Machine {
    /// The daemon ends, and another one begins with what the store holds and these changes to it.
    fn restarted(&mut self, change: impl Fn(&mut Record)) -> (Machine, ConnId) {
        self.event(Input::Terminate);
        let mut records: Vec<Record> = self.records.values().cloned().collect();
        records.iter_mut().for_each(change);
        // The host does not say in which order they come.
        records.reverse();
        let mut next = Machine::default();
        next.records = records.iter().map(|r| (r.key(), r.clone())).collect();
        next.event(Input::Booted { records });
        let admin = next.connect(ADMIN);
        (next, admin)
    }
}

/// A machine with a segment of 300 tokens that everybody may open on.
fn shared_rules() -> (Machine, ConnId) {
    let (mut machine, _) = Machine::with_model("pool=4096,context=1024");
    let owner = machine.connect(7);
    let context = machine.open_with(owner, &text(1, 300));
    machine.generate(owner, context, 1);
    machine.call(owner, Truncate { context, length: Tokens(300) }).expect("own context");
    machine.share(owner, context, 0o604).expect("own context");
    (machine, owner)
}

#[test]
fn segment_is_there_after_a_restart_with_its_owner_its_bits_and_its_tokens() {
    let (mut before, owner) = shared_rules();
    let listed = before.segments(owner);
    let (mut machine, admin) = before.restarted(|_| {});
    assert_eq!(machine.segments(admin), listed, "before its model has been loaded");
    let other = machine.connect(8);
    // The call waits for the model.
    let context = machine.open_on_rules(other).expect("everybody may");
    machine.append(other, context, "and a question").expect("it fits");
    let expected = reference("", &format!("{}and a question", text(1, 300)), 20);
    assert_eq!(machine.generate(other, context, 20).text, expected);
    let second = machine.open_on_rules(other).expect("everybody may");
    let evaluated = machine.evaluated(admin);
    machine.generate(other, second, 1);
    assert!(machine.evaluated(admin) - evaluated <= 1, "and it is shared as before");
    let fault = machine.call(other, Unshare { name: "rules".into() }).expect_err("not his own");
    assert_eq!(fault.errno, Errno::EPERM);
    let owner = machine.connect(7);
    machine.call(owner, Unshare { name: "rules".into() }).expect("his own");
    let (mut machine, admin) = machine.restarted(|_| {});
    assert_eq!(machine.segments(admin), []);
}

#[test]
fn segment_replaced_after_a_restart_is_met_by_nobody_who_opened_on_the_first() {
    let (mut before, _) = shared_rules();
    let (mut machine, _) = before.restarted(|_| {});
    let owner = machine.connect(7);
    let first = machine.open_on_rules(owner).expect("his own");
    machine.generate(owner, first, 1);
    let context = machine.open_with(owner, &text(2, 200));
    machine.share(owner, context, 0o600).expect("his own name");
    let second = machine.open_on_rules(owner).expect("his own");
    assert_eq!(machine.generate(owner, second, 20).text, reference("", &text(2, 200), 20));
    machine.call(owner, Truncate { context: first, length: Tokens(300) }).expect("own context");
    assert_eq!(machine.generate(owner, first, 20).text, reference("", &text(1, 300), 20));
}

#[test]
fn segment_of_another_file_under_the_same_name_goes_and_the_log_says_so() {
    let (mut before, _) = shared_rules();
    let (mut machine, admin) = before.restarted(|record| {
        if let Record::Mount(mount) = record {
            mount.path = mount.path.replace("pool=", "seed=5,pool=");
        }
    });
    machine.run();
    assert_eq!(machine.segments(admin), []);
    let fault = machine.open_on_rules(admin).expect_err("gone");
    assert_eq!(fault.errno, Errno::ENOENT);
    assert!(
        machine.logs.iter().any(|l| l.contains("rules") && l.contains("another file")),
        "{:?}",
        machine.logs
    );
    assert!(machine.records.keys().all(|key| !key.starts_with("segment/")), "{:?}", machine.records.keys());
}

#[test]
fn segment_goes_from_the_store_with_its_model() {
    let (mut machine, _) = shared_rules();
    let admin = machine.connect(ADMIN);
    machine.call(admin, Unmount { name: "m".into(), force: true }).expect("the administrator");
    assert!(machine.records.is_empty(), "{:?}", machine.records.keys());
    let (mut orphaned, _) = shared_rules();
    orphaned.records.retain(|key, _| key.starts_with("segment/"));
    let (mut machine, admin) = orphaned.restarted(|_| {});
    assert_eq!(machine.segments(admin), []);
    assert!(machine.records.is_empty(), "{:?}", machine.records.keys());
}

#[test]
fn segment_of_a_context_that_has_killed_two_workers_kills_no_more() {
    let (mut machine, conn) = Machine::with_model("die_on_text=zzz");
    let context = machine.open_with(conn, "sleep zzz and more");
    machine.call(conn, generate(context, 5)).expect_err("it kills");
    assert_eq!(machine.stat(conn).worker_restarts, 2);
    machine.share(conn, context, 0o600).expect("own context");
    let reader = machine.open_on_rules(conn).expect("own segment");
    machine.append(conn, reader, " behind it").expect("it fits");
    let fault = machine.call(conn, generate(reader, 5)).expect_err("it is known to kill");
    assert!(fault.errno == Errno::EIO && fault.message.contains("died twice"), "{fault}");
    assert_eq!(machine.stat(conn).worker_restarts, 2);
    machine.call(conn, Truncate { context: reader, length: Tokens(5) }).expect("shorter");
    assert_eq!(machine.generate(conn, reader, 5).text, reference("", "sleep", 5));
}
