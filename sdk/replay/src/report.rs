//! What an audit found, as data.

use std::collections::BTreeMap;
use std::fmt;

use alloy::primitives::{Address, B256};
use serde::{Deserialize, Serialize};

/// Divergences that a report lists; more are counted. Whoever has a thousand has one cause, or no chain at all.
pub const MAX_DIVERGENCES: usize = 1000;

/// What a divergence breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A block is what its header says, and follows its parent.
    Header,
    /// The RPC has every block up to its head, with a receipt of each transaction.
    Missing,
    /// Every transaction is signed by its sender.
    Signature,
    /// Every transaction is valid where it stands.
    Validity,
    /// A receipt says what the transaction did: status, gas, logs.
    Receipt,
    /// The header's roots are those of the replay: receipts, bloom, gas.
    Results,
    /// The state is what the transactions made of it.
    State,
    /// A contract's storage is what the transactions made of it.
    StorageHash,
    /// A contract's code is that of the sources.
    Code,
    /// The contracts know one another.
    Wiring,
    /// A call does what the protocol's rules say: amounts, draws, deadlines, penalties.
    Rules,
    /// The contracts refuse what the rules refuse.
    Refusal,
    /// Nothing happens without a call.
    Cause,
    /// The contracts store what their events tell.
    Storage,
    /// Money is conserved.
    Funds,
    /// Content is what its digest says, and can be had.
    Content,
    /// A paid answer comes from the model that was paid for.
    Model,
}

impl Rule {
    /// The rule in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Header => "a block is what its header says and follows its parent",
            Self::Missing => "the RPC has every block, with a receipt of each transaction",
            Self::Signature => "every transaction is signed by its sender",
            Self::Validity => "every transaction is valid where it stands",
            Self::Receipt => "a receipt says what its transaction did",
            Self::Results => "a header says what its transactions did",
            Self::State => "the state is what the transactions made of it",
            Self::StorageHash => "a contract's storage is what the transactions made of it",
            Self::Code => "a contract's code is that of the sources",
            Self::Wiring => "the contracts know one another",
            Self::Rules => "a call does what the protocol's rules say",
            Self::Refusal => "the contracts refuse what the rules refuse",
            Self::Cause => "nothing happens without a call",
            Self::Storage => "the contracts store what their events tell",
            Self::Funds => "money is conserved",
            Self::Content => "content is what its digest says",
            Self::Model => "a paid answer comes from the model that was paid for",
        }
    }
}

/// Something is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// What it breaks.
    pub rule: Rule,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// In which transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<B256>,
    /// Name and address of the contract.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contract: Option<(String, Address)>,
    /// The task that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<B256>,
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// By how much, in minor units: found less expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// What it is about, in words.
    pub what: String,
    /// What must be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Divergence {
    /// A divergence without a place.
    pub fn new(
        rule: Rule,
        what: impl Into<String>,
        (expected, found): (impl ToString, impl ToString),
    ) -> Self {
        Self {
            rule,
            block: None,
            transaction: None,
            contract: None,
            task: None,
            node: None,
            session: None,
            amount: None,
            what: what.into(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// In a block.
    #[must_use]
    pub fn in_block(mut self, number: u64) -> Self {
        self.block = Some(number);
        self
    }

    /// In a transaction.
    #[must_use]
    pub fn in_transaction(mut self, hash: B256) -> Self {
        self.transaction = Some(hash);
        self
    }

    /// Of a contract.
    #[must_use]
    pub fn of(mut self, name: &str, address: Address) -> Self {
        self.contract = Some((name.to_owned(), address));
        self
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        let mut places = Vec::new();
        places.extend(self.block.map(|block| format!("block {block}")));
        places.extend(self.transaction.map(|hash| format!("transaction {hash}")));
        places.extend(self.contract.as_ref().map(|(name, at)| format!("{name} {at}")));
        places.extend(self.task.map(|task| format!("task {task}")));
        places.extend(self.node.map(|node| format!("node {node}")));
        places.extend(self.session.map(|session| format!("session {session}")));
        places.extend(self.amount.as_ref().map(|amount| format!("off by {amount} minor units")));
        if !places.is_empty() {
            write!(f, "\n    {}", places.join(", "))?;
        }
        write!(f, "\n    expected {}\n    found    {}", self.expected, self.found)
    }
}

/// How much was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Blocks whose header was computed again.
    pub blocks: u64,
    /// Transactions that were executed again.
    pub transactions: u64,
    /// Gas that they used.
    pub gas: u64,
    /// Logs that were compared.
    pub logs: u64,
    /// Roots of the whole state that were compared.
    pub state_roots: u64,
    /// Storage roots of contracts that were compared.
    pub storage_hashes: u64,
    /// Contracts whose code was compared.
    pub contracts: u64,
    /// Calls of the contracts that the rules were applied to.
    pub calls: u64,
    /// Events that the rules foretold.
    pub events: u64,
    /// Tasks that were submitted.
    pub tasks: u64,
    /// Fees and their division, and refunds.
    pub payments: u64,
    /// Times until which something holds.
    pub deadlines: u64,
    /// Draws that were made again from their beacon's value.
    pub draws: u64,
    /// Rounds of the beacon.
    pub rounds: u64,
    /// Nodes that were counted as silent, or slashed.
    pub penalties: u64,
    /// Values in the contracts' storage that were compared.
    pub stored_values: u64,
    /// Blocks after which the money was added up.
    pub funds: u64,
    /// Contents that were fetched and hashed.
    pub contents: u64,
}

/// What scoring an answer again found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It comes from the model.
    Pass,
    /// It does not, and is paid, or is going to be.
    Fail,
    /// It does not, and the network does not pay it.
    Unpaid,
    /// There are no thresholds to judge it by.
    Unjudged,
    /// What it is judged by cannot be had.
    Missing,
}

/// An answer that was scored again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// The task.
    pub task: B256,
    /// The node that answered.
    pub node: u32,
    /// Where the answer was committed.
    pub block: u64,
    /// What was found.
    pub verdict: Verdict,
    /// In words.
    pub what: String,
}

/// Answers that were scored again with the weights of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    /// Name of the model.
    pub model: String,
    /// Numeric class that scored.
    pub class: String,
    /// What the answers were drawn by: the same seed draws the same ones.
    pub seed: u64,
    /// Answers of the model, of which they were drawn.
    pub eligible: u64,
    /// Answers of other models, which were not looked at.
    pub others: u64,
    /// Those that were drawn, in the order of the chain.
    pub answers: Vec<Scored>,
}

impl Rerun {
    /// All but those that are true.
    pub fn doubtful(&self) -> impl Iterator<Item = &Scored> {
        self.answers.iter().filter(|scored| scored.verdict != Verdict::Pass)
    }

    /// In one sentence.
    pub fn summary(&self) -> String {
        let count = |verdict| self.answers.iter().filter(|of| of.verdict == verdict).count();
        let counts = [
            (count(Verdict::Pass), "true"),
            (count(Verdict::Fail), "FALSE"),
            (count(Verdict::Unpaid), "false and not paid"),
            (count(Verdict::Unjudged), "without thresholds to judge by"),
            (count(Verdict::Missing), "not to be had"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        let Self { model, class, seed, eligible, others, answers } = self;
        let mut text = format!(
            "{} of {eligible} answers of {model}, drawn with seed {seed}, scored in {class}: {}",
            answers.len(),
            if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
        );
        if *others > 0 {
            text.push_str(&format!("; {others} answers of other models were not looked at"));
        }
        text
    }
}

/// The outcome of an audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the program.
    pub version: String,
    /// Chain id.
    pub chain_id: u64,
    /// The contracts by name.
    pub contracts: BTreeMap<String, Address>,
    /// First block that was checked.
    pub from: u64,
    /// Last block that was checked.
    pub to: u64,
    /// Its hash.
    pub to_hash: B256,
    /// Whether every check was made to the end. An incomplete audit found at least one divergence.
    pub complete: bool,
    /// What was checked.
    pub checked: Counts,
    /// What was scored again, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
    /// What could not be checked, and why.
    pub notes: Vec<String>,
    /// What is not as it must be, in the order of the chain.
    pub divergences: Vec<Divergence>,
    /// Divergences that are not listed.
    pub unlisted: u64,
}

impl Report {
    /// Whether everything is as it must be.
    pub const fn is_clean(&self) -> bool {
        self.complete && self.divergences.is_empty() && self.unlisted == 0
    }

    /// Notes a divergence.
    pub fn diverges(&mut self, divergence: Divergence) {
        if self.divergences.len() < MAX_DIVERGENCES {
            self.divergences.push(divergence);
        } else {
            self.unlisted += 1;
        }
    }

    /// Notes what cannot be checked, once.
    pub fn note(&mut self, text: &str) {
        if !self.notes.iter().any(|note| note == text) {
            self.notes.push(text.to_owned());
        }
    }
}
