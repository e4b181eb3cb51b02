//! One audit, block by block.

mod distant;
mod resume;

use alloy::consensus::{Header, Transaction};
use alloy::eips::BlockId;
use alloy::primitives::{Address, B256, U256, keccak256};
use alloy::sol_types::SolCall;
use assay_bindings::{Deployment, SessionQueue};
use assay_evm::{Executed, Replay, ReplayError};
use assay_protocol::{ProtocolEvent, State};
use futures::StreamExt;

use crate::code::{creations, immutables, second_half, wires};
use crate::compare::{self, Parent, named};
use crate::error::AuditError;
use crate::genesis::Genesis;
use crate::journal::Journal;
use crate::ledger::{Done, Ledger};
use crate::network::network;
use crate::probe::{Touched, probes};
use crate::report::{Divergence, Report, Rule};
use crate::source::{Fetched, Source};

use self::distant::Distant;
use self::resume::Recorder;

/// Views that are asked of the RPC side by side.
const CALL_WINDOW: usize = 16;
/// Views that are asked of the RPC at most: what they would show beyond that is told by the roots.
const MAX_CALLS: usize = 100_000;

/// What is audited.
#[derive(Clone, Debug)]
pub struct Options {
    /// The contracts.
    pub deployment: Deployment,
    /// First block that is checked. Those before it are executed alone.
    pub from: u64,
    /// Last block.
    pub to: u64,
}

/// Somebody who watches an audit.
pub trait Observer {
    /// A block is done; it used so much gas.
    fn block(&mut self, number: u64, gas: u64) {
        let _ = (number, gas);
    }

    /// An event, the block and transaction that it is of, and the state before it.
    fn event(&mut self, header: &Header, transaction: B256, before: &State, event: &ProtocolEvent) {
        let _ = (header, transaction, before, event);
    }

    /// A call of a contract of the protocol, or of whatever a transaction that did nothing there called, and the state
    /// after its block. An audit that goes on does not tell those of earlier blocks again.
    fn call(&mut self, contract: Address, input: &[u8], state: &State) {
        let _ = (contract, input, state);
    }

    /// The audit is about to write down that it is here. False puts that off.
    fn saving(&mut self) -> bool {
        true
    }
}

/// Watches nothing.
impl Observer for () {}

/// An audit on its way.
pub struct Audit {
    options: Options,
    /// Where it is written down how far it is.
    journal: Option<Journal>,
    /// Hash of block 0.
    genesis: B256,
    replay: Replay,
    ledger: Ledger,
    report: Report,
    has_roots: bool,
    parent: Parent,
    head: Header,
    /// Whether the state has become another one than the chain's.
    tainted: bool,
    /// Where what is not known of the state comes from, if the audit did not begin with the chain.
    distant: Option<Distant>,
}

/// What an audit begins with: a block, and the state after it.
struct Start {
    state: assay_evm::State,
    has_roots: bool,
    /// Hash of block 0.
    genesis: B256,
    header: Header,
    hash: B256,
}

/// A replay that tells who enters the protocol's contracts.
fn watched(deployment: &Deployment, state: assay_evm::State, last: (u64, B256)) -> Replay {
    let mut replay = Replay::new(deployment.chain_id, state, last);
    let deliver = SessionQueue::deliverCall::SELECTOR;
    replay.watch(ProtocolEvent::emitters(deployment), [deliver]);
    replay
}

impl Audit {
    /// Audits a range of the chain behind a source.
    ///
    /// # Errors
    /// When the audit cannot be made; a network that is not as it must be is no error.
    pub async fn run(
        source: &Source,
        options: Options,
        observer: &mut dyn Observer,
    ) -> Result<Report, AuditError> {
        let to = options.to;
        let mut audit = Self::begin(source, options).await?;
        audit.advance(source, to, observer).await?;
        audit.finish(source).await
    }

    /// An audit that has not looked at any block yet. On a development chain it begins with what `Genesis::fetch` finds;
    /// elsewhere with the state before the range, of which proofs tell as much as is needed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn begin(source: &Source, options: Options) -> Result<Self, AuditError> {
        let Options { from, to, .. } = options;
        let head = source.head().await?;
        if from > to || to > head {
            return Err(AuditError::NoRange { from, to, head });
        }
        let chain_id = options.deployment.chain_id;
        let Some(genesis) = Genesis::of_development(source, chain_id).await? else {
            return Self::begin_distant(source, options).await;
        };
        let missing = AuditError::NoRange { from: 0, to: 0, head };
        let first = source.block(0).await?.ok_or(missing)?;
        Ok(Self::new(options, genesis, &first))
    }

    /// Audits the blocks up to `to`, and writes down from time to time how far it is. False if what comes after the last
    /// one cannot be audited.
    ///
    /// # Errors
    /// When the audit cannot be made; where it is stays true, so that it may be called again.
    pub async fn advance(
        &mut self,
        source: &Source,
        to: u64,
        observer: &mut dyn Observer,
    ) -> Result<bool, AuditError> {
        self.recall_history(source, observer).await?;
        let mut blocks = std::pin::pin!(source.blocks(self.parent.number + 1..=to));
        while let Some((number, block)) = blocks.next().await {
            let Some(block) = block? else {
                self.missing(number, source.head().await?);
                return Ok(false);
            };
            if block.header.parent_hash != self.parent.hash {
                self.check_reorganised(source, number).await?;
            }
            let goes_on = match self.distant {
                None => self.block(&block, observer),
                Some(_) => self.block_distant(source, &block, observer).await?,
            };
            if !goes_on {
                return Ok(false);
            }
            observer.block(number, block.header.gas_used);
            if self.journal.as_ref().is_some_and(Journal::is_due) && observer.saving() {
                self.save()?;
            }
        }
        Ok(true)
    }

    /// What was found so far.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The protocol's state after the last block, as its events tell it, and the time of that block, unix seconds.
    pub const fn state(&self) -> (&State, u64) {
        (self.ledger.state(), self.parent.timestamp_s)
    }

    /// Begins after block 0.
    pub fn new(options: Options, genesis: Genesis, first: &Fetched) -> Self {
        let Genesis { state, has_roots } = genesis;
        let (header, hash) = (first.header.clone(), first.hash);
        Self::start(options, Start { state, has_roots, genesis: hash, header, hash })
    }

    fn start(options: Options, start: Start) -> Self {
        let Start { state, has_roots, genesis, header, hash } = start;
        let deployment = options.deployment.clone();
        let replay = watched(&deployment, state, (header.number, hash));
        let contracts = deployment.named().map(|(name, at)| (name.to_owned(), at));
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            chain_id: deployment.chain_id,
            contracts: contracts.into(),
            from: options.from,
            to: 0,
            to_hash: hash,
            complete: true,
            checked: Default::default(),
            rerun: None,
            notes: Vec::new(),
            divergences: Vec::new(),
            unlisted: 0,
        };
        let mut audit = Self {
            ledger: Ledger::new(deployment),
            journal: None,
            genesis,
            options,
            replay,
            report,
            has_roots,
            parent: Parent { number: header.number, hash, timestamp_s: header.timestamp },
            head: header,
            tainted: false,
            distant: None,
        };
        if !audit.has_roots {
            audit.report.note(
                "anvil keeps cleared slots in its tries, so that its state and storage roots are not Ethereum's: \
                 the contracts' storage was compared value by value instead",
            );
        }
        audit
    }

    /// Audits the next block of a development chain. False if what comes after it cannot be audited.
    pub fn block(&mut self, block: &Fetched, observer: &mut dyn Observer) -> bool {
        if !self.follows(block) {
            return false;
        }
        let executed = self.execute(block);
        self.take_in(block, executed, observer)
    }

    /// Whether a block can come next.
    fn follows(&mut self, block: &Fetched) -> bool {
        let follows = compare::header(block, &self.parent, &mut self.report);
        self.report.complete &= follows;
        follows
    }

    fn execute(&mut self, block: &Fetched) -> Result<Executed, ReplayError> {
        if !self.has_roots {
            self.grant_ether(block);
        }
        let Fetched { header, hash, transactions, withdrawals, .. } = block;
        self.replay.block(header, *hash, transactions, withdrawals)
    }

    /// Compares what a block did with what is told of it, and with what it had to do.
    fn take_in(
        &mut self,
        block: &Fetched,
        executed: Result<Executed, ReplayError>,
        observer: &mut dyn Observer,
    ) -> bool {
        let executed = match executed {
            Ok(executed) => executed,
            Err(error) => {
                self.invalid(block, &error);
                return false;
            }
        };
        let header = &block.header;
        let checks = header.number >= self.options.from;
        self.parent =
            Parent { number: header.number, hash: block.hash, timestamp_s: header.timestamp };
        (self.report.to, self.report.to_hash) = (header.number, block.hash);
        self.head = header.clone();
        compare::results(block, &executed.receipts, &mut self.report);
        compare::receipts(block, &executed.receipts, &self.options.deployment, &mut self.report);
        self.state_root(header);
        if checks {
            self.count(&executed.receipts);
        }
        let done = Done {
            header,
            transactions: &block.transactions,
            executed: &executed,
            replay: &self.replay,
        };
        let mut recorder = Recorder { journal: self.journal.as_mut(), observer };
        self.ledger.block(&done, checks, (&mut self.report, &mut recorder));
        for (tx, entries) in block.transactions.iter().zip(&executed.entries) {
            let state = self.ledger.state();
            entries.iter().for_each(|entry| observer.call(entry.contract, &entry.input, state));
            if let (true, Some(to)) = (entries.is_empty(), tx.to()) {
                observer.call(to, tx.input(), state);
            }
        }
        if !self.ledger.ready && !block.transactions.is_empty() {
            self.look_for_contracts();
        }
        true
    }

    /// anvil lets ether be set by hand, and its roots do not tell: what senders have is not checked there.
    fn grant_ether(&mut self, block: &Fetched) {
        for tx in &block.transactions {
            let gas = U256::from(tx.gas_limit()).saturating_mul(U256::from(tx.max_fee_per_gas()));
            if self.replay.grant(&tx.signer(), gas.saturating_add(tx.value())) {
                let text = "an account's ether was set by hand: on anvil what accounts have of it is not checked";
                self.report.note(text);
            }
        }
    }

    fn count(&mut self, receipts: &[assay_evm::TxReceiptRecord]) {
        let checked = &mut self.report.checked;
        checked.blocks += 1;
        checked.transactions += receipts.len() as u64;
        checked.gas += receipts.iter().map(|receipt| receipt.gas_used).sum::<u64>();
        checked.logs += receipts.iter().map(|receipt| receipt.logs().len() as u64).sum::<u64>();
    }

    fn missing(&mut self, number: u64, head: u64) {
        self.report.complete = false;
        let what = "a block that the RPC lacks; nothing after it was checked";
        let expected = format!("block {number} with its receipts: the newest block is {head}");
        let divergence = Divergence::new(Rule::Missing, what, (expected, "nothing".to_owned()));
        self.report.diverges(divergence.in_block(number));
    }

    fn invalid(&mut self, block: &Fetched, error: &ReplayError) {
        self.report.complete = false;
        let what = "a transaction that cannot be in its block; nothing after it was checked";
        let values = ("a valid transaction".to_owned(), error.to_string());
        let mut divergence =
            Divergence::new(Rule::Validity, what, values).in_block(block.header.number);
        if let ReplayError::Invalid { index, .. } = error {
            divergence.transaction = block.transactions.get(*index).map(|tx| *tx.tx_hash());
        }
        self.report.diverges(divergence);
    }

    /// Compares the root of the whole state. What is not the transactions' doing shows here first.
    fn state_root(&mut self, header: &Header) {
        if !self.has_roots {
            return;
        }
        self.report.checked.state_roots += 1;
        let root = self.replay.state().root();
        let differs = root != header.state_root;
        if differs && !self.tainted {
            let what = "the state after the block: something changed it that no transaction did";
            let divergence = Divergence::new(Rule::State, what, (root, header.state_root));
            self.report.diverges(divergence.in_block(header.number));
        }
        self.tainted = differs;
        if let Some(distant) = self.distant.as_mut().filter(|_| !differs) {
            distant.follow(header.number);
        }
    }

    /// Once all contracts stand: their code, how they are wired, and what their constructors fixed.
    fn look_for_contracts(&mut self) {
        let deployment = &self.options.deployment;
        if deployment.named().iter().any(|(_, at)| self.replay.code(at).is_empty()) {
            return;
        }
        let network = network(&self.replay, &self.head, deployment);
        let Some((network, relay)) = network else { return };
        self.ledger.learn(network, relay);
        self.codes();
        for wire in wires(&self.options.deployment) {
            let answer = self.replay.call(&self.head, wire.contract, wire.input).ok();
            let found = answer
                .filter(|answer| answer.len() == 32)
                .map_or(Address::ZERO, |answer| Address::from_slice(&answer[12..]));
            if found != wire.expected {
                let what = format!("what {} names", wire.getter);
                let divergence = Divergence::new(Rule::Wiring, what, (wire.expected, found));
                let divergence = named(divergence, &self.options.deployment, wire.contract);
                self.report.diverges(divergence.in_block(self.head.number));
            }
        }
    }

    /// Every contract whose code is known.
    fn codes_at(&self) -> impl Iterator<Item = (&'static str, Address)> + use<> {
        let deployment = &self.options.deployment;
        let second = second_half(deployment);
        deployment.named().into_iter().chain([("SessionQueueEnd", second)])
    }

    fn codes(&mut self) {
        let second = second_half(&self.options.deployment);
        for (name, address) in self.codes_at() {
            self.report.checked.contracts += 1;
            let code = self.replay.code(&address);
            let found =
                creations(name).into_iter().find_map(|creation| immutables(&code, creation));
            let whole = found.is_some_and(|values| {
                name != "SessionQueue" || values.contains(&second.into_word().0)
            });
            if !whole {
                let what = format!("the code of {name}");
                let values = (
                    format!("that of this program's version, {}", env!("CARGO_PKG_VERSION")),
                    format!("another one, of {} bytes with hash {}", code.len(), keccak256(&code)),
                );
                let divergence = Divergence::new(Rule::Code, what, values).of(name, address);
                if !self
                    .report
                    .divergences
                    .iter()
                    .any(|other| other.rule == Rule::Code && other.contract == divergence.contract)
                {
                    self.report.diverges(divergence.in_block(self.head.number));
                }
            }
        }
    }

    /// A block with another parent is the RPC's mistake, or the chain's new course.
    async fn check_reorganised(&self, source: &Source, number: u64) -> Result<(), AuditError> {
        let again = source.block(self.parent.number).await?;
        match again.map(|block| block.hash) {
            Some(hash) if hash == self.parent.hash => Ok(()),
            _ => Err(AuditError::Reorganised { number }),
        }
    }

    /// The report, after the last block: with everything that is stored, and what the RPC says of it.
    ///
    /// # Errors
    /// When the contracts are not there, are of another version, or the RPC has forgotten what it is asked for.
    pub async fn finish(mut self, source: &Source) -> Result<Report, AuditError> {
        self.conclude(source).await?;
        self.forget()?;
        Ok(self.report)
    }

    /// Everything that [`Self::finish`] looks at, for an audit that goes on afterwards.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub async fn conclude(&mut self, source: &Source) -> Result<(), AuditError> {
        if self.ledger.ready {
            self.settle_everything(source).await?;
        }
        if !self.ledger.ready {
            self.not_ready()?;
            self.report.complete = false;
            return Ok(());
        }
        self.codes();
        if !self.ledger.broken {
            self.ledger.everything(&self.head, &self.replay, &mut self.report);
        }
        if self.report.complete {
            self.compare_end(source).await?;
            self.ask(source).await?;
        }
        Ok(())
    }

    fn not_ready(&self) -> Result<(), AuditError> {
        if !self.report.complete {
            // The audit ended early, and the report says why.
            return Ok(());
        }
        let to = self.report.to;
        let missing = |(_, at): &(&str, Address)| self.replay.code(at).is_empty();
        match self.options.deployment.named().into_iter().find(missing) {
            Some((contract, address)) => Err(AuditError::NotDeployed { contract, address, to }),
            None => {
                let reason = "their views do not answer as this version's do".to_owned();
                Err(AuditError::OtherVersion { reason })
            }
        }
    }

    /// Asks the RPC for what the contracts store, at the last block, and at the head if that is the same one: there
    /// shows what was set by hand since.
    async fn ask(&mut self, source: &Source) -> Result<(), AuditError> {
        let to = self.report.to;
        let mut ids = vec![BlockId::number(to)];
        if source.head().await? == to {
            ids.push(BlockId::latest());
        }
        for at in ids {
            let differs = match self.hashes(source, at).await {
                Err(AuditError::NoState { .. }) if self.has_roots && !self.tainted => {
                    let text = "the RPC has no state of the last block any more; that the contracts' storage is that \
                                of the replay follows from the block's state root";
                    self.report.note(text);
                    continue;
                }
                other => other?,
            };
            // The chain may have gone on meanwhile, and its head with it.
            if at == BlockId::latest() && source.head().await? != to {
                continue;
            }
            for divergence in &differs {
                // An audit that goes on comes here again.
                let is_same = |other: &Divergence| {
                    (other.rule, &other.what) == (divergence.rule, &divergence.what)
                };
                if !self.report.divergences.iter().any(is_same) {
                    self.report.diverges(divergence.clone());
                }
            }
            if !differs.is_empty() || !self.has_roots {
                self.values(source, at).await?;
                break;
            }
        }
        Ok(())
    }

    /// Root of the storage and code of each contract.
    async fn hashes(
        &mut self,
        source: &Source,
        at: BlockId,
    ) -> Result<Vec<Divergence>, AuditError> {
        let mut differs = Vec::new();
        let to = self.report.to;
        if !self.has_roots {
            return Ok(differs);
        }
        for (name, address) in self.options.deployment.named() {
            self.report.checked.storage_hashes += 1;
            let told = source.account(address, at, to).await?;
            let is = self.replay.account(&address, &[]);
            let rows = [
                (Rule::StorageHash, "storageHash", is.storage_root, told.storage_hash),
                (Rule::Code, "the hash of the code", is.basic.code_hash, told.code_hash),
            ];
            for (rule, what, expected, found) in rows {
                if expected != found {
                    let what = format!("{what} of {name}: not what the transactions made of it");
                    let divergence = Divergence::new(rule, what, (expected, found));
                    differs.push(divergence.of(name, address).in_block(to));
                }
            }
        }
        Ok(differs)
    }

    /// Every value that the protocol knows of, as the RPC tells it: names what was changed.
    async fn values(&mut self, source: &Source, at: BlockId) -> Result<(), AuditError> {
        if self.ledger.broken {
            return Ok(());
        }
        let to = self.report.to;
        let state = self.ledger.state();
        let all = probes(state, &Touched::everything(state), self.head.timestamp);
        if all.len() > MAX_CALLS {
            let text =
                format!("of {} stored values the first {MAX_CALLS} were asked for", all.len());
            self.report.note(&text);
        }
        let answers = futures::stream::iter(all.into_iter().take(MAX_CALLS))
            .map(async |probe| {
                let answer = source.call(probe.contract, probe.input.clone(), at, to).await;
                (probe, answer)
            })
            .buffered(CALL_WINDOW);
        let mut answers = std::pin::pin!(answers);
        let mut wrong = Vec::new();
        while let Some((probe, answer)) = answers.next().await {
            self.report.checked.stored_values += 1;
            let answer = answer?;
            if answer.as_ref() == Some(&probe.expected) {
                continue;
            }
            wrong.push((probe, answer.ok_or_else(|| "the view fails".to_owned())));
        }
        for (probe, answer) in wrong {
            if let Some(divergence) = self.ledger.wrong(&probe, answer) {
                self.report.diverges(divergence.in_block(to));
            }
        }
        Ok(())
    }
}
