//! The format: `Documentation/bpf/btf.rst` of the kernel. A header, types one
//! after the other, then strings. The id of a type is its place in the order, the
//! first is 1. One pass notes where every sixteenth type is and which of them have
//! the names that are wanted; everything else is read where it is needed.
//!
//! Nothing in the file is trusted: every access is checked, every chain and every
//! search ends after a number of steps.

use thiserror::Error;

/// One position is kept for this many types.
const STRIDE: u32 = 16;
/// The most links of a chain of typedefs, modifiers or arrays of arrays.
const CHAIN: usize = 32;
/// How deep anonymous structs and unions are followed into each other.
const NESTING: usize = 8;
/// How many members are looked at for one name. `task_struct` has about 300.
const MEMBERS: usize = 8192;
/// The longest name of an enumerator that is taken in whole.
const LONGEST: usize = 128;
/// Size of a pointer: programs run on 64 bit machines only.
const POINTER: u32 = 8;

/// `BTF_KIND_*`, `include/uapi/linux/btf.h`.
mod kind {
    pub(super) const INT: u8 = 1;
    pub(super) const PTR: u8 = 2;
    pub(super) const ARRAY: u8 = 3;
    pub(super) const STRUCT: u8 = 4;
    pub(super) const UNION: u8 = 5;
    pub(super) const ENUM: u8 = 6;
    pub(super) const FWD: u8 = 7;
    pub(super) const TYPEDEF: u8 = 8;
    pub(super) const VOLATILE: u8 = 9;
    pub(super) const CONST: u8 = 10;
    pub(super) const RESTRICT: u8 = 11;
    pub(super) const FUNC: u8 = 12;
    pub(super) const FUNC_PROTO: u8 = 13;
    pub(super) const VAR: u8 = 14;
    pub(super) const DATASEC: u8 = 15;
    pub(super) const FLOAT: u8 = 16;
    pub(super) const DECL_TAG: u8 = 17;
    pub(super) const TYPE_TAG: u8 = 18;
    pub(super) const ENUM64: u8 = 19;
}

/// Why a file can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Error {
    #[error("is not BTF of this machine's byte order")]
    Magic,
    #[error("has BTF of version {0}, which this version of the tool does not know")]
    Version(u8),
    #[error("is cut short or damaged")]
    Damaged,
}

/// Which kind of type or function a name of the BTF names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TypeKind {
    Struct,
    Enum,
    Func,
}

/// A name of the BTF that is looked for.
pub(super) type WantedType<'w> = (&'w str, TypeKind);

/// A file, or the part of a module that goes on after `base`.
#[derive(Debug)]
pub(super) struct Btf<'a> {
    base: Option<&'a Btf<'a>>,
    types: &'a [u8],
    strings: &'a [u8],
    /// The id of the first type here.
    first: u32,
    count: u32,
    /// Where every [`STRIDE`]th type is.
    index: Vec<u32>,
    /// What is to be taken off from an offset of a string.
    first_string: u32,
    /// Ids of the names that were wanted, in their order; 0 for none.
    named: Vec<u32>,
    /// The kind of type at which the pass had to end: how long it is, is not known.
    pub(super) unknown_kind: Option<u8>,
}

/// A type, as it is in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Type<'a> {
    name: u32,
    kind: u8,
    /// For a struct or union: offsets carry the sizes of bit fields.
    flag: bool,
    /// The size in bytes, or another type, depending on the kind.
    value: u32,
    data: &'a [u8],
}

/// A member of a struct, seen from the outermost one.
#[derive(Debug, Clone, Copy)]
pub(super) struct StructMember<'a> {
    /// Where it begins: in bits.
    pub(super) bit: u64,
    /// Its size in bits when it is a bit field, else 0.
    pub(super) bits: u32,
    /// Its type, without typedefs and modifiers.
    pub(super) ty: Type<'a>,
}

impl<'a> Btf<'a> {
    /// Reads a file's header and passes over its types once. Of several types of
    /// one name the first counts, as it does for the kernel itself.
    pub(super) fn parse(
        bytes: &'a [u8],
        base: Option<&'a Btf<'a>>,
        wanted: &[WantedType<'_>],
    ) -> Result<Self, Error> {
        let magic = bytes.get(..2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
        if magic != Some(0xeb9f) {
            return Err(Error::Magic);
        }
        match bytes.get(2) {
            Some(1) => {}
            version => return Err(Error::Version(version.copied().unwrap_or(0))),
        }
        let section = |at: usize| {
            let header = word(bytes, 4)? as usize;
            let start = header.checked_add(word(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let types = section(8).ok_or(Error::Damaged)?;
        let strings = section(16).ok_or(Error::Damaged)?;
        let ids = base.map_or(Some(1), |b| b.first.checked_add(b.count));
        let offsets = base
            .map_or(Some(0), |b| b.first_string.checked_add(u32::try_from(b.strings.len()).ok()?));
        let mut btf = Btf {
            base,
            types,
            strings,
            first: ids.ok_or(Error::Damaged)?,
            count: 0,
            index: Vec::new(),
            first_string: offsets.ok_or(Error::Damaged)?,
            named: vec![0; wanted.len()],
            unknown_kind: None,
        };
        btf.pass(wanted)?;
        Ok(btf)
    }

    fn pass(&mut self, wanted: &[WantedType<'_>]) -> Result<(), Error> {
        let mut sorted: Vec<(&[u8], TypeKind, usize)> = wanted
            .iter()
            .enumerate()
            .map(|(n, (name, kind))| (name.as_bytes(), *kind, n))
            .collect();
        sorted.sort_unstable();
        // Most of a kernel's hundred thousand names differ from all that are wanted
        // in their first four bytes, the final zero included.
        let heads: Vec<u32> = wanted.iter().filter_map(|(name, _)| head(name)).collect();
        let has_heads = heads.len() == wanted.len();
        let longest = wanted.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let has_functions = wanted.iter().any(|(_, kind)| *kind == TypeKind::Func);
        let mut at = 0;
        while at < self.types.len() {
            let (ty, next) = match Type::read(self.types, at) {
                Ok(read) => read,
                Err(None) => return Err(Error::Damaged),
                Err(kind) => {
                    self.unknown_kind = kind;
                    return Ok(());
                }
            };
            let here = u32::try_from(at).map_err(|_| Error::Damaged)?;
            let id = self.first.checked_add(self.count).ok_or(Error::Damaged)?;
            if self.count.is_multiple_of(STRIDE) {
                self.index.push(here);
            }
            self.count += 1;
            at = next;
            let kind = match ty.kind {
                kind::STRUCT => TypeKind::Struct,
                kind::ENUM | kind::ENUM64 => TypeKind::Enum,
                kind::FUNC if has_functions => TypeKind::Func,
                _ => continue,
            };
            let Some(tail) = self.tail(ty.name) else { continue };
            if has_heads && !word(tail, 0).is_some_and(|head| heads.contains(&head)) {
                continue;
            }
            let name = cut(tail, longest);
            if let Ok(found) = sorted.binary_search_by(|(n, k, _)| (*n, *k).cmp(&(name, kind))) {
                let slot = &mut self.named[sorted[found].2];
                if *slot == 0 {
                    *slot = id;
                }
            }
        }
        Ok(())
    }

    /// The id of the wanted name with this number.
    pub(super) fn id(&self, number: usize) -> Option<u32> {
        self.named.get(number).copied().filter(|id| *id != 0)
    }

    /// A type by its id; `None` for `void` and for an id that there is not.
    pub(super) fn get(&self, id: u32) -> Option<Type<'a>> {
        let Some(number) = id.checked_sub(self.first) else { return self.base?.get(id) };
        if number >= self.count {
            return None;
        }
        let mut at = *self.index.get((number / STRIDE) as usize)? as usize;
        for _ in 0..number % STRIDE {
            at = Type::read(self.types, at).ok()?.1;
        }
        Some(Type::read(self.types, at).ok()?.0)
    }

    /// A type without the typedefs and modifiers around it.
    fn peeled(&self, mut id: u32) -> Option<Type<'a>> {
        for _ in 0..CHAIN {
            let ty = self.get(id)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = ty.value;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    /// The size of a type in bytes.
    pub(super) fn size(&self, mut ty: Type<'a>) -> Option<u32> {
        let mut times: u32 = 1;
        for _ in 0..CHAIN {
            match ty.kind {
                kind::ARRAY => {
                    times = times.checked_mul(word(ty.data, 8)?)?;
                    ty = self.peeled(word(ty.data, 0)?)?;
                }
                kind::PTR => return times.checked_mul(POINTER),
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 => {
                    return times.checked_mul(ty.value);
                }
                _ => return None,
            }
        }
        None
    }

    /// How many elements an array has.
    pub(super) fn length(&self, ty: Type<'a>) -> Option<u32> {
        if ty.kind == kind::ARRAY { word(ty.data, 8) } else { None }
    }

    /// A member of a struct by its path, such as `__sk_common.skc_family` or
    /// `tuplehash[1].tuple`.
    pub(super) fn field(&self, outer: Type<'a>, path: &str) -> Option<StructMember<'a>> {
        let mut field = StructMember { bit: 0, bits: 0, ty: outer };
        for step in path.split('.') {
            let (name, element) = match step.strip_suffix(']').and_then(|s| s.split_once('[')) {
                Some((name, element)) => (name, Some(element.parse::<u32>().ok()?)),
                None => (step, None),
            };
            let mut left = MEMBERS;
            let inner = self.member(field.ty, name, NESTING, &mut left)?;
            field = StructMember { bit: field.bit.checked_add(inner.bit)?, ..inner };
            if let Some(element) = element {
                if element >= self.length(field.ty)? {
                    return None;
                }
                field.ty = self.peeled(word(field.ty.data, 0)?)?;
                let size = u64::from(self.size(field.ty)?);
                field.bit = field.bit.checked_add(u64::from(element) * size * 8)?;
            }
        }
        Some(field)
    }

    /// A member by its name, also of the anonymous structs and unions inside.
    fn member(
        &self,
        outer: Type<'a>,
        name: &str,
        nesting: usize,
        left: &mut usize,
    ) -> Option<StructMember<'a>> {
        if !outer.is_struct() {
            return None;
        }
        for member in outer.data.chunks_exact(12) {
            *left = left.checked_sub(1)?;
            let offset = word(member, 8)?;
            let (bit, bits) =
                if outer.flag { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            let bit = u64::from(bit);
            let found = self.name(word(member, 0)?, name.len())?;
            if found == name.as_bytes() {
                return Some(StructMember { bit, bits, ty: self.peeled(word(member, 4)?)? });
            }
            let deeper = nesting.checked_sub(1).filter(|_| found.is_empty());
            let inner = deeper
                .and_then(|deeper| self.member(self.peeled(word(member, 4)?)?, name, deeper, left));
            if let Some(inner) = inner {
                return Some(StructMember { bit: bit + inner.bit, ..inner });
            }
        }
        None
    }

    /// The value of an enumerator.
    pub(super) fn enumerator(&self, ty: Type<'a>, name: &str) -> Option<u32> {
        // The upper half of an ENUM64's value comes last.
        let (size, has_upper) = match ty.kind {
            kind::ENUM => (8, false),
            kind::ENUM64 => (12, true),
            _ => return None,
        };
        let is_it =
            |e: &&[u8]| word(e, 0).and_then(|n| self.name(n, name.len())) == Some(name.as_bytes());
        let found = ty.data.chunks_exact(size).find(is_it)?;
        if has_upper && word(found, 8)? != 0 {
            return None;
        }
        word(found, 4)
    }

    /// Every enumerator of an enum with its value: the lower half of one of 64 bits.
    pub(super) fn enumerators(&self, ty: Type<'a>) -> Vec<(String, u32)> {
        let size = match ty.kind {
            kind::ENUM => 8,
            kind::ENUM64 => 12,
            _ => return Vec::new(),
        };
        let one = |e: &[u8]| {
            let name = self.name(word(e, 0)?, LONGEST)?;
            Some((String::from_utf8_lossy(name).into_owned(), word(e, 4)?))
        };
        ty.data.chunks_exact(size).filter_map(one).collect()
    }

    /// A string, see [`cut`].
    fn name(&self, offset: u32, longest: usize) -> Option<&'a [u8]> {
        self.tail(offset).map(|tail| cut(tail, longest))
    }

    /// A string, and all after it.
    #[inline]
    fn tail(&self, offset: u32) -> Option<&'a [u8]> {
        match offset.checked_sub(self.first_string) {
            Some(offset) => self.strings.get(offset as usize..),
            None => self.base?.tail(offset),
        }
    }
}

/// The string at the beginning. One that is longer than `longest` comes cut, one
/// byte longer than that: it is none of those that are looked for.
fn cut(tail: &[u8], longest: usize) -> &[u8] {
    let tail = tail.get(..=longest).unwrap_or(tail);
    let end = tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len());
    &tail[..end]
}

/// The first four bytes of a name with its final zero, when it has that many.
fn head(name: &str) -> Option<u32> {
    let mut bytes = name.bytes().chain([0]);
    let four = [bytes.next()?, bytes.next()?, bytes.next()?, bytes.next()?];
    Some(u32::from_ne_bytes(four))
}

impl<'a> Type<'a> {
    /// Reads a type, and says where the next one is. An error is the kind, when
    /// it is one that is not known.
    #[inline]
    fn read(types: &'a [u8], at: usize) -> Result<(Self, usize), Option<u8>> {
        let head = types.get(at..at + 12).ok_or(None)?;
        let info = word(head, 4).ok_or(None)?;
        let count = (info & 0xffff) as usize;
        let kind = (info >> 24 & 0x1f) as u8;
        let length = match kind {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
            kind::ENUM | kind::FUNC_PROTO => 8 * count,
            kind::PTR | kind::FWD | kind::TYPEDEF | kind::VOLATILE | kind::CONST => 0,
            kind::RESTRICT | kind::FUNC | kind::FLOAT | kind::TYPE_TAG => 0,
            _ => return Err(Some(kind)),
        };
        let next = at + 12 + length;
        let ty = Self {
            name: word(head, 0).ok_or(None)?,
            kind,
            flag: info >> 31 == 1,
            value: word(head, 8).ok_or(None)?,
            data: types.get(at + 12..next).ok_or(None)?,
        };
        Ok((ty, next))
    }

    /// Whether it is a struct or a union.
    pub(super) fn is_struct(&self) -> bool {
        self.kind == kind::STRUCT || self.kind == kind::UNION
    }

    /// Whether it is a pointer.
    pub(super) fn is_pointer(&self) -> bool {
        self.kind == kind::PTR
    }

    /// Whether it is an integer that fills its bytes, or an enum.
    pub(super) fn is_number(&self) -> bool {
        match self.kind {
            // Bits and their offset: how BTF had bit fields at first.
            kind::INT => word(self.data, 0)
                .is_some_and(|data| data & 0xff_00ff == self.value.wrapping_mul(8)),
            kind::ENUM | kind::ENUM64 => true,
            _ => false,
        }
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}
