//! What Kubernetes APIs add to answers, and when they are asked.

use std::cell::RefCell;

use super::*;
use whereis_port_model::{
    Balancer, EvidenceSource, FrontendKind, GapKind, GapSource, Server, Subject,
};
use whereis_port_model::{
    ContainerKind, Finding, KubeContainer, KubeContainerPort, KubeEndpoint, KubeEndpointPort,
    KubeEndpoints, KubeNode, KubePod, KubeService, KubeServicePort, KubeWish, ObjectName, Path,
    PodRef, ServiceKind,
};

/// An API server with what it has, and what it was asked.
pub(super) struct Api {
    pub(super) context: KubeContext,
    has: KubeObjects,
    /// Why it does not answer.
    pub(super) down: Option<&'static str>,
    asked: RefCell<Vec<KubeWish>>,
}

/// What an API answers, as a real one would.
pub(super) fn answer(apis: &[Api], ask: &KubeAsk) -> Read<KubeObjects> {
    let Some(api) = apis.iter().find(|api| api.context.id() == ask.context) else {
        panic!("nobody has the context {:?}", ask.context)
    };
    api.asked.borrow_mut().push(ask.wish.clone());
    if let Some(why) = api.down {
        return Read::partial(
            KubeObjects::default(),
            Gap::new(Impact::Name, GapKind::KubernetesApi, why),
        );
    }
    let has = api.has.clone();
    let mut said = KubeObjects { answered: true, ..KubeObjects::default() };
    match &ask.wish {
        KubeWish::Services => said.services = has.services,
        KubeWish::Service(name) => {
            said.services = has.services.into_iter().filter(|s| s.name == *name).collect();
        }
        KubeWish::Endpoints(name) => {
            said.endpoints = has.endpoints.into_iter().filter(|e| e.service == *name).collect();
        }
        KubeWish::Pod(name) => {
            said.pods = has.pods.into_iter().filter(|p| p.name == *name).collect();
        }
        KubeWish::PodsAt(at) => {
            said.pods = has.pods.into_iter().filter(|p| p.ips.contains(at)).collect();
        }
        KubeWish::PodsOn(node) => {
            said.pods =
                has.pods.into_iter().filter(|p| p.node.as_deref() == Some(node.as_str())).collect();
        }
        KubeWish::PodsWith { namespace, labels } => {
            let fits =
                |p: &KubePod| labels.iter().all(|(key, value)| p.labels.get(key) == Some(value));
            said.pods = has
                .pods
                .into_iter()
                .filter(|p| p.name.namespace == *namespace && fits(p))
                .collect();
        }
        KubeWish::ByName(_) => {
            (said.classes, said.gateways, said.names) = (has.classes, has.gateways, has.names);
        }
        KubeWish::Nodes => said.nodes = has.nodes,
        KubeWish::Node(name) => {
            said.nodes = has.nodes.into_iter().filter(|n| n.name == *name).collect();
        }
    }
    Read::whole(said)
}

pub(super) fn api(name: &str, server: &str) -> Api {
    let context = KubeContext {
        in_cluster: false,
        name: name.to_owned(),
        cluster: name.to_owned(),
        server: server.to_owned(),
        namespace: None,
        file: "/root/.kube/config".to_owned(),
        current: true,
        asked_for: false,
        ca: None,
    };
    Api { context, has: KubeObjects::default(), down: None, asked: RefCell::default() }
}

impl Api {
    fn node(mut self, name: &str, address: &str) -> Self {
        self.has.nodes.push(KubeNode {
            name: name.to_owned(),
            addresses: vec![address.parse().unwrap()],
            roles: vec!["control-plane".to_owned()],
            provider_id: None,
            ready: Some(true),
            version: Some("v1.28.5+k3s1".to_owned()),
        });
        self
    }

    fn service(mut self, of: KubeService) -> Self {
        self.has.services.push(of);
        self
    }

    fn pod(mut self, of: KubePod) -> Self {
        self.has.pods.push(of);
        self
    }

    /// An EndpointSlice of `web` with an address, node and readiness of each endpoint.
    fn endpoints(mut self, of: &[(&str, &str, bool)]) -> Self {
        let endpoint = |(address, node, ready): &(&str, &str, bool)| KubeEndpoint {
            addresses: vec![address.parse().unwrap()],
            ready: *ready,
            serving: *ready,
            terminating: false,
            node: Some((*node).to_owned()),
            zone: None,
            pod: Some(named(&format!("web-{}", address.rsplit('.').next().unwrap()))),
        };
        self.has.endpoints.push(KubeEndpoints {
            service: named("web"),
            ports: vec![KubeEndpointPort {
                name: Some("http".to_owned()),
                proto: Some(Proto::Tcp),
                port: Some(Port(8080)),
            }],
            endpoints: of.iter().map(endpoint).collect(),
        });
        self
    }

    fn asked(&self) -> Vec<KubeWish> {
        self.asked.borrow().clone()
    }
}

fn named(name: &str) -> ObjectName {
    ObjectName { namespace: "default".to_owned(), name: name.to_owned() }
}

/// Service `web` with port 80, named `http`, on NodePort 30080, to port `web` of pods `app=web`.
fn web() -> KubeService {
    KubeService {
        name: named("web"),
        kind: ServiceKind::NodePort,
        cluster_ips: vec!["10.96.0.80".parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        external_local: false,
        internal_local: false,
        affinity: false,
        health_check_node_port: None,
        ports: vec![KubeServicePort {
            name: Some("http".to_owned()),
            proto: Some(Proto::Tcp),
            port: Port(80),
            target: "web".to_owned(),
            node_port: Some(Port(30080)),
        }],
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        external_name: None,
        gateway: None,
    }
}

const POD_UID: &str = "0c9d2f5e-77a1-4e0b-8d3f-52f6b1c3a9e4";
const CONTAINER: &str = "9be1a3c0d4f79be1a3c0d4f79be1a3c0d4f79be1a3c0d4f79be1a3c0d4f79be1";

fn pod(name: &str, uid: &str, address: &str) -> KubePod {
    KubePod {
        name: named(name),
        uid: uid.to_owned(),
        config_hash: None,
        node: Some("node".to_owned()),
        phase: Some("Running".to_owned()),
        host_network: false,
        ips: vec![address.parse().unwrap()],
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        owner: Some("ReplicaSet/web-5d4f".to_owned()),
        containers: vec![KubeContainer {
            name: "web".to_owned(),
            sort: ContainerKind::Main,
            id: Some(CONTAINER.to_owned()),
            image: Some("nginx:1.27".to_owned()),
            ready: true,
            ports: vec![KubeContainerPort {
                name: Some("web".to_owned()),
                proto: Some(Proto::Tcp),
                port: Port(8080),
                host_port: None,
                host_ip: None,
            }],
            running: true,
            waiting: None,
            exit_code: None,
            restarts: 0,
            probe: None,
        }],
        unscheduled: None,
        is_ending: false,
    }
}

/// A node with one pod, of which only the cgroup tells, that serves 8080.
fn with_pod(node: TestNode, outer: &str) -> TestNode {
    node.namespace(B, "cni-1")
        .address(B, "10.42.0.7")
        .tcp(B, "0.0.0.0:8080")
        .held_by(30, B, "web")
        .last_process(|p| {
            p.cgroup =
                Some(CgroupPath(format!("{outer}/kubepods/besteffort/pod{POD_UID}/{CONTAINER}")));
        })
}

fn served(mut node: TestNode, api: Api) -> TestNode {
    for netns in node.netns.iter_mut().filter(|n| n.id == B) {
        netns.paths = vec!["/run/netns/cni-1".to_owned()];
    }
    node.apis.push(api);
    node
}

/// IPVS on the host: the NodePort of `web` with its servers.
fn node_port(mut node: TestNode, to: &[&str]) -> TestNode {
    node.frontends.push(Frontend {
        netns: HOST,
        balancer: Balancer::Cilium,
        proto: Some(6),
        address: Some("192.0.2.10".parse().unwrap()),
        port: 30080,
        mark: None,
        kind: Some(FrontendKind::NodePort),
        scope: None,
        scheduler: None,
        affinity: None,
        id: Some(1),
        proxy_port: None,
        sources: None,
        flags: Vec::new(),
        backends: to
            .iter()
            .map(|to| Server {
                to: to.parse().unwrap(),
                weight: None,
                active: true,
                state: None,
                method: None,
                connections: None,
            })
            .collect(),
        name: Some("default/web:http".to_owned()),
        source: "test".to_owned(),
    });
    node
}

fn findings(answer: &Answer) -> Vec<&str> {
    answer.findings.iter().map(|finding: &Finding| finding.what.as_str()).collect()
}

fn local() -> Api {
    api("default", "https://127.0.0.1:6443").node("node", "192.0.2.10")
}

#[test]
fn an_answer_without_kubernetes_asks_no_api() {
    let node = TestNode::new().tcp(HOST, "0.0.0.0:22").held_by(10, HOST, "sshd");
    let node = served(node, local().service(web()));
    let answer = node.ask("22");
    assert_eq!(shape(&answer), ["0.0.0.0:22 > sshd"]);
    assert_eq!(node.apis[0].asked(), []);
    assert_eq!(answer.paths[0].end.cluster, None);
}

#[test]
fn a_free_port_of_a_machine_without_pods_asks_no_remote_api() {
    // What a context of a file is called says nothing of where its cluster is.
    for name in ["prod", "in-cluster"] {
        let remote = api(name, "https://203.0.113.5:6443").node("node", "192.0.2.10");
        let mut node = TestNode::new();
        node.apis.push(remote.service(web()));
        assert_eq!(node.ask("30080").verdict, Verdict::NotFound);
        assert_eq!(node.apis[0].asked(), []);
    }
}

#[test]
fn a_pod_that_only_its_cgroup_names_gets_its_names() {
    let api = local().service(web()).pod(pod("web-7", POD_UID, "10.42.0.7"));
    let node = served(with_pod(TestNode::new(), ""), api);
    let answer = node.ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > web"]);
    let end = &answer.paths[0].end;
    let pod = end.pod.as_ref().unwrap();
    assert_eq!(pod.namespace.as_deref(), Some("default"));
    assert_eq!(pod.name.as_deref(), Some("web-7"));
    assert_eq!(pod.uid.as_deref(), Some(POD_UID));
    assert_eq!(pod.owner.as_deref(), Some("ReplicaSet/web-5d4f"));
    assert_eq!(pod.host_network, Some(false));
    let service = end.service.as_ref().unwrap();
    assert_eq!((service.name.as_str(), service.port.as_deref()), ("web", Some("http")));
    let cluster = end.cluster.as_ref().unwrap();
    assert_eq!(cluster.distribution, "k3s");
    assert_eq!(cluster.node.as_deref(), Some("node"));
    assert_eq!(end.containers[0].name.as_deref(), Some("web"));
    assert_eq!(end.containers[0].image.as_deref(), Some("nginx:1.27"));
    assert!(
        end.evidence.iter().any(|e| e.source == EvidenceSource::KubernetesApi),
        "{:?}",
        end.evidence
    );
}

#[test]
fn a_namespace_is_named_after_the_pod_that_an_api_knows() {
    let name = |node: TestNode, api: Api| {
        let answer = served(node, api).ask("8080");
        answer.paths[0].hops.last().unwrap().netns.as_ref().unwrap().to_string()
    };
    let web = |address: &str| local().pod(pod("web-7", POD_UID, address));
    assert_eq!(name(with_pod(TestNode::new(), ""), web("10.42.0.7")), "default/web-7");
    // Where the pod's address is not, its process went into another namespace.
    assert_eq!(name(with_pod(TestNode::new(), ""), web("10.42.0.9")), "cni-1");
    // What somebody named keeps its name.
    let mut named = with_pod(TestNode::new(), "");
    for netns in named.netns.iter_mut().filter(|n| n.id == B) {
        netns.name = Some("blue".to_owned());
    }
    assert_eq!(name(named, web("10.42.0.7")), "blue");
}

#[test]
fn a_pod_that_took_the_address_of_another_is_not_named_like_it() {
    let other = "11111111-2222-3333-4444-555555555555";
    let mut old = pod("old-7", other, "10.42.0.7");
    old.containers[0].id = Some("f".repeat(64));
    let node = served(with_pod(TestNode::new(), ""), local().pod(old));
    let answer = node.ask("8080");
    assert_eq!(answer.paths[0].end.pod.as_ref().unwrap().name, None);
}

#[test]
fn a_static_pod_is_known_by_the_hash_of_its_manifest() {
    let mut mirror = pod("etcd-node", "api-uid", "192.0.2.10");
    mirror.config_hash = Some(POD_UID.to_owned());
    mirror.host_network = true;
    mirror.containers[0].id = None;
    let node =
        TestNode::new().tcp(HOST, "0.0.0.0:2379").held_by(30, HOST, "etcd").last_process(|p| {
            p.cgroup = Some(CgroupPath(format!("/kubepods/pod{POD_UID}/{CONTAINER}")))
        });
    let node = served(node, local().pod(mirror));
    let answer = node.ask("2379");
    let pod = answer.paths[0].end.pod.as_ref().unwrap();
    assert_eq!(pod.name.as_deref(), Some("etcd-node"));
    assert_eq!(pod.is_static, Some(true));
    assert_eq!(pod.uid.as_deref(), Some(POD_UID));
    assert!(node.apis[0].asked().contains(&KubeWish::PodsOn("node".to_owned())));
}

#[test]
fn a_backend_on_another_node_is_named_with_its_node() {
    let api = local()
        .service(web())
        .endpoints(&[("10.42.0.7", "node", true), ("10.42.1.8", "other", true)]);
    let node = with_pod(TestNode::new(), "").veth(HOST, B).route(HOST, "10.42.0.0", 16);
    let node = served(node_port(node, &["10.42.0.7:8080", "10.42.1.8:8080"]), api);
    let answer = node.ask("30080");
    let off = answer.paths.iter().find(|p| p.end.ending == Ending::Elsewhere).unwrap();
    let pod = off.end.pod.as_ref().unwrap();
    assert_eq!(pod.name.as_deref(), Some("web-8"));
    assert_eq!(pod.node.as_deref(), Some("other"));
    assert_eq!(off.end.service.as_ref().unwrap().port.as_deref(), Some("http"));
    assert_eq!(findings(&answer), Vec::<&str>::new());
    // By name, and not all of them.
    assert!(!node.apis[0].asked().contains(&KubeWish::Services));
}

#[test]
fn the_zone_of_an_endpoint_is_that_of_its_pod() {
    let zoned = |pods: &[KubePod]| {
        let mut api = local()
            .service(web())
            .endpoints(&[("10.42.0.7", "node", true), ("10.42.1.8", "other", true)]);
        for (endpoint, zone) in api.has.endpoints[0].endpoints.iter_mut().zip(["eu-1a", "eu-1b"]) {
            endpoint.zone = Some(zone.to_owned());
        }
        api.has.pods.extend(pods.iter().cloned());
        let node = with_pod(TestNode::new(), "").veth(HOST, B).route(HOST, "10.42.0.0", 16);
        let node = served(node_port(node, &["10.42.0.7:8080", "10.42.1.8:8080"]), api);
        let paths = node.ask("30080").paths.into_iter();
        let zone = |path: Path| (path.end.ending, path.end.pod.and_then(|pod| pod.zone));
        paths.map(zone).collect::<Vec<_>>()
    };
    let said = |zone: &str| Some(zone.to_owned());
    // The first pod is known by itself, the other one by its endpoint alone.
    let known = zoned(&[pod("web-7", POD_UID, "10.42.0.7")]);
    assert_eq!(known, [(Ending::Process, said("eu-1a")), (Ending::Elsewhere, said("eu-1b"))]);
    // A pod without a name is none that an endpoint could be told by.
    assert_eq!(zoned(&[])[0], (Ending::Process, None));
}

#[test]
fn the_sort_of_a_container_is_what_the_api_says_of_its_id() {
    let asked = |sort| {
        let mut of = pod("web-7", POD_UID, "10.42.0.7");
        of.containers[0].sort = sort;
        let node = served(with_pod(TestNode::new(), ""), local().pod(of));
        node.ask("8080").paths[0].end.containers[0].sort
    };
    for sort in
        [ContainerKind::Main, ContainerKind::Init, ContainerKind::Sidecar, ContainerKind::Ephemeral]
    {
        assert_eq!(asked(sort), Some(sort));
    }
    // A status that names another container than the one which runs, and no API at all.
    let mut stale = pod("web-7", POD_UID, "10.42.0.7");
    stale.containers[0].sort = ContainerKind::Init;
    stale.containers[0].id = Some("f".repeat(64));
    for api in [local().pod(stale), local()] {
        let node = served(with_pod(TestNode::new(), ""), api);
        assert_eq!(node.ask("8080").paths[0].end.containers[0].sort, None);
    }
}

#[test]
fn rules_that_lag_behind_the_api_are_noticed() {
    let api = local()
        .service(web())
        .endpoints(&[("10.42.0.7", "node", true), ("10.42.1.9", "other", true)]);
    let node = with_pod(TestNode::new(), "").veth(HOST, B).route(HOST, "10.42.0.0", 16);
    let node = served(node_port(node, &["10.42.0.7:8080", "10.42.1.8:8080"]), api);
    let answer = node.ask("30080");
    let [only] = findings(&answer)[..] else { panic!("{:?}", answer.findings) };
    assert!(only.contains("rules lead to 10.42.1.8"), "{only}");
    assert!(only.contains("rules don't lead to 10.42.1.9"), "{only}");
}

#[test]
fn a_cluster_address_for_clients_beside_its_pods_leads_to_those_alone() {
    let service = || KubeService { internal_local: true, ..web() };
    let asked = |to: &[&str], endpoints: &[(&str, &str, bool)]| {
        let mut node = node_port(TestNode::new(), to);
        let frontend = node.frontends.last_mut().unwrap();
        frontend.address = Some("10.96.0.80".parse().unwrap());
        (frontend.port, frontend.kind) = (80, Some(FrontendKind::ClusterIp));
        let node = served(node, local().service(service()).endpoints(endpoints));
        let answer = node.ask("10.96.0.80:80");
        findings(&answer).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (here, there) = (("10.42.0.7", "node", true), ("10.42.1.7", "other", true));
    let said = asked(&["10.42.0.7:8080"], &[here, there]);
    assert!(!said.iter().any(|what| what.contains("rules and API differ")), "{said:?}");
    let said = asked(&[], &[there]);
    assert!(
        said.iter().any(|what| what.contains("internalTrafficPolicy Local and no ready endpoint")),
        "{said:?}"
    );
}

#[test]
fn rules_of_a_service_that_is_gone_are_noticed() {
    let node = with_pod(TestNode::new(), "").veth(HOST, B).route(HOST, "10.42.0.0", 16);
    let node = served(node_port(node, &["10.42.0.7:8080"]), local());
    let answer = node.ask("30080");
    let [only] = findings(&answer)[..] else { panic!("{:?}", answer.findings) };
    assert!(only.contains("Service default/web, which the API does not have"), "{only}");
}

#[test]
fn a_node_port_without_rules_is_found_and_its_cause_said() {
    let api = local().service(web()).endpoints(&[("10.42.0.7", "node", true)]);
    let node = served(with_pod(TestNode::new(), ""), api);
    let answer = node.ask("30080");
    assert_eq!(answer.verdict, Verdict::Found);
    assert_eq!(shape(&answer), ["0.0.0.0:30080 > Nothing"]);
    let end = &answer.paths[0].end;
    assert_eq!(end.service.as_ref().unwrap().name, "web");
    let finding = &answer.findings[0];
    assert!(finding.what.contains("NodePort 30080/tcp in the API"), "{}", finding.what);
    let cause = finding.cause.as_deref().unwrap();
    assert!(cause.contains("no rule of kube-proxy"), "{cause}");
    for from in [Vantage::Loopback, Vantage::Node, Vantage::Outside] {
        assert_eq!(reachable(&answer, from), [(Some(false), None)]);
    }
}

#[test]
fn nothing_is_said_of_rules_that_could_not_be_read() {
    // The last is how a redacted recording says it, which has none.
    for source in [
        GapSource::new(GapKind::PacketRules, "network namespace 100"),
        GapSource::new(GapKind::Balancer, "IPVS of netns 100"),
        GapKind::Recording.into(),
    ] {
        let mut node = with_pod(TestNode::new(), "");
        node.gaps.push(Gap::new(Impact::Port, source, "not there"));
        let node = served(node, local().service(web()).endpoints(&[("10.42.0.7", "node", true)]));
        let answer = node.ask("30080");
        assert_eq!(answer.verdict, Verdict::Unknown);
        let [only] = findings(&answer)[..] else { panic!("{:?}", answer.findings) };
        assert!(only.contains("could not be read"), "{only}");
    }
}

#[test]
fn a_container_that_an_api_names_is_no_gap() {
    let unnamed = || {
        Gap::new(
            Impact::Name,
            GapSource::new(GapKind::Container, "9be1a3c0d4f7"),
            "nobody knows it",
        )
    };
    let other = || {
        Gap::new(
            Impact::Name,
            GapSource::new(GapKind::Container, "aaaaaaaaaaaa"),
            "nobody knows it",
        )
    };
    let refused = || unnamed().remedy("run as root");
    let gaps = |api: Api| {
        let mut node = with_pod(TestNode::new(), "");
        node.gaps.extend([unnamed(), other(), refused()]);
        served(node, api).ask("8080").gaps
    };
    // What could be done about it is said all the same.
    assert_eq!(gaps(local().pod(pod("web-1", POD_UID, "10.42.0.7"))), [other(), refused()]);
    assert_eq!(gaps(local()), [unnamed(), other(), refused()]);
}

#[test]
fn what_a_gap_is_about_is_no_matter_of_its_sentence() {
    let gap =
        |kind| Gap::new(Impact::Name, GapSource::new(kind, "9be1a3c0d4f7"), "nobody knows it");
    let (container, port) = (gap(GapKind::Container), gap(GapKind::PublishedPort));
    assert_eq!(container.source.to_string(), port.source.to_string());
    let mut node = with_pod(TestNode::new(), "");
    node.gaps.extend([container, port.clone()]);
    let node = served(node, local().pod(pod("web-1", POD_UID, "10.42.0.7")));
    assert_eq!(node.ask("8080").gaps, [port]);
}

#[test]
fn a_service_without_ready_endpoints_says_which_pods_are_not() {
    let api = local().service(web()).endpoints(&[("10.42.0.7", "node", false)]);
    let node = served(node_port(with_pod(TestNode::new(), ""), &[]), api);
    let answer = node.ask("30080");
    let none: Vec<&Finding> =
        answer.findings.iter().filter(|f| f.what.contains("no endpoint that is ready")).collect();
    let [only] = none[..] else { panic!("{:?}", answer.findings) };
    assert_eq!(only.cause.as_deref(), Some("default/web-7 is not ready"));
}

#[test]
fn an_api_that_does_not_answer_leaves_what_the_kernel_says() {
    let mut down = local();
    down.down = Some("connection refused");
    let node = served(with_pod(TestNode::new(), ""), down);
    let answer = node.ask("8080");
    assert_eq!(shape(&answer), ["0.0.0.0:8080 > web"]);
    assert!(answer.gaps.iter().any(|gap| gap.reason == "connection refused"), "{:?}", answer.gaps);
    assert_eq!(node.ask("30080").verdict, Verdict::NotFound);
}

#[test]
fn a_remote_cluster_with_the_same_private_addresses_names_nothing() {
    let api = api("prod", "https://203.0.113.5:6443").node("elsewhere", "192.0.2.10").pod(pod(
        "prod-pod",
        POD_UID,
        "10.42.0.7",
    ));
    let node = served(with_pod(TestNode::new(), ""), api);
    let answer = node.ask("8080");
    let end = &answer.paths[0].end;
    assert_eq!(end.pod.as_ref().unwrap().name, None);
    assert_eq!(end.cluster, None);
    // Whether it is this machine's was asked, and nothing else.
    let asked = node.apis[0].asked();
    assert!(asked.iter().all(|w| matches!(w, KubeWish::Node(_) | KubeWish::Nodes)), "{asked:?}");
}

#[test]
fn two_kind_clusters_with_the_same_pod_address_are_kept_apart() {
    let other = "62cd9120f9578c9f7657bec5a544d3e851e487bacb6dbbbe060cae6f083a57e1";
    let mut node = kind_node()
        .namespace(NetnsId::Inode(400), "cluster1")
        .address(NetnsId::Inode(400), "172.18.0.2");
    for (id, pid, container) in [(A, 20, ID), (NetnsId::Inode(400), 40, other)] {
        if pid == 40 {
            node = node.tcp(id, "[::]:6443").held_by(pid, id, "kube-apiserver").last_process(|p| {
                p.cgroup = Some(CgroupPath(format!("/docker/{container}/kubelet")));
            });
        }
        node.netns.iter_mut().filter(|n| n.id == id).for_each(|n| n.members = vec![pid]);
    }
    node = node.container(other, "cluster1-control-plane", |c| {
        c.labels.insert("io.x-k8s.kind.cluster".to_owned(), "cluster1".to_owned());
    });
    let node = with_pod(node, &format!("/docker/{other}/kubelet"));
    let mut one = api("kind-cluster1", "https://127.0.0.1:45381")
        .node("cluster1-control-plane", "172.18.0.2")
        .pod(pod("of-cluster1", POD_UID, "10.42.0.7"));
    one.context.current = false;
    let two = api("kind-cluster2", "https://127.0.0.1:20971")
        .node("cluster2-control-plane", "172.18.0.4")
        .pod(pod("of-cluster2", POD_UID, "10.42.0.7"));
    let mut node = served(node, two);
    node.apis.push(one);
    let answer = node.ask("8080");
    let end = &answer.paths[0].end;
    assert_eq!(end.pod.as_ref().unwrap().name.as_deref(), Some("of-cluster1"));
    assert_eq!(end.cluster.as_ref().unwrap().name, "cluster1");
}

#[test]
fn a_node_port_of_a_node_out_of_sight_is_told_by_its_api() {
    let findings = |address: &str, published: bool| {
        let mut node = TestNode::new().container(ID, "cluster1-control-plane", |c| {
            c.labels.insert("io.x-k8s.kind.cluster".to_owned(), "cluster1".to_owned());
            let addresses = vec![address.parse().unwrap()];
            c.networks.push(whereis_port_model::Network::new("kind", addresses));
            if published {
                c.ports.push(Published {
                    host_ip: None,
                    host_port: Some(Port(30001)),
                    container_port: Port(30080),
                    proto: Proto::Tcp,
                });
            }
        });
        node.host.init_pid_ns = false;
        let api = api("kind-cluster1", "https://127.0.0.1:45381")
            .node("cluster1-control-plane", "172.18.0.2")
            .service(web())
            .endpoints(&[("10.42.0.7", "cluster1-control-plane", true)]);
        let mut node = served(node, api);
        node.apis[0].context.current = false;
        node.ask("30080").findings
    };
    let all = findings("172.18.0.2", false);
    let [only] = all.as_slice() else { panic!("{all:?}") };
    assert!(only.what.contains("default/web has NodePort 30080/tcp"), "{}", only.what);
    assert!(only.what.contains("node cluster1-control-plane"), "{}", only.what);
    let fix = whereis_port_view::shell::text(only.fix.as_ref().unwrap());
    let forward = "kubectl --context kind-cluster1 -n default port-forward svc/web 30080:80";
    assert!(fix.contains(forward) && fix.contains("extraPortMappings"), "{fix}");
    // A port of this host that leads there is the answer already.
    assert_eq!(findings("172.18.0.2", true), []);
    // A container of that name that is another node.
    assert_eq!(findings("172.19.0.2", false), []);
}

#[test]
fn a_pod_ref_in_a_cgroup_is_what_the_tests_above_rest_on() {
    let path = CgroupPath(format!("/kubepods/besteffort/pod{POD_UID}/{CONTAINER}"));
    let containers = path.containers();
    assert_eq!(containers[0].pod, Some(PodRef { uid: POD_UID.to_owned() }));
}

fn texts(answers: &[Answer]) -> Vec<String> {
    let text = |a: &Answer| format!("{}: {}", a.query.text, shape(a).join(" | "));
    answers.iter().map(text).collect()
}

fn reverse(node: &TestNode, subject: Subject) -> Vec<Answer> {
    crate::reverse(node, &subject)
}

#[test]
fn all_ports_of_a_container_have_those_that_are_published() {
    let node = kind_node().tcp(HOST, "0.0.0.0:22").held_by(99, HOST, "sshd");
    let answers = reverse(&node, Subject::Container("cluster2-control-plane".to_owned()));
    assert_eq!(
        texts(&answers),
        [
            "6443/tcp: [::]:6443 > kube-apiserver",
            "20971/tcp: 127.0.0.1:20971 > 172.18.0.4:6443 > [::]:6443 > kube-apiserver",
        ]
    );
    let by_cluster = reverse(&node, Subject::Cluster("cluster2".to_owned()));
    assert_eq!(texts(&by_cluster), texts(&answers));
    let by_id = reverse(&node, Subject::Container(ID[..12].to_owned()));
    assert_eq!(texts(&by_id), texts(&answers));
}

#[test]
fn all_ports_of_a_process_are_its_own_and_those_that_lead_to_it() {
    let node = kind_node();
    let answers = reverse(&node, Subject::Process(20));
    assert_eq!(answers.len(), 2, "{:?}", texts(&answers));
    // Of a forwarder it is its listener, whoever is at the end.
    let answers = reverse(&node, Subject::Process(10));
    assert_eq!(
        texts(&answers),
        ["20971/tcp: 127.0.0.1:20971 > 172.18.0.4:6443 > [::]:6443 > kube-apiserver"]
    );
}

#[test]
fn nothing_leads_to_what_is_not_there() {
    let [only] = &reverse(&kind_node(), Subject::Process(4711))[..] else { panic!() };
    assert_eq!(only.verdict, Verdict::NotFound);
    assert_eq!(only.paths, []);
    let mut hidden = kind_node();
    hidden.gaps.push(Gap::new(Impact::Port, GapKind::PacketRules, "not permitted"));
    let [only] = &reverse(&hidden, Subject::Pod(None, "web".to_owned()))[..] else { panic!() };
    assert_eq!(only.verdict, Verdict::Unknown);
}

#[test]
fn all_ports_of_a_pod_come_from_its_services_too() {
    let api = local().service(web()).endpoints(&[("10.42.0.7", "node", true)]).pod(pod(
        "web-7",
        POD_UID,
        "10.42.0.7",
    ));
    let node = with_pod(TestNode::new(), "").veth(HOST, B).route(HOST, "10.42.0.0", 16);
    let node = served(node_port(node, &["10.42.0.7:8080"]), api);
    let answers = reverse(&node, Subject::Pod(Some("default".to_owned()), "web-7".to_owned()));
    let ports: Vec<&str> = answers.iter().map(|a| a.query.text.as_str()).collect();
    assert_eq!(ports, ["8080/tcp", "30080/tcp"], "{:?}", texts(&answers));
    let of_service = reverse(&node, Subject::Service(None, "web".to_owned()));
    let ports: Vec<&str> = of_service.iter().map(|a| a.query.text.as_str()).collect();
    assert!(ports.contains(&"30080/tcp"), "{:?}", texts(&of_service));
}

#[test]
fn a_service_without_an_address_of_its_own_is_at_its_endpoints() {
    let mut headless = web();
    headless.cluster_ips.clear();
    headless.ports.iter_mut().for_each(|port| port.node_port = None);
    // Another one has the same pods, and is not meant.
    let mut other = web();
    other.name.name = "another".to_owned();
    let api = local().service(headless).service(other).endpoints(&[("10.42.0.7", "node", true)]);
    let api = api.pod(pod("web-7", POD_UID, "10.42.0.7"));
    let node = with_pod(TestNode::new(), "").veth(HOST, B).route(HOST, "10.42.0.0", 16);
    let answers =
        reverse(&served(node, api), Subject::Service(Some("default".to_owned()), "web".to_owned()));
    let [one] = answers.as_slice() else { panic!("{:?}", texts(&answers)) };
    assert_eq!(one.query.text, "10.42.0.7:8080/tcp");
    let pod = one.paths[0].end.pod.as_ref().and_then(|pod| pod.name.as_deref());
    assert_eq!((one.verdict, pod), (Verdict::Found, Some("web-7")));
}

/// A node whose balancer has the NodePort of `web`, and, as on real nodes, no name for it.
fn unnamed(api: Api) -> TestNode {
    let mut node = node_port(served(TestNode::new(), api), &["10.42.0.7:8080"]);
    node.frontends.iter_mut().for_each(|frontend| frontend.name = None);
    node
}

/// What a list names the services of its rows, as `address:port name`.
fn named_rows(node: &TestNode) -> Vec<String> {
    let mut listing = crate::list(node, &crate::ListFilter::default());
    crate::name_services(node, &mut listing);
    let row = |row: &whereis_port_model::ListRow| {
        let service = row.service.as_ref()?;
        let (name, port) = (&service.name, service.port.as_deref().unwrap_or("-"));
        Some(format!("{}:{} {name} {port}", row.address, row.port))
    };
    listing.rows.iter().filter_map(row).collect()
}

#[test]
fn a_list_names_the_services_of_balancers_by_one_question() {
    let node = unnamed(local().service(web()));
    assert_eq!(named_rows(&node), ["192.0.2.10:30080 web http"]);
    let asked = [KubeWish::Node("node".to_owned()), KubeWish::Services];
    assert_eq!(node.apis[0].asked(), asked);
}

#[test]
fn a_list_without_balancers_asks_no_api() {
    let node = served(TestNode::new().tcp(HOST, "0.0.0.0:80"), local().service(web()));
    assert_eq!(named_rows(&node), Vec::<String>::new());
    assert_eq!(node.apis[0].asked(), []);
}

#[test]
fn an_api_that_is_down_takes_no_row_from_a_list() {
    let mut api = local();
    api.down = Some("down");
    let node = unnamed(api);
    let mut listing = crate::list(&node, &crate::ListFilter::default());
    let before = listing.rows.clone();
    crate::name_services(&node, &mut listing);
    assert_eq!(listing.rows, before);
    assert!(listing.gaps.iter().any(|gap| gap.reason == "down"), "{:?}", listing.gaps);
}

#[test]
fn a_frontend_is_named_by_its_address_and_port_and_not_by_who_selects_the_pod() {
    let mut other = web();
    other.name.name = "another".to_owned();
    other.cluster_ips = vec!["10.96.0.81".parse().unwrap()];
    other.ports[0].node_port = None;
    // Somebody made the endpoints of this one by hand.
    let mut without_selector = web();
    without_selector.selector.clear();
    let api = || {
        let api = local().service(other.clone()).service(without_selector.clone());
        api.pod(pod("web-7", POD_UID, "10.42.0.7"))
    };
    let node = || with_pod(TestNode::new(), "").veth(HOST, B).route(HOST, "10.42.0.0", 16);
    let unnamed = || {
        let mut node = node_port(served(node(), api()), &["10.42.0.7:8080"]);
        node.frontends.iter_mut().for_each(|frontend| frontend.name = None);
        node
    };
    let answer = unnamed().ask("30080");
    let path = &answer.paths[0];
    let service = path.end.service.as_ref().map(|service| service.name.as_str());
    assert_eq!(service, Some("web"), "{:?}", answer.paths);
    assert!(path.hops[0].detail.starts_with("NodePort of Service default/web, Cilium"));
    let of = |name: &str| reverse(&unnamed(), Subject::Service(None, name.to_owned()));
    assert!(
        texts(&of("web")).iter().any(|text| text.starts_with("30080")),
        "{:?}",
        texts(&of("web"))
    );
    assert!(!texts(&of("another")).iter().any(|text| text.starts_with("30080")));
}

#[test]
fn a_pod_of_another_node_of_this_machine_gets_nothing_from_this_cluster() {
    const C: NetnsId = NetnsId::Inode(4026532999);
    let mut other = pod("web-7", "another-uid", "10.42.0.7");
    other.containers[0].id = Some("another".to_owned());
    let api = || local().service(web()).pod(other.clone());
    // Joined to a namespace that is no node of the cluster.
    let node = with_pod(TestNode::new(), "").namespace(C, "other-node").veth(C, B);
    let end = served(node, api()).ask("8080").paths[0].end.clone();
    assert_eq!((end.cluster, end.service), (None, None));
    // Joined to nothing that is known: only its UID could tell.
    let end = served(with_pod(TestNode::new(), ""), api()).ask("8080").paths[0].end.clone();
    assert_eq!(end.cluster, None);
    // Joined to the node itself.
    let node = with_pod(TestNode::new(), "").veth(HOST, B);
    let end = served(node, api()).ask("8080").paths[0].end.clone();
    assert!(end.cluster.is_some());
}

#[test]
fn what_keeps_a_pod_from_being_ready_is_said() {
    let mut crash = pod("web-7", POD_UID, "10.42.0.7");
    let container = &mut crash.containers[0];
    (container.ready, container.running) = (false, false);
    container.waiting = Some("CrashLoopBackOff".to_owned());
    (container.exit_code, container.restarts) = (Some(1), 5);
    let cause = |pod: KubePod| {
        let api = local().service(web()).endpoints(&[("10.42.0.7", "node", false)]).pod(pod);
        let answer = node_port(served(TestNode::new(), api), &[]).ask("30080");
        let causes = answer.findings.iter().filter_map(|finding| finding.cause.clone());
        causes.collect::<Vec<String>>().join(" ")
    };
    let said = cause(crash.clone());
    assert!(said.contains("container web: CrashLoopBackOff, exit code 1, 5 restarts"), "{said}");
    let container = &mut crash.containers[0];
    (container.waiting, container.running, container.restarts) = (None, true, 0);
    let said = cause(crash);
    assert!(said.contains("container web: it runs, and a probe of it has not succeeded"), "{said}");
}

#[test]
fn a_service_that_only_has_such_a_port_is_not_noticed() {
    let node = |port: u16| {
        let mut other = web();
        other.name.name = "web".to_owned();
        other.ports[0].node_port = None;
        other.ports[0].port = Port(port);
        let api = local().service(other).endpoints(&[("10.42.0.9", "node", false)]);
        let node = with_pod(TestNode::new(), "").veth(HOST, B);
        let mut db = pod("db-7", POD_UID, "10.42.0.7");
        db.labels.clear();
        served(node, api.pod(db))
    };
    assert_eq!(findings(&node(8080).ask("8080")), [] as [&str; 0]);
}

/// A node with the controller manager of `cluster2`, beside a NodePort.
fn managed() -> TestNode {
    let manager = "/usr/bin/kube-controller-manager --cluster-name=cluster2";
    let node = TestNode::new().tcp(HOST, "0.0.0.0:10257").held_by(10, HOST, manager);
    node_port(node, &["10.42.0.7:8080"])
}

#[test]
fn a_node_port_is_of_the_cluster_that_the_controller_manager_beside_it_is_told() {
    let answer = managed().ask("30080");
    let cluster = answer.paths[0].end.cluster.clone().unwrap();
    assert_eq!(cluster.name, "cluster2");
    assert!(cluster.source.contains("--cluster-name"), "{}", cluster.source);
    let answers = reverse(&managed(), Subject::Cluster("cluster2".to_owned()));
    let texts = texts(&answers);
    for port in ["10257", "30080"] {
        assert!(texts.iter().any(|text| text.starts_with(port)), "{texts:?}");
    }
}

#[test]
fn a_node_is_called_as_its_own_kubelet_is_told_and_not_like_this_machine() {
    let manager = "/usr/bin/kube-controller-manager --cluster-name=cluster2";
    let node = TestNode::new().namespace(A, "cilnode").tcp(A, "0.0.0.0:10257");
    let bare = node.held_by(10, A, manager);
    let name = |node: &TestNode| node.ask("10257").paths[0].end.cluster.clone().unwrap().node;
    assert_eq!(name(&bare), None);
    let kubelet = "/usr/bin/kubelet --hostname-override=cilnode";
    let with = bare.tcp(A, "0.0.0.0:10250").held_by(11, A, kubelet);
    assert_eq!(name(&with).as_deref(), Some("cilnode"));
    assert!(name(&managed_alone()).is_some());
}

fn managed_alone() -> TestNode {
    let manager = "/usr/bin/kube-controller-manager --cluster-name=cluster2";
    TestNode::new().tcp(HOST, "0.0.0.0:10257").held_by(10, HOST, manager)
}
