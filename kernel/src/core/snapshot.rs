//! Snapshots: contexts that are kept under a name, and opened again from there, by any process of their user.
//!
//! A snapshot is the log of a context with the conversation that it stands for. Each has a record in the store, and
//! outlives the process, the model's mount and the daemon. It knows its model by the fingerprint, because tokens say
//! nothing to another model, and it carries a checksum of what it holds. Names are each user's own.
//!
//! What is known, or suspected, of a context that it kills workers is kept with it: or whoever restores one as often as he
//! likes could kill as many workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syscalls::call::{Message, OnFull, Snapshot};
use syscalls::limits::{SNAPSHOTS_MAX, SNAPSHOTS_PER_USER_MAX};
use syscalls::reply::SnapshotInfo;
use syscalls::{ContextId, Errno, Fault, Pid, Reply, Token, Tokens};

use super::Kernel;
use super::call::{CallNo, Waits};
use super::effect::{Effect, Record};
use super::event::ModelId;
use super::memory::Space;
use super::model::{Model, shown};

/// A snapshot as it outlives the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub uid: u32,
    pub name: String,
    /// The name of its model, and the fingerprint of the file.
    pub model: String,
    pub fingerprint: u64,
    pub tokens_max: u32,
    pub on_full: OnFull,
    pub instructions: u32,
    pub messages: Vec<Message>,
    pub answering: bool,
    pub tokens: Vec<Token>,
    /// The length at which its worker died twice: a generation from there on is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned: Option<u32>,
    /// It was in a step in which a worker died, and nobody knew yet whether because of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspected: bool,
    /// Of the fingerprint and the tokens.
    pub checksum: u32,
}

impl SnapshotRecord {
    /// The key of a user's snapshot in the store.
    pub fn key_of(uid: u32, name: &str) -> String {
        format!("snapshot/{uid}/{name}")
    }

    /// What the checksum should be.
    fn sum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.fingerprint.to_le_bytes());
        self.tokens.iter().for_each(|token| hasher.update(&token.0.to_le_bytes()));
        hasher.finalize()
    }
}

/// All snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// By user and name.
    kept: BTreeMap<(u32, String), Arc<SnapshotRecord>>,
    /// Those that the disk is yet to have, by the calls that wait for it.
    begun: BTreeMap<CallNo, SnapshotRecord>,
}

impl Snapshots {
    /// Takes in what the store held.
    pub(super) fn insert(&mut self, record: SnapshotRecord) {
        self.kept.insert((record.uid, record.name.clone()), Arc::new(record));
    }

    /// The records of all.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        self.kept.values().map(|record| Record::Snapshot(Box::new(SnapshotRecord::clone(record))))
    }

    /// The logs of those that were made with a model file.
    pub(super) fn logs_of(&self, fingerprint: u64) -> Vec<(Space, Arc<Vec<Token>>)> {
        let of_it = self.kept.values().filter(|record| record.fingerprint == fingerprint);
        of_it.map(|r| (Space::of_user(r.uid), Arc::new(r.tokens.clone()))).collect()
    }

    fn named(&self, uid: u32, name: &str) -> Result<&Arc<SnapshotRecord>, Fault> {
        self.kept.get(&(uid, name.to_owned())).ok_or_else(|| {
            let message =
                format!("user {uid} has no snapshot {}; snapshots lists those there are", shown(name));
            Fault::new(Errno::ENOENT, message)
        })
    }

    /// Checks that a user may have one more, or replace the one of this name.
    fn check_room(&self, uid: u32, name: &str) -> Result<(), Fault> {
        let users = self.kept.keys().map(|(uid, _)| *uid).chain(self.begun.values().map(|record| record.uid));
        let own = users.filter(|of| *of == uid).count();
        let (has, most) = match self.kept.len() + self.begun.len() {
            all if all >= SNAPSHOTS_MAX => (all, SNAPSHOTS_MAX),
            _ => (own, SNAPSHOTS_PER_USER_MAX),
        };
        if has < most || self.kept.contains_key(&(uid, name.to_owned())) {
            return Ok(());
        }
        let message = format!("there are {has} snapshots and the limit is {most}; remove some with discard");
        Err(Fault::new(Errno::EMFILE, message))
    }
}

impl Kernel {
    /// A context as it is, under a name.
    pub(super) fn snapshot_of(&self, id: ContextId, args: Snapshot) -> Result<SnapshotRecord, Fault> {
        let context = self.context(id)?;
        let uid = self.process(context.owner)?.id.uid;
        self.snapshots.check_room(uid, &args.name)?;
        let model = self.model(context.model)?;
        let whole = context.generation.is_none();
        let mut record = SnapshotRecord {
            uid,
            name: args.name,
            model: model.name.clone(),
            fingerprint: model.fingerprint(),
            tokens_max: context.tokens_max,
            on_full: context.on_full,
            instructions: context.instructions,
            messages: if whole { context.messages.clone() } else { vec![] },
            answering: whole && context.answering,
            tokens: context.log.to_vec(),
            condemned: context.condemned,
            suspected: model.suspects.contains(&id),
            checksum: 0,
        };
        record.checksum = record.sum();
        Ok(record)
    }

    /// Keeps a context as it is, in the place of what had the name before. The call is answered, and the snapshot there,
    /// when the disk has it: it promises to outlive the daemon.
    pub(super) fn keep_snapshot(&mut self, call: CallNo, id: ContextId, record: SnapshotRecord) {
        if let Some(pending) = self.calls.get_mut(call) {
            pending.waits = Waits::Store;
        }
        self.write_snapshot(id, record.tokens.len() as u32);
        let kept = Box::new(Record::Snapshot(Box::new(record.clone())));
        self.out.push(Effect::Keep { number: call.0, record: kept });
        self.snapshots.begun.insert(call, record);
    }

    /// The disk has what a call wants kept, or could not take it. Other calls than `snapshot` have nothing of it here.
    pub(super) fn snapshot_kept(&mut self, call: CallNo, is_kept: bool) {
        if let Some(record) = self.snapshots.begun.remove(&call).filter(|_| is_kept) {
            self.snapshots.insert(record);
        }
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    ///
    /// ENOENT where there is none.
    pub(super) fn discard(&mut self, uid: u32, name: &str) -> Result<(), Fault> {
        self.snapshots.named(uid, name)?;
        self.snapshots.kept.remove(&(uid, name.to_owned()));
        self.out.push(Effect::Forget(SnapshotRecord::key_of(uid, name)));
        Ok(())
    }

    /// The model that a snapshot is opened on: one of the same file, by whatever name, or one of its name that has not
    /// been loaded yet.
    ///
    /// # Errors
    ///
    /// ENOENT where there is no such snapshot or model, EINVAL where the model is another file.
    pub(super) fn model_of_snapshot(&self, uid: u32, name: &str) -> Result<&Model, Fault> {
        let record = self.snapshots.named(uid, name)?;
        let same = |m: &&Model| m.description.is_some() && m.fingerprint() == record.fingerprint;
        if let Some(model) = self.models.values().find(same) {
            return Ok(model);
        }
        let model = self.model_named(&record.model)?;
        match model.description {
            Some(_) => Err(other_file(record, model)),
            None => Ok(model),
        }
    }

    /// Opens a context from a snapshot, on a model that has been loaded.
    pub(super) fn restore_snapshot(&mut self, pid: Pid, id: ModelId, name: &str) -> Result<Reply, Fault> {
        let record = self.snapshots.named(self.process(pid)?.id.uid, name)?.clone();
        let model = self.model(id)?;
        if model.fingerprint() != record.fingerprint {
            return Err(other_file(&record, model));
        }
        if record.sum() != record.checksum {
            let message = format!("snapshot {} is damaged: its checksum is another; discard it", shown(name));
            return Err(Fault::new(Errno::EIO, message));
        }
        let (model_name, window) = (model.name.clone(), model.context_tokens_max());
        let (length, tokens_max) = (record.tokens.len() as u32, record.tokens_max.min(window));
        if length > tokens_max {
            let message = format!(
                "the snapshot has {length} tokens and a context of model {model_name} holds {window}; mount it with a larger --context"
            );
            return Err(Fault::new(Errno::ENOSPC, message));
        }
        let context = self.context_from(pid, id, tokens_max, &record)?;
        let (length, tokens_max) = (Tokens(length), Tokens(tokens_max));
        Ok(Reply::Opened { context, model: model_name, length, tokens_max })
    }

    /// The snapshots of a user, by name.
    pub(super) fn snapshot_list(&self, uid: u32) -> Vec<SnapshotInfo> {
        let own = self.snapshots.kept.values().filter(|record| record.uid == uid);
        let info = |record: &Arc<SnapshotRecord>| SnapshotInfo {
            name: record.name.clone(),
            model: record.model.clone(),
            length: Tokens(record.tokens.len() as u32),
        };
        own.map(info).collect()
    }
}

fn other_file(record: &SnapshotRecord, model: &Model) -> Fault {
    let message = format!(
        "snapshot {} was made with another file than the one that is mounted as {}; mount the file that it was made with",
        shown(&record.name),
        model.name
    );
    Fault::new(Errno::EINVAL, message)
}
