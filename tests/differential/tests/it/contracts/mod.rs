//! The contracts in the EVM and the model of `assay-protocol` get the same random calls.
//!
//! After every call they must agree on its outcome, event by event or error by error with all values, and the model's
//! state, folded from the events, must be what the contracts store.

mod actions;
mod bounds;
mod drand;
mod people;
mod records;
mod sequence;
mod storage;
mod world;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use assay_protocol::ProtocolEvent;
use people::People;
use records::Cast;
use sequence::{Base, Tally};

/// Sequences of a run, unless the variable of this name says otherwise.
const SEQUENCES: (&str, u64) = ("ASSAY_DIFFERENTIAL_SEQUENCES", 1000);
/// Calls of a sequence.
const STEPS: (&str, u64) = ("ASSAY_DIFFERENTIAL_STEPS", 50);
/// The first seed; the others follow it.
const SEED: (&str, u64) = ("ASSAY_DIFFERENTIAL_SEED", 1);
/// Every so many sequences, one in which sessions are proven, and how many times as long that is: an audit with a panel
/// takes some twenty calls.
const PROVEN: u64 = 4;
const PROVEN_STEPS: u64 = 3;
/// Sequences of liars, of which the first one in which five owners of one class fail in one epoch, as few others do, is the
/// last one; and their calls.
const LIARS_SEEDS: Range<u64> = 32..90;
const LIARS_STEPS: u64 = 600;
/// Sequences in which nobody can read any answer, and their calls.
const UNREAD: u64 = 30;
const UNREAD_STEPS: u64 = 300;
/// What only calls that demand, publish and appeal, or should have, are refused with.
const REFUSALS: [&str; 7] = [
    "ProofOfInference_AlreadyDemanded",
    "ProofOfInference_NotDemanded",
    "ProofOfInference_DataSize",
    "ProofOfInference_OtherSizes",
    "ProofOfInference_ChunkSize",
    "ProofOfInference_NotOwner",
    "ProofOfInference_NothingAtStake",
];
/// Of a kind of call must succeed so many in a hundred sequences.
const SUCCESSES: u64 = 2;

/// Lets the other threads end with the sequences that they are at, if this one fails.
struct Stop<'a>(&'a AtomicU64);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(u64::MAX / 2, Ordering::Relaxed);
        }
    }
}

fn number((name, default): (&str, u64)) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// `[E2]` Where every miner lies and every validator is honest, a class is soon paused.
#[test]
fn contracts_and_model_agree_on_a_class_that_is_paused() {
    let mut base = Base::disputed(Arc::new(People::new()), Cast::Liars);
    let mut sequences = LIARS_SEEDS.map(|seed| base.run(seed, LIARS_STEPS));
    assert!(sequences.any(|tally| tally.events.contains_key("ClassPaused")));
}

/// `[E2]` Where nobody can read anything, everything is demanded, and who cannot show it appeals in vain: all that this is
/// refused with is seen.
#[test]
fn contracts_and_model_agree_on_answers_that_nobody_can_read() {
    let mut base = Base::new(Arc::new(People::new()), true);
    base.world().cast = Cast::Unread;
    let mut total = Tally::default();
    (1..=UNREAD).for_each(|seed| total.add(base.run(seed, UNREAD_STEPS)));
    for name in REFUSALS {
        assert!(total.refusals.contains_key(name), "{name}: {:?}", total.refusals);
    }
    for name in ["demand data", "publish data", "appeal", "reconvene"] {
        assert!(total.kinds.get(name).is_some_and(|counts| counts.1 > 0), "{:?}", total.kinds);
    }
}

/// `[E1]` Storage is what the events fold to, after every call and for everything at the end of each sequence.
///
/// `[E2]` The model predicts every event and every refusal, with all values.
///
/// A failure names the seed: `ASSAY_DIFFERENTIAL_SEED=<seed> ASSAY_DIFFERENTIAL_SEQUENCES=1` repeats it alone.
#[test]
fn contracts_and_model_agree_on_random_sequences() {
    let (sequences, first, steps) = (number(SEQUENCES), number(SEED), number(STEPS));
    let next = AtomicU64::new(first);
    let begun = Instant::now();
    let threads = thread::available_parallelism().map_or(2, usize::from) as u64;
    let people = Arc::new(People::new());
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let work = || {
            let mut bases = [false, true].map(|proven| Base::new(Arc::clone(&people), proven));
            let mut tally = Tally::default();
            let _stop = Stop(&next);
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + sequences {
                    return tally;
                }
                let proven = seed.is_multiple_of(PROVEN);
                let steps = if proven { steps * PROVEN_STEPS } else { steps };
                tally.add(bases[usize::from(proven)].run(seed, steps));
            }
        };
        let handles: Vec<_> = (0..threads.min(sequences)).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a sequence failed")).collect()
    });
    let mut total = Tally::default();
    tallies.into_iter().for_each(|tally| total.add(tally));
    total.report(sequences, begun.elapsed());
    if sequences >= 100 {
        enough(&total, sequences);
    }
}

/// Every kind of call succeeded, every event was seen, and calls that must fail did.
fn enough(total: &Tally, sequences: u64) {
    for kind in actions::KINDS.iter().chain(actions::PROVEN) {
        let (_, succeeded) = total.kinds.get(kind.name).copied().unwrap_or_default();
        assert!(succeeded * 100 >= SUCCESSES * sequences, "{}: {succeeded} succeeded", kind.name);
    }
    for (contract, event, _) in ProtocolEvent::ALL {
        // It takes five owners that fail in one epoch: `contracts_and_model_agree_on_a_class_that_is_paused`.
        if *event == "ClassPaused" {
            continue;
        }
        assert!(total.events.contains_key(event), "{contract}.{event} was never emitted");
    }
    assert_eq!(total.kinds[actions::INTRUSION.name].1, 0, "an intruder was let in");
}
