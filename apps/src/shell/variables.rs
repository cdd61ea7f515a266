//! The shell's variables, those of the environment among them.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::syntax::expand::Scope;

/// Variables, the script's arguments and the special parameters.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// What was set in this shell. The environment shows through where nothing was.
    set: BTreeMap<String, Variable>,
    /// `$0`.
    pub name: String,
    /// `$1` and so on.
    pub arguments: Vec<String>,
    /// `$?`.
    pub status: u8,
    /// `$!`: the last process that was put into the background.
    pub background: Option<i32>,
}

#[derive(Clone, Debug)]
struct Variable {
    value: String,
    exported: bool,
}

impl Variables {
    /// The variables of a new shell: a script's name and arguments, and the environment.
    pub fn new(name: &str, arguments: Vec<String>) -> Variables {
        let mut variables = Variables { name: name.into(), arguments, ..Variables::default() };
        // Whoever has started this shell may have been in another folder, and its `PWD` is that one's.
        if !variables.value("PWD").is_some_and(|folder| is_here(Path::new(&folder)))
            && let Ok(here) = env::current_dir()
        {
            variables.set("PWD", here.display().to_string());
        }
        variables
    }

    /// Sets a variable. One that came from the environment goes to programs with its new value.
    pub fn set(&mut self, name: &str, value: String) {
        let exported = self.set.get(name).map_or_else(|| env::var_os(name).is_some(), |v| v.exported);
        self.set.insert(name.into(), Variable { value, exported });
    }

    /// Gives a variable to all programs from now on.
    pub fn export(&mut self, name: &str) {
        let value = self.value(name).unwrap_or_default();
        self.set.insert(name.into(), Variable { value, exported: true });
    }

    /// What differs from the shell's own environment for a program.
    pub fn exported(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().filter(|(_, v)| v.exported).map(|(name, v)| (name.as_str(), v.value.as_str()))
    }

    /// Everything that was set, for a copy of this shell.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(name, v)| (name.as_str(), v.value.as_str()))
    }

    /// The names that `$` can be completed to.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        names.extend(self.set.keys().cloned());
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Whether this is the folder that the shell is in, by a name that is good elsewhere too.
fn is_here(folder: &Path) -> bool {
    let number = |folder: &Path| folder.metadata().ok().map(|found| (found.dev(), found.ino()));
    let there = number(folder);
    folder.is_absolute() && there.is_some() && there == number(Path::new("."))
}

impl Scope for Variables {
    fn value(&self, name: &str) -> Option<String> {
        match name {
            "?" => return Some(self.status.to_string()),
            "$" => return Some(std::process::id().to_string()),
            "!" => return self.background.map(|pid| pid.to_string()),
            "#" => return Some(self.arguments.len().to_string()),
            "0" => return Some(self.name.clone()),
            _ => {}
        }
        if let Ok(number) = name.parse::<usize>() {
            return number.checked_sub(1).and_then(|at| self.arguments.get(at)).cloned();
        }
        match self.set.get(name) {
            Some(variable) => Some(variable.value.clone()),
            None => env::var(name).ok(),
        }
    }

    fn arguments(&self) -> &[String] {
        &self.arguments
    }
}
