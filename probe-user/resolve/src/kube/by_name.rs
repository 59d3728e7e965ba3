//! Where controllers of Ingress and Gateway that run here lead connections: by the host and path
//! that clients ask for, which only the API has.
//!
//! Which controller serves an object is decided by what the API and the node say of it: the
//! address in its status, the controller of its class and the program that runs here, the Gateway
//! that a pod or Service was made for, the pods that a Gateway selects. Labels of pods make it
//! worth asking, and prove nothing. What can't be told is said to be so.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::facts::Facts;
use super::{QueriedCluster, exposed, names, request};
use whereis_port_model::forward::is_its_program;
use whereis_port_model::{
    ByName, Evidence, EvidenceSource, InTheWay, KubeClass, KubeGateway, KubeNameRule, KubeNames,
    KubePod, KubeService, KubeWish, NameApi, NameKind, NameRoute, ObjectName, Path, Port, Process,
    Serves,
};

/// How many names are kept of one controller.
const KEPT: usize = 256;
/// The ports at which names are served.
const WEB: [Port; 2] = [Port(80), Port(443)];
/// The label of what was made for a Gateway (GEP-1762).
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";
/// Labels by which Envoy Gateway says the same, for pods in another namespace.
const OWNING: [&str; 2] =
    ["gateway.envoyproxy.io/owning-gateway-namespace", "gateway.envoyproxy.io/owning-gateway-name"];

/// A controller of Ingress or Gateway.
#[derive(Debug, PartialEq, Eq)]
struct Controller {
    name: &'static str,
    /// The program that shows that it is this one.
    program: Option<&'static str>,
    /// `spec.controller` of its IngressClasses, when nothing else is said. Some add a path.
    ingress: Option<&'static str>,
    /// `spec.controllerName` of its GatewayClasses.
    gateway: Option<&'static str>,
    /// Values of the labels `app.kubernetes.io/name`, `app` and `istio` of its pods.
    labels: &'static [&'static str],
}

/// As their sources and charts have it.
const CONTROLLERS: [Controller; 9] = [
    Controller {
        name: "ingress-nginx",
        program: Some("nginx-ingress-controller"),
        ingress: Some("k8s.io/ingress-nginx"),
        gateway: None,
        labels: &["ingress-nginx"],
    },
    Controller {
        name: "NGINX Ingress Controller",
        program: Some("nginx-ingress"),
        ingress: Some("nginx.org/ingress-controller"),
        gateway: None,
        labels: &["nginx-ingress"],
    },
    Controller {
        name: "Traefik",
        program: Some("traefik"),
        ingress: Some("traefik.io/ingress-controller"),
        gateway: Some("traefik.io/gateway-controller"),
        labels: &["traefik"],
    },
    Controller {
        name: "Contour",
        program: None,
        ingress: Some("projectcontour.io/ingress-controller"),
        gateway: Some("projectcontour.io/gateway-controller"),
        labels: &["contour"],
    },
    // Two projects call their program the same.
    Controller {
        name: "HAProxy Ingress",
        program: None,
        ingress: Some("haproxy.org/ingress-controller"),
        gateway: None,
        labels: &["haproxy-ingress", "kubernetes-ingress"],
    },
    Controller {
        name: "Kong",
        program: None,
        ingress: Some("ingress-controllers.konghq.com/kong"),
        gateway: Some("konghq.com/kic-gateway-controller"),
        labels: &["kong", "ingress-kong"],
    },
    Controller {
        name: "Istio",
        program: None,
        ingress: Some("istio.io/ingress-controller"),
        gateway: Some("istio.io/gateway-controller"),
        labels: &["ingressgateway", "istio-ingressgateway"],
    },
    CILIUM,
    ANY_GATEWAY,
];

const CILIUM: Controller = Controller {
    name: "Cilium",
    program: None,
    ingress: Some("cilium.io/ingress-controller"),
    gateway: Some("io.cilium/gateway-controller"),
    labels: &[],
};

/// Whatever serves a Gateway, by the labels of its pods.
const ANY_GATEWAY: Controller =
    Controller { name: "Gateway", program: None, ingress: None, gateway: None, labels: &[] };

/// A controller at the end of a path, and by what it is known.
struct FoundController<'a> {
    controller: &'static Controller,
    /// Its program, where that runs here.
    program: Option<Process>,
    pod: Option<&'a KubePod>,
    /// The Services that lead there.
    services: Vec<&'a KubeService>,
}

/// Adds to the paths that end at a controller what it leads to.
pub(super) fn add(facts: &Facts<'_>, cluster: &QueriedCluster, paths: &mut [Path]) {
    for path in paths.iter_mut().filter(|path| cluster.site.has(path)) {
        let Some(found) = find(facts, cluster, path) else { continue };
        let mut apis = vec![NameApi::Ingress, NameApi::Gateway];
        match found.controller.name {
            "Traefik" => apis.push(NameApi::Traefik),
            "Istio" | "Gateway" => apis.push(NameApi::Istio),
            _ => {}
        }
        let wishes = apis.into_iter().map(KubeWish::ByName).collect();
        let said = request(facts, &cluster.site, wishes);
        let all = ClassesAndGateways {
            classes: said.iter().flat_map(|(_, said)| &said.classes).collect(),
            gateways: said.iter().flat_map(|(_, said)| &said.gateways).collect(),
        };
        let mut kept: Vec<(Option<Serves>, &KubeNames)> = Vec::new();
        for object in said.iter().flat_map(|(_, said)| &said.names) {
            kept.extend(found.serves(&all, object).map(|serves| (serves, object)));
        }
        let one = |(serves, object): (Option<Serves>, &'_ KubeNames)| {
            let route = move |rule: &KubeNameRule| NameRoute {
                kind: object.kind,
                object: object.name.clone(),
                class: object.class.clone(),
                rule: rule.clone(),
                serves,
            };
            object.rules.iter().map(route).collect::<Vec<_>>()
        };
        kept.sort_by_key(|(serves, object)| (serves.is_none(), object.kind, &object.name));
        let mut names: Vec<NameRoute> = kept.into_iter().flat_map(one).collect();
        let more = names.len().saturating_sub(KEPT);
        names.truncate(KEPT);
        if !names.is_empty() {
            let detail = format!("{}: what routes by name", cluster.site.source());
            path.end.evidence.push(Evidence::new(EvidenceSource::KubernetesApi, detail));
            path.end.by_name = Some(ByName { controller: found.controller.name, names, more });
        }
    }
}

/// The controller that a path ends at, at a port where names are served.
fn find<'a>(
    facts: &Facts<'_>,
    cluster: &'a QueriedCluster,
    path: &Path,
) -> Option<FoundController<'a>> {
    let by_cilium = path.unsure.iter().any(|one| matches!(one, InTheWay::Proxy(_)));
    let pod = names::pod_of(cluster, path).filter(|_| !by_cilium);
    let program = if by_cilium { None } else { program_of(facts, path) };
    let controller = match &program {
        _ if by_cilium => &CILIUM,
        Some((controller, _)) => *controller,
        None => by_label(pod?)?,
    };
    let services = services_to(cluster, path, pod);
    let is_web = path.hops.iter().any(|hop| hop.endpoint.port.is_some_and(|p| WEB.contains(&p)))
        || services.iter().any(|(_, port)| WEB.contains(port));
    let services = services.into_iter().map(|(service, _)| service).collect();
    let program = program.map(|(_, process)| process);
    is_web.then_some(FoundController { controller, program, pod, services })
}

/// The Services that lead to the end of a path, each with the port of its addresses.
fn services_to<'a>(
    cluster: &'a QueriedCluster,
    path: &Path,
    pod: Option<&KubePod>,
) -> Vec<(&'a KubeService, Port)> {
    let (first, last) = (path.hops.first(), path.hops.last());
    let mut all = Vec::new();
    for service in &cluster.services {
        let asked = first.and_then(|hop| {
            let port = exposed::port_for(service, hop.proto, hop.endpoint.port?)?;
            names::is_of(path, &service.name).then_some(port.port)
        });
        let selected = last.zip(pod).and_then(|(hop, pod)| {
            let port = hop.endpoint.port?;
            let port = exposed::port_to(service, pod, hop.proto, port)
                .filter(|_| exposed::selects(service, pod, port))?;
            Some(port.port)
        });
        all.extend(asked.or(selected).map(|port| (service, port)));
    }
    all
}

/// The controller whose program holds the listener, or started what does, in the same container.
fn program_of(facts: &Facts<'_>, path: &Path) -> Option<(&'static Controller, Process)> {
    let holder = path.end.processes.first()?;
    let place = holder.containers();
    let is_one = |process: &Process| {
        let is_named = |one: &&Controller| one.program == Some(process.name());
        CONTROLLERS.iter().find(is_named).filter(|_| is_its_program(process))
    };
    if let Some(controller) = is_one(holder) {
        return Some((controller, holder.clone()));
    }
    // Of the kernel's name for it at most 15 bytes are told.
    let may_be = |comm: &str| {
        CONTROLLERS
            .iter()
            .filter_map(|one| one.program)
            .any(|name| name == comm || comm.len() == 15 && name.starts_with(comm))
    };
    let parent = holder.ancestors.iter().find(|parent| may_be(&parent.comm))?;
    let all = facts.take(facts.world.processes(&[parent.pid]));
    let parent = all.iter().find(|process| process.pid == parent.pid)?;
    let controller = is_one(parent).filter(|_| parent.containers() == place)?;
    Some((controller, parent.clone()))
}

/// The controller that a pod is said to be of.
fn by_label(pod: &KubePod) -> Option<&'static Controller> {
    let label = |name: &str| pod.labels.get(name).map(String::as_str);
    let all = ["app.kubernetes.io/name", "app", "istio"].map(label);
    let is_one = |one: &&Controller| all.iter().flatten().any(|value| one.labels.contains(value));
    let of_gateway = || gateway_of(pod).map(|_| &ANY_GATEWAY);
    // A Gateway that a pod was made for is the nearer word.
    of_gateway().or_else(|| CONTROLLERS.iter().find(is_one))
}

/// The Gateway that a pod was made for.
fn gateway_of(pod: &KubePod) -> Option<ObjectName> {
    if let [Some(namespace), Some(name)] = OWNING.map(|label| pod.labels.get(label)) {
        return Some(ObjectName { namespace: namespace.clone(), name: name.clone() });
    }
    let name = pod.labels.get(GATEWAY)?;
    Some(ObjectName { namespace: pod.name.namespace.clone(), name: name.clone() })
}

/// What the API says of classes and Gateways.
struct ClassesAndGateways<'a> {
    classes: Vec<&'a KubeClass>,
    gateways: Vec<&'a KubeGateway>,
}

impl ClassesAndGateways<'_> {
    /// The controller that a class is for.
    fn controller(&self, api: NameApi, class: &str) -> Option<&str> {
        let is_it = |one: &&&KubeClass| one.api == api && one.name == class;
        self.classes.iter().find(is_it).map(|one| one.controller.as_str())
    }
}

impl FoundController<'_> {
    /// Whether it serves an object, and how that is known. `None` for what is another's.
    fn serves(&self, said: &ClassesAndGateways<'_>, object: &KubeNames) -> Option<Option<Serves>> {
        match object.kind {
            NameKind::Ingress => self.serves_ingress(said, object),
            NameKind::HttpRoute => self.serves_route(said, object),
            NameKind::IngressRoute => Some(self.serves_traefiks(object)),
            NameKind::VirtualService => self.serves_istios(said, object),
        }
    }

    fn serves_ingress(
        &self,
        said: &ClassesAndGateways<'_>,
        object: &KubeNames,
    ) -> Option<Option<Serves>> {
        let own: BTreeSet<IpAddr> = self.services.iter().flat_map(|s| addresses(s)).collect();
        if object.addresses.iter().any(|address| own.contains(address)) {
            return Some(Some(Serves::Address));
        }
        let wanted = self.controller.ingress?;
        let class = object.class.as_deref();
        let Some(controller) = class.and_then(|class| said.controller(NameApi::Ingress, class))
        else {
            // Without a class each controller does as it is told.
            return Some(None);
        };
        let Some(program) = &self.program else {
            let is_its = controller
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            return is_its.then_some(None);
        };
        let told = option(program, "controller-class").unwrap_or(wanted);
        if controller != told {
            return None;
        }
        let looks_at = |namespace: &str| object.name.namespace == namespace;
        match self.controller.name {
            "ingress-nginx" => match option(program, "watch-namespace") {
                Some(namespace) if !namespace.is_empty() && !looks_at(namespace) => None,
                _ if option(program, "watch-namespace-selector").is_some() => Some(None),
                _ => Some(Some(Serves::Class)),
            },
            "Traefik" => Some(traefik_reads(program, "kubernetesingress").then_some(Serves::Class)),
            _ => Some(None),
        }
    }

    fn serves_route(
        &self,
        said: &ClassesAndGateways<'_>,
        object: &KubeNames,
    ) -> Option<Option<Serves>> {
        let mut may = false;
        for name in object.gateways.iter().filter(|name| !object.refused.contains(name)) {
            let of_service = |service: &&KubeService| {
                service.gateway.as_ref() == Some(&name.name)
                    && service.name.namespace == name.namespace
            };
            if self.services.iter().copied().any(|service| of_service(&service)) {
                return Some(Some(Serves::Gateway));
            }
            match self.pod.and_then(gateway_of) {
                Some(gateway) if gateway == *name => return Some(Some(Serves::Gateway)),
                // It was made for another one.
                Some(_) => continue,
                None => {}
            }
            let is_it = |one: &&&KubeGateway| one.api == NameApi::Gateway && one.name == *name;
            let gateway = said.gateways.iter().find(is_it);
            let class = gateway.and_then(|gateway| gateway.class.as_deref());
            match class.and_then(|class| said.controller(NameApi::Gateway, class)) {
                Some(controller) if Some(controller) != self.controller.gateway => {}
                Some(_) => {
                    let reads = |program| traefik_reads(program, "kubernetesgateway");
                    if self.controller.name == "Traefik" && self.program.as_ref().is_some_and(reads)
                    {
                        return Some(Some(Serves::Class));
                    }
                    may = true;
                }
                None => may = true,
            }
        }
        may.then_some(None)
    }

    fn serves_traefiks(&self, object: &KubeNames) -> Option<Serves> {
        let reads = |program| traefik_reads(program, "kubernetescrd");
        let knows = self.program.as_ref().is_some_and(reads) && object.class.is_none();
        knows.then_some(Serves::Class)
    }

    fn serves_istios(
        &self,
        said: &ClassesAndGateways<'_>,
        object: &KubeNames,
    ) -> Option<Option<Serves>> {
        let pod = self.pod?;
        let mut may = false;
        for name in &object.gateways {
            let is_it = |one: &&&KubeGateway| one.api == NameApi::Istio && one.name == *name;
            let Some(gateway) = said.gateways.iter().find(is_it) else { continue };
            let selector = &gateway.selector;
            let has = |(key, value): (&String, &String)| pod.labels.get(key) == Some(value);
            if selector.is_empty() || !selector.iter().all(has) {
                continue;
            }
            let takes = |rule: &KubeNameRule| {
                gateway.hosts.iter().any(|host| is_of_host(host, rule.host.as_deref()))
            };
            if object.rules.iter().all(takes) {
                return Some(Some(Serves::Selector));
            }
            may = true;
        }
        may.then_some(None)
    }
}

/// Whether a host is one that a server of Istio's Gateway takes: `*`, `*.example.com`,
/// `namespace/host`, of which namespaces are not compared but `*` and none.
fn is_of_host(server: &str, host: Option<&str>) -> bool {
    let server = match server.split_once('/') {
        Some(("*", server)) => server,
        Some(_) => return false,
        None => server,
    };
    match server.strip_prefix('*') {
        Some("") => true,
        Some(end) => host.is_some_and(|host| host.ends_with(end)),
        None => host == Some(server),
    }
}

/// Whether Traefik is told to look at a kind of object, and at all of them.
fn traefik_reads(program: &Process, provider: &str) -> bool {
    let provider = format!("providers.{provider}");
    let mut reads = false;
    for (name, value) in options(program) {
        let name = name.to_ascii_lowercase();
        let Some(rest) = name.strip_prefix(&provider) else { continue };
        match rest {
            "" => reads = value != Some("false"),
            ".ingressclass" | ".namespaces" | ".labelselector" => return false,
            // Any option of it turns it on.
            _ if rest.starts_with('.') => reads = true,
            _ => {}
        }
    }
    reads
}

/// The value of an option; the last one counts.
fn option<'a>(program: &'a Process, name: &str) -> Option<&'a str> {
    options(program).filter(|(known, _)| *known == name).filter_map(|(_, value)| value).last()
}

/// `--name=value`, `--name value` and `--name`.
fn options(program: &Process) -> impl Iterator<Item = (&str, Option<&str>)> {
    let all = program.cmdline.get(1..).unwrap_or_default();
    all.iter().enumerate().filter_map(move |(at, argument)| {
        let name = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))?;
        let next = || all.get(at + 1).map(String::as_str).filter(|next| !next.starts_with('-'));
        Some(name.split_once('=').map_or_else(|| (name, next()), |(n, value)| (n, Some(value))))
    })
}

/// Every address of a Service.
fn addresses(service: &KubeService) -> impl Iterator<Item = IpAddr> + '_ {
    let own = service.cluster_ips.iter().chain(&service.external_ips);
    own.chain(&service.load_balancer_ips).copied()
}
