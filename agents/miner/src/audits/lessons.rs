//! What a block tells of this node's audits, in plain words. No IO.

use alloy::primitives::utils::format_ether;
use assay_bindings::ProofOfInference::{AuditMoved, Judged, PanelMoved, Verdict};
use assay_chain::{Block, ProtocolEvent};
use assay_proof::Reasons;
use assay_protocol::{Rule, state::AuditState};
use assay_types::{NodeId, TaskId};

use super::told::place_of;

/// Hundredths of a percent in one percent.
const BPS_IN_PERCENT: f64 = 100.0;

/// One thing that became of audits that this node has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lesson {
    /// Name of its counter.
    pub what: &'static str,
    pub text: String,
    /// Stake that it cost, minor units of COR.
    pub slashed: u128,
    /// Whether somebody should look.
    pub is_bad: bool,
}

fn good(what: &'static str, text: String) -> Option<Lesson> {
    Some(Lesson { what, text, slashed: 0, is_bad: false })
}

fn bad(what: &'static str, text: String) -> Option<Lesson> {
    Some(Lesson { what, text, slashed: 0, is_bad: true })
}

/// What a slash is for.
fn words(rule: u8) -> &'static str {
    match Rule::try_from(rule) {
        Ok(Rule::Equivocation) => "two different commitments for one task",
        Ok(Rule::Idle) => "a drawn validator that did not commit in time",
        Ok(Rule::Withheld) => "findings that were sealed and not opened",
        Ok(Rule::Unopened) => {
            "a proof that was not opened, or data that were demanded and not published"
        }
        Ok(Rule::Fingerprint) => "an answer that other weights made",
        Ok(Rule::Sampling) => "an answer whose tokens do not follow from the model",
        Ok(Rule::Content) => "an answer whose end, text, prompt or ids are false",
        Ok(Rule::Contradicted) => "findings that a quorum contradicts",
        Err(_) => "a rule that is not known",
    }
}

/// The lessons of a block for `node`.
pub(crate) fn lessons(block: &Block, node: NodeId) -> Vec<Lesson> {
    block.events.iter().filter_map(|event| lesson(&event.body, node)).collect()
}

fn lesson(event: &ProtocolEvent, node: NodeId) -> Option<Lesson> {
    let task = TaskId;
    match event {
        ProtocolEvent::AnswerExposed(e) if e.nodeId == node.0 => good(
            "exposed",
            format!(
                "task {}: the answer is audited with a probability of {} %",
                task(e.taskId),
                f64::from(e.probabilityBps) / BPS_IN_PERCENT
            ),
        ),
        ProtocolEvent::AnswerCleared(e) if e.nodeId == node.0 => {
            let why =
                if e.unaudited { "there was no randomness to draw with" } else { "not drawn" };
            good(
                "not_audited",
                format!("task {}: the answer is not audited: {why}", task(e.taskId)),
            )
        }
        ProtocolEvent::AnswerUnverified(e) if e.nodeId == node.0 => good(
            "unverified",
            format!("task {}: the answer is drawn, and no validator is there", task(e.taskId)),
        ),
        ProtocolEvent::AuditMoved(e) if e.nodeId == node.0 => of_own(e),
        ProtocolEvent::AuditMoved(e) if e.audit.validator == node.0 => {
            let is_drawn = e.state == AuditState::Drawn as u8;
            let text = format!("task {}: drawn to audit node {}", task(e.taskId), e.nodeId);
            is_drawn.then(|| good("drawn", text)).flatten()
        }
        ProtocolEvent::PanelMoved(e) => convened(e, node),
        ProtocolEvent::Verdict(e) => verdict(e, node),
        ProtocolEvent::Judged(e) if e.nodeId == node.0 => judged(e),
        ProtocolEvent::Slashed(e) if e.nodeId == node.0 => {
            let rule = words(e.rule);
            let amount = format_ether(e.amount);
            let text = format!(
                "task {}: {amount} COR of the stake are taken for {rule} (measured {}, bound {})",
                task(e.taskId),
                e.measured,
                e.bound
            );
            let slashed = e.amount.saturating_to();
            Some(Lesson { what: "slashed", text, slashed, is_bad: true })
        }
        _ => None,
    }
}

/// An audit of this node's own answer.
fn of_own(event: &AuditMoved) -> Option<Lesson> {
    let (task, audit) = (TaskId(event.taskId), &event.audit);
    match AuditState::try_from(event.state).ok()? {
        // Of validators one after the other, the first.
        AuditState::Drawn if place_of(audit.drawn, NodeId(audit.validator)) == Some(0) => good(
            "audited",
            format!("task {task}: the answer is audited by node {}", audit.validator),
        ),
        AuditState::Accused => bad(
            "accused",
            format!(
                "task {task}: node {} calls the answer false ({}); a panel decides",
                audit.validator,
                Reasons(audit.reasons)
            ),
        ),
        AuditState::Demanded => bad(
            "demanded",
            format!(
                "task {task}: whoever looks at the answer cannot read it: it has to be published on chain by {} (unix seconds)",
                event.until
            ),
        ),
        AuditState::Condemned => bad(
            "condemned",
            format!(
                "task {task}: a panel found the answer false ({}): the stake is lost unless the node's owner appeals by {} (unix seconds): `assay node appeal {task}`",
                Reasons(audit.reasons),
                event.until
            ),
        ),
        AuditState::Appealed => {
            good("appealed", format!("task {task}: the judgement is contested; others decide"))
        }
        AuditState::Passed => {
            good("passed", format!("task {task}: the audit found the answer true"))
        }
        AuditState::Unverified => {
            good("unverified", format!("task {task}: nobody was there to audit the answer"))
        }
        AuditState::Void => bad(
            "void",
            format!(
                "task {task}: the answer was called false by too few to tell: its fee is refunded"
            ),
        ),
        AuditState::Disproved => bad(
            "disproved",
            format!(
                "task {task}: the answer is disproved, or its proof was not opened: its fee is refunded"
            ),
        ),
        _ => None,
    }
}

/// A panel that this node is a member of, when it is convened.
fn convened(event: &PanelMoved, node: NodeId) -> Option<Lesson> {
    let (_, members) = event.parties.split_at_checked(2)?;
    let fresh = members.iter().all(|member| !member.isSealed);
    let ours = members.iter().any(|member| member.nodeId == node.0);
    let text =
        format!("task {}: drawn for the panel on node {}", TaskId(event.taskId), event.nodeId);
    (fresh && ours).then(|| good("panels", text)).flatten()
}

fn verdict(event: &Verdict, node: NodeId) -> Option<Lesson> {
    if event.validator != node.0 {
        return None;
    }
    let (task, miner) = (TaskId(event.taskId), event.nodeId);
    match Reasons(event.reasons) {
        reasons if reasons.is_empty() => {
            good("found_true", format!("task {task}: found the answer of node {miner} true"))
        }
        reasons => good(
            "found_false",
            format!("task {task}: found the answer of node {miner} false: {reasons}"),
        ),
    }
}

fn judged(event: &Judged) -> Option<Lesson> {
    let task = TaskId(event.taskId);
    let (what, of) = match (event.guilty, event.slashed) {
        (true, true) => ("convicted", "the panel found the answer false"),
        (true, false) => {
            ("convicted", "the panel found the answer false, by too few owners for a slash")
        }
        (false, _) => ("acquitted", "the panel did not find the answer false"),
    };
    let text = format!("task {task}: {of}");
    if event.guilty { bad(what, text) } else { good(what, text) }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{B256, U256};
    use assay_bindings::{ProofOfInference::Audit, SessionPayment::Slashed};

    use super::*;

    const TASK: B256 = B256::repeat_byte(7);

    fn moved(state: AuditState, validator: u32, drawn: u64) -> ProtocolEvent {
        let audit = Audit {
            validator,
            drawn: U256::from(drawn),
            reasons: Reasons::FINGERPRINT.0,
            ..Audit::default()
        };
        let state = state as u8;
        AuditMoved { taskId: TASK, nodeId: 3, state, audit, ..Default::default() }.into()
    }

    #[test]
    fn it_is_told_why_a_node_is_paid_or_not() {
        let told = |event: &ProtocolEvent, node: u32| lesson(event, NodeId(node)).map(|l| l.what);
        let drawn = moved(AuditState::Drawn, 4, 4);
        assert_eq!(
            (told(&drawn, 3), told(&drawn, 4), told(&drawn, 5)),
            (Some("audited"), Some("drawn"), None)
        );
        // Another validator for one that was silent is no second audit.
        let again = moved(AuditState::Drawn, 5, 4 | 5 << 32);
        assert_eq!(
            (told(&again, 3), told(&again, 5), told(&again, 4)),
            (None, Some("drawn"), None)
        );
        let accused = lesson(&moved(AuditState::Accused, 4, 4), NodeId(3)).unwrap();
        assert!(accused.is_bad && accused.text.contains("fingerprint"), "{}", accused.text);
        let slashed = Slashed {
            nodeId: 3,
            taskId: TASK,
            rule: Rule::Fingerprint as u8,
            amount: U256::from(10).pow(U256::from(18)),
            ..Default::default()
        };
        let slashed = lesson(&slashed.into(), NodeId(3)).unwrap();
        assert_eq!(slashed.slashed, 1_000_000_000_000_000_000);
        assert!(slashed.text.contains("1.000000000000000000 COR"), "{}", slashed.text);
        assert!(slashed.text.contains("other weights"), "{}", slashed.text);
    }
}
