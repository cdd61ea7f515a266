//! Fills what the daemon keeps in memory up to a bound that it would take hours to reach otherwise.

use syscalls::call::{Discard, Snapshot, StorePut};

use super::{MODELS, STORE, pages};
use crate::Daemon;
use crate::said::greedy;

/// Writes to each database: sled keeps something of each of them until its log has been round.
const WRITES: u64 = 10_000;

/// Contexts that go by one after the other while the swap area does not fill any further: more than any pool here has
/// room for, so what they leave has been taken from each pool.
const STILL_MAX: u64 = 100;

/// Writes to the database of values, and to that of processes.
pub(super) fn databases(daemon: &Daemon) {
    let mut client = daemon.client();
    let context = client.open(Some(MODELS[2])).expect("opens").context;
    client.append_text(context, &"w".repeat(500)).expect("appends");
    for number in 0..WRITES {
        let (store, key) = (STORE.to_owned(), (number % 10).to_string());
        client.call(StorePut { store, key, value: number.into() }).expect("puts");
        client.call(Snapshot { context, name: STORE.into() }).expect("it has a context");
        client.call(Discard { name: STORE.into() }).expect("it is there");
    }
}

/// Has contexts without a page in common go by on every model, until the swap area holds no more.
pub(super) fn swap_area(daemon: &Daemon) {
    let mut client = daemon.client();
    let (mut most, mut still) = (0, 0);
    let mut number = 0_u64;
    while still < STILL_MAX {
        for model in MODELS {
            let context = client.open(Some(model)).expect("opens").context;
            let text = format!("{number} ").repeat(200);
            client.append_text(context, &text[..200]).expect("appends");
            client.generate(greedy(context, 1), |_| {}).expect("generates");
            client.close(context).expect("it is there");
        }
        number += 1;
        let pages = pages(daemon);
        still = if pages > most { 0 } else { still + 1 };
        most = most.max(pages);
    }
}
