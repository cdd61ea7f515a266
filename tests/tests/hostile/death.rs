//! Deaths of workers, however they come: noticed at once, paid for with time alone, and never the daemon's. And what is
//! left of an app that goes while it has one at work.

use std::time::{Duration, Instant};

use harness::{Daemon, figure, process, wait_until};
use nix::sys::signal::Signal;
use syscalls::Event;
use syscalls::call::Subscribe;
use syscalls::client::blocking::Client;
use syscalls::event::WorkerChange;
use syscalls::reply::{Frame, ModelInfo, ModelState};

use super::{beside_a_neighbour, continued};

/// Deaths that are measured.
const DEATHS: usize = 21;

/// What may pass until a death is told of. On a quiet machine it is a millisecond or two.
const NOTICED_MAX: Duration = Duration::from_millis(50);

/// Until when nothing of an app that has gone is left.
const FREED_MAX: Duration = Duration::from_millis(100);

fn model(client: &mut Client, name: &str) -> ModelInfo {
    let models = client.models().expect("lists");
    models.into_iter().find(|model| model.name == name).expect("is mounted")
}

/// The next thing that happens to a worker.
fn next_change(watcher: &mut Client) -> (WorkerChange, String) {
    loop {
        if let Frame::Event(_, Event::Worker { change, detail, .. }) =
            watcher.next_frame().expect("the daemon lives")
        {
            return (change, detail);
        }
    }
}

#[test]
fn death_is_noticed_at_once_and_told_before_the_successor() {
    let daemon = Daemon::start();
    let mut watcher = daemon.client();
    watcher.set_timeout(Some(harness::DEADLINE)).expect("a duration");
    watcher.start(Subscribe { kinds: vec!["worker".into()], timeout_ms: None }).expect("subscribes");
    let mut client = daemon.client();
    let signals = [Signal::SIGKILL, Signal::SIGABRT, Signal::SIGILL, Signal::SIGSEGV];
    let mut noticed: Vec<Duration> = (0..DEATHS)
        .map(|n| {
            // A model of its own for each, so that no death makes the restart after another wait.
            let worker = daemon.mount_sim("m", "").worker_os_pid;
            while next_change(&mut watcher).0 != WorkerChange::Ready {}
            let signal = signals[n % signals.len()];
            if signal == Signal::SIGSEGV {
                // The runtime takes the first one for a fault that comes again, and catches no other.
                process::kill(worker, signal);
                wait_until("its handler is gone", || !process::catches(worker, signal));
            }
            let begin = Instant::now();
            process::kill(worker, signal);
            let (change, how) = next_change(&mut watcher);
            let noticed = begin.elapsed();
            assert_eq!((change, how), (WorkerChange::Died, format!("killed by {}", signal.as_str())));
            assert_eq!(next_change(&mut watcher).0, WorkerChange::Starting);
            while next_change(&mut watcher).0 != WorkerChange::Ready {}
            client.unmount("m", true).expect("it is mounted");
            while next_change(&mut watcher).0 != WorkerChange::Gone {}
            noticed
        })
        .collect();
    noticed.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, longest) = (noticed[DEATHS / 2], noticed[DEATHS - 1]);
    figure(
        "death of a worker noticed",
        &format!("median {:.1} ms, longest {:.1} ms of {DEATHS}", ms(median), ms(longest)),
    );
    harness::promised("to notice a death", longest, NOTICED_MAX);
}

#[test]
fn app_that_goes_in_mid_generation_has_no_frame_left() {
    let daemon = Daemon::start();
    daemon.mount_sim("sim", "row_us=500");
    let (mut watcher, mut app) = (daemon.client(), daemon.client());
    let pid = app.pid();
    app.set_timeout(Some(harness::DEADLINE)).expect("a duration");
    let context = app.open(None).expect("opens").context;
    app.append_text(context, &"x".repeat(1000)).expect("appends");
    app.start(harness::said::greedy(context, 1000)).expect("starts");
    while !matches!(app.next_frame().expect("it generates"), Frame::Event(_, Event::Tokens { .. })) {}
    let begin = Instant::now();
    drop(app);
    wait_until("nothing of it is left", || {
        let stats = watcher.stat(None, None).expect("counts");
        let free = stats.frames_free + stats.frames_cached == stats.frames_total;
        free && stats.contexts == 0 && watcher.ps().expect("lists").iter().all(|p| p.pid != pid)
    });
    let took = begin.elapsed();
    figure(
        "death of an app in mid generation",
        &format!("no frame of it taken after {} µs", took.as_micros()),
    );
    harness::promised("to free an app", took, FREED_MAX);
}

#[test]
fn worker_that_is_stopped_counts_as_hung_and_is_replaced() {
    // Longer than a busy machine keeps one waiting: a process that seems to have hung two workers is stopped.
    let daemon = Daemon::start_configured("(worker_patience_ms: 5000)");
    daemon.mount_sim("sim", "row_us=500");
    // So many that somebody who is kept waiting still finds it in the midst.
    const TOKENS: u32 = 3000;
    let alone = continued(&mut daemon.client(), "hang", TOKENS).expect("generates");
    let worker = model(&mut daemon.client(), "sim").worker_os_pid;
    let before = daemon.client().stat(None, None).expect("counts").tokens_generated;
    std::thread::scope(|scope| {
        let running = scope.spawn(|| continued(&mut daemon.client(), "hang", TOKENS));
        let mut watcher = daemon.client();
        wait_until("it is in the midst", || {
            watcher.stat(None, None).expect("counts").tokens_generated > before + 20
        });
        process::kill(worker, Signal::SIGSTOP);
        assert_eq!(running.join().expect("no panic").expect("goes on"), alone);
    });
    assert!(daemon.log().contains("counts as hung"), "{}", daemon.log());
    wait_until("the stopped one is gone", || !process::children(daemon.os_pid()).contains(&worker));
}

#[test]
fn worker_out_of_memory_is_replaced_and_the_call_succeeds() {
    beside_a_neighbour("row_us=500,context=1000000,pool=1048576", |daemon| {
        let mut client = daemon.client();
        let worker = model(&mut client, "sim").worker_os_pid;
        // What it can write to. The address space would not do: threads have set room aside in it that they may grow into.
        let has = process::status_kib(worker, "VmData") << 10;
        process::limit(worker, libc::RLIMIT_DATA, has);
        let context = client.open(None).expect("opens").context;
        let text = "a text that takes some memory ".repeat(20_000);
        client.append_text(context, &text).expect("the next worker has memory");
        let stats = client.stat(None, None).expect("counts");
        assert!(stats.worker_restarts >= 1, "{stats:?}");
        assert!(daemon.log().contains("died: killed by SIGABRT"), "{}", daemon.log());
    });
}

#[test]
fn worker_killed_over_and_over_takes_its_model_offline_and_nobody_else() {
    beside_a_neighbour("row_us=500", |daemon| {
        daemon.mount_sim("doomed", "");
        let mut client = daemon.client();
        let (mut last, mut kills) = (0, 0);
        wait_until("it is offline", || {
            let model = model(&mut client, "doomed");
            if model.state == ModelState::Ready && model.worker_os_pid != last {
                last = model.worker_os_pid;
                process::kill(last, Signal::SIGKILL);
                kills += 1;
            }
            model.state == ModelState::Offline
        });
        let trouble = model(&mut client, "doomed").trouble.expect("it is told why");
        assert!(trouble.contains("died 6 times in a row") && trouble.contains("SIGKILL"), "{trouble}");
        assert_eq!(kills, 6);
        client.unmount("doomed", true).expect("it can be taken away");
        daemon.mount_sim("doomed", "");
        let context = client.open(Some("doomed")).expect("it serves again").context;
        client.append_text(context, "again").expect("appends");
        client.generate(harness::said::greedy(context, 5), |_| {}).expect("generates");
    });
}
