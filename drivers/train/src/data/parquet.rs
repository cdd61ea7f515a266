//! Parquet: the files that hubs have data sets in. One column of text is read, row group after row group.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

use super::error::DataError;
use super::record::{Mark, Record, Records};

/// Reads a column of text.
pub fn read(path: &Path, column: &str) -> Result<Records, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    let bad =
        |error: parquet::errors::ParquetError| DataError::file(path, format!("is no Parquet file: {error}"));
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let schema = reader.metadata().file_metadata().schema();
    let wanted = schema.get_fields().iter().find(|field| field.name() == column).cloned();
    let Some(wanted) = wanted else {
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        return Err(DataError::file(path, format!("has no column `{column}`; it has {}", names.join(", "))));
    };
    let projection =
        parquet::schema::types::Type::group_type_builder(schema.name()).with_fields(vec![wanted]);
    let projection = projection.build().map_err(bad)?;
    let rows = parquet::record::reader::RowIter::from_file_into(Box::new(reader));
    let rows = rows.project(Some(projection)).map_err(bad)?;
    let path: std::sync::Arc<Path> = path.into();
    Ok(Box::new(rows.zip(1..).map(move |(row, number)| {
        let mark = Mark::row(&path, number);
        let row = row.map_err(|error| mark.error(error.to_string()))?;
        match text(&row) {
            Some(text) => Ok(Record::Text { text, ends: true }.at(mark)),
            None => Err(mark.error("the column is no text")),
        }
    })))
}

fn text(row: &Row) -> Option<String> {
    match row.get_column_iter().next()? {
        (_, Field::Str(text)) => Some(text.clone()),
        (_, Field::Bytes(bytes)) => Some(bytes.as_utf8().ok()?.to_owned()),
        (_, Field::Null) => Some(String::new()),
        _ => None,
    }
}
