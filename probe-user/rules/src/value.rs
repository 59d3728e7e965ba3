//! Values of which some bits are not known.

use std::sync::Arc;

use smallvec::SmallVec;

use super::lower::{Compute, ValueSlot};
use crate::model::{BitOp, Bytes, CmpOp};

/// What is not known of a packet, for people and to tell assumptions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum UnknownInput {
    /// The address of a client elsewhere.
    ClientAddress,
    /// The port that a client sends from.
    ClientPort,
    /// The user who connects.
    User,
    /// Something of the packet or its connection.
    Detail(&'static str),
    /// A random number.
    Random,
}

/// How a condition turns out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Holds {
    Yes,
    No,
    /// It depends on what is not known.
    Maybe(UnknownInput),
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

/// The most bytes that registers have together.
pub(super) const SIZE: usize = 64;

pub(super) type Octets = SmallVec<[u8; 16]>;

/// Words, each as likely.
pub(super) type Words = Arc<[[u8; 4]]>;

/// The value of a term for a packet.
#[derive(Debug, Clone)]
pub(super) enum TermValue {
    Bits(Bits),
    /// One of several words, by what was drawn: in the order of the slot's.
    Drawn(ValueSlot, Words),
}

/// Bytes of which some bits may not be known.
#[derive(Debug, Clone)]
pub(super) struct Bits {
    pub(super) bytes: Octets,
    /// Which bits of them are known; `None` when all are.
    pub(super) known: Option<(Octets, UnknownInput)>,
}

impl Bits {
    pub(super) fn whole(bytes: &[u8]) -> Self {
        Self { bytes: SmallVec::from_slice(bytes), known: None }
    }

    pub(super) fn partly(bytes: &[u8], known: &[u8], missing: UnknownInput) -> Self {
        let all = known.iter().all(|bits| *bits == 0xff);
        let known = (!all).then(|| (SmallVec::from_slice(known), missing));
        Self { bytes: SmallVec::from_slice(bytes), known }
    }

    pub(super) fn unknown(len: usize, missing: UnknownInput) -> Self {
        let none = SmallVec::from_elem(0, len.clamp(1, SIZE));
        Self { bytes: none.clone(), known: Some((none, missing)) }
    }

    /// The first bytes, if all of them are known.
    pub(super) fn get(&self, len: usize) -> Option<&[u8]> {
        let bytes = self.bytes.get(..len)?;
        let known = self.known.as_ref();
        let all = known.is_none_or(|(known, _)| known.iter().take(len).all(|k| *k == 0xff));
        all.then_some(bytes)
    }

    /// The bits known of a byte.
    fn known_at(&self, at: usize) -> u8 {
        self.known.as_ref().map_or(0xff, |(known, _)| known.get(at).copied().unwrap_or(0xff))
    }

    /// Those known of the first bytes.
    pub(super) fn known(&self, len: usize) -> Octets {
        (0..len).map(|at| self.known_at(at)).collect()
    }

    /// What is not known, if anything is.
    pub(super) fn missing(&self) -> Option<UnknownInput> {
        self.known.as_ref().map(|(_, missing)| *missing)
    }

    /// So many bytes from one on: zeros behind its end.
    pub(super) fn part(&self, at: usize, len: usize) -> Self {
        let cut = |all: &Octets, rest: u8| -> Octets {
            let bytes = all.iter().copied().skip(at).chain(std::iter::repeat(rest));
            bytes.take(len).collect()
        };
        let bytes = cut(&self.bytes, 0);
        match &self.known {
            Some((known, missing)) => Self::partly(&bytes, &cut(known, 0xff), *missing),
            None => Self { bytes, known: None },
        }
    }

    pub(super) fn compare(&self, op: CmpOp, value: &[u8]) -> Holds {
        let len = value.len();
        if let Some(bytes) = self.get(len) {
            return Holds::from(meets(bytes, op, value));
        }
        let Some(missing) = self.missing() else { return Holds::No };
        let differs = |(at, v): (usize, &u8)| {
            (self.bytes.get(at).copied().unwrap_or(0) ^ v) & self.known_at(at) != 0
        };
        match (op, value.iter().enumerate().any(differs)) {
            (CmpOp::Eq, true) => Holds::No,
            (CmpOp::Neq, true) => Holds::Yes,
            _ => Holds::Maybe(missing),
        }
    }

    pub(super) fn within(&self, from: &[u8], to: &[u8]) -> Holds {
        match (self.get(from.len()), self.missing()) {
            (Some(bytes), _) => Holds::from(from <= bytes && bytes <= to),
            (None, Some(missing)) => Holds::Maybe(missing),
            (None, None) => Holds::No,
        }
    }

    pub(super) fn compute(&self, how: &Compute, len: u32) -> Self {
        let len = usize::try_from(len).unwrap_or(SIZE).min(SIZE);
        let of = self.part(0, len);
        match how {
            Compute::Bits(BitOp::MaskXor { mask, xor }) => of.mask_xor(mask, xor),
            Compute::Bits(BitOp::Shl(n)) => of.shifted(|word| word.checked_shl(*n)),
            Compute::Bits(BitOp::Shr(n)) => of.shifted(|word| word.checked_shr(*n)),
            Compute::Bits(BitOp::Other) => of.unclear(),
            Compute::Swap(size) => of.swapped(usize::try_from(*size).unwrap_or(1).max(1)),
        }
    }

    fn mask_xor(mut self, mask: &Bytes, xor: &Bytes) -> Self {
        let of = |bytes: &Bytes, at: usize| bytes.0.get(at).copied().unwrap_or(0);
        for at in 0..self.bytes.len() {
            self.bytes[at] = (self.bytes[at] & of(mask, at) & self.known_at(at)) ^ of(xor, at);
        }
        if let Some((known, missing)) = &mut self.known {
            // A bit that is masked out is known to be 0.
            known.iter_mut().enumerate().for_each(|(at, known)| *known |= !of(mask, at));
            return Self::partly(&self.bytes, &known.clone(), *missing);
        }
        self
    }

    fn shifted(self, shift: impl Fn(u32) -> Option<u32>) -> Self {
        match (self.get(4).and_then(<[u8]>::first_chunk::<4>), self.bytes.len()) {
            (Some(word), 4) => {
                Self::whole(&shift(u32::from_ne_bytes(*word)).unwrap_or(0).to_ne_bytes())
            }
            _ => self.unclear(),
        }
    }

    fn swapped(mut self, size: usize) -> Self {
        // Network order is big endian; where the machine is as well, nothing changes.
        if cfg!(target_endian = "little") {
            self.bytes.chunks_mut(size).for_each(<[u8]>::reverse);
            if let Some((known, _)) = &mut self.known {
                known.chunks_mut(size).for_each(<[u8]>::reverse);
            }
        }
        self
    }

    /// As long, and nothing of it known.
    fn unclear(self) -> Self {
        let missing = self.missing().unwrap_or(UnknownInput::Detail("a value"));
        Self::unknown(self.bytes.len(), missing)
    }
}

impl TermValue {
    /// The bytes, where they do not depend on a number that is drawn.
    pub(super) fn bits(&self) -> Bits {
        match self {
            Self::Bits(bits) => bits.clone(),
            Self::Drawn(..) => Bits::unknown(4, UnknownInput::Random),
        }
    }

    pub(super) fn compute(&self, how: &Compute, len: u32) -> Self {
        match self {
            Self::Bits(bits) => Self::Bits(bits.compute(how, len)),
            Self::Drawn(slot, words) => {
                let one = |word: &[u8; 4]| {
                    let computed = Bits::whole(word).compute(how, 4);
                    computed.get(4)?.first_chunk().copied()
                };
                match words.iter().map(one).collect() {
                    Some(words) => Self::Drawn(*slot, words),
                    None => Self::Bits(Bits::unknown(4, UnknownInput::Random)),
                }
            }
        }
    }

    pub(super) fn part(self, at: usize, len: usize) -> Self {
        match self {
            Self::Drawn(..) if (at, len) == (0, 4) => self,
            other => Self::Bits(other.bits().part(at, len)),
        }
    }
}
