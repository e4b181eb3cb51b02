//! Validators that are lazy, copying, colluding, silent, or accuse falsely, and panels with liars among them.

use std::collections::BTreeSet;

use assay_proof::Reasons;
use assay_protocol::state::AuditState;

use crate::{
    answers::{Submission, Task, decode, ids},
    cheats::TRIALS,
    court::{Court, Options},
    model::Model,
    outcome::{Outcome, Rule},
    validators::{Conduct, Duty},
};

/// What the miner answers, of a length that can be judged.
pub type Answerer<'a> = &'a dyn Fn(&Task) -> Submission;

/// Trials with this conduct in a network of its own.
fn trials(count: u32, answers: Answerer<'_>, conduct: &Conduct, check: impl Fn(&Outcome)) {
    let mut court = Court::new();
    trials_in(&mut court, count, answers, conduct, check);
}

pub fn trials_in(
    court: &mut Court,
    count: u32,
    answers: Answerer<'_>,
    conduct: &Conduct,
    check: impl Fn(&Outcome),
) {
    let mut done = 0;
    for number in 0.. {
        court.go_back();
        let task = court.ask(number);
        let submission = answers(&task);
        if submission.tokens() < 32 {
            continue;
        }
        check(&court.play(&task, &submission, conduct));
        done += 1;
        if done == count {
            return;
        }
    }
}

pub const FEW: u32 = 5;

pub fn other_weights(task: &Task) -> Submission {
    Submission::decoded(task, &Model::new(2))
}

/// Chosen by another model, recorded with the right one.
pub fn other_tokens(task: &Task) -> Submission {
    let steps = decode(task, &Model::new(2), &mut task.sampler(), &task.prompt());
    Submission::prefilled(task, ids(&steps))
}

fn other_text(task: &Task) -> Submission {
    let mut submission = Submission::honest(task);
    submission.text.push_str(" Buy now!");
    submission
}

// ---------------------------------------------------------------- lazy and copying validators

#[test]
fn a_lazy_validator_that_guesses_loses_its_stake() {
    let conduct = Conduct::validator(Duty::Guesses);
    trials(TRIALS, &Submission::honest, &conduct, |outcome| {
        // It could only agree by having run the model: its own leaves accuse it.
        assert!(outcome.has(Reasons::SPOT));
        outcome.paid_with(&[(outcome.validators[0], Rule::Contradicted)]);
    });
}

#[test]
fn a_lazy_validator_covers_no_cheat() {
    let conduct = Conduct::validator(Duty::Guesses);
    trials(FEW, &other_weights, &conduct, |outcome| {
        outcome.caught_with(Rule::Fingerprint, &[(outcome.validators[0], Rule::Contradicted)]);
    });
}

#[test]
fn a_validator_that_commits_to_nothing_loses_its_stake() {
    for duty in [Duty::Garbage, Duty::CopiesTheMiner, Duty::Hides] {
        trials(FEW, &Submission::honest, &Conduct::validator(duty), |outcome| {
            assert_eq!(outcome.state, Some(AuditState::Unverified));
            outcome.paid_with(&[(outcome.validators[0], Rule::Withheld)]);
        });
    }
}

#[test]
fn a_member_that_copies_a_peer_cannot_open() {
    let conduct = Conduct::panel([Duty::Honest, Duty::CopiesAPeer, Duty::Honest]);
    trials(FEW, &other_weights, &conduct, |outcome| {
        outcome.caught_with(Rule::Fingerprint, &[(outcome.panel[1], Rule::Withheld)]);
    });
}

// ---------------------------------------------------------------- silence

#[test]
fn a_silent_validator_is_replaced() {
    let conduct =
        Conduct { validators: [Duty::Silent, Duty::Silent, Duty::Honest], ..Conduct::honest() };
    trials(FEW, &Submission::honest, &conduct, |outcome| {
        assert_eq!(outcome.state, Some(AuditState::Passed));
        let idle = outcome.validators[..2].iter().map(|node| (*node, Rule::Idle));
        outcome.paid_with(&idle.collect::<Vec<_>>());
    });
    trials(FEW, &other_weights, &conduct, |outcome| {
        let idle = outcome.validators[..2].iter().map(|node| (*node, Rule::Idle));
        outcome.caught_with(Rule::Fingerprint, &idle.collect::<Vec<_>>());
    });
}

#[test]
fn a_silent_member_is_not_missed() {
    let conduct = Conduct::panel([Duty::Honest, Duty::Honest, Duty::Silent]);
    for (answers, rule) in [
        (&other_weights as Answerer<'_>, Rule::Fingerprint),
        (&other_tokens, Rule::Sampling),
        (&other_text, Rule::Content),
    ] {
        trials(FEW, answers, &conduct, |outcome| {
            outcome.caught_with(rule, &[(outcome.panel[2], Rule::Idle)]);
        });
    }
}

#[test]
fn a_member_that_hides_what_it_found_loses_its_stake() {
    let conduct = Conduct::panel([Duty::Honest, Duty::Hides, Duty::Honest]);
    trials(FEW, &other_tokens, &conduct, |outcome| {
        outcome.caught_with(Rule::Sampling, &[(outcome.panel[1], Rule::Withheld)]);
    });
}

// ---------------------------------------------------------------- false accusations

#[test]
fn a_false_accusation_costs_an_honest_miner_nothing() {
    for duty in [Duty::AccusesWithInvented, Duty::AccusesTheSampling, Duty::AccusesTheEnd] {
        trials(TRIALS, &Submission::honest, &Conduct::validator(duty), |outcome| {
            assert_eq!(outcome.state, Some(AuditState::Passed));
            outcome.paid_with(&[(outcome.validators[0], Rule::Contradicted)]);
        });
    }
}

#[test]
fn a_demand_without_need_costs_its_maker_the_pay_and_nothing_else() {
    trials(FEW, &Submission::honest, &Conduct::validator(Duty::Demands), |outcome| {
        let demander = outcome.validators[0];
        assert_eq!(outcome.demander, Some(demander));
        outcome.passed();
        assert_eq!(outcome.gain(demander), 0);
    });
    trials(FEW, &other_weights, &Conduct::validator(Duty::Demands), |outcome| {
        outcome.caught_by(Rule::Fingerprint);
    });
}

#[test]
fn a_member_of_a_panel_may_demand_too() {
    let conduct = Conduct::panel([Duty::Honest, Duty::Demands, Duty::Honest]);
    for (answers, rule) in [
        (&other_weights as Answerer<'_>, Rule::Fingerprint),
        (&other_tokens, Rule::Sampling),
        (&other_text, Rule::Content),
    ] {
        trials(FEW, answers, &conduct, |outcome| {
            assert_eq!(outcome.demander, Some(outcome.panel[1]));
            outcome.caught_by(rule);
        });
    }
}

#[test]
fn who_says_that_it_cannot_read_and_does_not_demand_cannot_open() {
    trials(FEW, &Submission::honest, &Conduct::validator(Duty::SaysUnread), |outcome| {
        assert_eq!(outcome.state, Some(AuditState::Unverified));
        outcome.paid_with(&[(outcome.validators[0], Rule::Withheld)]);
    });
}

#[test]
fn who_cannot_read_what_is_published_loses_its_stake() {
    trials(FEW, &Submission::honest, &Conduct::validator(Duty::CannotRead), |outcome| {
        outcome.paid_with(&[(outcome.validators[0], Rule::Contradicted)]);
    });
}

// ---------------------------------------------------------------- liars on a panel

#[test]
fn a_lying_minority_of_a_panel_changes_nothing() {
    for place in 0..3 {
        let mut panel = [Duty::Honest; 3];
        panel[place] = Duty::Vouches;
        let conduct = Conduct::panel(panel);
        trials(FEW, &other_weights, &conduct, |outcome| {
            // Its contrasts are the miner's: outside of the cluster, like them.
            let liar = (outcome.panel[place], Rule::Contradicted);
            outcome.caught_with(Rule::Fingerprint, &[liar]);
        });
        trials(FEW, &other_tokens, &conduct, |outcome| outcome.caught_by(Rule::Sampling));
        trials(FEW, &other_text, &conduct, |outcome| outcome.caught_by(Rule::Content));
    }
}

// ---------------------------------------------------------------- appeals

fn appealed(answers: impl Fn(&Task) -> Submission) -> impl Fn(&Task) -> Submission {
    move |task| Submission { appeals: true, ..answers(task) }
}

/// A network in which the seven others of an appeal are found.
fn large() -> Court {
    Court::with(Options { owners: 20, ..Options::default() })
}

#[test]
fn four_liars_are_overturned_on_appeal_and_slashed() {
    let mut court = large();
    let owner = court.nodes[&court.miner].owner;
    for duty in
        [Duty::AccusesWithInvented, Duty::AccusesTheSampling, Duty::AccusesTheEnd, Duty::CannotRead]
    {
        let conduct = Conduct { panel: [duty; 3], ..Conduct::validator(duty) };
        trials_in(&mut court, FEW, &appealed(Submission::honest), &conduct, |outcome| {
            assert_eq!((outcome.state, outcome.appeal.len()), (Some(AuditState::Passed), 7));
            let liars = outcome.validators.iter().chain(&outcome.panel);
            outcome.paid_with(&liars.map(|node| (*node, Rule::Contradicted)).collect::<Vec<_>>());
            // The bond is back.
            assert!(outcome.bond > Some(0) && outcome.owner_gained(owner) == 0);
        });
    }
}

#[test]
fn a_guilty_miner_that_appeals_loses_the_bond_too() {
    let mut court = large();
    let owner = court.nodes[&court.miner].owner;
    for (answers, rule) in [
        (&other_weights as Answerer<'_>, Rule::Fingerprint),
        (&other_tokens, Rule::Sampling),
        (&other_text, Rule::Content),
    ] {
        trials_in(&mut court, FEW, &appealed(answers), &Conduct::honest(), |outcome| {
            assert_eq!(outcome.state, Some(AuditState::Disproved));
            assert_eq!(outcome.slashes, [(outcome.miner, rule)]);
            let bond = outcome.bond.unwrap();
            assert_eq!(bond, outcome.before.stakes[&outcome.miner] / 10);
            assert_eq!(outcome.owner_gained(owner), -(bond as i128));
            // It pays those who were called for it.
            for node in &outcome.appeal {
                assert!(outcome.gain(*node) >= (bond / 7) as i128);
            }
        });
    }
}

#[test]
fn with_too_few_owners_for_an_appeal_the_first_judgement_stands() {
    let mut court = Court::new();
    let owner = court.nodes[&court.miner].owner;
    trials_in(&mut court, FEW, &appealed(other_weights), &Conduct::honest(), |outcome| {
        assert!(outcome.appeal.is_empty() && outcome.bond > Some(0));
        outcome.caught_by(Rule::Fingerprint);
        assert_eq!(outcome.owner_gained(owner), 0);
    });
}

// ---------------------------------------------------------------- too few

#[test]
fn with_too_few_owners_for_a_panel_nobody_is_slashed_and_nobody_pays() {
    let mut court = Court::with(Options { owners: 4, attested: 3 });
    trials_in(&mut court, FEW, &other_weights, &Conduct::honest(), |outcome| {
        outcome.void_with(&[]);
    });
    trials_in(&mut court, FEW, &Submission::honest, &Conduct::honest(), Outcome::passed);
}

#[test]
fn without_three_measurements_nobody_is_slashed_and_nobody_pays() {
    let mut court = Court::with(Options { owners: 9, attested: 2 });
    trials_in(&mut court, FEW, &other_weights, &Conduct::honest(), |outcome| {
        outcome.void_with(&[]);
    });
}

// ---------------------------------------------------------------- collusion

/// The miner's friends are so many owners of the eight others.
fn friends_of(court: &Court, count: usize) -> BTreeSet<u32> {
    court.nodes.keys().copied().filter(|node| *node != court.miner).take(count).collect()
}

/// What a cheat with friends comes to: it depends on who is drawn, and on nothing else.
#[test]
fn friends_help_only_where_they_are_drawn() {
    let mut court = Court::new();
    let friends = friends_of(&court, 3);
    let conduct = Conduct { friends: friends.clone(), ..Conduct::honest() };
    let is_friend = |node: &u32| friends.contains(node);
    let (covered, outvoted, caught) =
        (std::cell::Cell::new(0), std::cell::Cell::new(0), std::cell::Cell::new(0));
    let count = |cell: &std::cell::Cell<u32>| cell.set(cell.get() + 1);
    trials_in(&mut court, 3 * TRIALS, &other_weights, &conduct, |outcome| {
        if is_friend(&outcome.validators[0]) {
            // A share of three in eight: it gets through as often.
            count(&covered);
            return outcome.passed();
        }
        let on_panel: Vec<u32> = outcome.panel.iter().copied().filter(|n| is_friend(n)).collect();
        match on_panel.len() {
            2 => {
                // With the miner they are three of five owners. The honest lose nothing.
                count(&outvoted);
                outcome.paid_with(&[]);
            }
            3 => {
                count(&outvoted);
                outcome.paid_with(&[(outcome.validators[0], Rule::Contradicted)]);
            }
            _ => {
                count(&caught);
                let liars: Vec<_> = on_panel.iter().map(|n| (*n, Rule::Contradicted)).collect();
                outcome.caught_with(Rule::Fingerprint, &liars);
            }
        }
    });
    let [covered, outvoted, caught] = [covered, outvoted, caught].map(std::cell::Cell::into_inner);
    // Expected: 22.5, and of the others 4 of 7 choose 2 and 1 of 35: 13.9; the rest 23.6.
    assert!((14..32).contains(&covered), "{covered}");
    assert!((6..23).contains(&outvoted) && caught >= 14, "{outvoted} {caught}");
}
