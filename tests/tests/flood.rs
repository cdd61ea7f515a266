//! A thousand rude connections at once, and what a polite one notices of them.

use harness::flood::{CONNECTIONS, Flood, has_room};
use harness::{Daemon, process, wait_until};
use syscalls::call::{Call, Class, Setpriority};

/// Calls of the polite client while the flood lasts.
const CALLS: usize = 3000;

#[test]
fn polite_client_in_a_flood_is_served_and_nothing_of_the_flood_stays() {
    if !has_room(CONNECTIONS) {
        return;
    }
    let daemon = Daemon::start();
    daemon.mount_sim("m", "");
    let mut client = daemon.client();
    let alone = continued(&mut client);
    let files = process::open_files(daemon.os_pid());
    let processes = client.ps().expect("lists").len();

    let flood = Flood::begin(&daemon.socket(), CONNECTIONS);
    wait_until("all are connected", || process::open_files(daemon.os_pid()) >= files + CONNECTIONS);
    let nothing = Call::from(Setpriority { pid: client.pid(), class: Some(Class::Normal), nice: None });
    for _ in 0..CALLS {
        client.call(nothing.clone()).expect("the polite one is served");
    }
    assert_eq!(continued(&mut client), alone, "and its text is the same");
    daemon.client().sysinfo().expect("newcomers are served, too");
    let resident = daemon.resident_kib();
    let counts = flood.end();

    assert!(counts.bytes_said > 10_000, "{counts:?}");
    assert_eq!(counts.closed, 0, "rudeness costs nobody his connection");
    assert!(resident < 300 << 10, "the daemon has {resident} KiB");
    wait_until("their descriptors are closed", || process::open_files(daemon.os_pid()) <= files);
    wait_until("their processes are gone", || client.ps().expect("lists").len() <= processes);
    assert_eq!(client.stat(None, None).expect("counts").worker_restarts, 0);
}

fn continued(client: &mut syscalls::client::blocking::Client) -> String {
    let context = client.open(None).expect("opens").context;
    client.append_text(context, "polite").expect("appends");
    let reply = client.generate(harness::said::greedy(context, 100), |_| {}).expect("generates");
    client.close(context).expect("closes");
    reply.text
}
