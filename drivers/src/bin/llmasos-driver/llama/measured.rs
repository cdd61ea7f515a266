//! What was found out about this machine and need not be found out at every mount, as small files in a folder.
//!
//! A finding is kept under the hash of all that it depends on: the CPU, this executable, and what else its owner
//! names. Files that cannot be read or written only cost the time to find out again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where findings are kept, if anywhere.
pub struct Measured {
    folder: Option<PathBuf>,
    /// The CPU and this executable.
    here: u64,
}

impl Measured {
    /// The findings in a folder; none are kept without one.
    pub fn new(folder: Option<&str>) -> Measured {
        Measured { folder: folder.map(PathBuf::from), here: hash(&[cpu().as_str(), &executable()]) }
    }

    /// A finding, by its name and what it depends on beside the machine.
    pub fn get(&self, name: &str, depends_on: &str) -> Option<String> {
        fs::read_to_string(self.file(name, depends_on)?).ok()
    }

    /// Keeps a finding.
    pub fn put(&self, name: &str, depends_on: &str, finding: &str) {
        let Some(file) = self.file(name, depends_on) else { return };
        if let Err(error) = write_whole(&file, finding) {
            tracing::debug!("cannot keep {}: {error}", file.display());
        }
    }

    fn file(&self, name: &str, depends_on: &str) -> Option<PathBuf> {
        let key = hash(&[depends_on]) ^ self.here.rotate_left(1);
        Some(self.folder.as_ref()?.join(format!("{name}-{key:016x}")))
    }
}

/// Writes beside the file and renames, so that another worker never reads half a finding.
fn write_whole(file: &Path, finding: &str) -> std::io::Result<()> {
    fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    let draft = file.with_extension(std::process::id().to_string());
    fs::write(&draft, finding)?;
    fs::rename(&draft, file)
}

/// The CPU's name and flags, which a virtual machine may change under the same name.
fn cpu() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = about.split("\n\n").next().unwrap_or_default();
    let stable = ["model name", "stepping", "microcode", "flags", "Features", "CPU part"];
    first.lines().filter(|line| stable.iter().any(|name| line.starts_with(name))).collect()
}

/// A build of this program, by its place, size and time.
fn executable() -> String {
    let about = std::env::current_exe().and_then(|path| Ok((fs::metadata(&path)?, path)));
    about.map_or_else(
        |_| String::new(),
        |(about, path)| {
            format!("{} {} {}.{}", path.display(), about.len(), about.mtime(), about.mtime_nsec())
        },
    )
}

/// FNV-1a over texts with a mark between them.
fn hash(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_is_found_again_under_what_it_depends_on_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let measured = Measured::new(folder.path().join("new").to_str());
        measured.put("attention", "8 heads", "flash");
        assert_eq!(measured.get("attention", "8 heads").as_deref(), Some("flash"));
        assert_eq!(measured.get("attention", "9 heads"), None);
        assert_eq!(measured.get("arithmetic", "8 heads"), None);
        assert_eq!(Measured::new(None).get("attention", "8 heads"), None);
    }
}
