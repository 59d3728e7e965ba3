//! Clusters by the command lines of their components.

use super::*;
use whereis_port_model::StartTime;

fn process(command: &str) -> Process {
    let cmdline: Vec<String> = command.split(' ').map(str::to_owned).collect();
    Process {
        pid: 7,
        start: StartTime(1),
        started_at: None,
        comm: cmdline[0].rsplit('/').next().unwrap().chars().take(15).collect(),
        exe: Some(cmdline[0].clone()),
        cmdline,
        cwd: None,
        uid: 0,
        fs: None,
        own_word: false,
        user: None,
        nspid: vec![7],
        netns: None,
        cgroup: None,
        monitored: None,
        ancestors: Vec::new(),
        health: whereis_port_model::ProcessHealth::default(),
    }
}

/// A command line; distribution, name, role and node of the cluster. `-` is none.
const CLUSTERS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "/usr/bin/kubelet --provider-id=kind://docker/cluster2/cluster2-worker",
        "kind",
        "cluster2",
        "-",
        "cluster2-worker",
    ),
    ("k3s-server server", "k3s", "default", "server", "-"),
    ("k3s-agent agent", "k3s", "default", "agent", "-"),
    (
        "containerd -c /var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        "k3s",
        "default",
        "-",
        "-",
    ),
    ("/usr/local/bin/rke2 server", "rke2", "default", "server", "-"),
    ("/usr/local/bin/rke2 agent", "rke2", "default", "agent", "-"),
    ("/usr/local/bin/rke2 etcd-snapshot", "-", "-", "-", "-"),
    (
        "kube-apiserver --tls-cert-file=/var/lib/rancher/rke2/server/tls/serving-kube-apiserver.crt",
        "rke2",
        "default",
        "control-plane",
        "-",
    ),
    (
        "kubelet --kubeconfig=/var/lib/rancher/rke2/agent/kubelet.kubeconfig --hostname-override=n1",
        "rke2",
        "default",
        "-",
        "n1",
    ),
    ("kubelet --provider-id=rke2://n1", "rke2", "default", "-", "n1"),
    ("/usr/local/bin/k0s controller --enable-worker", "k0s", "", "controller", "-"),
    ("/usr/local/bin/k0s worker --token-file=/etc/k0s/token", "k0s", "", "worker", "-"),
    (
        "/var/lib/k0s/bin/kube-controller-manager --cluster-name=k0s --kubeconfig=/var/lib/k0s/pki/ccm.conf",
        "k0s",
        "k0s",
        "control-plane",
        "-",
    ),
    (
        "/var/lib/k0s/bin/etcd --cert-file=/var/lib/k0s/pki/etcd/server.crt",
        "k0s",
        "",
        "control-plane",
        "-",
    ),
    ("/snap/microk8s/6000/kubelite", "microk8s", "microk8s-cluster", "-", "-"),
    ("/snap/microk8s/6000/bin/k8s-dqlite", "microk8s", "microk8s-cluster", "-", "-"),
    (
        "/snap/microk8s/6000/bin/containerd --config /var/snap/microk8s/6000/args/containerd.toml",
        "microk8s",
        "microk8s-cluster",
        "-",
        "-",
    ),
    ("/usr/bin/apid", "talos", "", "-", "-"),
    (
        "/usr/local/bin/kube-apiserver --tls-cert-file=/system/secrets/kubernetes/kube-apiserver/apiserver.crt",
        "talos",
        "",
        "control-plane",
        "-",
    ),
    (
        "kube-apiserver --openshift-config=/etc/kubernetes/static-pod-resources/configmaps/config/config.yaml",
        "openshift",
        "",
        "control-plane",
        "-",
    ),
    (
        "/usr/bin/machine-config-server start --apiserver-url=https://api-int.prod.example.com:6443",
        "openshift",
        "prod",
        "control-plane",
        "-",
    ),
    ("/usr/bin/microshift run", "microshift", "microshift", "-", "-"),
    (
        "/usr/bin/microshift-etcd run --data-dir=/var/lib/microshift",
        "microshift",
        "microshift",
        "-",
        "-",
    ),
    (
        "kube-controller-manager --cluster-name=mk --root-ca-file=/var/lib/minikube/certs/ca.crt",
        "minikube",
        "",
        "control-plane",
        "-",
    ),
    (
        "kube-controller-manager --cluster-name=prod --kubeconfig=/etc/kubernetes/controller-manager.conf",
        "kubeadm",
        "prod",
        "control-plane",
        "-",
    ),
    (
        "kube-apiserver --tls-cert-file=/etc/kubernetes/pki/apiserver.crt --etcd-cafile=/etc/x",
        "kubeadm",
        "",
        "control-plane",
        "-",
    ),
    (
        "/usr/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
        "kubeadm",
        "",
        "-",
        "-",
    ),
    // By hand: no distribution is named, and without a name there is nothing to say.
    ("kube-controller-manager --cluster-name byhand", "kubernetes", "byhand", "control-plane", "-"),
    ("kube-controller-manager --cluster-name=", "-", "-", "-", "-"),
    ("kube-apiserver --tls-cert-file=/etc/kubernetes/pki/apiserver.crt.old", "-", "-", "-", "-"),
    ("kube-apiserver --secure-port=6443", "-", "-", "-", "-"),
    ("etcd --name=/data/var/lib/k0s/", "-", "-", "-", "-"),
    ("kubelet --provider-id=aws:///eu-west-1a/i-0", "-", "-", "-", "-"),
    ("kubelet --provider-id=kind://docker//node", "-", "-", "-", "-"),
    ("nginx -c /etc/nginx.conf", "-", "-", "-", "-"),
];

#[test]
fn clusters_follow_from_programs_and_arguments() {
    for (command, distribution, name, role, node) in CLUSTERS {
        let found = by_arguments(&process(command));
        let found = found.as_ref();
        let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        assert_eq!(dash(found.map(|c| c.distribution.as_str())), *distribution, "{command}");
        assert_eq!(dash(found.map(|c| c.name.as_str())), *name, "{command}");
        assert_eq!(dash(found.and_then(|c| c.role.as_deref())), *role, "{command}");
        assert_eq!(dash(found.and_then(|c| c.node.as_deref())), *node, "{command}");
    }
}
