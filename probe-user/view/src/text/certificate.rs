//! A server's certificate in one line.

use crate::style::{Ink, Style};
use crate::trace::time::day;
use whereis_port_model::{CertificateName, Served, Validity};

/// What stands before it.
pub(super) const LABEL: &str = "certificate";
/// How many of its names are shown without `-v`. Proxies have hundreds.
const NAMES: usize = 12;

/// `kube-apiserver, names kubernetes, 10.96.0.1, until 2027-01-02 (by CA kubernetes)`.
pub(super) fn text(style: &Style, served: &Served, verbose: bool) -> String {
    let certificate = &served.certificate;
    let addresses = certificate.addresses.iter().map(ToString::to_string);
    let names: Vec<String> =
        certificate.dns_names.iter().map(|name| style.text(name)).chain(addresses).collect();
    let shown = if verbose { names.len() } else { names.len().min(NAMES) };
    let mut parts = vec![short(style, &certificate.subject)];
    if !names.is_empty() {
        let word = if names.len() == 1 { "name" } else { "names" };
        parts.push(format!("{word} {}", names[..shown].join(", ")));
    }
    if names.len() > shown {
        parts.push(format!("{} more (-v shows them)", names.len() - shown));
    }
    let (from, until) = (day(certificate.from), day(certificate.until));
    parts.push(match served.validity {
        Validity::Valid => format!("until {until}"),
        Validity::Expired => style.paint(Ink::Warn, &format!("expired {until}")),
        Validity::NotYet => {
            style.paint(Ink::Warn, &format!("not valid before {from}, until {until}"))
        }
    });
    let by = if certificate.issuer == certificate.subject {
        "signed by itself".to_owned()
    } else {
        format!("by CA {}", short(style, &certificate.issuer))
    };
    format!("{} ({by})", parts.join(", "))
}

/// What else there is to say.
pub(super) fn more(style: &Style, served: &Served) -> [String; 4] {
    let certificate = &served.certificate;
    [
        format!("subject {}", style.text(&certificate.subject.full)),
        format!("issuer {}", style.text(&certificate.issuer.full)),
        format!("valid from {} until {}", day(certificate.from), day(certificate.until)),
        format!("SHA-256 {}", style.text(&certificate.sha256)),
    ]
}

fn short(style: &Style, name: &CertificateName) -> String {
    match &name.common {
        Some(common) => style.text(common),
        None if name.full.is_empty() => "without a name".to_owned(),
        None => style.text(&name.full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::Certificate;

    fn named(common: &str) -> CertificateName {
        CertificateName { full: format!("CN={common}"), common: Some(common.to_owned()) }
    }

    fn served(validity: Validity) -> Served {
        let certificate = Certificate {
            subject: named("kube-apiserver"),
            issuer: named("kubernetes"),
            dns_names: vec!["kubernetes".to_owned(), "kubernetes.default".to_owned()],
            addresses: vec!["10.96.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()],
            from: 1_767_312_000,
            until: 1_798_848_000,
            sha256: "00".repeat(32),
        };
        Served { certificate, validity }
    }

    #[test]
    fn one_line_says_who_for_whom_and_how_long() {
        let names = "kube-apiserver, names kubernetes, kubernetes.default, 10.96.0.1, 127.0.0.1";
        for (validity, how_long) in [
            (Validity::Valid, "until 2027-01-02"),
            (Validity::Expired, "expired 2027-01-02"),
            (Validity::NotYet, "not valid before 2026-01-02, until 2027-01-02"),
        ] {
            assert_eq!(
                text(&Style::PLAIN, &served(validity), false),
                format!("{names}, {how_long} (by CA kubernetes)")
            );
        }
    }

    #[test]
    fn hundreds_of_names_are_counted() {
        let mut many = served(Validity::Valid);
        many.certificate.dns_names = (0..300).map(|n| format!("n{n}.test")).collect();
        let line = text(&Style::PLAIN, &many, false);
        assert!(line.contains("n11.test, 290 more (-v shows them)"), "{line}");
        assert!(text(&Style::PLAIN, &many, true).contains("n299.test, 10.96.0.1"));
    }

    #[test]
    fn names_are_made_safe_and_may_be_missing() {
        let mut odd = served(Validity::Valid);
        odd.certificate.subject = CertificateName::default();
        odd.certificate.issuer = named("CA\u{1b}[2J");
        odd.certificate.dns_names = vec!["a\u{202e}b".to_owned()];
        odd.certificate.addresses.clear();
        let line = text(&Style::PLAIN, &odd, false);
        assert!(line.starts_with("without a name, name a"), "{line}");
        assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
    }
}
