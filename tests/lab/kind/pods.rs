//! Pods with a network of their own, and what leads to them.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use serde_json::json;

use super::{KindCluster, hash};
use crate::control::pod_status;
use crate::netns::Netns;
use crate::process::Proc;

/// A pod of the cluster's own network.
#[derive(Debug)]
pub struct KindPod {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The id of its only container.
    pub container: String,
    /// Its address.
    pub address: String,
    /// Its network namespace.
    pub netns: Netns,
    /// The process that listens.
    pub pid: u32,
    _process: Proc,
}

impl KindCluster {
    /// A Service of type NodePort without a name for its port, as `kubectl expose` makes it.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn service(&self, name: &str, cluster_ip: &str, node_port: u16) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "NodePort", "clusterIP": cluster_ip, "selector": {"run": name},
                "ports": [{"port": 80, "targetPort": 80, "nodePort": node_port}],
            },
        }))
    }

    /// A pod with a network of its own, joined to the node as kind's plug-in does, in which
    /// `nginx` listens on port 80. With `host_port` the plug-in for that is run, too.
    ///
    /// # Errors
    /// When a part of it can't be made.
    pub fn pod(&self, name: &str, last: u8, host_port: Option<u16>) -> Result<KindPod> {
        let address = format!("10.244.0.{last}");
        let mut port = json!({"containerPort": 80, "protocol": "TCP"});
        if let Some(host_port) = host_port {
            port["hostPort"] = json!(host_port);
        }
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"run": name}},
            "spec": {
                "nodeName": self.node.container.name,
                "containers": [{"name": name, "image": "nginx", "ports": [port]}],
            },
        }))?;
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let lab = self.docker().lab();
        let object = self.control.get(lab, &path)?;
        let uid = object["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        let container = hash(&format!("container {name} {}", self.name));
        self.control.set_status(lab, &path, &pod_status(&address, name, &container, true))?;
        let netns = self.pod_netns(name, &address)?;
        if let Some(host_port) = host_port {
            self.portmap(&netns, &container, &address, host_port)?;
        }
        let listen = format!("tcp 0.0.0.0:80 --answer {name}");
        let (process, pid) = self.node.pod(&netns, &uid, &container, &listen, &["nginx"])?;
        Ok(KindPod {
            name: name.to_owned(),
            uid,
            container,
            address,
            netns,
            pid,
            _process: process,
        })
    }

    /// A namespace that only the node has a name for, as containerd makes it.
    fn pod_netns(&self, name: &str, address: &str) -> Result<Netns> {
        let random = hash(&format!("netns {name} {}", self.name));
        let (netns, link) = (format!("cni-{}", &random[..8]), format!("veth{}", &random[..8]));
        let script = format!(
            "ip netns add {netns}
             ip link add {link} type veth peer name eth0 netns {netns}
             ip address add 10.244.0.1/32 dev {link}
             ip link set {link} up
             ip route add {address}/32 dev {link}
             ip -n {netns} link set lo up
             ip -n {netns} address add {address}/24 dev eth0
             ip -n {netns} link set eth0 up
             ip -n {netns} route add 10.244.0.1/32 dev eth0 scope link 2>/dev/null || true
             ip -n {netns} route add default via 10.244.0.1"
        );
        self.inside(&["/usr/bin/sh", "-ec", &script])?;
        let path = self.root().join("run/netns").join(&netns);
        let inode = std::fs::metadata(&path)?.ino();
        self.docker().lab().adopt(inode);
        Ok(Netns { name: netns, path, inode })
    }

    /// Runs CNI's portmap, as containerd does for a pod with a hostPort.
    fn portmap(&self, netns: &Netns, id: &str, address: &str, host_port: u16) -> Result<()> {
        let inner = format!("/run/netns/{}", netns.name);
        let config = json!({
            "cniVersion": "0.4.0", "name": "kindnet", "type": "portmap",
            "runtimeConfig": {"portMappings": [
                {"hostPort": host_port, "containerPort": 80, "protocol": "tcp"},
            ]},
            "prevResult": {
                "cniVersion": "0.4.0",
                "interfaces": [{"name": "eth0", "sandbox": inner}],
                "ips": [{"version": "4", "interface": 0, "address": format!("{address}/24")}],
            },
        });
        let argv = ["/usr/lib/cni/portmap"];
        let (mut command, _) = self.node.command("system.slice/containerd.service", &argv)?;
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", &inner)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni");
        self.docker().lab().talk(command, &config.to_string()).context("portmap").map(drop)
    }
}
