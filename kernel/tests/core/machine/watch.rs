//! Watching how the states of processes change.

use std::collections::BTreeMap;

use syscalls::Pid;

use super::Machine;

impl Machine {
    /// Notes what states have changed.
    pub(super) fn watch(&mut self) {
        let Some(before) = self.watched.take() else { return };
        let now = self.states();
        let none = || "-".to_owned();
        for pid in before.keys().chain(now.keys()) {
            let from = before.get(pid).cloned().unwrap_or_else(none);
            let to = now.get(pid).cloned().unwrap_or_else(none);
            if from != to {
                self.transitions.insert((from, to));
            }
        }
        self.watched = Some(now);
    }

    /// Begins to note how the states of processes change.
    pub fn watch_states(&mut self) {
        self.watched = Some(self.states());
    }

    fn states(&self) -> BTreeMap<Pid, String> {
        let name = |state| format!("{state:?}").to_lowercase();
        self.kernel.states().map(|(pid, state)| (pid, name(state))).collect()
    }
}
