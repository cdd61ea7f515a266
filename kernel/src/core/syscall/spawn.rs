//! `spawn`: creates a child process that the caller acts for.

use syscalls::call::{Lifetime, Spawn};
use syscalls::limits::ARGUMENT_BYTES_MAX;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::counters::Counters;
use super::super::effect::{Program, Reach};
use super::super::process::{Identity, Process};
use super::super::sched::Bucket;
use super::hello::check_priority;
use super::named::check_name;
use super::{Caller, Next, Outcome};

impl Kernel {
    pub(super) fn sys_spawn(&mut self, caller: &Caller, mut args: Spawn) -> Outcome {
        if args.argv.is_empty() {
            return match args.read.is_empty() {
                true => self.start_child(caller, args, None),
                false => {
                    Err(Fault::new(Errno::EINVAL, "read is for programs, and there is no argv; leave it out"))
                }
            };
        }
        check_arguments(&args.argv)?;
        self.check_reach(caller, &args.read)?;
        let reach = Reach { read: std::mem::take(&mut args.read), ..Reach::default() };
        let argv = std::mem::take(&mut args.argv);
        self.start_child(caller, args, Some(Program { reach, ..Program::new(argv, caller.uid) }))
    }

    /// Makes a child process, and has its program started where it is one.
    pub(super) fn start_child(&mut self, caller: &Caller, args: Spawn, program: Option<Program>) -> Outcome {
        if program.is_some() {
            self.check_programs_of(caller.uid, caller.caps)?;
        }
        check_name("a process", &args.name)?;
        let parent = self.process(caller.pid)?;
        let had = (parent.id.class, parent.id.nice);
        let (class, nice) = (args.class.unwrap_or(had.0), args.nice.unwrap_or(had.1));
        let (os_pid, limits, group) = (parent.id.os_pid, parent.limits, parent.id.group);
        check_priority(caller.caps, had, (class, nice))?;
        let caps = caller.caps.give(args.caps.as_deref())?;
        let lifetime = match args.lifetime {
            Some(lifetime) if program.is_some() && lifetime != Lifetime::Connection => {
                let message = "a program that the daemon starts ends with it; leave lifetime out";
                return Err(Fault::new(Errno::EINVAL, message));
            }
            _ if program.is_some() => Lifetime::Connection,
            asked => asked.unwrap_or(parent.lifetime),
        };
        self.processes.of_user().check(
            caller.uid,
            caller.caps,
            1,
            self.config.user.processes,
            "processes",
        )?;
        self.check_lifetime(caller.uid, caller.caps, lifetime)?;
        let pid = self.processes.next_pid()?;
        let group = self.enter_group(group, caller.uid, args.group.as_deref(), pid)?;
        let id = Identity {
            pid,
            parent: caller.pid,
            uid: caller.uid,
            os_pid,
            name: args.name,
            class,
            nice,
            group,
            started: self.now,
            counters: Counters::default(),
        };
        if let Some(program) = program {
            self.begin_program(id, caps, limits, program);
            return Ok(Next::Wait(Waits::Start(pid), None));
        }
        let mut process = Process::new(id, Some(caller.conn), lifetime, caps);
        process.limits = limits;
        process.bucket = limits.tokens_per_second.map(|rate| Bucket::new(rate, self.now));
        self.processes.enter(process);
        if let Some(connection) = self.connections.get_mut(&caller.conn) {
            connection.processes.insert(pid);
        }
        self.trace_newcomer(pid, None);
        self.process_started(pid);
        self.note_begin(pid);
        self.inherit(pid);
        Ok(Next::Reply(Reply::Spawned { pid }))
    }
}

impl Kernel {
    /// Checks that a caller may let a program reach these paths. The system checks what the caller's user may; but a
    /// program in the jail reaches less than its user, and would find a way out of it here.
    pub(super) fn check_reach(&self, caller: &Caller, paths: &[String]) -> Result<(), Fault> {
        if paths.is_empty() {
            return Ok(());
        }
        if self.connections.get(&caller.conn).is_none_or(|conn| conn.credentials.program.is_some()) {
            let message =
                "a program that the daemon started cannot let another one reach files; ask from outside";
            return Err(Fault::new(Errno::EPERM, message));
        }
        match paths.iter().find(|path| !path.starts_with('/') || path.contains('\0')) {
            Some(path) => {
                let message = format!("the daemon has no folder of its own, so name `{path}` from / on");
                Err(Fault::new(Errno::EINVAL, message))
            }
            None => Ok(()),
        }
    }
}

/// Checks the arguments of a program.
pub(super) fn check_arguments(argv: &[String]) -> Result<(), Fault> {
    let bytes: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    if bytes > ARGUMENT_BYTES_MAX {
        let message = format!(
            "the arguments take {bytes} bytes of at most {ARGUMENT_BYTES_MAX}; hand them over in a file"
        );
        return Err(Fault::new(Errno::E2BIG, message));
    }
    if argv[0].is_empty() || argv.iter().any(|argument| argument.contains('\0')) {
        return Err(Fault::new(
            Errno::EINVAL,
            "the program has no name, or an argument has a zero byte; leave it out",
        ));
    }
    Ok(())
}
