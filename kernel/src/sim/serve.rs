//! A simulation behind a socket: the same lines as a daemon's, so that the same clients speak to it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use syscalls::codec::{Line, LineReader};
use syscalls::limits::LINE_BYTES_MAX;
use syscalls::reply::NO_CALL;
use syscalls::{Errno, Fault, Frame, Request};

use super::Simulation;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 64 << 10;

/// Answers one program until it goes away.
///
/// # Errors
///
/// The socket cannot be read or written.
pub fn serve(mut socket: UnixStream) -> io::Result<()> {
    let mut simulation = Simulation::new();
    let mut lines = LineReader::new(LINE_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    while !simulation.is_over() {
        let bytes = match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        lines.push(&buffer[..bytes]);
        while let Some(line) = lines.next_line() {
            let mut out = Vec::new();
            match request(line) {
                Ok(request) => simulation.request(request),
                Err(refusal) => refusal.write_line(&mut out),
            }
            simulation.frames().iter().for_each(|frame| frame.write_line(&mut out));
            socket.write_all(&out)?;
        }
    }
    Ok(())
}

fn request(line: Line) -> Result<Request, Box<Frame>> {
    match line {
        Line::Whole(line) => Request::from_line(&line)
            .map_err(|(id, fault)| Box::new(Frame::Reply(id.unwrap_or(NO_CALL), Err(fault)))),
        Line::TooLong(bytes) => {
            let message = format!("a line of {bytes} bytes was dropped; at most {LINE_BYTES_MAX} are read");
            Err(Box::new(Frame::Reply(NO_CALL, Err(Fault::new(Errno::EMSGSIZE, message)))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a simulation answers to these lines, in a process of their own thread.
    fn conversation(lines: &str) -> String {
        let (mut own, other) = UnixStream::pair().expect("a pair of sockets");
        let server = std::thread::spawn(move || serve(other));
        own.write_all(lines.as_bytes()).expect("it is read");
        own.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut answers = String::new();
        own.read_to_string(&mut answers).expect("they are text");
        server.join().expect("it does not panic").expect("the socket works");
        answers
    }

    #[test]
    fn simulation_answers_like_a_daemon_and_the_same_every_time() {
        let lines = concat!(
            r#"{"id":1,"call":"hello","args":{"version":1}}"#,
            "\n",
            r#"{"id":2,"call":"mount","args":{"path":"sim:step_us=1000","name":"m"}}"#,
            "\n",
            r#"{"id":3,"call":"open"}"#,
            "\n",
            r#"{"id":4,"call":"append","args":{"context":1,"text":"once"}}"#,
            "\n",
            r#"{"id":5,"call":"generate","args":{"context":1,"max_tokens":5}}"#,
            "\n",
            "no request\n",
        );
        let answers = conversation(lines);
        assert!(answers.contains(r#""id":5,"ok":{"generated":{"finish":"length""#), "{answers}");
        assert!(answers.contains(r#"{"id":0,"error":{"errno":"EPROTO""#), "{answers}");
        assert_eq!(conversation(lines), answers, "the same requests have the same answers");
    }

    #[test]
    fn simulation_refuses_what_it_has_not() {
        let answers = conversation(concat!(
            r#"{"id":1,"call":"hello","args":{"version":1}}"#,
            "\n",
            r#"{"id":2,"call":"mount","args":{"path":"/no/model.gguf","name":"m"}}"#,
            "\n",
            r#"{"id":3,"call":"store_get","args":{"store":"s","key":"k"}}"#,
            "\n",
        ));
        assert!(answers.contains("runs sim drivers alone"), "{answers}");
        assert!(answers.contains("there are no stores in a simulation"), "{answers}");
    }
}
