//! What an outcome depends on.

/// What an outcome depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Condition {
    /// What it is about.
    pub code: ConditionCode,
    /// In words that go on after "if": `the mark is 1`. Untrusted where it quotes.
    pub text: String,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionCode {
    /// The client is one of those that are named.
    Client,
    /// The client is none of those that are named.
    OtherClient,
    /// Something else that rules ask and the node does not tell.
    Rule,
    /// Tables of equal priority are in this order.
    Order,
    /// The client is the server itself, which connects to itself by way of others.
    Hairpin,
    /// The client has a route over this node.
    Route,
    /// Of several who have the address of the next hop this one answers.
    Neighbour,
    /// There are more than are told.
    Several,
    /// A program or filter that is attached to a device or cgroup lets it pass. No rule asks
    /// this: it is for who follows packets.
    Program,
    /// Rules for the frames in a bridge let it pass, likewise.
    BridgeRules,
    /// Rules for ARP let it be found, likewise.
    ArpRules,
    /// IPsec policies let it pass, likewise.
    Ipsec,
    /// What could not be read lets it pass, likewise.
    NotRead,
}

impl Condition {
    /// What rules assume, in words.
    pub fn of_rule(text: impl Into<String>) -> Self {
        Self { code: ConditionCode::Rule, text: text.into() }
    }

    /// Conditions of which there are more than are told, in words.
    pub fn several(text: String) -> Self {
        Self { code: ConditionCode::Several, text }
    }
}
