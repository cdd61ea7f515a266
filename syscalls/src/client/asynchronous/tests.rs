use std::future::Future;

use super::super::scripted::{PID, reluctant, scripted};
use super::*;
use crate::call::{Models, Ps};
use crate::errno::Errno;

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

#[test]
fn calls_in_flight_get_their_own_frames() {
    let daemon = scripted(|peer| {
        let (first, second) = (peer.request().id, peer.request().id);
        peer.text(second, "two");
        peer.text(first, "one");
        peer.reply(second, Ok(Reply::Text("2".into())));
        peer.reply(first, Ok(Reply::Text("1".into())));
    });
    run(async {
        let client = Client::connect(&daemon.socket, "test").await.expect("connects");
        let mut first = client.start(Ps { all: false }).await.expect("sent");
        let second = client.clone().start(Ps { all: false }).await.expect("sent");
        assert!(matches!(first.next_event().await, Some(Event::Tokens { text, .. }) if text == "one"));
        assert_eq!(first.next_event().await, None);
        assert_eq!(first.reply().await, Ok(Reply::Text("1".into())));
        assert_eq!(second.reply().await, Ok(Reply::Text("2".into())));
    });
    daemon.end();
}

#[test]
fn calls_pending_fail_when_the_connection_ends() {
    let daemon = scripted(|peer| {
        let (_, second) = (peer.request(), peer.request());
        peer.reply(second.id, Ok(Reply::Models(vec![])));
    });
    run(async {
        let client = Client::connect(&daemon.socket, "test").await.expect("connects");
        let first = client.start(Ps { all: false }).await.expect("sent");
        assert_eq!(client.call(Models {}).await, Ok(Reply::Models(vec![])));
        assert_eq!(first.reply().await.expect_err("gone").errno, Errno::ECONNRESET);
        assert_eq!(client.call(Ps { all: false }).await.expect_err("gone for good").errno, Errno::ECONNRESET);
    });
    daemon.end();
}

#[test]
fn connections_that_end_before_the_greeting_are_made_again() {
    let daemon = reluctant(4, |_| {});
    run(async {
        let client = Client::connect(&daemon.socket, "test").await.expect("gets through");
        assert_eq!(client.pid(), PID);
    });
    daemon.end();
}

#[test]
fn call_dropped_does_not_disturb_the_others() {
    let daemon = scripted(|peer| {
        let (dropped, kept) = (peer.request().id, peer.request().id);
        for _ in 0..2 * EVENTS_WAITING_MAX {
            peer.text(dropped, "x");
        }
        peer.reply(dropped, Ok(Reply::Done {}));
        peer.reply(kept, Ok(Reply::Models(vec![])));
    });
    run(async {
        let client = Client::connect(&daemon.socket, "test").await.expect("connects");
        drop(client.start(Ps { all: false }).await.expect("sent"));
        assert_eq!(client.call(Models {}).await, Ok(Reply::Models(vec![])));
    });
    daemon.end();
}

#[test]
fn connection_closes_with_the_last_clone() {
    let daemon = scripted(|peer| {
        use std::io::Read;
        let mut rest = Vec::new();
        peer.reader.read_to_end(&mut rest).expect("ends");
        assert!(rest.is_empty());
    });
    run(async {
        let client = Client::connect(&daemon.socket, "test").await.expect("connects");
        let clone = client.clone();
        drop(client);
        drop(clone);
        while !daemon.is_done() {
            tokio::task::yield_now().await;
        }
    });
    daemon.end();
}
