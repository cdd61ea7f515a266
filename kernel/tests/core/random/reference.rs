//! What an undisturbed kernel says.

use std::collections::BTreeMap;

use kernel::core::event::ConnId;
use syscalls::Token;
use syscalls::call::{Append, Close};

use crate::machine::Machine;

/// What comes next, by all tokens so far: the sim driver's answers, asked for once each.
pub(super) struct Reference {
    machine: Machine,
    conn: ConnId,
    known: BTreeMap<Vec<Token>, Token>,
}

impl Reference {
    pub(super) fn new() -> Self {
        let (machine, conn) = Machine::with_model("eos=40,context=4096,pool=4096");
        Reference { machine, conn, known: BTreeMap::new() }
    }

    pub(super) fn next(&mut self, log: &[Token]) -> Token {
        if let Some(token) = self.known.get(log) {
            return *token;
        }
        let context = self.machine.open(self.conn);
        let tokens = Some(log.to_vec());
        let call = Append { context, text: None, tokens, messages: None, special: false };
        self.machine.call(self.conn, call).expect("it fits");
        let reply = self.machine.generate(self.conn, context, 30);
        self.machine.call(self.conn, Close { context }).expect("it is there");
        let mut log = log.to_vec();
        for token in &reply.tokens {
            self.known.insert(log.clone(), *token);
            log.push(*token);
        }
        reply.tokens[0]
    }
}
