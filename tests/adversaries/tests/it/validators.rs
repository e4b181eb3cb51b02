//! How validators and members of a panel conduct themselves.

use std::collections::BTreeSet;

/// What somebody does who is to check an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// Runs the model, tells what it finds.
    #[default]
    Honest,
    /// Never commits.
    Silent,
    /// Commits to nothing that it could open.
    Garbage,
    /// Commits to a tree of zeros, without having run the model.
    Guesses,
    /// Commits to what the miner committed to.
    CopiesTheMiner,
    /// Commits to what another member of the panel committed to.
    CopiesAPeer,
    /// Was given the miner's record, and finds it good.
    Vouches,
    /// Tells what it finds, but says that every block fails.
    AccusesWithItsOwn,
    /// Says that every block fails, and invents contrasts for it.
    AccusesWithInvented,
    /// Invents margins at sixteen positions.
    AccusesTheSampling,
    /// Says that the answer has no end.
    AccusesTheEnd,
    /// Demands the answer, and says that it cannot read it, whatever is published.
    CannotRead,
    /// Says that it cannot read the answer, and does not demand it.
    SaysUnread,
    /// Cannot read the answer where it looks, demands it, and tells what it finds.
    Demands,
    /// Commits to what it finds, and does not open it.
    Hides,
}

impl Duty {
    /// Whether what it committed to can be opened.
    pub fn can_open(self) -> bool {
        !matches!(self, Self::Garbage | Self::CopiesTheMiner | Self::CopiesAPeer)
    }

    /// Whether it demands an answer that others can read.
    pub fn demands(self) -> bool {
        matches!(self, Self::Demands | Self::CannotRead)
    }

    /// Whether it looks at the answer.
    pub fn reads(self) -> bool {
        !matches!(
            self,
            Self::Silent | Self::Garbage | Self::Guesses | Self::Vouches | Self::SaysUnread
        )
    }
}

/// As what a node was drawn.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// The first validator, or one that follows silent ones.
    Validator(usize),
    /// Of a panel.
    Member(usize),
    /// Of the panel of an appeal.
    OfAppeal(usize),
}

/// Who does what.
#[derive(Clone, Debug, Default)]
pub struct Conduct {
    /// Of the validators, in the order in which they are drawn.
    pub validators: [Duty; 3],
    /// Of the panel's members.
    pub panel: [Duty; 3],
    /// Of those of an appeal.
    pub appeal: [Duty; 7],
    /// Nodes that vouch for the miner whenever they are drawn.
    pub friends: BTreeSet<u32>,
}

impl Conduct {
    pub fn honest() -> Self {
        Self::default()
    }

    pub fn validator(duty: Duty) -> Self {
        Self { validators: [duty; 3], ..Self::default() }
    }

    pub fn panel(panel: [Duty; 3]) -> Self {
        Self { panel, ..Self::default() }
    }

    pub fn duty(&self, node: u32, role: Role) -> Duty {
        match role {
            _ if self.friends.contains(&node) => Duty::Vouches,
            Role::Validator(place) => self.validators[place],
            Role::Member(place) => self.panel[place],
            Role::OfAppeal(place) => self.appeal[place],
        }
    }
}
