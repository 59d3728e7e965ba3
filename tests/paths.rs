//! Where a connection really lands, and where the tool says it does.
//!
//! Each test builds a node, connects from every vantage, and compares. A test
//! that fails with `THE LAB` has not come as far as the tool.

#[path = "paths/answer.rs"]
mod answer;
#[path = "paths/cni.rs"]
mod cni;
#[path = "paths/destinations.rs"]
mod destinations;
#[path = "paths/dnat.rs"]
mod dnat;
#[path = "paths/docker.rs"]
mod docker;
#[path = "paths/engines.rs"]
mod engines;
#[path = "paths/from.rs"]
mod from;
#[path = "paths/in_the_way.rs"]
mod in_the_way;
#[path = "paths/ipvs.rs"]
mod ipvs;
#[path = "paths/kube.rs"]
mod kube;
#[path = "paths/leftover.rs"]
mod leftover;
#[path = "paths/mesh.rs"]
mod mesh;
#[path = "paths/neighbours.rs"]
mod neighbours;
#[path = "paths/nested.rs"]
mod nested;
#[path = "paths/nft.rs"]
mod nft;
#[path = "paths/node.rs"]
mod node;
#[path = "paths/plain.rs"]
mod plain;
#[path = "paths/podman.rs"]
mod podman;
#[path = "paths/rootless.rs"]
mod rootless;
#[path = "paths/topologies/mod.rs"]
mod topologies;
#[path = "paths/uplink.rs"]
mod uplink;
#[path = "paths/way_back.rs"]
mod way_back;
#[path = "paths/ways.rs"]
mod ways;
