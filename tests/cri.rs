//! Pods of a real containerd: what its CRI says of them, and what is left when it
//! does not answer.

#[path = "cri/pods.rs"]
mod pods;
#[path = "cri/weather.rs"]
mod weather;
