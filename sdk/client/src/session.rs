//! Sessions and their money.

use std::time::Duration;

use alloy::{
    primitives::{
        Address, B256, U256,
        aliases::{U80, U96},
    },
    sol_types::SolCall,
};
use assay_bindings::{ModelRegistry, RandomBeacon, Session, SessionPayment};
use assay_types::{Lane, ModelId, NodeId, SessionId};

use crate::{Client, ClientError, Reader, Wallet};

/// COR's place among the assets: the first.
pub const COR_ASSET: u8 = 0;
/// Names of `SessionState`, in its order.
const STATES: [&str; 5] = ["none", "open", "active", "draining", "closed"];
/// Pause between two looks at a session that waits for its nodes.
const POLL: Duration = Duration::from_millis(200);

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The model that its nodes serve.
    pub model_id: ModelId,
    /// Minor units of COR, the lanes' included.
    pub deposit: u128,
    /// Drawn nodes without which it does not begin; 0 with `max_nodes` 0 for dedicated ones alone.
    pub min_nodes: u8,
    /// Drawn nodes at most.
    pub max_nodes: u8,
    /// Nodes that are dedicated to the opener and shall serve it.
    pub dedicated: Vec<u32>,
    /// Lanes beside the owner's: who signs in each, and the minor units that are reserved for it. A lane of one's own
    /// key is what [`Client::sign`] needs.
    pub lanes: Vec<(Address, u128)>,
}

/// A session, as the chain has it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its number.
    pub session: SessionId,
    /// `open`, `active`, `draining` or `closed`.
    pub state: &'static str,
    /// What the contract says of it; amounts are minor units.
    pub info: Session::SessionInfo,
    /// Its model.
    pub model_id: ModelId,
    /// Whether the seed of its current reservation is known: only then do its nodes serve.
    pub is_seeded: bool,
    /// Its lanes, the owner's first.
    pub lanes: Vec<LaneView>,
}

/// A lane and its money.
#[derive(Clone, Debug)]
pub struct LaneView {
    /// Its number; 0 is the owner's.
    pub lane: Lane,
    /// Who signs in it.
    pub holder: Address,
    /// Minor units that no task holds.
    pub free: U256,
    /// Minor units that open tasks hold.
    pub held: U256,
    /// One more than the largest nonce that the chain has.
    pub next_nonce: u64,
    /// Unix seconds at which the owner takes it back; 0: not.
    pub reclaim_at_s: u64,
}

/// Minor units as the contracts take them; the supply of COR fits 96 bits.
fn minor(amount: u128) -> Result<U96, ClientError> {
    U96::try_from(amount).map_err(|_| ClientError::TooMuch(amount))
}

impl Reader {
    /// A session with its lanes; `None` if there is none of that number.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn session(&self, session: u64) -> Result<Option<SessionView>, ClientError> {
        let contract = Session::new(self.chain.deployment.sessions, &self.chain.provider);
        if session == 0 || session > contract.sessionCount().call().await? {
            return Ok(None);
        }
        let info = contract.sessionOf(session).call().await?;
        let beacon = RandomBeacon::new(self.chain.deployment.beacon, &self.chain.provider);
        let seed = match info.current.seedRound {
            0 => B256::ZERO,
            round => beacon.valueOf(round).call().await?,
        };
        let models = ModelRegistry::new(self.chain.deployment.models, &self.chain.provider);
        let model_id = ModelId(models.modelAt(info.model).call().await?.modelId);
        let payment = SessionPayment::new(self.chain.deployment.payment, &self.chain.provider);
        let mut lanes = Vec::new();
        for lane in 0..contract.laneCount(session).call().await?.to::<u32>() {
            let of = contract.laneOf(session, lane).call().await?;
            let funds = payment.fundsOf(session, lane).call().await?;
            lanes.push(LaneView {
                lane: Lane(lane),
                holder: of.holder,
                free: U256::from(funds.free),
                held: U256::from(funds.held),
                next_nonce: funds.nextNonce,
                reclaim_at_s: of.reclaimAt.to::<u64>(),
            });
        }
        let state = STATES.get(usize::from(info.state)).copied().unwrap_or("unknown");
        let is_seeded = !seed.is_zero();
        Ok(Some(SessionView {
            session: SessionId(session),
            state,
            info,
            model_id,
            is_seeded,
            lanes,
        }))
    }

    /// Waits until the nodes of a session are drawn and their seed is known, at most so long; the nodes.
    ///
    /// # Errors
    /// If it ends before, or is not ready in that time.
    pub async fn wait_for_nodes(
        &self,
        session: u64,
        longest: Duration,
    ) -> Result<Vec<NodeId>, ClientError> {
        let begun = tokio::time::Instant::now();
        loop {
            let view = self.session(session).await?;
            let state = view.as_ref().map_or("none", |view| view.state);
            let ready = view.filter(|view| view.is_seeded && view.state == "active");
            if let Some(view) = ready {
                return Ok(view.info.current.nodes.into_iter().map(NodeId).collect());
            }
            if !["open", "active"].contains(&state) || begun.elapsed() > longest {
                return Err(ClientError::NotReady { session, state });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Wallet {
    /// Opens a session and returns its number. Its nodes are drawn within seconds after it.
    ///
    /// # Errors
    /// If the account has too little COR, or the contract refuses.
    pub async fn open_session(&self, opening: &Opening) -> Result<u64, ClientError> {
        self.allow_payment(U256::from(opening.deposit)).await?;
        let lane = |(holder, allotment): &(Address, u128)| {
            Ok(Session::LaneTerms { holder: *holder, allotment: minor(*allotment)? })
        };
        let call = Session::openCall {
            terms: Session::OpenTerms {
                modelId: opening.model_id.0,
                asset: COR_ASSET,
                minNodes: opening.min_nodes,
                maxNodes: opening.max_nodes,
                dedicated: opening.dedicated.clone(),
                maxPriceIn: U80::MAX,
                maxPriceOut: U80::MAX,
                deposit: minor(opening.deposit)?,
                lanes: opening.lanes.iter().map(lane).collect::<Result<_, ClientError>>()?,
            },
        };
        let receipt = self.send(self.chain.deployment.sessions, call).await?;
        receipt
            .decoded_log::<Session::SessionOpened>()
            .map(|log| log.sessionId)
            .ok_or(ClientError::NoEffect("opened no session"))
    }

    /// Adds minor units of COR to a lane of any session.
    ///
    /// # Errors
    /// If the account has too little, or the contract refuses.
    pub async fn fund(&self, session: u64, lane: u32, amount: u128) -> Result<(), ClientError> {
        self.allow_payment(U256::from(amount)).await?;
        let call = Session::topUpCall { sessionId: session, lane, amount: minor(amount)? };
        self.change(call).await
    }

    /// Gives `holder` a lane of one's own session, with minor units out of the owner's.
    ///
    /// # Errors
    /// If the session is another's, or its own lane has too little.
    pub async fn add_lane(
        &self,
        session: u64,
        holder: Address,
        allotment: u128,
    ) -> Result<(), ClientError> {
        let terms = Session::LaneTerms { holder, allotment: minor(allotment)? };
        self.change(Session::addLaneCall { sessionId: session, terms }).await
    }

    /// Closes one's own session: it finishes what was begun, and takes nothing new in the owner's lane.
    ///
    /// # Errors
    /// If the session is another's, or not active.
    pub async fn close(&self, session: u64) -> Result<(), ClientError> {
        self.change(Session::closeCall { sessionId: session }).await
    }

    /// Ends a closed session whose notice is over: what is left becomes the owner's balance, which
    /// [`Wallet::withdraw`] pays out. Anyone may, for a tip; oracles do.
    ///
    /// # Errors
    /// If it has not come to that yet.
    pub async fn finish(&self, session: u64) -> Result<(), ClientError> {
        self.change(Session::finishCall { sessionId: session }).await
    }

    /// Sends one call about a session.
    ///
    /// # Errors
    /// If the contract refuses.
    pub async fn change(&self, call: impl SolCall) -> Result<(), ClientError> {
        self.send(self.chain.deployment.sessions, call).await.map(drop)
    }
}

impl Client {
    /// Opens a session and waits until its nodes serve, at most so long; its number and its nodes.
    ///
    /// # Errors
    /// As [`Wallet::open_session`] and [`Reader::wait_for_nodes`].
    pub async fn open(
        &self,
        opening: &Opening,
        longest: Duration,
    ) -> Result<(u64, Vec<NodeId>), ClientError> {
        let session = self.wallet.open_session(opening).await?;
        Ok((session, self.reader.wait_for_nodes(session, longest).await?))
    }
}
