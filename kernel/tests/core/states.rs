//! The states of processes: what leads from which to which is what the table in the crate's README says, no more and no
//! less.

use std::collections::BTreeSet;

use crate::machine::Transition;
use crate::random;

/// Histories that meet every line of the table.
const HISTORIES: u64 = 800;

/// Histories that are played for what is rare and has not been seen in these.
const HISTORIES_MAX: u64 = 4000;

/// The table of the README: from, and what may follow.
fn documented() -> BTreeSet<Transition> {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("| from | to |\n|---|---|\n").expect("the README has the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut all = BTreeSet::new();
    for row in rows {
        let [from, to] = <[String; 2]>::try_from(cells(row)).expect("two cells");
        all.extend(to.split(", ").map(|to| (from.clone(), to.to_owned())));
    }
    all
}

#[test]
fn transitions_of_random_histories_are_those_of_the_table() {
    let documented = documented();
    let mut seen = BTreeSet::new();
    for seed in 1..=HISTORIES_MAX {
        let found = random::transitions(seed);
        let wrong: Vec<_> = found.difference(&documented).collect();
        assert!(wrong.is_empty(), "history {seed} has what the table does not: {wrong:?}");
        seen.extend(found);
        if seed >= HISTORIES && documented.is_subset(&seen) {
            break;
        }
    }
    let missed: Vec<_> = documented.difference(&seen).collect();
    assert!(missed.is_empty(), "the table has what no history has: {missed:?}");
}
