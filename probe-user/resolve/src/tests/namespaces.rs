//! Namespaces are told apart by their inodes, whatever they are called.

use super::{A, B, HOST, TestNode};
use crate::{ListFilter, list};
use whereis_port_model::NetnsName;

/// Ports that a list shows of the namespace somebody names.
fn ports(node: &TestNode, wanted: &str) -> Vec<u16> {
    let filter = ListFilter { netns: Some(wanted.to_owned()), ..ListFilter::default() };
    list(node, &filter).rows.iter().map(|row| row.port.0).collect()
}

#[test]
fn what_is_called_host_is_not_the_host() {
    let node = TestNode::new()
        .namespace(A, "host")
        .namespace(B, "100")
        .tcp(HOST, "0.0.0.0:81")
        .tcp(A, "0.0.0.0:82")
        .tcp(B, "0.0.0.0:83");
    assert_eq!(ports(&node, "host"), [81]);
    // A number is an inode's, also where a namespace is called like the host's.
    assert_eq!(ports(&node, "100"), [81]);
    assert_eq!(ports(&node, "200"), [82]);
    assert_eq!(ports(&node, "300"), [83]);

    let name = |port: &str| {
        let answer = node.ask(port);
        answer.paths[0].hops[0].netns.clone().unwrap()
    };
    assert_eq!(name("81").name, Some(NetnsName::Host));
    assert_eq!(name("82").name, Some(NetnsName::Given("host".to_owned())));
    assert_eq!(name("82").to_string(), "\"host\"");
    assert_eq!(name("83").to_string(), "\"100\"");
}

#[test]
fn the_host_that_is_not_known_has_no_name() {
    let mut node = TestNode::new().namespace(A, "Host ").tcp(A, "0.0.0.0:82");
    node.host.host_netns = None;
    assert_eq!(ports(&node, "host"), [0_u16; 0]);
    let answer = node.ask("82");
    assert_eq!(answer.paths[0].hops[0].netns.as_ref().unwrap().to_string(), "\"Host \"");
}
