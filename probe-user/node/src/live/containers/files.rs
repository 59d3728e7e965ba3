//! One container by the files of its runtime.

use super::super::reader::Responder;
use super::super::safefs::Unreadable;
use super::running::Running;
use super::statefiles::{self, Monitor, StateDirs};
use super::{ContainerLookup, Containers, RuntimesState, outer_name, running, same};
use whereis_port_model::{Container, Gap, GapKind, GapSource, Impact};

impl Containers {
    pub(super) fn find_running(&self, state: &mut RuntimesState) {
        if state.running.is_none() {
            state.running = Some(running::running(&self.procs));
        }
    }

    pub(super) fn by_files(
        &self,
        state: &mut RuntimesState,
        wanted: &ContainerLookup<'_>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Container> {
        let ContainerLookup { target, parents, holder, .. } = *wanted;
        self.find_running(state);
        let running = state.running.iter().flatten();
        let speakers = running.filter(|r| same(&r.chain, parents) && r.who.speaks_for(holder));
        let beside: Vec<&Running> = speakers.collect();
        let told = StateDirs {
            data_roots: beside.iter().flat_map(|r| r.data_roots.iter().cloned()).collect(),
            states: beside.iter().flat_map(|r| r.states.iter().cloned()).collect(),
        };
        // A shell that a container was started from is no monitor of it, and what runs a
        // file that others can write is none at all.
        let monitor = wanted.monitor.filter(|pid| {
            self.procs.who(*pid).is_some_and(|who| who.speaks_for(holder))
                && self.procs.runs_what_others_cannot_write(*pid, holder.uid)
        });
        // Without its monitor, a container in a container can still be found
        // where its daemon lives.
        let keeper = monitor.or_else(|| beside.first().map(|r| r.pid));
        let at_host = parents.is_empty();
        let own = || self.procs.reader().open(&self.root, Responder::own(&self.root));
        let started = keeper.and_then(|pid| self.procs.started(pid));
        let (root, path) = match (keeper, at_host) {
            (Some(pid), _) => (self.procs.root(pid), self.procs.root_name(pid)),
            (None, true) => (own(), self.root.display().to_string()),
            (None, false) => {
                gaps.push(Gap::new(
                    Impact::Name,
                    GapSource::new(GapKind::StateFile, format!("files of {}", outer_name(parents))),
                    "no process found that keeps containers there",
                ));
                return None;
            }
        };
        let monitor =
            monitor.map(|pid| Monitor { argv: self.procs.argv(pid), cwd: self.procs.cwd(pid) });
        let machines = at_host && holder.is_trusted_with_the_machine(self.procs.own_userns());
        let root = match root {
            // The tool's own root is most often the same one as the shim's.
            Err(Unreadable::Denied) if at_host => own(),
            opened => opened,
        };
        let found = root
            .map_err(|error| (path, error))
            .and_then(|root| statefiles::find(&root, target, monitor.as_ref(), &told, holder));
        let name = |file: &str| match at_host {
            true => file.to_owned(),
            false => format!("{file} in {}", outer_name(parents)),
        };
        match found {
            // A process that took the PID over lives in some other root.
            Ok(found) if keeper.and_then(|pid| self.procs.started(pid)) == started => {
                let mut container = found?;
                if !at_host {
                    container.via = container.via.inside(&outer_name(parents));
                }
                if let Some(pid) =
                    container.pid.filter(|pid| machines && self.is_elsewhere(*pid, wanted))
                {
                    let reason = format!("says that its process is {pid}, which is not in there");
                    let source = GapSource::new(GapKind::StateFile, container.via.to_string());
                    gaps.push(Gap::new(Impact::Name, source, reason));
                }
                Some(container)
            }
            Ok(_) => None,
            Err((file, error)) => {
                let source = GapSource::new(GapKind::StateFile, name(&file));
                let gap = Gap::new(Impact::Name, source, error.to_string());
                gaps.push(match error {
                    Unreadable::Denied => gap.remedy("run as root with CAP_SYS_PTRACE"),
                    _ => gap,
                });
                None
            }
        }
    }
}
