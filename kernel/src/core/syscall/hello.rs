//! `hello`: opens the conversation and creates the caller's process.

use syscalls::call::{Capability, Class, Hello, Lifetime};
use syscalls::limits::{ABI_VERSION, LINE_BYTES_MAX, NICE_MAX, NICE_MIN};
use syscalls::reply::HelloReply;
use syscalls::{Errno, Fault, Pid, Reply};

use super::super::Kernel;
use super::super::capability::{Caps, check_lifetime};
use super::super::counters::Counters;
use super::super::event::ConnId;
use super::super::group::GroupId;
use super::super::process::{Identity, Limits, Process};
use super::super::sched::Bucket;
use super::named::check_name;

impl Kernel {
    pub(super) fn hello(&mut self, conn: ConnId, args: Hello) -> Result<Reply, Fault> {
        let connection = self.connections.get(&conn).expect("the caller has looked");
        // Those whom a program has started one after another share what it was born with.
        let born = connection.pid.filter(|pid| self.processes.living(*pid).is_some_and(|p| p.program));
        if let Some(pid) = born.filter(|_| args.version == ABI_VERSION) {
            return Ok(self.greeting(pid, connection.credentials.uid));
        }
        if connection.pid.is_some() {
            return Err(Fault::new(Errno::EPROTO, "hello comes once, first"));
        }
        if args.version != ABI_VERSION {
            let message =
                format!("the client speaks version {}, the daemon version {ABI_VERSION}", args.version);
            return Err(Fault::new(Errno::EPROTONOSUPPORT, message));
        }
        let credentials = connection.credentials.clone();
        let name = match args.name {
            Some(name) => name,
            None if credentials.executable.is_empty() => "unnamed".to_owned(),
            None => credentials.executable.chars().filter(|c| !c.is_control()).take(32).collect(),
        };
        check_name("a process", &name)?;
        let (uid, most) = (credentials.uid, self.config.user.processes);
        let caps = connection.caps.give(args.caps.as_deref())?;
        check_priority(connection.caps, (Class::Normal, 0), (args.class, args.nice))?;
        self.processes.of_user().check(uid, connection.caps, 1, most, "processes")?;
        self.check_lifetime(uid, connection.caps, args.lifetime)?;
        let pid = self.processes.next_pid()?;
        // Otherwise a program would be rid of its group and its limits by connecting anew.
        let program = credentials.program.and_then(|pid| self.processes.living(pid));
        let (inside, limits) = program.map_or((GroupId::ROOT, Limits::default()), |p| (p.id.group, p.limits));
        let group = self.enter_group(inside, credentials.uid, args.group.as_deref(), pid)?;
        let id = Identity {
            pid,
            parent: Pid::KERNEL,
            uid: credentials.uid,
            os_pid: credentials.os_pid,
            name,
            class: args.class,
            nice: args.nice,
            group,
            started: self.now,
            counters: Counters::default(),
        };
        let mut process = Process::new(id, Some(conn), args.lifetime, caps);
        process.limits = limits;
        process.bucket = limits.tokens_per_second.map(|rate| Bucket::new(rate, self.now));
        self.processes.enter(process);
        self.trace_newcomer(pid, credentials.os_parent);
        self.process_started(pid);
        self.note_begin(pid);
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.pid = Some(pid);
            connection.processes.insert(pid);
        }
        Ok(self.greeting(pid, credentials.uid))
    }

    fn greeting(&self, pid: Pid, uid: u32) -> Reply {
        Reply::Hello(HelloReply {
            version: ABI_VERSION,
            daemon: self.config.host.version.clone(),
            pid,
            uid,
            line_bytes_max: LINE_BYTES_MAX as u32,
        })
    }
}

impl Kernel {
    /// Checks that a user may have one more process that outlives so much.
    pub(super) fn check_lifetime(&self, uid: u32, caps: Caps, lifetime: Lifetime) -> Result<(), Fault> {
        check_lifetime(caps, lifetime)?;
        match lifetime {
            Lifetime::Connection => Ok(()),
            Lifetime::Detached | Lifetime::Persistent => self.processes.check_lasting(uid, 1),
        }
    }

    /// Enters a process into the group that a path names inside another; inside the user's own from the root on.
    pub(in crate::core) fn enter_group(
        &mut self,
        from: GroupId,
        uid: u32,
        path: Option<&str>,
        pid: Pid,
    ) -> Result<GroupId, Fault> {
        let from = if from == GroupId::ROOT { self.groups.of_user(uid)? } else { from };
        let group = match path {
            Some(path) => self.groups.enter(from, path)?,
            None => from,
        };
        self.groups.join(group, pid);
        Ok(group)
    }
}

/// Checks a class and a nice value against what the process has: lower nice values and the
/// class `realtime` take a capability.
pub(super) fn check_priority(caps: Caps, had: (Class, i8), wanted: (Class, i8)) -> Result<(), Fault> {
    let (class, nice) = wanted;
    if !(NICE_MIN..=NICE_MAX).contains(&nice) {
        let message = format!("nice is {nice}; it must be from {NICE_MIN} to {NICE_MAX}");
        return Err(Fault::new(Errno::EINVAL, message));
    }
    if nice < had.1 {
        caps.need(Capability::Nice, &format!("lowering nice from {} to {nice}", had.1))?;
    }
    if class == Class::Realtime && had.0 != Class::Realtime {
        caps.need(Capability::Nice, "giving the class realtime")?;
    }
    Ok(())
}
