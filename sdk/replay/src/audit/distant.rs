//! Audits of chains whose beginning cannot be replayed: the state before the range comes from proofs.
//!
//! The state begins as the root in the header before the range. Whatever execution, or a view, asks of it is fetched with
//! its proof (`eth_getProof`) and execution begins again, until nothing is missing: so all that one attempt lacks is
//! fetched side by side. After each block the root of the state must be that of its header, as anywhere else: what no
//! transaction touched cannot have changed either.
//!
//! The protocol's state before the range is folded from its events. No block that has some can be left out: the headers
//! are fetched one by one from a block on after which none of the contracts stands, by a proof, up to the one before the
//! range; each names the hash of its parent, and its bloom says whether there may be events. The receipts of those blocks
//! are checked against the header.

use std::collections::{BTreeMap, BTreeSet};

use alloy::consensus::{Header, ReceiptEnvelope, Transaction, proofs};
use alloy::primitives::{Address, B256, Bytes, Log, U256};
use alloy::rpc::types::TransactionReceipt;
use assay_bindings::Deployment;
use assay_evm::{Executed, Forks, Missing, ReplayError, State};
use assay_protocol::ProtocolEvent;
use futures::{StreamExt, TryStreamExt};

use super::resume::Recorder;
use super::{Audit, Observer, Options, Start, watched};
use crate::code::wires;
use crate::error::AuditError;
use crate::ledger::Done;
use crate::network::network;
use crate::source::{FETCH_WINDOW, Fetched, Past, Source};

/// Blocks whose hash code can ask for.
const KNOWN_HASHES: u64 = 256;

/// Slots that are proven in one answer: some hundred kilobytes at most.
const SLOTS_AT_ONCE: usize = 64;

/// Told nodes and codes are forgotten when they come to so many bytes, so that memory does not grow with the range; what
/// is needed again is asked for again.
const MAX_TOLD_BYTES: usize = 1 << 28;

/// What shows that headers are not of one chain.
const NO_PARENT: &str = "its parent is not the block before it";

/// Where the unknown parts of a state come from.
pub(super) struct Distant {
    /// The newest block with the state's root: its proofs tell what is not known.
    anchor: u64,
    /// Of what was told since the last time that all was forgotten.
    told_bytes: usize,
    codes: BTreeMap<B256, Bytes>,
    /// Whether the protocol's state before the range is known.
    pub(super) has_history: bool,
    /// First block of the range that was asked for, which may lie before the contracts.
    pub(super) asked_from: u64,
}

impl Distant {
    /// Knows what stood before a range of which all up to the anchor is audited.
    pub(super) const fn after(anchor: u64, asked_from: u64) -> Self {
        let codes = BTreeMap::new();
        Self { anchor, told_bytes: 0, codes, has_history: true, asked_from }
    }

    /// The state after a block was executed.
    pub(super) const fn follow(&mut self, number: u64) {
        self.anchor = number;
    }
}

/// What is asked for at once.
type Wanted = (Address, Vec<U256>, u64);

impl Audit {
    /// An audit of a chain that is no development chain.
    pub(super) async fn begin_distant(
        source: &Source,
        mut options: Options,
    ) -> Result<Self, AuditError> {
        let is_anvil = source.client_version().await?.to_lowercase().starts_with("anvil");
        let (asked_from, to) = (options.from, options.to);
        options.from = first_block(source, &options).await?;
        let before = options.from.saturating_sub(1);
        let hashes = hashes(source, before).await?;
        let Some((header, hash)) = hashes.last().cloned() else {
            return Err(AuditError::NoRange { from: options.from, to, head: to });
        };
        let start = Start {
            state: State::behind(header.state_root, is_anvil),
            has_roots: !is_anvil,
            genesis: source.header(0).await?.map_or(B256::ZERO, |(_, hash)| hash),
            header,
            hash,
        };
        let mut audit = Self::start(options, start);
        audit.replay.remember(hashes.iter().map(|(header, hash)| (header.number, *hash)));
        if !is_anvil {
            audit.replay.follow(Forks::Public);
        }
        audit.distant = Some(Distant { has_history: false, ..Distant::after(before, asked_from) });
        audit.report.note(&format!(
            "the state before the range is that of block {before} with hash {hash}: compare it with one that you trust; \
             all that was used of that state was proven against its root"
        ));
        Ok(audit)
    }

    /// The contracts as they stood before the range, and what their events had told by then.
    pub(super) async fn recall_history(
        &mut self,
        source: &Source,
        observer: &mut dyn Observer,
    ) -> Result<(), AuditError> {
        if self.distant.as_ref().is_none_or(|distant| distant.has_history) {
            return Ok(());
        }
        let before = self.parent.number;
        self.settle(source, |audit| {
            let deployment = &audit.options.deployment;
            audit.codes_at().for_each(|(_, at)| _ = audit.replay.code(&at));
            network(&audit.replay, &audit.head, deployment);
            for wire in wires(deployment) {
                let _ = audit.replay.call(&audit.head, wire.contract, wire.input);
            }
        })
        .await?;
        self.report.to = before;
        self.look_for_contracts();
        if !self.ledger.ready {
            return self.not_ready();
        }
        self.read_past(source, observer).await?;
        self.ledger.told_all(before, Vec::new());
        self.settle_everything(source).await?;
        self.ledger.everything(&self.head, &self.replay, &mut self.report);
        if let Some(distant) = &mut self.distant {
            distant.has_history = true;
        }
        Ok(())
    }

    /// Takes in all events before the range.
    async fn read_past(
        &mut self,
        source: &Source,
        observer: &mut dyn Observer,
    ) -> Result<(), AuditError> {
        let before = self.parent.number;
        let emitters = ProtocolEvent::emitters(&self.options.deployment);
        let first = empty_block(source, &self.options.deployment, before).await?;
        let mut parent = None;
        let mut blocks = std::pin::pin!(source.past(first..=before, &emitters));
        while let Some(block) = blocks.next().await {
            let block = block?;
            let number = block.number;
            let untrue = |what: String| AuditError::Untrue { block: number, what };
            let links = parent.is_none_or(|parent| parent == block.header.parent_hash);
            if block.header.number != number || !links {
                return Err(untrue(NO_PARENT.to_owned()));
            }
            if parent.is_none() && number > 0 {
                prove_empty(source, &self.options.deployment, &block.header).await?;
            }
            parent = Some(block.hash);
            self.recall(&block, observer).map_err(untrue)?;
        }
        if parent == Some(self.parent.hash) {
            return Ok(());
        }
        Err(AuditError::Untrue { block: before, what: NO_PARENT.to_owned() })
    }

    /// Takes in the events of an earlier block.
    fn recall(&mut self, block: &Past, observer: &mut dyn Observer) -> Result<(), String> {
        let Some(receipts) = &block.receipts else { return Ok(()) };
        if receipts_root(receipts) != block.header.receipts_root {
            return Err("its receipts are not those of its header".to_owned());
        }
        let header = &block.header;
        for receipt in receipts {
            for log in receipt.inner.logs() {
                let deployment = &self.options.deployment;
                let event = ProtocolEvent::decode(deployment, log.address(), &log.inner.data)
                    .map_err(|error| {
                        format!("an event of another version of the contracts ({error})")
                    })?;
                let Some(event) = event else { continue };
                let mut observer = Recorder { journal: self.journal.as_mut(), observer };
                observer.event(header, receipt.transaction_hash, self.ledger.state(), &event);
                self.ledger.retell((header.number, header.timestamp), &event).map_err(|gap| {
                    format!(
                        "{} does not follow from the events before it ({gap}): some were left out",
                        event.name()
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Audits the next block. False if what comes after it cannot be audited.
    pub(super) async fn block_distant(
        &mut self,
        source: &Source,
        block: &Fetched,
        observer: &mut dyn Observer,
    ) -> Result<bool, AuditError> {
        if !self.follows(block) {
            return Ok(false);
        }
        match self.execute_distant(source, block).await {
            // The chain's tries are others than those of the replay by then, and the report says since when.
            Err(AuditError::Untrue { .. }) if self.tainted => {
                self.report.complete = false;
                let number = block.header.number;
                self.report.note(&format!(
                    "the state is another one than the replay's, and its proofs no longer suffice: nothing from block \
                     {number} on was checked"
                ));
                Ok(false)
            }
            executed => Ok(self.take_in(block, executed?, observer)),
        }
    }

    /// Executes a block, and sees to it that all that is looked at afterwards is known.
    async fn execute_distant(
        &mut self,
        source: &Source,
        block: &Fetched,
    ) -> Result<Result<Executed, ReplayError>, AuditError> {
        self.forget_told();
        self.settle(source, |audit| audit.look_ahead(block)).await?;
        let number = block.header.number;
        let mut lacked = BTreeSet::new();
        let executed = loop {
            match self.execute(block) {
                Err(ReplayError::Missing(missing)) => {
                    self.progress(&mut lacked, &missing)?;
                    self.supply(source, missing, number).await?;
                }
                Err(ReplayError::Rules) => return Err(AuditError::Rules { block: number }),
                Err(error) => return Ok(Err(error)),
                Ok(executed) => break executed,
            }
        };
        if executed.entries.iter().any(|entries| !entries.is_empty()) {
            let checks = number >= self.options.from;
            self.settle(source, |audit| {
                let done = Done {
                    header: &block.header,
                    transactions: &block.transactions,
                    executed: &executed,
                    replay: &audit.replay,
                };
                let mut report = audit.report.clone();
                audit.ledger.clone().block(&done, checks, (&mut report, &mut ()));
            })
            .await?;
        }
        Ok(Ok(executed))
    }

    /// Asks for what a block needs for sure, so that its first execution comes far.
    fn look_ahead(&self, block: &Fetched) {
        self.replay.code(&block.header.beneficiary);
        for withdrawal in &block.withdrawals {
            self.replay.code(&withdrawal.address);
        }
        for tx in &block.transactions {
            self.replay.code(&tx.signer());
            tx.to().map(|to| self.replay.code(&to));
            for item in tx.access_list().into_iter().flat_map(|list| list.iter()) {
                self.replay.code(&item.address);
                for slot in &item.storage_keys {
                    self.replay.slot(&item.address, &(*slot).into());
                }
            }
        }
    }

    /// Sees to it that everything that is stored can be looked at.
    pub(super) async fn settle_everything(&mut self, source: &Source) -> Result<(), AuditError> {
        self.settle(source, |audit| {
            audit.codes_at().for_each(|(_, at)| _ = audit.replay.code(&at));
            let mut report = audit.report.clone();
            audit.ledger.clone().everything(&audit.head, &audit.replay, &mut report);
        })
        .await
    }

    /// Where no block's root can be compared, what is stored after the last one: proven against that block's own root.
    pub(super) async fn compare_end(&mut self, source: &Source) -> Result<(), AuditError> {
        let Some(distant) = self.distant.as_mut().filter(|_| !self.has_roots) else {
            return Ok(());
        };
        let anchor = std::mem::replace(&mut distant.anchor, self.head.number);
        let end = State::behind(self.head.state_root, true);
        let mut replay =
            watched(&self.options.deployment, end, (self.head.number, self.parent.hash));
        replay.remember(self.replay.hashes().clone());
        std::mem::swap(&mut self.replay, &mut replay);
        let settled = self.settle_everything(source).await;
        if settled.is_ok() {
            self.codes();
            self.ledger.everything(&self.head, &self.replay, &mut self.report);
        }
        std::mem::swap(&mut self.replay, &mut replay);
        if let Some(distant) = &mut self.distant {
            distant.anchor = anchor;
        }
        settled
    }

    /// Fetches what a reader of the state lacks, until it finds everything.
    pub(super) async fn settle(
        &mut self,
        source: &Source,
        read: impl Fn(&Self),
    ) -> Result<(), AuditError> {
        if self.distant.is_none() {
            return Ok(());
        }
        let mut lacked = BTreeSet::new();
        self.replay.take_missing();
        loop {
            read(self);
            let missing = self.replay.take_missing();
            if missing.is_empty() {
                return Ok(());
            }
            self.progress(&mut lacked, &missing)?;
            self.supply(source, missing, self.parent.number + 1).await?;
        }
    }

    /// What was fetched is not missing again.
    fn progress(
        &self,
        lacked: &mut BTreeSet<Missing>,
        missing: &BTreeSet<Missing>,
    ) -> Result<(), AuditError> {
        if let Some(again) = missing.iter().find(|one| lacked.contains(*one)) {
            let what = format!("{again} is not told by its proof");
            return Err(AuditError::Untrue { block: self.anchor(), what });
        }
        lacked.extend(missing);
        Ok(())
    }

    fn anchor(&self) -> u64 {
        self.distant.as_ref().map_or(self.parent.number, |distant| distant.anchor)
    }

    /// Fetches parts of the state with their proofs. `now` is the block that is executed.
    async fn supply(
        &mut self,
        source: &Source,
        missing: BTreeSet<Missing>,
        now: u64,
    ) -> Result<(), AuditError> {
        let wanted = wanted(missing, self.anchor(), now);
        let proofs = futures::stream::iter(wanted).map(async |(address, slots, at): Wanted| {
            let proof = source.proof(address, &slots, at).await?;
            Ok::<_, AuditError>((address, slots, at, proof))
        });
        let proofs: Vec<_> = proofs.buffered(FETCH_WINDOW).try_collect().await?;
        let mut bytes = 0;
        let mut codes = BTreeMap::new();
        for (address, slots, at, proof) in proofs {
            let untrue = |what: String| AuditError::Untrue { block: at, what };
            let storage = proof.storage_proof.iter().flat_map(|slot| slot.proof.iter());
            let nodes: Vec<Bytes> = proof.account_proof.iter().chain(storage).cloned().collect();
            bytes += nodes.iter().map(|node| node.len()).sum::<usize>();
            let told = self.replay.inform(|state| match at == now {
                true => state.adopt(&address, &slots, &nodes),
                false => state.reveal(&address, &slots, &nodes),
            });
            told.map_err(|error| untrue(format!("the proof of account {address}: {error}")))?;
            let values = proof.storage_proof.iter().map(|slot| slot.value);
            for (slot, value) in slots.iter().zip(values).filter(|_| at != now) {
                let proven = self.replay.slot(&address, slot);
                if value != proven {
                    let what = format!(
                        "slot {slot:#x} of {address} is {proven:#x} by its proof, not {value:#x}"
                    );
                    return Err(untrue(what));
                }
            }
            if let Some(hash) = self.replay.state().lacks_code(&address) {
                codes.insert(address, hash);
            }
        }
        bytes += self.supply_codes(source, codes).await?;
        if let Some(distant) = &mut self.distant {
            distant.told_bytes += bytes;
        }
        Ok(())
    }

    /// Fetches codes, by the hashes that accounts name; how many bytes they had.
    async fn supply_codes(
        &mut self,
        source: &Source,
        wanted: BTreeMap<Address, B256>,
    ) -> Result<usize, AuditError> {
        let anchor = self.anchor();
        let Some(distant) = &mut self.distant else { return Ok(0) };
        let mut unknown: BTreeMap<B256, Address> = BTreeMap::new();
        for (address, hash) in wanted.iter().filter(|(_, hash)| !distant.codes.contains_key(*hash))
        {
            unknown.insert(*hash, *address);
        }
        let codes = futures::stream::iter(unknown).map(async |(hash, address)| {
            Ok::<_, AuditError>((hash, source.code(address, anchor).await?))
        });
        let codes: Vec<_> = codes.buffered(FETCH_WINDOW).try_collect().await?;
        let bytes = codes.iter().map(|(_, code)| code.len()).sum();
        distant.codes.extend(codes);
        for (address, hash) in wanted {
            let code = distant.codes.get(&hash).cloned().unwrap_or_default();
            let told = self.replay.inform(|state| state.learn_code(&address, code));
            told.map_err(|error| {
                let what = format!("the code of account {address}: {error}");
                AuditError::Untrue { block: anchor, what }
            })?;
        }
        Ok(bytes)
    }

    /// Keeps nothing but the root, if much was told.
    fn forget_told(&mut self) {
        let is_sound = self.has_roots && !self.tainted;
        let Some(distant) = self.distant.as_mut().filter(|distant| {
            is_sound && distant.told_bytes > MAX_TOLD_BYTES && distant.has_history
        }) else {
            return;
        };
        (distant.told_bytes, distant.codes) = (0, BTreeMap::new());
        let root = self.replay.state().root();
        let _ = self.replay.inform(|state| {
            *state = State::behind(root, false);
            Ok(())
        });
    }
}

/// Requests, each of one account.
fn wanted(missing: BTreeSet<Missing>, anchor: u64, now: u64) -> Vec<Wanted> {
    let mut by_account: BTreeMap<(Address, u64), Vec<U256>> = BTreeMap::new();
    for one in missing {
        let (address, at, slot) = match one {
            Missing::Account(address) => (address, anchor, None),
            Missing::Slot(address, slot) => (address, anchor, Some(slot)),
            Missing::BesideAccount(address) => (address, now, None),
            Missing::BesideSlot(address, slot) => (address, now, Some(slot)),
        };
        by_account.entry((address, at)).or_default().extend(slot);
    }
    let mut wanted = Vec::new();
    for ((address, at), slots) in by_account {
        if slots.is_empty() {
            wanted.push((address, slots, at));
        } else {
            wanted.extend(slots.chunks(SLOTS_AT_ONCE).map(|slots| (address, slots.to_vec(), at)));
        }
    }
    wanted
}

/// Root of receipts as they were told.
fn receipts_root(receipts: &[TransactionReceipt]) -> B256 {
    let envelope = |receipt: &TransactionReceipt| -> ReceiptEnvelope<Log> {
        receipt.inner.clone().map_logs(|log| log.inner)
    };
    let envelopes: Vec<_> = receipts.iter().map(envelope).collect();
    proofs::calculate_receipt_root(&envelopes)
}

/// The newest block after which none of the contracts stood, as the RPC tells it; 0 if it no longer knows.
async fn empty_block(
    source: &Source,
    deployment: &Deployment,
    before: u64,
) -> Result<u64, AuditError> {
    let (mut without, mut with) = (0, before);
    while with - without > 1 {
        let middle = without + (with - without) / 2;
        match absent(source, deployment, middle).await {
            Ok(absent) if absent.len() == deployment.named().len() => without = middle,
            Ok(_) => with = middle,
            Err(AuditError::NoState { .. }) => return Ok(0),
            Err(error) => return Err(error),
        }
    }
    Ok(without)
}

/// Checks that none of the contracts stands after a block.
async fn prove_empty(
    source: &Source,
    deployment: &Deployment,
    header: &Header,
) -> Result<(), AuditError> {
    for (name, address) in deployment.named() {
        let proof = source.proof(address, &[], header.number).await?;
        let mut state = State::behind(header.state_root, true);
        let told = state.reveal(&address, &[], &proof.account_proof);
        let untrue = |what| AuditError::Untrue { block: header.number, what };
        told.map_err(|error| untrue(format!("the proof of account {address}: {error}")))?;
        if state.lacks_code(&address).is_some() {
            return Err(untrue(format!("{name} stands there by its proof, and was said not to")));
        }
    }
    Ok(())
}

/// Headers of a block and those before it whose hashes code can ask for, oldest first; each is the parent of the next.
async fn hashes(source: &Source, last: u64) -> Result<Vec<(Header, B256)>, AuditError> {
    let numbers = last.saturating_sub(KNOWN_HASHES - 1)..=last;
    let headers = futures::stream::iter(numbers).map(async |number| {
        let header = source.header(number).await?;
        header.ok_or(AuditError::Pruned { block: number })
    });
    let headers: Vec<(Header, B256)> = headers.buffered(FETCH_WINDOW).try_collect().await?;
    for pair in headers.windows(2) {
        if let [(_, hash), (header, _)] = pair
            && header.parent_hash != *hash
        {
            return Err(AuditError::Untrue { block: header.number, what: NO_PARENT.to_owned() });
        }
    }
    Ok(headers)
}

/// The first block of the range that can be audited: the contracts stand before it.
async fn first_block(source: &Source, options: &Options) -> Result<u64, AuditError> {
    let Options { deployment, from, to } = options;
    let before = from.saturating_sub(1);
    match absent(source, deployment, before).await {
        Ok(absent) if absent.is_empty() => return Ok((*from).max(1)),
        // Whether they stood is proven later.
        Err(AuditError::NoState { .. }) if before > 0 => return Ok(*from),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    if let Some(&(contract, address)) = absent(source, deployment, *to).await?.first() {
        return Err(AuditError::NotDeployed { contract, address, to: *to });
    }
    // After `without` some are missing; after `with` all stand.
    let (mut without, mut with) = (before, *to);
    while with - without > 1 {
        let middle = without + (with - without) / 2;
        match absent(source, deployment, middle).await?.is_empty() {
            true => with = middle,
            false => without = middle,
        }
    }
    if with == *to {
        return Err(AuditError::NoRange { from: with + 1, to: *to, head: *to });
    }
    Ok(with + 1)
}

/// The contracts that do not stand after a block, as the RPC tells it.
async fn absent(
    source: &Source,
    deployment: &Deployment,
    block: u64,
) -> Result<Vec<(&'static str, Address)>, AuditError> {
    let codes = futures::stream::iter(deployment.named())
        .map(async |(name, address)| Ok((name, address, source.code(address, block).await?)))
        .buffered(FETCH_WINDOW);
    let codes: Vec<(_, _, Bytes)> = codes.try_collect().await?;
    let absent = codes.into_iter().filter(|(.., code)| code.is_empty());
    Ok(absent.map(|(name, address, _)| (name, address)).collect())
}
