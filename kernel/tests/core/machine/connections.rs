//! Programs at the other ends of connections: they come, say hello, call, and hear.

use kernel::core::Event;
use kernel::core::event::{ConnId, Credentials};
use syscalls::call::{Class, Hello, Lifetime, Limit, Setlimit};
use syscalls::{Call, CallId, Fault, Pid, Reply, Request};

use super::{Machine, credentials};

impl Machine {
    /// Connects and says hello.
    pub fn connect(&mut self, uid: u32) -> ConnId {
        self.connect_as(uid, Class::Normal, 0)
    }

    pub fn connect_as(&mut self, uid: u32, class: Class, nice: i8) -> ConnId {
        self.connect_for(uid, class, nice, Lifetime::Connection)
    }

    /// Connects and says hello as a process that outlives so much.
    pub fn connect_lasting(&mut self, uid: u32, lifetime: Lifetime) -> ConnId {
        self.connect_for(uid, Class::Normal, 0, lifetime)
    }

    pub fn connect_for(&mut self, uid: u32, class: Class, nice: i8, lifetime: Lifetime) -> ConnId {
        let conn = self.connect_silently(uid);
        let name = Some(format!("test{}", conn.0));
        let hello = Hello { version: 1, name, class, nice, group: None, lifetime, caps: None };
        let reply = self.call(conn, hello);
        assert!(matches!(reply, Ok(Reply::Hello(_))), "{reply:?}");
        conn
    }

    pub fn connect_silently(&mut self, uid: u32) -> ConnId {
        self.connect_with(credentials(uid))
    }

    /// Connects as whom the host finds there.
    pub fn connect_with(&mut self, credentials: Credentials) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.event(Event::Connected { conn, credentials });
        conn
    }

    /// Limits the process of a connection, as it may itself.
    pub fn limit(&mut self, conn: ConnId, limit: Limit, most: u64) {
        let pid = self.pid(conn);
        self.call(conn, Setlimit { pid, limit, value: Some(most), then: None }).expect("own limit");
    }

    /// Makes a call and lets others answer it.
    pub fn begin(&mut self, conn: ConnId, call: impl Into<Call>) -> CallId {
        self.begin_as(conn, None, call)
    }

    pub fn begin_as(&mut self, conn: ConnId, pid: Option<Pid>, call: impl Into<Call>) -> CallId {
        self.next_id += 1;
        let id = CallId(self.next_id);
        self.event(Event::Request { conn, request: Request { id, pid, call: call.into() } });
        id
    }

    /// Makes a call and runs until it is answered.
    pub fn call(&mut self, conn: ConnId, call: impl Into<Call>) -> Result<Reply, Fault> {
        self.call_as(conn, None, call)
    }

    pub fn call_as(&mut self, conn: ConnId, pid: Option<Pid>, call: impl Into<Call>) -> Result<Reply, Fault> {
        let id = self.begin_as(conn, pid, call);
        self.finish(conn, id)
    }

    /// Runs until a call is answered.
    pub fn finish(&mut self, conn: ConnId, id: CallId) -> Result<Reply, Fault> {
        loop {
            if let Some(reply) = self.reply(conn, id) {
                return reply;
            }
            assert!(self.turn(), "call {id} is never answered");
        }
    }

    /// Runs until a call is answered, and lets time pass where the kernel waits for nothing else.
    pub fn finish_in_time(&mut self, conn: ConnId, id: CallId) -> Result<Reply, Fault> {
        loop {
            if let Some(reply) = self.reply(conn, id) {
                return reply;
            }
            if !self.turn() {
                let wake = self.wake.unwrap_or_else(|| panic!("call {id} is never answered"));
                self.now = self.now.max(wake.0);
                self.event(Event::Tick);
            }
        }
    }

    /// The reply of a call, if it is there.
    pub fn reply(&self, conn: ConnId, id: CallId) -> Option<Result<Reply, Fault>> {
        self.replies.get(&(conn, id)).cloned()
    }

    /// The events of a call.
    pub fn events(&self, conn: ConnId, id: CallId) -> &[syscalls::Event] {
        self.events_of.get(&(conn, id)).map_or(&[], Vec::as_slice)
    }
}
