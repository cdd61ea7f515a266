//! Models come and go, and policies and limits change under those that run.

use kernel::core::Policy;
use syscalls::Tokens;
use syscalls::call::*;

use super::{History, MODELS};
use crate::machine::mount;

impl History {
    pub(super) fn mount(&mut self) {
        let Some(at) = self.program() else { return };
        let conn = self.programs[at].conn;
        let script = format!("{},layers=3,weights={}", self.script, self.chance.below(900));
        let context = self.chance.once_in(3).then_some(Tokens(256));
        let name = MODELS[self.chance.below(MODELS.len())];
        self.machine.begin(conn, Mount { context, ..mount(name, &script) });
    }

    pub(super) fn unmount(&mut self) {
        let Some(at) = self.program() else { return };
        let conn = self.programs[at].conn;
        let name = MODELS[self.chance.below(MODELS.len())].to_owned();
        let force = self.chance.once_in(4);
        self.machine.begin(conn, Unmount { name, force });
    }

    pub(super) fn setpolicy(&mut self) {
        let Some(at) = self.program() else { return };
        let policy = Policy::ALL[self.chance.below(5)].0.to_owned();
        self.machine.begin(self.programs[at].conn, Setpolicy { policy });
    }

    /// A rate of a process, or a limit or weight of a group.
    pub(super) fn limit(&mut self) {
        let Some(at) = self.program() else { return };
        let conn = self.programs[at].conn;
        let value = (!self.chance.once_in(3)).then(|| 20 + self.chance.below(2000) as u64);
        if self.chance.once_in(2) {
            let pid = self.programs[at].pid;
            self.machine.begin(conn, Setlimit { pid, limit: Limit::TokensPerSecond, value, then: None });
            return;
        }
        let limits = [
            GroupLimit::TokensPerSecond,
            GroupLimit::ResidentFrames,
            GroupLimit::ResidentFramesSoft,
            GroupLimit::SwapPages,
        ];
        let limit = limits[self.chance.below(4)];
        // A context has four frames at most.
        let value = if limit == GroupLimit::TokensPerSecond { value } else { value.map(|v| 4 + v % 8) };
        let weight = self.chance.once_in(2).then(|| 1 + self.chance.below(1000) as u32);
        let group = "/user.0".to_owned();
        self.machine.begin(conn, Setgroup { group, weight, limit: Some(limit), value, remove: false });
    }
}
