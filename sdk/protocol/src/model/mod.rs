//! What a call of a contract does: the events that it emits, or the error that it is refused with.
//!
//! A call looks at the state and tells events; the events alone change the state. So what a call does next sees what
//! it did before, and nothing can happen that the events do not tell.

mod admission;
mod answers;
mod audits;
mod beacon;
mod demands;
mod draws;
mod endings;
mod exposure;
mod judgements;
mod models;
mod nodes;
mod panels;
mod payment;
mod penalties;
mod phases;
mod sessions;
mod tunables;

use alloy::{
    primitives::{Address, B256},
    sol_types::{self, SolCall, SolInterface},
};
use assay_bindings::{
    Deployment,
    ModelRegistry::{self, ModelRegistryCalls},
    NodePool::{self, NodePoolCalls},
    NodeStats::{self, NodeStatsCalls},
    Parameters::{self, ParametersCalls},
    ProofOfInference::{self, ProofOfInferenceCalls},
    RandomBeacon,
    Session::{self, SessionCalls},
    SessionPayment::{self, SessionPaymentCalls},
    SessionQueue::{self, SessionQueueCalls},
};

use crate::{event::ProtocolEvent, refusal::Failure, state::State};

/// What the protocol asks of contracts and beacons outside itself.
pub trait Outside {
    /// Whether a contract accepts a signature (EIP-1271).
    fn accepts(&self, account: Address, hash: B256, signature: &[u8]) -> bool;

    /// Whether a call of a consumer with so much gas succeeds.
    fn takes_answer(&self, consumer: Address, gas: u32) -> bool;

    /// The hash of a block.
    fn block_hash(&self, number: u64) -> B256;

    /// Whether a point of the curve, 64 bytes, is the drand network's signature of a round.
    fn is_signature(&self, round: u64, point: &[u8]) -> bool;
}

/// Who calls, when, and in what world.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// `msg.sender`.
    pub caller: Address,
    /// Unix seconds of the block.
    pub time_s: u64,
    /// Number of the block.
    pub block: u64,
    /// What else is on the chain.
    pub outside: &'a dyn Outside,
}

/// A call of a contract with its arguments.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Call {
    Parameters(ParametersCalls),
    Models(ModelRegistryCalls),
    Stats(NodeStatsCalls),
    Nodes(NodePoolCalls),
    Sessions(SessionCalls),
    Queue(SessionQueueCalls),
    Payment(SessionPaymentCalls),
    Proof(ProofOfInferenceCalls),
    /// Of the beacon, whichever it is.
    Beacon(RandomBeacon::revealCall),
}

impl Call {
    /// The call that calldata for a contract means; `None` if the contract is none of those that calls change.
    ///
    /// # Errors
    /// Calldata of no function of the contract.
    pub fn decode(
        deployment: &Deployment,
        contract: Address,
        input: &[u8],
    ) -> Result<Option<Self>, sol_types::Error> {
        macro_rules! decoded {
            ($($field:ident => $variant:ident($calls:ident)),* $(,)?) => {
                $(if contract == deployment.$field {
                    return $calls::abi_decode(input).map(Self::$variant).map(Some);
                })*
            };
        }
        decoded! {
            parameters => Parameters(ParametersCalls), models => Models(ModelRegistryCalls),
            stats => Stats(NodeStatsCalls), nodes => Nodes(NodePoolCalls),
            sessions => Sessions(SessionCalls), queue => Queue(SessionQueueCalls),
            payment => Payment(SessionPaymentCalls), proof => Proof(ProofOfInferenceCalls),
        }
        if contract == deployment.beacon {
            return RandomBeacon::revealCall::abi_decode(input).map(Self::Beacon).map(Some);
        }
        Ok(None)
    }
}

/// From a call of one function.
macro_rules! calls {
    ($($contract:ident in $variant:ident as $calls:ident { $($function:ident $call:ident),* $(,)? })*) => {
        $($(impl From<$contract::$call> for Call {
            fn from(call: $contract::$call) -> Self {
                Self::$variant($calls::$function(call))
            }
        })*)*
    };
}

calls! {
    Parameters in Parameters as ParametersCalls {
        propose proposeCall, withdrawProposal withdrawProposalCall,
        proposeGovernor proposeGovernorCall, acceptGovernor acceptGovernorCall,
    }
    ModelRegistry in Models as ModelRegistryCalls {
        register registerCall, deprecate deprecateCall, calibrate calibrateCall,
        attest attestCall,
    }
    NodeStats in Stats as NodeStatsCalls { count countCall }
    NodePool in Nodes as NodePoolCalls {
        register registerCall, setOperator setOperatorCall, setPayout setPayoutCall,
        drain drainCall, resume resumeCall, exit exitCall, releaseStake releaseStakeCall,
        enterDraw enterDrawCall, reserve reserveCall, reserveNamed reserveNamedCall,
        release releaseCall, jail jailCall,
    }
    Session in Sessions as SessionCalls {
        open openCall, openWithPermit openWithPermitCall, topUp topUpCall, addLane addLaneCall,
        reclaimLane reclaimLaneCall, finishReclaim finishReclaimCall, activate activateCall,
        rotate rotateCall, expire expireCall, close closeCall, finish finishCall,
    }
    SessionQueue in Queue as SessionQueueCalls {
        submit submitCall, submitSigned submitSignedCall, submitAndCommit submitAndCommitCall,
        submitAndPrecommit submitAndPrecommitCall, claim claimCall, cancel cancelCall,
        decline declineCall, precommit precommitCall, commit commitCall, advance advanceCall,
        settle settleCall, deliver deliverCall, reportEquivocation reportEquivocationCall,
    }
    SessionPayment in Payment as SessionPaymentCalls {
        withdraw withdrawCall, deposit depositCall, topUp topUpCall, r#move moveCall,
        payTip payTipCall, returnRest returnRestCall, hold holdCall, pay payCall,
        refund refundCall, give giveCall, fund fundCall, stake stakeCall, releaseStake releaseStakeCall,
        slash slashCall,
    }
    ProofOfInference in Proof as ProofOfInferenceCalls {
        expose exposeCall, resolve resolveCall, book bookCall, closeEpoch closeEpochCall,
        commitAudit commitAuditCall, openProof openProofCall, reveal revealCall,
        demandData demandDataCall, publishData publishDataCall, convene conveneCall,
        commitPanel commitPanelCall, testify testifyCall, judge judgeCall, appeal appealCall,
        reconvene reconveneCall, advanceAudit advanceAuditCall, advancePanel advancePanelCall, collect collectCall,
    }
}

/// The events of a call, in their order; none of one that only reads.
///
/// # Errors
/// What the contracts refuse the call with, or that the state is not whole.
pub fn predict(state: &State, at: &At<'_>, call: &Call) -> Result<Vec<ProtocolEvent>, Failure> {
    enact(&mut state.clone(), at, call)
}

/// As [`predict`], but the call takes place in the state: what it costs does not depend on how much is stored. A call
/// that is refused leaves the state half-changed.
///
/// # Errors
/// As [`predict`].
pub fn enact(state: &mut State, at: &At<'_>, call: &Call) -> Result<Vec<ProtocolEvent>, Failure> {
    let nothing = State::new(state.network.clone());
    let mut run = Run { state: std::mem::replace(state, nothing), at: *at, events: Vec::new() };
    let outcome = run.call(call);
    *state = run.state;
    outcome.map(|()| run.events)
}

/// A call on its way.
struct Run<'a> {
    state: State,
    at: At<'a>,
    events: Vec<ProtocolEvent>,
}

impl Run<'_> {
    fn call(&mut self, call: &Call) -> Result<(), Failure> {
        match call {
            Call::Parameters(call) => self.parameters(call),
            Call::Models(call) => self.models(call),
            Call::Stats(call) => self.stats(call),
            Call::Nodes(call) => self.nodes(call),
            Call::Sessions(call) => self.sessions(call),
            Call::Queue(call) => self.queue(call),
            Call::Payment(call) => self.payment(call),
            Call::Proof(call) => self.proof(call),
            Call::Beacon(call) => self.reveal(call),
        }
    }

    fn emit(&mut self, event: impl Into<ProtocolEvent>) -> Result<(), Failure> {
        let event = event.into();
        self.state.fold(self.at.time_s, &event)?;
        self.events.push(event);
        Ok(())
    }
}
