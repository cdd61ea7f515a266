//! Tables in aligned columns, by the width that characters have on a terminal.

use unicode_width::UnicodeWidthStr;

use super::clean::clean;

/// On which side of a column its cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table that is made row by row and shown at once.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Names that others chose are cleaned, and are shown on one line.
    ///
    /// # Panics
    ///
    /// The row has another number of cells than the table has columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().map(|c| clean(&c).replace(['\n', '\t'], " ")).collect();
        assert_eq!(cells.len(), self.columns.len(), "a row has one cell for each column");
        self.rows.push(cells);
    }

    /// The table as lines, the header first; the last column is not padded.
    pub fn show(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines().map(|cells| cells[column].width()).max().unwrap_or(0))
            .collect();
        lines().map(|cells| self.line(cells, &widths)).collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .zip(&self.columns)
            .map(|((cell, width), (_, align))| {
                let padding = " ".repeat(width - cell.width());
                match align {
                    Align::Left => format!("{cell}{padding}"),
                    Align::Right => format!("{padding}{cell}"),
                }
            })
            .collect();
        format!("{}\n", padded.join(GAP).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_align_by_terminal_width() {
        let mut table = Table::new(&[("PID", Align::Right), ("STATE", Align::Left), ("NAME", Align::Left)]);
        table.row(["2".into(), "idle".into(), "qa".into()]);
        table.row(["1234".into(), "世界".into(), "x\u{1b}[31m\ny".into()]);
        expect![[r#"
             PID  STATE  NAME
               2  idle   qa
            1234  世界   x y
        "#]]
        .assert_eq(&table.show());
    }
}
