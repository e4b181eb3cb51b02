//! What has to be done for the router's own sessions. No IO, no clock.

use assay_types::{Lane, ModelId, SessionId};

use super::{Opening, OwnSessions};
use crate::book::session::{SessionState, SessionView};

/// One of the router's own sessions, and what is left in its lane, minor units.
#[derive(Clone, Debug)]
pub struct Own {
    /// The session.
    pub view: SessionView,
    /// Neither spent nor held.
    pub left: u128,
}

/// Something to do. Its key is the same until it is done, also after a restart, so that it is done once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// A model has no session.
    Open {
        /// What to open.
        opening: Opening,
        /// Sessions of this model that the router has opened before.
        before: usize,
    },
    /// Little is left in a lane.
    TopUp {
        /// The session.
        session: SessionId,
        /// The router's lane.
        lane: Lane,
        /// What to add, minor units.
        amount: u128,
        /// What the lane has been given so far, minor units.
        allotment: u128,
    },
}

impl Move {
    /// Names it.
    pub fn key(&self) -> String {
        match self {
            Self::Open { opening, before } => {
                let OwnSessions { deposit, max_nodes, .. } = opening.terms;
                format!("open:{}:{before}:{deposit}:{max_nodes}", opening.model)
            }
            Self::TopUp { session, lane, amount, allotment } => {
                format!("top-up:{session}:{lane}:{allotment}:{amount}")
            }
        }
    }
}

/// What has to be done. A session that drains is followed by another while it still serves.
pub fn moves(own: &[Own], models: &[ModelId], terms: &OwnSessions) -> Vec<Move> {
    let mut moves = Vec::new();
    for model in models {
        let of_model: Vec<&Own> = own.iter().filter(|own| own.view.model == *model).collect();
        let lives = |own: &&Own| {
            matches!(own.view.state, SessionState::Open | SessionState::Active)
                && own.view.reclaim_at == 0
        };
        let Some(living) = of_model.iter().copied().find(lives) else {
            let opening = Opening { model: *model, terms: *terms };
            moves.push(Move::Open { opening, before: of_model.len() });
            continue;
        };
        if living.view.state == SessionState::Active && living.left < terms.top_up_below {
            moves.push(Move::TopUp {
                session: living.view.id,
                lane: living.view.lane,
                amount: terms.deposit,
                allotment: living.view.allotment,
            });
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use assay_types::B256;

    use super::*;

    const TERMS: OwnSessions = OwnSessions { deposit: 100, top_up_below: 25, max_nodes: 2 };

    fn model(byte: u8) -> ModelId {
        ModelId(B256::repeat_byte(byte))
    }

    fn own(id: u64, state: SessionState, left: u128) -> Own {
        let mut view = SessionView::opened(SessionId(id), model(1), (1, 1));
        (view.state, view.lane, view.allotment) = (state, Lane(1), 95);
        Own { view, left }
    }

    fn open(byte: u8, before: usize) -> Move {
        Move::Open { opening: Opening { model: model(byte), terms: TERMS }, before }
    }

    #[test]
    fn every_model_has_one_session_that_lives() {
        let models = [model(1), model(2)];
        assert_eq!(moves(&[], &models, &TERMS), [open(1, 0), open(2, 0)]);
        let waiting = own(1, SessionState::Open, 95);
        assert_eq!(moves(std::slice::from_ref(&waiting), &models, &TERMS), [open(2, 0)]);
        let ended = [own(1, SessionState::Draining, 95), own(2, SessionState::Closed, 0)];
        assert_eq!(moves(&ended, &models[..1], &TERMS), [open(1, 2)]);
        let followed = [ended[0].clone(), own(3, SessionState::Active, 95)];
        assert_eq!(moves(&followed, &models[..1], &TERMS), []);
        assert_ne!(open(1, 0).key(), open(1, 1).key());
    }

    #[test]
    fn a_lane_is_filled_once_for_each_time_that_little_is_left() {
        let models = [model(1)];
        assert_eq!(moves(&[own(1, SessionState::Active, 25)], &models, &TERMS), []);
        // A session that still waits for its nodes spends nothing.
        assert_eq!(moves(&[own(1, SessionState::Open, 24)], &models, &TERMS), []);
        let mut low = own(1, SessionState::Active, 24);
        let first = moves(std::slice::from_ref(&low), &models, &TERMS);
        let [Move::TopUp { session: SessionId(1), lane: Lane(1), amount: 100, allotment: 95 }] =
            first[..]
        else {
            panic!("{first:?}")
        };
        let key = first[0].key();
        low.view.allotment += 100;
        assert_ne!(moves(&[low], &models, &TERMS)[0].key(), key, "the next one is another");
    }
}
