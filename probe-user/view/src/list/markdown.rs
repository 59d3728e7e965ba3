//! The list as a table in Markdown, as GitHub and GitLab draw it.

use crate::style::Style;
use whereis_port_model::Listing;

use super::columns::{Column, NONE};
use super::{SelectedColumns, usual};

/// The listeners as a table in Markdown. What is in a cell is text, whatever is in it.
pub fn markdown(listing: &Listing, style: &Style, chosen: Option<&SelectedColumns>) -> String {
    let columns = SelectedColumns::or(chosen, || usual(listing));
    let mut text = String::new();
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text.push_str(&row(columns.iter().map(|column| column.title().to_owned()).collect()));
    let rule = |column: &Column| if column.is_number() { "---:" } else { "---" }.to_owned();
    text.push_str(&row(columns.iter().map(rule).collect()));
    let style = Style { width: None, color: false, ..*style };
    for one in &listing.rows {
        let cells = columns.iter().map(|column| match column.value(one, &style) {
            Some(value) => escaped(&value),
            None => NONE.to_owned(),
        });
        text.push_str(&row(cells.collect()));
    }
    text
}

/// A cell without anything that Markdown or HTML would take for more than text.
fn escaped(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for c in cell.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '@' => text.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '|' | '[' | ']' | '#' | '~' | '!' | '$' => {
                text.push('\\');
                text.push(c);
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_nothing_but_text() {
        assert_eq!(escaped("a|b"), "a\\|b");
        assert_eq!(escaped("<img src=x>"), "&lt;img src=x&gt;");
        assert_eq!(escaped("[x](y) `z` @team"), "\\[x\\](y) \\`z\\` &#64;team");
    }
}
