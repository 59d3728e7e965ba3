//! What is behind a controller of Ingress or Gateway, by the names that clients ask for.

use super::{KubeNameRule, NameKind, ObjectName};

/// Where a controller leads connections, as a Kubernetes API says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByName {
    /// What the controller is called: `ingress-nginx`.
    pub controller: &'static str,
    /// Its names, those first of which it is known that they are its own.
    pub names: Vec<NameRoute>,
    /// How many more there are.
    pub more: usize,
}

/// One name, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRoute {
    /// The kind of the object that says so.
    pub kind: NameKind,
    /// The object.
    pub object: ObjectName,
    /// Its class, where it says one.
    pub class: Option<String>,
    /// Host, path and targets.
    pub rule: KubeNameRule,
    /// How it is known that this controller serves it; `None` when that is not known.
    pub serves: Option<Serves>,
}

/// How it is known that a controller serves an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serves {
    /// The object's status has an address of a Service that leads here.
    Address,
    /// Its class is for the controller that the program here is.
    Class,
    /// Pod or Service were made for its Gateway.
    Gateway,
    /// Its Gateway selects the pod.
    Selector,
}
