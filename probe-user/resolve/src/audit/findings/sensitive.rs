//! What gives more than its own service to whoever gets to it: interfaces of Docker and
//! Kubernetes, databases, consoles.

use super::{MergedFindings, of, who, whose};
use whereis_port_model::{Advice, AuditCode, Exposure, FixKind, ListRow, Opening, Port, Proto};

/// Databases and caches, by the names of their programs.
const DATABASES: [&str; 18] = [
    "postgres",
    "postmaster",
    "mysqld",
    "mariadbd",
    "mongod",
    "mongos",
    "redis-server",
    "valkey-server",
    "keydb-server",
    "memcached",
    "cockroach",
    "influxd",
    "clickhouse-server",
    "clickhouse-serv",
    "sqlservr",
    "arangod",
    "neo4j",
    "rethinkdb",
];
/// And by the last part of an image's name, which others build upon.
const DATABASE_IMAGES: [&str; 16] = [
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "mongo",
    "mongodb",
    "redis",
    "valkey",
    "memcached",
    "cassandra",
    "elasticsearch",
    "opensearch",
    "influxdb",
    "clickhouse",
    "couchdb",
    "neo4j",
];
/// Databases on a runtime that serves other things as well: only at their ports.
const BY_PORT: [(&str, Port); 6] = [
    ("java", Port(9200)),
    ("java", Port(9300)),
    ("java", Port(9042)),
    ("java", Port(7000)),
    ("beam.smp", Port(5984)),
    ("java", Port(2181)),
];
/// Dashboards and consoles, by the names of their programs.
const DASHBOARDS: [&str; 18] = [
    "grafana",
    "grafana-server",
    "prometheus",
    "alertmanager",
    "portainer",
    "cockpit-ws",
    "cockpit-tls",
    "netdata",
    "cadvisor",
    "consul",
    "nomad",
    "argocd-server",
    "rancher",
    "kubernetes-dashboard",
    "hubble-ui",
    "jaeger",
    "jaeger-query",
    "glances",
];
/// And by images.
const DASHBOARD_IMAGES: [&str; 15] = [
    "grafana",
    "prometheus",
    "alertmanager",
    "portainer",
    "portainer-ce",
    "portainer-ee",
    "dashboard",
    "kibana",
    "phpmyadmin",
    "pgadmin4",
    "adminer",
    "mongo-express",
    "redisinsight",
    "argocd",
    "netdata",
];
/// The ports of dockerd that are not its API: of a swarm, and of its metrics.
const NO_API: [Port; 3] = [Port(2377), Port(7946), Port(9323)];
const KUBELET: [Port; 2] = [Port(10250), Port(10255)];
const ETCD: [Port; 3] = [Port(2379), Port(2380), Port(2382)];

/// What an exposure is, where other machines get to it. `inner` is what it leads to.
pub(super) fn check(
    exposure: &Exposure,
    inner: Option<&Exposure>,
    open: &Opening,
    found: &mut MergedFindings,
) {
    // The port of a container is told where it is published, and else by itself.
    let rows = || exposure.rows.iter().chain(inner.into_iter().flat_map(|inner| &inner.rows));
    let port = inner.map_or(exposure.port, |inner| inner.port);
    let Some((code, why)) = rows().find_map(|row| kind(row, exposure.proto, port)) else { return };
    let what = format!("{} is open to {}: {why}", whose(exposure, open), who(open));
    let mut finding = of(exposure, code, Some(open), what);
    let only = match code {
        AuditCode::KubeletOpen | AuditCode::EtcdOpen => {
            "let in only the machines of the cluster that need it"
        }
        _ => {
            "bind it to an address that only those who need it get to, or let a firewall in only them"
        }
    };
    finding.fix = Some(Advice::from(only).of(FixKind::Bind));
    found.add(finding);
}

fn kind(row: &ListRow, proto: Proto, port: Port) -> Option<(AuditCode, &'static str)> {
    let component = row.component.as_ref().filter(|one| one.confirmed).map(|one| &*one.name);
    let runs =
        |names: &[&str]| row.end.processes.iter().any(|process| names.contains(&process.name()));
    let image = row.end.containers.last().and_then(|container| container.image.as_deref());
    let image = image.map(base_name);
    let made_of = |names: &[&str]| image.is_some_and(|image| names.contains(&image));
    let tcp = proto == Proto::Tcp;
    if tcp && runs(&["dockerd"]) && !NO_API.contains(&port) {
        let why = "whoever uses the API of Docker is root on this node";
        return Some((AuditCode::DockerApiOpen, why));
    }
    if tcp && component.is_some() && ETCD.contains(&port) {
        return Some((AuditCode::EtcdOpen, "etcd holds all of the cluster, its secrets as well"));
    }
    if tcp && component.is_some() && KUBELET.contains(&port) {
        let why = "a kubelet runs commands in the pods of its node for whoever may use it";
        return Some((AuditCode::KubeletOpen, why));
    }
    let at = |(name, known): &(&str, Port)| *known == port && runs(&[name]);
    if runs(&DATABASES) || made_of(&DATABASE_IMAGES) || BY_PORT.iter().any(at) {
        return Some((AuditCode::DatabaseOpen, "it is a database or a cache"));
    }
    if tcp && (runs(&DASHBOARDS) || made_of(&DASHBOARD_IMAGES)) {
        return Some((AuditCode::DashboardOpen, "it is a dashboard or a console"));
    }
    None
}

/// The last part of an image's name, without registry, tag and digest.
fn base_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_name_is_without_what_changes() {
        for (image, name) in [
            ("postgres", "postgres"),
            ("docker.io/library/postgres:16-alpine", "postgres"),
            ("registry:5000/team/redis@sha256:abc", "redis"),
            ("bitnami/mongodb:7", "mongodb"),
        ] {
            assert_eq!(base_name(image), name, "{image}");
        }
    }
}
