//! What others can reach on a node, and what of it somebody should look at: for people, for
//! reports, for code scanning, and as a policy.

mod junit;
mod markdown;
mod places;
mod policy;
mod sarif;
#[cfg(test)]
mod tests;
mod text;

pub use junit::junit;
pub use markdown::markdown;
pub use policy::policy;
pub use sarif::sarif;
pub use text::text;

use whereis_port_model::{Audit, Exposure, Opening, Vantage};

/// The senders, in the order in which they are told.
const SENDERS: [Vantage; 4] =
    [Vantage::Outside, Vantage::Containers, Vantage::Node, Vantage::Loopback];

/// Who that is, for people.
fn sender(from: Vantage) -> &'static str {
    match from {
        Vantage::Outside => "other machines",
        Vantage::Containers => "containers",
        Vantage::Node => "processes of this node",
        Vantage::Loopback => "loopback",
    }
}

/// An exposure with the statements of one class of senders that are alike.
struct ExposureLine<'a> {
    exposure: &'a Exposure,
    openings: Vec<&'a Opening>,
}

/// The statements of these senders that `wanted` chooses, those of the same devices and reason
/// together.
fn lines<'a>(
    audit: &'a Audit,
    from: Vantage,
    wanted: impl Fn(&Opening) -> bool,
) -> Vec<ExposureLine<'a>> {
    let mut all: Vec<ExposureLine<'a>> = Vec::new();
    for exposure in &audit.exposures {
        let begin = all.len();
        for one in &exposure.openings {
            if one.reach.from != from || !one.judged || !wanted(one) {
                continue;
            }
            let same = |line: &&mut ExposureLine<'a>| {
                line.openings.first().is_some_and(|first| {
                    (first.by(), &first.reach.why, &first.reach.conditions)
                        == (one.by(), &one.reach.why, &one.reach.conditions)
                })
            };
            match all.get_mut(begin..).and_then(|new| new.iter_mut().find(same)) {
                Some(line) => line.openings.push(one),
                None => all.push(ExposureLine { exposure, openings: vec![one] }),
            }
        }
    }
    all
}

impl ExposureLine<'_> {
    /// `22/tcp`, with the namespace where that is not the node's own. Untrusted.
    fn port(&self, own: bool) -> String {
        let one = self.exposure;
        let port = format!("{}/{}", one.port, one.proto);
        if own { port } else { format!("{port} in {}", one.netns) }
    }

    /// The addresses that somebody connects to.
    fn addresses(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for address in self.openings.iter().filter_map(|one| one.reach.address) {
            let address = address.ip().to_string();
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// By which devices, or from which namespaces. Untrusted.
    fn by(&self) -> Vec<&str> {
        self.openings.first().map(|one| one.by()).unwrap_or_default()
    }

    /// Whose it is. Untrusted.
    fn owner(&self) -> String {
        let owner = match self.openings.first() {
            Some(one) => self.exposure.owner_at(one),
            None => self.exposure.owner(),
        };
        match owner {
            Some(owner) => format!("{} {}", owner.kind.as_str(), owner.name),
            None => "-".to_owned(),
        }
    }

    /// Why, with what it depends on. Untrusted.
    fn why(&self) -> String {
        let Some(first) = self.openings.first() else { return String::new() };
        let mut why = first.reach.why.to_string();
        let conditions: Vec<&str> =
            first.reach.conditions.iter().map(|one| one.text.as_str()).collect();
        if !conditions.is_empty() {
            why.push_str(&format!(", if {}", conditions.join(", and ")));
        }
        if let Some(like) = self.exposure.like {
            why.push_str(&format!(" (tried as port {like}, which is alike)"));
        }
        why
    }
}
