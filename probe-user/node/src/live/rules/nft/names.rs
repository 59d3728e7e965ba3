//! Names of tables, chains and sets, each kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// Every name that was read so far, each once.
#[derive(Debug, Default)]
pub(in crate::live::rules) struct NameInterner(HashSet<Arc<str>>);

impl NameInterner {
    pub(super) fn get(&mut self, name: &[u8]) -> Arc<str> {
        let name = String::from_utf8_lossy(name);
        if let Some(known) = self.0.get(&*name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        self.0.insert(Arc::clone(&new));
        new
    }
}
