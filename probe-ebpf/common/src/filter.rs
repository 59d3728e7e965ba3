//! What a reading asks for.
//!
//! A pinned iterator is shared by everybody who may read it, so its filter can't
//! be in a map: two readers would change each other's, and a member of a group
//! could make root see nothing. The program runs in the context of the reader
//! (`current` in the kernel), so the filter travels in the name of the reading
//! thread (`prctl(PR_SET_NAME)`, 15 bytes), which nobody else can change.

/// What a reading of the socket iterator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
    /// [`Filter::WANT_TCP`], [`Filter::WANT_UDP`] and [`Filter::WANT_OTHERS`].
    pub flags: u8,
    /// Inode number of the only network namespace wanted; 0 for all.
    pub netns: u32,
    /// Bit `1 << state` for each state wanted, TCP and UDP alike: see [`crate::state`].
    pub states: u16,
}

impl Filter {
    /// TCP is wanted.
    pub const WANT_TCP: u8 = 1;
    /// UDP is wanted.
    pub const WANT_UDP: u8 = 2;
    /// Bound sockets that don't pass are wanted as [`crate::OtherRecord`].
    pub const WANT_OTHERS: u8 = 4;
    /// TCP that listens, and UDP that is not connected, on every port.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
        flags: Self::WANT_TCP | Self::WANT_UDP,
        netns: 0,
        states: 1 << crate::state::LISTEN | 1 << crate::state::CLOSE,
    };

    /// The name that carries it: two letters, then thirteen bytes of seven bits
    /// each, lowest first, with the highest bit set so that none is zero. Six of
    /// them hold the ports and the flags, seven the namespace and the states.
    #[must_use]
    pub fn to_name(&self) -> [u8; 16] {
        let mut name = [0; 16];
        name[0] = b'w';
        name[1] = b'p';
        let ports = self.first as u64 | (self.last as u64) << 16 | (self.flags as u64) << 32;
        let place = self.netns as u64 | (self.states as u64) << 32;
        put(&mut name, 2, 6, ports);
        put(&mut name, 8, 7, place);
        name
    }

    /// Reads a thread's name; `None` for one that is no filter.
    #[inline(always)]
    #[must_use]
    pub fn from_name(name: &[u8; 16]) -> Option<Self> {
        if name[0] != b'w' || name[1] != b'p' || name[2] & 0x80 == 0 {
            return None;
        }
        let (ports, place) = (get::<2, 6>(name), get::<8, 7>(name));
        Some(Self {
            first: ports as u16,
            last: (ports >> 16) as u16,
            flags: (ports >> 32) as u8,
            netns: place as u32,
            states: (place >> 32) as u16,
        })
    }
}

fn put(name: &mut [u8; 16], at: usize, count: usize, value: u64) {
    let mut index = 0;
    while index < count {
        name[at + index] = 0x80 | (value >> (7 * index)) as u8 & 0x7f;
        index += 1;
    }
}

#[inline(always)]
fn get<const AT: usize, const COUNT: usize>(name: &[u8; 16]) -> u64 {
    let mut value = 0;
    let mut index = 0;
    while index < COUNT {
        value |= ((name[AT + index] & 0x7f) as u64) << (7 * index);
        index += 1;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_every_filter() {
        let extreme =
            Filter { first: 0, last: u16::MAX, flags: 7, netns: u32::MAX, states: 0x1fff };
        let one =
            Filter { first: 30518, last: 30518, flags: 1, netns: 4_026_531_840, states: 1 << 10 };
        for filter in
            [Filter::ALL, extreme, one, Filter { first: 0, last: 0, flags: 0, netns: 0, states: 0 }]
        {
            let name = filter.to_name();
            assert!(name[..15].iter().all(|byte| *byte != 0), "{name:?}");
            assert_eq!(name[15], 0);
            assert_eq!(Filter::from_name(&name), Some(filter));
        }
    }

    #[test]
    fn the_name_of_a_program_is_no_filter() {
        assert_eq!(Filter::from_name(b"wpa_supplicant\0\0"), None);
        assert_eq!(Filter::from_name(b"cat\0\0\0\0\0\0\0\0\0\0\0\0\0"), None);
    }
}
