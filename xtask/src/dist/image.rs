//! An image for containers: nothing but the binary, what it trusts and its licences.
//!
//! One archive holds it for all processors, as an OCI layout (image-spec 1.0: `oci-layout`,
//! `index.json`, `blobs`). It has a `manifest.json` too, so that `docker load` of Docker before 25,
//! which doesn't know that layout, takes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Arch;
use super::tar::{Tar, gzip, sha256};

/// The name that it is published under, without tag: as in `deploy/agents.yaml`.
pub(crate) const NAME: &str = "ghcr.io/whereis-port/whereis-port";

/// Certificates as Debian's package ca-certificates has them, without those of this machine.
pub(crate) const CERTIFICATES: &str = "/usr/share/ca-certificates/mozilla";

/// What goes into the image for each processor, besides its binary.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    pub(crate) version: &'a str,
    pub(crate) licences: &'a str,
    pub(crate) certificates: &'a str,
    /// Seconds since 1970, and the same as RFC 3339 writes it.
    pub(crate) time: u64,
    pub(crate) date: &'a str,
}

/// All certificates of a directory in one file, in the order of names.
pub(crate) fn certificates(dir: &Path) -> Result<String> {
    let reading =
        || format!("reading certificates in {}: apt-get install ca-certificates", dir.display());
    let mut files: Vec<_> =
        fs::read_dir(dir).with_context(reading)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "crt"));
    files.sort();
    let mut all = String::new();
    for file in &files {
        all += fs::read_to_string(file).with_context(reading)?.trim_end();
        all.push('\n');
    }
    ensure!(all.contains("BEGIN CERTIFICATE"), "{} has no certificates", dir.display());
    Ok(all)
}

/// The archive, uncompressed: layers in it are.
pub(crate) fn pack(content: &Content<'_>, binaries: &[(Arch, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut blobs = BTreeMap::new();
    let mut keep = |bytes: Vec<u8>, kind: &str| {
        let digest = sha256(&bytes);
        let described =
            json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() });
        blobs.insert(digest.clone(), bytes);
        (described, format!("blobs/sha256/{digest}"))
    };
    let tag = format!("{NAME}:{}", content.version);
    let (mut images, mut docker) = (Vec::new(), Vec::new());
    for (arch, binary) in binaries {
        let layer = layer(content, binary)?;
        let diff = format!("sha256:{}", sha256(&layer));
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        let (layer, layer_file) = keep(gzip(&layer)?, kind);
        let config = serde_json::to_vec(&config(content, *arch, &diff))?;
        let (config, config_file) = keep(config, "application/vnd.oci.image.config.v1+json");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer],
        });
        let (mut manifest, _) = keep(serde_json::to_vec(&manifest)?, kind);
        manifest["platform"] = json!({ "architecture": arch.debian(), "os": "linux" });
        images.push(manifest);
        docker.push(json!({
            "Config": config_file,
            "RepoTags": [format!("{tag}-{}", arch.debian())],
            "Layers": [layer_file],
        }));
    }
    let kind = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": images });
    let (mut index, _) = keep(serde_json::to_vec(&index)?, kind);
    index["annotations"] = json!({
        "org.opencontainers.image.ref.name": content.version,
        "io.containerd.image.name": tag,
    });
    let outer = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [index] });

    let mut tar = Tar::new(content.time);
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, &serde_json::to_vec(&outer)?)?;
    tar.file("manifest.json", 0o644, &serde_json::to_vec(&docker)?)?;
    tar.dir("blobs", 0o755)?;
    tar.dir("blobs/sha256", 0o755)?;
    for (digest, bytes) in &blobs {
        tar.file(&format!("blobs/sha256/{digest}"), 0o644, bytes)?;
    }
    Ok(tar.finish())
}

fn config(content: &Content<'_>, arch: Arch, diff: &str) -> Value {
    json!({
        "created": content.date,
        "architecture": arch.debian(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/local/bin/whereis-port"],
            "Env": ["PATH=/usr/local/bin"],
            "Labels": {
                "org.opencontainers.image.title": "whereis-port",
                "org.opencontainers.image.version": content.version,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
                "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff] },
        "history": [{ "created": content.date, "created_by": "cargo xtask dist" }],
    })
}

/// The only layer: a whole file system.
fn layer(content: &Content<'_>, binary: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Tar::new(content.time);
    tar.dir("etc", 0o755)?;
    // What runs by another id has a number instead of a name.
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/:\nnobody:x:65534:65534:nobody:/:\n")?;
    tar.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    tar.dir("etc/ssl", 0o755)?;
    tar.dir("etc/ssl/certs", 0o755)?;
    tar.file("etc/ssl/certs/ca-certificates.crt", 0o644, content.certificates.as_bytes())?;
    tar.dir("tmp", 0o1777)?;
    for dir in ["usr", "usr/local", "usr/local/bin", "usr/share", "usr/share/doc"] {
        tar.dir(dir, 0o755)?;
    }
    tar.file("usr/local/bin/whereis-port", 0o755, binary)?;
    tar.dir("usr/share/doc/whereis-port", 0o755)?;
    tar.file("usr/share/doc/whereis-port/LICENSES", 0o644, content.licences.as_bytes())?;
    Ok(tar.finish())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::dist::tar::write;

    #[test]
    fn every_digest_and_size_in_the_layout_is_that_of_a_file() {
        let content = Content {
            version: "1.2.3",
            licences: "MIT\n",
            certificates: "-----BEGIN CERTIFICATE-----\n",
            time: 1,
            date: "1970-01-01T00:00:01Z",
        };
        let binaries = [(Arch::X86_64, b"one".to_vec()), (Arch::Aarch64, b"two".to_vec())];
        let packed = pack(&content, &binaries).unwrap();
        assert_eq!(packed, pack(&content, &binaries).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("image.tar");
        write(&archive, &packed).unwrap();
        let mut tar = Command::new("tar");
        crate::sh::capture(tar.arg("-xf").arg(&archive).arg("-C").arg(dir.path())).unwrap();
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(dir.path().join(name)).unwrap()).unwrap()
        };
        let blob = |described: &Value| {
            let digest = described["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = fs::read(dir.path().join("blobs/sha256").join(digest)).unwrap();
            assert_eq!(sha256(&bytes), digest);
            assert_eq!(described["size"], bytes.len());
            bytes
        };
        let index: Value =
            serde_json::from_slice(&blob(&read("index.json")["manifests"][0])).unwrap();
        let images = index["manifests"].as_array().unwrap();
        let platforms: Vec<_> = images.iter().map(|i| &i["platform"]["architecture"]).collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        for (image, docker) in images.iter().zip(read("manifest.json").as_array().unwrap()) {
            let manifest: Value = serde_json::from_slice(&blob(image)).unwrap();
            let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
            assert_eq!(config["architecture"], image["platform"]["architecture"]);
            let layer = blob(&manifest["layers"][0]);
            let whole = crate::dist::tar::compress("gzip", &["-dc"], &layer).unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&whole)));
            let tags = docker["RepoTags"][0].as_str().unwrap();
            assert!(tags.starts_with("ghcr.io/whereis-port/whereis-port:1.2.3-"), "{tags}");
            let file = docker["Config"].as_str().unwrap();
            assert!(dir.path().join(file).is_file(), "{file}");
        }
    }

    #[test]
    fn the_agents_run_the_image_that_is_made() {
        let file = crate::sh::workspace().join("deploy/agents.yaml");
        let image = format!("image: \"{NAME}:{}\"", env!("CARGO_PKG_VERSION"));
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(&image), "{image} is not in deploy/agents.yaml");
    }
}
