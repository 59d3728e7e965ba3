//! What a control plane needs beside its programs: certificates, kubeconfig files, and
//! kubectl to talk to its API.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};

use crate::node::Lab;
use crate::programs::{checked, programs};

/// Where the programs of Kubernetes are.
pub(crate) fn kube_programs() -> Result<PathBuf> {
    Ok(match std::env::var_os("WHEREIS_PORT_KUBE_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => programs()?.parent().context("no target directory")?.join("kube"),
    })
}

/// A program of Kubernetes.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = kube_programs()?.join(name);
    ensure!(path.is_file(), "{} is not there: cargo xtask kube build", path.display());
    Ok(path)
}

/// The certificates of one cluster, in a directory, and its administrator.
#[derive(Debug)]
pub(crate) struct Control {
    dir: PathBuf,
    ca: (CertificateParams, String),
}

impl Control {
    /// A new authority, whose certificate is `ca.crt` in `dir`.
    pub(crate) fn new(dir: PathBuf) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate()?;
        std::fs::write(dir.join("ca.crt"), params.self_signed(&key)?.pem())?;
        Ok(Self { dir, ca: (params, key.serialize_pem()) })
    }

    /// Where everything is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    /// Makes the administrator and his kubeconfig, which has one context.
    pub(crate) fn administer(&self, context: &str, user: &str, server: &str) -> Result<()> {
        self.certificate(user, user, "system:masters", &[user])?;
        let config = self.kubeconfig_of(context, user, server).to_string();
        Ok(std::fs::write(self.kubeconfig(), config)?)
    }

    /// A kubeconfig with one context for a user with a certificate.
    pub(crate) fn kubeconfig_of(&self, context: &str, user: &str, server: &str) -> Value {
        let dir = self.dir.display();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority": format!("{dir}/ca.crt")}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
            "users": [{"name": user, "user": {
                "client-certificate": format!("{dir}/{user}.crt"), "client-key": format!("{dir}/{user}.key"),
            }}],
        })
    }

    /// A certificate of the authority, as `NAME.crt` and `NAME.key`.
    pub(crate) fn certificate(
        &self,
        name: &str,
        subject: &str,
        group: &str,
        names: &[&str],
    ) -> Result<()> {
        let mut params =
            CertificateParams::new(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, subject);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_params(&self.ca.0, KeyPair::from_pem(&self.ca.1)?);
        let certificate = params.signed_by(&key, &issuer)?;
        std::fs::write(self.dir.join(format!("{name}.crt")), certificate.pem())?;
        std::fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Runs kubectl as the administrator, on the lab's host.
    pub(crate) fn kubectl(&self, lab: &Lab, args: &[&str]) -> Result<String> {
        let kubectl = program("kubectl")?;
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig().display());
        let mut argv = vec![kubectl.to_str().context("path of kubectl")?, &kubeconfig];
        argv.extend(args);
        let mut command = lab.command(lab.host(), &argv)?;
        command.env("HOME", &self.dir);
        checked(&mut command)
    }

    /// Makes or changes objects.
    pub(crate) fn apply(&self, lab: &Lab, object: &Value) -> Result<()> {
        let file = self.file(object)?;
        self.kubectl(lab, &["apply", "-f", file.to_str().context("path")?]).map(drop)
    }

    /// Writes the state of an object, as only its kubelet does elsewhere.
    pub(crate) fn set_status(&self, lab: &Lab, path: &str, status: &Value) -> Result<()> {
        let mut object = self.get(lab, path)?;
        object["status"] = status.clone();
        let file = self.file(&object)?;
        let raw = format!("--raw={path}/status");
        self.kubectl(lab, &["replace", &raw, "-f", file.to_str().context("path")?]).map(drop)
    }

    /// An object as the API has it.
    pub(crate) fn get(&self, lab: &Lab, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(lab, &["get", "--raw", path])?)?)
    }

    fn file(&self, object: &Value) -> Result<PathBuf> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = self.dir.join(format!("object-{}-{number}.json", std::process::id()));
        std::fs::write(&file, object.to_string())?;
        Ok(file)
    }
}

/// What a kubelet writes of a node that lives.
pub(crate) fn node_status(address: &str) -> Value {
    json!({
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
            "kubeProxyVersion": "v1.20.2", "kubeletVersion": "v1.20.2", "machineID": "",
            "operatingSystem": "linux", "osImage": "", "systemUUID": "",
        },
    })
}

/// What a kubelet writes of a pod that runs in one container.
pub(crate) fn pod_status(address: &str, name: &str, container: &str, ready: bool) -> Value {
    json!({
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        "containerStatuses": [{
            "name": name, "ready": ready, "restartCount": 0, "image": "lab/server:1", "imageID": "",
            "containerID": format!("containerd://{container}"),
            "state": {"running": {}}, "lastState": {},
        }],
    })
}
