//! A small, fixed part of the calibration of the demo model: honest nodes pass, cheats are caught.

use std::sync::Arc;

use assay_engine_mistral::{
    Dtype, LoadOptions, ModelSource,
    calibrate::{self, Caught, Cheat, EDITS, Edit, Options, Table, cheaper, failures},
};
use assay_proof::{Calibration, SPOT_POSITIONS};

use crate::support::{Folder, demo_file};

const HONEST: u32 = 50;
const TRIALS: u32 = 20;
const OPEN: u32 = 10;
/// Edits that may stay below the hard margin.
const CLEVER: [Edit; 4] =
    [Edit::Rewritten, Edit::NarrowlyRewritten, Edit::NearestEndPutIn, Edit::GoneOn];
/// Those whose open choices give them away.
const OPEN_TO: [&str; 2] = ["4 bits (Q4_K)", "one layer fewer"];

#[tokio::test(flavor = "multi_thread")]
async fn honest_nodes_pass_and_cheats_are_caught() {
    let folder = Folder::new();
    let model = LoadOptions { lanes: 2, ..LoadOptions::new(ModelSource::Demo, folder.path()) };
    let mut cheats = cheaper(&model).unwrap();
    for name in ["assay-demo-q8_0.gguf", "assay-demo-q4_k.gguf"] {
        let source = ModelSource::Gguf(demo_file(name));
        let load = LoadOptions { source, ..model.clone() };
        cheats.push(Cheat { name: name.into(), load });
    }
    let options = Options {
        model,
        classes: vec![Dtype::F32, Dtype::F16],
        cheats,
        audits: HONEST,
        trials: TRIALS,
        open: OPEN,
        open_to: OPEN_TO.map(str::to_owned).into(),
        tokens: 64,
        answers: Vec::new(),
        keep: None,
        tick: Arc::new(|_, _, _| {}),
    };
    let outcome = calibrate::run(options).await.unwrap();
    assert_eq!(outcome.pairs.len(), 4);
    let edits: Vec<usize> = outcome.pairs.iter().map(|pair| pair.edits.len()).collect();
    assert_eq!(edits, [EDITS.len(), 0, EDITS.len(), 0]);
    let shipped = Table::shipped(outcome.model.model_id);
    let shipped = shipped.expect("demo-model/calibration.json is of another demo model");
    for pair in &outcome.pairs {
        let who = format!("{} audited by {}", pair.miner, pair.validator);
        let word = pair.calibration.pack().unwrap();
        assert_eq!(Calibration::unpack(word), Ok(pair.calibration));
        let honest = failures(pair.honest.iter(), &pair.calibration);
        println!(
            "{who}: {:?}, {} of {} accused",
            pair.calibration, honest.any.count, honest.any.of
        );
        assert_eq!((honest.any.count, honest.any.of), (0, HONEST as usize), "{who}");
        // What the program brings along accuses none of them, either.
        let brought = shipped.of(pair.miner, pair.validator).unwrap().calibration;
        let accused = failures(pair.honest.iter(), &brought).any.count;
        assert_eq!(accused, 0, "{who}: by {brought:?}");
        for edited in &pair.edits {
            let (name, tally) = (edited.edit.name(), edited.tally(&pair.calibration));
            println!("  {name}: {tally:?}");
            assert!(tally.trials > TRIALS as usize / 2, "{name} under {who}");
            assert_eq!(tally.above_caught, tally.above, "{name} under {who}");
            if !CLEVER.contains(&edited.edit) {
                assert_eq!(tally.caught, tally.trials, "{name} under {who}");
            }
        }
        for Caught { name, audits, open } in &pair.cheats {
            let open =
                failures(open.iter().filter(|audit| audit.tokens() >= 32), &pair.calibration);
            println!("  {name}: open: G {} of {}", open.g.count, open.g.of);
            assert_eq!(open.g.of > 0, OPEN_TO.contains(&&**name), "{name}");
            assert_eq!(open.g.count, open.g.of, "{name} under {who}");
            assert_eq!(audits.len(), TRIALS as usize);
            // Fewer than four positions are not judged by F.
            let judged = audits.iter().filter(|audit| audit.tokens() >= SPOT_POSITIONS as usize);
            let found = failures(judged, &pair.calibration);
            println!("  {name}: F {}, G {} of {}", found.f.count, found.g.count, found.any.of);
            assert!(found.f.of > TRIALS as usize / 2, "{name} under {who}");
            assert_eq!(found.f.count, found.f.of, "{name} under {who}");
        }
    }
    let report = folder.path().join("report");
    let files = outcome.write(&report).unwrap();
    assert!(files.len() > 8 && files.iter().all(|file| file.is_file()), "{files:?}");
    let page = std::fs::read_to_string(report.join("README.md")).unwrap();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "svg")) {
        assert!(page.contains(file.file_name().unwrap().to_str().unwrap()), "{file:?}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}
