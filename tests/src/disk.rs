//! A small disk of a test's own, which the test can fill, empty and protect.
//!
//! It is a file system in memory in a mount namespace of its own, so nobody else sees it, and the system removes it when
//! the process ends that holds the namespace. Programs enter the namespace to see it; the test reaches its files through
//! that process.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{skipped, wait_until};

/// What fills the disk.
const FILLER: &str = "filler";

/// What the system allocates at once, so that a write of this size finds room or none.
const BLOCK_BYTES: usize = 4096;

/// Makes the file system, says that it is there, and holds it until its standard input ends.
const HOLD: &str = r#"mount -t tmpfs -o size="$1",mode=700 none "$0" && echo mounted && exec cat"#;

/// A disk, mounted where only those who enter it see it.
#[derive(Debug)]
pub struct Disk {
    holder: Child,
    path: PathBuf,
    /// Whether the holder has a user namespace too, because this user may mount nothing outside of one.
    maps_users: bool,
}

impl Disk {
    /// Mounts a disk of so many bytes over a folder. Where the system does not let this be done, says so, and the test
    /// that wanted it has nothing to do.
    pub fn mount(path: &Path, bytes: u64) -> Option<Disk> {
        let disk = Disk::mount_as(path, bytes, false).or_else(|| Disk::mount_as(path, bytes, true));
        if disk.is_none() {
            skipped("disks: this system lets none be mounted, not even in a namespace of users");
        }
        disk
    }

    fn mount_as(path: &Path, bytes: u64, maps_users: bool) -> Option<Disk> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if maps_users {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-c", HOLD]).arg(path).arg(bytes.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().ok()?;
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("it is piped");
        let _ = BufReader::new(stdout).read_line(&mut said);
        let disk = Disk { holder, path: path.into(), maps_users };
        (said == "mounted\n").then_some(disk)
    }

    /// What a command begins with that sees the disk.
    pub fn launcher(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let mut words = vec!["nsenter", "--target", &holder, "--mount"];
        if self.maps_users {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.push("--");
        words.into_iter().map(Into::into).collect()
    }

    /// The disk's folder, as this process reaches it.
    pub fn folder(&self) -> PathBuf {
        let path = self.path.strip_prefix("/").expect("the folder's path is absolute");
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(path)
    }

    /// Names of what is in the folder, in their order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder()).expect("the holder lives");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("it is listed").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Takes all room that is left.
    pub fn fill(&self) {
        let mut filler = File::options()
            .create(true)
            .append(true)
            .open(self.folder().join(FILLER))
            .expect("a file is made");
        while filler.write_all(&[1; BLOCK_BYTES]).is_ok() {}
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn make_room(&self) {
        fs::remove_file(self.folder().join(FILLER)).expect("the disk was filled");
    }

    /// Lets the disk be read alone, or written again. Waits until nobody has a file on it open to be written.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        let launcher = self.launcher();
        wait_until("the disk is mounted anew", || {
            let mut command = Command::new(&launcher[0]);
            command.args(&launcher[1..]).args(["mount", "-o", options]).arg(&self.path);
            command.output().expect("it runs").status.success()
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is this process's own child, and has nothing to lose.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
