//! The host's part of a history: programs start, are refused, print and die, and services are asked for and declared.

use kernel::core::KernelConfig;
use kernel::core::event::{ConnId, Event};
use kernel::core::printed::Printed;
use kernel::core::service::ServiceConfig;
use syscalls::call::*;
use syscalls::event::Stream;
use syscalls::reply::ProcessState;
use syscalls::{Errno, Fault, Pid};

use super::{History, Program};
use crate::chance::Chance;
use crate::machine::ADMIN;

/// Programs that run at once.
const RUNNING_MAX: usize = 4;

/// Where the host puts connections of programs.
const BORN: u64 = 1_000_000;

const SERVICES: [&str; 3] = ["a", "b", "c"];

/// Programs as the host has them.
#[derive(Default)]
pub struct Host {
    starting: Vec<Pid>,
    running: Vec<(Pid, ConnId)>,
    born: u64,
}

impl Host {
    /// Programs end with the daemon that started them.
    pub fn died(&mut self) {
        self.starting.clear();
        self.running.clear();
    }
}

/// Services that require each other, with policies and limits of all kinds.
pub fn services(chance: &mut Chance) -> Vec<ServiceConfig> {
    let policies = [Restart::OnFailure, Restart::Always, Restart::Never];
    let mut services = Vec::new();
    for (at, name) in SERVICES.into_iter().enumerate() {
        if chance.once_in(5) {
            continue;
        }
        let mut service = ServiceConfig::new(name, vec![name.to_owned()], [ADMIN, 1000][chance.below(2)]);
        let declared = |of: &&&str| services.iter().any(|s: &ServiceConfig| s.name == **of);
        let before: Vec<String> = SERVICES[..at].iter().filter(declared).map(|of| (*of).to_owned()).collect();
        if chance.once_in(2) {
            service.requires = before
        } else {
            service.after = before
        }
        service.restart = policies[chance.below(3)];
        service.rules = RestartRules {
            backoff_start_ms: 1 + chance.below(3) as u64,
            backoff_max_ms: 10,
            start_limit_burst: 2 + chance.below(4) as u32,
            start_limit_interval_ms: [0, 20, 1000][chance.below(3)],
        };
        service.stop_signal = [Signal::Term, Signal::Int, Signal::Kill][chance.below(3)];
        service.stop_grace_ms = chance.below(10) as u64;
        service.enabled = chance.once_in(2);
        services.push(service);
    }
    services
}

impl History {
    /// Something happens to a program or a service.
    pub fn act_on_programs(&mut self) {
        self.take_asked();
        match self.chance.below(10) {
            0..2 => self.spawn(),
            2..5 => self.begin_program(),
            5 => self.print(),
            6 => self.kill_program(),
            7..9 => self.ask_for_service(),
            _ if self.chance.once_in(4) => self.declare(),
            _ => self.machine.pass_ms(3),
        }
    }

    fn take_asked(&mut self) {
        let asked = std::mem::take(&mut self.machine.programs);
        self.host.starting.extend(asked.into_iter().map(|(pid, _)| pid));
    }

    fn spawn(&mut self) {
        let Some(at) = self.program() else { return };
        if self.host.running.len() + self.host.starting.len() < RUNNING_MAX {
            let argv = vec!["program".to_owned()];
            let (class, nice, group, lifetime, caps) = (None, None, None, None, None);
            self.begin(
                at,
                Spawn { name: "program".into(), class, nice, group, lifetime, caps, argv, read: vec![] },
            );
        }
    }

    /// One that is being started runs, or is refused; its process may have ended by now.
    fn begin_program(&mut self) {
        if self.host.starting.is_empty() {
            return;
        }
        let pid = self.host.starting.remove(0);
        if self.chance.once_in(5) {
            self.machine
                .event(Event::ProgramRefused { pid, fault: Fault::new(Errno::ENOENT, "it is not there") });
            return;
        }
        self.host.born += 1;
        let conn = ConnId(BORN + self.host.born);
        self.machine.event(Event::ProgramStarted { pid, conn, os_pid: 77 });
        self.host.running.push((pid, conn));
        if self.lives(pid) {
            self.programs.push(Program::new(conn, pid));
        }
    }

    fn print(&mut self) {
        let Some((pid, _)) = self.chance.one_of(&self.host.running).copied() else { return };
        let line = |n: usize| Printed { stream: Stream::Stdout, text: "x".repeat(n), cut: false };
        let lines = (0..1 + self.chance.below(600)).map(line).collect();
        self.machine.event(Event::ProgramPrinted { pid, lines });
        if let Some(at) = self.program() {
            self.begin(at, Output { pid, lines: Some(3), follow: true });
        }
    }

    /// A program dies, whatever it was doing. Its connection ends before or after it is seen to be dead.
    fn kill_program(&mut self) {
        let running = self.host.running.len();
        if running > 0 {
            let at = self.chance.below(running);
            let (pid, conn) = self.host.running.swap_remove(at);
            let hangup_first = self.chance.once_in(2);
            let status = [0, 3, 137, 143][self.chance.below(4)];
            self.bury(pid, conn, status, hangup_first);
        }
    }

    fn bury(&mut self, pid: Pid, conn: ConnId, status: u8, hangup_first: bool) {
        if hangup_first {
            self.machine.event(Event::Disconnected { conn });
        }
        self.machine.event(Event::ProgramEnded { pid, status });
        assert!(!self.lives(pid), "process {pid} outlives its program");
        self.machine.event(Event::Disconnected { conn });
        self.programs.retain(|program| program.pid != pid && program.conn != conn);
        self.lasting.remove(&pid);
    }

    fn lives(&self, pid: Pid) -> bool {
        self.machine.kernel.states().any(|(of, state)| of == pid && state != ProcessState::Zombie)
    }

    fn ask_for_service(&mut self) {
        let Some(at) = self.program() else { return };
        let name = SERVICES[self.chance.below(3)].to_owned();
        match self.chance.below(4) {
            0 => self.begin(at, ServiceStart { name, transient: None }),
            1 => self.begin(at, ServiceStop { name }),
            2 => self.begin(at, ServiceRestart { name }),
            _ => {
                let (restart, rules) = (Restart::OnFailure, RestartRules::default());
                let argv = vec!["transient".to_owned()];
                let transient = Transient { argv, class: None, nice: None, group: None, restart, rules };
                self.begin(at, ServiceStart { name: "transient".into(), transient: Some(transient) })
            }
        };
    }

    fn declare(&mut self) {
        let config = KernelConfig { services: services(&mut self.chance), ..self.config.clone() };
        self.machine.event(Event::Configured { config: Box::new(config) });
    }

    /// Ends all programs, and those that are started because of that.
    pub fn end_programs(&mut self) {
        self.machine.event(Event::Configured { config: Box::new(self.config.clone()) });
        loop {
            self.take_asked();
            for pid in std::mem::take(&mut self.host.starting) {
                self.machine.event(Event::ProgramRefused { pid, fault: Fault::new(Errno::EIO, "it ends") });
            }
            for (pid, conn) in std::mem::take(&mut self.host.running) {
                self.bury(pid, conn, 0, true);
            }
            if self.machine.programs.is_empty() {
                return;
            }
        }
    }
}
