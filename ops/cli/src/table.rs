//! Plain tables: a header line and columns, so that `awk` can read them as well as people.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table of `rows` under `header`; columns of numbers are aligned to the right.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.map(str::to_uppercase));
    let numeric =
        |column: usize| rows.iter().all(|row| row[column].parse::<f64>().is_ok() || row[column] == "-");
    let numeric: Vec<bool> = (0..N).map(|column| !rows.is_empty() && numeric(column)).collect();
    for row in rows {
        table.add_row(row);
    }
    for (column, numeric) in table.column_iter_mut().zip(numeric) {
        column.set_padding((0, 2));
        if numeric {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<&str> = Vec::new();
    let text = table.to_string();
    let lines = text.lines().fold(lines, |mut lines, line| {
        lines.push(line.trim_end());
        lines
    });
    lines.join("\n")
}

/// Facts one under another, with their names in a column.
pub fn facts<const N: usize>(facts: [(&str, String); N]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// `1,2,3`, or `-` for none.
pub fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

/// The value, or `-`.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let text = table(["name", "partitions"], [["a".into(), "3".into()], ["longer".into(), "12".into()]]);
        assert_eq!(text, "NAME    PARTITIONS\na                3\nlonger          12");
        assert_eq!(table(["name"], []), "NAME");
        assert_eq!(facts([("id", "1".into()), ("longer", "x".into())]), "id      1\nlonger  x\n");
        assert_eq!(
            (list([1, 2]), list(Vec::<i32>::new()), or_dash(None::<i32>)),
            ("1,2".into(), "-".into(), "-".into())
        );
    }
}
