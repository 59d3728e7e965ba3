//! How far a port can be reached, in one word.

use super::{NetnsId, Port, Proto, Reach, Vantage};

/// From how far away a port can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reached {
    /// From nowhere that was tried.
    None,
    /// By processes of its namespace that connect to loopback.
    Loopback,
    /// From this node: its processes at other addresses, and its containers.
    Node,
    /// By other machines that have a route over this node, which few may have.
    Route,
    /// By other machines.
    Network,
    /// It can't be told.
    Unknown,
}

impl Reached {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Loopback, Self::Node, Self::Route, Self::Network, Self::None, Self::Unknown];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Loopback => "loopback",
            Self::Node => "node",
            Self::Route => "route",
            Self::Network => "network",
            Self::Unknown => "unknown",
        }
    }

    /// What some statements come to: the farthest that surely gets there, unless it is not known of
    /// somebody who is farther away. Without any it can't be told.
    pub fn of<'a>(reach: impl IntoIterator<Item = &'a Reach>) -> Self {
        let all: Vec<&Reach> = reach.into_iter().collect();
        if all.is_empty() {
            return Self::Unknown;
        }
        let places: [(Self, &[Vantage]); 4] = [
            (Self::Network, &[Vantage::Outside]),
            (Self::Route, &[Vantage::Outside]),
            (Self::Node, &[Vantage::Node, Vantage::Containers]),
            (Self::Loopback, &[Vantage::Loopback]),
        ];
        for (word, from) in places {
            let mut unknown = false;
            let asked = |one: &&&Reach| {
                from.contains(&one.from)
                    && (one.from != Vantage::Outside || one.needs_route() == (word == Self::Route))
            };
            for one in all.iter().filter(asked) {
                match one.reachable {
                    Some(true) => return word,
                    Some(false) => {}
                    None => unknown = true,
                }
            }
            if unknown {
                return Self::Unknown;
            }
        }
        Self::None
    }
}

impl Reach {
    /// Whether it is said of this port in this namespace.
    pub fn is_about(&self, netns: Option<NetnsId>, port: (Port, Proto)) -> bool {
        self.netns.as_ref().is_none_or(|place| Some(place.id) == netns)
            && self.why.of.is_none_or(|of| of == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, NetnsRef};

    fn reach(from: Vantage, reachable: Option<bool>) -> Reach {
        Reach {
            netns: None,
            from,
            by: Vec::new(),
            address: Some("10.0.0.1:80".parse().unwrap()),
            reachable,
            why: Cause::NoRule.into(),
            conditions: Vec::new(),
            fix: None,
            source: None,
            accepted: false,
            tried: None,
        }
    }

    #[test]
    fn the_farthest_that_is_sure_unless_farther_ones_are_not_known() {
        use Vantage::{Containers, Loopback, Node, Outside};
        let of = |all: &[(Vantage, Option<bool>)]| {
            let all: Vec<Reach> = all.iter().map(|(from, is)| reach(*from, *is)).collect();
            Reached::of(&all)
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(of(&[]), Reached::Unknown);
        assert_eq!(of(&[(Loopback, yes), (Node, no), (Outside, no)]), Reached::Loopback);
        assert_eq!(of(&[(Loopback, yes), (Node, yes), (Outside, no)]), Reached::Node);
        assert_eq!(of(&[(Node, no), (Containers, yes), (Outside, no)]), Reached::Node);
        assert_eq!(of(&[(Node, yes), (Outside, no), (Outside, yes)]), Reached::Network);
        assert_eq!(of(&[(Node, yes), (Outside, None)]), Reached::Unknown);
        assert_eq!(of(&[(Outside, yes), (Node, None)]), Reached::Network);
        assert_eq!(of(&[(Loopback, no), (Node, no), (Outside, no)]), Reached::None);
        let routed = |is| {
            let code = crate::ConditionCode::Route;
            let text = "it has a route over this node".to_owned();
            let conditions = vec![crate::Condition { code, text }];
            Reach { conditions, ..reach(Outside, is) }
        };
        let with = |plain, by_route| {
            Reached::of(&[reach(Node, yes), reach(Outside, plain), routed(by_route)])
        };
        assert_eq!(with(no, yes), Reached::Route);
        assert_eq!(with(no, no), Reached::Node);
        assert_eq!(with(no, None), Reached::Unknown);
        assert_eq!(with(yes, no), Reached::Network);
        assert_eq!(with(None, yes), Reached::Unknown);
    }

    #[test]
    fn a_statement_is_about_its_namespace_and_port() {
        let (one, other) = (NetnsId::Inode(1), NetnsId::Inode(2));
        let mut said = reach(Vantage::Node, Some(true));
        let port = (Port(80), Proto::Tcp);
        assert!(said.is_about(Some(one), port) && said.is_about(Some(other), port));
        said.netns = Some(NetnsRef { id: one, name: None });
        assert!(said.is_about(Some(one), port) && !said.is_about(Some(other), port));
        said.why.of = Some((Port(80), Proto::Udp));
        assert!(!said.is_about(Some(one), port));
    }
}
