//! `spawn`: creates a child process that the caller acts for.

use syscalls::call::{Lifetime, Spawn};
use syscalls::limits::ARGUMENT_BYTES_MAX;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::call::Waits;
use super::super::counters::Counters;
use super::super::effect::Program;
use super::super::process::{Identity, Process};
use super::super::sched::Bucket;
use super::hello::check_priority;
use super::{Caller, Next, Outcome, check_name};

impl Kernel {
    pub(super) fn sys_spawn(&mut self, caller: &Caller, args: Spawn) -> Outcome {
        let program = !args.argv.is_empty();
        if program {
            check_arguments(&args.argv)?;
            self.check_programs()?;
        }
        check_name("a process", &args.name)?;
        let parent = self.process(caller.pid)?;
        let had = (parent.id.class, parent.id.nice);
        let (class, nice) = (args.class.unwrap_or(had.0), args.nice.unwrap_or(had.1));
        let (os_pid, limits, group) = (parent.id.os_pid, parent.limits, parent.id.group);
        check_priority(caller.caps, had, (class, nice))?;
        let caps = caller.caps.give(args.caps.as_deref())?;
        let lifetime = match args.lifetime {
            Some(lifetime) if program && lifetime != Lifetime::Connection => {
                let message = "a program that the daemon starts ends with it; leave lifetime out";
                return Err(Fault::new(Errno::EINVAL, message));
            }
            _ if program => Lifetime::Connection,
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
        if program {
            let program = Program { argv: args.argv, uid: caller.uid, environment: vec![] };
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
        Ok(Next::Reply(Reply::Spawned { pid }))
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
