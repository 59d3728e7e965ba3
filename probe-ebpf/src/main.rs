//! The kernel side of whereis-port.
//!
//! - `sockets`: one reading of every inet socket that a descriptor leads to.
//! - `tasks`: one reading of every process with its namespaces.
//! - `lifecycle`: TCP listens, connects and accepts, UDP binds, as they happen.
//! - `nat`: connections that NAT changes, as they are confirmed.
//! - `drops`: packets that are thrown away or refused, counted by cause.
//!
//! Nothing is baked in of any kernel's layout: `kernel` reads at offsets that
//! the user side found in the running kernel's BTF. The programs read memory and
//! write records, and decide nothing. For another target than BPF all this is
//! compiled for the checks only.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code, reason = "run by the kernel only"))]
#![expect(unsafe_code, reason = "helpers of the kernel take raw pointers")]

mod drops;
mod iterator;
mod kernel;
mod lifecycle;
mod nat;
mod sockets;
mod task;
mod tasks;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// Some helpers are for programs under this licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
