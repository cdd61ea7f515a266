use super::super::scripted::{PID, mute, reluctant, scripted};
use super::*;
use crate::call::{Append, Exit, Generate, Lifetime, Ps, Sampling, Sysinfo};
use crate::id::{ContextId, Token, Tokens};
use crate::limits::LINE_BYTES_MAX;
use crate::reply::{Finish, GeneratedReply, Usage};

fn generate() -> Generate {
    Generate {
        context: ContextId(1),
        max_tokens: None,
        stop: vec![],
        sampling: Sampling::default(),
        ignore_eos: false,
        logprobs: None,
        stream: true,
        deadline_ms: None,
    }
}

fn generated(finish: Finish, text: &str) -> Reply {
    let (tokens, usage) = (vec![Token(1)], Usage::default());
    let length = Tokens(2);
    Reply::Generated(GeneratedReply {
        finish,
        text: text.into(),
        tokens,
        logprobs: vec![],
        length,
        seed: 3,
        usage,
    })
}

fn text_of(event: Event) -> String {
    match event {
        Event::Tokens { text, .. } => text,
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn connect_without_a_daemon_says_how_to_start_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("none");
    let fault = Client::connect(&path, "test").expect_err("nobody listens");
    assert_eq!(fault.errno, Errno::ENOENT);
    assert!(fault.message.contains("llmasos daemon") && fault.message.contains("none"), "{fault}");

    drop(std::os::unix::net::UnixListener::bind(&path).expect("the folder is new"));
    let fault = Client::connect(&path, "test").expect_err("nobody listens any more");
    assert_eq!(fault.errno, Errno::ECONNRESET);
    assert!(fault.message.contains("llmasos daemon"), "{fault}");
}

#[test]
fn reply_of_another_call_is_a_protocol_fault() {
    let daemon = scripted(|peer| {
        for _ in 0..2 {
            let request = peer.request();
            peer.reply(request.id, Ok(Reply::Done {}));
        }
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    for fault in [client.groups().expect_err("no list"), client.segments().expect_err("no list")] {
        assert_eq!(fault.errno, Errno::EPROTO);
        assert!(fault.message.contains("another call"), "{fault}");
    }
    daemon.end();
}

#[test]
fn path_too_long_for_a_socket_is_named() {
    let fault = Client::connect(Path::new(&"x".repeat(200)), "test").expect_err("too long");
    assert_eq!(fault.errno, Errno::EINVAL);
    assert!(fault.message.contains("107"), "{fault}");
}

#[test]
fn hello_carries_the_name_and_keeps_the_pid() {
    let daemon = mute(|peer| {
        let Call::Hello(hello) = peer.request().call else { panic!("hello comes first") };
        assert_eq!((hello.version, hello.name.as_deref()), (1, Some("test")));
        peer.reply(CallId(1), Err(Fault::new(Errno::EPROTONOSUPPORT, "speak version 2")));
    });
    let fault = Client::connect(&daemon.socket, "test").expect_err("refused");
    assert_eq!(fault.errno, Errno::EPROTONOSUPPORT);
    daemon.end();

    let daemon = scripted(|_| {});
    assert_eq!(Client::connect(&daemon.socket, "test").expect("connects").pid(), PID);
    daemon.end();
}

#[test]
fn generate_gives_events_then_the_reply() {
    let daemon = scripted(|peer| {
        let id = peer.request().id;
        peer.text(id, "Hal");
        peer.text(id, "lo");
        peer.reply(id, Ok(generated(Finish::Eos, "Hallo")));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    let mut text = String::new();
    let reply = client.generate(generate(), |event| text.push_str(&text_of(event))).expect("generates");
    assert_eq!((text.as_str(), reply.text.as_str()), ("Hallo", "Hallo"));
    daemon.end();
}

#[test]
fn calls_in_flight_finish_in_any_order() {
    let daemon = scripted(|peer| {
        let (first, second) = (peer.request().id, peer.request().id);
        peer.text(first, "one");
        peer.text(second, "two");
        peer.reply(first, Ok(generated(Finish::Eos, "one")));
        peer.reply(second, Ok(generated(Finish::Eos, "two")));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    let first = client.start(generate()).expect("sent");
    let second = client.start(generate()).expect("sent");
    for (id, expected) in [(second, "two"), (first, "one")] {
        let mut text = String::new();
        let reply = client.finish(id, |event| text.push_str(&text_of(event))).expect("finishes");
        assert_eq!((text.as_str(), reply), (expected, generated(Finish::Eos, expected)));
    }
    daemon.end();
}

#[test]
fn frames_of_another_call_beyond_the_bound_are_not_lost() {
    let daemon = scripted(|peer| {
        let (first, second) = (peer.request().id, peer.request().id);
        (0..FRAMES_WAITING_MAX).for_each(|_| peer.text(first, "."));
        peer.reply(first, Ok(generated(Finish::Eos, "")));
        peer.reply(second, Ok(generated(Finish::Eos, "two")));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    let first = client.start(generate()).expect("sent");
    let second = client.start(generate()).expect("sent");
    let full = client.finish(second, |_| {}).expect_err("too many wait");
    assert_eq!(full.errno, Errno::EAGAIN);
    let mut events = 0;
    let reply = client.finish(first, |_| events += 1).expect("finishes");
    assert_eq!((events, reply), (FRAMES_WAITING_MAX, generated(Finish::Eos, "")));
    assert_eq!(client.finish(second, |_| {}).expect("finishes"), generated(Finish::Eos, "two"));
    daemon.end();
}

#[test]
fn interrupter_ends_a_call_from_another_thread() {
    let daemon = scripted(|peer| {
        let id = peer.request().id;
        peer.text(id, "so far");
        let kill = peer.request();
        assert_eq!(kill.call, Call::Kill(Kill { pid: PID, signal: Signal::Int }));
        peer.reply(kill.id, Ok(Reply::Done {}));
        peer.reply(id, Ok(generated(Finish::Interrupted, "so far")));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    let interrupter = client.interrupter();
    let reply = client.generate(generate(), |_| {
        let interrupter = interrupter.clone();
        thread::spawn(move || interrupter.interrupt().expect("sent")).join().expect("no panic");
    });
    assert_eq!(reply.expect("ends").finish, Finish::Interrupted);
    daemon.end();
}

#[test]
fn call_as_names_the_child() {
    let daemon = scripted(|peer| {
        let request = peer.request();
        assert_eq!(request.pid, Some(Pid(42)));
        peer.reply(request.id, Ok(Reply::Done {}));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    assert_eq!(client.call_as(Pid(42), Exit { status: 0 }), Ok(Reply::Done {}));
    daemon.end();
}

#[test]
fn daemon_that_goes_away_gives_econnreset() {
    let daemon = scripted(|peer| {
        peer.request();
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    assert_eq!(client.ps().expect_err("gone").errno, Errno::ECONNRESET);
    daemon.end();
    assert_eq!(client.start(Ps { all: false }).expect_err("still gone").errno, Errno::ECONNRESET);
}

#[test]
fn connections_that_end_before_the_greeting_are_made_again() {
    let daemon = reluctant(4, |peer| {
        let id = peer.request().id;
        peer.reply(id, Ok(Reply::Models(vec![])));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("gets through");
    assert_eq!((client.pid(), client.models()), (PID, Ok(vec![])));
    daemon.end();
}

#[test]
fn hello_of_a_process_that_would_outlive_the_daemon_is_not_said_twice() {
    let daemon = reluctant(2, |_| {});
    let persistent = Hello { lifetime: Lifetime::Persistent, ..hello("test") };
    let fault = Client::connect_with(&daemon.socket, persistent).expect_err("it may have begun");
    assert_eq!(fault.errno, Errno::ECONNRESET);
    let detached = Hello { lifetime: Lifetime::Detached, ..hello("test") };
    assert_eq!(Client::connect_with(&daemon.socket, detached).expect("gets through").pid(), PID);
    daemon.end();
}

#[test]
fn daemon_that_is_full_says_so_before_it_closes() {
    let daemon = mute(|peer| peer.reply(NO_CALL, Err(Fault::new(Errno::EMFILE, "4096 of 4096 connections"))));
    assert_eq!(Client::connect(&daemon.socket, "test").expect_err("full").errno, Errno::EMFILE);
    daemon.end();
}

#[test]
fn request_too_long_is_refused_before_it_is_sent() {
    let daemon = scripted(|peer| {
        let request = peer.request();
        assert_eq!(request.call, Call::Sysinfo(Sysinfo {}));
        peer.reply(request.id, Ok(Reply::Done {}));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    let text = Some("x".repeat(LINE_BYTES_MAX));
    let append = Append { context: ContextId(1), text, tokens: None, messages: None, special: false };
    let fault = client.append(append).expect_err("too long");
    assert_eq!(fault.errno, Errno::EMSGSIZE);
    assert!(fault.message.contains(&LINE_BYTES_MAX.to_string()), "{fault}");
    assert_eq!(client.call(Sysinfo {}), Ok(Reply::Done {}));
    daemon.end();
}

#[test]
fn reply_of_another_kind_is_a_protocol_fault() {
    let daemon = scripted(|peer| {
        let id = peer.request().id;
        peer.reply(id, Ok(Reply::Done {}));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    assert_eq!(client.ps().expect_err("not a process list").errno, Errno::EPROTO);
    daemon.end();
}

#[test]
fn timeout_ends_the_wait_and_not_the_connection() {
    let daemon = scripted(|peer| {
        let (slow, quick) = (peer.request().id, peer.request().id);
        peer.reply(slow, Ok(Reply::Processes(vec![])));
        peer.reply(quick, Ok(Reply::Models(vec![])));
    });
    let mut client = Client::connect(&daemon.socket, "test").expect("connects");
    client.set_timeout(Some(Duration::from_millis(20))).expect("a duration");
    assert_eq!(client.ps().expect_err("no answer").errno, Errno::ETIMEDOUT);
    client.set_timeout(None).expect("none");
    assert_eq!(client.models(), Ok(vec![]));
    daemon.end();
}
