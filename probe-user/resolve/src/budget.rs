//! How much one question may make of packet rules.
//!
//! Whoever has a network namespace, in a container or a user namespace of his own, writes
//! rules there, and can write such that following them never ends. So every rule that is
//! run, every way that is followed and every element that is looked at counts, over all
//! hooks, addresses, ports and namespaces of a question together. The host's namespace and
//! the tool's own have a share each. All others of the initial user namespace have one
//! together, of which each may use a part, and so have those of other user namespaces,
//! which anybody can make: none of them uses up what another kind needs.
//!
//! Steps are counted, not time: the same facts give the same answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use whereis_port_model::{Host, Netns, NetnsId};

/// For the host's namespace and the tool's own, each. A step takes some 20 ns.
const HOME: u64 = 40_000_000;
/// For the others of the initial user namespace together, and for each of them.
const SYSTEM: (u64, u64) = (20_000_000, 10_000_000);
/// For those of other user namespaces together, and for each of them.
const USERS: (u64, u64) = (5_000_000, 1_000_000);

/// What a way that is followed costs, with the evidence that it carries.
pub(super) const WAY: u64 = 2000;

/// What was read or found out before, by what was asked.
pub(super) type Cache<K, V> = RefCell<HashMap<K, V>>;

/// The shares of all namespaces.
pub(super) struct Budget {
    home: Vec<NetnsId>,
    /// Those that another user namespace owns.
    of_users: Vec<NetnsId>,
    /// How many questions' share each has.
    times: u64,
    system: Rc<Cell<u64>>,
    users: Rc<Cell<u64>>,
    shares: Cache<NetnsId, Rc<Share>>,
    /// In the order in which they were used up.
    cut: RefCell<Vec<Rc<Share>>>,
}

/// The share of one namespace.
pub(super) struct Share {
    pub(super) netns: NetnsId,
    left: Cell<u64>,
    /// What it shares with others.
    pot: Rc<Cell<u64>>,
    /// How many connections were not tried for want of it.
    untried: Cell<usize>,
    told: Cell<bool>,
}

impl Budget {
    pub(super) fn new(host: &Host, netns: &[Netns]) -> Self {
        Self::times(host, netns, 1)
    }

    /// The same with so many times as much for each share.
    pub(super) fn times(host: &Host, netns: &[Netns], times: u64) -> Self {
        let of_users = netns.iter().filter(|n| n.is_of_other_users()).map(|n| n.id).collect();
        Self {
            home: host.host_netns.into_iter().chain([host.own_netns]).collect(),
            of_users,
            times,
            system: Rc::new(Cell::new(SYSTEM.0 * times)),
            users: Rc::new(Cell::new(USERS.0 * times)),
            shares: RefCell::default(),
            cut: RefCell::default(),
        }
    }

    /// Whether a namespace is the host's or the tool's own.
    pub(super) fn is_home(&self, netns: NetnsId) -> bool {
        self.home.contains(&netns)
    }

    pub(super) fn of(&self, netns: NetnsId) -> Rc<Share> {
        let mut shares = self.shares.borrow_mut();
        let share = shares.entry(netns).or_insert_with(|| {
            let (pot, each) = match self.is_home(netns) {
                true => (Rc::new(Cell::new(HOME * self.times)), HOME),
                false if self.of_users.contains(&netns) => (Rc::clone(&self.users), USERS.1),
                false => (Rc::clone(&self.system), SYSTEM.1),
            };
            let each = each * self.times;
            let (untried, told) = (Cell::new(0), Cell::new(false));
            Rc::new(Share { netns, left: Cell::new(each), pot, untried, told })
        });
        Rc::clone(share)
    }

    /// Takes steps of a namespace's share; `false` when it has not so many left, and none
    /// from then on.
    pub(super) fn spend(&self, share: &Rc<Share>, steps: u64) -> bool {
        let (left, pot) = (share.left.get(), share.pot.get());
        if steps > left || steps > pot {
            share.left.set(0);
            let mut cut = self.cut.borrow_mut();
            if !cut.iter().any(|known| known.netns == share.netns) {
                cut.push(Rc::clone(share));
            }
            return false;
        }
        share.left.set(left - steps);
        share.pot.set(pot - steps);
        true
    }

    /// Whether nothing is left for a namespace.
    pub(super) fn is_used_up(&self, share: &Share) -> bool {
        share.left.get() == 0 || share.pot.get() == 0
    }

    /// Notes that connections were not tried.
    pub(super) fn leave_out(&self, share: &Share, connections: usize) {
        share.untried.set(share.untried.get() + connections);
    }

    /// What was used up since this was asked last: the namespaces, and how many connections
    /// were not tried there.
    pub(super) fn cut(&self) -> (Vec<NetnsId>, usize) {
        let cut = self.cut.borrow();
        let new: Vec<&Rc<Share>> = cut.iter().filter(|share| !share.told.replace(true)).collect();
        let untried = new.iter().map(|share| share.untried.get()).sum();
        (new.iter().map(|share| share.netns).collect(), untried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netns(id: u64, user_ns: Option<u64>) -> Netns {
        let (paths, members) = (Vec::new(), Vec::new());
        Netns { id: NetnsId::Inode(id), cookie: None, name: None, paths, members, user_ns }
    }

    fn budget() -> Budget {
        let host = Host {
            hostname: String::new(),
            kernel: String::new(),
            now: 0,
            euid: 0,
            capabilities: Vec::new(),
            own_netns: NetnsId::Inode(2),
            own_netns_name: None,
            host_netns: Some(NetnsId::Inode(1)),
            init_pid_ns: true,
            hidepid: 0,
            binds_privileged: None,
            wsl: false,
        };
        let initial = Some(Netns::INITIAL_USER_NS);
        let others = (10..30).map(|id| netns(id, Some(7)));
        let all = [netns(1, initial), netns(2, initial), netns(3, initial), netns(4, None)];
        Budget::new(&host, &all.into_iter().chain(others).collect::<Vec<_>>())
    }

    /// How much a namespace can use.
    fn all_of(budget: &Budget, id: u64) -> u64 {
        let share = budget.of(NetnsId::Inode(id));
        (0..).take_while(|_| budget.spend(&share, 1000)).count() as u64 * 1000
    }

    #[test]
    fn what_others_use_is_not_missing_to_the_host() {
        let budget = budget();
        let of_users: u64 = (10..30).map(|id| all_of(&budget, id)).sum();
        assert_eq!(of_users, USERS.0);
        assert_eq!([3, 4].map(|id| all_of(&budget, id)), [SYSTEM.1, SYSTEM.1]);
        assert_eq!([1, 2].map(|id| all_of(&budget, id)), [HOME, HOME]);
    }

    #[test]
    fn what_is_used_up_is_told_once_with_what_was_left_out() {
        let budget = budget();
        let share = budget.of(NetnsId::Inode(10));
        assert!(budget.spend(&share, 5) && budget.cut().0.is_empty());
        assert!(!budget.spend(&share, USERS.1));
        assert!(!budget.spend(&share, 1), "it was used up");
        budget.leave_out(&share, 3);
        assert_eq!(budget.cut(), (vec![NetnsId::Inode(10)], 3));
        assert_eq!(budget.cut(), (Vec::new(), 0));
    }
}
