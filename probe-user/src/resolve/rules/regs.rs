//! Registers of which some bits are not known.

use std::sync::Arc;

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
    /// One of some numbers, random, in turn, or a hash: [`Registers::choice`].
    Choice,
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

/// Whether bytes compare so with a value.
pub(super) fn meets(bytes: &[u8], op: CmpOp, value: &[u8]) -> bool {
    let order = bytes.cmp(value);
    match op {
        CmpOp::Eq => order.is_eq(),
        CmpOp::Neq => order.is_ne(),
        CmpOp::Lt => order.is_lt(),
        CmpOp::Lte => order.is_le(),
        CmpOp::Gt => order.is_gt(),
        CmpOp::Gte => order.is_ge(),
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
    /// The words that are one of some values, all as likely. What was said of them once
    /// stays true: a condition leaves those for which it holds.
    choices: Vec<(usize, Values)>,
}

/// What a word may be.
pub(super) type Values = Arc<[[u8; 4]]>;

/// How many values of a word are told apart.
const VALUES: u32 = 4096;

impl Registers {
    pub(super) fn new() -> Self {
        Self { bytes: [0; SIZE], known: [0xff; SIZE], missing: [None; WORDS], choices: Vec::new() }
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
        self.choices.retain(|(word, _)| !(range.start / 4..end.div_ceil(4)).contains(word));
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
            return Holds::from(meets(bytes, op, value));
        }
        match op {
            CmpOp::Eq if differs => Holds::No,
            CmpOp::Neq if differs => Holds::Yes,
            _ => Holds::Maybe(self.unknown(reg, value.len())),
        }
    }

    pub(super) fn within(&self, reg: Reg, from: &[u8], to: &[u8]) -> Holds {
        let len = from.len();
        match self.get(reg, len) {
            Some(bytes) => Holds::from(from <= bytes && bytes <= to),
            None => Holds::Maybe(self.unknown(reg, len)),
        }
    }

    /// What is not known of them, in any case.
    fn unknown(&self, reg: Reg, len: usize) -> Missing {
        self.missing(reg, len).unwrap_or(Missing::Detail("a value"))
    }

    /// The values that a word may have, all as likely.
    pub(super) fn choice(&self, reg: Reg, len: usize) -> Option<&Values> {
        let mine = |(word, _): &&(usize, Values)| *word == usize::from(reg.0);
        self.choices.iter().find(mine).filter(|_| len == 4).map(|(_, values)| values)
    }

    /// A word is one of so many numbers, from an offset on.
    pub(super) fn choose(&mut self, reg: Reg, modulus: u32, offset: u32) {
        let all = (0..modulus.max(1)).map(|n| n.wrapping_add(offset).to_ne_bytes());
        if modulus > VALUES {
            self.forget(reg, 4, Missing::Random);
        } else {
            self.narrow(reg, all.collect());
        }
    }

    /// A word is one of these values.
    pub(super) fn narrow(&mut self, reg: Reg, values: Values) {
        if let [one] = &*values {
            return self.set(reg, one);
        }
        self.forget(reg, 4, Missing::Choice);
        self.choices.push((usize::from(reg.0), values));
    }

    pub(super) fn bitwise(&mut self, sreg: Reg, dreg: Reg, len: u32, op: &BitOp) {
        let len = usize::try_from(len).unwrap_or(SIZE).min(SIZE);
        if let Some(values) = self.choice(sreg, len).cloned() {
            return self.computed(dreg, &values, |alone, reg| alone.bitwise(reg, reg, 4, op));
        }
        let Some((bytes, known)) = self.partly(sreg, len) else { return };
        let (mut bytes, mut known) = (bytes.to_vec(), known.to_vec());
        let missing = self.unknown(sreg, len);
        match op {
            BitOp::MaskXor { mask, xor } => {
                let (Bytes(mask), Bytes(xor)) = (&**mask, &**xor);
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
        if let Some(values) = self.choice(sreg, len).cloned() {
            let swap = |alone: &mut Self, reg| alone.byteorder(reg, reg, 4, 4);
            return self.computed(dreg, &values, swap);
        }
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
        let missing = self.unknown(sreg, len);
        self.write(dreg, &bytes, &known, missing);
    }

    /// Writes what a computation makes of each of some values.
    fn computed(&mut self, dreg: Reg, values: &Values, compute: impl Fn(&mut Self, Reg)) {
        let one = |value: &[u8; 4]| {
            let mut alone = Self::new();
            alone.set(Reg(0), value);
            compute(&mut alone, Reg(0));
            alone.get(Reg(0), 4)?.first_chunk().copied()
        };
        match values.iter().map(one).collect() {
            Some(results) => self.narrow(dreg, results),
            None => self.forget(dreg, 4, Missing::Random),
        }
    }
}
