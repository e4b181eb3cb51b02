//! The audit that never ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use alloy::signers::local::PrivateKeySigner;
use assay_chain::{Chain, ChainError, Database, DatabaseError, Outbox, OutboxError};
use assay_replay::{Audit, AuditError, Options, Report, Source};
use assay_runtime::Health;
use tokio_util::sync::CancellationToken;

use crate::challenger::Challenger;
use crate::evidence::{Case, Cases, Evidence, MIGRATIONS, Penalty, Tally};
use crate::overdue::overdue;

/// So often the head is asked for: blocks come every second at most.
const POLL: Duration = Duration::from_secs(1);
/// An RPC that does not answer is left alone for so long.
const RETRY: Duration = Duration::from_secs(5);
/// So often everything that is stored is compared, besides what each block changed.
const CONCLUDE_EVERY: Duration = Duration::from_secs(60);
/// Cases that a report lists; whoever has more looks into the database.
const MAX_LISTED: u32 = 100;
/// Overdue tasks and audits that a report lists: one cause has many.
const MAX_OVERDUE: usize = 20;

/// An auditor's settings.
#[derive(Clone, Debug)]
pub struct AuditorConfig {
    /// Folder in which it writes down how far it is; nobody else's.
    pub journal: PathBuf,
    /// Folder of the databases with evidence, one for each chain. Kept when an audit begins anew.
    pub evidence: PathBuf,
}

/// Why an auditor cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AuditorError {
    /// The audit cannot be made.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The chain cannot be used.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The database with evidence cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The account that challenges cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// An auditor that follows a chain.
pub struct Auditor {
    source: Source,
    chain: Chain,
    journal: PathBuf,
    health: Health,
    evidence: Evidence,
    cases: Cases,
    outbox: Option<Outbox>,
    audit: Option<Audit>,
    /// Divergences that were told.
    told: usize,
    /// Cases that were told.
    told_cases: u64,
    /// Overdue tasks and audits at the last look.
    overdue: usize,
    concluded: Option<Instant>,
}

impl Auditor {
    /// An auditor that is where the last one with these folders was. It challenges with this key; without one it only
    /// says what it would bring.
    ///
    /// # Errors
    /// If the chain does not answer, or the database or the key cannot be used.
    pub async fn new(
        config: AuditorConfig,
        chain: Chain,
        key: Option<PrivateKeySigner>,
    ) -> Result<Self, AuditorError> {
        let source = Source::new(chain.provider.clone());
        let none = AuditError::NoRange { from: 0, to: 0, head: 0 };
        let genesis = source.block(0).await?.ok_or(none)?.hash;
        // A development chain that was begun anew has the same contracts, and its nodes may have the same keys: what
        // they signed for the chain before is no lie here.
        let name = format!("{}.db", alloy::hex::encode(&genesis[..8]));
        let db = Database::open(&config.evidence.join(name), &MIGRATIONS)?;
        chain.bind(&db).await?;
        let outbox = match key {
            Some(key) => Some(Outbox::new(chain.clone(), key, Arc::clone(&db)).await?),
            None => None,
        };
        let mut auditor = Self {
            source,
            chain,
            journal: config.journal,
            health: Health::new("auditor"),
            evidence: Evidence::new(Arc::clone(&db)),
            cases: Cases::new(db),
            outbox,
            audit: None,
            told: 0,
            told_cases: 0,
            overdue: 0,
            concluded: None,
        };
        let head = auditor.source.head().await?;
        auditor.begin(head).await?;
        Ok(auditor)
    }

    /// Ready while it is at the chain's head.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// The account that challenges.
    pub fn challenger(&self) -> Option<Address> {
        self.outbox.as_ref().map(Outbox::address)
    }

    /// Follows the chain until what comes next cannot be audited. May be dropped at any time: what was begun is gone on
    /// with when an auditor with the same folders starts.
    ///
    /// # Errors
    /// What waiting cannot mend.
    pub async fn follow(&mut self) -> Result<(), AuditorError> {
        let Some(outbox) = self.outbox.clone() else { return self.replay().await };
        let challenger = Challenger {
            chain: self.chain.clone(),
            cases: self.cases.clone(),
            outbox: outbox.clone(),
            health: self.health.clone(),
        };
        tokio::select! {
            ended = self.replay() => ended,
            ended = challenger.run() => match ended? {},
            ended = outbox.run(CancellationToken::new()) => Ok(ended?),
        }
    }

    async fn replay(&mut self) -> Result<(), AuditorError> {
        loop {
            match self.step().await {
                Ok(true) => tokio::time::sleep(POLL).await,
                Ok(false) => return Ok(()),
                Err(AuditorError::Audit(AuditError::Reorganised { number })) => {
                    tracing::warn!(block = number, "the chain was reorganised");
                    // What was written down is of the chain as it was, or still of this one.
                    self.audit = None;
                }
                Err(AuditorError::Audit(
                    error @ (AuditError::Rpc { .. } | AuditError::NoState { .. }),
                )) => {
                    tracing::warn!(%error, "the audit waits for the RPC");
                    self.health.set_ready(false, error.to_string());
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes in what is new; false if it cannot be.
    async fn step(&mut self) -> Result<bool, AuditorError> {
        let head = self.source.head().await?;
        metrics::gauge!("assay_audit_head", "agent" => "auditor").set(head as f64);
        if self.audit.is_none() {
            self.begin(head).await?;
        }
        let Some(audit) = &mut self.audit else { return Ok(false) };
        let goes_on = audit.advance(&self.source, head, &mut self.evidence).await?;
        self.evidence.check()?;
        self.evidence.store()?;
        let is_due = self.concluded.is_none_or(|at| at.elapsed() >= CONCLUDE_EVERY);
        if goes_on && is_due {
            audit.conclude(&self.source).await?;
            self.concluded = Some(Instant::now());
        }
        self.tell()?;
        self.health.set_ready(true, "");
        Ok(goes_on)
    }

    /// Goes on from the newest block that was written down and that the chain still has.
    async fn begin(&mut self, head: u64) -> Result<(), AuditorError> {
        let options = Options { deployment: (*self.chain.deployment).clone(), from: 1, to: head };
        let audit = Audit::resume(&self.source, options, &self.journal, &mut self.evidence).await?;
        let block = audit.report().to;
        self.evidence.go_back(block)?;
        tracing::info!(block, "follows the chain");
        self.told = 0;
        self.audit = Some(audit);
        Ok(())
    }

    /// Tells, in logs and metrics, what is new.
    fn tell(&mut self) -> Result<(), AuditorError> {
        let Some(audit) = &self.audit else { return Ok(()) };
        let report = audit.report();
        metrics::gauge!("assay_audit_block", "agent" => "auditor").set(report.to as f64);
        let all = report.divergences.len() as u64 + report.unlisted;
        metrics::gauge!("assay_audit_divergences", "agent" => "auditor").set(all as f64);
        for divergence in report.divergences.iter().skip(self.told) {
            tracing::error!(rule = ?divergence.rule, block = divergence.block, "diverges: {divergence}");
        }
        self.told = report.divergences.len();
        let (state, now_s) = audit.state();
        let overdue = overdue(state, now_s);
        metrics::gauge!("assay_audit_overdue", "agent" => "auditor").set(overdue.len() as f64);
        if let (0, Some(first)) = (self.overdue, overdue.first()) {
            tracing::warn!(count = overdue.len(), "{}", first.words(now_s));
        }
        self.overdue = overdue.len();
        let tally = self.cases.tally(self.challenger())?;
        let Tally { found, filed, failed, punished } = tally;
        let states =
            [("found", found), ("filed", filed), ("failed", failed), ("punished", punished)];
        for (state, count) in states {
            metrics::gauge!("assay_audit_equivocations", "agent" => "auditor", "state" => state)
                .set(count as f64);
        }
        if found != self.told_cases {
            for case in self.cases.list(false, MAX_LISTED)? {
                tracing::warn!(task = %case.task, node = case.node, "{}", self.words(&case));
            }
            self.told_cases = found;
        }
        Ok(())
    }

    /// What was found so far, with what nodes signed that contradicts itself and what is overdue; `None` if the chain was reorganised and the
    /// audit has not gone on yet.
    ///
    /// # Errors
    /// From the database.
    pub fn report(&self) -> Result<Option<Report>, AuditorError> {
        let Some(audit) = &self.audit else { return Ok(None) };
        let mut report = audit.report().clone();
        let (state, now_s) = audit.state();
        let overdue = overdue(state, now_s);
        overdue.iter().take(MAX_OVERDUE).for_each(|late| report.note(&late.words(now_s)));
        if overdue.len() > MAX_OVERDUE {
            report.note(&format!("{} tasks and audits are overdue in all", overdue.len()));
        }
        let cases = self.cases.list(false, MAX_LISTED)?;
        cases.iter().for_each(|case| report.note(&self.words(case)));
        let found = self.cases.tally(None)?.found;
        if found > u64::from(MAX_LISTED) {
            report.note(&format!("nodes signed two answers to one task {found} times in all"));
        }
        Ok(Some(report))
    }

    /// Writes down how far it is, so that the next auditor goes on there.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn save(&mut self) -> Result<(), AuditorError> {
        self.evidence.store()?;
        Ok(self.audit.as_mut().map_or(Ok(()), Audit::save)?)
    }

    fn words(&self, case: &Case) -> String {
        let Case { task, node, .. } = case;
        let became = match (&case.penalty, &case.trouble) {
            (Some(penalty), _) => {
                let Penalty { block, transaction, reporter } = penalty;
                let who = match self.challenger() {
                    Some(account) if account == *reporter => "this auditor".to_owned(),
                    _ => reporter.to_string(),
                };
                format!(
                    "it was punished in block {block}, transaction {transaction}, challenged by {who}"
                )
            }
            (None, Some(trouble)) => format!("it could not be challenged: {trouble}"),
            (None, None) if self.outbox.is_some() => "it is going to be challenged".to_owned(),
            (None, None) => {
                "nobody has brought that to the contract: `assay audit watch --challenge` would"
                    .to_owned()
            }
        };
        format!("node {node} signed two different answers to task {task}; {became}")
    }
}
