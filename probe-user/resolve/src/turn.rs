//! Who to turn to about a listener: what the files around its process say, what started it, and
//! how its owner stops it. The command is proposed, never run.

use std::collections::BTreeMap;

use super::facts::{Facts, container_name};
use whereis_port_model::{
    Advice, By, Command, Container, End, FixKind, ManagedUnit, Path, Pid, Pod, Process, Provenance,
    Runtime, Session, SessionKind, Socket,
};

/// Of how many processes the files are looked at.
const PROCESSES: usize = 8;
/// How many parents are looked at.
const PARENTS: usize = 16;

/// Adds to each end who can be turned to.
pub(super) fn complete(facts: &Facts<'_>, paths: &mut [Path]) {
    let mut known: BTreeMap<Pid, Option<Provenance>> = BTreeMap::new();
    for path in paths {
        let socket = path.hops.iter().rev().find_map(|hop| hop.socket.clone());
        let Some(pid) = path.end.processes.first().map(|process| process.pid) else { continue };
        if let Some(socket) = socket {
            by_unit(facts, &mut path.end, &socket);
        }
        path.end.session = session(facts, &path.end);
        if known.len() < PROCESSES || known.contains_key(&pid) {
            let read = || facts.take(facts.world.provenance(pid));
            path.end.provenance.clone_from(known.entry(pid).or_insert_with(read));
        }
    }
}

/// Adds the socket units that a listener is of: systemd itself has it open, and a unit's file
/// says so.
pub(super) fn by_unit(facts: &Facts<'_>, end: &mut End, socket: &Socket) {
    if end.processes.iter().any(is_systemd) {
        let units = facts.take(facts.world.socket_units());
        end.socket_units = units.iter().filter(|unit| unit.has(socket)).cloned().collect();
    }
}

/// Whether a process is the service manager of the PID namespace that is seen.
pub(super) fn is_systemd(process: &Process) -> bool {
    process.pid == 1 && process.uid == 0 && !process.own_word && process.name() == "systemd"
}

/// What a process was started from, if by somebody who is logged in, or at a time: the nearest
/// of its parents that is such a program, and root's.
fn session(facts: &Facts<'_>, end: &End) -> Option<Session> {
    let first = end.processes.first().filter(|_| end.containers.is_empty())?;
    first.ancestors.iter().take(PARENTS).find_map(|parent| {
        let kind = kind_of(&parent.comm)?;
        let process = facts.process(parent.pid)?;
        let exe = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
        // A name alone is anybody's.
        (!process.own_word && exe.and_then(kind_of) == Some(kind)).then(|| Session {
            kind,
            pid: parent.pid,
            program: process.name().to_owned(),
        })
    })
}

fn kind_of(program: &str) -> Option<SessionKind> {
    match program {
        "sshd" | "sshd-session" | "dropbear" => Some(SessionKind::Ssh),
        "cron" | "crond" | "atd" | "fcron" => Some(SessionKind::Cron),
        _ => None,
    }
}

/// How its owner stops what is at an end.
pub(super) fn stop(end: &End) -> Option<Advice> {
    let process = end.processes.first()?;
    let by_owner = match (&end.pod, end.containers.as_slice()) {
        (Some(pod), _) if pod.name.is_some() => of_pod(end, pod),
        (_, [container]) => of_container(container, process),
        // What is inside of another one is stopped from in there.
        (_, [_, _, ..]) => None,
        (_, []) => of_unit(end, process),
    };
    Some(by_owner.map_or_else(|| kill(process), |stop| Advice::from("end it: ").and("", stop)))
}

/// By a signal to the process.
pub(super) fn kill(process: &Process) -> Advice {
    Advice::from("end it: ").command(Command::new("kill").arg(process.pid.to_string()))
}

fn of_pod(end: &End, pod: &Pod) -> Option<Advice> {
    let (namespace, name) = (pod.namespace.as_ref()?, pod.name.as_ref()?);
    let mut kubectl = Command::new("kubectl");
    if let Some(cluster) = end.cluster.as_ref().filter(|cluster| cluster.distribution == "kind") {
        kubectl = kubectl.args("--context").arg(format!("kind-{}", cluster.name));
    }
    let kubectl = kubectl.args("-n").arg(namespace);
    if pod.is_static == Some(true) {
        let about = Advice::from("take the manifest of static pod ");
        return Some(about.name(name).words(" from the directory of its kubelet"));
    }
    let scale = |what: &str, of: &str| -> Advice {
        kubectl.clone().args("scale").arg(format!("{what}/{of}")).args("--replicas=0").into()
    };
    let owner = pod.owner.as_deref().and_then(|owner| owner.split_once('/'));
    Some(match owner {
        // A Deployment's ReplicaSet is called like it, with the hash of its template.
        Some(("ReplicaSet", set)) => {
            let hash = pod.labels.get("pod-template-hash");
            let deployment =
                hash.and_then(|hash| set.strip_suffix(hash.as_str())?.strip_suffix('-'));
            match deployment {
                Some(deployment) => scale("deployment", deployment),
                None => scale("replicaset", set),
            }
        }
        Some(("StatefulSet", set)) => scale("statefulset", set),
        owner => {
            let delete: Advice = kubectl.args("delete pod").name(name).into();
            match owner {
                Some((kind, by)) => {
                    delete.words(", which ").name(format!("{kind}/{by}")).words(" makes anew")
                }
                None => delete,
            }
        }
    })
}

/// How a container is stopped, by what made it.
pub(super) fn of_container(container: &Container, process: &Process) -> Option<Advice> {
    if let Some(service) = container.swarm_service() {
        return Some(Command::new("docker service scale").name(format!("{service}=0")).into());
    }
    if let Some((project, service)) = container.compose()
        && let Some(compose) = match container.runtime {
            Runtime::Docker => Some("docker compose -p"),
            Runtime::Podman => Some("podman compose -p"),
            _ => None,
        }
    {
        return Some(Command::new(compose).arg(project).args("stop").name(service).into());
    }
    if let Some(unit) = container.systemd_unit() {
        return Some(of_manager(process, &[unit]));
    }
    called(container.runtime.described().stop, container).map(Advice::from)
}

/// A command with what it calls a container by; `None` for one that it does not know.
fn called(command: Option<(&'static str, By)>, container: &Container) -> Option<Command> {
    let (words, by) = command?;
    let command = Command::new(words);
    match by {
        By::Name => Some(command.name(container_name(container))),
        By::Value => Some(command.arg(container_name(container))),
        By::PodId => container.pod.is_some().then(|| command.arg(&container.id)),
    }
}

/// How what froze a process lets it go on: the runtime of its only container, or else the manager
/// of its unit. Of several containers, one in another, it is not known which one is frozen.
pub(super) fn go_on(containers: &[Container], process: &Process) -> Option<Advice> {
    let command = match containers {
        [container] => called(container.runtime.described().go_on, container)?,
        [] => {
            let unit = process.cgroup.as_ref().and_then(managed)?;
            let thaw = if unit.user.is_some() { "systemctl --user thaw" } else { "systemctl thaw" };
            Command::new(thaw).name(unit.name)
        }
        [_, _, ..] => return None,
    };
    Some(Advice::from(command).of(FixKind::Start))
}

fn of_unit(end: &End, process: &Process) -> Option<Advice> {
    let own = process.cgroup.as_ref().and_then(managed);
    let own = own.map(|unit| unit.name).filter(|_| !is_systemd(process));
    let mut units: Vec<&str> = Vec::new();
    // As long as its socket is there, the next connection starts a service again.
    for unit in &end.socket_units {
        for name in [unit.name.as_str(), unit.service.as_str()] {
            // What is started for each connection has no name of its own to stop.
            if !units.contains(&name) && !name.contains("@.") {
                units.push(name);
            }
        }
    }
    if let Some(own) = &own
        && !units.contains(&own.as_str())
    {
        units.push(own);
    }
    (!units.is_empty()).then(|| of_manager(process, &units))
}

/// The service that systemd runs a process for, if it is one that can be stopped.
fn managed(cgroup: &whereis_port_model::CgroupPath) -> Option<ManagedUnit> {
    cgroup.managed_unit().filter(|unit| unit.name.ends_with(".service"))
}

/// By the manager of the system, or that of a user.
fn of_manager(process: &Process, units: &[&str]) -> Advice {
    let user = process.cgroup.as_ref().and_then(|path| path.managed_unit()?.user);
    let command = match user {
        None => Command::new("systemctl stop"),
        Some(_) => Command::new("systemctl --user stop"),
    };
    let advice: Advice = units.iter().fold(command, |command, unit| command.name(*unit)).into();
    match (user, &process.user) {
        (None, _) => advice,
        (Some(_), Some(name)) => advice.words(" (as user ").name(name.as_str()).words(")"),
        (Some(uid), None) => advice.words(format!(" (as user {uid})")),
    }
}

#[cfg(test)]
mod tests;
