//! What nodes signed, and who contradicted himself: in a database, for a lie can be proven at any time.

use std::sync::Arc;

use alloy::consensus::Header;
use alloy::primitives::{Address, B256, Bytes};
use assay_bindings::SessionQueue::Precommit;
use assay_chain::{Database, DatabaseError};
use assay_protocol::{ProtocolEvent, Rule, State};
use assay_replay::Observer;
use rusqlite::{Row, Transaction, params};

use crate::statement::{Statement, statements};

/// Tables of the auditor, see [`Database::open`].
pub(crate) const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];
/// Statements that wait until they are stored together: one at a time, each costs a write to the disk.
const MAX_WAITING: usize = 1000;

type Sql<T> = rusqlite::Result<T>;

/// A penalty for a contradiction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Penalty {
    pub(crate) block: u64,
    pub(crate) transaction: B256,
    /// Who brought the evidence.
    pub(crate) reporter: Address,
}

/// A node that signed two commitments of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) task: B256,
    pub(crate) node: u32,
    pub(crate) one: Precommit,
    pub(crate) other: Precommit,
    /// Why it could not be challenged.
    pub(crate) trouble: Option<String>,
    pub(crate) penalty: Option<Penalty>,
}

/// How many cases there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All.
    pub(crate) found: u64,
    /// Punished because this auditor challenged.
    pub(crate) filed: u64,
    /// Not punished, and could not be challenged.
    pub(crate) failed: u64,
    /// Punished, whoever challenged.
    pub(crate) punished: u64,
}

/// The cases of a database. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Cases(Arc<Database>);

impl Cases {
    pub(crate) const fn new(db: Arc<Database>) -> Self {
        Self(db)
    }

    /// All cases that are not punished, or all, in the order of their tasks; so many at most.
    pub(crate) fn list(&self, open: bool, limit: u32) -> Result<Vec<Case>, DatabaseError> {
        self.0.transaction(|tx| {
            let mut query = tx.prepare(
                "SELECT c.task, c.node, c.one, s.signature, c.other, t.signature, c.trouble,
                        p.block, p.tx, p.reporter
                 FROM contradiction c
                 JOIN statement s ON (s.task, s.node, s.commitment) = (c.task, c.node, c.one)
                 JOIN statement t ON (t.task, t.node, t.commitment) = (c.task, c.node, c.other)
                 LEFT JOIN penalty p ON (p.task, p.node) = (c.task, c.node)
                 WHERE NOT ?1 OR p.block IS NULL
                 ORDER BY c.task, c.node LIMIT ?2",
            )?;
            query.query_map(params![open, limit], case)?.collect()
        })
    }

    /// Notes why a case cannot be challenged, or that nothing is in the way any more.
    pub(crate) fn note(&self, case: &Case, trouble: Option<&str>) -> Result<(), DatabaseError> {
        self.0.transaction(|tx| {
            tx.execute(
                "UPDATE contradiction SET trouble = ?3 WHERE (task, node) = (?1, ?2)",
                params![case.task.as_slice(), case.node, trouble],
            )
            .map(drop)
        })
    }

    /// How many there are, for an auditor with this account.
    pub(crate) fn tally(&self, account: Option<Address>) -> Result<Tally, DatabaseError> {
        let account = account.as_ref().map(|account| account.as_slice());
        self.0.transaction(|tx| {
            let mut query = tx.prepare(
                "SELECT count(*), count(CASE WHEN p.reporter = ?1 THEN 1 END),
                        count(CASE WHEN p.block IS NULL THEN c.trouble END), count(p.block)
                 FROM contradiction c LEFT JOIN penalty p ON (p.task, p.node) = (c.task, c.node)",
            )?;
            query.query_row([account], |row| {
                let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
                let (found, filed, failed, punished) = (count(0)?, count(1)?, count(2)?, count(3)?);
                Ok(Tally { found, filed, failed, punished })
            })
        })
    }
}

fn case(row: &Row<'_>) -> Sql<Case> {
    let node = row.get(1)?;
    let precommit = |commitment, signature| {
        let signature: Vec<u8> = row.get(signature)?;
        let commitment = B256::from(row.get::<_, [u8; 32]>(commitment)?);
        Sql::Ok(Precommit { nodeId: node, commitment, signature: Bytes::from(signature) })
    };
    let penalty = match row.get::<_, Option<i64>>(7)? {
        Some(block) => Some(Penalty {
            block: block.cast_unsigned(),
            transaction: row.get::<_, [u8; 32]>(8)?.into(),
            reporter: row.get::<_, [u8; 20]>(9)?.into(),
        }),
        None => None,
    };
    Ok(Case {
        task: row.get::<_, [u8; 32]>(0)?.into(),
        node,
        one: precommit(2, 3)?,
        other: precommit(4, 5)?,
        trouble: row.get(6)?,
        penalty,
    })
}

/// Collects what nodes sign, and what they are punished for, out of an audit.
pub(crate) struct Evidence {
    db: Arc<Database>,
    statements: Vec<Statement>,
    penalties: Vec<((B256, u32), Penalty)>,
    failure: Option<DatabaseError>,
}

impl Evidence {
    pub(crate) const fn new(db: Arc<Database>) -> Self {
        Self { db, statements: Vec::new(), penalties: Vec::new(), failure: None }
    }

    /// Stores what was collected.
    ///
    /// # Errors
    /// If the database does not take it, now or before: what was collected is kept.
    pub(crate) fn store(&mut self) -> Result<(), DatabaseError> {
        self.failure = None;
        if self.statements.is_empty() && self.penalties.is_empty() {
            return Ok(());
        }
        self.db.transaction(|tx| {
            self.statements.iter().try_for_each(|statement| store_statement(tx, statement))?;
            self.penalties.iter().try_for_each(|(of, penalty)| store_penalty(tx, *of, penalty))
        })?;
        self.statements.clear();
        self.penalties.clear();
        Ok(())
    }

    /// Forgets penalties of blocks behind this one: the chain has others there. What was signed stays signed.
    pub(crate) fn go_back(&mut self, block: u64) -> Result<(), DatabaseError> {
        self.penalties.retain(|(_, penalty)| penalty.block <= block);
        self.store()?;
        self.db.transaction(|tx| {
            tx.execute("DELETE FROM penalty WHERE block > ?", [block.cast_signed()]).map(drop)
        })
    }

    fn store_if_many(&mut self) {
        if self.statements.len() + self.penalties.len() >= MAX_WAITING
            && let Err(error) = self.store()
        {
            self.failure = Some(error);
        }
    }

    /// What went wrong while nobody could be told.
    pub(crate) fn check(&mut self) -> Result<(), DatabaseError> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

impl Observer for Evidence {
    fn event(&mut self, header: &Header, transaction: B256, _: &State, event: &ProtocolEvent) {
        let ProtocolEvent::Slashed(slashed) = event else { return };
        if slashed.rule == Rule::Equivocation as u8 {
            let (block, reporter) = (header.number, slashed.reporter);
            let penalty = Penalty { block, transaction, reporter };
            self.penalties.push(((slashed.taskId, slashed.nodeId), penalty));
            self.store_if_many();
        }
    }

    fn call(&mut self, contract: Address, input: &[u8], state: &State) {
        let scope = state.network.scope();
        if contract != scope.queue {
            return;
        }
        let mut found = statements(&scope, input);
        found.retain(|statement| statement.is_by_its_node(state));
        self.statements.append(&mut found);
        self.store_if_many();
    }

    /// What was collected is stored before the audit writes down that it is behind it.
    fn saving(&mut self) -> bool {
        self.failure = self.store().err();
        self.failure.is_none()
    }
}

fn store_penalty(tx: &Transaction<'_>, (task, node): (B256, u32), penalty: &Penalty) -> Sql<()> {
    let Penalty { block, transaction, reporter } = penalty;
    tx.execute(
        "INSERT OR REPLACE INTO penalty (task, node, block, tx, reporter) VALUES (?, ?, ?, ?, ?)",
        params![
            task.as_slice(),
            node,
            block.cast_signed(),
            transaction.as_slice(),
            reporter.as_slice()
        ],
    )
    .map(drop)
}

fn store_statement(tx: &Transaction<'_>, statement: &Statement) -> Sql<()> {
    let Statement { task, node, commitment, signature } = statement;
    let is_new = tx.execute(
        "INSERT OR IGNORE INTO statement (task, node, commitment, signature) VALUES (?, ?, ?, ?)",
        params![task.as_slice(), node, commitment.as_slice(), signature.as_ref()],
    )?;
    if is_new == 0 {
        return Ok(());
    }
    // The first two suffice; who signs a third loses nothing more.
    tx.execute(
        "INSERT OR IGNORE INTO contradiction (task, node, one, other)
         SELECT task, node, commitment, ?3 FROM statement
         WHERE (task, node) = (?1, ?2) AND commitment <> ?3 LIMIT 1",
        params![task.as_slice(), node, commitment.as_slice()],
    )
    .map(drop)
}
