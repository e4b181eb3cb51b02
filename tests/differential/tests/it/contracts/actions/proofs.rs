//! Audits and disputes: honest parties, lying ones of every kind, and silent ones.

use alloy::primitives::{Address, B256, U256, aliases::U40};
use assay_bindings::{
    ModelRegistry::{attestCall, calibrateCall},
    ProofOfInference::{
        Audit, Chunk, Findings, Leaf, Party, Testimony, advanceAuditCall, advancePanelCall,
        appealCall, closeEpochCall, collectCall, commitAuditCall, commitPanelCall, conveneCall,
        demandDataCall, judgeCall, openProofCall, publishDataCall, reconveneCall, revealCall,
        testifyCall,
    },
    SessionQueue,
};
use assay_proof::{Reasons, Width, block_window, draw_positions};
use assay_protocol::{
    Call,
    audit::{Question, named_positions},
    state::{AuditState, NodeState, Standing},
};
use assay_types::{AuditSeal, NodeId, ProofSeal, TaskId, position_seed};

use super::{Gen, Step, derived};
use crate::contracts::records::{self, CALIBRATION};

/// Tokens of a proven answer at most: trees of more say nothing new.
pub const MAX_TOKENS: u32 = 90;
/// Positions that a panel compares, and those of a spot check.
const PANEL: u32 = 16;
const SPOTS: u32 = 4;
/// Numeric classes of nodes. What the second one's differ by among themselves nobody has measured.
pub const CLASSES: [B256; 2] = [B256::repeat_byte(0xc1), B256::repeat_byte(0xc2)];

impl Gen<'_> {
    /// What H2 of a node's answer seals.
    pub fn proof_seal(&self, task: B256, node: u32, tokens: u32, width: Width) -> B256 {
        let cast = self.world.cast;
        let root = records::record(cast, (task, node), tokens, width).tree().unwrap().root();
        let scope = self.state().network.scope().commit_scope(TaskId(task), NodeId(node));
        ProofSeal { root, salt: proof_salt(task, node) }.hash(&scope)
    }

    /// The width of a session's contrasts, if its answers are proven.
    pub fn width_of(&self, session: u64) -> Option<Width> {
        let session = self.state().sessions.get(&session)?;
        let contrasts = self.state().models.get(&session.model)?.contrasts();
        Width::try_from(contrasts).ok().filter(|_| session.is_proven)
    }

    /// An audit in that state that fits.
    fn standing(&mut self, fits: impl Fn(&Standing, &Audit) -> bool) -> Option<(Standing, Audit)> {
        let answers = self.state().proofs.answers.values();
        let fitting: Vec<(Standing, Audit)> = answers
            .filter_map(|standing| Some((standing.clone(), standing.audit.clone()?)))
            .filter(|(standing, audit)| fits(standing, audit))
            .collect();
        self.one(&fitting)
    }

    fn in_state(&mut self, state: AuditState) -> Option<(Standing, Audit)> {
        let (any, time_s) = (self.slip(), self.time_s);
        self.standing(|found, _| any || (found.state == state && found.until_s >= time_s))
    }

    /// The audit, or sometimes one that is not the stored one.
    fn perhaps_other(&mut self, mut audit: Audit) -> Audit {
        if self.slip() {
            match self.below(3) {
                0 => audit.tries ^= 1,
                1 => audit.nodeId += 1,
                _ => audit.earners ^= 1,
            }
        }
        audit
    }

    fn perhaps_other_parties(&mut self, mut parties: Vec<Party>) -> Vec<Party> {
        if self.slip() {
            parties.pop();
        }
        parties
    }

    fn value(&self, round: u64) -> Option<B256> {
        self.state().rounds.get(&round).copied()
    }

    /// Leaves that are sometimes not those of the root.
    fn perhaps_bad(
        &mut self,
        (mut leaves, mut nodes): (Vec<Leaf>, Vec<B256>),
    ) -> (Vec<Leaf>, Vec<B256>) {
        if self.slip() {
            match self.below(5) {
                0 => leaves.clear(),
                1 => leaves.truncate(1),
                2 => leaves.iter_mut().for_each(|leaf| leaf.id ^= 1),
                3 => nodes.extend(nodes.clone()),
                _ => _ = nodes.pop(),
            }
        }
        (leaves, nodes)
    }

    /// A validator's numbers, its statistics sometimes no word that there is.
    fn finding(&mut self, audit: &Audit, validator: u32) -> Option<Found> {
        let (id, width) = (audit.taskId, self.width_in(audit)?);
        let tokens = self.tokens_of(audit)?;
        let cast = self.world.cast;
        let found = records::audit(cast, (id, audit.nodeId, validator), tokens, width);
        let mut statistics = found.statistics().pack().unwrap();
        if cast.fails(id, validator, "statistics", 4) {
            // Sealed like that, and refused when it is opened.
            statistics += U256::from(1);
        }
        let root = found.tree().unwrap().root();
        let salt = derived(id, validator, "audit salt");
        let scope = self.state().network.scope().commit_scope(TaskId(id), NodeId(validator));
        let seal = AuditSeal { miner: NodeId(audit.nodeId), root, statistics, salt }.hash(&scope);
        let salt = if self.slip() { self.word() } else { salt };
        Some(Found { found, root, statistics, salt, seal })
    }

    fn width_in(&self, audit: &Audit) -> Option<Width> {
        let contrasts = self.state().models.get(&audit.model)?.contrasts();
        Width::try_from(contrasts).ok()
    }

    fn answer_of(&mut self, audit: &Audit) -> Option<SessionQueue::Answer> {
        let task = &self.state().tasks.get(&audit.taskId)?.record.task;
        let most = (task.maxPrompt, task.maxOutput);
        Some(self.answer((task.sessionId, audit.taskId), audit.nodeId, most))
    }

    fn tokens_of(&mut self, audit: &Audit) -> Option<u32> {
        if audit.outputTokens != 0 {
            return Some(audit.outputTokens);
        }
        let most = self.state().tasks.get(&audit.taskId)?.record.task.maxOutput;
        Some(tokens(audit.taskId, audit.nodeId, most))
    }
}

struct Found {
    found: assay_proof::Audit,
    root: B256,
    statistics: U256,
    salt: B256,
    seal: B256,
}

impl Found {
    /// Whether it says that the answer cannot be read.
    fn is_unread(&self) -> bool {
        self.statistics >> 96 & U256::from(Reasons::IDS.0) != U256::ZERO
    }
}

fn proof_salt(task: B256, node: u32) -> B256 {
    derived(task, node, "proof salt")
}

/// Tokens of a node's answer in a proven session.
pub fn tokens(task: B256, node: u32, most: u32) -> u32 {
    let word = derived(task, node, "output tokens");
    1 + u32::from_be_bytes(word[..4].try_into().unwrap()) % most.clamp(1, MAX_TOKENS)
}

pub fn close_epoch(g: &mut Gen<'_>) -> Option<Step> {
    let length_s = g.state().network.proof.epochLength.to::<u64>();
    let waiting = g.state().proofs.answers.values();
    let epochs: Vec<u64> = waiting
        .filter(|standing| standing.state == AuditState::Exposed)
        .map(|standing| standing.exposure.committed_at_s / length_s)
        .collect();
    let epoch = g.one(&epochs)?;
    let epoch = if g.slip() { epoch + g.below(3) } else { epoch };
    Some((g.anybody(), Call::from(closeEpochCall { epoch: U40::from(epoch) })))
}

pub fn commit_audit(g: &mut Gen<'_>) -> Option<Step> {
    let (_, audit) = g.in_state(AuditState::Drawn)?;
    if records::is_silent(g.world.cast, audit.taskId, audit.validator) {
        return None;
    }
    let found = g.finding(&audit, audit.validator)?;
    // Who cannot read an answer has to demand it first, and some forget to.
    let forgets = g.world.cast.fails(audit.taskId, audit.validator, "forgets", 60);
    if found.is_unread() && !g.is_demanded(&audit) && !forgets {
        return None;
    }
    let sealed = if g.slip() { B256::ZERO } else { found.seal };
    let operator = g.operator(audit.validator);
    let brought = g.perhaps_other(audit);
    Some((g.caller(&[operator]), Call::from(commitAuditCall { brought, sealed_: sealed })))
}

impl Gen<'_> {
    fn is_demanded(&self, audit: &Audit) -> bool {
        self.state().proofs.demands.contains_key(&(audit.taskId, audit.nodeId))
    }
}

/// A validator or member that cannot read the answer demands it; one in some tasks does whatever it can read.
pub fn demand_data(g: &mut Gen<'_>) -> Option<Step> {
    let again = g.blunder();
    let (any, time_s) = (g.slip(), g.time_s);
    let (standing, audit) = g.standing(|found, _| {
        let waits = matches!(found.state, AuditState::Drawn | AuditState::Convened);
        any || (waits && found.until_s >= time_s)
    })?;
    if g.is_demanded(&audit) && !again {
        return None;
    }
    let members = standing.parties.iter().skip(2).filter(|party| any || !party.isSealed);
    let members: Vec<u32> = members.map(|party| party.nodeId).collect();
    let validator = match standing.state {
        AuditState::Convened => g.one(&members)?,
        _ => audit.validator,
    };
    let cast = g.world.cast;
    let unread = g.finding(&audit, validator)?.is_unread();
    if !any && !unread && !cast.fails(audit.taskId, validator, "demands", 12) {
        return None;
    }
    let validator = if g.slip() { 1 } else { validator };
    let operator = g.operator(validator);
    let (audit, parties) = (g.perhaps_other(audit), g.perhaps_other_parties(standing.parties));
    let call = demandDataCall { _0: audit, _1: parties, _2: validator };
    Some((g.caller(&[operator]), Call::from(call)))
}

/// The miner publishes the next piece, unless it withholds it.
pub fn publish_data(g: &mut Gen<'_>) -> Option<Step> {
    let (_, audit) = g.in_state(AuditState::Demanded)?;
    let (id, node) = (audit.taskId, audit.nodeId);
    if g.world.cast.fails(id, node, "withholds its data", 40) {
        return None;
    }
    let demand = g.state().proofs.demands.get(&(id, node)).cloned().unwrap_or_default();
    let (request, bytes) = records::published(id, node);
    let offset = (demand.publishedBytes as usize).min(bytes.len());
    let left = &bytes[offset..];
    let most = if g.slip() { 32_769 } else { 32_768 };
    let size = if g.chance(30) { left.len() / 2 } else { left.len() }.clamp(1, most);
    let data = if g.slip() { Vec::new() } else { left[..size.min(left.len())].to_vec() };
    let mut chunk = Chunk {
        requestBytes: request,
        totalBytes: bytes.len() as u32,
        offset: offset as u32,
        data: data.into(),
    };
    if g.blunder() {
        match g.below(4) {
            0 => chunk.requestBytes = chunk.totalBytes + 1,
            1 => chunk.totalBytes = 2 * 1024 * 1024 + 1,
            2 => chunk.offset += 1,
            _ => chunk.data = vec![7; bytes.len() + 1].into(),
        }
    }
    let operator = g.operator(node);
    let call = publishDataCall { _0: g.perhaps_other(audit), _1: chunk };
    Some((g.caller(&[operator]), Call::from(call)))
}

/// The owner of a miner that a panel condemned appeals, honest or not; some do not.
pub fn appeal(g: &mut Gen<'_>) -> Option<Step> {
    let (standing, audit) = g.in_state(AuditState::Condemned)?;
    if g.world.cast.fails(audit.taskId, audit.nodeId, "accepts", 60) {
        return None;
    }
    let owner = g.state().nodes.get(&audit.nodeId).map(|node| node.owner);
    let (audit, parties) = (g.perhaps_other(audit), g.perhaps_other_parties(standing.parties));
    let call = appealCall { _0: audit, _1: parties };
    let owner = if g.blunder() { g.people().keepers[0] } else { owner.unwrap_or_default() };
    Some((g.caller(&[owner]), Call::from(call)))
}

pub fn reconvene(g: &mut Gen<'_>) -> Option<Step> {
    let (standing, audit) = g.in_state(AuditState::Appealed)?;
    let (audit, parties) = (g.perhaps_other(audit), g.perhaps_other_parties(standing.parties));
    Some((g.anybody(), Call::from(reconveneCall { _0: audit, _1: parties })))
}

pub fn open_proof(g: &mut Gen<'_>) -> Option<Step> {
    let (_, audit) = g.in_state(AuditState::Sealed)?;
    if records::is_silent(g.world.cast, audit.taskId, audit.nodeId) {
        return None;
    }
    let (id, width) = (audit.taskId, g.width_in(&audit)?);
    let answer = g.answer_of(&audit)?;
    let tokens = g.tokens_of(&audit)?;
    let of = (id, audit.nodeId);
    let root = records::record(g.world.cast, of, tokens, width).tree().unwrap().root();
    let salt = if g.slip() { g.word() } else { proof_salt(id, audit.nodeId) };
    let brought = g.perhaps_other(audit);
    let answer = answer.into();
    let call = openProofCall { brought, answer, root, salt, proofDigest: derived(id, 0, "digest") };
    Some((g.anybody(), Call::from(call)))
}

pub fn reveal_findings(g: &mut Gen<'_>) -> Option<Step> {
    let (_, audit) = g.in_state(AuditState::Opened)?;
    let cast = g.world.cast;
    if cast.fails(audit.taskId, audit.validator, "withholds", 20) {
        return None;
    }
    let (id, width) = (audit.taskId, g.width_in(&audit)?);
    let Found { found, root, statistics, salt, .. } = g.finding(&audit, audit.validator)?;
    let tokens = g.tokens_of(&audit)?;
    let record = records::record(cast, (id, audit.nodeId), tokens, width);
    let failing = records::failing(cast, (id, audit.validator), &record, &found);
    let positions = g.spots(&audit, (1, tokens), SPOTS);
    let (mut miner_leaves, miner_nodes) = g.perhaps_bad(records::opened(&record, &positions));
    if cast.fails(id, audit.validator, "unread", 10) {
        miner_leaves.clear();
    }
    let (leaves, nodes) = g.perhaps_bad(records::found(&found, &positions));
    let (mut named, also) = records::named(&found);
    if g.slip() {
        named = U256::from(g.below(9)) << (32 * g.below(8));
    }
    let findings = Findings {
        root,
        statistics,
        salt,
        failingBlocks: failing.blocks + 9 * u16::from(g.slip()),
        worstBlock: failing.worst + 9 * u16::from(g.slip()),
        named,
        alsoNamed: also,
        minerLeaves: miner_leaves,
        minerNodes: miner_nodes,
        leaves,
        nodes,
    };
    let operator = g.operator(audit.validator);
    let brought = g.perhaps_other(audit);
    Some((g.caller(&[operator]), Call::from(revealCall { brought, findings })))
}

impl Gen<'_> {
    fn spots(&self, audit: &Audit, (first, count): (u32, u32), wanted: u32) -> Vec<u32> {
        // Without its value the call is refused, whatever is opened.
        let value = self.value(audit.round).unwrap_or_default();
        let seed = position_seed(value, TaskId(audit.taskId), NodeId(audit.nodeId));
        draw_positions(seed, first, count, wanted)
    }
}

pub fn convene(g: &mut Gen<'_>) -> Option<Step> {
    let (_, audit) = g.in_state(AuditState::Accused)?;
    Some((g.anybody(), Call::from(conveneCall(g.perhaps_other(audit)))))
}

/// A member that is to commit, or sometimes one that is not.
pub fn commit_panel(g: &mut Gen<'_>) -> Option<Step> {
    let (standing, audit) = g.in_state(AuditState::Convened)?;
    let slip = g.slip();
    let members = standing.parties.iter().filter(|party| slip || !party.isSealed);
    let members: Vec<u32> = members
        .map(|party| party.nodeId)
        .filter(|node| !records::is_silent(g.world.cast, audit.taskId, *node))
        .collect();
    let member = g.one(&members)?;
    let seal = g.finding(&audit, member)?.seal;
    let seal = if g.slip() { B256::ZERO } else { seal };
    let member = if g.slip() { 999 } else { member };
    let operator = g.operator(member);
    let (audit, parties) = (g.perhaps_other(audit), g.perhaps_other_parties(standing.parties));
    let call = commitPanelCall { _0: audit, _1: parties, _2: member, _3: seal };
    Some((g.caller(&[operator]), Call::from(call)))
}

pub fn testify(g: &mut Gen<'_>) -> Option<Step> {
    let (standing, audit) = g.in_state(AuditState::Hearing)?;
    let slip = g.slip();
    let question = Question::of(Reasons(audit.reasons));
    let parties = standing.parties.iter().enumerate();
    let due = parties.filter(|(at, party)| {
        let speaks = question == Question::Weights || *at >= 2;
        slip || (party.isSealed && !party.isOpen && speaks)
    });
    let cast = g.world.cast;
    let due: Vec<(usize, u32)> = due
        .map(|(at, party)| (at, party.nodeId))
        .filter(|(_, node)| !cast.fails(audit.taskId, *node, "hides", 15))
        .collect();
    let (at, node) = g.one(&due)?;
    let tokens = g.tokens_of(&audit)?;
    let positions = match question {
        Question::Sampling => named_positions(audit.named, audit.alsoNamed, tokens).ok()?,
        _ => {
            let window = block_window(tokens, audit.named.saturating_to()).unwrap_or((1, tokens));
            g.spots(&audit, window, PANEL)
        }
    };
    let (id, width) = (audit.taskId, g.width_in(&audit)?);
    let mut testimony = Testimony::default();
    let opened = if at == 0 {
        records::opened(&records::record(cast, (id, node), tokens, width), &positions)
    } else {
        let Found { found, root, statistics, salt, .. } = g.finding(&audit, node)?;
        (testimony.root, testimony.statistics, testimony.salt) = (root, statistics, salt);
        records::found(&found, &positions)
    };
    (testimony.leaves, testimony.nodes) = g.perhaps_bad(opened);
    let party = if g.slip() { 999 } else { node };
    let (audit, parties) = (g.perhaps_other(audit), g.perhaps_other_parties(standing.parties));
    let call = testifyCall { _0: audit, _1: parties, _2: party, _3: testimony };
    Some((g.anybody(), Call::from(call)))
}

pub fn judge(g: &mut Gen<'_>) -> Option<Step> {
    let any = g.slip();
    let time_s = g.time_s;
    let (standing, audit) = g.standing(|found, _| match found.state {
        AuditState::Hearing => true,
        AuditState::Condemned => any || found.until_s < time_s,
        _ => any,
    })?;
    let (audit, parties) = (g.perhaps_other(audit), g.perhaps_other_parties(standing.parties));
    Some((g.anybody(), Call::from(judgeCall { _0: audit, _1: parties })))
}

pub fn advance_audit(g: &mut Gen<'_>) -> Option<Step> {
    let (early, time_s) = (g.slip(), g.time_s);
    let (_, audit) = g.standing(|found, _| {
        let waits = found.state < AuditState::Convened
            || matches!(found.state, AuditState::Demanded | AuditState::Appealed);
        early || (waits && found.until_s < time_s)
    })?;
    Some((g.anybody(), Call::from(advanceAuditCall(g.perhaps_other(audit)))))
}

pub fn advance_panel(g: &mut Gen<'_>) -> Option<Step> {
    let (early, time_s) = (g.slip(), g.time_s);
    let (standing, audit) = g.standing(|found, _| {
        early || (found.state == AuditState::Convened && found.until_s < time_s)
    })?;
    let (audit, parties) = (g.perhaps_other(audit), g.perhaps_other_parties(standing.parties));
    Some((g.anybody(), Call::from(advancePanelCall { _0: audit, _1: parties })))
}

pub fn collect(g: &mut Gen<'_>) -> Option<Step> {
    let early = g.slip();
    let (_, audit) = g.standing(|found, _| early || found.state == AuditState::Closed)?;
    Some((g.anybody(), Call::from(collectCall(g.perhaps_other(audit)))))
}

fn class(g: &mut Gen<'_>) -> B256 {
    if g.slip() { B256::ZERO } else { CLASSES[g.below(2) as usize] }
}

pub fn calibrate(g: &mut Gen<'_>) -> Option<Step> {
    let models: Vec<(B256, Address)> =
        g.state().models.values().map(|model| (model.id, model.publisher)).collect();
    let (id, publisher) = g.one(&models)?;
    let narrow = g.chance(20);
    let width = if narrow { Width::Two } else { Width::Four };
    let word = assay_proof::Calibration { width, ..CALIBRATION }.pack().unwrap();
    let call = calibrateCall {
        modelId: if g.slip() { g.word() } else { id },
        minerClass: class(g),
        validatorClass: class(g),
        word: if g.slip() { word << 8 } else { word },
    };
    Some((g.caller(&[publisher]), Call::from(call)))
}

pub fn attest(g: &mut Gen<'_>) -> Option<Step> {
    let pairs = g.state().models.values().flat_map(|model| {
        let pairs = model.pairs.iter();
        pairs.map(|((miner, validator), pair)| (model.id, *miner, *validator, pair.word))
    });
    let pairs: Vec<(B256, B256, B256, U256)> = pairs.collect();
    let (id, miner, validator, word) = g.one(&pairs)?;
    let node = g.node(|_, node| {
        matches!(node.state, NodeState::Ephemeral | NodeState::Dedicated)
            && [miner, validator].contains(&node.class)
    })?;
    let operator = g.operator(node);
    let call = attestCall {
        modelId: if g.slip() { g.word() } else { id },
        minerClass: if g.slip() { validator } else { miner },
        validatorClass: validator,
        word: if g.slip() { word + U256::from(1) } else { word },
        nodeId: node,
    };
    Some((g.caller(&[operator]), Call::from(call)))
}

/// Rounds that draws, reveals and panels wait for.
pub fn rounds(g: &Gen<'_>) -> Vec<u64> {
    let proofs = &g.state().proofs;
    let waits = |state| {
        use AuditState as S;
        matches!(state, S::Opened | S::Accused | S::Hearing | S::Appealed)
    };
    let audits = proofs.answers.values().filter(|standing| waits(standing.state));
    let audits = audits.filter_map(|standing| Some(standing.audit.as_ref()?.round));
    audits.chain(proofs.rounds.values().map(|(round, _)| *round)).collect()
}
