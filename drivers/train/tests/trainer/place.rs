//! Where and when the program computes.

use std::fs;

use super::Place;

/// `SCHED_IDLE`, as the system numbers its policies.
const IDLE: &str = "5";

#[test]
fn idle_program_has_no_thread_that_keeps_others_waiting() {
    let place = Place::default();
    let mut started = place.start(&["--idle", "--set", "threads=2", "--set", "steps=100000"]);
    started.wait_for(|event| event["event"] == "step").expect("it begins");
    let tasks = fs::read_dir(format!("/proc/{}/task", started.child.id())).unwrap();
    let policy = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        // Behind the name, which may hold spaces, the policy is the 39th field.
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(38)?.to_owned())
    };
    let policies: Vec<String> = tasks.filter_map(|task| policy(task.ok()?)).collect();
    assert!(policies.len() >= 4, "main, loader and two that compute: {policies:?}");
    assert!(policies.iter().all(|policy| policy == IDLE), "{policies:?}");
}
