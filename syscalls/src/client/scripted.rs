//! A daemon for the tests of the clients: it accepts one connection and does what a closure says. Before that it may end
//! some others without a word.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use crate::call::{Call, Request};
use crate::errno::Fault;
use crate::event::Event;
use crate::id::{CallId, Pid, Token};
use crate::limits::LINE_BYTES_MAX;
use crate::reply::{Frame, HelloReply, Reply};

/// The process number that the scripted daemon gives.
pub const PID: Pid = Pid(7);

/// The daemon's side of the connection.
pub struct Peer {
    pub reader: BufReader<UnixStream>,
}

/// A daemon that runs on a thread of its own; [`Scripted::end`] reports its panics.
pub struct Scripted {
    pub socket: PathBuf,
    thread: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// Starts one that says hello and then follows the script.
pub fn scripted(script: impl FnOnce(&mut Peer) + Send + 'static) -> Scripted {
    reluctant(0, script)
}

/// The same, after it has ended so many connections before their greeting: unread and read in turns.
pub fn reluctant(ends: usize, script: impl FnOnce(&mut Peer) + Send + 'static) -> Scripted {
    behind(ends, move |peer| {
        let hello = peer.request();
        assert!(matches!(hello.call, Call::Hello(_)), "{hello:?}");
        peer.reply(hello.id, Ok(Reply::Hello(hello_reply())));
        script(peer);
    })
}

/// Starts one that says nothing by itself.
pub fn mute(script: impl FnOnce(&mut Peer) + Send + 'static) -> Scripted {
    behind(0, script)
}

fn behind(ends: usize, script: impl FnOnce(&mut Peer) + Send + 'static) -> Scripted {
    let folder = tempfile::tempdir().expect("a folder for the socket");
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).expect("the folder is new");
    let thread = thread::spawn(move || {
        let next = || Peer::over(listener.accept().expect("the client connects").0);
        for end in 0..ends {
            let mut peer = next();
            if end % 2 == 1 {
                peer.request();
            }
        }
        script(&mut next());
    });
    Scripted { socket, thread, _folder: folder }
}

impl Scripted {
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn end(self) {
        self.thread.join().expect("the script passed");
    }
}

impl Peer {
    fn over(stream: UnixStream) -> Peer {
        Peer { reader: BufReader::new(stream) }
    }

    pub fn request(&mut self) -> Request {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("the client writes");
        Request::from_line(&line).expect("the client writes requests")
    }

    pub fn reply(&mut self, id: CallId, result: Result<Reply, Fault>) {
        self.frame(&Frame::Reply(id, result));
    }

    pub fn text(&mut self, id: CallId, text: &str) {
        let tokens = vec![Token(1)].into();
        self.frame(&Frame::Event(id, Event::Tokens { text: text.into(), tokens, logprobs: vec![] }));
    }

    pub fn frame(&mut self, frame: &Frame) {
        let mut line = Vec::new();
        frame.write_line(&mut line);
        self.bytes(&line);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("the client reads");
    }
}

fn hello_reply() -> HelloReply {
    HelloReply {
        version: 1,
        daemon: "scripted".into(),
        pid: PID,
        uid: 0,
        line_bytes_max: LINE_BYTES_MAX as u32,
    }
}
