//! What ranks agree on before they go on together. Ranks that were given different specifications would train nonsense, and
//! one that refuses alone would leave the others waiting for it.

use std::fmt::Display;

use sha2::{Digest, Sha256};

use super::error::{RankError, Result};
use super::group::{Group, Message};
use super::mesh::Mesh;
use crate::spec::TrainSpec;

/// Compares the specifications of all ranks.
///
/// # Errors
/// [`RankError::Specification`] with the first rank that has another one than rank 0, on every rank.
pub fn agree(mesh: &Mesh, spec: &TrainSpec) -> Result<()> {
    let world: &dyn Group = mesh.world();
    if mesh.is_alone() {
        return Ok(());
    }
    let digest: String = Sha256::digest(spec.to_ron()).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let mut all = Vec::new();
    if mesh.leads() {
        all.push(digest);
        for rank in 1..world.size() {
            let came = match world.receive(rank)? {
                Message::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                _ => String::new(),
            };
            all.push(came);
        }
    } else {
        world.send(0, Message::Bytes(digest.into_bytes()))?;
    }
    let mut text = all.join(" ").into_bytes();
    world.broadcast(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let all: Vec<&str> = text.split(' ').collect();
    match all.iter().position(|digest| *digest != all[0]) {
        None => Ok(()),
        Some(rank) => {
            let (theirs, ours) = (all[rank].to_owned(), all[0].to_owned());
            Err(RankError::Specification { rank, theirs, ours })
        }
    }
}

/// Has all ranks fail where one does, with its reason. All must call it in the same place, whatever has become of each.
///
/// # Errors
/// [`RankError::Refused`] with the first rank that has failed, on every rank; one that is alone fails as it does.
pub fn together<T, E>(world: &dyn Group, done: std::result::Result<T, E>) -> std::result::Result<T, E>
where
    E: Display + From<RankError>,
{
    let (rank, size) = (world.rank(), world.size());
    if size == 1 {
        return done;
    }
    let farthest = world.max(if done.is_err() { (size - rank) as f64 } else { 0.0 })? as usize;
    if farthest == 0 {
        return done;
    }
    let first = size - farthest;
    let mut why = done.err().map(|error| error.to_string().into_bytes()).unwrap_or_default();
    world.broadcast(&mut why, first)?;
    let why = String::from_utf8_lossy(&why).into_owned();
    Err(RankError::Refused { rank: first, why }.into())
}
