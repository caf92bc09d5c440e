//! Tables: columns as wide as their widest cell, no lines drawn.

use anstyle::{Reset, Style};

use super::style;

/// Spaces between columns.
const GAP: usize = 3;

/// A table under construction.
#[derive(Debug, Default)]
pub(crate) struct Table {
    header: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

/// One cell: its text, and how it looks.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// The same in this style.
    pub(crate) fn style(mut self, style: Style) -> Self {
        self.style = style;
        self
    }

    /// The same, aligned to the right: for numbers.
    pub(crate) fn right(mut self) -> Self {
        self.right = true;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        // What others named must not move the cursor (a label, a command).
        let text = text.into().replace(|c: char| c.is_control(), " ");
        Self {
            text,
            style: Style::new(),
            right: false,
        }
    }
}

impl Table {
    /// A table with these columns; a heading that begins with `>` is over numbers.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let header = headings
            .iter()
            .map(|heading| match heading.strip_prefix('>') {
                Some(heading) => Cell::from(heading).style(style::HEADING).right(),
                None => Cell::from(*heading).style(style::HEADING),
            });
        Self {
            header: header.collect(),
            rows: Vec::new(),
        }
    }

    /// A table of names and values without a heading.
    pub(crate) fn facts() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a name and its value.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Cell>) {
        self.row([
            Cell::from(format!("{name}:")).style(style::FAINT),
            value.into(),
        ]);
    }

    /// The text, a newline after each row.
    pub(crate) fn render(&self, colour: bool) -> String {
        let heading = (!self.header.is_empty()).then_some(&self.header);
        let rows: Vec<&Vec<Cell>> = heading.into_iter().chain(&self.rows).collect();
        let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                rows.iter()
                    .filter_map(|row| row.get(column))
                    .map(Cell::width)
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in rows {
            render_row(&mut text, row, &widths, colour);
        }
        text
    }
}

fn render_row(text: &mut String, row: &[Cell], widths: &[usize], colour: bool) {
    // Nothing is padded after the last cell that says something.
    let last = row.iter().rposition(|cell| !cell.text.is_empty());
    for (column, cell) in row.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
        let padding = " ".repeat(widths[column] - cell.width());
        if cell.right {
            text.push_str(&padding);
        }
        if colour && cell.style != Style::new() {
            text.push_str(&format!(
                "{}{}{}",
                cell.style.render(),
                cell.text,
                Reset.render()
            ));
        } else {
            text.push_str(&cell.text);
        }
        if Some(column) != last {
            if !cell.right {
                text.push_str(&padding);
            }
            text.push_str(&" ".repeat(GAP));
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cells(texts: &[&str]) -> Vec<Cell> {
        texts.iter().map(|text| Cell::from(*text)).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATUS", ">SIZE"]);
        table.row([
            Cell::from("web"),
            Cell::from("running"),
            Cell::from("5 MiB").right(),
        ]);
        table.row([
            Cell::from("database"),
            Cell::from(""),
            Cell::from("64 MiB").right(),
        ]);
        let expected = "\
NAME       STATUS      SIZE
web        running    5 MiB
database             64 MiB
";
        assert_eq!(table.render(false), expected);
    }

    #[test]
    fn colour_changes_no_alignment() {
        let mut table = Table::new(&["A", "B"]);
        table.row([Cell::from("x").style(style::GOOD), Cell::from("y")]);
        let coloured = table.render(true);
        assert!(coloured.contains('\x1b'));
        let mut plain = String::new();
        let mut parts = coloured.split('\x1b');
        plain.push_str(parts.next().unwrap());
        for part in parts {
            plain.push_str(part.split_once('m').unwrap().1);
        }
        assert_eq!(plain, table.render(false));
    }

    #[test]
    fn what_others_named_cannot_move_the_cursor() {
        let mut table = Table::facts();
        table.fact("command", "a\x1b[2Jb\nc");
        assert_eq!(table.render(false), "command:   a [2Jb c\n");
    }

    proptest! {
        #[test]
        fn every_cell_begins_under_its_heading(
            rows in prop::collection::vec(prop::collection::vec("[a-zé]{1,8}", 3), 1..6),
        ) {
            let mut table = Table::new(&["A", "B", "C"]);
            for row in &rows {
                table.row(row.iter().map(|text| Cell::from(text.as_str())));
            }
            let text = table.render(false);
            let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
            let column = |heading| lines[0].iter().position(|c| *c == heading).unwrap();
            for (row, line) in rows.iter().zip(&lines[1..]) {
                for (cell, heading) in row.iter().zip(['A', 'B', 'C']) {
                    let begin = column(heading);
                    let shown: String = line[begin..begin + cell.chars().count()].iter().collect();
                    prop_assert_eq!(&shown, cell);
                }
                prop_assert!(line.last() != Some(&' '));
            }
        }

        #[test]
        fn rows_of_any_length_never_panic(lengths in prop::collection::vec(0_usize..5, 0..5)) {
            let mut table = Table::new(&["A", "B"]);
            for length in lengths {
                table.row(cells(&vec!["x"; length]));
            }
            table.render(true);
        }
    }
}
