//! What a node does about its own answer: opens what it recorded, publishes what others cannot read, and contests what a
//! panel found.

use assay_bindings::ProofOfInference::{appealCall, openProofCall, publishDataCall};
use assay_proof::{Failing, Record, Width, compare, verdict};
use assay_types::{ResultBlock, TaskId};

use super::{
    state::Key,
    told::{Audited, Case},
    work::{Auditor, Trouble, UNKNOWN},
};
use crate::ledger::AuditCall;

impl Auditor {
    /// Its proof, once its contrasts are where everybody finds them.
    pub(super) async fn open(
        &self,
        (task, _): Key,
        audited: &Audited,
    ) -> Result<openProofCall, Trouble> {
        let answer = self.answers.answer(task)?;
        let answer = answer.ok_or(Trouble::Lost(
            "the database does not know the answer that the chain has of this node: its proof cannot be opened",
        ))?;
        let digest = self.store.put(answer.proof_block.clone().into()).await?;
        Ok(openProofCall {
            brought: audited.audit.clone(),
            answer: answer.answer.clone().into(),
            root: answer.proof.root,
            salt: answer.proof.salt,
            proofDigest: digest,
        })
    }

    /// What this node recorded of its own answer.
    pub(super) async fn own_record(&self, task: TaskId) -> Result<Record, Trouble> {
        let answer = self.answers.answer(task)?.ok_or(Trouble::Lost("the answer is not known"))?;
        let block = self.store.get(answer.answer.outputDigest).await?;
        let lost = || Trouble::Lost("what this node recorded is not what it sealed");
        let result = ResultBlock::decode(&block).map_err(|_| lost())?;
        let width = width_of(answer.proof_block.len(), result.ids.len()).ok_or_else(lost)?;
        Record::open(&answer.proof_block, result.ids, width, answer.proof.root).map_err(|_| lost())
    }

    /// The next piece of what was demanded: what is on chain already is not sent again.
    pub(super) async fn publish(
        &self,
        task: TaskId,
        case: &Case,
        audited: &Audited,
    ) -> Result<publishDataCall, Trouble> {
        let answer = self.answers.answer(task)?.ok_or(UNKNOWN)?;
        let request = self.store.get(case.request_digest.ok_or(UNKNOWN)?).await?;
        let result = self.store.get(answer.answer.outputDigest).await?;
        let data = audited.data.as_ref().ok_or(Trouble::NotYet("the demand"))?;
        let chunk = data.next(&request, &result).ok_or(Trouble::Lost(
            "what is published of the answer is something else than this node has",
        ))?;
        tracing::warn!(
            %task, offset = chunk.offset, total = chunk.totalBytes,
            "a validator cannot read the answer: it is published on chain"
        );
        Ok(publishDataCall { _0: audited.audit.clone(), _1: chunk })
    }

    /// The appeal, if the model of this node finds the answer true.
    pub(super) async fn appeal(
        &self,
        key: Key,
        case: &Case,
        audited: &Audited,
    ) -> Result<AuditCall, Trouble> {
        if !self.appeals {
            return Err(Trouble::Lost(
                "this node does not appeal by itself: its owner can, with `assay node appeal`",
            ));
        }
        let bond = self.ledger.bond(self.node).await?;
        if !bond.is_ours {
            return Err(Trouble::Lost(
                "the owner of this node is another key: with it, `assay node appeal` appeals",
            ));
        }
        if bond.balance < bond.amount {
            return Err(Trouble::NoBond { owner: bond.owner, amount: bond.amount });
        }
        if !self.is_true(key, case, audited).await? {
            return Err(Trouble::Lost("this node's own model finds the answer false, too"));
        }
        let call = appealCall { _0: audited.audit.clone(), _1: audited.parties.clone() };
        Ok(AuditCall::Appeal(call, bond.amount))
    }

    /// Whether the answer is true by this node's model, within what honest nodes of its class differ by.
    async fn is_true(&self, key: Key, case: &Case, audited: &Audited) -> Result<bool, Trouble> {
        let found = self.find(key, case, true).await?;
        let found = found.ok_or(Trouble::Lost("this node's own answer cannot be read"))?;
        let limits = self.limits(audited, key.1).await?;
        let record = self.own_record(key.0).await?;
        let compared = compare(record.contrasts(), &found.contrasts());
        let failing = compared.map_or(Failing::default(), |compared| compared.failing(&limits));
        Ok(verdict(&found.statistics(), failing, true, &limits).is_empty())
    }
}

/// Contrasts of a position, from the length of a proof block.
fn width_of(bytes: usize, tokens: usize) -> Option<Width> {
    [Width::Two, Width::Four].into_iter().find(|width| width.bytes() * tokens == bytes)
}
