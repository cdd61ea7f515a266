//! The calls that tests make most, with their usual arguments.

use kernel::core::event::{ConnId, Credentials};
use syscalls::call::*;
use syscalls::reply::{Frame, GeneratedReply, ModelInfo, ProcessInfo, Stats};
use syscalls::{ContextId, Fault, Pid, Reply, Token, Tokens};

use super::{ADMIN, Machine};

impl Machine {
    pub fn mount(&mut self, conn: ConnId, name: &str, script: &str) -> Result<ModelInfo, Fault> {
        match self.call(conn, mount(name, script))? {
            Reply::Mounted(info) => Ok(info),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a context.
    pub fn open(&mut self, conn: ConnId) -> ContextId {
        match self.call(conn, open()) {
            Ok(Reply::Opened { context, .. }) => context,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a context with text in it.
    pub fn open_with(&mut self, conn: ConnId, text: &str) -> ContextId {
        let context = self.open(conn);
        self.append(conn, context, text).expect("the text fits");
        context
    }

    /// Appends the bytes of a text as tokens, with no token before them.
    pub fn append(&mut self, conn: ConnId, context: ContextId, text: &str) -> Result<u32, Fault> {
        match self.call(conn, append_bytes(context, text))? {
            Reply::Appended { length, .. } => Ok(length.0),
            other => panic!("{other:?}"),
        }
    }

    /// Generates greedily to the end.
    pub fn generate(&mut self, conn: ConnId, context: ContextId, tokens: u32) -> GeneratedReply {
        generated(self.call(conn, generate(context, tokens)))
    }

    pub fn fork(&mut self, conn: ConnId, context: ContextId, copies: u32) -> Vec<ContextId> {
        match self.call(conn, Fork { context, copies, length: None }) {
            Ok(Reply::Forked { contexts }) => contexts,
            other => panic!("{other:?}"),
        }
    }

    pub fn stat(&mut self, conn: ConnId) -> Stats {
        match self.call(conn, Stat { pid: None, model: None }) {
            Ok(Reply::Stat(stats)) => stats,
            other => panic!("{other:?}"),
        }
    }

    pub fn ps(&mut self, conn: ConnId) -> Vec<ProcessInfo> {
        match self.call(conn, Ps { all: false }) {
            Ok(Reply::Processes(list)) => list,
            other => panic!("{other:?}"),
        }
    }

    pub fn spawn(&mut self, conn: ConnId, name: &str) -> Pid {
        let spawn = syscalls::client::spawn(name);
        match self.call(conn, spawn) {
            Ok(Reply::Spawned { pid }) => pid,
            other => panic!("{other:?}"),
        }
    }

    /// The process of a connection.
    pub fn pid(&self, conn: ConnId) -> Pid {
        let hello = self.frames[&conn].iter().find_map(|frame| match frame {
            Frame::Reply(_, Ok(Reply::Hello(hello))) => Some(hello.pid),
            _ => None,
        });
        hello.expect("it said hello")
    }
}

/// Whom the host finds at the other end.
pub fn credentials(uid: u32) -> Credentials {
    Credentials {
        uid,
        os_pid: 5000,
        os_parent: None,
        executable: "tester".into(),
        admin: uid == ADMIN,
        program: None,
    }
}

pub fn mount(name: &str, script: &str) -> Mount {
    syscalls::client::mount(&format!("sim:{script}"), name)
}

pub fn open() -> Open {
    Open { model: None, tokens_max: None, on_full: OnFull::Stop, prefix: None }
}

pub fn append(context: ContextId, text: &str) -> Append {
    Append { context, text: Some(text.into()), tokens: None, messages: None, special: false }
}

pub fn append_bytes(context: ContextId, text: &str) -> Append {
    let tokens = text.bytes().map(|byte| Token(byte.into())).collect();
    Append { context, text: None, tokens: Some(tokens), messages: None, special: false }
}

pub fn generate(context: ContextId, tokens: u32) -> Generate {
    Generate {
        context,
        max_tokens: Some(Tokens(tokens)),
        stop: vec![],
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        ignore_eos: false,
        logprobs: None,
        stream: true,
        deadline_ms: None,
    }
}

pub fn generated(reply: Result<Reply, Fault>) -> GeneratedReply {
    match reply {
        Ok(Reply::Generated(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// What an undisturbed kernel generates: the reference for all disturbed ones.
pub fn reference(script: &str, prompt: &str, tokens: u32) -> String {
    let (mut machine, conn) = Machine::with_model(script);
    let context = machine.open_with(conn, prompt);
    machine.generate(conn, context, tokens).text
}
