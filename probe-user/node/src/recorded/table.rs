//! Questions of one kind with their answers.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use whereis_port_model::{Gap, Read};

/// A question to a node, and what was read for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFact<Q, A> {
    /// What was asked for.
    pub asked: Q,
    /// What was read.
    pub read: Read<A>,
}

/// Questions of one kind in the order in which they came, with their answers. Of the same
/// question twice, the first counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FactTable<Q, A> {
    all: Vec<RecordedFact<Q, A>>,
    /// Where each question is, once one is looked for.
    #[serde(skip, default = "OnceLock::new")]
    index: OnceLock<HashMap<Q, usize>>,
}

impl<Q, A> FactTable<Q, A> {
    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl<Q: Clone + Eq + Hash, A> FactTable<Q, A> {
    /// The answer to this very question.
    pub fn get(&self, asked: &Q) -> Option<&Read<A>> {
        let at = self.index().get(asked)?;
        self.all.get(*at).map(|known| &known.read)
    }

    /// Keeps an answer, unless the question came before: a node gives the same one twice.
    pub(super) fn keep(&mut self, asked: Q, read: Read<A>) {
        if self.get(&asked).is_none() {
            if let Some(index) = self.index.get_mut() {
                index.insert(asked.clone(), self.all.len());
            }
            self.all.push(RecordedFact { asked, read });
        }
    }

    fn index(&self) -> &HashMap<Q, usize> {
        self.index.get_or_init(|| {
            let mut index = HashMap::new();
            for (at, known) in self.all.iter().enumerate() {
                index.entry(known.asked.clone()).or_insert(at);
            }
            index
        })
    }
}

impl<Q, A> From<Vec<RecordedFact<Q, A>>> for FactTable<Q, A> {
    fn from(all: Vec<RecordedFact<Q, A>>) -> Self {
        Self { all, index: OnceLock::new() }
    }
}

impl<Q, A> Default for FactTable<Q, A> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<Q, A> Deref for FactTable<Q, A> {
    type Target = Vec<RecordedFact<Q, A>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl<Q, A> DerefMut for FactTable<Q, A> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // Questions may change places.
        self.index.take();
        &mut self.all
    }
}

impl<Q: PartialEq, A: PartialEq> PartialEq for FactTable<Q, A> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

/// The facts of one kind, whatever it is.
pub(super) trait FactKind {
    /// The gaps of each read.
    fn gaps(&mut self) -> impl Iterator<Item = &mut Gap>;
}

impl<T> FactKind for Option<Read<T>> {
    fn gaps(&mut self) -> impl Iterator<Item = &mut Gap> {
        self.iter_mut().flat_map(|read| &mut read.gaps)
    }
}

impl<Q, A> FactKind for FactTable<Q, A> {
    fn gaps(&mut self) -> impl Iterator<Item = &mut Gap> {
        self.all.iter_mut().flat_map(|known| &mut known.read.gaps)
    }
}
