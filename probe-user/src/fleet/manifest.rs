//! What runs the agents: a manifest, made from a template.

/// The namespace of the agents, when no other is named.
pub const NAMESPACE: &str = "whereis-port";

/// The labels that every agent's pod has.
pub const SELECTOR: &str = "app.kubernetes.io/name=whereis-port,app.kubernetes.io/component=agent";

/// The container of an agent's pod that has the tool.
pub const CONTAINER: &str = "agent";

/// The image, when no other is named: that of this version.
pub const IMAGE: &str = concat!("ghcr.io/whereis-port/whereis-port:", env!("CARGO_PKG_VERSION"));

const TEMPLATE: &str = include_str!("agents.yaml");

/// The manifest of the agents: namespace, service account and DaemonSet.
///
/// # Errors
/// When a name would not be one in YAML or for Kubernetes: said why.
pub fn manifest(namespace: &str, image: &str) -> Result<String, String> {
    check_namespace(namespace)?;
    check_image(image)?;
    Ok(TEMPLATE.replace("{namespace}", namespace).replace("{image}", &format!("{image:?}")))
}

/// Whether `name` can be a namespace's, which is a DNS label.
///
/// # Errors
/// What is wrong with it.
pub fn check_namespace(name: &str) -> Result<(), String> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = name.len() <= 63 && edge(name.chars().next()) && edge(name.chars().last());
    if fits && name.chars().all(inside) {
        return Ok(());
    }
    Err(format!(
        "--namespace {name:?} is no name of a namespace: lower-case letters, digits and hyphens, at most 63"
    ))
}

fn check_image(image: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
    if !image.is_empty() && image.len() <= 512 && image.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "--image {image:?} is no reference of an image, such as registry.example/whereis-port:0.1"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_that_kustomize_uses_is_what_the_command_prints() {
        let copy = include_str!("../../../deploy/agents.yaml");
        assert_eq!(
            manifest(NAMESPACE, IMAGE).unwrap(),
            copy,
            "run: whereis-port cluster manifest > deploy/agents.yaml"
        );
    }

    #[test]
    fn names_are_put_in_everywhere() {
        let text = manifest("tools", "registry.example:5000/wp@sha256:abc").unwrap();
        assert!(!text.contains('{') || !text.contains("{namespace}") && !text.contains("{image}"));
        assert_eq!(text.matches("namespace: tools\n").count(), 2, "{text}");
        assert!(text.contains("  name: tools\n"), "{text}");
        assert!(text.contains("image: \"registry.example:5000/wp@sha256:abc\"\n"), "{text}");
    }

    #[test]
    fn the_client_looks_for_the_labels_that_the_manifest_sets() {
        let text = manifest(NAMESPACE, IMAGE).unwrap();
        for label in SELECTOR.split(',') {
            let line = format!("        {}\n", label.replace('=', ": "));
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains(&format!("- name: {CONTAINER}\n")));
    }

    #[test]
    fn the_pod_gets_no_more_than_it_needs() {
        let text = manifest(NAMESPACE, IMAGE).unwrap();
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
        for wanted in [
            "readOnlyRootFilesystem: true",
            "privileged: false",
            "automountServiceAccountToken: false",
            "drop: [\"ALL\"]",
        ] {
            assert!(lines.contains(&wanted), "{wanted}");
        }
        let unwanted = ["volumes", "hostPath", "ports:", "containerPort", "Role", "hostIPC"];
        for line in &lines {
            assert!(unwanted.iter().all(|word| !line.contains(word)), "{line}");
        }
        let added: Vec<&str> = lines
            .iter()
            .skip_while(|line| **line != "add:")
            .filter_map(|line| line.strip_prefix("- "))
            .collect();
        assert_eq!(added, ["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN"]);
    }

    #[test]
    fn what_would_be_more_than_a_name_is_refused() {
        for name in ["", "Tools", "a b", "-a", "a-", "x\n  y: z", &"a".repeat(64)] {
            assert!(check_namespace(name).is_err(), "{name:?}");
        }
        assert!(check_namespace("kube-system").is_ok() && check_namespace("a").is_ok());
        for image in ["", "a b", "x\"\n", "{image}"] {
            assert!(manifest(NAMESPACE, image).is_err(), "{image:?}");
        }
    }
}
