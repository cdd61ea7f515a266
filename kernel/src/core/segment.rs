//! Shared segments: named beginnings of contexts that others may open on.
//!
//! A segment is a log with a name, an owner and permission bits. It outlives the process that made it, and lives as
//! long as its model is mounted. What of it is in the pool when it is published stays there as a remnant that gives
//! way last; what is not is computed by the first context that needs it, or loaded. Contexts that were opened on a
//! segment share its pages whoever owns them, and nothing beyond it.
//!
//! Each has a record in the store, so it outlives the daemon as well. After a restart none of it is in the pool. Where
//! another file has been mounted under the model's name meanwhile its tokens say something else, and it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use drivers::wire::{Op, PAGE_TOKENS};
use syscalls::call::{Capability, Message, Share};
use syscalls::limits::{SEGMENTS_MAX, SEGMENTS_PER_USER_MAX};
use syscalls::reply::SegmentInfo;
use syscalls::{ContextId, Errno, Fault, Reply, Token, Tokens};

use super::Kernel;
use super::capability::Caps;
use super::effect::{Effect, LogLevel, Record, SegmentRecord};
use super::event::ModelId;
use super::memory::{Remnant, Resident, Root, Space};
use super::model::{Model, shown};

/// The bit that lets the owner open on a segment, and the one that lets everybody.
const OWNER_READS: u32 = 0o400;
const OTHERS_READ: u32 = 0o004;

/// A published beginning.
#[derive(Debug)]
pub(super) struct Segment {
    /// Never used again, so that contexts of a replaced segment do not meet those of its successor.
    pub number: u32,
    pub uid: u32,
    pub mode: u32,
    pub model: ModelId,
    /// Of the model's file.
    pub fingerprint: u64,
    pub log: Arc<Vec<Token>>,
    /// The conversation, where the whole of one was published.
    pub messages: Vec<Message>,
    pub answering: bool,
    /// What is known of the context that it was made of: a length at which its worker died twice.
    pub condemned: Option<u32>,
    /// It was made of one that may have killed a worker.
    pub suspected: bool,
}

/// All segments, by name.
#[derive(Debug, Default)]
pub(super) struct Segments {
    by_name: BTreeMap<String, Segment>,
    next: u32,
}

impl Segment {
    fn may_be_read_by(&self, uid: u32) -> bool {
        self.mode & if uid == self.uid { OWNER_READS } else { OTHERS_READ } != 0
    }

    /// Where the logs of contexts belong that are opened on it.
    pub(super) fn space(&self, uid: u32) -> Space {
        Space { root: Root::Segment(self.number), uid, common: self.log.len() as u32, is_segment: false }
    }
}

impl Segments {
    /// The segment of a name, for a user who may open on it.
    ///
    /// # Errors
    ///
    /// ENOENT where there is none, EPERM where its bits do not let the user.
    pub(super) fn readable(&self, name: &str, uid: u32, caps: Caps) -> Result<&Segment, Fault> {
        let segment = self.named(name)?;
        if caps.has(Capability::Override) || segment.may_be_read_by(uid) {
            return Ok(segment);
        }
        let message = format!(
            "segment {} of user {} has mode {:#05o}, which does not let user {uid} open on it",
            shown(name),
            segment.uid,
            segment.mode
        );
        Err(Fault::new(Errno::EPERM, message))
    }

    fn named(&self, name: &str) -> Result<&Segment, Fault> {
        self.by_name.get(name).ok_or_else(|| {
            let message = format!("there is no segment {}; make one with share", shown(name));
            Fault::new(Errno::ENOENT, message)
        })
    }

    /// Numbers up to this one are in use, by contexts or by saved pages of a segment that may be gone.
    pub(super) fn count_from(&mut self, number: u32) {
        self.next = self.next.max(number.saturating_add(1));
    }

    /// The logs of those on a model.
    pub(super) fn logs_on(&self, model: ModelId) -> Vec<(Space, Arc<Vec<Token>>)> {
        let on_it = self.by_name.values().filter(|s| s.model == model);
        on_it.map(|s| (Space { is_segment: true, ..s.space(s.uid) }, s.log.clone())).collect()
    }

    /// Checks that a user may replace or remove a segment, if there is one.
    fn check_owner(&self, name: &str, uid: u32, caps: Caps) -> Result<(), Fault> {
        match self.by_name.get(name).filter(|s| s.uid != uid && !caps.has(Capability::Override)) {
            Some(s) => Err(Fault::new(
                Errno::EPERM,
                format!("segment {} belongs to user {}; choose another name", shown(name), s.uid),
            )),
            None => Ok(()),
        }
    }

    /// Checks that a user may have one more, or replace the one of this name.
    fn check_room(&self, name: &str, uid: u32) -> Result<(), Fault> {
        if self.by_name.contains_key(name) {
            return Ok(());
        }
        let own = self.by_name.values().filter(|s| s.uid == uid).count();
        let (has, most) = match self.by_name.len() {
            all if all >= SEGMENTS_MAX => (all, SEGMENTS_MAX),
            _ => (own, SEGMENTS_PER_USER_MAX),
        };
        if has < most {
            return Ok(());
        }
        let message = format!("there are {has} segments and the limit is {most}; remove some with unshare");
        Err(Fault::new(Errno::EMFILE, message))
    }
}

impl Kernel {
    /// Publishes the beginning of a context.
    pub(super) fn share(&mut self, id: ContextId, args: Share) -> Result<Reply, Fault> {
        let context = self.context(id)?;
        let (model, had, owner) = (context.model, context.length(), context.owner);
        let length = args.length.map_or(had, |n| n.0);
        if length == 0 || length > had {
            let message = format!("context {id} has {had} tokens, so {length} of it cannot be published");
            return Err(Fault::new(Errno::EINVAL, message));
        }
        let process = self.process(owner)?;
        let (uid, caps) = (process.id.uid, process.caps);
        self.segments.check_owner(&args.name, uid, caps)?;
        self.segments.check_room(&args.name, uid)?;
        let model_of_it = self.model(model)?;
        let (fingerprint, suspected) = (model_of_it.fingerprint(), model_of_it.suspects.contains(&id));
        let context = self.contexts.get_mut(&id).expect("it was found above");
        let whole = length == had && context.generation.is_none();
        let segment = Segment {
            fingerprint,
            number: self.segments.next,
            uid,
            mode: args.mode,
            model,
            log: context.log.share_up_to(length),
            messages: if whole { context.messages.clone() } else { vec![] },
            answering: whole && context.answering,
            condemned: context.condemned.filter(|at| *at <= length),
            suspected,
        };
        self.segments.next += 1;
        self.forget_segment(&args.name);
        self.pin(id, &segment);
        self.out.push(Effect::Persist(self.segment_record(&args.name, &segment)));
        self.segments.by_name.insert(args.name, segment);
        Ok(Reply::Done {})
    }

    fn segment_record(&self, name: &str, segment: &Segment) -> Record {
        Record::Segment(Box::new(SegmentRecord {
            name: name.to_owned(),
            model: self.models.get(&segment.model).map(|m| m.name.clone()).unwrap_or_default(),
            fingerprint: segment.fingerprint,
            number: segment.number,
            uid: segment.uid,
            mode: segment.mode,
            tokens: segment.log.to_vec(),
            messages: segment.messages.clone(),
            answering: segment.answering,
            condemned: segment.condemned,
            suspected: segment.suspected,
        }))
    }

    /// The records of all segments.
    pub(super) fn segment_records(&self) -> impl Iterator<Item = Record> {
        self.segments.by_name.iter().map(|(name, segment)| self.segment_record(name, segment))
    }

    /// Publishes again what was published when the daemon ended.
    pub(super) fn restore_segment(&mut self, record: SegmentRecord) {
        let Some(model) = self.models.values().find(|m| m.name == record.model).map(|m| m.id) else {
            let line = format!("segment {} goes: its model {} is not mounted", record.name, record.model);
            self.out.push(Effect::Log(LogLevel::Warn, line));
            return self.out.push(Effect::Forget(SegmentRecord::key_of(&record.name)));
        };
        self.segments.count_from(record.number);
        let segment = Segment {
            number: record.number,
            uid: record.uid,
            mode: record.mode,
            model,
            fingerprint: record.fingerprint,
            log: Arc::new(record.tokens),
            messages: record.messages,
            answering: record.answering,
            condemned: record.condemned,
            suspected: record.suspected,
        };
        self.segments.by_name.insert(record.name, segment);
    }

    /// Takes segments out that were made on another file under the name of a model that has been loaded.
    pub(super) fn check_segments_of(&mut self, model: ModelId) {
        let Some(fingerprint) = self.models.get(&model).map(Model::fingerprint) else { return };
        let others = self.segments.by_name.iter();
        let others = others.filter(|(_, s)| s.model == model && s.fingerprint != fingerprint);
        for name in others.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            let line = format!("segment {name} goes: its model is another file than when it was shared");
            self.out.push(Effect::Log(LogLevel::Warn, line));
            self.withdraw_segment(&name);
        }
    }

    /// Takes a segment out, in the store too.
    fn withdraw_segment(&mut self, name: &str) {
        self.out.push(Effect::Forget(SegmentRecord::key_of(name)));
        self.forget_segment(name);
    }

    /// Keeps what a context has of a new segment in the pool, if a sequence id is free for it.
    fn pin(&mut self, id: ContextId, segment: &Segment) {
        let (model_id, log) = (segment.model, segment.log.clone());
        let space = Space { is_segment: true, ..segment.space(segment.uid) };
        let Some(resident) = self.contexts.get(&id).and_then(|c| c.resident.as_ref()) else { return };
        let (from, length) = (resident.lease.asid(), resident.computed.min(log.len() as u32));
        let Some(model) = self.models.get_mut(&model_id).filter(|m| m.is_ready()) else { return };
        let Some(memory) = model.memory.as_mut().filter(|m| m.ranges && length >= PAGE_TOKENS) else {
            return;
        };
        let Some(lease) = memory.asids.lend() else { return };
        model.ops.push(Op::Share { from, to: lease.asid(), length });
        let pages = self.shared_pages(model_id, id, length);
        self.next_context += 1;
        let id = ContextId(self.next_context);
        let mut resident = Resident::new(lease, length, pages);
        if let Some(model) = self.models.get_mut(&model_id) {
            model.enroll(id, &mut resident, &log, &space, false);
            model.behind.add(id, 0);
        }
        self.enter_remnant(model_id, id, Remnant { resident, log, space, pinned: true, tick: 0 });
    }

    /// Removes a segment. Contexts that were opened on it keep what they have.
    ///
    /// # Errors
    ///
    /// ENOENT where there is none, EPERM where it is another user's.
    pub(super) fn unshare(&mut self, name: &str, uid: u32, caps: Caps) -> Result<(), Fault> {
        self.segments.named(name)?;
        self.segments.check_owner(name, uid, caps)?;
        self.withdraw_segment(name);
        Ok(())
    }

    /// Takes a segment out. What it has in the pool gives way like that of any closed context.
    fn forget_segment(&mut self, name: &str) {
        let Some(segment) = self.segments.by_name.remove(name) else { return };
        let root = Root::Segment(segment.number);
        let memory = self.models.get(&segment.model).and_then(|m| m.memory.as_ref());
        let remnants = memory.iter().flat_map(|m| &m.remnants);
        let pinned: Vec<ContextId> =
            remnants.filter(|(_, r)| r.pinned && r.space.root == root).map(|(id, _)| *id).collect();
        for id in pinned {
            if let Some(remnant) = self.take_remnant(segment.model, id) {
                self.enter_remnant(segment.model, id, Remnant { pinned: false, ..remnant });
            }
        }
    }

    /// Removes the segments of a model that goes.
    pub(super) fn forget_segments_of(&mut self, model: ModelId) {
        let of_model = self.segments.by_name.iter().filter(|(_, s)| s.model == model);
        for name in of_model.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.withdraw_segment(&name);
        }
    }

    /// The segments of a user, and those that he may open on, by name.
    pub(super) fn segment_list(&self, uid: u32, caps: Caps) -> Vec<SegmentInfo> {
        let sees = |s: &Segment| s.uid == uid || s.may_be_read_by(uid) || caps.has(Capability::Override);
        let info = |(name, s): (&String, &Segment)| SegmentInfo {
            name: name.clone(),
            model: self.models.get(&s.model).map(|m| m.name.clone()).unwrap_or_default(),
            uid: s.uid,
            mode: s.mode,
            length: Tokens(s.log.len() as u32),
        };
        self.segments.by_name.iter().filter(|(_, s)| sees(s)).map(info).collect()
    }
}
