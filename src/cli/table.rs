//! Tables for people, and the formats of their cells.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::json;

use super::push::plain;

/// Formats a table. Each column is as wide as its widest cell. Columns whose title ends in `>` are aligned to the right, for
/// numbers.
pub(super) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<(&str, bool)> =
        titles.iter().map(|title| title.strip_suffix('>').map_or((*title, false), |title| (title, true))).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([titles[column].0.len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: Vec<String>| {
        let cells = cells.iter().enumerate().map(|(column, cell)| {
            let (cell, width) = (plain(cell), widths[column]);
            if titles[column].1 { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head = titles.iter().map(|(title, _)| (*title).to_owned()).collect();
    std::iter::once(head).chain(rows.iter().cloned()).map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(super) fn size(bytes: i64) -> String {
    // A count may be negative for a moment; showing the sign would not help.
    indicatif::BinaryBytes(bytes.max(0).unsigned_abs()).to_string()
}

/// Returns a line of JSON for each item.
pub(super) fn lines(items: impl Iterator<Item = impl Serialize>) -> String {
    items.map(|item| json!(item).to_string()).collect::<Vec<_>>().join("\n")
}

/// Returns `-` for a missing value.
pub(super) fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_move_no_cursor() {
        let rows = [vec!["a\u{1b}[2J".to_owned(), "7".to_owned()], vec!["longer name".to_owned(), "1234".to_owned()]];
        let lines = ["NAME            N", "a\u{fffd}[2J           7", "longer name  1234"];
        assert_eq!(table(&["NAME", "N>"], &rows), lines.join("\n"));
        assert_eq!(table(&["NAME", "N>"], &[]), "NAME  N");
    }
}
