//! Reads recordings, and refuses in one sentence what is none, or not a whole one.

use serde_json::Value;
use syscalls::limits::ABI_VERSION;
use syscalls::{Event, shown};

use super::{EndLine, Header, VERSION};

/// A recording that can be replayed: all of it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What was recorded, and on what.
    pub header: Header,
    /// What happened, in its order.
    pub events: Vec<Event>,
}

/// Why a file cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The first line is no header.
    #[error("is no recording: its first line is no header; make one with `trace -o FILE PID`")]
    NotARecording,
    /// The header is of another version.
    #[error(
        "is a recording of version {found}, and this program reads version {VERSION}; replay it with the release that made it"
    )]
    OtherVersion {
        /// The version that it says.
        found: u64,
    },
    /// Its events are of another version of the interface.
    #[error(
        "was recorded with version {found} of the interface, and this is version {ABI_VERSION}; replay it with the release that made it"
    )]
    OtherAbi {
        /// The version that it says.
        found: u32,
    },
    /// It has no end.
    #[error("is torn: it ends with line {lines} and has no last line that says so; record it again")]
    Torn {
        /// How many whole lines there are.
        lines: usize,
    },
    /// A line is not what it should be.
    #[error("is damaged in line {line}: {why}; record it again")]
    Damaged {
        /// Which line.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Something is missing.
    #[error(
        "lost {events} events while it was recorded, so it cannot be replayed; record it again, without --tokens or on a faster disk"
    )]
    Lost {
        /// How many.
        events: u64,
    },
}

/// Reads a recording.
///
/// # Errors
///
/// What is wrong with it, to be put behind the name of the file.
pub fn read(text: &str) -> Result<Recording, Refused> {
    let mut lines = text.lines().enumerate();
    let first = lines.next().map_or("", |(_, line)| line);
    let first: Value = serde_json::from_str(first).map_err(|_| Refused::NotARecording)?;
    match first.get("recording").and_then(Value::as_u64) {
        None => return Err(Refused::NotARecording),
        Some(found) if found != u64::from(VERSION) => return Err(Refused::OtherVersion { found }),
        Some(_) => {}
    }
    let damaged = |line: usize, why: &serde_json::Error| Refused::Damaged {
        line: line + 1,
        why: shown(&why.to_string()),
    };
    let header: Header = serde_json::from_value(first).map_err(|e| damaged(0, &e))?;
    if header.abi != ABI_VERSION {
        return Err(Refused::OtherAbi { found: header.abi });
    }
    let torn = || Refused::Torn { lines: text.matches('\n').count() };
    let whole = text.ends_with('\n');
    let mut events = Vec::new();
    let mut rest = lines.peekable();
    while let Some((number, line)) = rest.next() {
        if rest.peek().is_none() {
            let end: EndLine = serde_json::from_str(line).ok().filter(|_| whole).ok_or_else(torn)?;
            if end.end.events != events.len() as u64 {
                let why = format!("it ends {} events, and {} are there", end.end.events, events.len());
                return Err(Refused::Damaged { line: number + 1, why });
            }
            if end.end.lost > 0 {
                return Err(Refused::Lost { events: end.end.lost });
            }
            return Ok(Recording { header, events });
        }
        events.push(serde_json::from_str(line).map_err(|e| damaged(number, &e))?);
    }
    Err(torn())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Recorder, Settings};
    use syscalls::Pid;
    use syscalls::call::Signal;

    fn written(events: &[Event]) -> String {
        let header = Header::new("1.0", &[], Settings { follow: false, tokens: true });
        let mut recorder = Recorder::new(Vec::new(), &header).expect("memory can be written");
        events.iter().for_each(|event| recorder.take(event).expect("memory can be written"));
        let (bytes, ..) = recorder.finish().expect("memory can be written");
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }

    fn events() -> Vec<Event> {
        let (at_us, pid) = (5, Pid(7));
        let args = serde_json::json!({"context": 3, "text": "Grüße\n"});
        vec![
            Event::Called { at_us, pid, number: 1, call: "append".into(), args },
            Event::Signalled { at_us, pid, signal: Signal::Int },
        ]
    }

    #[test]
    fn recording_written_and_read_is_the_same() {
        let recording = read(&written(&events())).expect("it is whole");
        assert_eq!(recording.events, events());
        assert!(recording.header.settings.tokens);
    }

    #[test]
    fn recording_cut_anywhere_is_refused() {
        let whole = written(&events());
        for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            let refused = read(&whole[..end]).expect_err("it is not whole");
            assert!(matches!(refused, Refused::Torn { .. } | Refused::NotARecording), "{end}: {refused}");
        }
    }

    #[test]
    fn recording_of_another_version_or_with_something_missing_says_so() {
        let whole = written(&events());
        let newer = whole.replacen("\"recording\":1", "\"recording\":9", 1);
        assert_eq!(read(&newer), Err(Refused::OtherVersion { found: 9 }));
        let newer = whole.replacen("\"abi\":1", "\"abi\":2", 1);
        assert_eq!(read(&newer), Err(Refused::OtherAbi { found: 2 }));
        let mut lines: Vec<&str> = whole.lines().collect();
        lines.remove(1);
        let fewer = lines.join("\n") + "\n";
        assert!(matches!(read(&fewer), Err(Refused::Damaged { line: 3, .. })));
        let lossy = written(&[Event::Lost { events: 12 }]);
        let refused = read(&lossy).expect_err("events are missing").to_string();
        assert!(refused.starts_with("lost 12 events"), "{refused}");
        assert_eq!(read("a letter\n"), Err(Refused::NotARecording));
        let strange = whole.replacen("\"called\"", &format!("{:?}", "x".repeat(1 << 20)), 1);
        let refused = read(&strange).expect_err("there is no such event").to_string();
        assert!(refused.contains("line 2") && refused.len() < 2048, "{} bytes", refused.len());
    }
}
