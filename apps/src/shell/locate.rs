//! Where a program's file is: beside the shell first, so that the parts of one build find each other, then on
//! PATH.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Why a program cannot be run, with its exit status in sh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no such file: 127.
    NotFound,
    /// There is one, but it may not be executed: 126.
    NotExecutable,
}

/// The file of a program.
///
/// # Errors
///
/// There is none that may be executed.
pub fn program(name: &OsStr, path: &OsStr) -> Result<PathBuf, Missing> {
    if name.as_bytes().contains(&b'/') {
        return usable(Path::new(name));
    }
    let mut missing = Missing::NotFound;
    for folder in folders(path) {
        match usable(&folder.join(name)) {
            Ok(file) => return Ok(file),
            Err(Missing::NotExecutable) => missing = Missing::NotExecutable,
            Err(Missing::NotFound) => {}
        }
    }
    Err(missing)
}

/// The folders that are searched, in their order.
pub fn folders(path: &OsStr) -> Vec<PathBuf> {
    beside().into_iter().chain(std::env::split_paths(path).filter(|p| !p.as_os_str().is_empty())).collect()
}

/// The folder of this executable.
fn beside() -> Option<PathBuf> {
    std::env::current_exe().ok()?.parent().map(Path::to_owned)
}

/// Another program of this build: beside this executable, else wherever PATH finds it.
pub fn sibling(name: &str) -> OsString {
    match beside().map(|folder| folder.join(name)) {
        Some(path) if path.exists() => path.into(),
        _ => name.into(),
    }
}

fn usable(file: &Path) -> Result<PathBuf, Missing> {
    if !file.is_file() {
        return Err(if file.exists() { Missing::NotExecutable } else { Missing::NotFound });
    }
    match access(file, AccessFlags::X_OK) {
        Ok(()) => Ok(file.to_owned()),
        Err(_) => Err(Missing::NotExecutable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_permission_is_not_executable() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let file = dir.path().join("tool");
        std::fs::write(&file, "").expect("a file can be made");
        assert_eq!(program(OsStr::new("tool"), dir.path().as_os_str()), Err(Missing::NotExecutable));
        assert_eq!(program(OsStr::new("other"), dir.path().as_os_str()), Err(Missing::NotFound));
        assert_eq!(program(dir.path().as_os_str(), OsStr::new("")), Err(Missing::NotExecutable));
    }

    #[test]
    fn program_on_path_is_found() {
        let file = program(OsStr::new("sh"), OsStr::new("/nowhere::/bin")).expect("every system has /bin/sh");
        assert_eq!(file, Path::new("/bin/sh"));
    }
}
