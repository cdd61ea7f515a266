//! `embed`: turns texts into vectors. Where no model is named, an encoder goes before models that also generate.

use drivers::wire::Question;
use syscalls::call::Embed;
use syscalls::limits::EMBED_TEXTS_MAX;
use syscalls::{Errno, Fault, Reply};

use super::super::Kernel;
use super::super::model::Model;
use super::{Next, Outcome};

impl Kernel {
    pub(super) fn sys_embed(&self, args: Embed) -> Outcome {
        let count = args.texts.len();
        if count > EMBED_TEXTS_MAX {
            return Err(Fault::new(Errno::E2BIG, format!("{count} texts; the limit is {EMBED_TEXTS_MAX}")));
        }
        let embeds = |m: &Model| m.description.as_ref().is_none_or(|d| d.embeds);
        let encodes = |m: &Model| m.description.as_ref().is_some_and(|d| d.embeds && !d.generates);
        let any_encoder = self.models.values().any(encodes);
        let model =
            self.choose_model(args.model.as_deref(), |m| if any_encoder { encodes(m) } else { embeds(m) })?;
        if !embeds(model) {
            let message = format!("model {} cannot embed; mount an encoder", model.name);
            return Err(Fault::new(Errno::ENOSYS, message));
        }
        if count == 0 {
            return Ok(Next::Reply(Reply::Embedded(vec![])));
        }
        Ok(Next::Ask(model.id, Question::Embed(args.texts)))
    }
}
