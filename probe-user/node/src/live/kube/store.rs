//! What is known of one API by watching it, and what can be answered from that.

use std::collections::BTreeMap;
use std::time::Instant;

use whereis_port_model::{
    KubeEndpoints, KubeNode, KubeObjects, KubePod, KubeService, KubeWish, ObjectName,
};

/// How much is known of one kind of object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum ListState {
    /// It is being listed.
    #[default]
    Reading,
    /// It is listed whole, and what changes is told.
    Watched,
    /// It is asked for instead, and why.
    Asked(String),
}

/// The objects of one kind that are kept.
#[derive(Debug)]
pub(super) struct ObjectCache<T> {
    objects: BTreeMap<ObjectName, T>,
    pub(super) state: ListState,
}

impl<T> Default for ObjectCache<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), state: ListState::Reading }
    }
}

impl<T: PartialEq> ObjectCache<T> {
    /// Takes a list for what there is. Whether that is something else than was known.
    pub(super) fn replace(&mut self, all: Vec<(ObjectName, T)>) -> bool {
        let new: BTreeMap<ObjectName, T> = all.into_iter().collect();
        let differs = new != self.objects;
        self.objects = new;
        differs
    }

    /// An object as it is now, or `None` for one that is gone. Whether anything of it that is
    /// kept has changed: most of what an API tells of is none of ours.
    pub(super) fn put(&mut self, name: ObjectName, object: Option<T>) -> bool {
        match object {
            Some(object) if self.objects.get(&name) == Some(&object) => false,
            Some(object) => {
                self.objects.insert(name, object);
                true
            }
            None => self.objects.remove(&name).is_some(),
        }
    }

    /// Forgets what can't be relied on any more.
    pub(super) fn forget(&mut self, state: ListState) {
        self.objects.clear();
        self.state = state;
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// All, if all are known.
    fn all(&self) -> Option<impl Iterator<Item = &T>> {
        (self.state == ListState::Watched).then(|| self.objects.values())
    }
}

/// What is known of one API.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) services: ObjectCache<KubeService>,
    pub(super) slices: ObjectCache<KubeEndpoints>,
    pub(super) pods: ObjectCache<KubePod>,
    pub(super) nodes: ObjectCache<KubeNode>,
    /// When something last changed.
    pub(super) changed: Option<Instant>,
}

impl Store {
    /// The answer to one wish, if everything that it is about is known.
    pub(super) fn answer(&self, wish: &KubeWish) -> Option<KubeObjects> {
        let mut said = KubeObjects { answered: true, ..KubeObjects::default() };
        match wish {
            KubeWish::Services => said.services = self.services.all()?.cloned().collect(),
            KubeWish::Service(name) => {
                said.services = self.services.all()?.filter(|s| s.name == *name).cloned().collect();
            }
            KubeWish::Endpoints(name) => {
                said.endpoints =
                    self.slices.all()?.filter(|s| s.service == *name).cloned().collect();
            }
            KubeWish::Pod(name) => {
                said.pods = self.pods.all()?.filter(|p| p.name == *name).cloned().collect();
            }
            KubeWish::PodsAt(address) => {
                let all = self.pods.all()?;
                said.pods = all.filter(|p| p.ips.contains(address)).cloned().collect();
            }
            KubeWish::PodsOn(node) => {
                let all = self.pods.all()?;
                said.pods = all.filter(|p| p.node.as_ref() == Some(node)).cloned().collect();
            }
            KubeWish::PodsWith { namespace, labels } => {
                let has = |pod: &&KubePod| {
                    pod.name.namespace == *namespace
                        && labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
                };
                said.pods = self.pods.all()?.filter(has).cloned().collect();
            }
            // It is not watched.
            KubeWish::ByName(_) => return None,
            KubeWish::Nodes => said.nodes = self.nodes.all()?.cloned().collect(),
            KubeWish::Node(name) => {
                said.nodes = self.nodes.all()?.filter(|n| n.name == *name).cloned().collect();
            }
        }
        Some(said)
    }

    /// How many objects are kept.
    pub(super) fn len(&self) -> usize {
        self.services.len() + self.slices.len() + self.pods.len() + self.nodes.len()
    }

    /// Why something is asked for instead of being watched.
    pub(super) fn reasons(&self) -> Vec<&str> {
        let states =
            [&self.services.state, &self.slices.state, &self.pods.state, &self.nodes.state];
        let mut reasons: Vec<&str> = Vec::new();
        for state in states {
            if let ListState::Asked(why) = state
                && !reasons.contains(&why.as_str())
            {
                reasons.push(why);
            }
        }
        reasons
    }

    /// Nothing is relied on any more.
    pub(super) fn fail(&mut self, why: &str) {
        let state = ListState::Asked(why.to_owned());
        self.services.forget(state.clone());
        self.slices.forget(state.clone());
        self.pods.forget(state.clone());
        self.nodes.forget(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "web".to_owned(), name: name.to_owned() }
    }

    fn slices(of: &str) -> KubeEndpoints {
        KubeEndpoints { service: name(of), ports: Vec::new(), endpoints: Vec::new() }
    }

    #[test]
    fn nothing_is_answered_before_all_is_known_nor_after_it_is_lost() {
        let mut store = Store::default();
        let wish = KubeWish::Endpoints(name("shop"));
        store.slices.replace(vec![
            (name("shop-1"), slices("shop")),
            (name("shop-2"), slices("shop")),
            (name("other-1"), slices("other")),
        ]);
        assert_eq!(store.answer(&wish), None, "the list may be old before it is watched");
        store.slices.state = ListState::Watched;
        assert_eq!(store.answer(&wish).unwrap().endpoints.len(), 2);
        // Of another kind nothing is known yet.
        assert_eq!(store.answer(&KubeWish::Services), None);
        store.fail("out of reach");
        assert_eq!((store.answer(&wish), store.len()), (None, 0));
        assert_eq!(store.reasons(), ["out of reach"]);
    }

    #[test]
    fn only_what_is_kept_counts_as_a_change() {
        let mut kept = ObjectCache::default();
        assert!(kept.put(name("a"), Some(slices("a"))));
        assert!(!kept.put(name("a"), Some(slices("a"))), "the same again");
        assert!(kept.put(name("a"), Some(slices("b"))));
        assert!(!kept.put(name("gone"), None));
        assert!(kept.put(name("a"), None));
        assert_eq!(kept.len(), 0);
        assert!(!kept.replace(Vec::new()));
        assert!(kept.replace(vec![(name("a"), slices("a"))]));
    }

    #[test]
    fn what_is_not_there_is_answered_when_all_is_known() {
        let mut store = Store::default();
        store.pods.state = ListState::Watched;
        let said = store.answer(&KubeWish::PodsAt("10.0.0.1".parse().unwrap())).unwrap();
        assert!(said.answered && said.pods.is_empty());
    }
}
