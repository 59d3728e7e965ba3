//! Pods of a real containerd: what its CRI says of them, and what is left when it
//! does not answer.

mod pods;
mod weather;
