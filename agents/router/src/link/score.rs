//! Which node gets a task: what is known of each is put into a score, and the least one wins.
//!
//! The parts of a score are compared one after the other, so that each can be explained by itself:
//!
//! 1. **Rest.** A node that failed again and again is asked only if there is no other ([`super::standing`]). What a
//!    client does never counts.
//! 2. **Slowness.** How long a client waits for its first token, and for each further one, both as they were measured
//!    here of late and grown by the share of the node that is in use. They count in steps of half as much again, since
//!    less may be chance, and below what a client feels all nodes are the same. A node that answered the
//!    conversation's turn before may be [`FAMILIAR_STEPS`] slower: it need not read all of it again. That holds while
//!    it has room to spare, so that one conversation does not fill a node.
//! 3. **Familiarity.** Of equally fast ones, the node that has read the conversation.
//! 4. **Load,** divided by the node's weight. The weight follows from its level, which the chain counts: answers in a
//!    row raise it, silence lowers it. As in the draws, a node of the highest level is given twice as much as one of
//!    the lowest, which is given enough to rise.
//! 5. **Turns.** Of equally idle ones, whoever had the fewest tasks for its weight.

use assay_protocol::level::MAX_LEVEL;

use super::standing::Expected;

/// First tokens that come sooner are all the same to a client, seconds.
const SOON_S: f64 = 0.05;
/// Tokens that come in less time each are all the same to a client: nobody reads 50 a second.
const FLUENT_S: f64 = 0.02;
/// A node is slower than another if it takes so many times as long: less may be chance.
const STEP: f64 = 1.5;
/// More steps than between the fastest answer and the longest that a task may take.
const MOST_STEPS: f64 = 64.0;
/// Steps that a node may be slower which has read the conversation: 3.4 times the time. Reading a long prompt takes
/// most of the time to a first token.
const FAMILIAR_STEPS: u32 = 3;
/// Share of a node in use, in thousandths, from which on it has no room to spare for those that it knows.
const CROWDED: u32 = 750;
/// What shares and turns are multiplied with before a weight divides them, so that little is lost by rounding.
const SCALE: u64 = 1000;

/// What is known of a node that could take a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// It rests after failures.
    pub rests: bool,
    /// How fast it is expected to be.
    pub expected: Expected,
    /// Its level on chain, 0 to [`MAX_LEVEL`].
    pub level: u8,
    /// Tasks that it has.
    pub load: u32,
    /// Tasks that it takes at once.
    pub capacity: u32,
    /// Tasks that it was given on this connection.
    pub served: u64,
    /// It answered the conversation's turn before.
    pub is_familiar: bool,
}

/// A node's score; the least is best. The order of the members is the order in which they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    rests: bool,
    slowness: u32,
    is_stranger: bool,
    load: u64,
    turns: u64,
}

impl Candidate {
    /// Its score.
    pub(super) fn score(&self) -> Score {
        let share = self.load.saturating_mul(1000) / self.capacity.max(1);
        let slower = 1.0 + f64::from(share) / 1000.0;
        let Expected { first_token_s, token_s } = self.expected;
        let slowness = steps(first_token_s * slower, SOON_S) + steps(token_s * slower, FLUENT_S);
        let is_familiar = self.is_familiar && share < CROWDED;
        let weight = u64::from(MAX_LEVEL) + u64::from(self.level.min(MAX_LEVEL));
        Score {
            rests: self.rests,
            slowness: slowness.saturating_sub(if is_familiar { FAMILIAR_STEPS } else { 0 }),
            is_stranger: !is_familiar,
            load: u64::from(share) * SCALE / weight,
            turns: self.served.saturating_mul(SCALE) / weight,
        }
    }
}

/// How many steps a time is above one that is all the same to a client.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the most steps"
)]
fn steps(time_s: f64, unfelt_s: f64) -> u32 {
    (time_s / unfelt_s).max(1.0).log(STEP).min(MOST_STEPS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Candidate = Candidate {
        rests: false,
        expected: Expected { first_token_s: 0.0, token_s: 0.0 },
        level: 0,
        load: 0,
        capacity: 4,
        served: 0,
        is_familiar: false,
    };

    fn taking(first_token_s: f64, token_s: f64) -> Candidate {
        Candidate { expected: Expected { first_token_s, token_s }, ..IDLE }
    }

    fn beats(one: Candidate, other: Candidate) -> bool {
        one.score() < other.score()
    }

    #[test]
    fn what_a_client_does_not_feel_is_no_difference() {
        assert_eq!(taking(0.01, 0.001).score(), taking(0.04, 0.019).score());
        // Neither is less than a step.
        assert_eq!(taking(0.50, 0.0).score(), taking(0.55, 0.0).score());
        assert!(beats(taking(0.3, 0.0), taking(0.6, 0.0)), "sooner");
        assert!(beats(taking(0.3, 0.03), taking(0.3, 0.1)), "more tokens a second");
    }

    #[test]
    fn who_rests_is_last_whatever_else_speaks_for_it() {
        let rests = Candidate { rests: true, is_familiar: true, level: 10, ..IDLE };
        assert!(beats(Candidate { load: 3, served: 99, ..taking(9.0, 1.0) }, rests));
    }

    #[test]
    fn load_makes_a_node_slower_and_gives_others_their_turn() {
        let fast = taking(0.2, 0.0);
        let busy = Candidate { load: 3, ..fast };
        assert!(beats(taking(0.3, 0.0), busy), "an idle node that is a little slower");
        assert!(beats(busy, taking(0.9, 0.0)), "not one that is much slower");
        assert!(beats(IDLE, Candidate { load: 1, ..IDLE }));
        assert!(beats(IDLE, Candidate { served: 1, ..IDLE }));
        let large = Candidate { load: 2, capacity: 8, ..IDLE };
        assert!(beats(large, Candidate { load: 2, ..IDLE }), "the share counts");
    }

    #[test]
    fn a_level_is_worth_up_to_twice_the_tasks() {
        let trusted = Candidate { level: 10, ..IDLE };
        assert!(beats(Candidate { served: 1, ..trusted }, Candidate { served: 1, ..IDLE }));
        let equal = |high: u64, low: u64| {
            let (high, low) =
                (Candidate { served: high, ..trusted }, Candidate { served: low, ..IDLE });
            high.score() == low.score()
        };
        assert!(equal(2, 1) && equal(20, 10), "twice as many tasks are its share");
        assert!(beats(IDLE, Candidate { served: 1, ..trusted }), "who has none is not forgotten");
        assert!(beats(Candidate { level: 3, served: 5, ..IDLE }, Candidate { served: 5, ..IDLE }));
        assert_eq!(Candidate { level: 99, ..IDLE }.score(), trusted.score(), "no more than ten");
    }

    #[test]
    fn a_conversation_stays_while_its_node_is_well_and_has_room() {
        let known = Candidate { is_familiar: true, load: 2, served: 50, ..taking(0.3, 0.0) };
        assert!(beats(known, taking(0.3, 0.0)), "it is asked although another one is idle");
        assert!(beats(known, taking(0.2, 0.0)), "and a little faster");
        assert!(beats(taking(0.05, 0.0), known), "not if it is much faster");
        assert!(beats(taking(0.3, 0.0), Candidate { load: 3, ..known }), "it is crowded");
        assert!(beats(taking(5.0, 0.0), Candidate { rests: true, ..known }), "it is not well");
    }
}
