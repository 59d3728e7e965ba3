//! Reading the kernel's structures at offsets that are known at run time only.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use probe_common::{AF_INET, AF_INET6, MISSING, Offsets};

/// Set before the program is loaded; the verifier then takes them for constants
/// and removes what needs a missing one.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::NONE;

/// Reads one of the offsets. Volatile: the compiler only sees the default.
macro_rules! offset {
    ($field:ident) => {
        $crate::kernel::global(&raw const $crate::kernel::offsets().$field)
    };
}
pub(crate) use offset;

/// An address in the kernel.
pub(crate) type Address = *const c_void;

/// The offsets, to be read by `offset!`.
#[inline(always)]
pub(crate) fn offsets() -> &'static Offsets {
    &OFFSETS
}

/// Reads a global that is set before loading.
#[inline(always)]
pub(crate) fn global<T: Copy>(global: *const T) -> T {
    // SAFETY: it points to a static of that type.
    unsafe { core::ptr::read_volatile(global) }
}

/// Reads a field through a pointer whose type the verifier knows: one instruction,
/// where the helper is a call. To the verifier the offset is a constant, and it
/// checks that there is such a field. 0 for a missing offset; a null pointer and
/// one to an object that is gone read as 0 too.
///
/// # Safety
/// `base` comes from the kernel with its type: the context's, or read by this.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy + Default>(base: Address, offset: u32) -> T {
    if offset == MISSING {
        return T::default();
    }
    let address = (base as u64).wrapping_add(u64::from(offset)) as *const T;
    // SAFETY: as said by the caller.
    unsafe { core::ptr::read_volatile(address) }
}

/// Follows a pointer, likewise.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub(crate) unsafe fn follow(base: Address, offset: u32) -> Address {
    // A pointer must be loaded as one, or the verifier forgets its type.
    let address = (base as u64).wrapping_add(u64::from(offset)) as *const Address;
    // SAFETY: as said by the caller.
    unsafe { core::ptr::read_volatile(address) }
}

/// Loads 16 bytes.
///
/// # Safety
/// As for [`load`], and `into` can be written.
#[inline(always)]
pub(crate) unsafe fn load16(into: *mut [u8; 16], base: Address, offset: u32) {
    let into = into.cast::<u64>();
    // SAFETY: as said by the caller.
    unsafe {
        let (low, high) = if offset == MISSING {
            (0, 0)
        } else {
            (load::<u64>(base, offset), load::<u64>(base, offset.wrapping_add(8)))
        };
        into.write_unaligned(low);
        into.add(1).write_unaligned(high);
    }
}

/// The address of a field; null for a null base and a missing offset.
#[inline(always)]
pub(crate) fn at(base: Address, offset: u32) -> Address {
    if offset == MISSING || base.is_null() {
        return core::ptr::null();
    }
    (base as u64).wrapping_add(u64::from(offset)) as Address
}

/// A number that can be read; 0 where it can't.
pub(crate) trait Number {
    /// Reads it at an address.
    fn read(address: Address) -> Self;
}

// Functions of the program, not inlined: each value that is read lies on the
// stack, of which there are 512 bytes, and only a call gives its part back.
macro_rules! number {
    ($type:ident, $read:ident) => {
        #[inline(never)]
        fn $read(address: Address) -> $type {
            let mut value: $type = 0;
            // Without a look at the result: on failure the helper writes zeros, and
            // each branch here would double the ways that the verifier follows.
            // SAFETY: the helper takes any address; `value` has its size.
            unsafe {
                bpf_probe_read_kernel((&raw mut value).cast(), size_of::<$type>() as u32, address)
            };
            value
        }

        impl Number for $type {
            #[inline(always)]
            fn read(address: Address) -> Self {
                $read(address)
            }
        }
    };
}
number!(u8, read_u8);
number!(u16, read_u16);
number!(u32, read_u32);
number!(u64, read_u64);

/// Reads a number that defaults to 0.
#[inline(always)]
pub(crate) fn number<T: Number>(base: Address, offset: u32) -> T {
    T::read(at(base, offset))
}

/// Follows a pointer; null when it can't be read.
#[inline(always)]
pub(crate) fn pointer(base: Address, offset: u32) -> Address {
    number::<u64>(base, offset) as Address
}

/// Reads `N` bytes to `into`; zeros where they can't be read.
///
/// # Safety
/// `into` can be written.
#[inline(always)]
pub(crate) unsafe fn bytes<const N: usize>(into: *mut [u8; N], from: Address) {
    // SAFETY: as said by the caller; on failure the helper writes zeros.
    unsafe { bpf_probe_read_kernel(into.cast(), N as u32, from) };
}

/// The family of a socket that is wanted.
#[inline(always)]
pub(crate) fn family(sk: Address) -> Option<u8> {
    let family = number::<u16>(sk, offset!(sock_family)) as u8;
    (family == AF_INET || family == AF_INET6).then_some(family)
}

/// The bound port. `skc_num` is cleared before a closing socket is told of.
#[inline(always)]
pub(crate) fn local_port(sk: Address) -> u16 {
    let port: u16 = number(sk, offset!(sock_num));
    if port != 0 { port } else { u16::from_be(number(sk, offset!(inet_sport))) }
}

/// The peer's port.
#[inline(always)]
pub(crate) fn remote_port(sk: Address) -> u16 {
    u16::from_be(number(sk, offset!(sock_dport)))
}

/// The namespace of a socket.
#[inline(always)]
pub(crate) fn net(sk: Address) -> Address {
    pointer(sk, offset!(sock_net))
}

/// The number of the namespace of a socket.
#[inline(always)]
pub(crate) fn netns_of(sk: Address) -> u32 {
    number(net(sk), offset!(net_inum))
}

/// Reads the addresses of a socket.
///
/// # Safety
/// Both can be written.
#[inline(always)]
pub(crate) unsafe fn addresses(
    sk: Address,
    family: u8,
    local: *mut [u8; 16],
    remote: *mut [u8; 16],
) {
    // SAFETY: as said by the caller.
    unsafe {
        if family == AF_INET6 {
            bytes(local, at(sk, offset!(sock_v6_rcv_saddr)));
            bytes(remote, at(sk, offset!(sock_v6_daddr)));
        } else {
            narrow(local, at(sk, offset!(sock_rcv_saddr)));
            narrow(remote, at(sk, offset!(sock_daddr)));
        }
    }
}

/// Reads an IPv4 address as records have it.
///
/// # Safety
/// `into` can be written.
#[inline(always)]
pub(crate) unsafe fn narrow(into: *mut [u8; 16], from: Address) {
    // SAFETY: as said by the caller.
    unsafe {
        let words = into.cast::<u32>();
        words.write_unaligned(number(from, 0));
        words.add(1).write_unaligned(0);
        words.add(2).write_unaligned(0);
        words.add(3).write_unaligned(0);
    }
}
