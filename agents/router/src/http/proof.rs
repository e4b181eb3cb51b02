//! `GET /v1/tasks/{id}/proof`: what the chain says of the proof of each answer of a task.

use assay_proof::{Reasons, Statistics};
use assay_protocol::state::AuditState;
use assay_store::cid_of;
use assay_types::{B256, NodeId, TaskId, U256};
use serde_json::{Value, json};

use crate::book::proofs::{PanelParty, ProofRow, ProofStep, TaskProof};

/// Hundredths of a percent that are certain.
const CERTAIN_BPS: f64 = 10_000.0;

/// The proofs of a task as JSON. Amounts are decimal strings in minor units of COR.
pub fn proof_json(id: TaskId, proof: &TaskProof) -> Value {
    let of = |node: NodeId| proof.steps.iter().filter(move |row| row.node == node);
    let answers: Vec<Value> = proof
        .nodes
        .iter()
        .map(|node| {
            let mut standing = Standing::default();
            of(*node).for_each(|row| standing.take(row));
            standing.json(*node, of(*node).map(step_json).collect())
        })
        .collect();
    json!({"id": id, "object": "assay.task.proof", "answers": answers})
}

/// Where the proof of one answer stands.
#[derive(Default)]
struct Standing {
    place: Place,
    exposed: Option<(String, u16)>,
    until_s: Option<u64>,
    validator: Option<NodeId>,
    opened: Option<(B256, B256)>,
    verdicts: Vec<Value>,
    panel: Vec<PanelParty>,
    judged: Option<Value>,
    collected: Option<String>,
}

/// A state of the contract, or what is a state for whoever looks at it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Nothing,
    Unaudited,
    Of(AuditState),
}

impl Standing {
    fn take(&mut self, row: &ProofRow) {
        match &row.step {
            ProofStep::Exposed { value, probability_bps } => {
                self.place = Place::Of(AuditState::Exposed);
                self.exposed = Some((value.clone(), *probability_bps));
            }
            ProofStep::Cleared { unaudited: false } => self.place = Place::Of(AuditState::Cleared),
            ProofStep::Cleared { unaudited: true } => self.place = Place::Unaudited,
            ProofStep::Unverified => self.place = Place::Of(AuditState::Unverified),
            ProofStep::Moved { state, until_s, validator } => {
                if let Ok(state) = AuditState::try_from(*state) {
                    self.place = Place::Of(state);
                    // An audit that has ended waits for nobody.
                    self.until_s = (state < AuditState::Passed).then_some(*until_s);
                }
                self.validator = Some(*validator).filter(|node| node.0 != 0);
            }
            ProofStep::Panel { parties } => self.panel.clone_from(parties),
            ProofStep::Opened { root, proof_digest } => self.opened = Some((*root, *proof_digest)),
            ProofStep::Verdict { validator, reasons, statistics, failing_blocks } => {
                self.verdicts.push(verdict_json(
                    *validator,
                    *reasons,
                    *statistics,
                    *failing_blocks,
                ));
            }
            ProofStep::Judged { question, failing, guilty, slashed } => {
                let against: Vec<NodeId> = (0..self.panel.len())
                    .filter(|place| failing.bit(*place))
                    .filter_map(|place| self.panel.get(place).map(|party| party.node_id))
                    .collect();
                self.judged = Some(json!({
                    "question": asked(*question),
                    "found_false_by": against,
                    "is_false": guilty,
                    "is_slashed": slashed,
                }));
            }
            ProofStep::Collected { amount } => self.collected = Some(amount.clone()),
        }
    }

    fn json(self, node: NodeId, steps: Vec<Value>) -> Value {
        let (state, meaning) = words(self.place);
        let (value, bps) = self.exposed.unzip();
        let panel: Vec<Value> =
            self.panel.iter().enumerate().map(|(place, party)| party_json(place, party)).collect();
        let (root, digest) = self.opened.unzip();
        json!({
            "node_id": node,
            "state": state,
            "meaning": meaning,
            "until_s": self.until_s,
            "probability": bps.map(|bps| f64::from(bps) / CERTAIN_BPS),
            "value": value,
            "validator": self.validator,
            "verdicts": self.verdicts,
            "panel": panel,
            "judged": self.judged,
            "root": root,
            "proof_digest": digest,
            "proof_cid": digest.map(|digest| cid_of(digest).to_string()),
            "paid_to_validators": self.collected,
            "steps": steps,
        })
    }
}

fn words(place: Place) -> (&'static str, &'static str) {
    use AuditState as S;
    match place {
        Place::Nothing => {
            ("none", "the answer is not committed, or its model's answers are not proven")
        }
        Place::Unaudited => ("unaudited", "the draw had no randomness in time: nobody looked"),
        Place::Of(state) => match state {
            S::Exposed => {
                ("exposed", "committed; the draw of its epoch decides whether it is audited")
            }
            S::Cleared => ("cleared", "not drawn: nobody looked"),
            S::Drawn => {
                ("drawn", "drawn; the validator scores the answer and commits to what it finds")
            }
            S::Sealed => ("sealed", "the validator has committed; the miner is to open its proof"),
            S::Opened => ("opened", "the miner has opened; the validator is to open what it found"),
            S::Accused => {
                ("accused", "the validator found the answer false; a panel is to be drawn")
            }
            S::Convened => ("convened", "the panel scores the answer and commits to what it finds"),
            S::Hearing => (
                "hearing",
                "the panel, and where weights are compared miner and validator, are to open",
            ),
            S::Demanded => {
                ("demanded", "the miner is to publish what was asked and what it answered")
            }
            S::Condemned => ("condemned", "a panel found it false; the miner's owner may appeal"),
            S::Appealed => {
                ("appealed", "the miner's owner has appealed; a second panel is to be drawn")
            }
            S::Passed => ("passed", "found true"),
            S::Unverified => ("unverified", "drawn, but no validator was there to look"),
            S::Void => (
                "void",
                "found false by too few to say so: the client has the fee back, and nobody is slashed",
            ),
            S::Disproved => (
                "disproved",
                "false, or not opened: the client has the fee back, and the miner is slashed",
            ),
            S::Closed => ("closed", "the task has ended"),
        },
    }
}

/// What a panel decides: `Question` of the contract.
fn asked(question: u8) -> &'static str {
    match question {
        1 => "weights",
        2 => "sampling",
        3 => "content",
        _ => "none",
    }
}

fn reasons_json(reasons: u8) -> Vec<String> {
    let reasons = Reasons(reasons);
    if reasons.is_empty() {
        return Vec::new();
    }
    reasons.to_string().split(", ").map(str::to_owned).collect()
}

fn verdict_json(validator: NodeId, reasons: u8, statistics: U256, failing_blocks: u16) -> Value {
    let found = Statistics::unpack(statistics).ok();
    json!({
        "validator": validator,
        "reasons": reasons_json(reasons),
        "tokens": found.map(|found| found.tokens),
        "max_margin": found.map(|found| found.max_margin),
        "margin_sum": found.map(|found| found.margin_sum),
        "failing_blocks": failing_blocks,
    })
}

fn party_json(place: usize, party: &PanelParty) -> Value {
    let role = match place {
        0 => "miner",
        1 => "validator",
        _ => "panel",
    };
    json!({
        "node_id": party.node_id,
        "role": role,
        "has_committed": party.is_sealed,
        "has_opened": party.is_open,
    })
}

fn step_json(row: &ProofRow) -> Value {
    let event = match &row.step {
        ProofStep::Exposed { .. } => "exposed",
        ProofStep::Cleared { .. } => "cleared",
        ProofStep::Unverified => "unverified",
        ProofStep::Moved { state, .. } => {
            AuditState::try_from(*state).map_or("moved", |state| words(Place::Of(state)).0)
        }
        ProofStep::Panel { .. } => "panel_moved",
        ProofStep::Opened { .. } => "proof_published",
        ProofStep::Verdict { .. } => "verdict",
        ProofStep::Judged { .. } => "judged",
        ProofStep::Collected { .. } => "validators_paid",
    };
    json!({
        "event": event,
        "block_number": row.block_number,
        "block_timestamp": row.block_timestamp,
        "transaction_hash": row.transaction_hash,
    })
}
