//! The kernel side of whereis-port.
//!
//! A placeholder: the programs (socket iterator, listener life cycle, forwards,
//! NAT) are built for the BPF target and come with the probe. Nothing depends
//! on this crate yet, and everything the tool answers today it answers without.
#![no_std]
