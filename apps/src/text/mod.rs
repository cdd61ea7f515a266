//! Text as people write it: documents and their layout, languages, sentences, chunks for a model, and terms to search by.

pub mod abbreviation;
pub mod bm25;
pub mod chunk;
pub mod document;
pub mod language;
pub mod layout;
pub mod passage;
pub mod script;
pub mod sentence;
pub mod stopwords;
pub mod terms;
