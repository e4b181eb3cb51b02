//! Audits that go on where an earlier one was interrupted.

use std::path::Path;

use alloy::consensus::Header;
use alloy::primitives::B256;
use assay_evm::{Forks, State};
use assay_protocol::ProtocolEvent;

use super::distant::Distant;
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
    fn event(
        &mut self,
        header: &Header,
        transaction: B256,
        before: &assay_protocol::State,
        event: &ProtocolEvent,
    ) {
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
                return Self::go_on(source, options, (journal, resumed), observer).await;
            }
        }
        journal.clear()?;
        let mut audit = Self::begin(source, options).await?;
        audit.journal = Some(journal);
        Ok(audit)
    }

    async fn is_on_chain(source: &Source, position: &Position) -> Result<bool, AuditError> {
        let told = async |number| {
            Ok::<_, AuditError>(source.header(number).await?.map_or(B256::ZERO, |(_, hash)| hash))
        };
        let number = position.report.to;
        Ok(told(0).await? == position.genesis && told(number).await? == position.hash)
    }

    async fn go_on(
        source: &Source,
        options: Options,
        (journal, resumed): (Journal, Resumed),
        observer: &mut dyn Observer,
    ) -> Result<Self, AuditError> {
        let Resumed { position, header, state, mut events } = resumed;
        let deployment = options.deployment.clone();
        let (number, hash) = (header.number, position.hash);
        let distant = position.is_distant.then(|| Distant::after(number, options.from));
        let state = match &distant {
            Some(_) => State::behind(header.state_root, false),
            None => state,
        };
        let mut replay = watched(&deployment, state, (number, hash));
        if distant.is_some() {
            replay.follow(Forks::Public);
        }
        replay.remember(position.hashes);
        let mut audit = Self {
            // Where the contracts stand later than the range begins, it is audited from there on.
            options: Options { from: position.report.from, ..options },
            journal: None,
            genesis: position.genesis,
            replay,
            ledger: Ledger::new(deployment),
            report: position.report,
            has_roots: position.has_roots,
            parent: Parent { number, hash, timestamp_s: header.timestamp },
            head: header,
            tainted: position.tainted,
            distant,
        };
        if position.ready {
            let answers =
                |audit: &Self| network(&audit.replay, &audit.head, &audit.options.deployment);
            audit.settle(source, |audit| _ = answers(audit)).await?;
            let (network, relay) =
                answers(&audit).ok_or_else(|| journal.damaged("its contracts do not answer"))?;
            audit.ledger.learn(network, relay);
        }
        while let Some(seen) = journal::next(&mut events) {
            let told = Header { number: seen.block, timestamp: seen.time_s, ..Header::default() };
            observer.event(&told, seen.transaction, audit.ledger.state(), &seen.event);
            audit
                .ledger
                .retell((seen.block, seen.time_s), &seen.event)
                .map_err(|gap| journal.damaged(&gap.to_string()))?;
        }
        audit.ledger.told_all(number, position.known_wrong);
        audit.journal = Some(journal);
        Ok(audit)
    }

    /// Writes down how far it is, if it has a folder for that.
    ///
    /// # Errors
    /// [`AuditError::Journal`] if the disk does not take it.
    pub fn save(&mut self) -> Result<(), AuditError> {
        // What cannot be followed any further is found again from the last place where it could.
        let keeps = self.report.complete && self.keeps_place();
        let Some(journal) = self.journal.as_mut().filter(|_| keeps) else {
            return Ok(());
        };
        let distant = self.distant.as_ref();
        let position = Position {
            deployment: self.options.deployment.clone(),
            from: distant.map_or(self.options.from, |distant| distant.asked_from),
            is_distant: distant.is_some(),
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
        // What proofs told of a state is told again, against the root in the header.
        let nothing = State::default();
        let state = if distant.is_some() { &nothing } else { self.replay.state() };
        journal.save(position, state)
    }

    /// Whether it can be written down how far it is. With a state that comes from proofs only while that is the chain's, and
    /// the past is known.
    pub fn keeps_place(&self) -> bool {
        let is_sound = self.has_roots && !self.tainted;
        let can = self.distant.as_ref().is_none_or(|distant| is_sound && distant.has_history);
        self.journal.is_some() && can
    }

    /// Forgets how far it was: nothing is left to be done.
    ///
    /// # Errors
    /// [`AuditError::Journal`].
    pub fn forget(&mut self) -> Result<(), AuditError> {
        self.journal.as_mut().map_or(Ok(()), Journal::clear)
    }
}
