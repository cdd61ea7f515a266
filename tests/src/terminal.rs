//! A terminal for tests: a pty, with a program of the project as the leader of its session, a keyboard to type on
//! and a screen to look at.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::{Pid, tcgetpgrp};

use crate::{Daemon, exit_code, wait_for, wait_until};

/// A program on a terminal of its own.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    seen: usize,
    program: Child,
    prompt: &'static str,
}

impl Terminal {
    /// Starts a program of the project as the leader of a session; `prompt` is what it shows where it waits for a
    /// line.
    pub fn start(daemon: &Daemon, program: &str, args: &[&str], prompt: &'static str) -> Terminal {
        let size = Winsize { ws_row: 40, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let line = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        // setsid makes the terminal the controlling one of a new session, as a login does.
        let program = daemon
            .command(program)
            .as_setsid()
            .args(args)
            .env("TERM", "xterm")
            .stdin(line(&pty.slave))
            .stdout(line(&pty.slave))
            .stderr(line(&pty.slave))
            .spawn()
            .unwrap();
        drop(pty.slave);
        let screen = Arc::new(Mutex::new(String::new()));
        let mut output = File::from(pty.master.try_clone().unwrap());
        let written = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the session ends the terminal with an error.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                written.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Terminal { keyboard: File::from(pty.master), screen, seen: 0, program, prompt }
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows a text behind what was waited for before. Gives what stands in between.
    pub fn expect(&mut self, text: &str) -> String {
        let (screen, seen) = (Arc::clone(&self.screen), self.seen);
        let found = wait_for_or(
            text,
            || screen.lock().unwrap()[seen..].find(text),
            || format!("the screen shows:\n{}", screen.lock().unwrap()),
        );
        self.seen = seen + found + text.len();
        screen.lock().unwrap()[seen..seen + found].to_owned()
    }

    /// All that has been shown.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().clone()
    }

    /// Runs a line and waits for the next prompt. Gives what came in between.
    pub fn line(&mut self, line: &str) -> String {
        self.press(&format!("{line}\r"));
        // The line editor shows the line as it is typed, and once more when it is done.
        self.expect("\r\n");
        self.expect(self.prompt)
    }

    /// Waits until the program, a shell, has handed the terminal to a job. Before that it goes to the shell what is pressed
    /// for the job, however far that is by then.
    pub fn wait_for_job(&self) {
        let shell = Pid::from_raw(i32::try_from(self.program.id()).unwrap());
        wait_until("a job in the foreground", || tcgetpgrp(&self.keyboard).is_ok_and(|group| group != shell));
    }

    /// Waits until the terminal makes a signal of Ctrl-C. As long as a line is edited it is a key for whoever reads keys, also
    /// when the line is complete and shown as such.
    pub fn wait_until_signals(&self) {
        let signals = |modes: Termios| modes.local_flags.contains(LocalFlags::ISIG);
        wait_until("a terminal that signals", || tcgetattr(&self.keyboard).is_ok_and(signals));
    }

    /// Waits for the program's end.
    pub fn exit_status(&mut self) -> i32 {
        exit_code(wait_for("the end of the program", || self.program.try_wait().unwrap()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// [`wait_for`], with more to say where it fails.
fn wait_for_or<T>(what: &str, look: impl FnMut() -> Option<T>, more: impl Fn() -> String) -> T {
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait_for(what, look)));
    looked.unwrap_or_else(|_| panic!("{what:?} did not come; {}", more()))
}

/// Runs a command through setsid.
trait AsSetsid {
    fn as_setsid(&self) -> Command;
}

impl AsSetsid for Command {
    fn as_setsid(&self) -> Command {
        let mut setsid = Command::new("setsid");
        setsid.arg("--ctty").arg(self.get_program());
        if let Some(folder) = self.get_current_dir() {
            setsid.current_dir(folder);
        }
        for (name, value) in self.get_envs() {
            match value {
                Some(value) => setsid.env(name, value),
                None => setsid.env_remove(name),
            };
        }
        setsid
    }
}
