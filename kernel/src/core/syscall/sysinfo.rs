//! `sysinfo`: describes the machine and the daemon.

use syscalls::Reply;
use syscalls::reply::SysinfoReply;

use super::super::Kernel;

impl Kernel {
    pub(super) fn sys_sysinfo(&self) -> Reply {
        let host = self.config.host.clone();
        Reply::Sysinfo(SysinfoReply {
            daemon: host.version,
            os_pid: host.os_pid,
            socket: host.socket,
            data: host.data,
            jail: host.jail,
            cpu: host.cpu,
            cpus: host.cpus,
            memory_bytes: host.memory_bytes,
            policy: self.config.policy.name().into(),
            uptime_ms: self.now.0 / 1000,
            interrupted: self.processes.interrupted_total,
            devices: self.device_infos(),
        })
    }
}
