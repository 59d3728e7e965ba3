//! What objects of nf_tables have in common: registers, data, verdicts, comments.

use super::names::NameInterner;
use super::wire::{Fields, until_nul};
use whereis_port_model::{Bytes, Reg, RuleVerdict};

pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Where a register lies; `None` for the verdict register and for numbers that are
/// not registers.
pub(super) fn reg(fields: &Fields<'_>, kind: usize) -> Option<Reg> {
    let word = match fields.u32(kind)? {
        number @ 1..=4 => (number - 1) * 4,
        number @ 8..=23 => number - 8,
        _ => return None,
    };
    u8::try_from(word).ok().map(Reg)
}

/// Lowest and highest; the highest is the same where the kernel names only one. The
/// outer `None` is a register that is there and is none.
pub(super) fn regs(fields: &Fields<'_>, low: usize, high: usize) -> Option<Option<(Reg, Reg)>> {
    if fields.get(low).is_none() {
        return Some(None);
    }
    let first = reg(fields, low)?;
    let last = if fields.get(high).is_some() { reg(fields, high)? } else { first };
    Some(Some((first, last)))
}

/// `NFTA_DATA_VALUE` of a nest.
pub(super) fn value(nest: Option<&[u8]>) -> Option<Bytes> {
    Fields::of(nest?).get(1).map(Bytes::from)
}

/// `NFTA_DATA_VERDICT` of a nest.
pub(super) fn verdict(nest: Option<&[u8]>, names: &mut NameInterner) -> Option<RuleVerdict> {
    let fields = Fields::of(Fields::of(nest?).get(2)?);
    let mut chain = || fields.name(2).map(|name| names.get(name));
    Some(match fields.u32(1)?.cast_signed() {
        0 => RuleVerdict::Drop,
        1 => RuleVerdict::Accept,
        // NF_STOLEN: somebody else has it now.
        2 => RuleVerdict::Drop,
        -1 => RuleVerdict::Continue,
        -2 => RuleVerdict::Break,
        -3 => RuleVerdict::Jump(chain()?),
        -4 => RuleVerdict::Goto(chain()?),
        -5 => RuleVerdict::Return,
        // The queue's number is in the upper half.
        code if code & 0xff == 3 => RuleVerdict::Queue,
        _ => return None,
    })
}

/// The comment in a list of `{type, length, value}` that nft keeps with an object.
pub(super) fn comment(userdata: Option<&[u8]>, kind: u8) -> Option<String> {
    let mut rest = userdata?;
    while let [this, length, tail @ ..] = rest {
        let value = tail.get(..usize::from(*length))?;
        if *this == kind {
            return Some(text(until_nul(value)));
        }
        rest = tail.get(usize::from(*length)..)?;
    }
    None
}
