//! What a code of the JSON means, how it is concluded, and how to check it by hand.

mod pages;

pub use pages::{CodePage, PAGES};

use super::layout::TextPage;
use super::style::{Ink, Style};

/// Which field of a document has a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeGroup {
    /// `reachable[].code`.
    Reach,
    /// `findings[].code`.
    Finding,
    /// `conditions[].code`.
    Condition,
    /// `evidence[].code`.
    Evidence,
    /// `audit_findings[].code`.
    Audit,
}

impl CodeGroup {
    /// Where that is, as people write it.
    pub fn place(self) -> &'static str {
        match self {
            Self::Reach => "reachable[].code",
            Self::Finding => "findings[].code",
            Self::Condition => "conditions[].code",
            Self::Evidence => "evidence[].code",
            Self::Audit => "audit_findings[].code",
        }
    }
}

/// All pages of a code; `-` may stand for `_`.
pub fn of(code: &str) -> Vec<&'static CodePage> {
    let code = code.replace('-', "_").to_lowercase();
    PAGES.iter().filter(|page| page.code == code).collect()
}

/// Codes that are written like this one, for who mistyped it.
pub fn like(code: &str) -> Vec<&'static str> {
    let code = code.replace('-', "_").to_lowercase();
    let has = |page: &&CodePage| {
        page.code.split('_').any(|word| word.len() > 3 && code.contains(word))
            || code.len() > 2 && page.code.contains(&code)
    };
    let mut all: Vec<&str> = PAGES.iter().filter(has).map(|page| page.code).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The pages as text.
pub fn text(pages: &[&CodePage], style: &Style) -> String {
    let mut sheet = TextPage::new(style);
    for (at, page) in pages.iter().enumerate() {
        if at > 0 {
            sheet.line("");
        }
        sheet.line(&format!("{}  {}", style.paint(Ink::Strong, page.code), page.group.place()));
        sheet.line("");
        sheet.paragraph("  ", "  ", None, page.means);
        sheet.paragraph("  how it is known:  ", "                    ", None, page.concluded);
        for (at, command) in page.check.iter().enumerate() {
            let lead = if at == 0 { "  check by hand:    " } else { "                    " };
            sheet.line(&format!("{lead}{command}"));
        }
    }
    sheet.finish()
}

/// Every code with what it means, by where it stands.
pub fn list(style: &Style) -> String {
    let mut sheet = TextPage::new(style);
    let width = PAGES.iter().map(|page| page.code.len()).max().unwrap_or_default();
    let mut before = None;
    for page in PAGES {
        if before != Some(page.group) {
            if before.is_some() {
                sheet.line("");
            }
            sheet.line(&style.paint(Ink::Strong, page.group.place()));
            before = Some(page.group);
        }
        let lead = format!("  {:width$}  ", page.code);
        sheet.paragraph(&lead, &" ".repeat(width + 4), None, page.means);
    }
    sheet.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The codes of an enumeration of the schema.
    fn codes(name: &str) -> BTreeSet<String> {
        let schema: serde_json::Value = serde_json::from_str(&crate::json::schema()).unwrap();
        let of = &schema["$defs"][name];
        let all = of["oneOf"].as_array().or(of["enum"].as_array());
        let words = all.unwrap_or_else(|| panic!("no {name}: {of}")).iter();
        words.map(|one| one["const"].as_str().or(one.as_str()).unwrap().to_owned()).collect()
    }

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        for (group, name) in [
            (CodeGroup::Reach, "CauseCode"),
            (CodeGroup::Finding, "FindingCode"),
            (CodeGroup::Condition, "ConditionCode"),
            (CodeGroup::Evidence, "EvidenceCode"),
            (CodeGroup::Audit, "AuditCode"),
        ] {
            let pages = PAGES.iter().filter(|page| page.group == group);
            let told: BTreeSet<String> = pages.map(|page| page.code.to_owned()).collect();
            assert_eq!(told, codes(name), "{name}");
        }
    }

    #[test]
    fn a_code_is_found_as_people_write_it() {
        assert_eq!(of("Not-Published").len(), 1);
        assert_eq!(of("queue_full").len(), 2, "of a statement and of a finding");
        assert!(of("nonsense").is_empty());
        assert!(
            like("not_publishd").contains(&"published") || like("publish").contains(&"published")
        );
    }
}
