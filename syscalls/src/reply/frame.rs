//! How a frame, a reply or an event, is written to a line and read from one.

use serde::{Deserialize, Serialize};

use super::Reply;
use crate::errno::Fault;
use crate::event::Event;
use crate::id::CallId;

/// The id of a fault that belongs to no request.
pub const NO_CALL: CallId = CallId(0);

/// One line from the daemon.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The last word on a request.
    Reply(CallId, Result<Reply, Fault>),
    /// Something on the way there.
    Event(CallId, Event),
}

/// Any frame as it is read.
#[derive(Deserialize)]
struct FrameLine {
    id: CallId,
    #[serde(default)]
    ok: Option<Reply>,
    #[serde(default)]
    error: Option<Fault>,
    #[serde(flatten)]
    event: Option<Event>,
}

// The same three as they are written, borrowed: a frame is written once for each token.

#[derive(Serialize)]
struct ReplyLine<'a> {
    id: CallId,
    ok: &'a Reply,
}

#[derive(Serialize)]
struct FaultLine<'a> {
    id: CallId,
    error: &'a Fault,
}

#[derive(Serialize)]
struct EventLine<'a> {
    id: CallId,
    #[serde(flatten)]
    event: &'a Event,
}

impl Frame {
    /// The request that it belongs to.
    pub fn id(&self) -> CallId {
        match self {
            Frame::Reply(id, _) | Frame::Event(id, _) => *id,
        }
    }

    /// Appends the frame to a buffer as one line, newline included.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let written = match self {
            Frame::Reply(id, Ok(reply)) => {
                serde_json::to_writer(&mut *out, &ReplyLine { id: *id, ok: reply })
            }
            Frame::Reply(id, Err(fault)) => {
                serde_json::to_writer(&mut *out, &FaultLine { id: *id, error: fault })
            }
            Frame::Event(id, event) => serde_json::to_writer(&mut *out, &EventLine { id: *id, event }),
        };
        written.expect("replies hold nothing that JSON lacks");
        out.push(b'\n');
    }

    /// Reads a frame from one line.
    ///
    /// # Errors
    ///
    /// What is wrong with the line, for a client that meets another version of the daemon.
    pub fn from_line(line: &[u8]) -> Result<Frame, String> {
        let line: FrameLine = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        match (line.ok, line.error, line.event) {
            (Some(reply), None, None) => Ok(Frame::Reply(line.id, Ok(reply))),
            (None, Some(fault), _) => Ok(Frame::Reply(line.id, Err(fault))),
            (None, None, Some(event)) => Ok(Frame::Event(line.id, event)),
            _ => Err("neither a reply nor an event".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;
    use crate::id::Token;

    fn line_of(frame: &Frame) -> String {
        let mut line = Vec::new();
        frame.write_line(&mut line);
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    #[test]
    fn frame_written_and_read_is_the_same() {
        let frames = [
            Frame::Reply(CallId(1), Ok(Reply::Done {})),
            Frame::Reply(CallId(2), Ok(Reply::Value(None))),
            Frame::Reply(CallId(3), Ok(Reply::Embedded(vec![vec![0.1, -1e-8]]))),
            Frame::Reply(CallId(4), Err(Fault::new(Errno::ENOMEM, "no frame is free"))),
            Frame::Event(CallId(5), Event::Replaying { tokens: 9 }),
            Frame::Event(
                CallId(6),
                Event::Tokens { text: "a\nb".into(), tokens: vec![Token(7)].into(), logprobs: vec![] },
            ),
        ];
        for frame in frames {
            let line = line_of(&frame);
            assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line}");
            assert_eq!(Frame::from_line(line.as_bytes()), Ok(frame), "{line}");
        }
    }

    #[test]
    fn frames_have_the_documented_form() {
        let done = line_of(&Frame::Reply(CallId(7), Ok(Reply::Done {})));
        assert_eq!(done, "{\"id\":7,\"ok\":{\"done\":{}}}\n");
        let event =
            line_of(&Frame::Event(CallId(7), Event::Progress { fraction: 0.5, what: "loads".into() }));
        assert_eq!(event, "{\"id\":7,\"event\":\"progress\",\"fraction\":0.5,\"what\":\"loads\"}\n");
    }

    #[test]
    fn line_that_is_no_frame_is_refused() {
        for line in ["{}", "{\"id\":1}", "[]", "{\"id\":1,\"event\":\"dance\"}"] {
            assert!(Frame::from_line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
