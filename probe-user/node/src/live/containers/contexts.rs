//! Docker's contexts: where its command line asks when `$DOCKER_HOST` is not set.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::reader::RootDirectory;

/// The largest file of a context that is read, in bytes, and how many contexts are looked at.
const MAX_FILE: usize = 1 << 20;
const CONTEXTS: usize = 256;

/// What the environment of who asks says of contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DockerContextChoice {
    /// `$DOCKER_CONTEXT`.
    context: Option<String>,
    /// `$DOCKER_CONFIG`, or `.docker` at home.
    directory: Option<PathBuf>,
}

impl DockerContextChoice {
    pub(super) fn by_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || text("HOME").map(|home| Path::new(&home).join(".docker"));
        let directory = text("DOCKER_CONFIG").map(PathBuf::from).or_else(home);
        Self {
            context: text("DOCKER_CONTEXT"),
            directory: directory.filter(|directory| directory.is_absolute()),
        }
    }

    /// The host of the context that is in use, below `root`; `None` for the usual one.
    pub(super) fn host(&self, root: &RootDirectory) -> Option<String> {
        let directory = self.directory.as_ref()?;
        let root = root.part_of_others(&directory.display().to_string());
        let context = self.context.clone().or_else(|| {
            let content = root.read(&directory.join("config.json"), MAX_FILE).ok()?;
            serde_json::from_slice::<DockerCliConfig>(&content).ok()?.current_context
        })?;
        // Each lies in a directory that is named after the hash of its name.
        let all = directory.join("contexts/meta");
        root.list(&all, CONTEXTS).ok()?.into_iter().find_map(|entry| {
            let content = root.read(&all.join(entry).join("meta.json"), MAX_FILE).ok()?;
            let meta = serde_json::from_slice::<ContextMeta>(&content).ok()?;
            (meta.name == context).then_some(meta.endpoints.docker?.host)
        })
    }
}

/// `config.json` of Docker's command line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerCliConfig {
    current_context: Option<String>,
}

/// `meta.json` of one of its contexts.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextMeta {
    name: String,
    endpoints: ContextEndpoints,
}

/// The endpoints of a context.
#[derive(Deserialize)]
struct ContextEndpoints {
    docker: Option<ContextEndpoint>,
}

/// Where an endpoint is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextEndpoint {
    host: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_in_use_says_where_docker_listens() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let root = RootDirectory::at(dir.path());
        let chosen = |context: Option<&str>| DockerContextChoice {
            context: context.map(str::to_owned),
            directory: Some(PathBuf::from("/home/me/.docker")),
        };
        assert_eq!(chosen(None).host(&root), None);
        write("home/me/.docker/config.json", r#"{"auths":{},"currentContext":"rootless"}"#);
        for (hash, name) in [("3b", "rootless"), ("5a", "other")] {
            let meta = format!(
                r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"unix:///{name}.sock","SkipTLSVerify":false}}}}}}"#
            );
            write(&format!("home/me/.docker/contexts/meta/{hash}/meta.json"), &meta);
        }
        assert_eq!(chosen(None).host(&root).as_deref(), Some("unix:///rootless.sock"));
        assert_eq!(chosen(Some("other")).host(&root).as_deref(), Some("unix:///other.sock"));
        assert_eq!(chosen(Some("default")).host(&root), None);
    }
}
