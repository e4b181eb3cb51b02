//! Whether the code of a contract is that of the sources, and what is wired into it.

use alloy::primitives::{Address, Bytes};
use alloy::sol_types::SolCall;
use assay_bindings::{
    BlockhashBeacon, CorToken, Deployment, DrandBeacon, ModelRegistry, NodePool, NodeStats,
    Parameters, ProofOfInference, ProofOfInferenceJudgement, ProofOfInferencePanel, Session,
    SessionPayment, SessionQueue,
};

/// `PUSH1`; the instructions after it push one byte more each, up to [`PUSH32`].
const PUSH1: u8 = 0x60;
/// `PUSH32`, whose argument is where an immutable value stands.
const PUSH32: u8 = 0x7f;
/// So many bytes of a contract's code are looked for in its creation code.
const HEAD_BYTES: usize = 16;
/// Length of a word in bytes.
const WORD: usize = 32;

/// Creation codes that a contract of this name may have.
pub(crate) fn creations(name: &str) -> Vec<&'static Bytes> {
    match name {
        "CorToken" => vec![&CorToken::BYTECODE],
        "RandomBeacon" => vec![&BlockhashBeacon::BYTECODE, &DrandBeacon::BYTECODE],
        "Parameters" => vec![&Parameters::BYTECODE],
        "ModelRegistry" => vec![&ModelRegistry::BYTECODE],
        "NodeStats" => vec![&NodeStats::BYTECODE],
        "SessionPayment" => vec![&SessionPayment::BYTECODE],
        "NodePool" => vec![&NodePool::BYTECODE],
        "Session" => vec![&Session::BYTECODE],
        // Its creation code holds that of its second half.
        "SessionQueue" | "SessionQueueEnd" => vec![&SessionQueue::BYTECODE],
        "ProofOfInferencePanel" => vec![&ProofOfInferencePanel::BYTECODE],
        "ProofOfInferenceJudgement" => vec![&ProofOfInferenceJudgement::BYTECODE],
        "ProofOfInference" => vec![&ProofOfInference::BYTECODE],
        _ => Vec::new(),
    }
}

/// The immutable values of a contract whose code is the one that `creation` makes; `None` if it is another code.
///
/// Creation code holds the code that it returns, with zeros where immutable values will stand.
pub(crate) fn immutables(code: &[u8], creation: &[u8]) -> Option<Vec<[u8; WORD]>> {
    let head = code.get(..HEAD_BYTES)?;
    let places = creation.windows(HEAD_BYTES).enumerate();
    places
        .filter(|(_, window)| *window == head)
        .find_map(|(place, _)| same(code, creation.get(place..place.checked_add(code.len())?)?))
}

fn same(code: &[u8], template: &[u8]) -> Option<Vec<[u8; WORD]>> {
    let mut values = Vec::new();
    let mut at = 0;
    while let (Some(is), Some(should)) = (code.get(at), template.get(at)) {
        if is != should {
            return None;
        }
        let pushed = match *is {
            PUSH1..=PUSH32 => usize::from(is - PUSH1) + 1,
            _ => 0,
        };
        at += 1;
        let end = (at + pushed).min(code.len());
        let (is, should) = (code.get(at..end)?, template.get(at..end)?);
        match <[u8; WORD]>::try_from(is) {
            Ok(value) if should.iter().all(|byte| *byte == 0) => values.push(value),
            _ if is == should => {}
            _ => return None,
        }
        at = end;
    }
    Some(values)
}

/// Where the second half of the queue stands: the queue creates it first.
pub(crate) fn second_half(deployment: &Deployment) -> Address {
    deployment.queue.create(1)
}

/// A getter, and the contract that it must name.
pub(crate) struct Wire {
    pub(crate) contract: Address,
    pub(crate) getter: &'static str,
    pub(crate) input: Bytes,
    pub(crate) expected: Address,
}

/// Every getter of a contract that names another one.
pub(crate) fn wires(to: &Deployment) -> Vec<Wire> {
    macro_rules! wires {
        ($($contract:ident at $field:ident: $($call:ident $getter:ident => $expected:ident),*;)*) => {
            vec![$($(Wire {
                contract: to.$field,
                getter: concat!(stringify!($contract), ".", stringify!($getter)),
                input: $contract::$call {}.abi_encode().into(),
                expected: to.$expected,
            },)*)*]
        };
    }
    let mut wires = wires! {
        SessionPayment at payment: sessionCall session => sessions, queueCall queue => queue,
            poolCall pool => nodes, proofCall proof => proof;
        ModelRegistry at models: poolCall pool => nodes;
        NodeStats at stats: queueCall queue => queue;
        NodePool at nodes: sessionCall session => sessions, queueCall queue => queue,
            modelsCall models => models, paymentCall payment => payment, statsCall stats => stats,
            parametersCall parameters => parameters, proofCall proof => proof;
        Session at sessions: modelsCall models => models, poolCall pool => nodes,
            paymentCall payment => payment, beaconCall beacon => beacon,
            parametersCall parameters => parameters;
        SessionQueue at queue: sessionCall session => sessions, poolCall pool => nodes,
            modelsCall models => models, paymentCall payment => payment, beaconCall beacon => beacon,
            statsCall stats => stats, parametersCall parameters => parameters,
            proofCall proof => proof;
        ProofOfInference at proof: beaconCall beacon => beacon, modelsCall models => models,
            paymentCall payment => payment, poolCall pool => nodes, queueCall queue => queue;
    };
    wires.push(Wire {
        contract: to.payment,
        getter: "SessionPayment.tokenOf(0)",
        input: SessionPayment::tokenOfCall { asset: 0 }.abi_encode().into(),
        expected: to.token,
    });
    wires
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A constructor of three bytes, then the code: `PUSH32 <immutable> PUSH2 0x1234 STOP`, and 16 bytes of data.
    fn creation() -> Vec<u8> {
        let code = [vec![0x5b; HEAD_BYTES], vec![PUSH32], vec![0; WORD], vec![0x61, 0x12, 0x34, 0]];
        [vec![0x60, 0x01, 0x50], code.concat()].concat()
    }

    fn deployed(value: u8) -> Vec<u8> {
        let mut code = creation().split_off(3);
        code[HEAD_BYTES + 1..][..WORD].fill(value);
        code
    }

    #[test]
    fn immutable_values_are_read_where_the_creation_has_zeros() {
        assert_eq!(immutables(&deployed(7), &creation()), Some(vec![[7; WORD]]));
        assert_eq!(immutables(&deployed(0), &creation()), Some(vec![[0; WORD]]));
    }

    #[test]
    fn one_changed_byte_anywhere_else_is_another_code() {
        let code = deployed(7);
        let immutable = HEAD_BYTES + 1..HEAD_BYTES + 1 + WORD;
        for place in (0..code.len()).filter(|place| !immutable.contains(place)) {
            let mut other = code.clone();
            other[place] ^= 1;
            assert_eq!(immutables(&other, &creation()), None, "byte {place}");
        }
        assert_eq!(immutables(&code[..HEAD_BYTES - 1], &creation()), None);
    }
}
