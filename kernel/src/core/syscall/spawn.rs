//! `spawn`: creates a child process that the caller acts for.

use syscalls::call::Spawn;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::counters::Counters;
use super::super::process::{Identity, Process};
use super::super::sched::Bucket;
use super::hello::check_priority;
use super::{Caller, Next, Outcome, check_name};

impl Kernel {
    pub(super) fn sys_spawn(&mut self, caller: &Caller, args: Spawn) -> Outcome {
        if !args.argv.is_empty() {
            let message = "this kernel starts no programs as services; start it yourself and let it connect";
            return Err(Fault::new(Errno::ENOSYS, message));
        }
        check_name("a process", &args.name)?;
        let parent = self.process(caller.pid)?;
        let had = (parent.id.class, parent.id.nice);
        let (class, nice) = (args.class.unwrap_or(had.0), args.nice.unwrap_or(had.1));
        let (os_pid, limits, group) = (parent.id.os_pid, parent.limits, parent.id.group);
        check_priority(caller.admin, had, (class, nice))?;
        let lifetime = args.lifetime.unwrap_or(parent.lifetime);
        self.check_lifetime(caller.uid, lifetime)?;
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
        let mut process = Process::new(id, Some(caller.conn), lifetime, caller.admin);
        process.limits = limits;
        process.bucket = limits.tokens_per_second.map(|rate| Bucket::new(rate, self.now));
        self.processes.enter(process);
        if let Some(connection) = self.connections.get_mut(&caller.conn) {
            connection.processes.insert(pid);
        }
        self.process_started(pid);
        self.note_begin(pid);
        Ok(Next::Reply(Reply::Spawned { pid }))
    }
}
