//! Registers of which some bits are not known.

use crate::model::{BitOp, Bytes, CmpOp, Reg};

/// What is not known of a packet, for people and to tell assumptions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Missing {
    /// The address of a client elsewhere.
    ClientAddress,
    /// The port that a client sends from.
    ClientPort,
    /// The user who connects.
    User,
    /// Something of the packet or its connection.
    Detail(&'static str),
    /// A number out of so many, from an offset on: 0 random, in turn, or a hash.
    Choice { modulus: u32, offset: u32 },
    /// A random number.
    Random,
}

/// How a condition turns out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Holds {
    Yes,
    No,
    /// It depends on what is not known.
    Maybe(Missing),
    /// So often, from 0 to 1.
    Often(f64),
}

impl Holds {
    pub(super) fn invert(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Maybe(what) => Self::Maybe(what),
            Self::Often(p) => Self::Often(1.0 - p),
        }
    }

    pub(super) fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// Both must hold.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, one) | (one, Self::Yes) => one,
            (Self::Maybe(what), _) | (_, Self::Maybe(what)) => Self::Maybe(what),
            (Self::Often(p), Self::Often(q)) => Self::Often(p * q),
        }
    }
}

const SIZE: usize = 64;
const WORDS: usize = 16;

/// The 64 bytes of registers.
#[derive(Debug, Clone)]
pub(super) struct Registers {
    bytes: [u8; SIZE],
    /// Which bits of them are known.
    known: [u8; SIZE],
    /// What the others are, by word.
    missing: [Option<Missing>; WORDS],
}

impl Registers {
    pub(super) fn new() -> Self {
        Self { bytes: [0; SIZE], known: [0xff; SIZE], missing: [None; WORDS] }
    }

    fn range(reg: Reg, len: usize) -> Option<std::ops::Range<usize>> {
        let from = usize::from(reg.0) * 4;
        let to = from.checked_add(len)?;
        (to <= SIZE).then_some(from..to)
    }

    /// Writes bytes of which only the bits in `known` count. Whole words are
    /// written, the rest of the last one with zeros.
    pub(super) fn write(&mut self, reg: Reg, bytes: &[u8], known: &[u8], missing: Missing) {
        let Some(range) = Self::range(reg, bytes.len()) else { return };
        let end = range.end.next_multiple_of(4).min(SIZE);
        for at in range.start..end {
            let from = at - range.start;
            self.bytes[at] = bytes.get(from).copied().unwrap_or(0);
            self.known[at] =
                if from < bytes.len() { known.get(from).copied().unwrap_or(0xff) } else { 0xff };
        }
        for word in range.start / 4..end.div_ceil(4) {
            let whole = self.known[word * 4..(word + 1) * 4].iter().all(|known| *known == 0xff);
            self.missing[word] = if whole { None } else { Some(missing) };
        }
    }

    pub(super) fn set(&mut self, reg: Reg, bytes: &[u8]) {
        self.write(reg, bytes, &[], Missing::Random);
    }

    pub(super) fn forget(&mut self, reg: Reg, len: usize, missing: Missing) {
        let len = len.clamp(1, SIZE);
        self.write(reg, &[0; SIZE][..len], &[0; SIZE][..len], missing);
    }

    /// The bytes, if all are known.
    pub(super) fn get(&self, reg: Reg, len: usize) -> Option<&[u8]> {
        let range = Self::range(reg, len)?;
        let all = self.known[range.clone()].iter().all(|known| *known == 0xff);
        all.then(|| &self.bytes[range])
    }

    /// The bytes and which bits of them are known.
    pub(super) fn partly(&self, reg: Reg, len: usize) -> Option<(&[u8], &[u8])> {
        let range = Self::range(reg, len)?;
        Some((&self.bytes[range.clone()], &self.known[range]))
    }

    /// What is not known of them.
    pub(super) fn missing(&self, reg: Reg, len: usize) -> Option<Missing> {
        let range = Self::range(reg, len)?;
        (range.start / 4..range.end.div_ceil(4)).find_map(|word| self.missing[word])
    }

    pub(super) fn compare(&self, reg: Reg, op: CmpOp, value: &[u8]) -> Holds {
        let Some((bytes, known)) = self.partly(reg, value.len()) else { return Holds::No };
        let differs = bytes.iter().zip(known).zip(value).any(|((b, k), v)| (b ^ v) & k != 0);
        if known.iter().all(|k| *k == 0xff) {
            let order = bytes.cmp(value);
            return Holds::from(match op {
                CmpOp::Eq => order.is_eq(),
                CmpOp::Neq => order.is_ne(),
                CmpOp::Lt => order.is_lt(),
                CmpOp::Lte => order.is_le(),
                CmpOp::Gt => order.is_gt(),
                CmpOp::Gte => order.is_ge(),
            });
        }
        match op {
            CmpOp::Eq if differs => Holds::No,
            CmpOp::Neq if differs => Holds::Yes,
            _ => self.unsure(reg, value.len(), |bytes| {
                let order = bytes.cmp(value);
                match op {
                    CmpOp::Eq => order.is_eq(),
                    CmpOp::Neq => order.is_ne(),
                    CmpOp::Lt => order.is_lt(),
                    CmpOp::Lte => order.is_le(),
                    CmpOp::Gt => order.is_gt(),
                    CmpOp::Gte => order.is_ge(),
                }
            }),
        }
    }

    pub(super) fn within(&self, reg: Reg, from: &[u8], to: &[u8]) -> Holds {
        let len = from.len();
        match self.get(reg, len) {
            Some(bytes) => Holds::from(from <= bytes && bytes <= to),
            None => self.unsure(reg, len, |bytes| from <= bytes && bytes <= to),
        }
    }

    /// A condition on what is not known: so often for a choice between numbers.
    fn unsure(&self, reg: Reg, len: usize, holds: impl Fn(&[u8]) -> bool) -> Holds {
        let missing = self.missing(reg, len).unwrap_or(Missing::Detail("a value"));
        match missing {
            Missing::Choice { modulus, offset } if len == 4 && modulus <= 4096 => {
                let all = (0..modulus).map(|n| n.wrapping_add(offset).to_ne_bytes());
                let hits = all.filter(|bytes| holds(bytes)).count();
                #[expect(clippy::cast_precision_loss, reason = "at most 4096")]
                Holds::Often(hits as f64 / f64::from(modulus.max(1)))
            }
            missing => Holds::Maybe(missing),
        }
    }

    pub(super) fn bitwise(&mut self, sreg: Reg, dreg: Reg, len: u32, op: &BitOp) {
        let len = usize::try_from(len).unwrap_or(SIZE).min(SIZE);
        let Some((bytes, known)) = self.partly(sreg, len) else { return };
        let (mut bytes, mut known) = (bytes.to_vec(), known.to_vec());
        let missing = self.missing(sreg, len).unwrap_or(Missing::Detail("a value"));
        match op {
            BitOp::MaskXor { mask: Bytes(mask), xor: Bytes(xor) } => {
                for (at, (byte, known)) in bytes.iter_mut().zip(&mut known).enumerate() {
                    let mask = mask.get(at).copied().unwrap_or(0);
                    *byte = (*byte & mask & *known) ^ xor.get(at).copied().unwrap_or(0);
                    // A bit that is masked out is known to be 0.
                    *known |= !mask;
                }
            }
            BitOp::Shl(n) | BitOp::Shr(n) => {
                let whole = known.iter().all(|k| *k == 0xff) && len == 4;
                match <[u8; 4]>::try_from(bytes.as_slice()) {
                    Ok(word) if whole => {
                        let word = u32::from_ne_bytes(word);
                        let shifted = match op {
                            BitOp::Shl(_) => word.checked_shl(*n),
                            _ => word.checked_shr(*n),
                        };
                        bytes = shifted.unwrap_or(0).to_ne_bytes().to_vec();
                    }
                    _ => known.fill(0),
                }
            }
            BitOp::Other => known.fill(0),
        }
        self.write(dreg, &bytes, &known, missing);
    }

    pub(super) fn byteorder(&mut self, sreg: Reg, dreg: Reg, len: u32, size: u32) {
        let len = usize::try_from(len).unwrap_or(SIZE).min(SIZE);
        let size = usize::try_from(size).unwrap_or(1).max(1);
        let Some((bytes, known)) = self.partly(sreg, len) else { return };
        let swap = |bytes: &[u8]| -> Vec<u8> {
            // Network order is big endian; where the machine is as well, nothing changes.
            let reverse = |chunk: &[u8]| -> Vec<u8> {
                if cfg!(target_endian = "little") {
                    chunk.iter().rev().copied().collect()
                } else {
                    chunk.to_vec()
                }
            };
            bytes.chunks(size).flat_map(reverse).collect()
        };
        let (bytes, known) = (swap(bytes), swap(known));
        let missing = self.missing(sreg, len).unwrap_or(Missing::Detail("a value"));
        self.write(dreg, &bytes, &known, missing);
    }
}
