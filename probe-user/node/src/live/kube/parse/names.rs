//! Objects that route by the names that clients ask for: Ingress, the Gateway API, Traefik's
//! IngressRoute, Istio's VirtualService.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{IntOrString, Meta, addresses, list, map, short};
use whereis_port_model::{
    KubeClass, KubeGateway, KubeNameRule, KubeNames, NameApi, NameKind, NameTarget, ObjectName,
    PathCompare,
};

/// The label of what was made for a Gateway: its pods and Services (GEP-1762).
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// How many rules are kept of one object. Real ones have a few.
const RULES: usize = 256;

fn text(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| short(&text))
}

/// `None` for "any" of an optional list, which has one rule then.
fn each(names: Vec<String>) -> Vec<Option<String>> {
    if names.is_empty() { vec![None] } else { names.into_iter().map(|n| text(Some(n))).collect() }
}

impl IntOrString {
    fn words(self) -> Option<String> {
        match self {
            Self::Int(0) => None,
            Self::Int(number) => Some(number.to_string()),
            Self::String(name) => text(Some(name)),
        }
    }
}

#[derive(Deserialize)]
pub(in super::super) struct Ingress {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: IngressSpec,
    #[serde(default)]
    status: super::ServiceStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct IngressSpec {
    ingress_class_name: Option<String>,
    default_backend: Option<IngressBackend>,
    #[serde(deserialize_with = "list")]
    tls: Vec<IngressTls>,
    #[serde(deserialize_with = "list")]
    rules: Vec<IngressRule>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IngressTls {
    #[serde(deserialize_with = "list")]
    hosts: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IngressRule {
    host: Option<String>,
    http: Option<IngressHttp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IngressHttp {
    #[serde(deserialize_with = "list")]
    paths: Vec<IngressPath>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct IngressPath {
    path: Option<String>,
    path_type: Option<String>,
    backend: IngressBackend,
}

/// `v1beta1` has name and port of the Service without a level between.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct IngressBackend {
    service: Option<IngressService>,
    resource: Option<ObjectReference>,
    service_name: Option<String>,
    service_port: Option<IntOrString>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IngressService {
    name: String,
    port: IngressPort,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IngressPort {
    number: Option<i64>,
    name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ObjectReference {
    kind: String,
    name: String,
}

impl IngressBackend {
    fn target(self, namespace: &str) -> Option<NameTarget> {
        let (name, port) = match (self.service, self.service_name, self.resource) {
            (Some(service), ..) => {
                let number = service.port.number.map(|number| number.to_string());
                (service.name, number.or(service.port.name))
            }
            (None, Some(name), _) => (name, self.service_port.and_then(IntOrString::words)),
            (None, None, Some(other)) => (format!("{} {}", other.kind, other.name), None),
            (None, None, None) => return None,
        };
        let service = ObjectName { namespace: namespace.to_owned(), name: short(&name) };
        Some(NameTarget { service, port: text(port) })
    }
}

/// Whether a host is one of these, which may be `*.example.com`.
fn has_host(all: &[String], host: Option<&str>) -> bool {
    let covers = |one: &String| match one.strip_prefix('*') {
        Some(rest) => host
            .is_some_and(|host| host.strip_suffix(rest).is_some_and(|first| !first.contains('.'))),
        None => host == Some(one.as_str()),
    };
    all.iter().any(covers)
}

impl Ingress {
    pub(in super::super) fn into_model(self) -> Option<KubeNames> {
        let (name, spec) = (self.metadata.name(), self.spec);
        let annotated = self.metadata.annotations.and_then(|all| all.ingress_class);
        let secured: Vec<String> = spec.tls.into_iter().flat_map(|tls| tls.hosts).collect();
        let mut rules = Vec::new();
        for rule in spec.rules {
            let host = text(rule.host);
            let tls = has_host(&secured, host.as_deref());
            for path in rule.http.unwrap_or_default().paths {
                rules.push(KubeNameRule {
                    host: host.clone(),
                    path: text(path.path),
                    compare: match path.path_type.as_deref() {
                        Some("Exact") => PathCompare::Exact,
                        Some("Prefix") => PathCompare::Prefix,
                        _ => PathCompare::Controller,
                    },
                    matches: None,
                    tls,
                    to: path.backend.target(&name.namespace).into_iter().collect(),
                });
            }
        }
        rules.extend(spec.default_backend.and_then(|all| all.target(&name.namespace)).map(|to| {
            KubeNameRule {
                host: None,
                path: None,
                compare: PathCompare::Prefix,
                matches: None,
                tls: false,
                to: vec![to],
            }
        }));
        rules.truncate(RULES);
        Some(KubeNames {
            kind: NameKind::Ingress,
            name,
            class: text(spec.ingress_class_name).or_else(|| text(annotated)),
            gateways: Vec::new(),
            refused: Vec::new(),
            addresses: addresses(
                self.status.load_balancer.ingress.iter().filter_map(|one| one.ip.as_ref()),
            ),
            rules,
        })
    }
}

#[derive(Deserialize)]
pub(in super::super) struct Class {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: ClassSpec,
}

/// An IngressClass has `controller`, a GatewayClass `controllerName`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClassSpec {
    controller: Option<String>,
    controller_name: Option<String>,
}

impl Class {
    /// An IngressClass.
    pub(in super::super) fn of_ingress(self) -> Option<KubeClass> {
        let controller = text(self.spec.controller)?;
        Some(KubeClass { api: NameApi::Ingress, name: self.metadata.name, controller })
    }

    /// A GatewayClass.
    pub(in super::super) fn of_gateway(self) -> Option<KubeClass> {
        let controller = text(self.spec.controller_name)?;
        Some(KubeClass { api: NameApi::Gateway, name: self.metadata.name, controller })
    }
}

#[derive(Deserialize)]
pub(in super::super) struct Gateway {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: GatewaySpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GatewaySpec {
    gateway_class_name: Option<String>,
    /// Of Istio's.
    #[serde(deserialize_with = "map")]
    selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "list")]
    servers: Vec<IngressTls>,
}

impl Gateway {
    pub(in super::super) fn into_model(self) -> Option<KubeGateway> {
        Some(KubeGateway {
            api: NameApi::Gateway,
            name: self.metadata.name(),
            class: text(self.spec.gateway_class_name),
            selector: BTreeMap::new(),
            hosts: Vec::new(),
        })
    }
}

#[derive(Deserialize)]
pub(in super::super) struct IstioGateway {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: GatewaySpec,
}

impl IstioGateway {
    pub(in super::super) fn into_model(self) -> Option<KubeGateway> {
        Some(KubeGateway {
            api: NameApi::Istio,
            name: self.metadata.name(),
            class: None,
            selector: self.spec.selector,
            hosts: self.spec.servers.into_iter().flat_map(|server| server.hosts).collect(),
        })
    }
}

#[derive(Deserialize)]
pub(in super::super) struct HttpRoute {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: HttpRouteSpec,
    #[serde(default)]
    status: HttpRouteStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HttpRouteSpec {
    #[serde(deserialize_with = "list")]
    parent_refs: Vec<Reference>,
    #[serde(deserialize_with = "list")]
    hostnames: Vec<String>,
    #[serde(deserialize_with = "list")]
    rules: Vec<HttpRouteRule>,
}

/// Another object; what is not said is the usual.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<i64>,
}

impl Reference {
    fn name(&self, namespace: &str) -> ObjectName {
        let namespace = self.namespace.as_deref().unwrap_or(namespace).to_owned();
        ObjectName { namespace, name: short(&self.name) }
    }

    fn is_gateway(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == "Gateway")
    }

    fn target(&self, namespace: &str) -> NameTarget {
        let mut service = self.name(namespace);
        let is_service = self.kind.as_deref().is_none_or(|kind| kind == "Service")
            && self.group.as_deref().is_none_or(str::is_empty);
        if let Some(kind) = self.kind.as_ref().filter(|_| !is_service) {
            service.name = format!("{} {}", short(kind), service.name);
        }
        NameTarget { service, port: self.port.map(|port| port.to_string()) }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HttpRouteRule {
    #[serde(deserialize_with = "list")]
    matches: Vec<HttpRouteMatch>,
    #[serde(deserialize_with = "list")]
    backend_refs: Vec<Reference>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HttpRouteMatch {
    path: Option<Compared>,
    #[serde(deserialize_with = "list")]
    headers: Vec<Compared>,
    #[serde(deserialize_with = "list")]
    query_params: Vec<Compared>,
    method: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Compared {
    r#type: Option<String>,
    name: String,
    value: Option<String>,
}

impl HttpRouteMatch {
    /// What it asks beside the path.
    fn words(&self) -> Option<String> {
        let method = self.method.iter().map(|method| format!("method {method}"));
        let said = |what: &'static str| {
            move |one: &Compared| {
                format!("{what} {}={}", one.name, one.value.as_deref().unwrap_or_default())
            }
        };
        let headers = self.headers.iter().map(said("header"));
        let parameters = self.query_params.iter().map(said("parameter"));
        let all: Vec<String> = method.chain(headers).chain(parameters).collect();
        text(Some(all.join(", ")))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HttpRouteStatus {
    #[serde(deserialize_with = "list")]
    parents: Vec<HttpRouteParent>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HttpRouteParent {
    parent_ref: Reference,
    #[serde(deserialize_with = "list")]
    conditions: Vec<super::PodCondition>,
}

impl HttpRouteParent {
    fn is_refused(&self) -> bool {
        self.conditions.iter().any(|one| one.r#type == "Accepted" && one.status == "False")
    }
}

impl HttpRoute {
    pub(in super::super) fn into_model(self) -> Option<KubeNames> {
        let (name, spec) = (self.metadata.name(), self.spec);
        let hosts = each(spec.hostnames);
        let mut rules = Vec::new();
        for rule in spec.rules {
            let to: Vec<NameTarget> =
                rule.backend_refs.iter().map(|one| one.target(&name.namespace)).collect();
            let any = vec![HttpRouteMatch::default()];
            let matches = if rule.matches.is_empty() { any } else { rule.matches };
            for one in matches {
                let matches = one.words();
                let path = one.path.unwrap_or_default();
                let compare = match path.r#type.as_deref() {
                    Some("Exact") => PathCompare::Exact,
                    Some("RegularExpression") => PathCompare::Regex,
                    Some("PathPrefix") | None => PathCompare::Prefix,
                    Some(_) => PathCompare::Controller,
                };
                let path = text(path.value);
                for host in &hosts {
                    rules.push(KubeNameRule {
                        host: host.clone(),
                        path: path.clone(),
                        compare,
                        matches: matches.clone(),
                        tls: false,
                        to: to.clone(),
                    });
                }
                rules.truncate(RULES);
            }
        }
        let gateways = spec.parent_refs.iter().filter(|parent| parent.is_gateway());
        let refused = self.status.parents.iter().filter(|parent| parent.is_refused());
        Some(KubeNames {
            kind: NameKind::HttpRoute,
            class: None,
            gateways: gateways.map(|parent| parent.name(&name.namespace)).collect(),
            refused: refused.map(|parent| parent.parent_ref.name(&name.namespace)).collect(),
            addresses: Vec::new(),
            name,
            rules,
        })
    }
}

#[derive(Deserialize)]
pub(in super::super) struct IngressRoute {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: IngressRouteSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IngressRouteSpec {
    #[serde(deserialize_with = "list")]
    routes: Vec<TraefikRoute>,
    tls: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TraefikRoute {
    r#match: Option<String>,
    #[serde(deserialize_with = "list")]
    services: Vec<TraefikService>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TraefikService {
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<IntOrString>,
}

impl IngressRoute {
    pub(in super::super) fn into_model(self) -> Option<KubeNames> {
        let name = self.metadata.name();
        let target = |one: TraefikService| {
            let mut service = ObjectName {
                namespace: one.namespace.unwrap_or_else(|| name.namespace.clone()),
                name: short(&one.name),
            };
            if let Some(kind) = one.kind.filter(|kind| kind != "Service") {
                service.name = format!("{} {}", short(&kind), service.name);
            }
            NameTarget { service, port: one.port.and_then(IntOrString::words) }
        };
        let tls = self.spec.tls.is_some();
        let rule = |route: TraefikRoute| KubeNameRule {
            host: None,
            path: None,
            compare: PathCompare::Controller,
            matches: text(route.r#match),
            tls,
            to: route.services.into_iter().map(target).collect(),
        };
        let rules: Vec<KubeNameRule> = self.spec.routes.into_iter().take(RULES).map(rule).collect();
        let annotated = self.metadata.annotations.and_then(|all| all.ingress_class);
        Some(KubeNames {
            kind: NameKind::IngressRoute,
            class: text(annotated),
            gateways: Vec::new(),
            refused: Vec::new(),
            addresses: Vec::new(),
            name,
            rules,
        })
    }
}

#[derive(Deserialize)]
pub(in super::super) struct VirtualService {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: VirtualServiceSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VirtualServiceSpec {
    #[serde(deserialize_with = "list")]
    hosts: Vec<String>,
    #[serde(deserialize_with = "list")]
    gateways: Vec<String>,
    #[serde(deserialize_with = "list")]
    http: Vec<VirtualHttp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VirtualHttp {
    #[serde(deserialize_with = "list")]
    r#match: Vec<VirtualMatch>,
    #[serde(deserialize_with = "list")]
    route: Vec<VirtualRoute>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VirtualMatch {
    uri: Option<VirtualUri>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VirtualUri {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VirtualRoute {
    destination: VirtualDestination,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct VirtualDestination {
    host: String,
    port: IngressPort,
}

impl VirtualDestination {
    /// A short name is of the object's namespace, a long one says its own.
    fn target(&self, namespace: &str) -> NameTarget {
        let (name, namespace) = match self.host.split('.').collect::<Vec<_>>().as_slice() {
            [name, namespace] | [name, namespace, "svc", ..] => (*name, *namespace),
            _ => (self.host.as_str(), namespace),
        };
        NameTarget {
            service: ObjectName { namespace: namespace.to_owned(), name: short(name) },
            port: self.port.number.map(|number| number.to_string()),
        }
    }
}

impl VirtualService {
    pub(in super::super) fn into_model(self) -> Option<KubeNames> {
        let (name, spec) = (self.metadata.name(), self.spec);
        let hosts = each(spec.hosts);
        let mut rules = Vec::new();
        for http in spec.http {
            let to: Vec<NameTarget> =
                http.route.iter().map(|one| one.destination.target(&name.namespace)).collect();
            let any = vec![VirtualMatch::default()];
            let matches = if http.r#match.is_empty() { any } else { http.r#match };
            for one in matches {
                let uri = one.uri.unwrap_or_default();
                let (path, compare) = match (uri.exact, uri.prefix, uri.regex) {
                    (Some(path), ..) => (Some(path), PathCompare::Exact),
                    (None, Some(path), _) => (Some(path), PathCompare::Prefix),
                    (None, None, Some(path)) => (Some(path), PathCompare::Regex),
                    (None, None, None) => (None, PathCompare::Prefix),
                };
                let others: Vec<&str> = one.others.keys().map(String::as_str).collect();
                let matches = text(Some(others.join(", ")));
                let path = text(path);
                for host in &hosts {
                    rules.push(KubeNameRule {
                        host: host.clone(),
                        path: path.clone(),
                        compare,
                        matches: matches.clone(),
                        tls: false,
                        to: to.clone(),
                    });
                }
                rules.truncate(RULES);
            }
        }
        // `gateway` of the same namespace, `namespace/gateway`, or the mesh itself.
        let gateway = |one: &String| {
            let (namespace, gateway) = one.split_once('/').unwrap_or((&name.namespace, one));
            ObjectName { namespace: namespace.to_owned(), name: gateway.to_owned() }
        };
        Some(KubeNames {
            kind: NameKind::VirtualService,
            class: None,
            gateways: spec.gateways.iter().filter(|one| *one != "mesh").map(gateway).collect(),
            refused: Vec::new(),
            addresses: Vec::new(),
            name,
            rules,
        })
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    drop(serde_json::from_slice(bytes).map(Ingress::into_model));
    drop(serde_json::from_slice(bytes).map(Class::of_ingress));
    drop(serde_json::from_slice(bytes).map(Class::of_gateway));
    drop(serde_json::from_slice(bytes).map(Gateway::into_model));
    drop(serde_json::from_slice(bytes).map(HttpRoute::into_model));
    drop(serde_json::from_slice(bytes).map(IngressRoute::into_model));
    drop(serde_json::from_slice(bytes).map(IstioGateway::into_model));
    drop(serde_json::from_slice(bytes).map(VirtualService::into_model));
}
