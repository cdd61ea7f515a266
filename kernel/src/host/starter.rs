//! How the host starts what is not itself: through the jail's helper, with an environment of its own.
//!
//! Workers get their model open for reading, a folder for its measurements to write, and the swap files open. Where the jail is
//! off, or its helper is missing and not required, they are started as they are. Programs run as whom they belong to in any
//! case, and what they have started ends with them: without the helper the daemon's own executable stands in for it.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use drivers::sim::SCHEME;
use drivers::wire::LoadRequest;
use nix::sys::stat::{Mode, umask};

use super::log;
use crate::core::MAIN_MEMORY;
use crate::core::registration::Digest;
use crate::jail::{self, Orders, Policy, Strictness, User, helper};

/// The executable that runs, whatever has become of its name.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Tells a worker how much to log.
const LOG_VAR: &str = "LLMASOS_LOG";

/// Variables of the daemon that its workers see: above all, which devices there are.
const WORKER_VARIABLES: &[&str] =
    &["RUST_BACKTRACE", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LD_LIBRARY_PATH"];

/// Starts programs.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The jail's helper, where there is one.
    helper: Option<PathBuf>,
    /// The daemon's executable, which does what a helper does outside the jail; none in tests of other things.
    own: Option<PathBuf>,
    strictness: Strictness,
    /// What every worker may reach beside the built-in.
    worker: Policy,
    /// What every program may reach.
    program: Policy,
    /// With which the daemon was started, for programs outside the jail; its own keeps others out of what it writes.
    umask: Mode,
}

impl Default for Starter {
    fn default() -> Self {
        let (worker, program) = (Policy::default(), Policy::default());
        let (helper, own) = (None, None);
        Starter { helper, own, strictness: Strictness::Off, worker, program, umask: Mode::empty() }
    }
}

/// A program to start.
pub struct Start<'a> {
    pub program: &'a Path,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(String, String)>,
    pub folder: &'a Path,
    pub policy: Policy,
    pub user: Option<User>,
    /// Nothing that it starts outlives it, or the daemon.
    pub guarded: bool,
    /// Descriptors that it inherits beside the first three.
    pub keep: Vec<RawFd>,
    /// Those of them whose files it may open again, for reading.
    pub reopen: Vec<RawFd>,
}

impl Starter {
    /// Starts through `helper`, with additions to the policies of workers and programs.
    pub fn new(
        helper: PathBuf,
        strictness: Strictness,
        worker: &Policy,
        program: &Policy,
        umask: Mode,
    ) -> Self {
        Starter {
            umask,
            helper: helper.is_file().then_some(helper),
            own: Path::new(OWN_EXECUTABLE).exists().then(|| OWN_EXECUTABLE.into()),
            strictness,
            worker: Policy::worker().with(worker),
            program: Policy::program().with(program),
        }
    }

    /// What the jail is made of, or `off`.
    pub fn describe(&self) -> String {
        if self.jails() { jail::support().to_string() } else { "off".into() }
    }

    fn jails(&self) -> bool {
        self.helper.is_some() && self.strictness != Strictness::Off
    }

    /// What programs may reach.
    pub fn program_policy(&self) -> Policy {
        self.program.clone()
    }

    /// The command that runs a worker; its standard streams are the caller's to set.
    ///
    /// # Errors
    ///
    /// What it is to load has no JSON form.
    pub fn worker(&self, program: &Path, load: &LoadRequest) -> io::Result<Command> {
        let mut policy = self.worker.clone();
        policy.execute.push(program.into());
        policy.list.extend(program.parent().map(Into::into));
        policy.read.extend(libraries_beside(program));
        policy.read.extend(answers_of(&load.path));
        policy.write.extend(load.cache_dir.as_ref().map(Into::into));
        if load.device.as_deref().is_some_and(|device| device != MAIN_MEMORY) {
            policy = policy.with_graphics();
        }
        let mut environment = inherited(WORKER_VARIABLES);
        environment.push((LOG_VAR.into(), log::level()));
        // What is made there is measured and removed.
        environment.extend(load.cache_dir.as_ref().map(|folder| ("TMPDIR".into(), folder.clone())));
        let start = Start {
            program,
            arguments: ["run".into(), "--load".into(), serde_json::to_string(load)?.into()].into(),
            environment,
            folder: Path::new("/"),
            policy,
            user: None,
            guarded: false,
            keep: load.descriptors().collect(),
            reopen: if load.files.len() > 1 { load.files.clone() } else { vec![] },
        };
        if self.jails() { self.command(&start) } else { Ok(bare(&start)) }
    }

    /// The command that runs a program.
    ///
    /// # Errors
    ///
    /// A path of its policy is no UTF-8.
    pub fn command(&self, start: &Start) -> io::Result<Command> {
        let through =
            |helper: &Path| jail::command(helper, &self.orders(start), start.program, &start.arguments);
        let mut command = match (&self.helper, &self.own) {
            (Some(helper), _) => through(helper)?,
            (None, Some(own)) => {
                let mut command = through(own)?;
                command.arg0(helper::NAME);
                command
            }
            (None, None) => bare(start),
        };
        if !self.jails() {
            let mask = self.umask;
            // SAFETY: between fork and exec the closure makes one system call.
            unsafe {
                command.pre_exec(move || {
                    umask(mask);
                    Ok(())
                });
            }
        }
        Ok(command)
    }

    fn orders(&self, start: &Start) -> Orders {
        Orders {
            policy: start.policy.clone(),
            user: start.user.clone(),
            environment: start.environment.clone(),
            folder: start.folder.into(),
            keep: start.keep.clone(),
            reopen: start.reopen.clone(),
            parent: std::process::id(),
            guarded: start.guarded,
            strictness: if self.jails() { self.strictness } else { Strictness::Off },
        }
    }
}

/// The command that runs a program without a helper.
fn bare(start: &Start) -> Command {
    let mut command = Command::new(start.program);
    command.args(&start.arguments).env_clear().envs(start.environment.iter().map(|(k, v)| (k, v)));
    command.current_dir(start.folder);
    if let Some(user) = start.user.clone() {
        jail::run_as(&mut command, &user);
    }
    command
}

/// Those of the daemon's variables that have these names.
pub fn inherited(names: &[&str]) -> Vec<(String, String)> {
    names.iter().filter_map(|name| Some(((*name).into(), std::env::var(name).ok()?))).collect()
}

/// The libraries that a portable build has in the folder of its executables, and looks for there.
fn libraries_beside(program: &Path) -> Vec<PathBuf> {
    let entries = program.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten();
    let is_library = |name: &str| name.starts_with("lib") && name.contains(".so");
    entries.filter(|e| e.file_name().to_str().is_some_and(is_library)).map(|e| e.path()).collect()
}

/// The folder of measurements of one model, within that of all; made, since the worker may make nothing beside it. None
/// where it cannot be: then the worker measures again.
pub fn own_cache(all: &str, digest: Option<&Digest>) -> Option<String> {
    let folder = Path::new(all).join(digest.map_or_else(|| "none".into(), Digest::to_string));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.ok().and_then(|()| folder.to_str().map(Into::into))
}

/// The answers that a simulated model is given. The files of all others are open when the worker begins.
fn answers_of(path: &str) -> Vec<PathBuf> {
    let script = path.strip_prefix(SCHEME).unwrap_or_default();
    script.split(',').filter_map(|part| part.strip_prefix("answers=")).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the helper is told.
    fn orders_in(command: &Command) -> Orders {
        let mut set = command.get_envs().filter(|(name, _)| *name == helper::ORDERS_VAR);
        let orders = set.next().and_then(|(_, json)| json?.to_str()).expect("they are JSON");
        serde_json::from_str(orders).expect("they are orders")
    }

    #[test]
    fn variables_of_a_program_are_on_no_command_line() {
        let start = Start {
            program: Path::new("/bin/sh"),
            arguments: vec![],
            environment: vec![("TOKEN".into(), "a secret".into())],
            folder: Path::new("/"),
            policy: Policy::default(),
            user: None,
            guarded: true,
            keep: vec![],
            reopen: vec![],
        };
        let none = Policy::default();
        let starter = Starter::new("/bin/true".into(), Strictness::Auto, &none, &none, Mode::empty());
        let command = starter.command(&start).expect("it has a form");
        assert_eq!(orders_in(&command).environment, start.environment);
        assert!(command.get_args().all(|word| !word.to_string_lossy().contains("secret")));
    }

    #[test]
    fn worker_logs_at_the_level_that_the_daemon_has_when_it_starts() {
        let load = LoadRequest { path: "sim:".into(), ..LoadRequest::default() };
        let level = || {
            let command = Starter::default().worker(Path::new("/bin/worker"), &load).expect("it has a form");
            let mut set = command.get_envs().filter(|(name, _)| *name == LOG_VAR);
            set.next().and_then(|(_, value)| value.map(ToOwned::to_owned)).expect("it is set")
        };
        for wanted in ["debug", "warn"] {
            log::change(wanted);
            assert_eq!(level(), wanted);
        }
    }

    #[test]
    fn program_of_another_user_is_his_without_the_helper() {
        let not_checked = |why: &str| {
            let said = format!("NOT CHECKED: programs of other users without the helper: {why}\n");
            std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes()).expect("somebody hears it");
        };
        if !nix::unistd::geteuid().is_root() {
            return not_checked("only root can start one");
        }
        let mut other = std::process::Command::new("true");
        if std::os::unix::process::CommandExt::uid(&mut other, 61_236).status().is_err() {
            return not_checked("this root may become nobody else");
        }
        let start = Start {
            program: Path::new("/bin/sh"),
            arguments: ["-c", "echo $(id -u) $(id -g) $(id -G)"].map(Into::into).into(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            folder: Path::new("/"),
            policy: Policy::default(),
            user: Some(User { uid: 61_236, gid: 61_237, groups: vec![61_237, 61_238] }),
            guarded: true,
            keep: vec![],
            reopen: vec![],
        };
        let output = Starter::default().command(&start).and_then(|mut c| c.output()).expect("runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "61236 61237 61237 61238\n");
    }

    #[test]
    fn worker_reads_libraries_beside_it_and_writes_measurements_of_its_own_model() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["worker", "libggml-cpu-x64.so", "libllama.so.0", "secret", "library.txt"] {
            std::fs::write(path(name), "").expect("writes");
        }
        let all = path("cache").display().to_string();
        let own = own_cache(&all, Some(&Digest([7; 32]))).expect("there is room");
        let other = own_cache(&all, Some(&Digest([8; 32]))).expect("there is room");
        assert!(own != other && Path::new(&own).is_dir());
        let load = LoadRequest {
            path: path("a.gguf").display().to_string(),
            files: vec![7],
            cache_dir: Some(own.clone()),
            ..Default::default()
        };
        let none = Policy::default();
        let starter = Starter::new("/bin/true".into(), Strictness::Auto, &none, &none, Mode::empty());
        let command = starter.worker(&path("worker"), &load).expect("it has a form");
        let orders = orders_in(&command);
        assert_eq!(
            (orders.keep, orders.reopen),
            (vec![7], vec![]),
            "its model is open and stays shut by name"
        );
        let policy = orders.policy;
        assert_eq!(policy.write, [PathBuf::from(own)]);
        assert_eq!(policy.list, [folder.path()]);
        let mut beside: Vec<_> = policy.read.iter().filter(|read| read.starts_with(folder.path())).collect();
        beside.sort();
        assert_eq!(beside, [&path("libggml-cpu-x64.so"), &path("libllama.so.0")]);
    }

    #[test]
    fn worker_of_a_model_in_parts_opens_these_again() {
        let load = LoadRequest { path: "/m/a.gguf".into(), files: vec![7, 9], ..Default::default() };
        let none = Policy::default();
        let starter = Starter::new("/bin/true".into(), Strictness::Auto, &none, &none, Mode::empty());
        let command = starter.worker(Path::new("/bin/worker"), &load).expect("it has a form");
        let orders = orders_in(&command);
        assert_eq!((orders.keep, orders.reopen), (vec![7, 9], vec![7, 9]));
    }

    #[test]
    fn simulated_model_has_its_answers_alone() {
        assert!(answers_of("sim:text=echo").is_empty() && answers_of("/m/answers=a.gguf").is_empty());
        assert_eq!(answers_of("sim:text=echo,answers=/m/a.json"), [PathBuf::from("/m/a.json")]);
    }
}
