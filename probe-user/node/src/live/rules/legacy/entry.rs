//! An entry of a table: what it tests of headers, its matches and its target.

/// Where the fields of an entry are. Offsets in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EntryLayout {
    /// Length of an address. The source's comes first, then the destination's, then
    /// the masks of both.
    pub(super) address: usize,
    /// The interface that it came in by; behind it the one that it goes out by, and
    /// the masks of both. 16 bytes each.
    pub(super) interfaces: usize,
    /// IP protocol, 2 bytes.
    pub(super) proto: usize,
    pub(super) flags: usize,
    pub(super) inverted: usize,
    /// Offset of the target in the entry, 2 bytes; behind it that of the next entry.
    pub(super) target_offset: usize,
    /// Packets, 8 bytes; behind them bytes.
    pub(super) counters: usize,
    /// How long an entry is without matches and target.
    pub(super) length: usize,
    /// The flag that makes a jump one that does not come back.
    pub(super) goto: u8,
    /// Where addresses are in the IP header, and how far they are apart.
    pub(super) header: u32,
}

/// `struct ipt_entry`.
const V4: EntryLayout = EntryLayout {
    address: 4,
    interfaces: 16,
    proto: 80,
    flags: 82,
    inverted: 83,
    target_offset: 88,
    counters: 96,
    length: 112,
    goto: 2,
    header: 12,
};

/// `struct ip6t_entry`.
const V6: EntryLayout = EntryLayout {
    address: 16,
    interfaces: 64,
    proto: 128,
    flags: 131,
    inverted: 132,
    target_offset: 140,
    counters: 152,
    length: 168,
    goto: 4,
    header: 8,
};

impl EntryLayout {
    pub(super) fn of(ipv6: bool) -> &'static Self {
        if ipv6 { &V6 } else { &V4 }
    }
}

/// Size, name and revision, which precede the data of a match and a target.
const EXTENSION: usize = 32;

/// A match or target.
pub(super) struct Extension<'a> {
    pub(super) name: &'a [u8],
    pub(super) revision: u8,
    pub(super) data: &'a [u8],
}

/// An entry. Its sizes are right: the target lies in it, behind the fields.
pub(super) struct XtEntry<'a> {
    pub(super) layout: &'static EntryLayout,
    /// Where in the table it is.
    pub(super) at: usize,
    pub(super) bytes: &'a [u8],
    target_offset: usize,
}

impl<'a> XtEntry<'a> {
    /// The entry there; `None` when its sizes can't be right.
    pub(super) fn at(layout: &'static EntryLayout, entries: &'a [u8], at: usize) -> Option<Self> {
        let rest = entries.get(at..)?;
        let target_offset = usize::from(u16_at(rest, layout.target_offset)?);
        let next_offset = usize::from(u16_at(rest, layout.target_offset + 2)?);
        if target_offset < layout.length || next_offset < target_offset + EXTENSION {
            return None;
        }
        Some(Self { layout, at, bytes: rest.get(..next_offset)?, target_offset })
    }

    /// Where the next one begins.
    pub(super) fn end(&self) -> usize {
        self.at + self.bytes.len()
    }

    /// Whether the target's name begins so. Cheaper than [`Self::target`].
    pub(super) fn has_target(&self, name: &[u8]) -> bool {
        self.bytes.get(self.target_offset + 2..).is_some_and(|target| target.starts_with(name))
    }

    pub(super) fn target(&self) -> Option<Extension<'a>> {
        let target = self.bytes.get(self.target_offset..)?;
        Some(extension(target)?.0)
    }

    /// The matches; the last one is `None` where they are damaged.
    pub(super) fn matches(&self) -> impl Iterator<Item = Option<Extension<'a>>> {
        let all = self.bytes.get(self.layout.length..self.target_offset);
        let mut rest = all.unwrap_or_default();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (extension, behind) = match extension(rest) {
                Some((extension, behind)) => (Some(extension), behind),
                None => (None, &[][..]),
            };
            rest = behind;
            Some(extension)
        })
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or_default()
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16_at(self.bytes, at).unwrap_or_default()
    }

    pub(super) fn slice(&self, at: usize, length: usize) -> &'a [u8] {
        self.bytes.get(at..at + length).unwrap_or_default()
    }

    pub(super) fn packets(&self) -> Option<u64> {
        let counter = self.bytes.get(self.layout.counters..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*counter))
    }
}

/// The first match or target, and what comes behind it.
fn extension(bytes: &[u8]) -> Option<(Extension<'_>, &[u8])> {
    let size = usize::from(u16_at(bytes, 0)?);
    let whole = bytes.get(..size)?;
    let name = whole.get(2..31)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let (revision, data) = (*whole.get(31)?, whole.get(EXTENSION..)?);
    Some((Extension { name, revision, data }, bytes.get(size..)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}
