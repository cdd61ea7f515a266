//! Writes files of tokens.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{About, HEADER_BYTES, MAGIC, TokenFile};
use crate::data::error::DataError;
use crate::token::hex;

/// Writes a file of tokens.
pub struct TokenWriter {
    path: PathBuf,
    partial: tempfile::NamedTempFile,
    out: BufWriter<File>,
    wide: bool,
    vocabulary: u32,
    digest: [u8; 24],
    content: Sha256,
    tokens: u64,
    ends: Vec<u64>,
    classes: Vec<u32>,
}

impl TokenWriter {
    /// Begins a file. `digest` tells what it is made of.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub fn create(path: &Path, vocabulary: u32, digest: [u8; 24]) -> Result<TokenWriter, DataError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        let partial = tempfile::Builder::new().prefix(".tokens-").tempfile_in(folder);
        let partial = partial.map_err(DataError::io(folder))?;
        let file = partial.reopen().map_err(DataError::io(path))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        out.write_all(&[0; HEADER_BYTES]).map_err(DataError::io(path))?;
        let wide = vocabulary > 1 << 16;
        Ok(TokenWriter {
            path: path.to_owned(),
            partial,
            out,
            wide,
            vocabulary,
            digest,
            content: Sha256::new(),
            tokens: 0,
            ends: Vec::new(),
            classes: Vec::new(),
        })
    }

    /// Adds tokens to the record that is open.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        for token in tokens {
            assert!(
                *token < self.vocabulary,
                "token {token} is beyond the vocabulary of {}",
                self.vocabulary
            );
            let bytes = &token.to_le_bytes()[..self.width() as usize];
            self.out.write_all(bytes).map_err(DataError::io(&self.path))?;
            self.content.update(bytes);
        }
        self.tokens += tokens.len() as u64;
        Ok(())
    }

    /// Ends a record.
    pub fn end(&mut self, class: u32) {
        self.ends.push(self.tokens);
        self.classes.push(class);
    }

    /// Writes the rest and gives the file its name.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn finish(mut self, about: &About) -> Result<TokenFile, DataError> {
        self.ends.iter().for_each(|end| self.content.update(end.to_le_bytes()));
        self.classes.iter().for_each(|class| self.content.update(class.to_le_bytes()));
        let content = hex(&self.content.finalize_reset());
        let json = serde_json::to_vec(&About { content, ..about.clone() }).expect("texts become JSON");
        let header = self.header(json.len() as u64);
        let path = self.path.clone();
        let written = (|| {
            let bytes = self.tokens * self.width();
            self.out.write_all(&[0; 8][..(bytes.next_multiple_of(8) - bytes) as usize])?;
            self.ends.iter().try_for_each(|end| self.out.write_all(&end.to_le_bytes()))?;
            self.classes.iter().try_for_each(|class| self.out.write_all(&class.to_le_bytes()))?;
            self.out.write_all(&json)?;
            let file = self.out.into_inner().map_err(|error| error.into_error())?;
            std::os::unix::fs::FileExt::write_all_at(&file, &header, 0)?;
            self.partial.persist(&path).map(drop).map_err(|error| error.error)
        })();
        written.map_err(DataError::io(&path))?;
        TokenFile::open(&path)
    }

    fn width(&self) -> u64 {
        if self.wide { 4 } else { 2 }
    }

    fn header(&self, about_bytes: u64) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend((self.width() as u32).to_le_bytes());
        header.extend(self.vocabulary.to_le_bytes());
        header.extend(self.tokens.to_le_bytes());
        header.extend((self.ends.len() as u64).to_le_bytes());
        header.extend(about_bytes.to_le_bytes());
        header.extend(self.digest);
        assert_eq!(header.len(), HEADER_BYTES);
        header
    }
}
