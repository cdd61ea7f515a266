//! Ranks as processes under a real `mpirun`: that of `MPIRUN`, or the one on the path.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

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
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(": checkpoint")));
    assert!(begun.is_some(), "it begins");
    kill_rank(1, &place.path("spec.ron").display().to_string());
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(!child.wait().unwrap().success());
    let named = said.iter().filter(|line| line.contains("rank 1")).count();
    // MPICH's says that one was killed, and not which.
    let told = named == 1 || said.iter().any(|line| line.contains("Killed (signal 9)"));
    assert!(told, "one line names the rank: {said:?}");
    let step = place.log().iter().filter_map(|entry| entry["step"].as_u64()).max().unwrap();
    place.succeed(&["--resume", "--set", &format!("steps={}", step + 5)]);
}

/// Kills the process of a rank that trains by this specification.
fn kill_rank(rank: usize, spec: &str) {
    let wanted = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].map(|name| format!("{name}={rank}"));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let has =
            |name: &str, text: &str| read(name).split(|byte| *byte == 0).any(|word| word == text.as_bytes());
        if wanted.iter().any(|wanted| has("environ", wanted)) && has("cmdline", spec) {
            let pid: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: the process is a rank that this test has started.
            assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
            return;
        }
    }
    panic!("no process is rank {rank}");
}
