//! Sets and maps and their elements, out of netlink messages.

use super::data::{comment, value, verdict};
use super::names::NameInterner;
use super::wire::{Attributes, Fields, NESTED, NftMessage, attribute};
use whereis_port_model::{Bytes, Element, MapsTo, Set, SetId};

/// `NFT_SET_*`.
mod flag {
    pub(super) const ANONYMOUS: u32 = 1;
    pub(super) const CONSTANT: u32 = 2;
    pub(super) const INTERVAL: u32 = 4;
    pub(super) const MAP: u32 = 8;
    pub(super) const EVAL: u32 = 0x20;
    pub(super) const OBJECT: u32 = 0x40;
}
/// `NFT_DATA_VERDICT`, the type of data that is a verdict.
const VERDICT: u32 = 0xffff_ff00;
/// `NFT_SET_ELEM_INTERVAL_END`, `NFT_SET_ELEM_CATCHALL`.
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;

/// The set of a message of `NFT_MSG_GETSET`.
pub(super) fn set(id: &SetId, message: NftMessage<'_>) -> Option<Set> {
    let fields = Fields::of(message.body);
    let flags = fields.u32(3).unwrap_or_default();
    let has = |bit: u32| flags & bit != 0;
    let description = Fields::of(fields.get(9).unwrap_or_default());
    let lengths = Attributes(description.get(2).unwrap_or_default());
    let lengths: Vec<u32> = lengths.filter_map(|(_, field)| Fields::of(field).u32(1)).collect();
    let maps_to = if has(flag::OBJECT) {
        MapsTo::Object
    } else if !has(flag::MAP) {
        MapsTo::Nothing
    } else if fields.u32(6) == Some(VERDICT) {
        MapsTo::Verdict
    } else {
        MapsTo::Data
    };
    // What every element gets, such as a limit, may decide as well.
    let attached = fields
        .get(17)
        .into_iter()
        .chain(Attributes(fields.get(18).unwrap_or_default()).map(|(_, expression)| expression));
    let decides =
        |expression: &[u8]| !matches!(Fields::of(expression).name(1), Some(b"counter" | b"last"));
    Some(Set {
        id: id.clone(),
        interval: has(flag::INTERVAL),
        concat: has(flag::INTERVAL) && lengths.len() > 1,
        dynamic: has(flag::EVAL) || attached.into_iter().any(decides),
        key_len: fields.u32(5)?,
        fields: if lengths.len() > 1 { lengths } else { Vec::new() },
        maps_to,
        comment: comment(fields.get(13), 7),
    })
}

/// How many numbers are asked for one by one at most.
const NUMBERS: u32 = 64;
/// The type of keys that are numbers in the machine's byte order. The kernel knows the
/// length only; this is what nft calls it (`TYPE_INTEGER`).
const INTEGER: u32 = 4;

/// How many elements a rule's own map of numbers has at most: that of `numgen` has the
/// numbers below it. Told for those of which all elements may be asked for by number.
pub(super) fn numbers(message: NftMessage<'_>) -> Option<u32> {
    let fields = Fields::of(message.body);
    let own = flag::ANONYMOUS | flag::CONSTANT | flag::MAP;
    let is_one = fields.u32(3)? & (own | flag::INTERVAL | flag::EVAL) == own
        && (fields.u32(4), fields.u32(5)) == (Some(INTEGER), Some(4));
    let size = Fields::of(fields.get(9)?).u32(1)?;
    (is_one && (1..=NUMBERS).contains(&size)).then_some(size)
}

/// An element as the kernel has it: in sets of intervals it is but one boundary.
#[derive(Debug)]
pub(super) struct KernelElement {
    element: Element,
    /// Whether it is the first key behind a range.
    ends: bool,
}

impl KernelElement {
    /// Of a set that has no intervals.
    pub(super) fn whole(self) -> Element {
        self.element
    }
}

/// Adds the elements in a message of `NFT_MSG_GETSETELEM` to `parts`.
pub(super) fn parts(
    message: NftMessage<'_>,
    names: &mut NameInterner,
    parts: &mut Vec<KernelElement>,
) {
    let list = Fields::of(message.body).get(3).unwrap_or_default();
    parts.extend(Attributes(list).filter_map(|(_, element)| part(element, names)));
}

fn part(element: &[u8], names: &mut NameInterner) -> Option<KernelElement> {
    let fields = Fields::of(element);
    let flags = fields.u32(3).unwrap_or_default();
    let catch_all = flags & CATCH_ALL != 0;
    // It is still listed, but holds no more.
    if fields.u64(5) == Some(0) {
        return None;
    }
    let element = Element {
        key: value(fields.get(1)).or(catch_all.then(Bytes::default))?,
        key_end: value(fields.get(10)),
        catch_all,
        verdict: verdict(fields.get(2), names),
        data: value(fields.get(2)),
        comment: comment(fields.get(6), 0),
    };
    Some(KernelElement { element, ends: flags & INTERVAL_END != 0 })
}

/// The elements of a set. Ranges are put together out of their boundaries: each
/// begins with an element and ends before the next one, be that a new range or an
/// end, or with the highest key.
pub(super) fn elements(set: &Set, parts: Vec<KernelElement>) -> Vec<Element> {
    if !set.interval || set.concat {
        return parts.into_iter().map(KernelElement::whole).collect();
    }
    let (mut whole, mut bounds): (Vec<KernelElement>, Vec<KernelElement>) = parts
        .into_iter()
        .partition(|part| part.element.catch_all || part.element.key_end.is_some());
    bounds.sort_by(|a, b| (&a.element.key, !a.ends).cmp(&(&b.element.key, !b.ends)));
    let mut ranges = Vec::with_capacity(bounds.len() / 2 + whole.len());
    let mut bounds = bounds.into_iter().peekable();
    while let Some(KernelElement { mut element, ends }) = bounds.next() {
        if ends {
            continue;
        }
        let last = match bounds.peek() {
            Some(next) => before(&next.element.key),
            None => Bytes::from(vec![u8::MAX; element.key.0.len()]),
        };
        element.key_end = Some(last).filter(|last| *last != element.key);
        ranges.push(element);
    }
    ranges.extend(whole.drain(..).map(KernelElement::whole));
    ranges
}

/// The number before this one. Keys of ranges are numbers in network byte order.
fn before(key: &Bytes) -> Bytes {
    let mut bytes = key.0.clone();
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            break;
        }
    }
    Bytes(bytes)
}

/// The list that asks for the elements of all numbers below `size`.
pub(super) fn wanted_below(size: u32) -> std::io::Result<Vec<u8>> {
    let mut list = Vec::new();
    for number in 0..size {
        list.extend(wanted(Some(&Bytes::from(number.to_ne_bytes().to_vec())))?);
    }
    Ok(list)
}

/// The list that asks for one element: that with this key, or the catch-all one.
pub(super) fn wanted(key: Option<&Bytes>) -> std::io::Result<Vec<u8>> {
    let element = match key {
        Some(key) => attribute(NESTED | 1, &attribute(1, &key.0)?)?,
        None => attribute(3, &CATCH_ALL.to_be_bytes())?,
    };
    attribute(NESTED | 1, &element)
}
