//! All containers at once, for lists.

use std::collections::{HashMap, HashSet};

use super::asked::is_api;
use super::docker::ContainerSummary;
use super::{ChainKey, Containers, RuntimesState, docker, ids};

use whereis_port_model::{Container, Read};

/// How many containers of a daemon are asked for what they are told to publish.
const INSPECTED: usize = 48;

impl Containers {
    /// Every container that a daemon lists, or that a process runs in.
    pub(in super::super) fn all(&self) -> Read<Vec<Container>> {
        let mut state = self.state();
        if let Some(all) = &state.all {
            return all.clone();
        }
        let mut all = Read::<Vec<Container>>::default();
        self.find_daemons(&mut state);
        self.look_up_sockets(&mut state, &[], &self.procs.someone_here(0), is_api);
        // One list instead of two questions for each container.
        state.wants_lists = true;
        let usual = state.usual.iter_mut().flat_map(|(_, listeners)| listeners);
        for listener in usual {
            listener.wants_list = true;
        }
        for listener in &mut state.found.1 {
            listener.wants_list = true;
        }
        all.gaps.clone_from(&state.unreachable);
        self.list(&mut state, &mut all);
        self.sweep(&mut state, &mut all);
        state.all.insert(all).clone()
    }

    /// Containers of the system's own daemons that are told to publish ports and do not.
    pub(in super::super) fn unpublished(&self) -> Read<Vec<Container>> {
        let mut state = self.state();
        if let Some(known) = &state.unpublished {
            return known.clone();
        }
        let mut read = Read::<Vec<Container>>::default();
        self.find_daemons(&mut state);
        self.look_up_sockets(&mut state, &[], &self.procs.someone_here(0), is_api);
        let mut budget = state.budget(self.limits);
        for daemon in state.daemons().filter(|d| d.is_the_systems()) {
            // Who does not answer has a gap where names are asked for.
            let Ok(listed) = daemon.ask(&mut budget, docker::DockerClient::list_all) else {
                continue;
            };
            let publishes = |summary: &ContainerSummary| {
                let ports = summary.ports.iter().flatten();
                ports.into_iter().any(|port| port.public_port.is_some())
            };
            // The newest come first.
            let none = listed.into_iter().filter(|summary| !publishes(summary));
            for id in none.filter_map(|summary| summary.id).take(INSPECTED) {
                let asked = daemon.ask(&mut budget, |client, hello| client.inspect(hello, &id));
                let Ok(answer) = asked else { continue };
                if let Some(mut container) = docker::unpublished(daemon.runtime, answer) {
                    container.via = daemon.name();
                    daemon.tell_networks(&mut budget, &mut container);
                    read.value.push(container);
                }
            }
        }
        state.budget = Some(budget);
        state.unpublished.insert(read).clone()
    }

    /// What the system's own daemons list. Others can invent containers: those of
    /// theirs that really run are found by [`Self::sweep`].
    fn list(&self, state: &mut RuntimesState, all: &mut Read<Vec<Container>>) {
        let mut budget = state.budget(self.limits);
        for daemon in state.daemons().filter(|d| d.is_the_systems()) {
            let listed = match daemon.ask(&mut budget, docker::DockerClient::list) {
                Ok(listed) => listed,
                Err(failure) => {
                    all.gaps.push(daemon.gap(&failure));
                    continue;
                }
            };
            for summary in listed {
                let mut container = docker::from_summary(daemon.runtime, summary);
                container.via = daemon.name();
                container.pod = daemon.pod_of(&mut budget, &container.id);
                daemon.tell_networks(&mut budget, &mut container);
                if !all.value.iter().any(|known| known.id == container.id) {
                    all.value.push(container);
                }
            }
        }
        state.budget = Some(budget);
    }

    /// Adds containers that no daemon lists, by the processes that run in them.
    fn sweep(&self, state: &mut RuntimesState, all: &mut Read<Vec<Container>>) {
        let mut known: HashMap<ChainKey, usize> = HashMap::new();
        for (at, container) in all.value.iter().enumerate() {
            let mut ids = ids(&container.parents);
            ids.push(container.id.clone());
            known.insert(ChainKey { ids, maker: None }, at);
        }
        let mut tried: HashSet<ChainKey> = HashSet::new();
        for pid in self.procs.all() {
            let Some(chain) = self.procs.chain(pid) else { continue };
            for depth in 1..=chain.len() {
                let chain = &chain[..depth];
                let key = self.key(chain, pid);
                if let Some(&at) = known.get(&key) {
                    let container = &mut all.value[at];
                    container.pid =
                        container.pid.or_else(|| self.first_process(chain, None, pid, &[]));
                } else if tried.insert(key.clone()) {
                    let ancestors = self.procs.ancestors(pid);
                    let read = self.look_up(state, chain, pid, &ancestors);
                    if let Some(container) = read.take(&mut all.gaps) {
                        // Of its own user's containers a daemon has told already.
                        let same = |known: &Container| {
                            (&known.id, &known.parents, &known.via)
                                == (&container.id, &container.parents, &container.via)
                        };
                        if let Some(at) = all.value.iter().position(same) {
                            all.value[at].pid = all.value[at].pid.or(container.pid);
                            known.insert(key, at);
                            continue;
                        }
                        known.insert(key, all.value.len());
                        all.value.push(container);
                    }
                }
            }
        }
        // Asking for one of them later gives the same facts.
        for (key, at) in known {
            let whole = Read::whole(Some(all.value[at].clone()));
            state.known.entry(key).or_insert(whole);
        }
    }
}
