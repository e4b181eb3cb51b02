//! What becomes of the dishonest miner, told as it happens.

use std::{collections::HashMap, sync::Arc, time::Duration};

use alloy::primitives::{B256, U256};
use anyhow::{Context, Result};
use assay_bindings::{
    ProofOfInference::{AuditMoved, Judged, PanelMoved, Verdict},
    SessionPayment::Slashed,
};
use assay_chain::{Chain, ChainEvent, Database, Event, EventSource, ProtocolEvent};
use assay_client::cor;
use assay_proof::Reasons;
use assay_protocol::state::{AuditState, NodeState};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::CheatKind;
use crate::up::Steps;

/// Blocks that wait to be told.
const EVENT_BUFFER: usize = 64;
/// Between two questions: an audit takes about ten seconds.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// Questions that are asked in the search for the dishonest node, and after it was caught.
const QUESTIONS: u32 = 60;
const QUESTIONS_AFTER: u32 = 3;
const QUESTION: [&str; 6] = [
    "What is a session?",
    "What is a miner?",
    "Explain how Assay works.",
    "What does a router do?",
    "Who pays for an answer?",
    "What is COR?",
];
const MAX_TOKENS: u32 = 80;
/// The miner and the first validator.
const PARTIES_BEFORE_PANEL: usize = 2;

/// A dishonest node and those who watch it.
pub struct Story {
    /// Who cheats, and how.
    pub node: u32,
    pub kind: CheatKind,
    pub chain: Chain,
    /// Base URL of the router, and the model to ask.
    pub http_url: String,
    pub model: String,
    pub steps: Arc<Steps>,
}

impl Story {
    /// Asks questions until the cheat is caught, and some more, and tells what happens. Does not end by itself once it has
    /// told everything: what is said later about the node is told, too.
    ///
    /// # Errors
    /// If the chain's events cannot be read.
    pub async fn tell(&self) -> Result<()> {
        let head = alloy::providers::Provider::get_block_number(&self.chain.provider).await?;
        let source = EventSource::new(self.chain.clone(), Database::in_memory()?, head + 1);
        let (events, mut blocks) = mpsc::channel(EVENT_BUFFER);
        let mut told = Told::new(self.node, self.kind);
        let mut asked = Asked::default();
        let http = reqwest::Client::new();
        let source = source.run(events, CancellationToken::new());
        tokio::pin!(source);
        let mut next = Instant::now();
        loop {
            let more = asked.count < QUESTIONS && asked.after < QUESTIONS_AFTER;
            tokio::select! {
                ended = &mut source => return ended.context("the chain's events cannot be read"),
                block = blocks.recv() => {
                    if let Some(ChainEvent::Committed(block)) = block {
                        block.events.iter().for_each(|event| self.say(told.line(event)));
                    }
                }
                () = tokio::time::sleep_until(next), if more => {
                    next = Instant::now() + ASK_EVERY;
                    let line = self.ask(&http, &mut asked, told.caught).await;
                    self.say(line);
                }
            }
        }
    }

    fn say(&self, line: Option<String>) {
        if let Some(line) = line {
            self.steps.say(line);
        }
    }

    /// One question; what to say of it.
    async fn ask(&self, http: &reqwest::Client, asked: &mut Asked, caught: bool) -> Option<String> {
        let question = QUESTION.get(asked.count as usize % QUESTION.len())?;
        asked.count += 1;
        let node = match self.answer(http, question).await {
            Ok(node) => node,
            Err(error) => return Some(format!("\"{question}\": {error:#}")),
        };
        if !caught {
            return Some(format!("asked \"{question}\": node {node} answered"));
        }
        asked.after += 1;
        asked.by.push(node);
        (asked.after == QUESTIONS_AFTER).then(|| {
            let by = list(&asked.by);
            format!("asked {QUESTIONS_AFTER} more questions: answered by nodes {by}")
        })
    }

    /// Who answered.
    async fn answer(&self, http: &reqwest::Client, question: &str) -> Result<u32> {
        let body = json!({
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": MAX_TOKENS,
        });
        let url = format!("{}/v1/chat/completions", self.http_url);
        let response = http.post(url).json(&body).send().await?.error_for_status()?;
        let task = response.headers().get("x-assay-task").and_then(|value| value.to_str().ok());
        let task = task.context("the router named no task")?.to_owned();
        let _answer: Value = response.json().await?;
        let url = format!("{}/v1/tasks/{task}", self.http_url);
        let record: Value = http.get(url).send().await?.error_for_status()?.json().await?;
        let node = record["node_id"].as_u64().and_then(|node| u32::try_from(node).ok());
        node.context("the router does not say who answered")
    }
}

/// Questions that the demonstration asked.
#[derive(Default)]
struct Asked {
    count: u32,
    /// Since the cheat was caught, and who answered those.
    after: u32,
    by: Vec<u32>,
}

/// What was told so far of one node's answers.
struct Told {
    node: u32,
    kind: CheatKind,
    audits: HashMap<B256, Case>,
    caught: bool,
}

/// An audit of its answers.
#[derive(Default)]
struct Case {
    /// The state that was told last.
    state: u8,
    /// The first validator, and what it found.
    validator: u32,
    reasons: Reasons,
    /// Miner, validator and panel.
    parties: Vec<u32>,
}

impl Told {
    fn new(node: u32, kind: CheatKind) -> Self {
        Self { node, kind, audits: HashMap::new(), caught: false }
    }

    /// What an event means for the story; `None` for what is not of it.
    fn line(&mut self, event: &Event) -> Option<String> {
        use ProtocolEvent as E;
        let of = |node: u32| node == self.node;
        match &event.body {
            E::TaskCommitted(e) if of(e.nodeId) => {
                Some(format!("CHEAT: node {} {}: here to task {}", e.nodeId, self.kind, e.taskId))
            }
            E::AnswerExposed(e) if of(e.nodeId) => Some(format!(
                "  what it has passed so far vouches for it too little: it is audited with a chance of {} %",
                f64::from(e.probabilityBps) / 100.0
            )),
            E::AnswerCleared(e) if of(e.nodeId) => {
                Some(format!("  task {} was not drawn: its answer is paid", short(e.taskId)))
            }
            E::AuditMoved(e) if of(e.nodeId) => self.moved(e),
            E::Verdict(e) if of(e.nodeId) => Some(self.verdict(e)),
            E::PanelMoved(e) if of(e.nodeId) => self.panel(e),
            E::Judged(e) if of(e.nodeId) => Some(self.judged(e)),
            E::Slashed(e) => self.slashed(e, event.tx_hash),
            E::NodeStateChanged(e) if NodeState::from(e.newState) == NodeState::Jailed => {
                self.caught |= of(e.nodeId);
                Some(format!("  node {} is jailed: nobody gives it tasks any more", e.nodeId))
            }
            E::TaskRefunded(e) if self.audits.contains_key(&e.taskId) => Some(format!(
                "  the client has {} back for task {}\n         Look: `assay audit explain {}`, `assay task show {}`",
                cor(U256::from(e.refund)),
                short(e.taskId),
                self.node,
                e.taskId
            )),
            _ => None,
        }
    }

    fn moved(&mut self, e: &AuditMoved) -> Option<String> {
        let case = self.audits.entry(e.taskId).or_default();
        let (state, validator) = (e.state, e.audit.validator);
        let is_demanded = case.state == AuditState::Demanded as u8;
        if (case.state, case.validator) == (state, validator) {
            return None;
        }
        (case.state, case.validator, case.reasons) = (state, validator, Reasons(e.audit.reasons));
        match AuditState::try_from(state).ok()? {
            AuditState::Demanded => Some(
                "  whoever looks at the answer cannot read it: its miner has to publish it on chain".into(),
            ),
            AuditState::Drawn if is_demanded => {
                Some("  it is published, and everybody reads the same".into())
            }
            AuditState::Condemned => {
                Some(format!("  node {}'s owner may appeal until it is executed", e.nodeId))
            }
            AuditState::Appealed => Some(
                "  its owner appeals: seven other owners are to decide, or the judgement stands".into(),
            ),
            AuditState::Drawn => Some(format!(
                "AUDIT: task {} was drawn for an audit by node {validator}",
                short(e.taskId)
            )),
            AuditState::Sealed => {
                Some(format!("  node {validator} has scored the answer and sealed what it found"))
            }
            AuditState::Opened => Some(format!("  node {} has opened its fingerprint", e.nodeId)),
            AuditState::Passed => Some("  the audit passed".into()),
            AuditState::Unverified => Some("  nobody was there to finish the audit".into()),
            AuditState::Void => Some("  the dispute ended without a quorum".into()),
            _ => None,
        }
    }

    fn verdict(&self, e: &Verdict) -> String {
        let case = self.audits.get(&e.taskId);
        // A panel on the weights compares fingerprints in the contract; what a member finds alone says nothing of them.
        let weights = |case: &Case| {
            let of_weights = [Reasons::FINGERPRINT, Reasons::SPOT];
            case.validator != e.validator && of_weights.iter().any(|r| case.reasons.contains(*r))
        };
        if case.is_some_and(weights) {
            return format!(
                "  node {} has opened the fingerprint that it found itself",
                e.validator
            );
        }
        format!("  node {} finds: {}", e.validator, in_words(Reasons(e.reasons)))
    }

    fn panel(&mut self, e: &PanelMoved) -> Option<String> {
        let parties: Vec<u32> = e.parties.iter().map(|party| party.nodeId).collect();
        let members = parties.get(PARTIES_BEFORE_PANEL..).unwrap_or_default();
        let line =
            format!("  a panel is drawn, nodes {}: each scores the answer blind", list(members));
        let case = self.audits.entry(e.taskId).or_default();
        let is_new = case.parties != parties;
        case.parties = parties;
        is_new.then_some(line)
    }

    fn judged(&self, e: &Judged) -> String {
        let parties = self.audits.get(&e.taskId).map(|case| case.parties.as_slice());
        let failing: Vec<u32> = parties
            .unwrap_or_default()
            .iter()
            .enumerate()
            .filter(|(place, _)| e.failing.bit(*place))
            .map(|(_, node)| *node)
            .collect();
        match (e.guilty, e.slashed) {
            (true, true) => {
                format!("  judged: the answer is false, nodes {} agree", list(&failing))
            }
            (true, false) => "  judged: the answer is false; too few may take stake for it".into(),
            (false, _) => "  judged: nothing is proven".into(),
        }
    }

    fn slashed(&mut self, e: &Slashed, transaction: B256) -> Option<String> {
        self.caught |= e.nodeId == self.node;
        if e.amount.is_zero() {
            return Some(format!("  node {} has nothing left to lose", e.nodeId));
        }
        Some(format!(
            "CAUGHT: node {} loses {} of its stake (evidence: transaction {transaction})",
            e.nodeId,
            cor(e.amount)
        ))
    }
}

fn list(nodes: &[u32]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A task's id, to tell it from others.
fn short(task: B256) -> String {
    format!("{}…", task.to_string().chars().take(10).collect::<String>())
}

fn in_words(reasons: Reasons) -> String {
    let words = [
        (Reasons::FINGERPRINT, "its fingerprint is not that of the model's weights"),
        (Reasons::SPOT, "at the drawn positions its fingerprint differs, or cannot be had"),
        (Reasons::HARD_MARGIN, "a token that the model would never have chosen with this seed"),
        (Reasons::MARGIN_SUM, "its tokens together are further from the model's than honest ones"),
        (Reasons::END, "its end is not what its tokens say"),
        (Reasons::TEXT, "its text is not that of its tokens"),
        (Reasons::PROMPT, "it answers another prompt"),
        (Reasons::IDS, "its tokens cannot be read"),
    ];
    let found: Vec<&str> = words
        .iter()
        .filter(|(reason, _)| reasons.contains(*reason))
        .map(|(_, text)| *text)
        .collect();
    if found.is_empty() { "nothing wrong".into() } else { found.join("; ") }
}

#[cfg(test)]
mod tests {
    use assay_bindings::NodePool::NodeStateChanged;

    use super::*;

    const NODE: u32 = 6;

    fn line(told: &mut Told, body: impl Into<ProtocolEvent>) -> Option<String> {
        told.line(&Event { tx_hash: B256::repeat_byte(9), log_index: 0, body: body.into() })
    }

    fn slashed(node: u32) -> Slashed {
        Slashed {
            nodeId: node,
            taskId: B256::repeat_byte(1),
            rule: 5,
            measured: U256::from(4),
            bound: U256::from(3),
            amount: U256::from(800_000_000_000_000_000_000_u128),
            reporter: Default::default(),
            reward: U256::ZERO,
        }
    }

    fn verdict(node: u32, reasons: Reasons) -> Verdict {
        Verdict {
            taskId: B256::repeat_byte(1),
            nodeId: node,
            validator: 2,
            reasons: reasons.0,
            statistics: U256::ZERO,
            failingBlocks: 1,
        }
    }

    #[test]
    fn what_happens_to_the_cheat_is_told_in_words() {
        let mut told = Told::new(NODE, CheatKind::Quantized);
        let found = line(&mut told, verdict(NODE, Reasons::FINGERPRINT)).unwrap();
        assert!(found.contains("node 2") && found.contains("weights"), "{found}");
        assert_eq!(line(&mut told, verdict(3, Reasons::FINGERPRINT)), None, "another's audit");
        assert!(
            line(&mut told, verdict(NODE, Reasons::default())).unwrap().contains("nothing wrong")
        );
        assert!(!told.caught);
        let caught = line(&mut told, slashed(NODE)).unwrap();
        assert!(caught.contains("800 COR") && caught.contains("0x0909"), "{caught}");
        assert!(told.caught);
        let jailed = NodeStateChanged { nodeId: NODE, oldState: 1, newState: 6 };
        assert!(line(&mut told, jailed).unwrap().contains("jailed"));
    }

    #[test]
    fn what_comes_before_the_end_is_told_too() {
        let mut told = Told::new(NODE, CheatKind::Withheld);
        let mut line = |state: AuditState| {
            let (task, state) = (B256::repeat_byte(1), state as u8);
            let moved = AuditMoved { taskId: task, nodeId: NODE, state, ..Default::default() };
            line(&mut told, moved).unwrap()
        };
        assert!(line(AuditState::Drawn).contains("AUDIT"));
        assert!(line(AuditState::Demanded).contains("publish"));
        assert!(line(AuditState::Drawn).contains("published"));
        assert!(line(AuditState::Condemned).contains("appeal"));
        assert!(line(AuditState::Appealed).contains("seven"));
    }

    #[test]
    fn an_honest_node_that_loses_stake_is_told_and_is_not_the_end() {
        let mut told = Told::new(NODE, CheatKind::Quantized);
        assert!(line(&mut told, slashed(1)).unwrap().contains("node 1"));
        assert!(!told.caught);
    }
}
