//! What a recording knows of Kubernetes APIs: the same question gets the same answer, and
//! a narrower one is answered from a list that has it.

use super::RecordedFact;
use whereis_port_model::{KubeAsk, KubeNode, KubeObjects, KubePod, KubeService, KubeWish, Read};

/// The answer to one ask; `None` when what was read does not tell.
pub(super) fn answer(
    known: &[RecordedFact<KubeAsk, KubeObjects>],
    ask: &KubeAsk,
) -> Option<Read<KubeObjects>> {
    if let Some(same) = known.iter().find(|k| k.asked == *ask) {
        return Some(same.read.clone());
    }
    let answered =
        || known.iter().filter(|k| k.asked.context == ask.context && k.read.value.answered);
    let list = |wish: &KubeWish| answered().find(|k| k.asked.wish == *wish).map(|k| &k.read);
    let of = |objects: KubeObjects| Read::whole(KubeObjects { answered: true, ..objects });
    match &ask.wish {
        KubeWish::Service(name) => {
            let all = list(&KubeWish::Services)?;
            let is_it = |service: &&KubeService| service.name == *name;
            let services: Vec<_> = all.value.services.iter().filter(is_it).cloned().collect();
            // That a list which is not whole lacks it says nothing.
            (all.gaps.is_empty() || !services.is_empty())
                .then(|| of(KubeObjects { services, ..KubeObjects::default() }))
        }
        KubeWish::Node(name) => {
            let all = list(&KubeWish::Nodes)?;
            let is_it = |node: &&KubeNode| node.name == *name;
            let nodes = all.value.nodes.iter().filter(is_it).cloned().collect();
            Some(of(KubeObjects { nodes, ..KubeObjects::default() }))
        }
        KubeWish::Pod(_) | KubeWish::PodsAt(_) => {
            let is_it = |pod: &&KubePod| match &ask.wish {
                KubeWish::Pod(name) => pod.name == *name,
                KubeWish::PodsAt(address) => pod.ips.contains(address),
                _ => false,
            };
            let mut pods: Vec<KubePod> = Vec::new();
            for pod in answered().flat_map(|k| &k.read.value.pods).filter(is_it) {
                if !pods.iter().any(|known| known.uid == pod.uid) {
                    pods.push(pod.clone());
                }
            }
            // The pods of other nodes were not listed.
            (!pods.is_empty()).then(|| of(KubeObjects { pods, ..KubeObjects::default() }))
        }
        KubeWish::Services
        | KubeWish::Endpoints(_)
        | KubeWish::PodsOn(_)
        | KubeWish::PodsWith { .. }
        | KubeWish::Nodes
        | KubeWish::ByName(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whereis_port_model::{ContextId, Gap, Impact, ObjectName, ServiceKind};

    fn ask(context: &str, wish: KubeWish) -> KubeAsk {
        let context = ContextId { file: "/root/.kube/config".to_owned(), name: context.to_owned() };
        KubeAsk { context, wish }
    }

    fn name(name: &str) -> ObjectName {
        ObjectName { namespace: "default".to_owned(), name: name.to_owned() }
    }

    fn service(of: &str) -> KubeService {
        KubeService {
            name: name(of),
            kind: ServiceKind::NodePort,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            external_local: false,
            internal_local: false,
            affinity: false,
            health_check_node_port: None,
            ports: Vec::new(),
            selector: std::collections::BTreeMap::new(),
            external_name: None,
            gateway: None,
        }
    }

    fn pod(of: &str, ip: &str) -> KubePod {
        KubePod {
            name: name(of),
            uid: format!("uid-of-{of}"),
            config_hash: None,
            node: Some("node1".to_owned()),
            phase: None,
            host_network: false,
            ips: vec![ip.parse().unwrap()],
            labels: std::collections::BTreeMap::new(),
            owner: None,
            containers: Vec::new(),
            unscheduled: None,
            is_ending: false,
        }
    }

    fn recorded() -> Vec<RecordedFact<KubeAsk, KubeObjects>> {
        let services = KubeObjects {
            answered: true,
            services: vec![service("web")],
            ..KubeObjects::default()
        };
        let pods = KubeObjects {
            answered: true,
            pods: vec![pod("web-1", "10.244.0.5"), pod("web-2", "10.244.0.6")],
            ..KubeObjects::default()
        };
        vec![
            RecordedFact { asked: ask("one", KubeWish::Services), read: Read::whole(services) },
            RecordedFact {
                asked: ask("one", KubeWish::PodsOn("node1".to_owned())),
                read: Read::whole(pods),
            },
        ]
    }

    #[test]
    fn a_list_answers_for_what_is_in_it() {
        let known = recorded();
        let said = answer(&known, &ask("one", KubeWish::Service(name("web")))).unwrap().value;
        assert!(said.answered && said.services == [service("web")]);
        let at = KubeWish::PodsAt("10.244.0.6".parse().unwrap());
        let said = answer(&known, &ask("one", at)).unwrap().value;
        assert!(said.answered && said.pods == [pod("web-2", "10.244.0.6")]);
        let said = answer(&known, &ask("one", KubeWish::Pod(name("web-1")))).unwrap().value;
        assert_eq!(said.pods, [pod("web-1", "10.244.0.5")]);
    }

    #[test]
    fn a_whole_list_answers_for_what_is_not_in_it_and_a_part_does_not() {
        let mut known = recorded();
        let gone = ask("one", KubeWish::Service(name("gone")));
        let said = answer(&known, &gone).unwrap().value;
        assert!(said.answered && said.services.is_empty());
        known[0].read.gaps.push(Gap::new(
            Impact::Name,
            whereis_port_model::GapKind::KubernetesApi,
            "refused",
        ));
        assert_eq!(answer(&known, &gone), None);
        // The pods of one node are not all pods.
        let other = KubeWish::PodsAt("10.244.1.7".parse().unwrap());
        assert_eq!(answer(&known, &ask("one", other)), None);
    }

    #[test]
    fn one_cluster_never_answers_for_another() {
        let known = recorded();
        assert_eq!(answer(&known, &ask("two", KubeWish::Service(name("web")))), None);
        assert_eq!(answer(&known, &ask("two", KubeWish::Pod(name("web-1")))), None);
    }
}
