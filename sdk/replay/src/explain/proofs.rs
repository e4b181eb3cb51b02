//! Audits, verdicts and penalties in plain words.

use alloy::primitives::{B256, U256};
use assay_bindings::ProofOfInference::{
    AnswerCleared, AnswerExposed, Appeal, Appealed, AuditMoved, DataPublished, Judged, Verdict,
};
use assay_bindings::SessionPayment::Slashed;
use assay_proof::{Calibration, MARGINS_PER_NAT, Reasons, Statistics, blocks};
use assay_protocol::audit::{earners_of, is_appeal, named_by, nodes_of};
use assay_protocol::odds::{BPS, by_exposure_bps, by_record_bps, roll};
use assay_protocol::state::{AuditState, Standing};
use assay_protocol::{ProtocolEvent, Rule, State};

use super::{COR, money, percent};

/// Whether an event is also about a node that is not the one whose answer it is.
pub(super) fn involves(event: &ProtocolEvent, node: u32) -> bool {
    match event {
        ProtocolEvent::Verdict(e) => e.validator == node,
        ProtocolEvent::DataDemanded(e) => e.validator == node,
        ProtocolEvent::Appealed(e) => {
            e.dissenter == node || nodes_of(U256::from(e.accusers)).contains(&node)
        }
        ProtocolEvent::AuditMoved(e) => {
            e.state == AuditState::Drawn as u8 && e.audit.validator == node
        }
        ProtocolEvent::PanelMoved(e) => e.parties.iter().skip(2).any(|party| party.nodeId == node),
        _ => false,
    }
}

/// What an event of a proof means, given the state before it.
pub(super) fn sentence(before: &State, event: &ProtocolEvent) -> Option<String> {
    use ProtocolEvent as E;
    match event {
        E::AnswerExposed(e) => exposed(before, e),
        E::AnswerCleared(e) => cleared(before, e),
        E::AnswerUnverified(e) => Some(format!(
            "The answer of node {} was drawn, but there was nobody to audit it: it is paid, and vouches for nothing.",
            e.nodeId
        )),
        E::AuditMoved(e) => moved(before, e),
        E::ProofOpened(e) => Some(format!(
            "Node {} opened its proof: the root {}. What it recorded is published under the digest {}.",
            e.nodeId, e.root, e.proofDigest
        )),
        E::Verdict(e) => verdict(before, e),
        E::DataDemanded(e) => Some(format!(
            "Node {} could not read the answer of node {}, or its request, and demanded both: it is not paid for this \
             audit.",
            e.validator, e.nodeId
        )),
        E::DataPublished(e) => Some(published(e)),
        E::Appealed(e) => Some(appealed(before, e)),
        E::Judged(e) => judged(before, e),
        E::RecordChanged(e) => Some(match e.passed.is_zero() {
            true => {
                format!("Nothing vouches for node {} with model {} any more.", e.nodeId, e.model)
            }
            false => format!(
                "Audited answers of {} vouch for node {} with model {}.",
                money(e.passed, COR),
                e.nodeId,
                e.model
            ),
        }),
        E::AuditCollected(e) => {
            let audit = standing(before, event)?.audit.as_ref()?;
            let mut paid = earners_of(audit);
            paid.extend(before.proofs.members_owed(e.taskId, e.nodeId));
            Some(format!(
                "The validators {paid:?} were paid {} together for the audit, out of what answers of the model gave.",
                money(e.amount, audit.asset)
            ))
        }
        _ => None,
    }
}

fn standing<'a>(before: &'a State, event: &ProtocolEvent) -> Option<&'a Standing> {
    let facts = crate::facts::Facts::of(event);
    before.proofs.answers.get(&(facts.task?, facts.node?))
}

fn exposed(before: &State, e: &AnswerExposed) -> Option<String> {
    let config = &before.network.proof;
    let model = before.sessions.get(&before.tasks.get(&e.taskId)?.record.task.sessionId)?.model;
    let passed = before.proofs.records.get(&(e.nodeId, model)).map_or(0, |record| record.0);
    let stake = before.accounts.stake(e.nodeId);
    let at_risk = stake * u128::from(config.slashBps) / u128::from(BPS);
    let gain = e.openValue.saturating_to::<u128>() * u128::from(config.gainBps);
    let gain = gain.div_ceil(u128::from(BPS));
    let by_exposure: u64 = by_exposure_bps(gain, at_risk, config.powerBps).saturating_to();
    let by_record = by_record_bps(passed, e.value.to());
    let epoch_s = config.epochLength.to::<u64>().max(1);
    let ends_at_s = (e.committedAt.to::<u64>() / epoch_s + 1) * epoch_s;
    Some(format!(
        "The answer of node {} is audited with {}, the largest of three: {} at least; {} by its record, {} audited and \
         passed against the {} of this one; {} by what a lie could gain, {} of the {} that are open, against the {} that \
         it would lose. It is drawn with all answers before second {ends_at_s}.",
        e.nodeId,
        percent(u64::from(e.probabilityBps)),
        percent(u64::from(config.minProbabilityBps)),
        percent(by_record),
        money(passed, COR),
        money(e.value, COR),
        percent(by_exposure),
        money(gain, COR),
        money(e.openValue, COR),
        money(at_risk, COR),
    ))
}

/// The number that the round of its epoch gave an answer, and that round.
fn drawn_number(before: &State, standing: &Standing, task: B256, node: u32) -> Option<(u64, u64)> {
    let epoch_s = before.network.proof.epochLength.to::<u64>().max(1);
    let (round, _) = before.proofs.rounds.get(&(standing.exposure.committed_at_s / epoch_s))?;
    Some((*round, roll(*before.rounds.get(round)?, task, node)))
}

fn cleared(before: &State, e: &AnswerCleared) -> Option<String> {
    if e.unaudited {
        return Some(format!(
            "The answer of node {} was not audited: the round that draws it had no value in time.",
            e.nodeId
        ));
    }
    let standing = before.proofs.answers.get(&(e.taskId, e.nodeId))?;
    let (round, number) = drawn_number(before, standing, e.taskId, e.nodeId)?;
    Some(format!(
        "The answer of node {} is not audited: round {round} gave it the number {number} of 10,000, and only below {} it \
         would be.",
        e.nodeId, standing.exposure.probability_bps
    ))
}

fn moved(before: &State, e: &AuditMoved) -> Option<String> {
    let was = before.proofs.answers.get(&(e.taskId, e.nodeId))?;
    let (audit, until) = (&e.audit, e.until);
    Some(match AuditState::try_from(e.state).ok()? {
        AuditState::Drawn if was.audit.is_none() => {
            let (round, number) = drawn_number(before, was, e.taskId, e.nodeId)?;
            format!(
                "The answer of node {} is audited: round {round} gave it the number {number} of 10,000, below {}. Of the \
                 {} places that there were when it was committed, try {} found node {} as validator, which has until \
                 second {until} to commit to what it finds.",
                e.nodeId, audit.probabilityBps, audit.slots, audit.tries, audit.validator
            )
        }
        AuditState::Drawn if was.state == AuditState::Demanded => format!(
            "All that was demanded is published; node {} has until second {until} to commit to what it finds.",
            audit.validator
        ),
        AuditState::Drawn => format!(
            "Node {} was drawn as validator in the place of one that was silent; it has until second {until}.",
            audit.validator
        ),
        AuditState::Sealed => format!(
            "The validator, node {}, committed to what it found; node {} has until second {until} to open its proof.",
            audit.validator, e.nodeId
        ),
        AuditState::Opened => format!(
            "Round {} draws the positions at which both show their leaves, until second {until}.",
            audit.round
        ),
        AuditState::Accused => {
            format!(
                "The answer is disputed: round {} draws a panel, until second {until}.",
                audit.round
            )
        }
        AuditState::Convened if was.state == AuditState::Accused => {
            format!(
                "The panel are the nodes {:?}: they commit until second {until}.",
                panel_of(was)
            )
        }
        AuditState::Convened if was.state == AuditState::Appealed => format!(
            "The appeal goes to the nodes {:?}: they commit until second {until}.",
            panel_of(was)
        ),
        AuditState::Convened if was.state == AuditState::Demanded => {
            format!("All that was demanded is published; the panel commits until second {until}.")
        }
        AuditState::Demanded => {
            format!("Node {} has until second {until} to publish request and answer.", e.nodeId)
        }
        AuditState::Condemned => {
            let accusers = before.found_false_by(was.audit.as_ref()?, &was.parties).ok()?;
            format!(
                "Nodes {accusers:?} find the answer of node {} false, and that costs its stake unless its owner appeals \
                 until second {until}.",
                e.nodeId
            )
        }
        AuditState::Appealed => {
            format!("Round {} draws seven others, until second {until}.", audit.round)
        }
        AuditState::Hearing if was.state == AuditState::Convened => {
            format!(
                "The panel has committed; the parties show what they found until second {until}."
            )
        }
        AuditState::Passed => format!("The answer of node {} is true.", e.nodeId),
        AuditState::Unverified => format!(
            "The audit of node {}'s answer came to no end: it is paid, and vouches for nothing.",
            e.nodeId
        ),
        AuditState::Void => format!(
            "Nobody could tell whether the answer of node {} is true: its fee is the client's again.",
            e.nodeId
        ),
        AuditState::Disproved => {
            format!("The answer of node {} is false: its fee is the client's again.", e.nodeId)
        }
        _ => return None,
    })
}

fn panel_of(standing: &Standing) -> Vec<u32> {
    standing.parties.iter().skip(2).map(|party| party.nodeId).collect()
}

fn published(e: &DataPublished) -> String {
    format!(
        "Node {} published the bytes {} to {} of {}, of which the request has the first {}.",
        e.nodeId,
        e.offset,
        e.offset as usize + e.data.len(),
        e.totalBytes,
        e.requestBytes
    )
}

fn appealed(before: &State, e: &Appealed) -> String {
    let share = u64::from(before.network.proof.appealBps);
    let dissenter = match e.dissenter {
        0 => String::new(),
        node => format!(" Node {node}, whom they contradict, waits for the outcome, too."),
    };
    format!(
        "The owner of node {} appeals against what nodes {:?} found. The bond is {}, {} of what the node would lose.{dissenter}",
        e.nodeId,
        nodes_of(U256::from(e.accusers)),
        money(e.bond, COR),
        percent(share),
    )
}

/// What became of an appeal, and of its bond.
fn appeal_outcome(standing: &Standing, appeal: &Appeal, e: &Judged) -> String {
    let members: Vec<u32> = panel_of(standing);
    let bond = money(appeal.bond, COR);
    if e.slashed {
        let earners = named_by(U256::from(appeal.members), appeal.earners);
        return format!(
            "The appeal is lost: the nodes {members:?}, who were asked, bear the first panel out. Of its bond of {bond} \
             those of them that did their duty, {earners:?}, get equal parts, and the client the rest"
        );
    }
    let why = match e.guilty {
        true => "that it is false is said by too few owners in pairs of classes that were measured",
        false => "the nodes that were asked do not bear the first panel out",
    };
    format!("The appeal has saved the stake, for {why} ({members:?}): its bond of {bond} goes back")
}

fn nats(units: u32) -> f64 {
    f64::from(units) / MARGINS_PER_NAT
}

fn verdict(before: &State, e: &Verdict) -> Option<String> {
    let audit = before.proofs.answers.get(&(e.taskId, e.nodeId))?.audit.as_ref()?;
    let class = |node| Some(before.nodes.get(&node)?.class);
    let word = before.calibration(audit.model, class(e.nodeId)?, class(e.validator)?)?;
    let limits = Calibration::unpack(word).ok()?;
    let found = Statistics::unpack(e.statistics).ok()?;
    let reasons = Reasons(e.reasons);
    let judgement = match reasons.is_empty() {
        true => "It is true".to_owned(),
        false => format!("It is false ({reasons})"),
    };
    Some(format!(
        "Node {} about the answer of node {}: the largest margin of its {} tokens is {:.3} nat, where {:.3} is allowed; \
         the margins come to {:.3} nat, where {:.3} is; {} of {} blocks of contrasts fail. {judgement}.",
        e.validator,
        e.nodeId,
        found.tokens,
        nats(found.max_margin),
        nats(limits.hard_margin),
        nats(found.margin_sum),
        nats(limits.thr(found.tokens).try_into().unwrap_or(u32::MAX)),
        e.failingBlocks,
        blocks(found.tokens),
    ))
}

fn judged(before: &State, e: &Judged) -> Option<String> {
    let key = (e.taskId, e.nodeId);
    let standing = before.proofs.answers.get(&key)?;
    let parties = &standing.parties;
    let failing: u32 = e.failing.saturating_to();
    let against = parties.iter().enumerate().filter(|(at, _)| failing >> at & 1 == 1);
    let against: Vec<u32> = against.map(|(_, party)| party.nodeId).collect();
    let about = match e.question {
        1 => "whether it came from other weights",
        2 => "whether its tokens follow from the weights",
        _ => "whether its end, text, prompt and ids are what they should be",
    };
    let outcome = match (e.guilty, e.slashed) {
        (true, true) => "It is false, and that costs the stake",
        (true, false) => {
            "It is false, but no stake is taken: too few owners in pairs of classes that were measured say so, or its \
             class is paused"
        }
        _ => "It was not found false",
    };
    let appeal = before.proofs.appeals.get(&key).filter(|_| is_appeal(parties));
    let appeal = appeal.map(|appeal| format!(" {}.", appeal_outcome(standing, appeal, e)));
    Some(format!(
        "The dispute over the answer of node {} was {about}. Nodes {against:?} found it false. {outcome}.{}",
        e.nodeId,
        appeal.unwrap_or_default()
    ))
}

/// Why stake was taken, unless it was for two signatures.
pub(super) fn slashed(before: &State, e: &Slashed) -> Option<String> {
    let config = &before.network.proof;
    let late = format!("at second {}, and had until {}", e.measured, e.bound);
    let owners = format!("{} say so, and {} are enough", e.measured, e.bound);
    let (why, share_bps) = match Rule::try_from(e.rule).ok()? {
        Rule::Equivocation => return None,
        Rule::Idle => (format!("it was drawn as validator and was silent {late}"), config.dutyBps),
        Rule::Withheld => {
            (format!("it had not opened what it had committed to {late}"), config.slashBps)
        }
        Rule::Unopened => (
            format!(
                "it had not shown what its answer was made of, or published what was demanded, {late}"
            ),
            config.slashBps,
        ),
        Rule::Fingerprint => {
            (format!("its answer came from other weights: {owners}"), config.slashBps)
        }
        Rule::Sampling => {
            (format!("its tokens do not follow from the weights: {owners}"), config.slashBps)
        }
        Rule::Content => (
            format!("end, text, prompt or ids of its answer are not what they should be: {owners}"),
            config.slashBps,
        ),
        Rule::Contradicted => {
            (format!("a quorum contradicts what it said of the answer: {owners}"), config.slashBps)
        }
    };
    let stake = before.accounts.stake(e.nodeId);
    let split = match e.reporter == before.network.deployment.proof {
        true => format!(
            "Of that {} goes to those who proved it, {} in all, and to the client, {}; the rest is burnt",
            money(e.reward, COR),
            percent(u64::from(config.proverBps)),
            percent(u64::from(config.clientBps)),
        ),
        false => format!(
            "Of that {} goes to {}, who moved the audit on; the rest is burnt",
            money(e.reward, COR),
            e.reporter
        ),
    };
    Some(format!(
        "Node {} was punished for task {}: {why}. It loses {}, {} of its stake of {}. {split}.",
        e.nodeId,
        e.taskId,
        money(e.amount, COR),
        percent(u64::from(share_bps)),
        money(stake, COR),
    ))
}
