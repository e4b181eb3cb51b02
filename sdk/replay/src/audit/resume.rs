//! Audits that go on where an earlier one was interrupted.

use std::path::Path;

use alloy::consensus::Header;
use alloy::primitives::B256;
use assay_protocol::{ProtocolEvent, State};

use super::{Audit, Observer, Options, watched};
use crate::compare::Parent;
use crate::error::AuditError;
use crate::journal::{self, Journal, Position, Resumed, Seen};
use crate::ledger::Ledger;
use crate::network::network;
use crate::source::Source;

/// Writes down what an audit sees on its way to whoever watches it.
pub(super) struct Recorder<'a> {
    pub(super) journal: Option<&'a mut Journal>,
    pub(super) observer: &'a mut dyn Observer,
}

impl Observer for Recorder<'_> {
    fn event(&mut self, header: &Header, transaction: B256, before: &State, event: &ProtocolEvent) {
        if let Some(journal) = &mut self.journal {
            let (block, time_s) = (header.number, header.timestamp);
            journal.note(&Seen { block, time_s, transaction, event: event.clone() });
        }
        self.observer.event(header, transaction, before, event);
    }
}

impl Audit {
    /// The audit that an earlier one of the same range and contracts left in this folder, at the newest of its
    /// checkpoints whose block the chain still has; a new one if there is none. From now on it is written down there how
    /// far it is. The observer is told of the events that were seen before.
    ///
    /// # Errors
    /// As [`Self::begin`]; [`AuditError::Journal`] if what was left is damaged, [`AuditError::Busy`] if another
    /// audit writes there.
    pub async fn resume(
        source: &Source,
        options: Options,
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Self, AuditError> {
        let mut journal = Journal::open(folder)?;
        for block in journal.blocks()? {
            let Some(checkpoint) = journal.checkpoint(block)? else { continue };
            let position = &checkpoint.position;
            if position.is_of(&options) && Self::is_on_chain(source, position).await? {
                let resumed = journal.go_back(checkpoint)?;
                return Self::go_on(options, journal, resumed, observer);
            }
        }
        journal.clear()?;
        let mut audit = Self::begin(source, options).await?;
        // What proofs told of a state is not written down.
        audit.journal = audit.distant.is_none().then_some(journal);
        Ok(audit)
    }

    async fn is_on_chain(source: &Source, position: &Position) -> Result<bool, AuditError> {
        let told = async |number| Ok(source.block(number).await?.map(|block| block.hash));
        let number = position.report.to;
        Ok(told(0).await? == Some(position.genesis) && told(number).await? == Some(position.hash))
    }

    fn go_on(
        options: Options,
        journal: Journal,
        resumed: Resumed,
        observer: &mut dyn Observer,
    ) -> Result<Self, AuditError> {
        let Resumed { position, header, state, mut events } = resumed;
        let deployment = options.deployment.clone();
        let (number, hash) = (header.number, position.hash);
        let mut replay = watched(&deployment, state, (number, hash));
        replay.remember(position.hashes);
        let mut ledger = Ledger::new(deployment);
        if position.ready {
            let network = network(&replay, &header, &options.deployment);
            let (network, relay) =
                network.ok_or_else(|| journal.damaged("its contracts do not answer"))?;
            ledger.learn(network, relay);
        }
        while let Some(seen) = journal::next(&mut events) {
            let told = Header { number: seen.block, timestamp: seen.time_s, ..Header::default() };
            observer.event(&told, seen.transaction, ledger.state(), &seen.event);
            ledger
                .retell((seen.block, seen.time_s), &seen.event)
                .map_err(|gap| journal.damaged(&gap.to_string()))?;
        }
        ledger.told_all(number, position.known_wrong);
        Ok(Self {
            options,
            journal: Some(journal),
            genesis: position.genesis,
            replay,
            ledger,
            report: position.report,
            has_roots: position.has_roots,
            parent: Parent { number, hash, timestamp_s: header.timestamp },
            head: header,
            tainted: position.tainted,
            distant: None,
        })
    }

    /// Writes down how far it is, if it has a folder for that.
    ///
    /// # Errors
    /// [`AuditError::Journal`] if the disk does not take it.
    pub fn save(&mut self) -> Result<(), AuditError> {
        // What cannot be followed any further is found again from the last place where it could.
        let Some(journal) = self.journal.as_mut().filter(|_| self.report.complete) else {
            return Ok(());
        };
        let position = Position {
            deployment: self.options.deployment.clone(),
            from: self.options.from,
            genesis: self.genesis,
            header: alloy::rlp::encode(&self.head).into(),
            hash: self.parent.hash,
            hashes: self.replay.hashes().iter().map(|(number, hash)| (*number, *hash)).collect(),
            has_roots: self.has_roots,
            tainted: self.tainted,
            ready: self.ledger.ready,
            known_wrong: self.ledger.known_wrong(),
            report: self.report.clone(),
        };
        journal.save(position, self.replay.state())
    }

    /// Whether it is written down how far it is.
    pub const fn keeps_place(&self) -> bool {
        self.journal.is_some()
    }

    /// Forgets how far it was: nothing is left to be done.
    ///
    /// # Errors
    /// [`AuditError::Journal`].
    pub fn forget(&mut self) -> Result<(), AuditError> {
        self.journal.as_mut().map_or(Ok(()), Journal::clear)
    }
}
