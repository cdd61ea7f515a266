//! Reads a specification: RON, then the settings of the command line, one after another.

use std::path::Path;

use ron::extensions::Extensions;
use serde_json::Value;
use syscalls::call::nearest;

use super::TrainSpec;
use super::error::SpecError;

impl TrainSpec {
    /// Reads a file and applies settings of the form `part.of.it=value`.
    ///
    /// # Errors
    ///
    /// Where it stands and what is wrong; for a name that there is not, the one that is nearest.
    pub fn load(path: &Path, settings: &[String]) -> Result<TrainSpec, SpecError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| SpecError::Io { path: path.to_owned(), error })?;
        TrainSpec::parse(&text, &path.display().to_string())?.with(settings)
    }

    /// Reads the text of a specification. `name` stands before the line in errors.
    ///
    /// # Errors
    ///
    /// Where it stands and what is wrong.
    pub fn parse(text: &str, name: &str) -> Result<TrainSpec, SpecError> {
        options().from_str(text).map_err(|error| {
            let place = format!("{name}:{}:{}", error.span.start.line, error.span.start.col);
            SpecError::Text { place, why: with_nearest(&error.code) }
        })
    }

    /// Reads a specification in JSON and applies settings. `name` stands before the line in errors.
    ///
    /// # Errors
    ///
    /// Where it stands and what is wrong; for a name that there is not, the one that is nearest.
    pub fn from_json(text: &str, name: &str, settings: &[String]) -> Result<TrainSpec, SpecError> {
        let spec: TrainSpec = serde_json::from_str(text).map_err(|error| {
            let place = format!("{name}:{}:{}", error.line(), error.column());
            SpecError::Text { place, why: with_nearest_of(&error.to_string()) }
        })?;
        spec.with(settings)
    }

    /// The text of it, which [`TrainSpec::parse`] reads.
    pub fn to_ron(&self) -> String {
        let pretty = ron::ser::PrettyConfig::new().depth_limit(3);
        options().to_string_pretty(self, pretty).expect("a specification has a form in RON")
    }

    /// Applies settings, and checks what comes of it.
    ///
    /// # Errors
    ///
    /// A setting that names nothing, or a value out of its range.
    pub fn with(self, settings: &[String]) -> Result<TrainSpec, SpecError> {
        let mut tree = serde_json::to_value(&self).expect("a specification has a form in JSON");
        if serde_json::from_value::<TrainSpec>(tree.clone()).ok().as_ref() != Some(&self) {
            // RON has numbers that are infinite, or none, and JSON has not: there such a number is missing.
            self.check()?;
            let why = "one of its numbers is infinite, or no number at all; give one that is finite";
            return Err(SpecError::Unfit(why.into()));
        }
        for setting in settings {
            // Each alone, so that the error names the one that is wrong.
            tree = changed(&tree, setting)?;
        }
        let spec: TrainSpec = serde_json::from_value(tree).expect("it was read after the last setting");
        spec.check()?;
        Ok(spec)
    }
}

/// `Some` and the second brackets of `Gpt((…))` may be left out.
fn options() -> ron::Options {
    let short = Extensions::IMPLICIT_SOME | Extensions::UNWRAP_NEWTYPES | Extensions::UNWRAP_VARIANT_NEWTYPES;
    ron::Options::default().with_default_extension(short)
}

/// RON's sentence, with a suggestion where a name is wrong.
fn with_nearest(error: &ron::Error) -> String {
    let (expected, found) = match error {
        ron::Error::NoSuchStructField { expected, found, .. }
        | ron::Error::NoSuchEnumVariant { expected, found, .. } => (expected, found),
        _ => return error.to_string(),
    };
    match nearest(found, expected) {
        Some(near) => format!("there is no `{found}` here; did you mean `{near}`?"),
        None => format!("there is no `{found}` here; there is {}", expected.join(", ")),
    }
}

/// The same of serde's sentence, which has the names between backticks: first the one that there is not.
fn with_nearest_of(why: &str) -> String {
    let mut names = why.split('`').skip(1).step_by(2);
    let unknown = why.starts_with("unknown field") || why.starts_with("unknown variant");
    let Some(found) = names.next().filter(|_| unknown) else { return why.to_owned() };
    match nearest(found, &names.collect::<Vec<_>>()) {
        Some(near) => format!("there is no `{found}` here; did you mean `{near}`?"),
        None => why.to_owned(),
    }
}

/// The specification with one part changed.
fn changed(tree: &Value, setting: &str) -> Result<Value, SpecError> {
    let fail = |why: String| SpecError::Set { setting: setting.to_owned(), why };
    let Some((path, value)) = setting.split_once('=') else {
        return Err(fail("write NAME=VALUE, such as optimiser.lr=1e-3".into()));
    };
    let with = |value: Value| {
        let mut tree = tree.clone();
        let mut place = &mut tree;
        for name in path.trim().split('.') {
            place = descend(place, name).map_err(fail)?;
        }
        *place = value;
        match serde_json::from_value::<TrainSpec>(tree.clone()) {
            Ok(_) => Ok(tree),
            Err(error) => Err(fail(error.to_string())),
        }
    };
    // A number, `true`, `null`, or JSON; what is none of these is text or the name of a variant.
    let value = value.trim();
    let plain = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    with(plain).or_else(|error| of_variant(value).map_or(Err(error), with))
}

/// A variant of one value, such as `Cuda(0)`.
fn of_variant(value: &str) -> Option<Value> {
    let (name, inner) = value.strip_suffix(')')?.split_once('(')?;
    Some(serde_json::json!({ name: serde_json::from_str::<Value>(inner).ok()? }))
}

/// The part of this name. The name of a variant may be left out: `optimiser.lr` is `optimiser.AdamW.lr`.
fn descend<'a>(tree: &'a mut Value, name: &str) -> Result<&'a mut Value, String> {
    let Value::Object(fields) = tree else {
        return Err(format!("there is nothing below it called `{name}`"));
    };
    if fields.contains_key(name) {
        return Ok(fields.get_mut(name).expect("it was there"));
    }
    let mut names: Vec<String> = fields.keys().cloned().collect();
    if let [variant] = names.as_slice()
        && let Some(Value::Object(inner)) = fields.get(variant)
    {
        if inner.contains_key(name) {
            let inside = fields.values_mut().next().and_then(Value::as_object_mut).expect("it was an object");
            return Ok(inside.get_mut(name).expect("it was there"));
        }
        names = inner.keys().cloned().collect();
    }
    let candidates: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(match nearest(name, &candidates) {
        Some(near) => format!("there is no `{name}`; did you mean `{near}`?"),
        None => format!("there is no `{name}`; there is {}", candidates.join(", ")),
    })
}
