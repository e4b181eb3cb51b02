//! Revert data as text: every custom error of every contract, `Error(string)` and `Panic(uint256)`.

use std::{collections::HashMap, sync::LazyLock};

use alloy::{
    dyn_abi::{DynSolValue, JsonAbiExt},
    hex,
    json_abi::{Error, JsonAbi},
    primitives::Selector,
    sol_types::{ContractError, SolInterface},
};
use serde::Deserialize;

/// Committed artifacts: name of the contract and JSON with `abi` and `bytecode`.
const ARTIFACTS: [(&str, &str); 14] = [
    ("CorToken", include_str!("../artifacts/CorToken.json")),
    ("Parameters", include_str!("../artifacts/Parameters.json")),
    ("ModelRegistry", include_str!("../artifacts/ModelRegistry.json")),
    ("NodeStats", include_str!("../artifacts/NodeStats.json")),
    ("NodePool", include_str!("../artifacts/NodePool.json")),
    ("Session", include_str!("../artifacts/Session.json")),
    ("SessionQueue", include_str!("../artifacts/SessionQueue.json")),
    ("SessionPayment", include_str!("../artifacts/SessionPayment.json")),
    ("ProofOfInference", include_str!("../artifacts/ProofOfInference.json")),
    ("ProofOfInferenceJudgement", include_str!("../artifacts/ProofOfInferenceJudgement.json")),
    ("ProofOfInferencePanel", include_str!("../artifacts/ProofOfInferencePanel.json")),
    ("BlockhashBeacon", include_str!("../artifacts/BlockhashBeacon.json")),
    ("DrandBeacon", include_str!("../artifacts/DrandBeacon.json")),
    ("Deployer", include_str!("../artifacts/Deployer.json")),
];
/// Characters of a decoded value that are kept: revert data is untrusted.
const MAX_TEXT: usize = 1024;

#[derive(Deserialize)]
struct Artifact {
    abi: JsonAbi,
}

static ERRORS: LazyLock<HashMap<Selector, Error>> = LazyLock::new(|| {
    abis()
        .into_iter()
        .flat_map(|(_, abi)| abi.errors.into_values().flatten())
        .map(|error| (error.selector(), error))
        .collect()
});

/// The ABI of every contract, with its name.
pub fn abis() -> Vec<(&'static str, JsonAbi)> {
    ARTIFACTS
        .iter()
        .filter_map(|(name, text)| {
            serde_json::from_str::<Artifact>(text).ok().map(|artifact| (*name, artifact.abi))
        })
        .collect()
}

/// What revert data says, e.g. `SessionQueue_FeeAboveCap(fee: 500, cap: 400)`; `None` if it is not an error of these
/// contracts, a `require` text or a panic.
pub fn decode_revert(data: &[u8]) -> Option<String> {
    let selector: [u8; 4] = data.get(..4)?.try_into().ok()?;
    if let Some(error) = ERRORS.get(&Selector::from(selector)) {
        let values = error.abi_decode_input(data.get(4..)?).ok()?;
        let named: Vec<String> = error
            .inputs
            .iter()
            .zip(&values)
            .map(|(input, value)| format!("{}: {}", input.name, show(value)))
            .collect();
        return Some(format!("{}({})", error.name, named.join(", ")));
    }
    match ContractError::<NoErrors>::abi_decode(data).ok()? {
        ContractError::Revert(revert) => Some(revert.reason.chars().take(MAX_TEXT).collect()),
        ContractError::Panic(panic) => Some(panic.to_string()),
        ContractError::CustomError(never) => match never {},
    }
}

type NoErrors = std::convert::Infallible;

fn show(value: &DynSolValue) -> String {
    match value {
        DynSolValue::Uint(value, _) => value.to_string(),
        DynSolValue::Int(value, _) => value.to_string(),
        DynSolValue::Bool(value) => value.to_string(),
        DynSolValue::Address(value) => value.to_string(),
        DynSolValue::FixedBytes(word, size) => {
            hex::encode_prefixed(word.get(..*size).unwrap_or_default())
        }
        DynSolValue::Bytes(bytes) => {
            hex::encode_prefixed(bytes.get(..MAX_TEXT).unwrap_or(bytes.as_slice()))
        }
        DynSolValue::String(text) => text.chars().take(MAX_TEXT).collect(),
        DynSolValue::Array(items)
        | DynSolValue::FixedArray(items)
        | DynSolValue::Tuple(items)
        | DynSolValue::CustomStruct { tuple: items, .. } => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        DynSolValue::Function(function) => function.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::{
        dyn_abi::Specifier,
        primitives::{Address, B256, U256, keccak256},
        sol_types::{Panic, PanicKind, Revert, SolError},
    };

    /// A value of the type that shows in text: which one depends on `seed`.
    fn sample(ty: &alloy::dyn_abi::DynSolType, seed: u64) -> DynSolValue {
        use alloy::dyn_abi::DynSolType as T;
        match ty {
            T::Uint(bits) => DynSolValue::Uint(U256::from(seed % 200), *bits),
            T::Address => DynSolValue::Address(Address::from_word(B256::from(U256::from(seed)))),
            T::FixedBytes(size) => DynSolValue::FixedBytes(keccak256(seed.to_be_bytes()), *size),
            T::String => DynSolValue::String(format!("text {seed}")),
            T::Bytes => DynSolValue::Bytes(vec![seed as u8; 3]),
            T::FixedArray(of, length) => {
                let parts = (0..*length as u64).map(|i| sample(of, seed + i));
                DynSolValue::FixedArray(parts.collect())
            }
            other => panic!("an error has a value of type {other}: teach this test"),
        }
    }

    #[test]
    fn every_error_of_every_contract_decodes_with_its_values() {
        assert_eq!(abis().len(), ARTIFACTS.len());
        let mut seen = 0;
        for (contract, abi) in abis() {
            for error in abi.errors.values().flatten() {
                let values: Vec<DynSolValue> = error
                    .inputs
                    .iter()
                    .enumerate()
                    .map(|(i, input)| sample(&input.resolve().unwrap(), 7 + 13 * i as u64))
                    .collect();
                let data = error.abi_encode_input(&values).unwrap();
                let text = decode_revert(&data)
                    .unwrap_or_else(|| panic!("{contract}: {} is not decoded", error.name));
                assert!(text.starts_with(&format!("{}(", error.name)), "{text}");
                for (input, value) in error.inputs.iter().zip(&values) {
                    assert!(
                        !input.name.is_empty(),
                        "{contract}: {} has a nameless value",
                        error.name
                    );
                    assert!(text.contains(&format!("{}: {}", input.name, show(value))), "{text}");
                }
                // Data that was cut short is no error, and no panic.
                // (A text or bytes at the end may lose padding.)
                let padded = |last: &DynSolValue| {
                    matches!(last, DynSolValue::String(_) | DynSolValue::Bytes(_))
                };
                if values.last().is_some_and(|last| !padded(last)) {
                    assert_eq!(decode_revert(&data[..data.len() - 1]), None);
                }
                seen += 1;
            }
        }
        assert!(seen > 80, "only {seen} errors were found");
    }

    #[test]
    fn texts_and_panics_decode_and_anything_else_does_not() {
        assert_eq!(decode_revert(&Revert::from("no luck").abi_encode()).unwrap(), "no luck");
        let panic = Panic::from(PanicKind::DivisionByZero).abi_encode();
        assert!(decode_revert(&panic).unwrap().contains("division"), "{:?}", decode_revert(&panic));
        assert_eq!(decode_revert(&[]), None);
        assert_eq!(decode_revert(&[1, 2, 3]), None);
        assert_eq!(decode_revert(&[0xff; 36]), None);
    }
}
