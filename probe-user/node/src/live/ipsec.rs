//! Whether IPsec has a say, in the namespace of the calling thread.
//!
//! Kernel: `include/uapi/linux/xfrm.h`, Linux 2.6.20; numbers are in host byte order. Needs
//! CAP_NET_ADMIN.

use std::io;

use rustix::net::netlink::XFRM;

use super::netlink::{Netlink, NetlinkRequest, find};

/// `XFRM_MSG_GETSPDINFO`.
const GET_SPD_INFO: u16 = 0x25;
/// `XFRMA_SPD_INFO`: a `struct xfrmu_spdinfo`, which begins with the numbers of policies for
/// packets that come in, go out and are forwarded.
const SPD_INFO: u16 = 1;
/// The most that an answer may have, in bytes.
const BYTES: usize = 64 << 10;

/// How many policies there are.
pub(super) fn policies() -> io::Result<u32> {
    let mut netlink = match Netlink::open(XFRM, BYTES) {
        // A kernel without it.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        netlink => netlink?,
    };
    let mut count = 0;
    // The header is a word of flags.
    netlink.ask(&NetlinkRequest::get(GET_SPD_INFO, &[0; 4]), |message| {
        let info = message.body.get(4..).and_then(|attributes| find(attributes, SPD_INFO));
        let numbers = info.unwrap_or_default().chunks_exact(4).take(3);
        count = numbers
            .filter_map(|bytes| Some(u32::from_ne_bytes(*bytes.first_chunk()?)))
            .fold(count, u32::saturating_add);
        true
    })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_tells_or_refuses() {
        match super::policies() {
            Ok(count) => assert!(count < 1_000_000),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        }
    }
}
