//! Characters to words and operators.

use std::iter::Peekable;
use std::str::CharIndices;

use super::{Part, Stream, SyntaxError, Word, is_name};

/// A word or an operator, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lexeme {
    pub kind: Kind,
    /// Its first byte.
    pub at: usize,
    /// Behind its last byte.
    pub end: usize,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Word(Word),
    /// `|`
    Pipe,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `;`
    Then,
    /// The end of a line.
    Newline,
    /// `&`
    Background,
    /// `<`
    Read(Stream),
    /// `>`
    Write(Stream),
    /// `>>`
    Append(Stream),
    /// `>&1`
    Duplicate(Stream, Stream),
}

impl Kind {
    /// As an error message names it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Word(_) => "a word",
            Kind::Pipe => "`|`",
            Kind::And => "`&&`",
            Kind::Or => "`||`",
            Kind::Then => "`;`",
            Kind::Newline => "the end of the line",
            Kind::Background => "`&`",
            Kind::Read(_) => "`<`",
            Kind::Write(_) => "`>`",
            Kind::Append(_) => "`>>`",
            Kind::Duplicate(..) => "`>&`",
        }
    }
}

/// Splits a source into words and operators.
///
/// # Errors
///
/// A quote is not closed, or something of sh that this shell does not have is used.
pub fn lex(source: &str) -> Result<Vec<Lexeme>, SyntaxError> {
    let mut lexer = Lexer { source, chars: source.char_indices().peekable() };
    let mut lexemes = Vec::new();
    while let Some(lexeme) = lexer.next()? {
        lexemes.push(lexeme);
    }
    Ok(lexemes)
}

struct Lexer<'a> {
    source: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl Lexer<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|&(_, c)| c)
    }

    fn position(&mut self) -> usize {
        self.chars.peek().map_or(self.source.len(), |&(at, _)| at)
    }

    fn take_if(&mut self, wanted: char) -> bool {
        self.chars.next_if(|&(_, c)| c == wanted).is_some()
    }

    fn next(&mut self) -> Result<Option<Lexeme>, SyntaxError> {
        self.skip_blanks();
        let at = self.position();
        let Some(c) = self.peek() else { return Ok(None) };
        let kind = match c {
            '\n' => self.operator(Kind::Newline),
            ';' => self.operator(Kind::Then),
            '|' => self.one_or_two('|', Kind::Pipe, Kind::Or),
            '&' => self.one_or_two('&', Kind::Background, Kind::And),
            '<' | '>' => self.redirection(None)?,
            '(' | ')' => {
                return Err(SyntaxError::new(
                    at,
                    "llmsh has no ( ); quote it, or use sh, where `llmasos NAME` runs each builtin",
                ));
            }
            '0'..='2' if self.is_stream_number(at) => {
                self.chars.next();
                self.redirection(Some(c))?
            }
            '3'..='9' if self.is_stream_number(at) => {
                return Err(SyntaxError::new(
                    at,
                    "llmsh redirects standard input, output and error alone: <, > and 2>",
                ));
            }
            _ => Kind::Word(self.word()?),
        };
        Ok(Some(Lexeme { kind, at, end: self.position() }))
    }

    /// Skips blanks, continued line ends and comments.
    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => {
                    self.chars.next();
                }
                Some('\\') if self.continues_line() => {
                    self.chars.next();
                    self.chars.next();
                }
                Some('#') => while self.chars.next_if(|&(_, c)| c != '\n').is_some() {},
                _ => return,
            }
        }
    }

    fn continues_line(&mut self) -> bool {
        let at = self.position();
        self.source[at..].starts_with("\\\n")
    }

    fn operator(&mut self, kind: Kind) -> Kind {
        self.chars.next();
        kind
    }

    fn one_or_two(&mut self, c: char, one: Kind, two: Kind) -> Kind {
        self.chars.next();
        if self.take_if(c) { two } else { one }
    }

    /// A digit right before `<` or `>` names the stream.
    fn is_stream_number(&self, at: usize) -> bool {
        matches!(self.source.as_bytes().get(at + 1), Some(b'<' | b'>'))
    }

    fn redirection(&mut self, number: Option<char>) -> Result<Kind, SyntaxError> {
        let at = self.position();
        let reads = self.take_if('<');
        if reads && self.peek() == Some('<') {
            return Err(SyntaxError::new(at, "llmsh has no <<; put the text into a file, or pipe it in"));
        }
        if reads {
            return match number {
                None | Some('0') => Ok(Kind::Read(Stream::Input)),
                Some(_) => Err(SyntaxError::new(at, "only standard input can be read into")),
            };
        }
        self.chars.next();
        let stream = match number {
            None | Some('1') => Stream::Output,
            Some('2') => Stream::Error,
            Some(_) => return Err(SyntaxError::new(at, "standard input cannot be written; use 1> or 2>")),
        };
        if self.take_if('>') {
            return Ok(Kind::Append(stream));
        }
        if !self.take_if('&') {
            return Ok(Kind::Write(stream));
        }
        let to = match self.chars.next() {
            Some((_, '1')) => Some(Stream::Output),
            Some((_, '2')) => Some(Stream::Error),
            _ => None,
        };
        match to.filter(|_| self.peek().is_none_or(ends_word)) {
            Some(to) => Ok(Kind::Duplicate(stream, to)),
            None => Err(SyntaxError::new(at, "expected 1 or 2 after `>&`")),
        }
    }

    fn word(&mut self) -> Result<Word, SyntaxError> {
        let mut parts = Parts::default();
        self.home(false, &mut parts);
        // Behind `NAME=`, where a home may stand, and behind each `:` from there on, as in `PATH=~/bin:$PATH`.
        let mut assigns = false;
        while let Some(c) = self.peek() {
            match c {
                c if ends_word(c) => break,
                '\'' => self.single_quoted(&mut parts)?,
                '"' => self.double_quoted(&mut parts)?,
                '\\' => self.escaped(&mut parts)?,
                '$' => self.variable(false, &mut parts)?,
                '`' => return Err(no_substitution(self.position())),
                c => {
                    self.chars.next();
                    let begins = c == '=' && !assigns && parts.are_a_name();
                    assigns |= begins;
                    parts.push(c, false);
                    if begins || assigns && c == ':' {
                        self.home(true, &mut parts);
                    }
                }
            }
        }
        Ok(Word(parts.0))
    }

    /// `~` alone or before `/`, in an assignment before `:` too. Homes of other users stay as they are written.
    fn home(&mut self, assigns: bool, parts: &mut Parts) {
        let at = self.position();
        let mut chars = self.source[at..].chars();
        let ends = |c: char| c == '/' || c == ':' && assigns || ends_word(c);
        if chars.next() == Some('~') && chars.next().is_none_or(ends) {
            self.chars.next();
            parts.0.push(Part::Home);
        }
    }

    fn escaped(&mut self, parts: &mut Parts) -> Result<(), SyntaxError> {
        let at = self.position();
        self.chars.next();
        match self.chars.next() {
            Some((_, '\n')) => Ok(()),
            Some((_, c)) => {
                parts.push(c, true);
                Ok(())
            }
            None => Err(SyntaxError::incomplete(at, "nothing follows the `\\`")),
        }
    }

    fn single_quoted(&mut self, parts: &mut Parts) -> Result<(), SyntaxError> {
        let at = self.position();
        self.chars.next();
        parts.quoted();
        loop {
            match self.chars.next() {
                Some((_, '\'')) => return Ok(()),
                Some((_, c)) => parts.push(c, true),
                None => return Err(SyntaxError::incomplete(at, "this quote is not closed")),
            }
        }
    }

    fn double_quoted(&mut self, parts: &mut Parts) -> Result<(), SyntaxError> {
        let at = self.position();
        self.chars.next();
        parts.quoted();
        loop {
            match self.peek() {
                Some('$') => {
                    self.variable(true, parts)?;
                    continue;
                }
                Some('`') => return Err(no_substitution(self.position())),
                _ => {}
            }
            match self.chars.next() {
                Some((_, '"')) => return Ok(()),
                Some((_, '\\')) => self.escaped_in_quotes(parts),
                Some((_, c)) => parts.push(c, true),
                None => return Err(SyntaxError::incomplete(at, "this quote is not closed")),
            }
        }
    }

    /// Between double quotes a backslash escapes only what has a meaning there.
    fn escaped_in_quotes(&mut self, parts: &mut Parts) {
        match self.peek() {
            Some(c @ ('"' | '\\' | '$' | '`')) => {
                self.chars.next();
                parts.push(c, true);
            }
            Some('\n') => {
                self.chars.next();
            }
            _ => parts.push('\\', true),
        }
    }

    fn variable(&mut self, quoted: bool, parts: &mut Parts) -> Result<(), SyntaxError> {
        let at = self.position();
        self.chars.next();
        let name = match self.peek() {
            Some('{') => self.braced_name(at)?,
            Some('(') => return Err(no_substitution(at)),
            Some(c) if is_special(c) => {
                self.chars.next();
                c.to_string()
            }
            _ => self.name(),
        };
        match name.as_str() {
            "" => parts.push('$', quoted),
            _ => parts.0.push(Part::Variable { name, quoted }),
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        self.run(|c| c == '_' || c.is_ascii_alphanumeric())
    }

    fn run(&mut self, fits: fn(char) -> bool) -> String {
        let mut run = String::new();
        while let Some((_, c)) = self.chars.next_if(|&(_, c)| fits(c)) {
            run.push(c);
        }
        run
    }

    fn braced_name(&mut self, at: usize) -> Result<String, SyntaxError> {
        self.chars.next();
        let name = match self.peek() {
            Some(c) if c.is_ascii_digit() => self.run(|c| c.is_ascii_digit()),
            Some(c) if is_special(c) => {
                self.chars.next();
                c.to_string()
            }
            _ => self.name(),
        };
        match self.peek() {
            Some('}') if !name.is_empty() => {
                self.chars.next();
                Ok(name)
            }
            None => Err(SyntaxError::incomplete(at, "this `${` is not closed")),
            Some(_) => Err(SyntaxError::new(at, "expected a variable's name between `${` and `}`")),
        }
    }
}

/// Whether a word is over before this character, unless it is quoted.
fn ends_word(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | '<' | '>' | '(' | ')')
}

fn is_special(c: char) -> bool {
    c.is_ascii_digit() || "?$!#@*".contains(c)
}

fn no_substitution(at: usize) -> SyntaxError {
    SyntaxError::new(
        at,
        "llmsh does not put a command's output into a line; use a pipe, or sh, where `llmasos NAME` runs each builtin",
    )
}

/// The parts of a word as it grows.
#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn push(&mut self, c: char, is_quoted: bool) {
        match self.0.last_mut() {
            Some(Part::Text { text, quoted }) if *quoted == is_quoted => text.push(c),
            _ => self.0.push(Part::Text { text: c.into(), quoted: is_quoted }),
        }
    }

    /// Whether `=` behind them would set a variable.
    fn are_a_name(&self) -> bool {
        matches!(self.0.as_slice(), [Part::Text { text, quoted: false }] if is_name(text))
    }

    /// Makes a word of quotes with nothing in between.
    fn quoted(&mut self) {
        if !matches!(self.0.last(), Some(Part::Text { quoted: true, .. })) {
            self.0.push(Part::Text { text: String::new(), quoted: true });
        }
    }
}
