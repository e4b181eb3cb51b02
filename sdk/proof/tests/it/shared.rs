//! `contracts/test/vectors/proof.json`, which the Solidity tests read too, written by `script/proof-vectors`.

use assay_proof::{
    Audit, Calibration, Contrasts, Cusum, Failing, Member, MerkleError, Opened, Reasons, Record,
    Statistics, Tree, Width, agree, audit_leaf, block_window, blocks, cluster, draw_positions,
    failing_is_possible, leaf, lower_median, margins_convict, root, upheld, verdict, verify,
};
use assay_types::{
    Address, AuditSeal, B256, Bytes, CommitScope, NodeId, TaskId, U256, keccak256, position_seed,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// The cases of one kind; there are at least `least`.
fn cases<T: DeserializeOwned>(kind: &str, least: usize) -> Vec<T> {
    let text = include_str!("../../../../contracts/test/vectors/proof.json");
    let mut all: Value = serde_json::from_str(text).unwrap();
    let found: Vec<T> = serde_json::from_value(all[kind].take()).unwrap();
    assert!(found.len() >= least, "{} {kind}", found.len());
    found
}

/// Contrasts of one integer, the first highest.
fn unpack(width: u8, packed: &str) -> Contrasts {
    let packed: u64 = packed.parse().unwrap();
    let values: Vec<i16> = (0..width).rev().map(|j| (packed >> (16 * j)) as u16 as i16).collect();
    Contrasts::new(&values).unwrap()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeafCase {
    contrasts: u8,
    position: u32,
    token: u32,
    values: Vec<i16>,
    packed: String,
    leaf: B256,
    margin: u32,
    audit_leaf: B256,
}

#[test]
fn leaves() {
    for case in cases::<LeafCase>("leaves", 10) {
        let contrasts = Contrasts::new(&case.values).unwrap();
        assert_eq!(contrasts, unpack(case.contrasts, &case.packed));
        assert_eq!(leaf(case.position, case.token, &contrasts), case.leaf);
        let audit = audit_leaf(case.position, case.token, &contrasts, case.margin);
        assert_eq!(audit, case.audit_leaf);
    }
}

#[derive(Deserialize)]
struct ProofCase {
    #[serde(default)]
    why: String,
    leaves: u32,
    positions: Vec<u32>,
    opened: Vec<B256>,
    nodes: Vec<B256>,
    root: B256,
}

impl ProofCase {
    fn verify(&self) -> Result<(), MerkleError> {
        let opened: Vec<_> =
            self.positions.iter().copied().zip(self.opened.iter().copied()).collect();
        verify(self.root, self.leaves, &opened, &self.nodes)
    }
}

#[test]
fn proofs() {
    for case in cases::<ProofCase>("proofs", 30) {
        let leaves: Vec<B256> = (1..=case.leaves).map(|t| keccak256(t.to_be_bytes())).collect();
        let tree = Tree::new(leaves).unwrap();
        assert_eq!(tree.root(), case.root);
        assert_eq!(tree.prove(&case.positions).unwrap(), case.nodes);
        assert_eq!(case.verify(), Ok(()));
    }
    for case in cases::<ProofCase>("badProofs", 12) {
        assert!(case.verify().is_err(), "{}", case.why);
    }
}

#[derive(Deserialize)]
struct DrawCase {
    seed: B256,
    first: u32,
    count: u32,
    wanted: u32,
    positions: Vec<u32>,
}

#[test]
fn draws() {
    for case in cases::<DrawCase>("draws", 10) {
        let drawn = draw_positions(case.seed, case.first, case.count, case.wanted);
        assert_eq!(drawn, case.positions);
    }
}

#[derive(Deserialize)]
struct BlockCase {
    tokens: u32,
    windows: Vec<(u32, u32)>,
}

#[test]
fn windows() {
    for case in cases::<BlockCase>("blocks", 10) {
        let found: Vec<_> =
            (0..blocks(case.tokens)).map(|i| block_window(case.tokens, i).unwrap()).collect();
        assert_eq!(found, case.windows, "{}", case.tokens);
    }
}

#[derive(Deserialize)]
struct AgreementCase {
    about: String,
    contrasts: u8,
    ours: Vec<String>,
    theirs: Vec<String>,
    limit: u16,
    median: u16,
    agree: bool,
}

#[test]
fn agreements() {
    for case in cases::<AgreementCase>("agreements", 9) {
        let distances: Vec<u16> = case
            .ours
            .iter()
            .zip(&case.theirs)
            .flat_map(|(a, b)| {
                unpack(case.contrasts, a).distances(&unpack(case.contrasts, b)).collect::<Vec<_>>()
            })
            .collect();
        let within = |limit| agree(distances.iter().copied(), limit);
        assert_eq!(within(case.limit), case.agree, "{}", case.about);
        assert!(within(case.median) && (case.median == 0 || !within(case.median - 1)));
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CalibrationCase {
    tau: u16,
    spot_tau: u16,
    block_limit: u16,
    contrasts: u8,
    hard_margin: u32,
    margin_bar: u32,
    thr_base: u32,
    thr_slope: u32,
    thr_spread: u32,
    drift: u32,
    drift_limit: u32,
    word: U256,
    tokens: Vec<u32>,
    thr: Vec<u64>,
}

#[derive(Deserialize)]
struct BadWord {
    why: String,
    word: U256,
}

#[test]
fn calibrations() {
    for case in cases::<CalibrationCase>("calibrations", 3) {
        let calibration = Calibration {
            tau: case.tau,
            spot_tau: case.spot_tau,
            block_limit: case.block_limit,
            width: Width::try_from(case.contrasts).unwrap(),
            hard_margin: case.hard_margin,
            margin_bar: case.margin_bar,
            thr_base: case.thr_base,
            thr_slope: case.thr_slope,
            thr_spread: case.thr_spread,
            drift: case.drift,
            drift_limit: case.drift_limit,
        };
        assert_eq!(calibration.pack().unwrap(), case.word);
        assert_eq!(Calibration::unpack(case.word).unwrap(), calibration);
        let thr: Vec<u64> = case.tokens.iter().map(|n| calibration.thr(*n)).collect();
        assert_eq!(thr, case.thr);
    }
    for case in cases::<BadWord>("badCalibrations", 15) {
        assert!(Calibration::unpack(case.word).is_err(), "{}", case.why);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatisticsCase {
    margins: Vec<u32>,
    tokens: u32,
    max_margin: u32,
    margin_sum: u32,
    faults: u8,
    word: U256,
}

#[test]
fn statistics() {
    for case in cases::<StatisticsCase>("statistics", 5) {
        let statistics = Statistics::new(&case.margins, Reasons(case.faults));
        let want = Statistics {
            tokens: case.tokens,
            max_margin: case.max_margin,
            margin_sum: case.margin_sum,
            faults: Reasons(case.faults),
        };
        assert_eq!(statistics, want);
        assert_eq!(statistics.pack().unwrap(), case.word);
        assert_eq!(Statistics::unpack(case.word).unwrap(), want);
    }
    for case in cases::<BadWord>("badStatistics", 7) {
        assert!(Statistics::unpack(case.word).is_err(), "{}", case.why);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SealCase {
    chain_id: String,
    queue: Address,
    task_id: B256,
    validator_id: u32,
    miner_id: u32,
    root: B256,
    statistics: U256,
    salt: B256,
    round: B256,
    position_seed: B256,
    seal: B256,
}

#[test]
fn seals() {
    for case in cases::<SealCase>("seals", 3) {
        let (task, miner) = (TaskId(case.task_id), NodeId(case.miner_id));
        let scope = CommitScope {
            chain_id: case.chain_id.parse().unwrap(),
            queue: case.queue,
            task,
            node: NodeId(case.validator_id),
        };
        let seal =
            AuditSeal { miner, root: case.root, statistics: case.statistics, salt: case.salt };
        assert_eq!(seal.hash(&scope), case.seal);
        assert_eq!(position_seed(case.round, task, miner), case.position_seed);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerdictCase {
    calibration: U256,
    statistics: U256,
    failing_blocks: u16,
    worst_block: u16,
    possible: bool,
    spot_agrees: bool,
    reasons: u8,
}

#[test]
fn verdicts() {
    for case in cases::<VerdictCase>("verdicts", 20) {
        let calibration = Calibration::unpack(case.calibration).unwrap();
        let statistics = Statistics::unpack(case.statistics).unwrap();
        let failing = Failing { blocks: case.failing_blocks, worst: case.worst_block };
        let reasons = verdict(&statistics, failing, case.spot_agrees, &calibration);
        assert_eq!(reasons, Reasons(case.reasons), "{statistics:?} {failing:?}");
        assert_eq!(failing_is_possible(failing, statistics.tokens), case.possible);
    }
}

#[derive(Deserialize)]
struct CusumCase {
    calibration: U256,
    statistics: U256,
    before: u32,
    after: u32,
    alarms: bool,
}

#[test]
fn cusums() {
    for case in cases::<CusumCase>("cusums", 8) {
        let calibration = Calibration::unpack(case.calibration).unwrap();
        let statistics = Statistics::unpack(case.statistics).unwrap();
        let after = Cusum(case.before).after(&statistics, &calibration);
        assert_eq!((after.0, after.alarms(&calibration)), (case.after, case.alarms));
    }
}

#[derive(Deserialize)]
struct ClusterCase {
    about: String,
    contrasts: u8,
    owners: Vec<Address>,
    tokens: Vec<Vec<u32>>,
    leaves: Vec<Vec<String>>,
    limits: Vec<Vec<u16>>,
    decided: bool,
    inside: Vec<bool>,
}

#[test]
fn clusters() {
    for case in cases::<ClusterCase>("clusters", 15) {
        let of = |(token, packed): (&u32, &String)| Opened {
            token: *token,
            contrasts: unpack(case.contrasts, packed),
        };
        let opened = case.tokens.iter().zip(&case.leaves);
        let members: Vec<Member> = case
            .owners
            .iter()
            .zip(opened)
            .map(|(owner, (tokens, leaves))| Member {
                owner: *owner,
                leaves: tokens.iter().zip(leaves).map(of).collect(),
            })
            .collect();
        let found = cluster(&members, |i, j| Some(case.limits[i][j])).unwrap();
        assert_eq!(found, case.decided.then_some(case.inside), "{}", case.about);
    }
}

#[derive(Deserialize)]
struct MarginCase {
    calibration: U256,
    margins: Vec<Vec<u32>>,
    medians: Vec<u32>,
    convicted: bool,
}

#[derive(Deserialize)]
struct UpheldCase {
    statistics: Vec<U256>,
    faults: u8,
}

#[test]
fn panels() {
    for case in cases::<MarginCase>("marginPanels", 8) {
        let medians: Vec<u32> = case.margins.iter().map(|m| lower_median(m)).collect();
        assert_eq!(medians, case.medians);
        let calibration = Calibration::unpack(case.calibration).unwrap();
        assert_eq!(margins_convict(&case.margins, &calibration), case.convicted);
    }
    for case in cases::<UpheldCase>("upheld", 5) {
        let words = case.statistics.iter().map(|word| Statistics::unpack(*word).unwrap());
        assert_eq!(upheld(&words.collect::<Vec<_>>()), Reasons(case.faults));
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordCase {
    contrasts: u8,
    ids: Vec<u32>,
    proof_block: Bytes,
    root: B256,
}

#[test]
fn records() {
    for case in cases::<RecordCase>("records", 3) {
        let width = Width::try_from(case.contrasts).unwrap();
        let record = Record::open(&case.proof_block, case.ids.clone(), width, case.root).unwrap();
        assert_eq!(record.encode(), case.proof_block.to_vec());
        let leaves = record.ids().iter().zip(record.contrasts());
        let leaves: Vec<B256> = (1..).zip(leaves).map(|(t, (id, c))| leaf(t, *id, c)).collect();
        assert_eq!(root(&leaves), Some(case.root));
        // A validator's root over the same is another.
        let audit = Audit::new(case.ids.len() as u32, &case.ids, &[], width, Reasons::default());
        assert_ne!(audit.tree().unwrap().root(), case.root);
    }
}
