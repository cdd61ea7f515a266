//! Looking at things before the kernel decides: the header of a model that is to be mounted, and the devices of this
//! machine.
//!
//! A header is read on a thread of its own, because a disk may take its time, and not on one of the runtime's, whose
//! end would wait for a file system that hangs. The reader believes nothing and allocates within a bound, and so few
//! headers are read at once that all of them together stay small. Then the whole file is read for its digest, where
//! that is not known.
//!
//! Devices are found by the worker's executable, which has the graphics libraries linked; a crash in one of those
//! costs nothing but the devices.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use drivers::estimate::{Estimate, estimate, estimate_open};
use drivers::files::{ModelFiles, errno_of};
use drivers::wire::{DeviceFound, DriverFault, LoadRequest};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::digest::Digests;
use super::input::Input;
use crate::core::DeviceConfig;
use crate::core::event::{Event, ModelId};
use crate::core::registration::Digest;

/// How much further the reading of a file has come when it is told again.
const PROGRESS_STEP: f32 = 0.01;

/// Headers that are read at once.
const INSPECTIONS_AT_ONCE_MAX: usize = 4;

/// How long the search for devices may take. Graphics drivers that were never used since the start of the machine
/// take some seconds.
const SEARCH_PATIENCE: Duration = Duration::from_secs(20);

/// Of a graphics device's memory, the part that models may take: its driver and the libraries need some themselves.
const SHARE_FOR_MODELS: (u64, u64) = (9, 10);

/// Reads headers for the kernel.
#[derive(Debug)]
pub struct Inspector {
    inputs: mpsc::Sender<Input>,
    digests: Arc<Digests>,
    places: Arc<Semaphore>,
}

impl Inspector {
    /// It will report to `inputs`.
    pub fn new(inputs: mpsc::Sender<Input>, digests: Arc<Digests>) -> Self {
        Inspector { inputs, digests, places: Arc::new(Semaphore::new(INSPECTIONS_AT_ONCE_MAX)) }
    }

    /// Looks at a file after a pause; `Inspected` will come.
    pub fn inspect(&self, model: ModelId, load: Box<LoadRequest>, delay: Duration) {
        let (inputs, places) = (self.inputs.clone(), Arc::clone(&self.places));
        let digests = Arc::clone(&self.digests);
        tokio::spawn(async move {
            sleep(delay).await;
            // Nobody closes the semaphore.
            let _place = places.acquire().await;
            let told = inputs.clone();
            let looked_at = on_its_own_thread(move || look_at(model, &load, &digests, &told)).await;
            let no_thread = |e| DriverFault::new(errno_of(&e), format!("the model cannot be looked at: {e}"));
            let (estimate, digest) = match looked_at.map_err(no_thread).and_then(|looked| looked) {
                Ok((estimate, digest)) => (Ok(estimate), digest),
                Err(fault) => (Err(fault), None),
            };
            // The main loop is gone only when the daemon ends.
            let _ = inputs.send(Input::Worker(Event::Inspected { model, estimate, digest })).await;
        });
    }
}

fn look_at(
    model: ModelId,
    load: &LoadRequest,
    digests: &Digests,
    inputs: &mpsc::Sender<Input>,
) -> Result<(Estimate, Option<Digest>), DriverFault> {
    let Some(files) = ModelFiles::open(&load.path)? else { return Ok((estimate(load)?, None)) };
    let estimate = estimate_open(&files, load)?;
    let mut told = 0.0;
    let digest = digests.of(&files, |fraction| {
        if fraction - told >= PROGRESS_STEP {
            told = fraction;
            // The main loop is gone only when the daemon ends.
            let _ = inputs.blocking_send(Input::Worker(Event::Checking { model, fraction }));
        }
    });
    let unreadable = |e| DriverFault::new(errno_of(&e), format!("{} cannot be read: {e}", load.path));
    Ok((estimate, Some(digest.map_err(unreadable)?)))
}

/// Does what may wait for a disk for ever.
///
/// # Errors
///
/// There is no thread to be had, or it died.
pub async fn on_its_own_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("inspect".into());
    // Whoever asked is gone only when the daemon ends.
    thread.spawn(move || drop(answer.send(job())))?;
    answered.await.map_err(|_| io::Error::other("its reader died"))
}

/// Has the worker's executable tell which graphics devices there are, and passes that on. Where it cannot, there are
/// none.
pub async fn find_devices(driver: PathBuf, inputs: mpsc::Sender<Input>) {
    let devices = search(driver).await.unwrap_or_else(|why| {
        tracing::warn!("no graphics devices are used: {why}");
        Vec::new()
    });
    // The main loop is gone only when the daemon ends.
    let _ = inputs.send(Input::Worker(Event::DevicesFound { devices })).await;
}

async fn search(driver: PathBuf) -> Result<Vec<DeviceConfig>, String> {
    let mut command = Command::new(&driver);
    command.arg("devices").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let daemon = getpid();
    // SAFETY: between fork and exec the closure makes system calls alone and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // A graphics driver that hangs would outlive a daemon that is killed.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            let in_time = getppid() == daemon;
            if in_time { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        });
    }
    let output = timeout(SEARCH_PATIENCE, command.output()).await;
    let output = output.map_err(|_| format!("{} did not find any in time", driver.display()))?;
    let output = output.map_err(|e| format!("{}: {e}", driver.display()))?;
    if !output.status.success() {
        return Err(format!("{} devices: {}", driver.display(), output.status));
    }
    let found: Vec<DeviceFound> = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
    let (part, whole) = SHARE_FOR_MODELS;
    let config = |d: DeviceFound| {
        tracing::info!(
            "{} is {} with {} of {} bytes free",
            d.name,
            d.description,
            d.free_bytes,
            d.memory_bytes
        );
        DeviceConfig { name: d.name, memory_bytes: d.free_bytes.min(d.memory_bytes) / whole * part }
    };
    Ok(found.into_iter().map(config).collect())
}

#[cfg(test)]
mod tests {
    use syscalls::Errno;

    use super::super::scripted;
    use super::*;

    async fn found(script: &str) -> Vec<DeviceConfig> {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("driver");
        scripted::write(&program, script);
        let (inputs, mut received) = mpsc::channel(1);
        find_devices(program, inputs).await;
        match received.recv().await {
            Some(Input::Worker(Event::DevicesFound { devices })) => devices,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn devices_are_those_that_the_driver_finds() {
        let json = r#"[{"name":"cuda:0","description":"a card","memory_bytes":1000,"free_bytes":500}]"#;
        let card = DeviceConfig { name: "cuda:0".into(), memory_bytes: 450 };
        assert_eq!(found(&format!("[ $1 = devices ] && echo '{json}'")).await, [card]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn driver_that_fails_or_speaks_nonsense_finds_none() {
        assert_eq!(found("exit 3").await, []);
        assert_eq!(found("kill -SEGV $$").await, []);
        assert_eq!(found("echo nonsense").await, []);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn file_is_looked_at_and_reported() {
        let (inputs, mut received) = mpsc::channel(1);
        let load = LoadRequest { path: "/nonexistent.gguf".into(), ..LoadRequest::default() };
        Inspector::new(inputs, Arc::default()).inspect(ModelId(7), Box::new(load), Duration::ZERO);
        match received.recv().await {
            Some(Input::Worker(Event::Inspected {
                model: ModelId(7),
                estimate: Err(fault),
                digest: None,
            })) => {
                assert_eq!(fault.errno, Errno::ENOENT);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
