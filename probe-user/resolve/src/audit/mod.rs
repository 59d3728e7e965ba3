//! Everything of a node that others can reach, and what of it somebody should look at.
//!
//! ```text
//!  list's rows       ports of namespaces      connections of all senders      statements
//!  list::within ──▶  units ─▶ alike      ──▶  simulate: reach's, as of   ──▶  policy, findings,
//!                                             a question                      profiles
//! ```
//!
//! There is no second prediction: each statement is what became of connections that
//! [`super::reach`] judges for a question about the port.

mod alike;
mod findings;
mod policy;
mod profile;
mod profiles;
mod reading;
mod simulate;
mod units;

pub use policy::AuditPolicy;
pub use profiles::Profiles;
pub use reading::TomlError;

use super::facts::Facts;
use super::list::{self, ListFilter};
use whereis_port_model::Node;
use whereis_port_model::{Audit, Exposure, Impact, Vantage};

/// With how many questions' share of steps all ports are tried.
const TIMES: u64 = 24;

/// What an audit is asked for.
#[derive(Debug, Clone, Default)]
pub struct AuditOptions {
    /// What may be open.
    pub policy: Option<AuditPolicy>,
    /// The senders that are tried; all where none is named.
    pub senders: Vec<Vantage>,
    /// The profiles that are looked at.
    pub profiles: Option<Profiles>,
    /// Only ports of this namespace, by name or inode number.
    pub netns: Option<String>,
    /// Whether every port is tried by itself, also where others are alike.
    pub every: bool,
}

impl AuditOptions {
    /// The senders that are tried.
    fn wanted(&self) -> Vec<Vantage> {
        const ALL: [Vantage; 4] =
            [Vantage::Outside, Vantage::Containers, Vantage::Node, Vantage::Loopback];
        let is_wanted = |from: &Vantage| {
            let judged = self.policy.as_ref().is_none_or(|policy| policy.judges(*from));
            let asked = self.senders.is_empty() || self.senders.contains(from);
            // A profile needs to know of other machines.
            asked && judged || self.profiles.is_some() && *from == Vantage::Outside
        };
        ALL.into_iter().filter(is_wanted).collect()
    }
}

/// Tries every port of the node from everywhere.
pub fn audit(node: &dyn Node, options: &AuditOptions) -> Audit {
    let facts = Facts::for_all_ports(node, TIMES);
    let mut listing = list::within(&facts, &ListFilter::default());
    super::kube::name_services(node, &mut listing);
    let mut audit = Audit { by_policy: options.policy.is_some(), ..Audit::default() };
    for gap in &listing.gaps {
        facts.gap(gap.clone());
    }
    let mut units = units::of(listing.rows);
    if let Some(wanted) = &options.netns {
        let is_it = |netns: &whereis_port_model::NetnsRef| {
            netns.id.inode().is_some_and(|inode| inode.to_string() == *wanted)
                || netns.name.as_ref().is_some_and(|name| name.is(wanted))
        };
        units.retain(|unit| is_it(&unit.netns));
    }
    let wanted = options.wanted();
    (audit.exposures, audit.grouped) = simulate::all(&facts, units, &wanted, options.every);
    facts.say_cut(Impact::Reach);
    let judges = |from| {
        let asked = options.senders.is_empty() || options.senders.contains(&from);
        asked && options.policy.as_ref().is_none_or(|policy| policy.judges(from))
    };
    for exposure in &mut audit.exposures {
        judge(exposure, options.policy.as_ref(), &judges);
    }
    if let Some(profiles) = &options.profiles {
        audit.profiles = profile::check(&facts, profiles, &audit.exposures);
    }
    findings::add(&facts, &mut audit);
    audit.gaps = facts.gaps();
    // Who has a port, and where it leads, is told as far as it is known.
    audit.gaps.retain(|gap| !matches!(gap.impact, Impact::Bind | Impact::Flow));
    let is_unsure = |exposure: &Exposure| {
        let open = |one: &&whereis_port_model::Opening| {
            one.reach.reachable.is_none() && one.judged && one.allowed.is_none() && !leaves(one)
        };
        exposure.openings.iter().filter(open).count()
    };
    audit.unsure = audit.exposures.iter().map(is_unsure).sum();
    audit
}

/// Whether all that is not known is what another machine does with it.
fn leaves(one: &whereis_port_model::Opening) -> bool {
    one.reach.why.cause.code() == whereis_port_model::CauseCode::LeavesNode
}

/// Says of each statement whether the policy allows it.
fn judge(exposure: &mut Exposure, policy: Option<&AuditPolicy>, judges: &dyn Fn(Vantage) -> bool) {
    let allowed: Vec<Option<usize>> = exposure
        .openings
        .iter()
        .map(|one| policy.and_then(|policy| policy.allows(exposure, one)))
        .collect();
    for (one, allowed) in exposure.openings.iter_mut().zip(allowed) {
        one.allowed = allowed;
        one.judged = judges(one.reach.from);
    }
}
