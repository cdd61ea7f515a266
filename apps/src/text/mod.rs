//! Text as people write it: sentences, languages, passages.
