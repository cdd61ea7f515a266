//! The folder of a run's checkpoints: writing one, finding the newest, and forgetting old ones.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::CheckpointError;
use super::state::RunState;
use super::whole::{Checkpoint, read_all, write_all};

/// What names of checkpoints begin with; those of unfinished ones begin with a dot.
const PREFIX: &str = "step-";

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The checkpoints of a run.
    pub fn of(run: &Path) -> Folder {
        Folder { path: run.join("checkpoints") }
    }

    /// Where they lie.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a checkpoint and says where it is. One of the same step is replaced.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Write`]; what was there before is as it was.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf, CheckpointError> {
        self.create().map_err(CheckpointError::write(&self.path))?;
        self.sweep();
        let place = self.place(checkpoint.state.step);
        let unfinished = self.path.join(format!(".{}", name_of(checkpoint.state.step)));
        let written = write_all(&unfinished, checkpoint).and_then(|()| self.put(&unfinished, &place));
        if written.is_err() {
            // It makes room again; and what remains is swept away before the next one.
            let _ = fs::remove_dir_all(&unfinished);
        }
        written.map_err(CheckpointError::write(&place))?;
        self.point("last", checkpoint.state.step)?;
        Ok(place)
    }

    /// Makes a name point to the checkpoint of a step.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Write`].
    pub fn point(&self, name: &str, step: u64) -> Result<(), CheckpointError> {
        let (link, new) = (self.path.join(name), self.path.join(format!(".{name}")));
        let pointed = (|| {
            let _ = fs::remove_file(&new);
            std::os::unix::fs::symlink(name_of(step), &new)?;
            fs::rename(&new, &link)?;
            File::open(&self.path)?.sync_all()
        })();
        pointed.map_err(CheckpointError::write(&link))
    }

    /// Removes all but the last `keep` up to that of step `newest`, and that of step `best`. One that cannot be removed
    /// stays. Of later steps are those that a run has passed over as damaged: they must not take the places of whole ones.
    pub fn prune(&self, keep: usize, newest: u64, best: Option<u64>) {
        let steps: Vec<u64> = self.steps().into_iter().filter(|step| *step <= newest).collect();
        let old = steps.len().saturating_sub(keep);
        for step in &steps[..old] {
            if Some(*step) != best {
                // Renamed first, so that one that is half removed is not found.
                let gone = self.path.join(format!(".{}-old", name_of(*step)));
                if fs::rename(self.place(*step), &gone).is_ok() {
                    let _ = fs::remove_dir_all(&gone);
                }
            }
        }
    }

    /// Reads the newest whole checkpoint; those that are damaged are passed over, and named in the second part.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::None`], or what is wrong with the newest where all are damaged.
    pub fn newest(&self) -> Result<(Checkpoint, Vec<CheckpointError>), CheckpointError> {
        let mut passed = Vec::new();
        for step in self.steps().into_iter().rev() {
            match read_all(&self.place(step)) {
                Ok(checkpoint) => return Ok((checkpoint, passed)),
                Err(error) => passed.push(error),
            }
        }
        match passed.into_iter().next() {
            Some(error) => Err(error),
            None => Err(CheckpointError::None { path: self.path.clone() }),
        }
    }

    /// Makes `last` and `best` say what a run goes on from: a crash may have come between a checkpoint and them.
    pub fn settle(&self, state: &RunState) {
        let best = state.best.map(|best| best.step);
        for (name, step) in [("last", Some(state.step)), ("best", best)] {
            let Some(step) = step.filter(|step| self.place(*step).is_dir()) else { continue };
            let right = fs::read_link(self.path.join(name)).is_ok_and(|to| to == Path::new(&name_of(step)));
            if !right {
                // They are for people and scripts: a disk that refuses them stops no run.
                let _ = self.point(name, step);
            }
        }
    }

    /// Reads the best checkpoint, as the newest one knows it; the newest itself where nothing was evaluated.
    ///
    /// # Errors
    ///
    /// What is wrong with it; [`CheckpointError::Lost`] where it is not there.
    pub fn best(&self) -> Result<Checkpoint, CheckpointError> {
        let (newest, _) = self.newest()?;
        match newest.state.best.map(|best| best.step) {
            Some(step) if step != newest.state.step => {
                let path = self.place(step);
                if path.is_dir() { read_all(&path) } else { Err(CheckpointError::Lost { path }) }
            }
            _ => Ok(newest),
        }
    }

    /// The steps that there are checkpoints of, in order.
    pub fn steps(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.path).into_iter().flatten();
        let step = |entry: io::Result<fs::DirEntry>| {
            entry.ok()?.file_name().to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok()
        };
        let mut steps: Vec<u64> = entries.filter_map(step).collect();
        steps.sort_unstable();
        steps
    }

    /// Makes the folder, so that it is there after a crash, too.
    fn create(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.path)?;
        // Its name stands in the run's folder, and that one's in the folder above.
        let above = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let run = above(&self.path);
        File::open(&run)?.sync_all()?;
        match File::open(above(&run)) {
            // A program in a jail may know its own folder alone.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            opened => opened?.sync_all(),
        }
    }

    fn place(&self, step: u64) -> PathBuf {
        self.path.join(name_of(step))
    }

    /// Gives an unfinished checkpoint its name.
    fn put(&self, unfinished: &Path, place: &Path) -> io::Result<()> {
        if place.exists() {
            let old = self.path.join(format!("{}-old", unfinished.file_name().unwrap_or_default().display()));
            fs::rename(place, &old)?;
            fs::rename(unfinished, place)?;
            let _ = fs::remove_dir_all(&old);
        } else {
            fs::rename(unfinished, place)?;
        }
        File::open(&self.path)?.sync_all()
    }

    /// Removes what a crash has left.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!(".{PREFIX}")) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The steps sort as the names do.
fn name_of(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}
