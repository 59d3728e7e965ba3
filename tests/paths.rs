//! Where a connection really lands, and where the tool says it does.
//!
//! Each test builds a node, connects from every vantage, and compares. A test
//! that fails with `THE LAB` has not come as far as the tool.

mod answer;
mod bridged;
mod calico;
mod cni;
mod destinations;
mod dnat;
mod docker;
mod engines;
mod external;
mod from;
mod in_the_way;
mod ipvs;
mod kube;
mod leftover;
mod link_local;
mod mesh;
mod neighbours;
mod nested;
mod nft;
mod node;
mod plain;
mod podman;
mod rootless;
mod topologies;
mod uplink;
mod way_back;
mod ways;
