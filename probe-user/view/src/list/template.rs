//! The list by a template that somebody wrote: text with cells in it, in the language of Jinja.

use std::collections::BTreeMap;
use std::fmt;

use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use crate::json;
use crate::sanitize::clean;
use crate::style::Style;
use whereis_port_model::{Host, Listing, SourceReport};

use super::columns::{ALL, Column};

/// What the template is called in errors.
const NAME: &str = "--template";

/// A template that was understood.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
}

/// What is wrong with a template: where, and what.
#[derive(Debug, PartialEq, Eq)]
pub struct TemplateError {
    line: Option<usize>,
    what: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{NAME}, line {line}: {}", self.what),
            None => write!(f, "{NAME}: {}", self.what),
        }
    }
}

impl std::error::Error for TemplateError {}

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        let kind = error.kind().to_string();
        let what = match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind,
        };
        Self { line: error.line(), what }
    }
}

impl Template {
    /// Understands a template.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        // What names have in them is text, and never moves the cursor.
        environment.set_formatter(|out, _, value| {
            if value.is_undefined() {
                return Err(minijinja::ErrorKind::UndefinedError.into());
            }
            let text = if value.is_none() { String::new() } else { value.to_string() };
            out.write_str(&clean(&text)).map_err(minijinja::Error::from)
        });
        environment.add_template_owned(NAME, text.to_owned())?;
        Ok(Self { environment })
    }

    /// The template for each row, one line after the other. Every column is a name in it that stands
    /// for text, empty where there is nothing; `row` is the row as JSON has it.
    ///
    /// # Errors
    /// What it asks for that there is none of, and in which line.
    pub fn render(
        &self,
        listing: &Listing,
        host: &Host,
        sources: &[SourceReport],
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME)?;
        let document = json::list(listing, host, sources);
        let mut text = String::new();
        for (row, listener) in listing.rows.iter().zip(&document.listeners) {
            let cells = ALL.iter().filter(|column| column.is_of_rows()).map(|column| {
                let cell = match column {
                    Column::Process => column.value(row, &Style::PLAIN),
                    column => column.exact(row),
                };
                (column.name(), Value::from(cell.unwrap_or_default().into_owned()))
            });
            let whole = ("row".to_owned(), Value::from(Serde(listener)));
            let context: BTreeMap<String, Value> = cells.chain([whole]).collect();
            text.push_str(&template.render(Value::from(context))?);
            text.push('\n');
        }
        Ok(text)
    }
}

/// How many steps one row may take: a template that never ends is a mistake.
const FUEL: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, HOSTILE, host, sources};

    fn render(text: &str) -> Result<String, String> {
        let template = Template::parse(text).map_err(|error| error.to_string())?;
        let mut listing = fixtures::listing();
        listing.rows.truncate(2);
        template.render(&listing, &host(), &sources()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_row_is_a_line() {
        let text = render("{{ port }}/{{ proto }} {{ process }}{% if pod %} {{ pod }}{% endif %}");
        assert!(text.unwrap().starts_with("20971/tcp kube-apiserver kube-system/"));
        let text = render("{{ row.port + 1 }} {{ row.process.name }} {{ row.service }}|").unwrap();
        assert!(text.starts_with("20972 kube-apiserver |\n"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let wrong = |text: &str| render(text).unwrap_err();
        assert!(wrong("{{ port }}\n{{ nosuch }}").starts_with("--template, line 2: "));
        assert!(wrong("a\n\n{% if %}").starts_with("--template, line 3: "));
        assert!(wrong("{{ row.nosuch }}").starts_with("--template, line 1: undefined value"));
        assert!(
            wrong(
                "{% for i in range(100000) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}"
            )
            .contains("line 1")
        );
    }

    #[test]
    fn names_are_text() {
        let mut listing = fixtures::listing();
        listing.rows.truncate(1);
        listing.rows[0].target_detail = Some(HOSTILE.to_owned());
        let template = Template::parse("{{ row.target.detail }}{{ row }}").unwrap();
        let text = template.render(&listing, &host(), &sources()).unwrap();
        let is_bad = |c: char| c != '\n' && whereis_port_model::escape::is_unsafe(c);
        assert!(!text.chars().any(is_bad), "{text:?}");
    }
}
