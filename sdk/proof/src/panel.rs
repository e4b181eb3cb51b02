//! How several validators decide, each by its own numbers: integer rules that a contract does again.
//!
//! **F**: sixteen positions are drawn in the block that the accuser names, all open their leaves there. Two
//! members are *close* if their ids are the same and their contrasts agree within the limit of their
//! classes. The cluster of a medoid are all that are close to it, itself included; it wins with three
//! members of three owners and a strict majority. Whoever is in a winning cluster is cleared; if one wins,
//! all others lose; if none wins, nobody does. Two winning clusters overlap, so that the order of members
//! plays no role.
//!
//! **G**: sixteen positions at most, named by the accuser. The lower median of the members' margins decides
//! at each, for the miner in doubt.

use assay_types::Address;

use crate::{
    Calibration, Contrasts, Reasons, Statistics, calibration::MARGIN_CAP, fingerprint::agree,
};

/// Members, and owners, that a winning cluster has at least.
pub const CLUSTER_QUORUM: usize = 3;
/// Miner, two validators, a panel and an appeal with seven members: more do not take part.
pub const MAX_MEMBERS: usize = 16;

/// A leaf that a member opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The token.
    pub token: u32,
    /// What the member's model left there.
    pub contrasts: Contrasts,
}

/// One that opened its leaves at the positions in question, the miner among them.
#[derive(Clone, Debug)]
pub struct Member {
    /// Whose node it is.
    pub owner: Address,
    /// In the order of positions.
    pub leaves: Vec<Opened>,
}

/// Why members cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PanelError {
    /// None, or too many.
    #[error("1 to {MAX_MEMBERS} members decide, not {0}")]
    Members(usize),
    /// They did not open the same positions.
    #[error("a member opened {got} positions, another {want}")]
    Positions {
        /// What it opened.
        got: usize,
        /// What the first opened.
        want: usize,
    },
}

/// Whether ids and contrasts of two members, or of miner and validator at spot-checked positions, agree.
pub fn leaves_agree(ours: &[Opened], theirs: &[Opened], limit: u16) -> bool {
    let same_ids = ours.iter().map(|leaf| leaf.token).eq(theirs.iter().map(|leaf| leaf.token));
    let pairs = ours.iter().zip(theirs);
    same_ids && agree(pairs.flat_map(|(a, b)| a.contrasts.distances(&b.contrasts)), limit)
}

/// Who is in a winning cluster, in the order of members; `None` if none wins. `limit` is that of two
/// members' classes, by their places; `None` for classes that nobody calibrated, which are never close.
///
/// # Errors
/// If there are too few or too many members, or they opened different numbers of positions.
pub fn cluster(
    members: &[Member],
    limit: impl Fn(usize, usize) -> Option<u16>,
) -> Result<Option<Vec<bool>>, PanelError> {
    let first = members.first().ok_or(PanelError::Members(0))?;
    if members.len() > MAX_MEMBERS {
        return Err(PanelError::Members(members.len()));
    }
    let want = first.leaves.len();
    if let Some(other) = members.iter().find(|member| member.leaves.len() != want) {
        return Err(PanelError::Positions { got: other.leaves.len(), want });
    }
    let close = |(i, a): (usize, &Member), (j, b): (usize, &Member)| {
        let limit = || limit(i.min(j), i.max(j));
        i == j || limit().is_some_and(|limit| leaves_agree(&a.leaves, &b.leaves, limit))
    };
    let mut inside = vec![false; members.len()];
    for medoid in members.iter().enumerate() {
        let near: Vec<bool> =
            members.iter().enumerate().map(|other| close(medoid, other)).collect();
        if wins(members, &near) {
            inside.iter_mut().zip(near).for_each(|(cleared, near)| *cleared |= near);
        }
    }
    Ok(inside.contains(&true).then_some(inside))
}

fn wins(members: &[Member], near: &[bool]) -> bool {
    let mut owners: Vec<Address> = members
        .iter()
        .zip(near)
        .filter(|(_, near)| **near)
        .map(|(member, _)| member.owner)
        .collect();
    let size = owners.len();
    owners.sort_unstable();
    owners.dedup();
    owners.len() >= CLUSTER_QUORUM && 2 * size > members.len()
}

/// The lower median: half of the values, or more, are no larger. 0 of none.
pub fn lower_median(values: &[u32]) -> u32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Whether the margins of a panel prove what the accuser says. `margins` has, for each position that was
/// named, those of all members, in 1/65536 nat.
pub fn margins_convict(margins: &[Vec<u32>], calibration: &Calibration) -> bool {
    let medians = margins.iter().map(|of_members| lower_median(of_members));
    let (mut most, mut sum) = (0, 0_u64);
    for median in medians {
        most = median.max(most);
        sum += u64::from(median.min(MARGIN_CAP));
    }
    most > calibration.hard_margin || sum > u64::from(calibration.margin_bar)
}

/// The faults of an answer that more than half of a panel found.
pub fn upheld(panel: &[Statistics]) -> Reasons {
    let bits = (0..8).map(|bit| Reasons(1 << bit));
    bits.filter(|reason| {
        let found = panel.iter().filter(|member| member.faults.contains(*reason)).count();
        2 * found > panel.len()
    })
    .fold(Reasons::default(), |all, reason| all | reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calibration::tests::ordinary;

    /// A member of its own owner whose contrasts are all `value`.
    fn member(owner: u8, value: i16) -> Member {
        let contrasts = Contrasts::new(&[value; 4]).unwrap();
        Member {
            owner: Address::repeat_byte(owner),
            leaves: vec![Opened { token: 5, contrasts }; 16],
        }
    }

    fn decided(members: &[Member]) -> Option<Vec<bool>> {
        cluster(members, |_, _| Some(10)).unwrap()
    }

    fn of(values: &[i16]) -> Vec<Member> {
        (1..).zip(values).map(|(owner, value)| member(owner, *value)).collect()
    }

    #[test]
    fn a_liar_is_outside_the_cluster() {
        assert_eq!(decided(&of(&[900, 0, 5, 3, 1])), Some(vec![false, true, true, true, true]));
        assert_eq!(decided(&of(&[0, 0, 5, 3, 900])), Some(vec![true, true, true, true, false]));
    }

    #[test]
    fn without_a_majority_nobody_loses() {
        assert_eq!(decided(&of(&[900, 0, 0])), None);
        assert_eq!(decided(&of(&[900, 900, 900, 0, 0, 0])), None);
        assert_eq!(decided(&of(&[0, 100, 200, 300, 400])), None);
    }

    #[test]
    fn members_of_one_owner_are_no_quorum() {
        let mut members = of(&[900, 0, 0, 0]);
        assert_eq!(decided(&members), Some(vec![false, true, true, true]));
        members[3].owner = members[2].owner;
        assert_eq!(decided(&members), None);
    }

    #[test]
    fn who_is_near_a_majority_is_cleared() {
        // A chain: the second and the fourth are medoids of different majorities.
        assert_eq!(decided(&of(&[0, 8, 16, 24, 32])), Some(vec![true; 5]));
        // Only the middle one reaches three.
        assert_eq!(decided(&of(&[0, 8, 16, 80, 90])), Some(vec![true, true, true, false, false]));
    }

    #[test]
    fn other_ids_are_never_close() {
        let mut members = of(&[0, 0, 0, 0]);
        members[0].leaves[15].token = 6;
        assert_eq!(decided(&members), Some(vec![false, true, true, true]));
        assert!(!leaves_agree(&members[0].leaves[..15], &members[1].leaves, 10));
        assert!(leaves_agree(&members[0].leaves[..15], &members[1].leaves[..15], 10));
    }

    #[test]
    fn classes_have_limits_of_their_own() {
        let members = of(&[0, 40, 0, 0]);
        let limit = |i, j| Some(if i == 1 || j == 1 { 50 } else { 10 });
        assert_eq!(cluster(&members, limit).unwrap(), Some(vec![true; 4]));
        // Nobody knows what the second may differ by.
        let limit = |i, j| (i != 1 && j != 1).then_some(10);
        let members = of(&[0, 0, 0, 0]);
        assert_eq!(cluster(&members, limit).unwrap(), Some(vec![true, false, true, true]));
        assert_eq!(cluster(&members, |_, _| None).unwrap(), None);
    }

    #[test]
    fn hostile_panels_are_refused() {
        assert_eq!(cluster(&[], |_, _| Some(1)), Err(PanelError::Members(0)));
        assert_eq!(cluster(&of(&[0; 17]), |_, _| Some(1)), Err(PanelError::Members(17)));
        let mut members = of(&[0; 3]);
        members[2].leaves.pop();
        assert_eq!(
            cluster(&members, |_, _| Some(1)),
            Err(PanelError::Positions { got: 15, want: 16 })
        );
        // Nothing opened proves nothing.
        members.iter_mut().for_each(|member| member.leaves.clear());
        assert_eq!(cluster(&members, |_, _| Some(1)), Ok(None));
    }

    #[test]
    fn medians_of_margins_decide_for_the_miner_in_doubt() {
        assert_eq!(lower_median(&[9, 1, 5, 7]), 5);
        assert_eq!((lower_median(&[3]), lower_median(&[])), (3, 0));
        let calibration = ordinary();
        let hard = calibration.hard_margin + 1;
        assert!(margins_convict(&[vec![hard, hard, 0]], &calibration));
        assert!(!margins_convict(&[vec![hard, 0, 0]], &calibration));
        assert!(!margins_convict(&[vec![hard, hard, 0, 0]], &calibration));
        assert!(!margins_convict(&[], &calibration));
        // Many small ones: sixteen of 4,097 are more than 65,536.
        let many = |margin: u32| vec![vec![margin; 3]; 16];
        assert!(!margins_convict(&many(4096), &calibration));
        assert!(margins_convict(&many(4097), &calibration));
    }

    #[test]
    fn a_fault_needs_most_of_the_panel() {
        let of = |faults: &[Reasons]| -> Reasons {
            let all: Vec<_> = faults.iter().map(|f| Statistics::new(&[0], *f)).collect();
            upheld(&all)
        };
        let (end, text) = (Reasons::END, Reasons::TEXT);
        assert_eq!(of(&[end | text, end, Reasons::default()]), end);
        assert_eq!(of(&[end, Reasons::default()]), Reasons::default());
        assert_eq!(of(&[]), Reasons::default());
    }

    proptest! {
        /// What is decided does not depend on the order of members, and a cluster has a majority.
        #[test]
        fn order_plays_no_role(
            mut values in prop::collection::vec((0_i16..60, 1_u8..6), 1..9),
            turn in 0_usize..9,
        ) {
            let build = |values: &[(i16, u8)]| -> Vec<Member> {
                values.iter().map(|(value, owner)| member(*owner, *value)).collect()
            };
            let before = decided(&build(&values));
            let turn = turn % values.len();
            values.rotate_left(turn);
            let mut after = decided(&build(&values));
            if let Some(after) = &mut after {
                after.rotate_right(turn);
                prop_assert!(2 * after.iter().filter(|inside| **inside).count() > after.len());
            }
            prop_assert_eq!(before, after);
        }
    }
}
