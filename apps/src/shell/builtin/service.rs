//! `service`: programs that the daemon starts, watches over and starts again.

use std::io;
use std::time::Duration;

use clap::{Parser, Subcommand};
use syscalls::call::{ServiceList, ServiceRestart, ServiceStart, ServiceStatus, ServiceStop};
use syscalls::client::blocking::Client;
use syscalls::reply::{ServiceInfo, ServiceState, ServiceStatusReply};
use syscalls::{Call, Reply};

use super::arguments::{self, Daemon, Invocation, name_of};
use super::failure::Failure;
use super::listing::Listing;
use super::printed::Screen;
use super::{Builtin, Outcome, Run};
use crate::terminal::clean::clean;
use crate::terminal::output::Output;
use crate::terminal::table::Align;
use crate::terminal::units;

pub const BUILTIN: Builtin =
    Builtin { name: "service", command: || arguments::command::<Args>("service"), run: Run::Program(run) };

/// The exit status of `service status` for one that does not run, as of `systemctl status`.
const NOT_RUNNING: u8 = 3;

/// Starts, stops and shows services
///
/// Services are programs that the daemon starts with itself, watches over and starts again when they have failed. They
/// are declared in its configuration (`services`), or come from `spawn --restart`.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Prints the reply as one object with every field
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lists services
    List,
    /// Shows what a service is doing and what it has printed last; the exit status is 3 if it does not run
    Status {
        /// So many of the last lines
        #[arg(long, short = 'n', default_value_t = 10)]
        lines: u32,
        /// The service
        name: String,
    },
    /// Starts services and those that they require, and waits until their programs run
    Start(Names),
    /// Stops services, those first that require them, and waits until their programs have ended
    Stop(Names),
    /// Stops services and starts them again
    Restart(Names),
}

#[derive(Debug, clap::Args)]
struct Names {
    /// The services
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

const LISTING: Listing<7> = Listing {
    field: "services",
    columns: [
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("FOR", Align::Right),
        ("PID", Align::Right),
        ("RESTARTS", Align::Right),
        ("BOOT", Align::Left),
        ("REASON", Align::Left),
    ],
};

fn run(invocation: &Invocation) -> Outcome {
    let args: Args = invocation.parse()?;
    let mut client = args.daemon.connect("service")?;
    match &args.what {
        What::List => list(&mut client, args.json),
        What::Status { lines, name } => status(&mut client, name, *lines, args.json),
        What::Start(names) => {
            each(&mut client, names, args.json, |name| ServiceStart { name, transient: None }.into())
        }
        What::Stop(names) => each(&mut client, names, args.json, |name| ServiceStop { name }.into()),
        What::Restart(names) => each(&mut client, names, args.json, |name| ServiceRestart { name }.into()),
    }
}

fn list(client: &mut Client, json: bool) -> Outcome {
    let Reply::Services(services) = client.call(ServiceList {})? else { return Err(foreign()) };
    LISTING.print(json, &services, || services.iter().map(cells).collect())?;
    Ok(0)
}

fn cells(service: &ServiceInfo) -> [String; 7] {
    let pid = service.pid.filter(|_| has_process(service.state)).map(|pid| pid.to_string());
    let boot = match (service.transient, service.enabled) {
        (true, _) => "transient",
        (false, true) => "enabled",
        (false, false) => "disabled",
    };
    [
        service.name.clone(),
        name_of(service.state),
        time(service.since_ms),
        pid.unwrap_or_default(),
        service.restarts.to_string(),
        boot.into(),
        service.reason.clone().unwrap_or_default(),
    ]
}

fn status(client: &mut Client, name: &str, lines: u32, json: bool) -> Outcome {
    let call = ServiceStatus { name: name.into(), lines: Some(lines) };
    let Reply::ServiceStatus(reply) = client.call(call)? else { return Err(foreign()) };
    let mut output = Output::stdout();
    if json {
        output.write_json(&reply)?;
    } else {
        output.write(&clean(&describe(&reply)))?;
        let mut screen = Screen::new();
        let printed = reply.program.iter().flat_map(|program| &program.output.lines);
        // A status is one text, whichever stream a line came on.
        printed.for_each(|line| {
            screen.show(&syscalls::event::OutputLine {
                stream: syscalls::event::Stream::Stdout,
                ..line.clone()
            })
        });
        screen.end()?;
    }
    Ok(if reply.service.state == ServiceState::Running { 0 } else { NOT_RUNNING })
}

/// What is known of a service, in lines for people.
fn describe(reply: &ServiceStatusReply) -> String {
    let service = &reply.service;
    let mut lines = vec![line(service)];
    let mut add = |what: &str, value: String| lines.push(format!("{what:>9}: {value}"));
    if let Some(program) = &reply.program {
        add("program", program.argv.join(" "));
    }
    let restarts = match service.restarts {
        0 => String::new(),
        restarts => format!(", {restarts} times so far"),
    };
    add("restart", format!("{}{restarts}", name_of(service.restart).replace('_', "-")));
    if let Some(status) = service.status {
        add("last end", format!("status {status}"));
    }
    for (what, names) in [("requires", &service.requires), ("after", &service.after)] {
        if !names.is_empty() {
            add(what, names.join(", "));
        }
    }
    if reply.program.as_ref().is_some_and(|program| !program.output.lines.is_empty()) {
        lines.push(String::new());
    }
    lines.join("\n") + "\n"
}

/// A service in one line: `digest: running for 3:07 as process 12`.
pub fn line(service: &ServiceInfo) -> String {
    let (state, since) = (name_of(service.state), time(service.since_ms));
    let detail = match (service.state, &service.reason, service.next_start_ms, service.pid) {
        (ServiceState::Failed, Some(reason), _, _) => format!(": {reason}"),
        (ServiceState::Backoff, _, Some(ms), _) => format!(", to be started again in {}", time(ms)),
        (state, _, _, Some(pid)) if has_process(state) => format!(" as process {pid}"),
        _ => String::new(),
    };
    format!("{}: {state} for {since}{detail}", service.name)
}

fn has_process(state: ServiceState) -> bool {
    matches!(state, ServiceState::Starting | ServiceState::Running | ServiceState::Stopping)
}

fn time(ms: u64) -> String {
    units::duration(Duration::from_millis(ms))
}

/// Does one thing to each service, and goes on where one fails.
fn each(client: &mut Client, names: &Names, json: bool, call: impl Fn(String) -> Call) -> Outcome {
    let mut status = 0;
    for name in &names.names {
        match client.call(call(name.clone())) {
            Ok(Reply::Service(service)) => show(&service, json)?,
            Ok(_) => return Err(foreign()),
            Err(fault) => {
                note!("service: {}", fault.message);
                status = 1;
            }
        }
    }
    Ok(status)
}

/// As `systemctl` does, nothing is said of what went well, unless a program asks.
fn show(service: &ServiceInfo, json: bool) -> io::Result<()> {
    if json { Output::stdout().write_json(service) } else { Ok(()) }
}

fn foreign() -> Failure {
    Failure::Message("the daemon answered with the reply of another call".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use syscalls::Pid;
    use syscalls::call::Restart;
    use syscalls::event::{OutputLine, Stream};
    use syscalls::reply::{OutputReply, ServiceProgram};

    fn service(state: ServiceState) -> ServiceInfo {
        ServiceInfo {
            name: "digest".into(),
            state,
            reason: None,
            uid: 0,
            pid: Some(Pid(12)),
            status: None,
            restarts: 0,
            since_ms: 187_000,
            next_start_ms: None,
            enabled: true,
            transient: false,
            restart: Restart::OnFailure,
            after: vec![],
            requires: vec![],
        }
    }

    #[test]
    fn status_says_what_there_is_to_say() {
        let text = "hello".into();
        let line = OutputLine { number: 0, at_us: 0, pid: Pid(12), stream: Stream::Stdout, text, cut: false };
        let output = OutputReply { lines: vec![line], dropped: 0, ended: false };
        let argv = vec!["/usr/bin/digest".into(), "--watch".into()];
        let (status, restarts, requires) = (Some(137), 2, vec!["store".into(), "net".into()]);
        let service = ServiceInfo { status, restarts, requires, ..service(ServiceState::Running) };
        let reply = ServiceStatusReply { service, program: Some(ServiceProgram { argv, output }) };
        expect![[r#"
            digest: running for 3:07 as process 12
              program: /usr/bin/digest --watch
              restart: on-failure, 2 times so far
             last end: status 137
             requires: store, net

        "#]]
        .assert_eq(&describe(&reply));
    }

    #[test]
    fn line_says_why_and_what_next() {
        let failed =
            ServiceInfo { reason: Some("ended with status 3".into()), ..service(ServiceState::Failed) };
        assert_eq!(line(&failed), "digest: failed for 3:07: ended with status 3");
        let backoff = ServiceInfo { next_start_ms: Some(400), ..service(ServiceState::Backoff) };
        assert_eq!(line(&backoff), "digest: backoff for 3:07, to be started again in 400 ms");
        assert_eq!(line(&service(ServiceState::Inactive)), "digest: inactive for 3:07");
    }
}
