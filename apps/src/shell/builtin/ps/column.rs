//! The columns that `ps` can show and sort by, each a line of the table below.
//!
//! A column has a short name, as the option and the heading spell it, and the field of `--json` that it shows; the
//! option takes both.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use nix::unistd::{Uid, User};
use syscalls::call::{Lifetime, nearest};
use syscalls::reply::{ProcessInfo, ProcessState};

use super::super::arguments::name_of;
use crate::terminal::table::Align;
use crate::terminal::units;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name, in small letters.
    pub name: &'static str,
    /// What stands above it.
    pub heading: &'static str,
    /// The field of `--json`.
    pub field: &'static str,
    /// On which side its cells stand.
    pub align: Align,
    /// What is shown of a process.
    pub cell: fn(&ProcessInfo, &mut Users) -> String,
    /// What is sorted by.
    key: fn(&ProcessInfo, &mut Users) -> Key,
}

/// A value that columns are sorted by; a column has values of one kind.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i64),
    Text(String),
}

/// Names of users by number, each looked up once.
#[derive(Default)]
pub struct Users(BTreeMap<u32, String>);

impl Users {
    fn name(&mut self, uid: u32) -> String {
        self.0.entry(uid).or_insert_with(|| user_name(uid)).clone()
    }
}

/// A column of numbers that are shown as they are.
macro_rules! number {
    ($name:literal, $heading:literal, $field:ident, $value:expr) => {
        number!($name, $heading, $field, $value, |p: &ProcessInfo| ($value)(p).to_string())
    };
    ($name:literal, $heading:literal, $field:ident, $value:expr, $shown:expr) => {
        Column {
            name: $name,
            heading: $heading,
            field: stringify!($field),
            align: Align::Right,
            cell: |p, _| ($shown)(p),
            key: |p, _| Key::Number(i64::try_from(($value)(p)).unwrap_or(i64::MAX)),
        }
    };
}

/// A column of words.
macro_rules! text {
    ($name:literal, $heading:literal, $field:ident, $value:expr) => {
        Column {
            name: $name,
            heading: $heading,
            field: stringify!($field),
            align: Align::Left,
            cell: $value,
            key: |p, users| Key::Text(($value)(p, users)),
        }
    };
}

/// All columns. Those that are shown where none are asked for come first, but for the name, which ends a line.
pub const ALL: &[Column] = &[
    number!("pid", "PID", pid, |p: &ProcessInfo| p.pid.0),
    number!("ppid", "PPID", parent, |p: &ProcessInfo| p.parent.0),
    text!("user", "USER", uid, |p: &ProcessInfo, users: &mut Users| users.name(p.uid)),
    text!("state", "STATE", state, |p: &ProcessInfo, _: &mut Users| state(p)),
    text!("lasts", "LASTS", lifetime, |p: &ProcessInfo, _: &mut Users| lasts(p).to_owned()),
    Column {
        name: "class",
        heading: "CLASS",
        field: "class",
        align: Align::Left,
        cell: |p, _| name_of(p.class),
        // The order of precedence says more than that of letters.
        key: |p, _| Key::Number(p.class as i64),
    },
    number!("nice", "NI", nice, |p: &ProcessInfo| p.nice),
    number!("ctx", "CTX", contexts, |p: &ProcessInfo| p.contexts),
    number!("tokens", "TOKENS", context_tokens, |p: &ProcessInfo| p.context_tokens),
    number!("frames", "FRAMES", frames, |p: &ProcessInfo| p.frames),
    number!("oom", "OOM", oom_score, |p: &ProcessInfo| p.oom_score),
    number!("eval", "EVAL", prompt_tokens_evaluated, |p: &ProcessInfo| p.prompt_tokens_evaluated),
    number!("gen", "GEN", tokens_generated, |p: &ProcessInfo| p.tokens_generated),
    number!("time", "TIME", service_us, |p: &ProcessInfo| p.service_us, |p: &ProcessInfo| micros(
        p.service_us
    )),
    text!("name", "NAME", name, |p: &ProcessInfo, _: &mut Users| p.name.clone()),
    number!("uid", "UID", uid, |p: &ProcessInfo| p.uid),
    number!("ospid", "OSPID", os_pid, |p: &ProcessInfo| p.os_pid),
    text!("waits", "WAITS", waits_for, |p: &ProcessInfo, _: &mut Users| {
        p.waits_for.clone().unwrap_or_else(|| "-".into())
    }),
    text!("group", "GROUP", group, |p: &ProcessInfo, _: &mut Users| p.group.clone()),
    number!("age", "AGE", age_ms, |p: &ProcessInfo| p.age_ms, |p: &ProcessInfo| {
        units::duration(Duration::from_millis(p.age_ms))
    }),
    number!(
        "idle",
        "IDLE",
        expected_idle_us,
        // Where it is not known it is the least.
        |p: &ProcessInfo| p.expected_idle_us.map_or(-1, |us| i64::try_from(us).unwrap_or(i64::MAX)),
        |p: &ProcessInfo| p.expected_idle_us.map_or("-".into(), micros)
    ),
    number!(
        "status",
        "STATUS",
        status,
        |p: &ProcessInfo| p.status.map_or(-1, i16::from),
        |p: &ProcessInfo| p.status.map_or("-".into(), |s| s.to_string())
    ),
];

/// How many of [`ALL`] are shown where none are asked for.
pub const DEFAULT: usize = 15;

/// A column to sort by, and which way.
#[derive(Clone, Copy, Debug)]
pub struct SortKey {
    column: &'static Column,
    descending: bool,
}

/// Sorts processes by these keys, the first one first; what is equal in all of them keeps its order.
pub fn sort(processes: &mut [ProcessInfo], keys: &[SortKey], users: &mut Users) {
    for key in keys.iter().rev() {
        let by = |a: &Key, b: &Key| -> Ordering { if key.descending { b.cmp(a) } else { a.cmp(b) } };
        let value = key.column.key;
        processes.sort_by(|a, b| by(&value(a, users), &value(b, users)));
    }
}

/// Reads the name of a column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnParser;

/// Reads the name of a column to sort by, with a minus before it for the largest first.
#[derive(Clone, Copy, Debug)]
pub struct SortParser;

impl TypedValueParser for ColumnParser {
    type Value = &'static Column;

    fn parse_ref(
        &self,
        _: &clap::Command,
        _: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let name = value.to_string_lossy();
        named(&name).ok_or_else(|| unknown(&name))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(ALL.iter().map(|column| PossibleValue::new(column.name))))
    }
}

impl TypedValueParser for SortParser {
    type Value = SortKey;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let text = value.to_string_lossy();
        let (name, descending) = match text.strip_prefix('-') {
            Some(name) => (name, true),
            None => (text.strip_prefix('+').unwrap_or(&text), false),
        };
        let column = ColumnParser.parse_ref(command, argument, name.as_ref())?;
        Ok(SortKey { column, descending })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        ColumnParser.possible_values()
    }
}

fn named(name: &str) -> Option<&'static Column> {
    let lower = name.to_lowercase();
    // A field that two columns show is the first one's.
    ALL.iter().find(|c| c.name == lower).or_else(|| ALL.iter().find(|c| c.field == lower))
}

fn unknown(name: &str) -> clap::Error {
    let names: Vec<&str> = ALL.iter().map(|c| c.name).collect();
    let hint = match nearest(&name.to_lowercase(), &names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    clap::Error::raw(ErrorKind::ValueValidation, format!("there is no column `{name}`; {hint}\n"))
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        // A user of another container, or a directory service that does not answer.
        Ok(None) | Err(_) => uid.to_string(),
    }
}

fn micros(us: u64) -> String {
    units::duration(Duration::from_micros(us))
}

/// The state, with what there is to say about it.
pub fn state(process: &ProcessInfo) -> String {
    let state = name_of(process.state);
    match (process.state, &process.waits_for, process.status) {
        (ProcessState::Blocked, Some(what), _) => format!("{state} ({what})"),
        (ProcessState::Zombie, _, Some(status)) => format!("{state} ({status})"),
        _ => state,
    }
}

/// What it outlives, and whether it has to do so now.
pub fn lasts(process: &ProcessInfo) -> &'static str {
    match (process.lifetime, process.detached) {
        (Lifetime::Connection, _) => "-",
        (Lifetime::Detached, false) => "d",
        (Lifetime::Detached, true) => "D",
        (Lifetime::Persistent, false) => "p",
        (Lifetime::Persistent, true) => "P",
    }
}
