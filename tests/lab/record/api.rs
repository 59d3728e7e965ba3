//! Two kind clusters of real parts, with what their APIs say.

use std::path::Path;

use anyhow::{Context, Result, bail};
use lab::Kinds;

use crate::cut::Cut;

/// Records the host.
pub(crate) fn record(dir: &Path) -> Result<()> {
    if let Some(reason) = lab::no_kube() {
        bail!("{reason}");
    }
    let kinds = Kinds::shared()?;
    let lab = kinds.docker().lab();
    let kubeconfig = kinds.kubeconfig();
    let tool = lab.tool().args(&["--kubeconfig", kubeconfig.to_str().context("path")?]);
    let cut = Cut { lab: lab.name(), netns: &lab.inodes(), unit: "docker.service", wsl: false };
    crate::record(lab, tool, &cut, dir, "kind-api.json")
}
