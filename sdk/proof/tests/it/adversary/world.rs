//! Tasks, honest miners, validators, and the calibration of their noise.

use std::sync::LazyLock;

use assay_proof::{
    Audit, Calibration, Claim, Contrasts, Fault, Found, Opened, Reasons, Record, RecordError,
    SPOT_POSITIONS, Sampler, Scorer, Statistics, Step, Width, audit_leaf, block_window, blocks,
    compare, draw_positions, faults, leaf, leaves_agree, reasons, verdict, verify,
};
use assay_types::{
    Address, B256, EndReason, NodeId, Sampling, SeedInput, TaskId, keccak256, position_seed,
    prompt_hash, seed_g,
};

use super::model::{END, Model, VOCABULARY};

pub static MODEL: LazyLock<Model> = LazyLock::new(|| Model::new(1));
pub static CALIBRATION: LazyLock<Calibration> = LazyLock::new(calibrate);

pub const MINER: NodeId = NodeId(2);
pub const MAX_OUTPUT: u32 = 96;

/// One task on one node.
#[derive(Clone)]
pub struct Task {
    pub number: u32,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    pub node: NodeId,
    pub max_output: u32,
}

impl Task {
    pub fn new(number: u32) -> Self {
        let hash = keccak256(number.to_be_bytes());
        let prompt = hash.iter().take(12).map(|byte| 3 + u32::from(*byte)).collect();
        let max_output = MAX_OUTPUT;
        Self { number, prompt, sampling: Sampling::default(), node: MINER, max_output }
    }

    pub fn id(&self) -> TaskId {
        TaskId(keccak256([b"task".as_slice(), &self.number.to_be_bytes()].concat()))
    }

    pub fn seed(&self) -> B256 {
        seed_g(&SeedInput {
            chain_id: 31337,
            queue: Address::repeat_byte(9),
            task: self.id(),
            prompt_hash: prompt_hash(&self.prompt),
            node: self.node,
            beacon: keccak256("a beacon value"),
        })
    }

    /// The numeric noise of `who` at this task.
    pub fn class(&self, who: u32) -> B256 {
        keccak256([self.number.to_be_bytes(), who.to_be_bytes()].concat())
    }

    pub fn sampler(&self) -> Sampler {
        Sampler::new(self.sampling, self.seed(), VOCABULARY).unwrap()
    }
}

/// The text of ids: a word each, the end token none.
pub fn text(ids: &[u32]) -> String {
    ids.iter().filter(|id| **id != END).map(|id| format!(" w{id}")).collect()
}

/// What a miner submits: H1 and the result block, H2's root and the proof block.
#[derive(Clone)]
pub struct Submission {
    pub ids: Vec<u32>,
    pub text: String,
    pub end_reason: EndReason,
    pub prompt_hash: B256,
    pub prompt_tokens: u32,
    pub root: B256,
    pub proof: Vec<u8>,
}

impl Submission {
    pub fn new(task: &Task, ids: Vec<u32>, contrasts: Vec<Contrasts>) -> Self {
        let ended = ids.last() == Some(&END);
        let record = Record::new(ids.clone(), contrasts).unwrap();
        Self {
            text: text(&ids),
            end_reason: if ended { EndReason::Eos } else { EndReason::Max },
            ids,
            prompt_hash: prompt_hash(&task.prompt),
            prompt_tokens: task.prompt.len() as u32,
            root: record.tree().unwrap().root(),
            proof: record.encode(),
        }
    }

    /// The same ids, recorded by a prefill through the right model.
    pub fn prefilled(task: &Task, ids: Vec<u32>) -> Self {
        let contrasts = scored(task, &ids, 1).contrasts();
        Self::new(task, ids, contrasts)
    }
}

/// Chooses tokens with `model` until the end.
pub fn decode(task: &Task, model: &Model, sampler: &mut Sampler, prompt: &[u32]) -> Vec<Step> {
    let mut run = model.run(prompt, task.class(0));
    let mut steps = Vec::new();
    while steps.len() < task.max_output as usize {
        let step = sampler.step(&run.logits()).unwrap();
        steps.push(step);
        if step.id == END {
            break;
        }
        run.feed(step.id);
    }
    steps
}

pub fn ids(steps: &[Step]) -> Vec<u32> {
    steps.iter().map(|step| step.id).collect()
}

pub fn contrasts(steps: &[Step]) -> Vec<Contrasts> {
    steps.iter().map(|step| step.contrasts).collect()
}

pub fn honest(task: &Task) -> Submission {
    let steps = decode(task, &MODEL, &mut task.sampler(), &task.prompt);
    Submission::new(task, ids(&steps), contrasts(&steps))
}

/// What validator `who` finds of these ids: one teacher-forced pass.
pub fn scored(task: &Task, ids: &[u32], who: u32) -> Audit {
    let mut scorer = Scorer::new(task.sampling, task.seed(), VOCABULARY).unwrap();
    let mut run = MODEL.run(&task.prompt, task.class(who));
    let scores: Vec<_> = ids
        .iter()
        .map(|id| {
            let score = scorer.score(&run.logits(), *id).unwrap();
            run.feed(*id);
            score
        })
        .collect();
    Audit::new(ids.len() as u32, ids, &scores, Width::Four, Reasons::default())
}

/// The faults that a validator finds in the answer itself.
pub fn faults_of(task: &Task, submission: &Submission) -> Vec<Fault> {
    let claim = Claim {
        tokens: submission.ids.len() as u32,
        ids: &submission.ids,
        text: &submission.text,
        end_reason: submission.end_reason,
        block_end_reason: submission.end_reason,
        prompt_hash: submission.prompt_hash,
        prompt_tokens: submission.prompt_tokens,
    };
    let found = Found {
        prompt_ids: &task.prompt,
        vocabulary: VOCABULARY,
        end_tokens: &[END],
        max_output: task.max_output,
        text: &text(&submission.ids),
        stopped_at: None,
        cancel_is_signed: false,
    };
    faults(&claim, &found)
}

/// The whole audit: rules, one pass, comparison, the spot check with both sides' proofs, the verdict.
pub fn judge(task: &Task, submission: &Submission) -> Result<Reasons, RecordError> {
    let faults = reasons(&faults_of(task, submission));
    let audit = scored(task, &submission.ids, 7);
    let mut statistics = audit.statistics();
    statistics.faults = faults;
    // The word is what the contract sees.
    let word = statistics.pack().unwrap();
    let statistics = Statistics::unpack(word).unwrap();

    let (ids, root) = (submission.ids.clone(), submission.root);
    let record = Record::open(&submission.proof, ids, Width::Four, root)?;
    let comparison = compare(record.contrasts(), &audit.contrasts()).unwrap();
    let spot_agrees = spot_check(task, submission, &record, &audit);
    Ok(verdict(&statistics, comparison.failing(&CALIBRATION), spot_agrees, &CALIBRATION))
}

fn opened(record: &Record, t: u32) -> Opened {
    let place = t as usize - 1;
    Opened { token: record.ids()[place], contrasts: record.contrasts()[place] }
}

/// Opens four drawn positions on both sides and compares them.
fn spot_check(task: &Task, submission: &Submission, record: &Record, audit: &Audit) -> bool {
    let n = submission.ids.len() as u32;
    let seed = position_seed(keccak256("a later round"), task.id(), task.node);
    let positions = draw_positions(seed, 1, n, SPOT_POSITIONS);

    let theirs: Vec<Opened> = positions.iter().map(|t| opened(record, *t)).collect();
    let leaves: Vec<_> =
        positions.iter().zip(&theirs).map(|(t, l)| (*t, leaf(*t, l.token, &l.contrasts))).collect();
    let proof = record.tree().unwrap().prove(&positions).unwrap();
    verify(submission.root, n, &leaves, &proof).unwrap();

    let found: Vec<_> = positions.iter().map(|t| audit.findings()[*t as usize - 1]).collect();
    let ours: Vec<Opened> =
        found.iter().map(|f| Opened { token: f.token, contrasts: f.contrasts }).collect();
    let leaves: Vec<_> = positions
        .iter()
        .zip(&found)
        .map(|(t, f)| (*t, audit_leaf(*t, f.token, &f.contrasts, f.margin)))
        .collect();
    let tree = audit.tree().unwrap();
    verify(tree.root(), n, &leaves, &tree.prove(&positions).unwrap()).unwrap();

    n < SPOT_POSITIONS || leaves_agree(&ours, &theirs, CALIBRATION.spot_tau)
}

/// Thresholds with room above everything that forty honest tasks show. No test uses these tasks.
fn calibrate() -> Calibration {
    let (mut tau, mut spot, mut most, mut sum, mut tokens) = (0, 0, 0, 0, 0);
    let mut top: u32 = 0;
    for number in 100_000..100_040 {
        // Greedy answers have margins of their own.
        let temperature_milli = if number % 2 == 0 { 1000 } else { 0 };
        let sampling = Sampling { temperature_milli, ..Sampling::default() };
        let task = Task { sampling, ..Task::new(number) };
        let submission = honest(&task);
        let audit = scored(&task, &submission.ids, 7);
        let n = submission.ids.len() as u32;
        let record =
            Record::decode(&submission.proof, submission.ids.clone(), Width::Four).unwrap();
        for block in compare(record.contrasts(), &audit.contrasts()).unwrap().blocks {
            tau = block.median.max(tau);
        }
        for four in 0..n / SPOT_POSITIONS {
            let places = (four * SPOT_POSITIONS) as usize..((four + 1) * SPOT_POSITIONS) as usize;
            let (a, b) = (&record.contrasts()[places.clone()], &audit.contrasts()[places]);
            let one = compare(a, b).unwrap();
            spot = one.blocks[0].median.max(spot);
        }
        let statistics = audit.statistics();
        most = statistics.max_margin.max(most);
        top = statistics.margin_sum.max(top);
        sum += u64::from(statistics.margin_sum);
        tokens += u64::from(n);
    }
    let slope = u32::try_from((sum << 16) / tokens).unwrap();
    let calibration = Calibration {
        tau: 2 * tau,
        spot_tau: 2 * spot,
        block_limit: 1,
        width: Width::Four,
        hard_margin: 3 * most,
        margin_bar: 3 * top,
        thr_base: 3 * top,
        thr_slope: 2 * slope,
        thr_spread: 8 * slope,
        drift: 4 * slope,
        drift_limit: 10 * top,
    };
    assert!(calibration.pack().is_ok(), "{calibration:?}");
    calibration
}

/// All positions of one block.
pub fn block_positions(n: u32, block: u32) -> (u32, u32) {
    assert!(block < blocks(n));
    block_window(n, block).unwrap()
}
