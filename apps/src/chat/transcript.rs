//! What was said, for a context that must be made again and for the file of `/save`.

use syscalls::call::Message;

/// What a dialogue with a model that continues text calls its sides.
const USER: &str = "User:";
const ASSISTANT: &str = "Assistant:";

/// Where the answer of such a model ends: it begins to write the user's next turn.
pub const STOP: &str = "\nUser:";

/// A conversation so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    system: Option<String>,
    turns: Vec<Message>,
}

impl Transcript {
    /// Nothing said yet but what the model is told first.
    pub fn new(system: Option<String>) -> Transcript {
        Transcript { system, turns: Vec::new() }
    }

    /// Forgets what was said, except what the model was told first.
    pub fn clear(&mut self) {
        self.turns.clear();
    }

    /// Adds a turn.
    pub fn push(&mut self, turn: Message) {
        self.turns.push(turn);
    }

    /// Takes back the last turn, which came to nothing.
    pub fn pop(&mut self) {
        self.turns.pop();
    }

    /// Turns so far.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Forgets the older half of the turns, up to a turn of the user; the last one stays. Gives how many went.
    pub fn forget_oldest(&mut self) -> usize {
        let half = self.turns.len().div_ceil(2);
        let from = (half..self.turns.len()).find(|&at| self.turns[at].role == "user");
        let from = from.unwrap_or(self.turns.len().saturating_sub(1));
        self.turns.drain(..from).count()
    }

    /// The messages from turn `from` on; with what the model is told first, where `from` is the first.
    pub fn messages_from(&self, from: usize) -> Vec<Message> {
        let system = self.system.iter().filter(|_| from == 0);
        let system = system.map(|text| Message { role: "system".into(), content: text.clone() });
        system.chain(self.turns[from..].iter().cloned()).collect()
    }

    /// The same as a dialogue in plain text, which ends where the model has its turn.
    pub fn dialogue_from(&self, from: usize) -> String {
        let mut text = String::new();
        if let (0, Some(system)) = (from, &self.system) {
            text.push_str(system);
            text.push_str("\n\n");
        }
        for (at, turn) in self.turns.iter().enumerate().skip(from) {
            if at > 0 && turn.role == "user" {
                text.push('\n');
            }
            match turn.role.as_str() {
                "user" => text.push_str(&format!("{USER} {}\n{ASSISTANT}", turn.content)),
                _ => text.push_str(&format!(" {}", turn.content)),
            }
        }
        text
    }

    /// The conversation for people.
    pub fn text(&self) -> String {
        let lines = self.messages_from(0).into_iter().map(|m| format!("{}: {}\n", m.role, m.content));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{assistant, user};

    fn transcript(turns: usize) -> Transcript {
        let mut transcript = Transcript::new(Some("Be brief.".into()));
        for n in 0..turns {
            transcript.push(if n % 2 == 0 { user(format!("q{n}")) } else { assistant(format!("a{n}")) });
        }
        transcript
    }

    #[test]
    fn oldest_half_is_forgotten_and_the_question_stays() {
        let mut long = transcript(7);
        assert_eq!(long.forget_oldest(), 4);
        assert_eq!(long.messages_from(0).first().map(|m| m.role.as_str()), Some("system"));
        assert_eq!(long.messages_from(0).get(1), Some(&user("q4")));
        let mut short = transcript(1);
        assert_eq!(short.forget_oldest(), 0);
        assert_eq!(short.len(), 1);
    }

    #[test]
    fn dialogue_in_parts_is_the_dialogue() {
        let whole = transcript(3);
        assert_eq!(whole.dialogue_from(0), "Be brief.\n\nUser: q0\nAssistant: a1\nUser: q2\nAssistant:");
        assert_eq!(whole.dialogue_from(1), " a1\nUser: q2\nAssistant:");
    }

    #[test]
    fn text_names_who_speaks() {
        assert_eq!(transcript(2).text(), "system: Be brief.\n\nuser: q0\n\nassistant: a1\n");
    }
}
