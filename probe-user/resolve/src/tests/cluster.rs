//! Clusters that this machine's own name and files name.

use super::*;
use whereis_port_model::Cluster;

const API_SERVER: &str =
    "kube-apiserver --secure-port=6443 --tls-cert-file=/etc/kubernetes/pki/apiserver.crt";

/// An API server of kubeadm in the node's network, and the node's own kubeconfig of this
/// cluster, whose API does not answer.
fn kubeadm(cluster: &str) -> TestNode {
    let mut node = TestNode::new().tcp(HOST, "[::]:6443").held_by(20, HOST, API_SERVER);
    let mut api = kube::api(cluster, "https://192.0.2.10:6443");
    api.context.file = "/etc/kubernetes/admin.conf".to_owned();
    api.down = Some("down");
    node.apis.push(api);
    node
}

fn cluster(node: &TestNode) -> Cluster {
    node.ask("6443").paths[0].end.cluster.clone().unwrap()
}

#[test]
fn the_kubeconfig_of_the_node_has_the_name() {
    let found = cluster(&kubeadm("prod"));
    assert_eq!((found.name.as_str(), found.distribution.as_str()), ("prod", "kubeadm"));
    assert_eq!(found.node.as_deref(), Some("node"));
    assert!(found.source.ends_with("its name by /etc/kubernetes/admin.conf"), "{}", found.source);
}

#[test]
fn another_kubeconfig_does_not_name_the_nodes_cluster() {
    let mut node = kubeadm("prod");
    node.apis[0].context.file = "/home/me/.kube/config".to_owned();
    let found = cluster(&node);
    assert_eq!((found.name.as_str(), found.distribution.as_str()), ("", "kubeadm"));
}

#[test]
fn the_nodes_files_say_nothing_of_a_container() {
    let inside = |pod: bool| {
        kubeadm("prod")
            .last_process(|p| p.cgroup = Some(CgroupPath(format!("/docker/{ID}"))))
            .container(ID, "apiserver", |c| {
                c.pod = pod.then(whereis_port_model::Pod::default);
            })
    };
    let found = cluster(&inside(false));
    assert_eq!((found.name.as_str(), found.node), ("", None));
    // But of a pod of this node they do.
    let found = cluster(&inside(true));
    assert_eq!((found.name.as_str(), found.node.as_deref()), ("prod", Some("node")));
}

#[test]
fn docker_desktops_node_is_called_so() {
    let mut node = kubeadm("kubernetes");
    node.host.hostname = "docker-desktop".to_owned();
    let found = cluster(&node);
    let names = (found.name.as_str(), found.distribution.as_str());
    assert_eq!(names, ("docker-desktop", "docker-desktop"));
}
