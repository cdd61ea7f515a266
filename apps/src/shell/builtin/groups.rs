//! `groups`: what groups of processes have, and how their work waits.

use clap::Parser;
use syscalls::reply::GroupInfo;

use super::arguments::{self, Daemon, Invocation};
use super::listing::Listing;
use super::{Builtin, Outcome, Run};
use crate::terminal::table::Align;

pub const BUILTIN: Builtin =
    Builtin { name: "groups", command: || arguments::command::<Args>("groups"), run: Run::Program(run) };

/// Lists groups of processes
///
/// The device's time is shared between groups by WEIGHT, then inside each. CTX, TOKENS, FRAMES and SWAP are what
/// the processes of a group have together, with the limit behind a slash where there is one. MEMORY and STEPS are
/// pressure: the share of the last 10, 60 and 300 seconds in which some work of the group waited for frames, or for
/// a step.
#[derive(Debug, Parser)]
struct Args {
    /// Prints {"groups":[…]} with every field
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

const LISTING: Listing<9> = Listing {
    field: "groups",
    columns: [
        ("WEIGHT", Align::Right),
        ("PROCS", Align::Right),
        ("CTX", Align::Right),
        ("TOKENS", Align::Right),
        ("FRAMES", Align::Right),
        ("SWAP", Align::Right),
        ("MEMORY", Align::Right),
        ("STEPS", Align::Right),
        ("GROUP", Align::Left),
    ],
};

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let groups = args.daemon.connect("groups")?.groups()?;
    LISTING.print(args.json, &groups, || groups.iter().map(cells).collect())?;
    Ok(0)
}

fn cells(group: &GroupInfo) -> [String; 9] {
    let of = |has: u64, most: Option<u64>| most.map_or(has.to_string(), |most| format!("{has}/{most}"));
    let shares = |averages: [f32; 3]| averages.map(|percent| format!("{percent:.0}%")).join(" ");
    [
        group.weight.to_string(),
        group.processes.to_string(),
        of(group.contexts, group.contexts_max),
        of(group.context_tokens, group.context_tokens_max),
        of(group.frames, group.frames_max),
        of(group.swap_pages, group.swap_pages_max),
        shares(group.memory.some),
        shares(group.steps.some),
        group.name.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use syscalls::reply::PressureInfo;

    #[test]
    fn limits_stand_behind_what_there_is() {
        let group = GroupInfo {
            name: "user.1000/nightly".into(),
            weight: 100,
            processes: 2,
            contexts: 3,
            contexts_max: Some(8),
            context_tokens: 900,
            context_tokens_max: None,
            frames: 15,
            frames_max: Some(20),
            frames_soft: None,
            swap_pages: 7,
            swap_pages_max: Some(64),
            tokens_per_second_max: None,
            memory: PressureInfo { some: [12.4, 3.0, 0.0], full: [0.0; 3] },
            steps: PressureInfo::default(),
        };
        let expected =
            ["100", "2", "3/8", "900", "15/20", "7/64", "12% 3% 0%", "0% 0% 0%", "user.1000/nightly"];
        assert_eq!(cells(&group), expected);
    }
}
