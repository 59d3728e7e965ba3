//! Makes BTF by hand.

/// A file that is being made. Types are numbered from 1, in their order.
#[derive(Default)]
pub(in super::super) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
    first: u32,
    first_string: u32,
}

/// Name, type, offset in bits.
pub(super) type Member<'m> = (&'m str, u32, u32);

impl Builder {
    pub(in super::super) fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    /// One that goes on after another.
    pub(in super::super) fn after(base: &Self) -> Self {
        let first_string = u32::try_from(base.strings.len()).unwrap();
        Self { strings: vec![0], first: base.count, first_string, ..Self::default() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.bytes().chain([0]));
        at + self.first_string
    }

    /// Any type: its kind, flag, the word that depends on the kind, and what follows.
    pub(super) fn raw(&mut self, name: &str, info: u32, value: u32, data: &[u32]) -> u32 {
        let name = self.name(name);
        for word in [name, info, value].iter().chain(data) {
            self.types.extend(word.to_ne_bytes());
        }
        self.count += 1;
        self.first + self.count
    }

    pub(super) fn int(&mut self, bytes: u32) -> u32 {
        self.raw(&format!("u{}", bytes * 8), 1 << 24, bytes, &[bytes * 8])
    }

    pub(super) fn pointer(&mut self) -> u32 {
        self.raw("", 2 << 24, 0, &[])
    }

    pub(super) fn array(&mut self, of: u32, length: u32) -> u32 {
        self.raw("", 3 << 24, 0, &[of, of, length])
    }

    /// Kind 8 is a typedef, 9 `volatile`, 10 `const`.
    pub(super) fn link(&mut self, kind: u32, to: u32) -> u32 {
        self.raw(if kind == 8 { "alias" } else { "" }, kind << 24, to, &[])
    }

    pub(super) fn composite(&mut self, kind: u32, name: &str, size: u32, of: &[Member<'_>]) -> u32 {
        let data: Vec<u32> =
            of.iter().flat_map(|(name, ty, bit)| [self.name(name), *ty, *bit]).collect();
        let flag = u32::from(of.iter().any(|(_, _, bit)| bit >> 24 > 0)) << 31;
        self.raw(name, flag | kind << 24 | u32::try_from(of.len()).unwrap(), size, &data)
    }

    pub(super) fn structure(&mut self, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        self.composite(4, name, size, members)
    }

    pub(in super::super) fn enumeration(&mut self, name: &str, of: &[(&str, u32)]) -> u32 {
        let data: Vec<u32> =
            of.iter().flat_map(|(name, value)| [self.name(name), *value]).collect();
        self.raw(name, 6 << 24 | u32::try_from(of.len()).unwrap(), 4, &data)
    }

    pub(in super::super) fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len(), self.strings.len());
        let words = [24, 0, types, types, strings].map(|word| u32::try_from(word).unwrap());
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}
