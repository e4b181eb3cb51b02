//! Blocks and the events of the protocol in them.

use alloy::primitives::{Address, B256, LogData};
use alloy::sol_types::SolEvent;
use assay_bindings::{
    Deployment, ModelRegistry, NodePool, NodeStats, Parameters, RandomBeacon, Session,
    SessionPayment, SessionQueue,
};

/// A block by number and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
}

/// A canonical block with the protocol's events in their order; most blocks have none.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Number and hash.
    pub at: BlockRef,
    /// Hash of the parent.
    pub parent: B256,
    /// Unix seconds.
    pub timestamp: u64,
    /// Events of the deployment's contracts, in order.
    pub events: Vec<Event>,
}

/// One event of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Transaction that emitted it.
    pub tx_hash: B256,
    /// Index of the log in its block.
    pub log_index: u64,
    /// What happened.
    pub body: ProtocolEvent,
}

/// What became of the canonical chain.
#[derive(Debug, Clone, PartialEq)]
pub enum ChainEvent {
    /// The next block.
    Committed(Block),
    /// This block, the newest one committed so far, is no longer canonical: undo what it taught.
    Reverted(Block),
}

impl ChainEvent {
    /// The block that was committed or reverted.
    pub fn block(&self) -> &Block {
        match self {
            Self::Committed(block) | Self::Reverted(block) => block,
        }
    }
}

/// One variant per event: decoding by contract and topic, encoding for the table of recent blocks.
macro_rules! protocol_events {
    ($($contract:ident at $field:ident { $($event:ident),* $(,)? })*) => {
        /// Every event of the protocol's contracts; those of the token itself are left out.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, clippy::large_enum_variant)]
        pub enum ProtocolEvent {
            $($($event($contract::$event),)*)*
        }

        impl ProtocolEvent {
            /// Contracts that emit these events.
            pub(crate) fn emitters(deployment: &Deployment) -> Vec<Address> {
                vec![$(deployment.$field),*]
            }

            /// The event in a log; `None` if the contract or the topic is none of ours.
            ///
            /// # Errors
            /// A log of ours that does not decode: the contracts are not those of this program.
            pub fn decode(
                deployment: &Deployment,
                address: Address,
                log: &LogData,
            ) -> Result<Option<Self>, alloy::sol_types::Error> {
                let Some(topic) = log.topics().first() else { return Ok(None) };
                $(if address == deployment.$field {
                    $(if *topic == $contract::$event::SIGNATURE_HASH {
                        return $contract::$event::decode_log_data(log).map(Self::$event).map(Some);
                    })*
                })*
                Ok(None)
            }

            /// The event of a log that [`Self::encode`] made: no two of the protocol's events have the same
            /// topic, so that the contract need not be known.
            pub(crate) fn from_log(log: &LogData) -> Result<Option<Self>, alloy::sol_types::Error> {
                let Some(topic) = log.topics().first() else { return Ok(None) };
                $($(if *topic == $contract::$event::SIGNATURE_HASH {
                    return $contract::$event::decode_log_data(log).map(Self::$event).map(Some);
                })*)*
                Ok(None)
            }

            /// Topics and data, from which [`Self::from_log`] makes the event again.
            pub(crate) fn encode(&self) -> LogData {
                match self {
                    $($(Self::$event(event) => event.encode_log_data(),)*)*
                }
            }

            /// Name of the event, for logs and metrics.
            pub fn name(&self) -> &'static str {
                match self {
                    $($(Self::$event(_) => stringify!($event),)*)*
                }
            }

            /// Contract, name and topic of every event.
            #[cfg(test)]
            pub(crate) fn all() -> Vec<(&'static str, &'static str, B256)> {
                vec![$($((
                    stringify!($contract),
                    stringify!($event),
                    $contract::$event::SIGNATURE_HASH,
                ),)*)*]
            }
        }
    };
}

protocol_events! {
    Parameters at parameters {
        TermsProposed, TermsWithdrawn, GovernorProposed, GovernorChanged,
    }
    ModelRegistry at models { ModelRegistered, ModelDeprecated }
    NodeStats at stats { StatsChanged }
    NodePool at nodes {
        NodeRegistered, Offered, OperatorChanged, PayoutChanged, NodeStateChanged, DrawEntered,
        DrawPassed, NodeReserved, NodeReleased,
    }
    Session at sessions {
        SessionOpened, LaneAdded, LaneReclaimed, SessionToppedUp, SessionDrawing, SessionActivated,
        RotationDropped, SessionDraining, SessionClosed,
    }
    SessionQueue at queue {
        TaskSubmitted, PartChanged, TaskPrecommitted, TaskCommitted, TaskMoved, TaskSettled,
        TaskRefunded, AnswerDelivered,
    }
    SessionPayment at payment {
        Deposited, FundsMoved, SessionReturned, Credited, Staked, StakeReleased, Slashed, Withdrawn,
        Burnt,
    }
    RandomBeacon at beacon { RoundRevealed }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// An event that somebody adds to a contract must not be lost silently.
    #[test]
    fn every_event_of_the_abi_has_a_variant() {
        let known: BTreeSet<(String, String)> = ProtocolEvent::all()
            .into_iter()
            .map(|(contract, event, _)| (contract.to_string(), event.to_string()))
            .collect();
        let mut declared = BTreeSet::new();
        for contract in [
            "ModelRegistry",
            "NodePool",
            "Session",
            "SessionQueue",
            "SessionPayment",
            "RandomBeacon",
        ] {
            let path =
                format!("{}/../bindings/artifacts/{contract}.json", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            for item in json["abi"].as_array().unwrap() {
                // OpenZeppelin's, never emitted: the domain is fixed.
                if item["type"] == "event" && item["name"] != "EIP712DomainChanged" {
                    let name = item["name"].as_str().unwrap().to_string();
                    declared.insert((contract.to_string(), name));
                }
            }
        }
        assert!(!declared.is_empty());
        assert_eq!(known, declared);
    }

    /// Stored events are told apart by their topic alone.
    #[test]
    fn topics_are_unique() {
        let all = ProtocolEvent::all();
        let topics: BTreeSet<B256> = all.iter().map(|(_, _, topic)| *topic).collect();
        assert_eq!(topics.len(), all.len());
    }
}
