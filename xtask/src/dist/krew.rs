//! The manifest of krew, which installs plugins of kubectl.

use std::fmt::Write as _;

use super::Arch;

/// What an archive is called, and its SHA-256.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) arch: Arch,
    pub(crate) file: String,
    pub(crate) sha256: String,
}

/// The manifest, for archives that a release at `repository` has.
pub(crate) fn manifest(version: &str, repository: &str, archives: &[Archive]) -> String {
    let mut text = format!(
        "apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: whereis-port
spec:
  version: \"v{version}\"
  homepage: {repository}
  shortDescription: Tells who is behind a port, on a node or in a cluster
  description: |
    Names the processes, containers, pods and services behind a port, and says
    from where it can be reached, and if it can't, why.
  caveats: |
    It asks agents on the nodes, which are installed first:
    kubectl apply -k https://github.com/whereis-port/whereis-port/deploy
    kubectl whereis-port 30518
  platforms:
"
    );
    for Archive { arch, file, sha256 } in archives {
        let directory = file.strip_suffix(".tar.gz").unwrap_or(file);
        let _infallible = write!(
            text,
            "    - selector:
        matchLabels:
          os: linux
          arch: {}
      uri: {repository}/releases/download/v{version}/{file}
      sha256: {sha256}
      bin: whereis-port
      files:
        - from: {directory}/whereis-port
          to: .
        - from: {directory}/LICENSE-MIT
          to: .
        - from: {directory}/LICENSE-APACHE
          to: .
",
            arch.debian()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_archive_is_named_with_its_sum_and_where_the_binary_is_in_it() {
        let archive =
            Archive { arch: Arch::Aarch64, file: "w-1.tar.gz".into(), sha256: "a".repeat(64) };
        let text = manifest("1.0.0", "https://example.org/w", &[archive]);
        assert!(text.contains("  version: \"v1.0.0\"\n"), "{text}");
        let uri = "      uri: https://example.org/w/releases/download/v1.0.0/w-1.tar.gz\n";
        assert!(text.contains(uri), "{text}");
        assert!(text.contains("        - from: w-1/whereis-port\n"), "{text}");
        assert!(text.contains("          arch: arm64\n"), "{text}");
    }
}
