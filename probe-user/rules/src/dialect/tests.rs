use super::*;
use crate::model::{ChainId, Family, NetnsId, Rule, RulesBackend, TableId};

/// The meaning of a trail: table, chain and comment of each step.
fn of(steps: &[(&str, &str, &str)]) -> Meaning {
    let step = |(table, chain, comment): &(&str, &str, &str)| Step {
        chain: ChainId {
            table: TableId {
                netns: NetnsId::Inode(1),
                backend: RulesBackend::Nft,
                family: Family::Ip,
                name: (*table).into(),
            },
            name: (*chain).into(),
        },
        rules: [Rule {
            handle: 1,
            comment: (!comment.is_empty()).then(|| (*comment).to_owned()),
            exprs: Vec::new(),
            packets: None,
        }]
        .into(),
        at: Some(0),
        element: None,
    };
    meaning(&steps.iter().map(step).collect::<Vec<_>>())
}

fn service(meaning: &Meaning) -> String {
    let s = meaning.service.as_ref().unwrap();
    format!("{}/{}:{}", s.namespace, s.name, s.port.as_deref().unwrap_or_default())
}

#[test]
fn services_of_kube_proxy() {
    let one = of(&[
        (
            "nat",
            "KUBE-SERVICES",
            "kubernetes service nodeports; NOTE: this must be the last rule in this chain",
        ),
        ("nat", "KUBE-NODEPORTS", "default/nginx-app"),
        ("nat", "KUBE-SVC-KMGGZIUMAQHSTIZ4", "default/nginx-app"),
    ]);
    assert_eq!((one.by, one.what), (Some("kube-proxy (iptables)"), Some("NodePort")));
    assert_eq!(service(&one), "default/nginx-app:");
    for (comment, what) in [
        ("kube-system/traefik:web loadbalancer IP", "load balancer IP"),
        ("\"kube-system/traefik:web external IP\"", "external IP"),
        ("kube-system/traefik:web cluster IP", CLUSTER_IP),
    ] {
        let one = of(&[("nat", "KUBE-SERVICES", comment)]);
        assert_eq!((one.what, service(&one).as_str()), (Some(what), "kube-system/traefik:web"));
    }
    let none = of(&[("filter", "KUBE-EXTERNAL-SERVICES", "a/b:c has no local endpoints")]);
    assert_eq!((none.refused, none.policy), (Some(NO_LOCAL_ENDPOINTS), Some(EXTERNAL_POLICY)));
    let none = of(&[("filter", "KUBE-SERVICES", "a/b:c has no local endpoints")]);
    assert_eq!((none.refused, none.policy), (Some(NO_LOCAL_ENDPOINTS), Some(INTERNAL_POLICY)));
    let nft = of(&[("kube-proxy", "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80", "")]);
    assert_eq!(service(&nft), "ns1/svc1:p80");
}

#[test]
fn containers_and_pods_that_comments_name() {
    let podman = of(&[("nat", "NETAVARK-HOSTPORT-DNAT", "dnat name: podman id: 0123abc")]);
    assert_eq!(podman.by, Some("Podman (netavark)"));
    assert_eq!(podman.container_id.as_deref(), Some("0123abc"));
    let crio = of(&[("nat", "KUBE-HOSTPORTS", "k8s_web_default_uid_0 hostport 8080")]);
    assert_eq!((crio.by, crio.pod), (Some("CRI-O"), Some(("default".into(), "web".into()))));
    let shim = of(&[("nat", "KUBE-HOSTPORTS", "web_default hostport 8080")]);
    assert_eq!(shim.by, Some("dockershim"));
    let cni = of(&[("cni_hostport", "hostports", "deadbeef")]);
    assert_eq!(cni.container_id.as_deref(), Some("deadbeef"));
}

#[test]
fn others_by_their_names_and_nobody_without_one() {
    for (table, chain, by) in [
        ("nat", "DOCKER", Some("Docker")),
        ("nat", "DOCKER-INGRESS", Some("Docker Swarm")),
        ("docker-bridges", "nat-prerouting-and-output", Some("Docker (nftables)")),
        ("filter", "ufw-user-input", Some("ufw")),
        ("firewalld", "nat_PRE_public_allow", Some("firewalld")),
        ("io.systemd.nat", "prerouting", Some("systemd-nspawn")),
        ("nat", "ISTIO_IN_REDIRECT", Some("Istio")),
        ("nat", "KUBE-NODE-PORT", Some("kube-proxy (IPVS)")),
        ("nat", "PREROUTING", None),
        ("mine", "prerouting", None),
    ] {
        assert_eq!(of(&[(table, chain, "")]).by, by, "{table} {chain}");
    }
}

#[test]
fn hostile_names_and_comments_mean_nothing() {
    for text in
        ["", "/", "a/", "/:", "a//b", "__", "dnat name:", " id: ", "é/ü", "_ hostport ", "service-"]
    {
        for chain in
            ["KUBE-NODEPORTS", "KUBE-HOSTPORTS", "CNI-HOSTPORT-DNAT", "service-AAAAAAAA-", text]
        {
            for table in ["nat", "kube-proxy", "cni_hostport", text] {
                assert_eq!(of(&[(table, chain, text)]).service, None, "{table} {chain} {text}");
            }
        }
    }
}
