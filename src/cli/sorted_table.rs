//! A table of answers that grows picture by picture in a file, and goes on where it ended.

use super::CliError;
use crate::app::table::text_cell;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// An open table.
pub struct SortedTable {
    path: PathBuf,
    file: File,
    /// First fields of its lines, as they are written.
    there: HashSet<String>,
}

impl SortedTable {
    /// The table in the file `path`, which is made where it is not there. The last line is taken away where it was not written to its
    /// end. `revision` is that of the classifier, the last field of each line.
    ///
    /// # Errors
    /// Where the file cannot be read or written, is no such table, or has answers of another revision.
    pub fn open(path: &Path, header: &str, revision: u64) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| unwritable(path, &error);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let mut text = String::new();
        match file.read_to_string(&mut text) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Err(not_a_table(path));
            }
            read => read.map_err(failed)?,
        };
        let lines = whole_lines(&text);
        let kept: usize = lines.iter().map(|line| line.len()).sum();
        let is_begun = |line: &&str| line.trim_end() == header;
        if !text.is_empty() && !lines.first().is_some_and(is_begun) {
            // A header that was cut off belongs to a table without answers.
            if !(lines.is_empty() && header.starts_with(text.as_str())) {
                return Err(not_a_table(path));
            }
        }
        let others = lines.iter().skip(1).map(|line| line.trim_end());
        if let Some(other) = others
            .map(last_field)
            .find(|own| *own != revision.to_string())
        {
            return Err(CliError::user(format!(
                "{} has answers of revision {other} of the classifier, which is at {revision} now",
                path.display()
            ))
            .hint("name another file, or delete this one to sort all pictures again"));
        }
        file.set_len(kept as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let there = lines
            .iter()
            .skip(1)
            .map(|line| first_field(line).to_owned());
        let mut table = Self {
            path: path.to_owned(),
            there: there.collect(),
            file,
        };
        if lines.is_empty() {
            table.write(&format!("{header}\n"))?;
        }
        Ok(table)
    }

    /// Whether it has a line that begins with the field `text`.
    pub fn has(&self, text: &str) -> bool {
        self.there.contains(&text_cell(text))
    }

    /// Adds whole lines.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&mut self, lines: &str) -> Result<(), CliError> {
        let written = self.file.write_all(lines.as_bytes());
        written.map_err(|error| unwritable(&self.path, &error))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::user(format!("{} cannot be written: {error}", path.display()))
}

fn not_a_table(path: &Path) -> CliError {
    CliError::user(format!("{} is not a table of answers", path.display()))
        .hint("name a file that is not there yet, or one that classify --out wrote")
}

/// Lines with their ends; a line break in quotes ends none, and what follows the last end is left out.
fn whole_lines(text: &str) -> Vec<&str> {
    let (mut lines, mut start, mut is_quoted) = (Vec::new(), 0, false);
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'\n' if !is_quoted => {
                lines.push(&text[start..=place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    lines
}

/// A field up to its comma, with its quotes.
fn first_field(line: &str) -> &str {
    let mut is_quoted = false;
    let end = line.bytes().position(|byte| {
        is_quoted ^= byte == b'"';
        byte == b',' && !is_quoted
    });
    end.map_or(line, |end| &line[..end])
}

/// A number at the end of a line.
fn last_field(line: &str) -> &str {
    line.rsplit(',').next().unwrap_or_default()
}
