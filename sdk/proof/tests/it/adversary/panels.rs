use assay_proof::{
    Audit, Finding, MAX_OPENED, Member, Opened, Reasons, Record, Score, Width, audit_leaf, cluster,
    compare, draw_positions, leaf, margins_convict, verify,
};
use assay_types::{Address, keccak256, position_seed};

use super::{
    model::Model,
    world::{
        CALIBRATION, Submission, Task, block_positions, contrasts, decode, honest, ids, scored,
    },
};

/// The validators of a panel: the accuser and three more.
const VALIDATORS: [u32; 4] = [7, 8, 9, 10];

fn audits(task: &Task, submission: &Submission) -> Vec<Audit> {
    VALIDATORS.iter().map(|who| scored(task, &submission.ids, *who)).collect()
}

fn record(submission: &Submission) -> Record {
    Record::decode(&submission.proof, submission.ids.clone(), Width::Four).unwrap()
}

/// Who is cleared of miner and validators, at sixteen positions drawn in the accused block.
fn fingerprint_dispute(
    task: &Task,
    submission: &Submission,
    audits: &[Audit],
) -> Option<Vec<bool>> {
    let record = record(submission);
    let comparison = compare(record.contrasts(), &audits[0].contrasts()).unwrap();
    let worst = comparison.failing(&CALIBRATION).worst;
    let (first, count) = block_positions(submission.ids.len() as u32, worst.into());
    let seed = position_seed(keccak256("the panel's round"), task.id(), task.node);
    let positions = draw_positions(seed, first, count, MAX_OPENED as u32);
    let of = |at: &dyn Fn(usize) -> Opened, owner: u8| Member {
        owner: Address::repeat_byte(owner),
        leaves: positions.iter().map(|t| at(*t as usize - 1)).collect(),
    };
    let miner =
        |place: usize| Opened { token: record.ids()[place], contrasts: record.contrasts()[place] };
    let mut members = vec![of(&miner, 1)];
    for (audit, owner) in audits.iter().zip(2..) {
        let findings = audit.findings();
        let at = |place: usize| {
            let Finding { token, contrasts, .. } = findings[place];
            Opened { token, contrasts }
        };
        members.push(of(&at, owner));
    }
    cluster(&members, |_, _| Some(CALIBRATION.limit(positions.len() as u32))).unwrap()
}

/// Margins of the panel at what the accuser names.
fn margins(audits: &[Audit]) -> Vec<Vec<u32>> {
    let (accuser, panel) = audits.split_first().unwrap();
    let named = accuser.worst_positions(MAX_OPENED);
    let at = |t: &u32| panel.iter().map(|a| a.findings()[*t as usize - 1].margin).collect();
    named.iter().map(at).collect()
}

fn long_tasks() -> impl Iterator<Item = (Task, Submission)> {
    let all = (2000..2100).map(Task::new).map(|task| {
        let submission = honest(&task);
        (task, submission)
    });
    all.filter(|(_, submission)| submission.ids.len() > 80).take(12)
}

#[test]
fn an_honest_miner_is_cleared_and_a_false_accuser_is_not() {
    for (task, submission) in long_tasks() {
        let mut audits = audits(&task, &submission);
        assert_eq!(fingerprint_dispute(&task, &submission, &audits), Some(vec![true; 5]));
        assert!(!margins_convict(&margins(&audits), &CALIBRATION));
        // An accuser with invented numbers: its own leaves are opened, too.
        let invented = scored(&Task::new(task.number + 1), &submission.ids, 7);
        audits[0] = invented;
        let want = Some(vec![true, false, true, true, true]);
        assert_eq!(fingerprint_dispute(&task, &submission, &audits), want);
        // It may name any position: the panel's margins decide.
        assert!(!margins_convict(&margins(&audits), &CALIBRATION));
    }
}

#[test]
fn other_weights_for_a_part_are_outside_the_cluster() {
    let quantised = Model::new(1).quantised(4);
    for (task, submission) in long_tasks() {
        let wrong = decode(&task, &quantised, &mut task.sampler(), &task.prompt);
        let mut mixed = record(&submission).contrasts().to_vec();
        let from = contrasts(&wrong);
        mixed.iter_mut().zip(from).skip(32).take(32).for_each(|(to, from)| *to = from);
        let cheat = Submission::new(&task, submission.ids.clone(), mixed);
        if ids(&wrong).len() < 64 {
            continue;
        }
        let audits = audits(&task, &cheat);
        let want = Some(vec![false, true, true, true, true]);
        assert_eq!(fingerprint_dispute(&task, &cheat, &audits), want);
    }
}

#[test]
fn tokens_chosen_elsewhere_are_convicted_by_margins() {
    let elsewhere = Model::new(2);
    for (task, _) in long_tasks() {
        let steps = decode(&task, &elsewhere, &mut task.sampler(), &task.prompt);
        if steps.len() < 8 {
            continue;
        }
        let cheat = Submission::prefilled(&task, ids(&steps));
        let mut audits = audits(&task, &cheat);
        assert_eq!(fingerprint_dispute(&task, &cheat, &audits), Some(vec![true; 5]));
        assert!(margins_convict(&margins(&audits), &CALIBRATION));
        // One member of the panel sees nothing wrong, and is overruled; two are not.
        let blind = scored(&task, &cheat.ids, 20);
        let lie = |audit: &Audit| {
            let scores: Vec<_> = audit
                .findings()
                .iter()
                .map(|f| Score { margin: 0.0, contrasts: f.contrasts })
                .collect();
            let tokens = cheat.ids.len() as u32;
            Audit::new(tokens, &cheat.ids, &scores, Width::Four, Reasons::default())
        };
        audits[1] = lie(&blind);
        assert!(margins_convict(&margins(&audits), &CALIBRATION));
        audits[2] = lie(&blind);
        assert!(!margins_convict(&margins(&audits), &CALIBRATION));
    }
}

#[test]
fn a_minority_of_liars_changes_nothing() {
    for (task, submission) in long_tasks().take(4) {
        // The miner cheats, and one validator stands by it with the miner's own numbers.
        let invented = scored(&Task::new(task.number + 1), &submission.ids, 7);
        let cheat = Submission::new(&task, submission.ids.clone(), invented.contrasts());
        let mut audits = audits(&task, &cheat);
        audits[3] = invented.clone();
        let want = Some(vec![false, true, true, true, false]);
        assert_eq!(fingerprint_dispute(&task, &cheat, &audits), want);
        // With two of them nobody has a majority of three others: three stand by the miner.
        audits[2] = invented;
        let want = Some(vec![true, false, false, true, true]);
        assert_eq!(fingerprint_dispute(&task, &cheat, &audits), want);
    }
}

#[test]
fn the_miners_leaves_are_no_validators_leaves() {
    let (task, submission) = long_tasks().next().unwrap();
    let record = record(&submission);
    let tree = record.tree().unwrap();
    let (n, place) = (submission.ids.len() as u32, 4);
    let (id, contrasts) = (record.ids()[place], record.contrasts()[place]);
    let proof = tree.prove(&[5]).unwrap();
    assert_eq!(verify(tree.root(), n, &[(5, leaf(5, id, &contrasts))], &proof), Ok(()));
    // A validator that committed to the miner's root has nothing to open.
    let copied = audit_leaf(5, id, &contrasts, 0);
    assert!(verify(tree.root(), n, &[(5, copied)], &proof).is_err());
    // Nor is the root of its own numbers the miner's.
    assert_ne!(scored(&task, &submission.ids, 7).tree().unwrap().root(), tree.root());
}
