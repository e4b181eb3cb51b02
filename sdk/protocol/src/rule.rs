//! For what stake is taken.

/// What was broken: `Rule` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Rule {
    /// Two different commitments signed for one task.
    Equivocation = 1,
    /// A drawn validator that did not commit in time.
    Idle = 2,
    /// A validator that committed to what it found and did not open it in time.
    Withheld = 3,
    /// A miner that did not open its proof, or what a panel compares, in time.
    Unopened = 4,
    /// Contrasts of other weights.
    Fingerprint = 5,
    /// Tokens that do not follow from the weights.
    Sampling = 6,
    /// An end, a text, a prompt or ids that are not what they should be.
    Content = 7,
    /// A validator that a quorum contradicts.
    Contradicted = 8,
}

impl TryFrom<u8> for Rule {
    type Error = u8;

    fn try_from(code: u8) -> Result<Self, u8> {
        Ok(match code {
            1 => Self::Equivocation,
            2 => Self::Idle,
            3 => Self::Withheld,
            4 => Self::Unopened,
            5 => Self::Fingerprint,
            6 => Self::Sampling,
            7 => Self::Content,
            8 => Self::Contradicted,
            other => return Err(other),
        })
    }
}
