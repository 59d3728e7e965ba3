//! Giving up rights that are not needed any more.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What reading a node needs: other users' processes, other namespaces and what
/// is configured in them, files of container runtimes.
const READING: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Gives up every capability but those for reading, for this thread and those
/// that it starts: for who goes on for long after loading programs. What is
/// loaded stays. `false` when the kernel refused, which changes nothing.
pub fn drop_rights() -> bool {
    let Ok(own) = capabilities(None) else { return false };
    let less = CapabilitySets {
        effective: own.effective & READING,
        permitted: own.permitted & READING,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, less).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_reading_is_left() {
        // In a thread of its own: other tests need theirs.
        let left = std::thread::spawn(|| {
            assert!(drop_rights());
            capabilities(None).unwrap()
        });
        let left = left.join().unwrap();
        assert!(READING.contains(left.permitted), "{left:?}");
        assert!(left.inheritable.is_empty(), "{left:?}");
    }
}
