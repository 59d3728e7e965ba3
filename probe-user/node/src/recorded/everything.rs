//! Reading all there is, so that a recording of it can answer any question.

use std::collections::{BTreeSet, HashSet};

use super::super::Node;
use whereis_port_model::{
    CgroupOf, ChainId, CiliumPolicyOf, Expr, IpSetId, NetnsId, Pid, RuleVerdict, Ruleset, SetId,
    SocketFilter, XtMatch,
};

/// Asks `node` for every fact. A recording made of it answers later what nobody
/// has asked yet.
pub fn read_everything(node: &dyn Node) {
    let _ = node.host();
    let namespaces = node.netns().value;
    let netns: Vec<_> = namespaces.iter().map(|n| n.id).collect();

    let sockets = node.sockets(&netns, &SocketFilter::ALL).value;
    let others = node.port_sockets(&netns, &SocketFilter::ALL).value;
    let inodes = sockets.iter().chain(others.iter().map(|found| &found.socket)).map(|s| s.inode);
    let inodes = inodes.filter(|inode| *inode != 0).collect();
    let owners = node.owners(&inodes).value;
    let held: BTreeSet<_> = owners.holders.iter().map(|o| o.inode).collect();
    for id in sockets
        .iter()
        .filter(|s| !held.contains(&s.inode))
        .filter_map(|s| s.cgroup_id)
        .collect::<BTreeSet<_>>()
    {
        let _ = node.cgroup_path(id);
    }

    let containers = node.containers().value;
    let _ = node.unpublished();
    // Not only the owners: the processes that live in a namespace name it, and
    // those that could not be read are candidates for what nobody seems to own.
    let mut pids: BTreeSet<Pid> = owners.holders.iter().map(|o| o.pid).collect();
    pids.extend(&owners.denied);
    pids.extend(namespaces.iter().flat_map(|n| &n.members));
    pids.extend(containers.iter().filter_map(|c| c.pid));
    let pids: Vec<_> = pids.into_iter().collect();
    for process in node.processes(&pids).value {
        if whereis_port_model::forward::telling_words(&process.cmdline).is_some() {
            let _ = node.relay(process.pid);
        }
        let chain = process.containers();
        if !chain.is_empty() {
            let _ = node.container(&chain, process.pid);
        }
    }

    let _ = node.socket_units();
    let _ = node.links(&netns);
    let _ = node.addresses(&netns);
    let _ = node.routes(&netns);
    let _ = node.kernel_ports(&netns);
    let _ = node.transparent(&netns);
    let _ = node.settings(&netns);
    let _ = node.policy_rules(&netns);
    let _ = node.local_routes(&netns);
    let _ = node.neighbours(&netns);
    let _ = node.attached(&netns);
    let cgroups = sockets.iter().filter_map(|s| s.cgroup_id).map(CgroupOf::Id);
    for of in cgroups.chain([CgroupOf::ROOT]).collect::<BTreeSet<_>>() {
        let _ = node.cgroup_programs(&of);
    }
    let _ = node.port_facts(&netns);
    let _ = node.frontends(&netns);
    for cilium in node.cilium(&netns).value {
        for one in cilium.endpoints.iter().filter(|one| one.id != 0) {
            let of = CiliumPolicyOf { netns: cilium.netns, endpoint: one.id };
            let _ = node.cilium_policy(&of);
        }
    }
    let _ = node.unseen();
    read_rules(node, &netns);
}

/// Reads every chain that a packet can get to, and every set that they name.
fn read_rules(node: &dyn Node, netns: &[NetnsId]) {
    node.prefetch_rules(netns);
    let mut todo: Vec<ChainId> = Vec::new();
    for Ruleset { base_chains, .. } in node.rulesets(netns).value {
        todo.extend(base_chains.into_iter().map(|chain| chain.id));
    }
    let mut known: HashSet<ChainId> = todo.iter().cloned().collect();
    let mut sets: HashSet<SetId> = HashSet::new();
    while let Some(id) = todo.pop() {
        let mut verdicts = Vec::new();
        for expr in
            node.chain(&id).value.iter().flat_map(|rules| rules.iter()).flat_map(|r| &r.exprs)
        {
            match expr {
                Expr::Verdict(verdict) => verdicts.push(verdict.clone()),
                Expr::Lookup { set, .. } | Expr::Map { set, .. } => {
                    let set = SetId { table: id.table.clone(), name: set.clone() };
                    if sets.insert(set.clone()) {
                        let _ = node.set(&set);
                        let elements = node.set_elements(&set).value;
                        let of_element = |e: &whereis_port_model::Element| e.verdict.clone();
                        verdicts
                            .extend(elements.iter().flat_map(|e| e.iter()).filter_map(of_element));
                    }
                }
                Expr::Match(one) => {
                    if let XtMatch::Set { index, .. } = **one {
                        let _ = node.ip_set(&IpSetId { netns: id.table.netns, index });
                    }
                }
                _ => {}
            }
        }
        for verdict in verdicts {
            if let RuleVerdict::Jump(name) | RuleVerdict::Goto(name) = verdict {
                let chain = ChainId { table: id.table.clone(), name };
                if known.insert(chain.clone()) {
                    todo.push(chain);
                }
            }
        }
    }
}
