//! Contexts are opened, grow, generate, are copied, cut, shared and closed.

use syscalls::call::*;
use syscalls::{Reply, Tokens};

use super::{History, MODELS, Program};
use crate::machine::{ADMIN, append_bytes, generate, open};

const SEGMENTS: [&str; 2] = ["one", "two"];

impl History {
    pub(super) fn open(&mut self) {
        let Some(at) = self.program() else { return };
        let conn = self.programs[at].conn;
        let prefix = self.chance.once_in(3).then(|| SEGMENTS[self.chance.below(SEGMENTS.len())].into());
        let on_full = [OnFull::Stop, OnFull::Stop, OnFull::Slide, OnFull::Compact][self.chance.below(4)];
        let model = MODELS[self.chance.below(MODELS.len())].to_owned();
        let model = prefix.is_none().then_some(model);
        let id = self.begin(at, Open { model, prefix, on_full, ..open() });
        if on_full == OnFull::Stop {
            self.stopping.insert((conn, id));
        }
        self.programs[at].opening.push(id);
    }

    pub(super) fn append(&mut self) {
        let Some((at, _, context)) = self.pick() else { return };
        let word = ["alpha ", "beta ", "gamma and delta "][self.chance.below(3)];
        let times = 1 + self.chance.below(6);
        self.begin(at, append_bytes(context, &word.repeat(times)));
    }

    /// A context becomes nearly full, and goes on.
    pub(super) fn fill(&mut self) {
        let Some((at, conn, context)) = self.pick() else { return };
        let id = self.begin(at, ReadTokens { context, from: Tokens(0), to: None });
        let Some(Ok(Reply::Tokens(log))) = self.machine.reply(conn, id) else { return };
        let room = 250_usize.saturating_sub(log.len());
        self.begin(at, append_bytes(context, &"words and more of them ".repeat(12)[..room.min(200)]));
        let id = self.begin(at, generate(context, 60));
        self.programs[at].calls.push((id, context));
        self.generated.push((conn, id, context));
    }

    /// Somebody who watches asks while others have long prompts.
    pub(super) fn hurry(&mut self) {
        self.fill();
        let conn = self.machine.connect_as(ADMIN, Class::Interactive, 0);
        let pid = self.machine.pid(conn);
        self.kept.uids.insert(pid, ADMIN);
        self.programs.push(Program::new(conn, pid));
        let id = self.machine.begin(conn, Open { model: Some(MODELS[0].into()), ..open() });
        let Some(Ok(Reply::Opened { context, .. })) = self.machine.reply(conn, id) else { return };
        let at = self.programs.len() - 1;
        self.programs[at].contexts.push(context);
        self.steady.insert(context);
        self.begin(at, append_bytes(context, "now"));
        let id = self.begin(at, generate(context, 2));
        self.programs[at].calls.push((id, context));
        self.generated.push((conn, id, context));
    }

    pub(super) fn generate(&mut self) {
        let Some((at, conn, context)) = self.pick() else { return };
        let tokens = 1 + self.chance.below(60) as u32;
        let deadline_ms = self.chance.once_in(4).then(|| 1 + self.chance.below(100) as i64);
        let stream = self.chance.once_in(2);
        let id = self.begin(at, Generate { stream, deadline_ms, ..generate(context, tokens) });
        self.programs[at].calls.push((id, context));
        self.generated.push((conn, id, context));
    }

    pub(super) fn fork(&mut self) {
        let Some((at, conn, context)) = self.pick() else { return };
        let copies = 1 + self.chance.below(3) as u32;
        let length = self.chance.once_in(3).then(|| Tokens(self.chance.below(80) as u32));
        let id = self.begin(at, Fork { context, copies, length });
        if let Some(Ok(Reply::Forked { contexts })) = self.machine.reply(conn, id) {
            if self.steady.contains(&context) {
                self.steady.extend(&contexts);
            }
            self.programs[at].contexts.extend(contexts);
        }
    }

    pub(super) fn close(&mut self) {
        let Some((at, _, context)) = self.pick() else { return };
        self.begin(at, Close { context });
        self.programs[at].contexts.retain(|c| *c != context);
    }

    pub(super) fn truncate(&mut self) {
        let Some((at, _, context)) = self.pick() else { return };
        let length = Tokens(self.chance.below(150) as u32);
        self.steady.remove(&context);
        self.begin(at, Truncate { context, length });
        // What is appended afterwards may end like an answer that was cut off.
        self.generated.retain(|(_, _, of)| *of != context);
    }

    pub(super) fn share(&mut self) {
        let Some((at, _, context)) = self.pick() else { return };
        let name = SEGMENTS[self.chance.below(SEGMENTS.len())].into();
        if self.chance.once_in(4) {
            self.begin(at, Unshare { name });
            return;
        }
        let length = self.chance.once_in(2).then(|| Tokens(1 + self.chance.below(150) as u32));
        let mode = [0o600, 0o644][self.chance.below(2)];
        self.begin(at, Share { context, name, length, mode });
    }
}
