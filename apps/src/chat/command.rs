//! What a line that begins with `/` asks the chat itself to do.

use std::path::PathBuf;

use syscalls::call::nearest;

/// A command of the chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Lists the commands.
    Help,
    /// Begins a new conversation.
    Reset,
    /// Writes the conversation to a file.
    Save(PathBuf),
    /// Leaves.
    Exit,
}

/// The names of the commands.
pub const NAMES: &[&str] = &["/help", "/reset", "/save", "/exit"];

/// What `/help` prints.
pub const HELP: &str = "\
/help       lists the commands
/reset      begins a new conversation
/save FILE  writes the conversation to a new file
/exit       leaves, as Ctrl-D does
Ctrl-C ends an answer. A line that begins with two slashes is a turn that begins with one.
";

impl Command {
    /// Reads a line; a turn of the conversation is none.
    ///
    /// # Errors
    ///
    /// A sentence for the user, where the line is a command that the chat does not have.
    pub fn read(line: &str) -> Result<Option<Command>, String> {
        let line = line.trim();
        if !line.starts_with('/') || line.starts_with("//") {
            return Ok(None);
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (name, rest.trim()) {
            ("/help", "") => Ok(Some(Command::Help)),
            ("/reset", "") => Ok(Some(Command::Reset)),
            ("/exit" | "/quit", "") => Ok(Some(Command::Exit)),
            ("/save", "") => Err("/save needs the name of a file".into()),
            ("/save", file) => Ok(Some(Command::Save(file.into()))),
            (name, _) if NAMES.contains(&name) => Err(format!("{name} takes nothing behind it")),
            (name, _) => {
                let near = nearest(name, NAMES).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
                Err(format!("no command {name}{near} /help lists them"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_turns_or_commands() {
        assert_eq!(Command::read("Hello /help"), Ok(None));
        assert_eq!(Command::read("//help"), Ok(None));
        assert_eq!(Command::read(" /exit "), Ok(Some(Command::Exit)));
        assert_eq!(Command::read("/save my chat.txt"), Ok(Some(Command::Save("my chat.txt".into()))));
    }

    #[test]
    fn command_wrong_is_explained() {
        assert_eq!(Command::read("/save"), Err("/save needs the name of a file".into()));
        assert_eq!(Command::read("/reset all"), Err("/reset takes nothing behind it".into()));
        let message = Command::read("/rest").expect_err("no such command");
        assert!(message.contains("did you mean /reset?"), "{message}");
    }
}
