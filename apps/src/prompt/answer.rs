//! The text of an answer as it streams: without the space around it, and without the thoughts that some models
//! write in front of it between `<think>` and `</think>`.

const THOUGHTS_BEGIN: &str = "<think>";
const THOUGHTS_END: &str = "</think>";

/// An answer that comes in pieces.
#[derive(Debug, Default)]
pub struct AnswerText {
    phase: Phase,
    /// What came and is not decided on yet: the beginning, a possible end of thoughts, or space that may be last.
    held: String,
    /// What has been given out.
    text: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Nothing but space has come, or the beginning of a mark.
    #[default]
    Beginning,
    /// In thoughts.
    Thinking,
    /// Behind them: space alone has come since.
    Leading,
    /// In the answer.
    Speaking,
}

impl AnswerText {
    /// Takes a piece, and gives what is certain to be text of the answer.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        if self.phase == Phase::Beginning {
            let begun = self.held.trim_start();
            if let Some(thoughts) = begun.strip_prefix(THOUGHTS_BEGIN) {
                self.held = thoughts.to_owned();
                self.phase = Phase::Thinking;
            } else if !THOUGHTS_BEGIN.starts_with(begun) {
                self.phase = Phase::Leading;
            }
        }
        if self.phase == Phase::Thinking {
            let Some(at) = self.held.find(THOUGHTS_END) else { return String::new() };
            self.held.drain(..at + THOUGHTS_END.len());
            self.phase = Phase::Leading;
        }
        if self.phase == Phase::Leading {
            let begun = self.held.trim_start();
            if !begun.is_empty() {
                self.held = begun.to_owned();
                self.phase = Phase::Speaking;
            }
        }
        if self.phase == Phase::Speaking { self.give() } else { String::new() }
    }

    /// Gives what is held up to its last space.
    fn give(&mut self) -> String {
        let certain = self.held.trim_end().len();
        let given: String = self.held.drain(..certain).collect();
        self.text.push_str(&given);
        given
    }

    /// Gives what was held for a mark that did not come, once nothing more comes.
    pub fn end(&mut self) -> String {
        if self.phase == Phase::Beginning {
            self.held = self.held.trim_start().to_owned();
            return self.give();
        }
        String::new()
    }

    /// The whole answer as it was given out.
    pub fn whole(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        for size in 1..=text.chars().count().max(1) {
            let mut answer = AnswerText::default();
            let chars: Vec<char> = text.chars().collect();
            let mut given: String =
                chars.chunks(size).map(|c| answer.push(&c.iter().collect::<String>())).collect();
            given.push_str(&answer.end());
            assert_eq!(given, expect, "in pieces of {size}");
            assert_eq!(answer.whole(), expect);
        }
    }

    #[test]
    fn space_around_an_answer_is_left_out() {
        check(" \n Hello  world \n\n", "Hello  world");
        check(" ", "");
    }

    #[test]
    fn thoughts_are_left_out() {
        check("<think>\nHm, 1 < 2.\n</think>\n\n42", "42");
        check("\n<think></think>", "");
        check("<thinner> is a word", "<thinner> is a word");
        check(" <thin", "<thin");
    }

    #[test]
    fn thoughts_later_on_are_text() {
        check("The tag <think> opens.", "The tag <think> opens.");
    }
}
