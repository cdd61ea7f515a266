//! Words and operators to commands.

use std::iter::Peekable;
use std::vec::IntoIter;

use super::lex::{Kind, Lexeme, lex};
use super::{
    Chain, Command, Connector, Item, List, Part, Pipeline, Redirection, Stream, SyntaxError, Target, Word,
};

/// Words of sh that begin what this shell does not have.
const CONTROL: &[&str] = &["if", "while", "until", "for", "case", "function", "select", "{"];

/// Reads a source of one or several lines.
///
/// # Errors
///
/// The first thing that cannot be understood. Where further lines could make it right, the error says so.
pub fn parse(source: &str) -> Result<List, SyntaxError> {
    let lexemes = lex(source)?;
    Parser { source, lexemes: lexemes.into_iter().peekable(), end: 0 }.list()
}

struct Parser<'a> {
    source: &'a str,
    lexemes: Peekable<IntoIter<Lexeme>>,
    /// Behind the last lexeme that was taken.
    end: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<&Kind> {
        self.lexemes.peek().map(|l| &l.kind)
    }

    fn take(&mut self) -> Option<Kind> {
        let lexeme = self.lexemes.next()?;
        self.end = lexeme.end;
        Some(lexeme.kind)
    }

    fn position(&mut self) -> usize {
        self.lexemes.peek().map_or(self.source.len(), |l| l.at)
    }

    fn text(&self, from: usize) -> String {
        self.source[from..self.end].to_owned()
    }

    fn list(mut self) -> Result<List, SyntaxError> {
        let mut list = List::default();
        loop {
            while matches!(self.peek(), Some(Kind::Then | Kind::Newline)) {
                self.take();
            }
            if self.peek().is_none() {
                return Ok(list);
            }
            let chain = self.chain()?;
            let background = self.peek() == Some(&Kind::Background);
            if background {
                self.take();
            } else if !matches!(self.peek(), None | Some(Kind::Then | Kind::Newline)) {
                return Err(self.unexpected("a command's end"));
            }
            list.items.push(Item { chain, background });
        }
    }

    fn chain(&mut self) -> Result<Chain, SyntaxError> {
        let from = self.position();
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            let connector = match self.peek() {
                Some(Kind::And) => Connector::And,
                Some(Kind::Or) => Connector::Or,
                _ => return Ok(Chain { text: self.text(from), first, rest }),
            };
            self.operator_before_command(if connector == Connector::And { "`&&`" } else { "`||`" })?;
            rest.push((connector, self.pipeline()?));
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, SyntaxError> {
        let from = self.position();
        let mut negated = false;
        while self.peek().is_some_and(|kind| is_plain(kind, "!")) {
            self.take();
            negated = !negated;
        }
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Kind::Pipe) {
            self.operator_before_command("`|`")?;
            commands.push(self.command()?);
        }
        Ok(Pipeline { text: self.text(from), negated, commands })
    }

    /// Takes an operator; the command behind it may stand on the next line.
    fn operator_before_command(&mut self, name: &str) -> Result<(), SyntaxError> {
        let at = self.position();
        self.take();
        while self.peek() == Some(&Kind::Newline) {
            self.take();
        }
        match self.peek() {
            Some(_) => Ok(()),
            None => Err(SyntaxError::incomplete(at, format!("expected a command after {name}"))),
        }
    }

    fn command(&mut self) -> Result<Command, SyntaxError> {
        let mut command = Command::default();
        let at = self.position();
        loop {
            match self.peek() {
                Some(Kind::Word(_)) => self.word(&mut command)?,
                Some(Kind::Read(_) | Kind::Write(_) | Kind::Append(_) | Kind::Duplicate(..)) => {
                    let redirection = self.redirection()?;
                    command.redirections.push(redirection);
                }
                _ if command == Command::default() => return Err(self.unexpected("a command")),
                _ => break,
            }
        }
        match command.words.first().and_then(plain) {
            Some(word) if CONTROL.contains(&word) => Err(SyntaxError::new(
                at,
                format!(
                    "llmsh has no `{word}`; chain with && and ||, or use sh, where `llmasos NAME` runs each builtin"
                ),
            )),
            _ => Ok(command),
        }
    }

    fn word(&mut self, command: &mut Command) -> Result<(), SyntaxError> {
        let Some(Kind::Word(word)) = self.take() else { unreachable!("the caller has seen a word") };
        if !command.words.is_empty() {
            command.words.push(word);
            return Ok(());
        }
        match assignment(word) {
            Ok(assignment) => command.assignments.push(assignment),
            Err(word) => command.words.push(word),
        }
        Ok(())
    }

    fn redirection(&mut self) -> Result<Redirection, SyntaxError> {
        let at = self.position();
        let kind = self.take().expect("the caller has seen a redirection");
        if let Kind::Duplicate(stream, other) = kind {
            return Ok(Redirection { stream, to: Target::Stream(other) });
        }
        let name = kind.name();
        let Some(Kind::Word(word)) = self.lexemes.next_if(|l| matches!(l.kind, Kind::Word(_))).map(|l| {
            self.end = l.end;
            l.kind
        }) else {
            return Err(SyntaxError::new(at, format!("expected a file's name after {name}")));
        };
        let (stream, to) = match kind {
            Kind::Read(stream) => (stream, Target::Read(word)),
            Kind::Append(stream) => (stream, Target::Append(word)),
            Kind::Write(stream) => (stream, Target::Write(word)),
            _ => (Stream::Output, Target::Write(word)),
        };
        Ok(Redirection { stream, to })
    }

    fn unexpected(&mut self, wanted: &str) -> SyntaxError {
        let at = self.position();
        match self.peek() {
            Some(kind) => SyntaxError::new(at, format!("expected {wanted} before {}", kind.name())),
            None => SyntaxError::new(at, format!("expected {wanted}")),
        }
    }
}

/// The text of a word that has no quotes and no variables.
fn plain(word: &Word) -> Option<&str> {
    match word.0.as_slice() {
        [Part::Text { text, quoted: false }] => Some(text),
        _ => None,
    }
}

fn is_plain(kind: &Kind, text: &str) -> bool {
    matches!(kind, Kind::Word(word) if plain(word) == Some(text))
}

/// Splits `NAME=value`; gives the word back where it is none.
fn assignment(mut word: Word) -> Result<(String, Word), Word> {
    let Some(Part::Text { text, quoted: false }) = word.0.first() else { return Err(word) };
    let Some((name, value)) = text.split_once('=') else { return Err(word) };
    if !is_name(name) {
        return Err(word);
    }
    let (name, value) = (name.to_owned(), value.to_owned());
    if value.is_empty() {
        word.0.remove(0);
    } else {
        word.0[0] = Part::Text { text: value, quoted: false };
    }
    Ok((name, word))
}

/// Whether a text can name a variable.
pub fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
