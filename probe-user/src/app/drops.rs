//! Packets that are dropped: by which rule, asked of the rules as they are when it happens.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::model::{Dropped, DroppedBy, Event, NetnsId, Port, Proto, Traced};
use crate::node::LiveNode;
use crate::resolve;

/// How many rules are asked for at once: each is a simulated connection.
const AT_ONCE: usize = 8;
/// How long what was found is believed, and how much is kept.
const FRESH: Duration = Duration::from_secs(10);
const MOST: usize = 1024;
/// How many causes are kept of one watch.
const CAUSES: usize = 256;

/// What makes a simulated connection another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ConnectionKey {
    netns: Option<NetnsId>,
    came_by: Option<u32>,
    proto: Proto,
    to: SocketAddr,
    source: Option<std::net::IpAddr>,
}

impl ConnectionKey {
    fn of(dropped: &Dropped) -> Self {
        let Dropped { netns, proto, address, port: Port(port), what, .. } = dropped;
        Self {
            netns: *netns,
            came_by: what.came_by,
            proto: *proto,
            to: what.original.unwrap_or(SocketAddr::new(*address, *port)),
            source: what.source,
        }
    }
}

/// The rules that were found to drop something.
#[derive(Debug)]
pub(super) struct DroppingRules {
    timeout: Option<Duration>,
    known: HashMap<ConnectionKey, (Instant, Option<DroppedBy>)>,
}

impl DroppingRules {
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, known: HashMap::new() }
    }

    /// Says of drops by which rule they were, where rules did it.
    pub(super) fn add(&mut self, events: &mut [Traced]) {
        // Rules may have changed since another reading of the node.
        let mut node: Option<LiveNode> = None;
        let mut asked = 0;
        for traced in events {
            let Some(dropped) = Dropped::of(&traced.event) else { continue };
            if !dropped.what.is_by_rules() {
                continue;
            }
            let key = ConnectionKey::of(&dropped);
            if let Some((_, known)) = self.known.get(&key).filter(|(at, _)| at.elapsed() < FRESH) {
                traced.dropped_by.clone_from(known);
                continue;
            }
            if asked >= AT_ONCE {
                let why = "too many different drops at once to ask for the rule of each";
                traced.dropped_by = Some(DroppedBy::Unknown(why.to_owned()));
                continue;
            }
            asked += 1;
            if node.is_none() {
                node = LiveNode::new().ok().map(|node| node.with_timeout(self.timeout));
            }
            let Some(node) = &node else { continue };
            traced.dropped_by = resolve::dropped_by(node, &dropped);
            if self.known.len() >= MOST {
                self.known.clear();
            }
            self.known.insert(key, (Instant::now(), traced.dropped_by.clone()));
        }
    }
}

/// The causes of a watch, each with its counts.
#[derive(Debug, Default)]
pub(super) struct DropCauses {
    all: Vec<Dropped>,
}

impl DropCauses {
    /// Takes in an event: counts are those of the whole watch.
    pub(super) fn take(&mut self, event: &Event) {
        let Some(dropped) = Dropped::of(event) else { return };
        if let Some(known) = self.all.iter_mut().find(|known| known.is_same(&dropped)) {
            *known = dropped;
            return;
        }
        if self.all.len() < CAUSES {
            return self.all.push(dropped);
        }
        // Senders are what there can be many of: they are put together.
        let anyone = |one: &Dropped| {
            let mut one = one.clone();
            one.what.source = None;
            one
        };
        let like = anyone(&dropped);
        if let Some(known) = self.all.iter_mut().find(|known| anyone(known).is_same(&like)) {
            known.what.source = None;
            known.what.total += event.dropped.as_ref().map_or(0, |drop| drop.packets);
        }
    }

    /// All of them.
    pub(super) fn finish(self) -> Vec<Dropped> {
        self.all
    }
}
