//! Runs that are stopped, killed or out of disk, and go on.

use std::fs;
use std::os::unix::process::CommandExt;

use super::Place;

const STEPS: u64 = 60;

/// Steps of a run that is killed many times, and may do many of them before each on a machine that keeps the test waiting.
const STEPS_KILLED: u64 = 600;

fn whole(steps: u64) -> [Vec<u8>; 2] {
    let place = Place::default();
    place.succeed(&["--set", &format!("steps={steps}")]);
    place.last()
}

/// How often a signal may come too late, on a machine that keeps whoever sends it waiting.
const TRIES: u32 = 10;

/// A run that a signal has stopped, and its last step; none where it was done before.
fn stopped(signal: i32, code: i32) -> Option<(Place, u64)> {
    let place = Place::default();
    let mut started = place.start(&[]);
    started.wait_for(|event| event["event"] == "step").expect("it begins");
    started.signal(signal);
    let end = started.wait_for(|event| event["event"] == "end").expect("it says that it ends");
    let status = started.child.wait().unwrap();
    let at = end["step"].as_u64().unwrap();
    if at == STEPS {
        return None;
    }
    assert_eq!(status.code(), Some(code));
    Some((place, at))
}

#[test]
fn run_that_is_stopped_by_a_signal_goes_on_bit_for_bit() {
    let wanted = whole(STEPS);
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let (place, at) =
            (0..TRIES).find_map(|_| stopped(signal, code)).expect("a signal comes before the last step");
        place.succeed(&["--resume"]);
        assert!(place.last() == wanted, "stopped at {at}");
        let steps: Vec<u64> = place
            .log()
            .iter()
            .filter(|entry| entry["event"] == "step")
            .map(|entry| entry["step"].as_u64().unwrap())
            .collect();
        assert!(steps.iter().copied().eq(1..=STEPS), "each step is in the log once: {steps:?}");
    }
}

#[test]
fn run_that_is_killed_at_any_moment_goes_on_bit_for_bit() {
    let wanted = whole(STEPS_KILLED);
    let steps = format!("steps={STEPS_KILLED}");
    let place = Place::default();
    // A checkpoint after every step, so that kills hit them: 24 kills, each a little later than the one before.
    let often = ["--set", "checkpoint.every=1", "--set", &steps];
    let mut kills = 0;
    for round in 0..24u64 {
        let resume = place.path("run/checkpoints").exists()
            && fs::read_dir(place.path("run/checkpoints"))
                .unwrap()
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("step-"));
        let arguments: Vec<&str> = often.iter().copied().chain(resume.then_some("--resume")).collect();
        let mut started = place.start(&arguments);
        let began = started.wait_for(|event| event["event"] == "checkpoint");
        // Spins, so that the moment differs by microseconds and not by whole steps.
        (0..round * 500_000).for_each(|n| {
            std::hint::black_box(n);
        });
        if began.is_none() {
            break;
        }
        started.child.kill().unwrap();
        started.child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 10, "{kills} kills");
    place.succeed(&["--resume", "--set", &steps]);
    assert!(place.last() == wanted, "after {kills} kills");
}

#[test]
fn disk_that_is_full_costs_the_checkpoint_and_keeps_the_former() {
    let place = Place::default();
    place.succeed(&["--set", "steps=20", "--set", "schedule.warmup=1000"]);
    let former = place.last();
    let mut command = place.command(&["--resume", "--set", "steps=40", "--set", "schedule.warmup=1000"]);
    // Files may not be longer than 64 KiB: the weights are, the log is not.
    // SAFETY: both calls are allowed between fork and exec, and their arguments live for them.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("step-00000030: the checkpoint cannot be written"), "{said}");
    assert!(said.contains("the checkpoint before is kept"), "{said}");
    assert!(place.last() == former, "the former is as it was");
    place.succeed(&["--resume", "--set", "steps=40", "--set", "schedule.warmup=1000"]);
    assert!(place.last() != former);
}

#[test]
fn damaged_checkpoint_is_passed_over_and_named() {
    let place = Place::default();
    place.succeed(&[]);
    let wanted = place.last();
    fs::write(place.path("run/checkpoints/step-00000060/model.safetensors"), "x").unwrap();
    let said = place.succeed(&["--resume"]);
    assert!(said.contains("step-00000060/model.safetensors") && said.contains("damaged"), "{said}");
    assert!(place.last() == wanted, "it was trained again from the one before");
}

#[test]
fn names_of_last_and_best_are_mended_after_a_kill_between() {
    let place = Place::default();
    place.succeed(&["--set", "steps=40", "--set", "schedule.warmup=1000", "--set", "checkpoint.keep=9"]);
    let link =
        |name: &str| fs::read_link(place.path("run/checkpoints").join(name)).unwrap().display().to_string();
    assert_eq!([link("best"), link("last")], ["step-00000040", "step-00000040"]);
    // As a kill leaves them that comes when the checkpoint has its name.
    for name in ["best", "last"] {
        let path = place.path("run/checkpoints").join(name);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("step-00000020", path).unwrap();
    }
    place.succeed(&["--resume", "--set", "steps=40", "--set", "schedule.warmup=1000"]);
    assert_eq!([link("best"), link("last")], ["step-00000040", "step-00000040"]);
}

#[test]
fn folder_in_which_a_run_trains_takes_no_second_one() {
    let place = Place::default();
    let mut started = place.start(&["--set", "steps=100000", "--set", "checkpoint.every=1"]);
    started.wait_for(|event| event["event"] == "checkpoint").expect("there is a checkpoint");
    for arguments in [&["--resume"][..], &[], &["--resume", "--ranks", "2"]] {
        let said = place.refused(arguments);
        let who = format!("process {} trains there now", started.child.id());
        assert!(said.contains(&who), "{arguments:?}: {said}");
    }
    started.wait_for(|event| event["event"] == "checkpoint").expect("the first goes on");
    started.child.kill().unwrap();
    started.child.wait().unwrap();
    let steps = fs::read_dir(place.path("run/checkpoints")).unwrap().flatten();
    let newest =
        steps.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
    let steps = format!("steps={}", newest.max().unwrap() + 1);
    place.succeed(&["--resume", "--set", &steps]);
}

#[test]
fn best_begins_anew_where_a_run_goes_on_with_other_validation_data() {
    let place = Place::default();
    let other = place.path("other.txt");
    // Likely nowhere in the text, so its loss is higher.
    fs::write(&other, "7".repeat(2000)).unwrap();
    let on = |path: &std::path::Path| format!("data.validation={{\"From\":{{\"Text\":[{path:?}]}}}}");
    let (first, second) = (on(&place.path("text.txt")), on(&other));
    let common = ["--set", "optimiser.lr=0.01"];
    place.succeed(&[&common[..], &["--set", "steps=40", "--set", &first]].concat());
    place.succeed(&[&common[..], &["--resume", "--set", "steps=60", "--set", &second]].concat());
    let log = place.log();
    let evaluations: Vec<_> = log.iter().filter(|entry| entry["event"] == "evaluation").collect();
    let [.., before, after] = evaluations.as_slice() else { panic!("{log:?}") };
    assert!(before["loss"].as_f64() < after["loss"].as_f64(), "{before} {after}");
    assert_eq!((after["step"].as_u64(), after["best"].as_bool()), (Some(60), Some(true)));
    let best = fs::read_link(place.path("run/checkpoints/best")).unwrap();
    assert_eq!(best.to_str(), Some("step-00000060"));
}

#[test]
fn data_that_changed_are_refused_unless_they_are_meant() {
    let place = Place::default();
    let longer = ["--set", "steps=40", "--set", "schedule.warmup=1000"];
    place.succeed(&["--set", "steps=20", "--set", "schedule.warmup=1000"]);
    let text = fs::read_to_string(place.path("text.txt")).unwrap();
    let resume = [&["--resume"], &longer[..]].concat();
    // The same text under another name, or touched, is the same.
    fs::write(place.path("text.txt"), &text).unwrap();
    place.succeed(&resume);
    let other = text.replace("line 3 ", "line x ");
    for (steps, changed) in [("steps=60", &text[..text.len() / 20]), ("steps=80", other.as_str())] {
        fs::write(place.path("text.txt"), changed).unwrap();
        let resume = ["--resume", "--set", steps, "--set", "schedule.warmup=1000"];
        let said = place.refused(&resume);
        assert!(said.contains("on other training data") && said.contains("`data.changed: true`"), "{said}");
        place.succeed(&[&resume[..], &["--set", "data.changed=true"]].concat());
    }
}
