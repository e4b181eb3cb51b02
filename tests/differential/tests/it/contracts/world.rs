//! The contracts in the embedded EVM, and the model's state beside them.

use std::{cell::RefCell, sync::Arc};

use alloy::{
    consensus::{TxEip1559, TypedTransaction},
    primitives::{
        Address, B256, Bytes, Log, TxKind, U256,
        aliases::{U24, U40, U80, U96},
    },
    rpc::types::{TransactionInput, TransactionRequest},
    sol_types::{SolCall, SolConstructor, SolInterface},
};
use assay_bindings::{
    BlockhashBeacon, CorToken, Deployment, DrandBeacon, ModelRegistry, NodePool, NodeStats,
    Parameters, ProofOfInference, Session, SessionPayment, SessionQueue, proof_creations,
};
use assay_evm::{CallAt, CallError, Chain, ChainConfig, impersonate};
use assay_protocol::{
    At, Call, Failure, Network, Outside, ProtocolEvent, Refusal, State, beacon::Beacon,
    level::LevelClock, predict,
};

use super::{
    drand::Published,
    people::{AGREEABLE_GAS, People},
    records::Cast,
};

pub const START_S: u64 = 1_800_000_000;
/// Of COR and of the second asset; it is never burnt, so the same code serves for it.
pub const SUPPLY: u128 = 10_u128.pow(28);
const PURSE: u128 = 10_u128.pow(25);
const TX_GAS: u64 = 20_000_000;
const DEPLOYER: Address = Address::repeat_byte(0xde);
const DELAY_S: u64 = 3600;
const DRAW_WINDOW_S: u64 = 120;
const LONGEST_AUDIT_S: u64 = 200;
const MAX_ROYALTY_BPS: u16 = 300;
const CLOCK: LevelClock = LevelClock { period_s: 20_000, epoch_s: 600 };

/// What a call did.
pub type Effect = Result<Vec<ProtocolEvent>, Refusal>;

pub struct World {
    pub chain: Chain,
    pub state: State,
    pub people: Arc<People>,
    /// What drand signed, where rounds are drand's.
    pub published: Published,
    /// Sends of the sequence so far, to be shown when something fails.
    pub log: RefCell<Vec<String>>,
    /// Who takes part in audits.
    pub cast: Cast,
}

/// What the protocol asks of the world, answered from the chain and from the contracts' code.
pub struct Around<'a> {
    chain: &'a Chain,
    people: &'a People,
    published: &'a Published,
}

impl Outside for Around<'_> {
    fn accepts(&self, account: Address, _: B256, _: &[u8]) -> bool {
        account == self.people.agreeable
    }

    fn takes_answer(&self, consumer: Address, gas: u32) -> bool {
        let enough = consumer != self.people.agreeable || gas >= AGREEABLE_GAS;
        enough && consumer != self.people.contrary
    }

    fn block_hash(&self, number: u64) -> B256 {
        self.chain.block(number).map_or(B256::ZERO, |block| block.hash)
    }

    fn is_signature(&self, round: u64, point: &[u8]) -> bool {
        self.published.is_signature(round, point)
    }
}

impl World {
    /// The contracts deployed, everybody rich, and nothing done yet.
    pub fn deploy(people: Arc<People>, beacon: Beacon) -> Self {
        let wealth = U256::from(10).pow(U256::from(30));
        let everybody = people.all().into_iter().chain([DEPLOYER]);
        let mut chain = Chain::new(ChainConfig {
            genesis_timestamp: START_S,
            accounts: everybody.map(|account| (account, wealth)).collect(),
            ..ChainConfig::default()
        });
        for (address, code) in people.contracts() {
            chain.set_code(address, code);
        }
        let at = |nonce: u64| DEPLOYER.create(nonce);
        let deployment = Deployment {
            chain_id: chain.chain_id(),
            token: at(0),
            beacon: at(2),
            parameters: at(3),
            models: at(4),
            payment: at(5),
            stats: at(6),
            nodes: at(7),
            sessions: at(8),
            queue: at(9),
            panel: at(10),
            judgement: at(11),
            proof: at(12),
        };
        let network = Network {
            deployment,
            proposal_delay_s: DELAY_S,
            draw_window_s: DRAW_WINDOW_S,
            longest_audit_s: LONGEST_AUDIT_S,
            max_royalty_bps: MAX_ROYALTY_BPS,
            assets: 2,
            clock: CLOCK,
            proof: proof_config(),
            beacon,
        };
        let state = State::new(network);
        let (log, cast) = (RefCell::default(), Cast::default());
        let mut world = Self { chain, state, people, published: Published::read(), log, cast };
        for code in creations(&world) {
            let events = world.transact(DEPLOYER, TxKind::Create, code.into(), START_S);
            for event in events.expect("a creation failed") {
                world.state.fold(START_S, &event).unwrap();
            }
        }
        world.spread_money();
        world
    }

    fn tokens(&self) -> [Address; 2] {
        [DEPLOYER.create(0), DEPLOYER.create(1)]
    }

    fn spread_money(&mut self) {
        let payment = self.state.network.deployment.payment;
        for token in self.tokens() {
            for account in self.people.all() {
                let call = CorToken::transferCall { to: account, value: U256::from(PURSE) };
                let sent = self.transact(DEPLOYER, token.into(), call.abi_encode().into(), START_S);
                sent.expect("a transfer failed");
                let call = CorToken::approveCall { spender: payment, value: U256::MAX };
                let sent = self.transact(account, token.into(), call.abi_encode().into(), START_S);
                sent.expect("an approval failed");
            }
        }
    }

    pub fn now_s(&self) -> u64 {
        self.chain.head().timestamp()
    }

    /// Mines an empty block.
    pub fn mine(&mut self, time_s: u64) {
        let sealed = self.chain.begin_block(time_s).unwrap().seal();
        self.chain.push(sealed).unwrap();
    }

    /// One transaction in its own block; the events of our contracts. `None`, and no block, if it reverts.
    fn transact(
        &mut self,
        from: Address,
        to: TxKind,
        input: Bytes,
        time_s: u64,
    ) -> Option<Vec<ProtocolEvent>> {
        let tx = TxEip1559 {
            chain_id: self.chain.chain_id(),
            nonce: self.chain.nonce(&from),
            gas_limit: TX_GAS,
            max_fee_per_gas: 1_000_000_000_000,
            max_priority_fee_per_gas: 0,
            to,
            value: U256::ZERO,
            access_list: Default::default(),
            input,
        };
        let mut block = self.chain.begin_block(time_s).unwrap();
        let receipt = block.execute(impersonate(TypedTransaction::Eip1559(tx), from)).unwrap();
        let deployment = &self.state.network.deployment;
        let ours = |log: &Log| ProtocolEvent::decode(deployment, log.address, &log.data).unwrap();
        let events = receipt.is_success().then(|| receipt.logs().iter().filter_map(ours).collect());
        if events.is_some() {
            let sealed = block.seal();
            self.chain.push(sealed).unwrap();
        }
        events
    }

    /// What the model says that a call does in the next block.
    pub fn foresee(&self, caller: Address, call: &Call, time_s: u64) -> Effect {
        let around =
            Around { chain: &self.chain, people: &self.people, published: &self.published };
        let block = self.chain.head().number() + 1;
        let at = At { caller, time_s, block, outside: &around };
        match predict(&self.state, &at, call) {
            Ok(events) => Ok(events),
            Err(Failure::Refused(refusal)) => Err(refusal),
            Err(Failure::Gap(gap)) => panic!("the model is not whole: {gap}"),
        }
    }

    /// What the contracts do with a call in the next block; a refused one makes no block.
    pub fn carry_out(&mut self, caller: Address, call: &Call, time_s: u64) -> Effect {
        let (to, input) = self.encode(call);
        if let Some(events) = self.transact(caller, to.into(), input.clone(), time_s) {
            return Ok(events);
        }
        let request = TransactionRequest {
            from: Some(caller),
            to: Some(to.into()),
            gas: Some(TX_GAS),
            input: TransactionInput::new(input),
            ..TransactionRequest::default()
        };
        match self.chain.call(&request, CallAt::Pending(time_s), None) {
            Err(CallError::Revert(data)) => Err(Refusal(data)),
            other => panic!("a transaction reverted, and as a call gives {other:?}"),
        }
    }

    fn encode(&self, call: &Call) -> (Address, Bytes) {
        let to = &self.state.network.deployment;
        let (to, input) = match call {
            Call::Parameters(call) => (to.parameters, call.abi_encode()),
            Call::Models(call) => (to.models, call.abi_encode()),
            Call::Stats(call) => (to.stats, call.abi_encode()),
            Call::Nodes(call) => (to.nodes, call.abi_encode()),
            Call::Sessions(call) => (to.sessions, call.abi_encode()),
            Call::Queue(call) => (to.queue, call.abi_encode()),
            Call::Payment(call) => (to.payment, call.abi_encode()),
            Call::Proof(call) => (to.proof, call.abi_encode()),
            Call::Beacon(call) => (to.beacon, call.abi_encode()),
        };
        (to, input.into())
    }
}

/// Creation code of every contract, in the order of its address.
fn creations(world: &World) -> Vec<Vec<u8>> {
    let (network, people) = (&world.state.network, &world.people);
    let to = &network.deployment;
    let token = || {
        let call = CorToken::constructorCall { holder: DEPLOYER, supply: U256::from(SUPPLY) };
        [CorToken::BYTECODE.to_vec(), call.abi_encode()].concat()
    };
    let parameters = Parameters::constructorCall {
        config: Parameters::Config {
            governor: people.governors[0],
            delay: U40::from(network.proposal_delay_s),
            drawWindow: U40::from(network.draw_window_s),
            longestAudit: U40::from(network.longest_audit_s),
            maxRoyaltyBps: network.max_royalty_bps,
        },
        first: first_terms(),
    };
    let models = ModelRegistry::constructorCall {
        wiring: ModelRegistry::Wiring { parameters: to.parameters, pool: to.nodes },
    };
    let payment = SessionPayment::constructorCall {
        wiring: SessionPayment::Wiring {
            pool: to.nodes,
            proof: to.proof,
            queue: to.queue,
            session: to.sessions,
        },
        assets: vec![DEPLOYER.create(0), DEPLOYER.create(1)],
    };
    let stats = NodeStats::constructorCall {
        wiring: NodeStats::Wiring { queue: to.queue },
        config: NodeStats::Config {
            epochLength: U40::from(CLOCK.epoch_s),
            levelPeriod: U40::from(CLOCK.period_s),
        },
    };
    let nodes = NodePool::constructorCall {
        wiring: NodePool::Wiring {
            session: to.sessions,
            queue: to.queue,
            models: to.models,
            payment: to.payment,
            stats: to.stats,
            parameters: to.parameters,
            proof: to.proof,
        },
    };
    let sessions = Session::constructorCall {
        wiring: Session::Wiring {
            beacon: to.beacon,
            models: to.models,
            parameters: to.parameters,
            payment: to.payment,
            pool: to.nodes,
        },
    };
    let queue = SessionQueue::constructorCall {
        wiring: SessionQueue::Wiring {
            beacon: to.beacon,
            models: to.models,
            parameters: to.parameters,
            payment: to.payment,
            pool: to.nodes,
            proof: to.proof,
            session: to.sessions,
            stats: to.stats,
        },
    };
    let beacon = match network.beacon {
        Beacon::Blockhash => BlockhashBeacon::BYTECODE.to_vec(),
        Beacon::Drand(drand) => {
            let network_ = world.published.network();
            let call = DrandBeacon::constructorCall { network_, maxDrift_: drand.max_drift_s };
            [DrandBeacon::BYTECODE.to_vec(), call.abi_encode()].concat()
        }
    };
    let [panel, judgement, proof] = proof_creations(to, network.proof.clone());
    vec![
        token(),
        token(),
        beacon,
        [Parameters::BYTECODE.to_vec(), parameters.abi_encode()].concat(),
        [ModelRegistry::BYTECODE.to_vec(), models.abi_encode()].concat(),
        [SessionPayment::BYTECODE.to_vec(), payment.abi_encode()].concat(),
        [NodeStats::BYTECODE.to_vec(), stats.abi_encode()].concat(),
        [NodePool::BYTECODE.to_vec(), nodes.abi_encode()].concat(),
        [Session::BYTECODE.to_vec(), sessions.abi_encode()].concat(),
        [SessionQueue::BYTECODE.to_vec(), queue.abi_encode()].concat(),
        panel.to_vec(),
        judgement.to_vec(),
        proof.to_vec(),
    ]
}

/// Times that fit `LONGEST_AUDIT_S` together.
fn proof_config() -> ProofOfInference::ProofConfig {
    let seconds = |seconds: u64| U40::from(seconds);
    ProofOfInference::ProofConfig {
        epochLength: seconds(5),
        roundTimeout: seconds(20),
        sealTime: seconds(10),
        openTime: seconds(10),
        revealTime: seconds(10),
        appealTime: seconds(10),
        minProbabilityBps: 500,
        gainBps: 6000,
        powerBps: 9500,
        auditShareBps: 200,
        auditPayBps: 2500,
        slashBps: 10_000,
        dutyBps: 100,
        proverBps: 5000,
        clientBps: 2000,
        appealBps: 1000,
    }
}

/// Short times, so that a sequence of some dozen steps sees all of them pass.
pub fn first_terms() -> Parameters::Terms {
    let seconds = |seconds: u64| U24::from(seconds);
    Parameters::Terms {
        session: Parameters::SessionTerms {
            minerBps: 9000,
            routerBps: 500,
            maxDeadline: seconds(60),
            attemptTime: seconds(10),
            revealTime: seconds(8),
            settleDelay: seconds(3),
            maxAttempts: 3,
            noticePeriod: seconds(130),
            reservationTimeout: seconds(110),
            reservePeriod: seconds(90),
            maxTasks: 6,
        },
        node: Parameters::NodeTerms {
            activationDelay: 2,
            unbondingPeriod: 350,
            collateralPerSlot: 10_u128.pow(20),
            slashBps: 5000,
            reporterBps: 1000,
        },
        assets: vec![
            Parameters::AssetTerms {
                tip: U96::from(10_u64.pow(14)),
                minDeposit: U96::from(10_u64.pow(18)),
            },
            Parameters::AssetTerms { tip: U96::from(100), minDeposit: U96::from(1_000_000) },
        ],
    }
}

/// Floors of models: of COR and of the second asset.
pub fn floors() -> [(U80, U80); 2] {
    let price = |units: u128| U80::from(units);
    [(price(10_u128.pow(19)), price(3 * 10_u128.pow(19))), (price(10_000_000), price(30_000_000))]
}
