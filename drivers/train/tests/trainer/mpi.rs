//! Ranks as processes under a real `mpirun`: that of `MPIRUN`, or the one on the path.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Place;
use super::ranks::{assert_same, evaluations, numbers, place};

fn program() -> OsString {
    std::env::var_os("MPIRUN").unwrap_or_else(|| "mpirun".into())
}

/// The command under mpirun, if this machine has one.
fn mpirun(place: &Place, ranks: usize, arguments: &[&str]) -> Option<Command> {
    let found = Command::new(program()).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: this machine has no mpirun");
        return None;
    }
    let run = place.command(arguments);
    let mut command = Command::new(program());
    command.arg("-n").arg(ranks.to_string()).arg(run.get_program()).args(run.get_args());
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // Of OpenMPI: more ranks than processors, also for root, as in containers.
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.stdin(Stdio::null());
    Some(command)
}

#[test]
fn processes_under_mpirun_end_with_what_one_process_does() {
    let one = place();
    one.succeed(&[]);
    let layouts: [(usize, &[&str]); 4] = [
        (2, &["--set", "ranks.zero=true"]),
        (2, &["--set", "ranks.tensor=2"]),
        (4, &["--set", "ranks.tensor=2"]),
        (4, &["--set", "ranks.pipeline=2"]),
    ];
    for (ranks, layout) in layouts {
        let many = place();
        let Some(mut command) = mpirun(&many, ranks, layout) else { return };
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_same(&numbers(&one), &numbers(&many), &format!("{ranks} processes, {layout:?}"));
        assert_same(&evaluations(&one), &evaluations(&many), "evaluations");
    }
}

#[test]
fn program_starts_mpirun_itself_and_refuses_a_world_of_another_size() {
    let place = place();
    if mpirun(&place, 1, &[]).is_none() {
        return;
    }
    place.succeed(&["--ranks", "2", "--mpi", "--set", "steps=10"]);
    let mut command = mpirun(&place, 3, &["--set", "ranks.tensor=2"]).unwrap();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(said.matches("is 2 ranks, and 3 of them started").count(), 1, "{said}");
}

#[test]
fn ranks_with_different_specifications_refuse_each_other() {
    let place = place();
    let Some(mut command) = mpirun(&place, 1, &[]) else { return };
    let other = place.command(&["--set", "seed=7"]);
    command.args([":", "-n", "1"]).arg(other.get_program()).args(other.get_args());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(said.matches("rank 1 has another specification than rank 0").count(), 1, "{said}");
}

#[test]
fn process_that_is_killed_ends_the_others_and_leaves_the_last_checkpoint() {
    let place = place();
    let long = ["--set", "steps=100000", "--set", "checkpoint.every=1"];
    let Some(mut command) = mpirun(&place, 2, &long) else { return };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(": checkpoint")));
    assert!(begun.is_some(), "it begins");
    kill_rank(1, &place.path("spec.ron").display().to_string());
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(!child.wait().unwrap().success());
    let named = said.iter().filter(|line| line.contains("rank 1")).count();
    // MPICH's prints that one was killed, and not which.
    let told = named == 1 || printed.contains("Killed (signal 9)");
    assert!(told, "one line names the rank: {said:?}, {printed}");
    let step = place.log().iter().filter_map(|entry| entry["step"].as_u64()).max().unwrap();
    place.succeed(&["--resume", "--set", &format!("steps={}", step + 5)]);
}

/// A daemon of which nothing works but the answers that are given for each call; one without an answer is waited for by
/// whoever has made it, until the test is over.
fn daemon(place: &Place, answer: impl Fn(&str) -> Option<Value> + Send + Clone + 'static) {
    let listener = UnixListener::bind(place.path("socket")).unwrap();
    let serve = move |mut stream: UnixStream, answer: &dyn Fn(&str) -> Option<Value>| {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            let call: Value = serde_json::from_str(&line).unwrap();
            if let Some(Value::Object(mut frame)) = answer(call["call"].as_str().unwrap()) {
                frame.insert("id".into(), call["id"].clone());
                writeln!(stream, "{}", Value::Object(frame)).unwrap();
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
}

/// The end of ranks, if it comes within a minute or two, and what they have said.
fn ends(mut child: Child) -> (bool, String) {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("the ranks wait for each other");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().success(), said)
}

/// Only the first rank asks the daemon, and the others are waiting for it.
#[test]
fn refusal_that_one_rank_meets_ends_all_with_one_sentence() {
    let place = place();
    daemon(&place, |_| Some(json!({ "error": { "errno": "EPERM", "message": "no training today" } })));
    let Some(mut command) = mpirun(&place, 3, &[]) else { return };
    let (good, said) = ends(command.stderr(Stdio::piped()).spawn().unwrap());
    assert!(!good);
    assert_eq!(said.matches("the daemon refuses: no training today").count(), 1, "{said}");
}

/// One of two ranks is on a machine with 1 MiB of memory for each, as far as it can see.
#[test]
fn rank_without_memory_ends_all_with_its_number() {
    let place = place();
    let can = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success());
    let Some(mut command) = mpirun(&place, 1, &[]).filter(|_| can) else {
        return eprintln!("skipped: this takes mpirun, and a user who may mount");
    };
    std::fs::write(place.path("meminfo"), "MemTotal: 2048 kB\nMemAvailable: 2048 kB\n").unwrap();
    let other = place.command(&[]);
    let script = format!("mount --bind {} /proc/meminfo && exec \"$@\"", place.path("meminfo").display());
    command.args([":", "-n", "1", "unshare", "-m", "sh", "-c", &script, "sh"]);
    command.arg(other.get_program()).args(other.get_args());
    let (good, said) = ends(command.stderr(Stdio::piped()).spawn().unwrap());
    assert!(!good);
    assert_eq!(said.matches("rank 1: the run takes").count(), 1, "{said}");
    assert!(said.contains("and 1 MiB are free"), "{said}");
}

/// The daemon grants no turn to the rank that asks, and the others have nothing to do for as long.
#[test]
fn ranks_that_wait_for_their_turn_leave_the_processors_alone() {
    let place = place();
    let hello = json!({ "ok": { "hello": {
        "version": 1, "daemon": "test", "pid": 7, "uid": 0, "line_bytes_max": 1 << 20 } } });
    daemon(&place, move |call| (call == "hello").then(|| hello.clone()));
    let Some(mut command) = mpirun(&place, 3, &[]) else { return };
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let spec = place.path("spec.ron").display().to_string();
    let log = place.path("run/log.jsonl");
    let begun = Instant::now();
    while !log.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ranks = [0, 1, 2].map(|rank| rank_of(rank, &spec));
    let ticks = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> =
            stat.rsplit_once(") ").unwrap().1.split(' ').filter_map(|n| n.parse().ok()).collect();
        // Without the state, which is no number: user and system time.
        fields[10] + fields[11]
    };
    let sum = || ranks.iter().map(|pid| ticks(*pid)).sum::<u64>();
    // The first steps of waiting are still the work before it.
    std::thread::sleep(Duration::from_secs(1));
    let (before, watch) = (sum(), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let share = (sum() - before) as f64 / 100.0 / watch.elapsed().as_secs_f64();
    child.kill().unwrap();
    child.wait().unwrap();
    println!("three ranks that wait take {share:.3} of a processor");
    assert!(share < 0.1, "three ranks that wait take {share:.2} processors");
}

/// Kills the process of a rank that trains by this specification.
fn kill_rank(rank: usize, spec: &str) {
    // SAFETY: the process is a rank that this test has started.
    assert_eq!(unsafe { libc::kill(rank_of(rank, spec), libc::SIGKILL) }, 0);
}

/// The process of a rank that trains by this specification.
fn rank_of(rank: usize, spec: &str) -> i32 {
    let wanted = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].map(|name| format!("{name}={rank}"));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let has =
            |name: &str, text: &str| read(name).split(|byte| *byte == 0).any(|word| word == text.as_bytes());
        if wanted.iter().any(|wanted| has("environ", wanted)) && has("cmdline", spec) {
            return entry.file_name().to_str().unwrap().parse().unwrap();
        }
    }
    panic!("no process is rank {rank}");
}
