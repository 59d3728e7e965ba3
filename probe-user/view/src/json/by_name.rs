//! What a controller of Ingress or Gateway leads to.

use schemars::JsonSchema;
use serde::Serialize;

use whereis_port_model as model;

use super::{NameKind, PathCompare, Serves};

/// What a controller of Ingress or Gateway leads to, by the names that clients ask for, as the
/// Kubernetes API says.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ByName<'a> {
    /// What the controller is called.
    pub controller: &'a str,
    /// The names, those first of which it is known that this controller serves them.
    pub names: Vec<NameRoute<'a>>,
    /// How many more there are.
    pub more: usize,
}

/// One name, and where it leads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NameRoute<'a> {
    /// The kind of the object that says so.
    pub kind: NameKind,
    /// The namespace of the object.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its class; null where it says none.
    pub class: Option<&'a str>,
    /// The host; null for any, and where `matches` has it.
    pub host: Option<&'a str>,
    /// The path as it is written; null for any, and where `matches` has it.
    pub path: Option<&'a str>,
    /// How the path is compared.
    pub compare: PathCompare,
    /// What else has to be so, in the object's words.
    pub matches: Option<&'a str>,
    /// Whether the object has a certificate for the host.
    pub tls: bool,
    /// Where it leads; empty where the object answers itself, as redirects do.
    pub to: Vec<NameTarget<'a>>,
    /// How it is known that this controller serves the object; null where that is not known.
    pub serves: Option<Serves>,
}

/// Where a name leads.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NameTarget<'a> {
    /// The namespace of the Service.
    pub namespace: &'a str,
    /// The Service; or what else the object names, with its kind before it.
    pub service: &'a str,
    /// Its port, by number or name; null where none is said.
    pub port: Option<&'a str>,
}

impl<'a> From<&'a model::ByName> for ByName<'a> {
    fn from(all: &'a model::ByName) -> Self {
        Self {
            controller: all.controller,
            names: all.names.iter().map(Into::into).collect(),
            more: all.more,
        }
    }
}

impl<'a> From<&'a model::NameRoute> for NameRoute<'a> {
    fn from(route: &'a model::NameRoute) -> Self {
        let target = |to: &'a model::NameTarget| NameTarget {
            namespace: &to.service.namespace,
            service: &to.service.name,
            port: to.port.as_deref(),
        };
        Self {
            kind: route.kind.into(),
            namespace: &route.object.namespace,
            name: &route.object.name,
            class: route.class.as_deref(),
            host: route.rule.host.as_deref(),
            path: route.rule.path.as_deref(),
            compare: route.rule.compare.into(),
            matches: route.rule.matches.as_deref(),
            tls: route.rule.tls,
            to: route.rule.to.iter().map(target).collect(),
            serves: route.serves.map(Into::into),
        }
    }
}
