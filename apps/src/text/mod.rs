//! Text as people write it: sentences, languages, passages.

pub mod abbreviation;
pub mod language;
pub mod layout;
pub mod script;
pub mod sentence;
