//! What builtins that list things have in common: with `--json` one object on one line, else a table.

use std::collections::BTreeMap;

use serde::Serialize;

use super::failure::Failure;
use crate::terminal::output::Output;
use crate::terminal::table::{Align, Table};

/// How one kind of thing is listed.
pub struct Listing<const COLUMNS: usize> {
    /// The field of the object that `--json` prints.
    pub field: &'static str,
    /// What stands above the columns of the table.
    pub columns: [(&'static str, Align); COLUMNS],
}

impl<const COLUMNS: usize> Listing<COLUMNS> {
    /// Prints all things as JSON, with every field, or the rows of a table.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written.
    pub fn print<T: Serialize>(
        &self,
        json: bool,
        things: &[T],
        rows: impl FnOnce() -> Vec<[String; COLUMNS]>,
    ) -> Result<(), Failure> {
        let mut output = Output::stdout();
        if json {
            output.write_json(&BTreeMap::from([(self.field, things)]))?;
            return Ok(());
        }
        let mut table = Table::new(&self.columns);
        rows().into_iter().for_each(|row| table.row(row));
        output.write(&table.show())?;
        Ok(())
    }
}
