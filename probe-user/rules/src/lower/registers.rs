//! What registers hold while a rule is lowered.

use super::{Field, SetKey, Term};
use crate::model::Reg;

/// How many words of 4 bytes there are.
const WORDS: usize = 16;
/// How far a map's data reaches: it is as long as the map's type says, which is not
/// known here, and what is loaded behind it ends it.
const DATA: u32 = 64;

/// What begins at a word.
#[derive(Debug, Clone)]
struct Loaded {
    term: Term,
    /// Bytes.
    len: u32,
    /// Whether something looked at it.
    used: bool,
    /// Whether something else was loaded after that: it is part of no later key.
    left: bool,
}

/// The registers, by word.
#[derive(Debug, Default)]
pub(super) struct Registers([Option<Loaded>; WORDS]);

impl Registers {
    /// Loads a term of so many bytes.
    pub(super) fn write(&mut self, dreg: Reg, term: Term, len: u32) {
        for loaded in self.0.iter_mut().flatten() {
            loaded.left |= loaded.used;
        }
        self.overwrite(dreg, term, len);
    }

    /// Loads what a map gives, whose length is not known.
    pub(super) fn write_data(&mut self, dreg: Reg, term: Term) {
        self.write(dreg, term, 4);
        // What the key had is overwritten; what waits behind it for later is not.
        for word in self.0.iter_mut().skip(usize::from(dreg.0) + 1) {
            if word.as_ref().is_some_and(|loaded| loaded.used) {
                *word = None;
            }
        }
        if let Some(loaded) = self.0.get_mut(usize::from(dreg.0)).and_then(Option::as_mut) {
            loaded.len = DATA;
        }
    }

    /// Writes what was computed of registers.
    pub(super) fn overwrite(&mut self, dreg: Reg, term: Term, len: u32) {
        let first = usize::from(dreg.0);
        let words = usize::try_from(len.div_ceil(4)).unwrap_or(WORDS).max(1);
        for word in self.0.iter_mut().skip(first).take(words) {
            *word = None;
        }
        if let Some(word) = self.0.get_mut(first) {
            *word = Some(Loaded { term, len, used: false, left: false });
        }
    }

    /// What a register has, which is looked at.
    pub(super) fn read(&mut self, sreg: Reg) -> Term {
        if let Some((first, _)) = self.find(sreg)
            && let Some(Some(loaded)) = self.0.get_mut(first)
        {
            loaded.used = true;
        }
        self.peek(sreg)
    }

    /// The same, where nothing is looked at yet.
    pub(super) fn peek(&self, sreg: Reg) -> Term {
        match self.find(sreg) {
            Some((_, (term, 0))) => term.clone(),
            Some((_, (Term::Data { slot, at, find }, skip))) => {
                Term::Data { slot: *slot, at: at + skip, find: find.clone() }
            }
            Some((_, (term, at))) => Term::Part { of: Box::new(term.clone()), at },
            None => Term::Unknown,
        }
    }

    /// The word at which what covers a register begins, what it is, and how many bytes
    /// before the register.
    fn find(&self, reg: Reg) -> Option<(usize, (&Term, u32))> {
        let at = usize::from(reg.0);
        let before = self.0.get(..=at)?.iter().enumerate().rev();
        let (first, loaded) = before.flat_map(|(n, one)| Some((n, one.as_ref()?))).next()?;
        let skip = u32::try_from((at - first) * 4).ok()?;
        (skip < loaded.len).then_some((first, (&loaded.term, skip)))
    }

    /// What is in a row from a register on.
    pub(super) fn key(&mut self, sreg: Reg) -> SetKey {
        let mut key = SetKey::default();
        let mut at = usize::from(sreg.0);
        let mut own = true;
        while let Some(Some(loaded)) = self.0.get_mut(at) {
            own &= !loaded.left;
            let mut words = usize::try_from(loaded.len.div_ceil(4)).unwrap_or(WORDS).max(1);
            let mut len = loaded.len;
            if own {
                loaded.used = true;
            }
            let term = loaded.term.clone();
            if let Some(next) = self.0.iter().skip(at + 1).take(words - 1).position(Option::is_some)
            {
                words = next + 1;
                len = len.min(u32::try_from(words * 4).unwrap_or(len));
            }
            key.parts.push((term, len));
            key.own += usize::from(own);
            at += words;
        }
        if key.parts.is_empty() {
            // From within something else.
            let term = self.read(sreg);
            if term != Term::Unknown {
                key = SetKey { parts: vec![(term, DATA)], own: 1 };
            }
        }
        key
    }

    /// Replaces what is made of a field by what it has now.
    pub(super) fn keep(&mut self, field: &Field, mut keep: impl FnMut(Term) -> Term) {
        for loaded in self.0.iter_mut().flatten() {
            // What nothing will look at needs not be kept: nft loads anew for each use.
            if !loaded.used && loaded.term.has(&|one| one == field) {
                loaded.term = keep(loaded.term.clone());
            }
        }
    }
}
