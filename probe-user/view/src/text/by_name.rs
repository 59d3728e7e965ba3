//! What a controller of Ingress or Gateway leads to, in a few lines.

use std::fmt::Write as _;

use crate::style::Style;
use whereis_port_model::{ByName, NameRoute, NameTarget, PathCompare};

/// How many names are shown without `-v`.
const SHOWN: usize = 8;

pub(super) fn lines(style: &Style, all: &ByName, verbose: bool) -> Vec<String> {
    let shown = if verbose { all.names.len() } else { all.names.len().min(SHOWN) };
    let mut lines: Vec<String> = Vec::new();
    let mut said: Vec<Option<&str>> = Vec::new();
    for route in all.names.iter().take(shown) {
        let class = route.class.as_deref();
        if route.serves.is_none() && !said.contains(&class) {
            said.push(class);
            let of = class.map_or_else(
                || "without a class".to_owned(),
                |class| format!("of class {}", style.text(class)),
            );
            lines.push(format!(
                "routes by name {of}; whether this {} serves them is not known:",
                all.controller
            ));
        }
        lines.push(line(style, route));
    }
    let more = all.names.len() - shown + all.more;
    if more > 0 {
        lines.push(format!("and {more} more{}", if verbose { "" } else { " (-v shows them)" }));
    }
    lines
}

/// `app.example.com/api → Service shop/api:80 (Ingress shop/app)`
fn line(style: &Style, route: &NameRoute) -> String {
    let rule = &route.rule;
    let mut text = String::new();
    if rule.host.is_some() || rule.path.is_some() || rule.matches.is_none() {
        let host = rule.host.as_deref().map_or_else(|| "any host".to_owned(), |h| style.text(h));
        let path = rule.path.as_deref().map_or_else(|| "/".to_owned(), |path| style.text(path));
        let space = if rule.host.is_none() { " " } else { "" };
        let _ = write!(text, "{host}{space}{path}");
        match rule.compare {
            PathCompare::Exact => text.push_str(" (exactly)"),
            PathCompare::Regex => text.push_str(" (regular expression)"),
            PathCompare::Prefix | PathCompare::Controller => {}
        }
    }
    if let Some(matches) = &rule.matches {
        let and = if text.is_empty() { "" } else { ", if " };
        let _ = write!(text, "{and}{}", style.text(matches));
    }
    let target = |to: &NameTarget| {
        let port = to.port.as_deref().map_or_else(String::new, |p| format!(":{}", style.text(p)));
        format!("{}/{}{port}", style.text(&to.service.namespace), style.text(&to.service.name))
    };
    let to: Vec<String> = rule.to.iter().map(target).collect();
    let to = if to.is_empty() { "no Service".to_owned() } else { super::notes::few(&to) };
    let object = &route.object;
    let (namespace, name) = (style.text(&object.namespace), style.text(&object.name));
    let _ =
        write!(text, " {} {to} ({} {namespace}/{name})", style.glyphs().arrow, route.kind.as_str());
    text
}
