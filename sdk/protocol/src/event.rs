//! The events that the contracts tell their state by.

use alloy::{
    primitives::{Address, B256, LogData},
    sol_types::{self, SolEvent},
};
use assay_bindings::{
    Deployment, ModelRegistry, NodePool, NodeStats, Parameters, ProofOfInference, RandomBeacon,
    Session, SessionPayment, SessionQueue,
};

/// One variant per event, decoding by contract and topic.
macro_rules! protocol_events {
    ($($contract:ident at $field:ident { $($event:ident),* $(,)? })*) => {
        /// Every event of the protocol's contracts; those of the tokens are left out.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, clippy::large_enum_variant)]
        pub enum ProtocolEvent {
            $($($event($contract::$event),)*)*
        }

        impl ProtocolEvent {
            /// Contracts that emit these events.
            pub fn emitters(deployment: &Deployment) -> Vec<Address> {
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
            ) -> Result<Option<Self>, sol_types::Error> {
                let Some(topic) = log.topics().first() else { return Ok(None) };
                $(if address == deployment.$field {
                    $(if *topic == $contract::$event::SIGNATURE_HASH {
                        return $contract::$event::decode_log_data(log).map(Self::$event).map(Some);
                    })*
                })*
                Ok(None)
            }

            /// The event of a log that [`Self::encode`] made: no two of the protocol's events have the same topic, so
            /// that the contract need not be known.
            ///
            /// # Errors
            /// A log of ours that does not decode.
            pub fn from_log(log: &LogData) -> Result<Option<Self>, sol_types::Error> {
                let Some(topic) = log.topics().first() else { return Ok(None) };
                $($(if *topic == $contract::$event::SIGNATURE_HASH {
                    return $contract::$event::decode_log_data(log).map(Self::$event).map(Some);
                })*)*
                Ok(None)
            }

            /// Topics and data, from which [`Self::from_log`] makes the event again.
            pub fn encode(&self) -> LogData {
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
            pub const ALL: &'static [(&'static str, &'static str, B256)] = &[$($((
                stringify!($contract),
                stringify!($event),
                $contract::$event::SIGNATURE_HASH,
            ),)*)*];
        }

        $($(impl From<$contract::$event> for ProtocolEvent {
            fn from(event: $contract::$event) -> Self {
                Self::$event(event)
            }
        })*)*
    };
}

protocol_events! {
    Parameters at parameters {
        TermsProposed, TermsWithdrawn, GovernorProposed, GovernorChanged,
    }
    ModelRegistry at models { ModelRegistered, ModelDeprecated, PairCalibrated, PairAttested }
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
        Deposited, FundsMoved, SessionReturned, TipPaid, Credited, Staked, StakeReleased, Slashed,
        Withdrawn, Burnt,
    }
    RandomBeacon at beacon { RoundRevealed }
    ProofOfInference at proof {
        AnswerExposed, EpochClosed, AnswerCleared, AnswerUnverified, AuditMoved, PanelMoved,
        ProofOpened, Verdict, DataDemanded, DataPublished, Appealed, Judged, RecordChanged,
        ClassPaused, BookChanged, AuditCollected,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use assay_bindings::abis;

    use super::*;

    /// An event that somebody adds to a contract must not be lost silently.
    #[test]
    fn every_event_of_the_abi_has_a_variant() {
        let known: BTreeSet<(String, B256)> = ProtocolEvent::ALL
            .iter()
            .map(|(_, name, topic)| ((*name).to_owned(), *topic))
            .collect();
        // Tokens' own, those of what deploys the others, and one of OpenZeppelin's that is never emitted.
        let others = ["Transfer", "Approval", "EIP712DomainChanged", "Created"];
        let declared = abis().into_iter().flat_map(|(_, abi)| abi.events.into_values().flatten());
        let declared: BTreeSet<(String, B256)> = declared
            .filter(|event| !others.contains(&event.name.as_str()))
            .map(|event| (event.name.clone(), event.selector()))
            .collect();
        assert_eq!(known, declared);
    }

    /// Stored events are told apart by their topic alone.
    #[test]
    fn topics_are_unique() {
        let topics: BTreeSet<B256> =
            ProtocolEvent::ALL.iter().map(|(_, _, topic)| *topic).collect();
        assert_eq!(topics.len(), ProtocolEvent::ALL.len());
    }
}
