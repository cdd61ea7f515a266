//! The script behind `sim:`, as `name=value` pairs: what it may say, and how it is read.

use serde::Deserialize;
use syscalls::Errno;
use syscalls::limits::CONTEXT_TOKENS_MAX;

use super::text::VOCABULARY_MIN;
use crate::wire::DriverFault;

/// What a path begins with that names this driver.
pub const SCHEME: &str = "sim:";

/// The largest file of answers, in bytes.
const ANSWERS_BYTES_MAX: u64 = 1 << 20;

/// What generated text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMode {
    /// Lower-case letters, each chosen by all that stands before it.
    Alphabet,
    /// The prompt again, then the end.
    Echo,
    /// Pronounceable words, each letter chosen by all that stands before it.
    Markov,
}

/// A fixed answer to prompts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedAnswer {
    /// The prompt (since the last end of a message) has this in it.
    #[serde(rename = "match")]
    pub needle: String,
    /// What is generated then, before the end.
    pub answer: String,
}

macro_rules! script {
    ($($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:expr, $parse:expr;)+) => {
        /// What the sim driver is told to do. Steps count by the kernel's number unless it says otherwise.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Script { $($(#[doc = $doc])+ pub $field: $ty,)+ }

        impl Default for Script {
            fn default() -> Self { Script { $($field: $default,)+ } }
        }

        impl Script {
            /// Every name that a script may use.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            fn set(&mut self, name: &str, value: &str) -> Result<(), DriverFault> {
                match name {
                    $(stringify!($field) => self.$field = ($parse)(name, value)?,)+
                    _ => return Err(DriverFault::new(Errno::EINVAL, format!(
                        "the sim driver has no setting `{name}`; it has {}", Script::NAMES.join(", ")))),
                }
                Ok(())
            }
        }
    };
}

script! {
    /// Changes every generated text.
    seed: u64 = 1, number;
    /// How generated text looks.
    text: TextMode = TextMode::Markov, text_mode;
    /// Answers from a JSON list of `{"match":…,"answer":…}`; other prompts get text of the mode.
    answers: Vec<ScriptedAnswer> = Vec::new(), answers_file;
    /// About one token in so many ends the generation; 0 for never.
    eos: u64 = 0, number;
    /// Entries of the vocabulary; those beyond the bytes and special tokens are never generated.
    vocabulary: u32 = VOCABULARY_MIN, number;
    /// Whether the vocabulary can express every byte or ASCII alone.
    ascii: bool = false, switch;
    /// `chatml` or `none`.
    template: bool = false, template;
    /// Tokens of the largest context, where the mount does not say.
    context: u32 = 4096, number;
    /// Cells of the KV pool; as many as the context if 0.
    pool: u32 = 0, number;
    /// Cells that there really are, where fewer than the pool has; all of them if 0.
    cells: u32 = 0, number;
    /// Bytes of the weights, spread evenly over the layers.
    weights: u64 = 0, number;
    /// Bytes of the KV entries of one token, spread likewise.
    kv: u64 = 0, number;
    /// Bytes of the buffers of a pass.
    compute: u64 = 0, number;
    /// Layers that can be on one device or another.
    layers: u32 = 1, number;
    /// Sequences at once, at most.
    sequences: u16 = 256, number;
    /// Tokens of one step, at most.
    batch: u32 = 2048, number;
    /// Length of the vectors.
    embedding: u32 = 64, number;
    /// Whether it can generate.
    generates: bool = true, switch;
    /// Whether it can embed.
    embeds: bool = true, switch;
    /// Time of a step.
    step_us: u64 = 0, number;
    /// Time of each token in a step.
    token_us: u64 = 0, number;
    /// Tokens that are computed at a time: the rest of a tile takes as long as a whole one.
    tile: u32 = 1, number;
    /// Time of each row in a step.
    row_us: u64 = 0, number;
    /// Time of each token in a step for each token that stands before it, in nanoseconds.
    depth_ns: u64 = 0, number;
    /// Time of each row in a step for each token that stands before it, in nanoseconds.
    row_depth_ns: u64 = 0, number;
    /// Whether guesses in rows are checked.
    drafts: bool = false, switch;
    /// Whether parts of a sequence can be dropped and shared.
    ranges: bool = true, switch;
    /// Bytes of a saved page; 0 for a model whose pages cannot be saved.
    page_bytes: u64 = 4096, number;
    /// Pages that the host tier has room for; writing further ones fails as on a full disk.
    host_pages: u32 = u32::MAX, number;
    /// Pages that the disk tier has room for.
    disk_pages: u32 = u32::MAX, number;
    /// Finds every so many-th page damaged that it loads.
    corrupt_every: u64 = 0, number;
    /// Time of saving or moving a page.
    save_us: u64 = 0, number;
    /// Time of loading a page.
    load_us: u64 = 0, number;
    /// Time of loading.
    slow_load_ms: u64 = 0, number;
    /// Refuses to load, with this sentence.
    refuse: Option<String> = None, text;
    /// Aborts while loading.
    die_on_load: bool = false, switch;
    /// Aborts at the step with this number.
    die_at_step: u64 = 0, number;
    /// Aborts at every so many steps that this worker runs, and again in the next worker.
    die_every: u64 = 0, number;
    /// Aborts at tokenising or evaluating this text.
    die_on_text: Option<String> = None, text;
    /// Never comes back from the step with this number.
    hang_at_step: u64 = 0, number;
    /// Fails the step with this number as a whole, leaving everything as it was.
    fail_step: u64 = 0, number;
    /// Fails the first row of the step with this number.
    fail_row_at_step: u64 = 0, number;
    /// Answers the step with this number with nonsense.
    garbage_at_step: u64 = 0, number;
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, DriverFault> {
    value.parse().map_err(|_| bad_value(name, value, "a whole number within its range"))
}

fn switch(name: &str, value: &str) -> Result<bool, DriverFault> {
    match value {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(bad_value(name, value, "`true` or `false`")),
    }
}

fn template(name: &str, value: &str) -> Result<bool, DriverFault> {
    match value {
        "chatml" => Ok(true),
        "none" => Ok(false),
        _ => Err(bad_value(name, value, "`chatml` or `none`")),
    }
}

fn text(_: &str, value: &str) -> Result<Option<String>, DriverFault> {
    Ok(Some(value.to_owned()).filter(|text| !text.is_empty()))
}

fn text_mode(name: &str, value: &str) -> Result<TextMode, DriverFault> {
    match value {
        "alphabet" => Ok(TextMode::Alphabet),
        "echo" => Ok(TextMode::Echo),
        "markov" => Ok(TextMode::Markov),
        _ => Err(bad_value(name, value, "`alphabet`, `echo` or `markov`")),
    }
}

fn answers_file(_: &str, path: &str) -> Result<Vec<ScriptedAnswer>, DriverFault> {
    let trouble = |errno, why: String| DriverFault::new(errno, format!("the answers in `{path}`: {why}"));
    let bytes = std::fs::metadata(path).map_err(|e| trouble(Errno::ENOENT, e.to_string()))?.len();
    if bytes > ANSWERS_BYTES_MAX {
        return Err(trouble(Errno::E2BIG, format!("{bytes} bytes; the limit is {ANSWERS_BYTES_MAX}")));
    }
    let json = std::fs::read(path).map_err(|e| trouble(Errno::EACCES, e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| trouble(Errno::EINVAL, e.to_string()))
}

fn bad_value(name: &str, value: &str, wanted: &str) -> DriverFault {
    DriverFault::new(Errno::EINVAL, format!("the sim driver's `{name}` is `{value}`; give {wanted}"))
}

impl Script {
    /// Reads a script, with or without the `sim:` before it.
    ///
    /// # Errors
    ///
    /// EINVAL for unknown names and values, and what is wrong with the file of answers.
    pub fn parse(path: &str) -> Result<Script, DriverFault> {
        let mut script = Script::default();
        for pair in path.strip_prefix(SCHEME).unwrap_or(path).split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                DriverFault::new(Errno::EINVAL, format!("`{pair}` in a sim script; write name=value"))
            })?;
            script.set(name.trim(), value)?;
        }
        script.check()?;
        Ok(script)
    }

    /// Whether generated text depends on what the prompt says, not on its hash alone.
    pub(super) fn reads_prompts(&self) -> bool {
        self.text == TextMode::Echo || !self.answers.is_empty()
    }

    fn check(&self) -> Result<(), DriverFault> {
        let within = |name: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(bad_value(name, &value.to_string(), &format!("a number from {least} to {most}")))
        };
        within("vocabulary", self.vocabulary, VOCABULARY_MIN, 1 << 20)?;
        within("context", self.context, 1, CONTEXT_TOKENS_MAX)?;
        within("pool", self.pool, 0, 1 << 26)?;
        within("layers", self.layers, 1, 512)?;
        within("sequences", self.sequences.into(), 1, u16::MAX.into())?;
        within("batch", self.batch, 1, 1 << 20)?;
        within("embedding", self.embedding, 1, 1 << 14)
    }
}
