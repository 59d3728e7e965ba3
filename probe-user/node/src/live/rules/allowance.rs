//! How much is read of packet rules.
//!
//! Whoever has a network namespace can load a million rules into it, and sets of millions
//! of elements, and have a hundred such namespaces. What is read of one is limited, and so
//! is what is read together of all that are not the tool's own or the host's; for those of
//! other user namespaces, which anybody can make, apart from the others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use whereis_port_model::NetnsId;

/// How many bytes are read of the host's namespace and the tool's own, each; and of others
/// together and each. In memory rules take about three times as much.
const HOME: u64 = 256 << 20;
const SYSTEM: (u64, u64) = (64 << 20, 32 << 20);
const USERS: (u64, u64) = (16 << 20, 4 << 20);

/// How long the end of a change of rules is waited for, at home and elsewhere.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(300));

/// What is left of it, for one namespace.
#[derive(Debug)]
pub(super) struct Allowance {
    left: AtomicU64,
    pot: Arc<AtomicU64>,
    pub(super) patience: Duration,
}

impl Allowance {
    /// Takes so many bytes; `false` when there are not so many left, and none from then on.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let less = |left: u64| left.checked_sub(bytes);
        let one = |of: &AtomicU64| of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let is_enough = one(&self.left).is_ok() && one(&self.pot).is_ok();
        if !is_enough {
            self.left.store(0, Ordering::Relaxed);
        }
        is_enough
    }

    /// Without a limit, to read what has a known size.
    pub(super) fn unlimited() -> Arc<Self> {
        Self::limited(u64::MAX)
    }

    pub(super) fn limited(bytes: u64) -> Arc<Self> {
        let pot = Arc::new(AtomicU64::new(u64::MAX));
        Arc::new(Self { left: AtomicU64::new(bytes), pot, patience: PATIENCE.0 })
    }
}

/// Whose a namespace is, which decides how much of its rules is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NetnsClass {
    /// The host's, or the tool's own.
    Home,
    /// Another of the initial user namespace, or it is not known.
    System,
    /// Of another user namespace.
    Users,
}

/// What all namespaces have.
#[derive(Debug)]
pub(super) struct Allowances {
    system: Arc<AtomicU64>,
    users: Arc<AtomicU64>,
    each: RefCell<HashMap<NetnsId, Arc<Allowance>>>,
}

impl Default for Allowances {
    fn default() -> Self {
        Self {
            system: Arc::new(AtomicU64::new(SYSTEM.0)),
            users: Arc::new(AtomicU64::new(USERS.0)),
            each: RefCell::default(),
        }
    }
}

impl Allowances {
    pub(super) fn of(&self, id: NetnsId, whose: NetnsClass) -> Arc<Allowance> {
        let new = || {
            let (pot, each, patience) = match whose {
                NetnsClass::Home => (Arc::new(AtomicU64::new(HOME)), HOME, PATIENCE.0),
                NetnsClass::System => (Arc::clone(&self.system), SYSTEM.1, PATIENCE.1),
                NetnsClass::Users => (Arc::clone(&self.users), USERS.1, PATIENCE.1),
            };
            Arc::new(Allowance { left: AtomicU64::new(each), pot, patience })
        };
        Arc::clone(self.each.borrow_mut().entry(id).or_insert_with(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_users_use_up_nothing_of_others() {
        let all = Allowances::default();
        let mut read = 0;
        for id in 10..60 {
            let one = all.of(NetnsId::Inode(id), NetnsClass::Users);
            while one.take(1 << 20) {
                read += 1 << 20;
            }
            assert!(!one.take(1), "it was used up");
        }
        assert_eq!(read, USERS.0);
        assert!(
            all.of(NetnsId::Inode(3), NetnsClass::System).take(usize::try_from(SYSTEM.1).unwrap())
        );
        assert!(all.of(NetnsId::Inode(1), NetnsClass::Home).take(usize::try_from(HOME).unwrap()));
    }
}
