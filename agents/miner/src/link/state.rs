//! The conversation with one router, without its connection. No IO, no clock.

use alloy::signers::{SignerSync, local::PrivateKeySigner};
use assay_types::{
    Address, B256, NodeId, TaskId,
    link::{
        DOMAIN_LINK_MINER, DOMAIN_LINK_ROUTER, FromMiner, FromRouter, LINK_VERSION, MISSED_PINGS,
        Offer, SignedCancellation, challenge_hash, version_of,
    },
};

use crate::ledger::Ledger;

/// Frames that cannot be read before the connection is given up: a router that speaks another version
/// must not be answered for ever.
const MAX_BAD_FRAMES: u32 = 8;
/// Ping intervals that the handshake may take.
const HANDSHAKE_TICKS: u32 = 2;

/// Who we are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub chain_id: u64,
    pub queue: Address,
    pub node: NodeId,
    pub capacity: u8,
}

impl Identity {
    /// A node of the ledger's deployment.
    pub(crate) fn new(ledger: &dyn Ledger, node: NodeId, capacity: u8) -> Self {
        Self { chain_id: ledger.chain_id(), queue: ledger.queue(), node, capacity }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Send(FromMiner),
    /// Both keys are proven.
    Opened {
        router: Address,
    },
    Offer {
        task: TaskId,
        offer: Box<Offer>,
    },
    Resume {
        task: TaskId,
        seq: u32,
    },
    Cancel {
        task: TaskId,
        signed: Option<SignedCancellation>,
    },
    /// Say it in the log.
    Note {
        code: String,
        message: String,
    },
    /// Give the connection up, and say why.
    Close {
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Greeted { router: Address, nonce: B256 },
    Open,
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct State {
    identity: Identity,
    operator: PrivateKeySigner,
    /// Random; the router signs it.
    nonce: B256,
    phase: Phase,
    bad_frames: u32,
    /// Ping intervals since the router said anything.
    silent: u32,
    pings: u64,
}

impl State {
    pub(crate) fn new(identity: Identity, operator: PrivateKeySigner, nonce: B256) -> Self {
        Self { identity, operator, nonce, phase: Phase::Start, bad_frames: 0, silent: 0, pings: 0 }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The router is there: something came, whatever it is.
    pub(crate) fn heard(&mut self) {
        if self.phase == Phase::Open {
            self.silent = 0;
        }
    }

    /// A ping interval has passed.
    pub(crate) fn on_tick(&mut self) -> Vec<Action> {
        self.silent += 1;
        match self.phase {
            Phase::Closed => vec![],
            Phase::Open if self.silent > MISSED_PINGS => {
                self.close(format!("the router was silent for {MISSED_PINGS} pings"))
            }
            Phase::Open => {
                self.pings += 1;
                vec![Action::Send(FromMiner::Ping { seq: self.pings })]
            }
            Phase::Start | Phase::Greeted { .. } if self.silent >= HANDSHAKE_TICKS => {
                self.close("the router did not finish the handshake".into())
            }
            Phase::Start | Phase::Greeted { .. } => vec![],
        }
    }

    /// A text came.
    pub(crate) fn on_text(&mut self, text: &str) -> Vec<Action> {
        match serde_json::from_str::<FromRouter>(text) {
            Ok(frame) => self.on_frame(frame),
            Err(_) if self.phase == Phase::Closed => vec![],
            Err(_) if self.phase == Phase::Start && version_of(text).is_some_and(is_other) => {
                self.other_version(version_of(text).unwrap_or_default())
            }
            Err(error) => {
                self.bad_frames += 1;
                if self.phase != Phase::Open || self.bad_frames > MAX_BAD_FRAMES {
                    return self.close(format!(
                        "the router sent what is no frame of this version: {error}"
                    ));
                }
                // One bad frame must not cost the other tasks their stream.
                let message = format!(
                    "this frame cannot be read: {error}; send those of version {LINK_VERSION}"
                );
                let frame = FromMiner::Error { task: None, code: "bad_frame".into(), message };
                vec![Action::Send(frame)]
            }
        }
    }

    fn on_frame(&mut self, frame: FromRouter) -> Vec<Action> {
        match (self.phase, frame) {
            (Phase::Closed, _) => vec![],
            (_, FromRouter::Ping { seq }) => vec![Action::Send(FromMiner::Pong { seq })],
            (_, FromRouter::Pong { .. }) => vec![],
            (Phase::Start, FromRouter::Challenge { version, chain_id, queue, router, nonce }) => {
                self.greet((version, chain_id, queue), router, nonce)
            }
            (Phase::Greeted { router, nonce: _ }, FromRouter::Welcome { signature }) => {
                let hash = self.hash(DOMAIN_LINK_ROUTER, router, self.nonce);
                match signature.recover_address_from_prehash(&hash) {
                    Ok(signer) if signer == router => {
                        (self.phase, self.silent) = (Phase::Open, 0);
                        vec![Action::Opened { router }]
                    }
                    _ => self.close(format!("whoever answers does not hold the key of router {router}: check router_urls")),
                }
            }
            (Phase::Open, FromRouter::Offer(offer)) => {
                let task = offer.request.task_id(self.identity.queue);
                vec![Action::Offer { task, offer }]
            }
            (Phase::Open, FromRouter::Resume { task, seq }) => vec![Action::Resume { task, seq }],
            (Phase::Open, FromRouter::Cancel { task, signed }) => {
                vec![Action::Cancel { task, signed }]
            }
            (Phase::Open, FromRouter::Drain) => vec![Action::Note {
                code: "drain".into(),
                message: "the router offers nothing more".into(),
            }],
            (Phase::Open, FromRouter::Error { code, message, .. }) => {
                vec![Action::Note { code: short(&code, 64), message: short(&message, 512) }]
            }
            (_, FromRouter::Error { code, message, .. }) => self.close(format!(
                "the router refused: {} ({})",
                short(&message, 512),
                short(&code, 64)
            )),
            (_, _) => self.close("the router sent a frame out of turn".into()),
        }
    }

    fn greet(
        &mut self,
        (version, chain_id, queue): (u32, u64, Address),
        router: Address,
        nonce: B256,
    ) -> Vec<Action> {
        let us = self.identity;
        if is_other(version) {
            return self.other_version(version);
        }
        if chain_id != us.chain_id || queue != us.queue {
            return self.close(format!(
                "the router works for SessionQueue {queue} on chain {chain_id}, this miner for {} on chain {}: connect to a router of the same deployment",
                us.queue, us.chain_id
            ));
        }
        let hash = self.hash(DOMAIN_LINK_MINER, router, nonce);
        let signature = match self.operator.sign_hash_sync(&hash) {
            Ok(signature) => signature,
            Err(error) => return self.close(format!("the operator key cannot sign: {error}")),
        };
        self.phase = Phase::Greeted { router, nonce };
        vec![Action::Send(FromMiner::Hello {
            version: LINK_VERSION,
            node: us.node,
            signature,
            nonce: self.nonce,
            capacity: u32::from(us.capacity),
        })]
    }

    fn hash(&self, domain: &str, router: Address, nonce: B256) -> B256 {
        let us = self.identity;
        challenge_hash(domain, us.chain_id, us.queue, us.node, router, nonce)
    }

    fn other_version(&mut self, version: u32) -> Vec<Action> {
        self.close(format!(
            "the router speaks link version {version}, this miner {LINK_VERSION}: update the older one"
        ))
    }

    fn close(&mut self, reason: String) -> Vec<Action> {
        self.phase = Phase::Closed;
        vec![Action::Close { reason }]
    }
}

fn is_other(version: u32) -> bool {
    version != LINK_VERSION
}

fn short(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use assay_types::Signature;
    use proptest::prelude::*;

    use super::*;

    fn identity() -> Identity {
        Identity { chain_id: 31337, queue: Address::repeat_byte(1), node: NodeId(7), capacity: 4 }
    }

    fn state() -> State {
        State::new(identity(), PrivateKeySigner::random(), B256::repeat_byte(5))
    }

    fn challenge(router: Address) -> FromRouter {
        FromRouter::Challenge {
            version: LINK_VERSION,
            chain_id: 31337,
            queue: identity().queue,
            router,
            nonce: B256::repeat_byte(9),
        }
    }

    fn welcome(key: &PrivateKeySigner, nonce: B256) -> FromRouter {
        let us = identity();
        let hash = challenge_hash(
            DOMAIN_LINK_ROUTER,
            us.chain_id,
            us.queue,
            us.node,
            key.address(),
            nonce,
        );
        FromRouter::Welcome { signature: key.sign_hash_sync(&hash).unwrap() }
    }

    fn open() -> State {
        let (mut state, key) = (state(), PrivateKeySigner::random());
        state.on_frame(challenge(key.address()));
        state.on_frame(welcome(&key, B256::repeat_byte(5)));
        assert!(state.is_open());
        state
    }

    fn closes(actions: &[Action], part: &str) {
        assert!(
            matches!(actions, [Action::Close { reason }] if reason.contains(part)),
            "{actions:?}"
        );
    }

    #[test]
    fn both_keys_are_proven() {
        let (mut state, key) = (state(), PrivateKeySigner::random());
        let actions = state.on_frame(challenge(key.address()));
        let [Action::Send(FromMiner::Hello { signature, node, capacity: 4, .. })] = &actions[..]
        else {
            panic!("{actions:?}")
        };
        let hash = challenge_hash(
            DOMAIN_LINK_MINER,
            31337,
            identity().queue,
            *node,
            key.address(),
            B256::repeat_byte(9),
        );
        let signer = signature.recover_address_from_prehash(&hash).unwrap();
        assert_eq!(signer, state.operator.address());
        let actions = state.on_frame(welcome(&key, B256::repeat_byte(5)));
        assert_eq!(actions, [Action::Opened { router: key.address() }]);
    }

    #[test]
    fn an_impostor_and_an_old_signature_are_refused() {
        let (mut state, key) = (state(), PrivateKeySigner::random());
        state.on_frame(challenge(key.address()));
        closes(&state.on_frame(welcome(&key, B256::repeat_byte(6))), "does not hold the key");
        assert!(state.on_frame(welcome(&key, B256::repeat_byte(5))).is_empty());

        let mut state = super::tests::state();
        state.on_frame(challenge(Address::repeat_byte(8)));
        closes(&state.on_frame(welcome(&key, B256::repeat_byte(5))), "does not hold the key");
    }

    #[test]
    fn another_chain_queue_or_version_is_refused_by_name() {
        let router = Address::repeat_byte(8);
        let other = |change: fn(&mut u32, &mut u64, &mut Address)| {
            let (mut version, mut chain_id, mut queue) = (LINK_VERSION, 31337, identity().queue);
            change(&mut version, &mut chain_id, &mut queue);
            let nonce = B256::ZERO;
            state().on_frame(FromRouter::Challenge { version, chain_id, queue, router, nonce })
        };
        closes(&other(|version, _, _| *version += 1), "link version 4,");
        closes(&other(|_, chain, _| *chain = 1), "on chain 1,");
        closes(&other(|_, _, queue| *queue = Address::ZERO), "SessionQueue 0x0000");
    }

    #[test]
    fn an_unknown_version_is_named_whatever_else_its_challenge_says() {
        let mut unknown = state();
        closes(&unknown.on_text(r#"{"type":"challenge","version":7,"new":1}"#), "link version 7,");
        closes(&state().on_text(r#"{"type":"challenge","version":3}"#), "no frame");
    }

    #[test]
    fn a_silent_router_is_given_up_and_one_that_speaks_is_not() {
        let mut state = open();
        for _ in 0..MISSED_PINGS {
            assert!(matches!(state.on_tick()[..], [Action::Send(FromMiner::Ping { .. })]));
        }
        state.heard();
        for _ in 0..MISSED_PINGS {
            assert!(matches!(state.on_tick()[..], [Action::Send(FromMiner::Ping { .. })]));
        }
        closes(&state.on_tick(), "silent");
        assert!(state.on_tick().is_empty());
    }

    #[test]
    fn a_handshake_that_does_not_end_is_given_up() {
        let mut state = state();
        state.on_frame(challenge(Address::repeat_byte(8)));
        state.heard();
        assert!(state.on_tick().is_empty());
        closes(&state.on_tick(), "handshake");
    }

    #[test]
    fn nothing_is_served_before_the_handshake() {
        let cancel = FromRouter::Cancel { task: TaskId(B256::ZERO), signed: None };
        closes(&state().on_frame(cancel.clone()), "out of turn");
        let resume = FromRouter::Resume { task: TaskId(B256::ZERO), seq: 0 };
        closes(&state().on_frame(resume), "out of turn");
        let mut greeted = state();
        greeted.on_frame(challenge(Address::repeat_byte(8)));
        closes(&greeted.on_frame(cancel), "out of turn");
        let signature = Signature::test_signature();
        closes(&open().on_frame(FromRouter::Welcome { signature }), "out of turn");
    }

    #[test]
    fn bad_frames_are_named_and_bounded() {
        let mut state = open();
        for _ in 0..MAX_BAD_FRAMES {
            let actions = state.on_text("{\"type\":\"dance\"}");
            assert!(
                matches!(&actions[..], [Action::Send(FromMiner::Error { code, .. })] if code == "bad_frame")
            );
        }
        closes(&state.on_text("{"), "no frame");
        closes(&super::tests::state().on_text("[]"), "no frame");
    }

    /// Any JSON, as deep as a frame.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[a-z0x]{0,8}".prop_map(serde_json::Value::from),
            Just(serde_json::Value::from(B256::ZERO.to_string())),
            Just(serde_json::Value::from(Address::ZERO.to_string())),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(
                    prop_oneof![
                        Just("type".to_owned()),
                        Just("task".to_owned()),
                        Just("seq".to_owned()),
                        Just("request".to_owned()),
                        Just("signature".to_owned()),
                        Just("block".to_owned()),
                        Just("nonce".to_owned()),
                        "[a-z_]{1,8}",
                    ],
                    inner,
                    0..6
                )
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A frame of the right type with any fields.
    fn frame() -> impl Strategy<Value = String> {
        let types = prop::sample::select(vec![
            "challenge",
            "welcome",
            "offer",
            "resume",
            "cancel",
            "drain",
            "error",
            "ping",
            "pong",
        ]);
        (types, json()).prop_map(|(name, mut body)| {
            if let Some(map) = body.as_object_mut() {
                map.insert("type".into(), name.into());
            }
            body.to_string()
        })
    }

    proptest! {
        #[test]
        fn no_frame_panics(texts in prop::collection::vec(prop_oneof![frame(), any::<String>()], 1..12), opened: bool) {
            let mut state = if opened { open() } else { state() };
            for text in texts {
                let _ = state.on_text(&text);
            }
        }
    }
}
