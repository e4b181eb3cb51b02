//! Handing a signed transaction to the node, and understanding what it says.

use alloy::primitives::{Bytes, hex};
use alloy::providers::Provider;
use alloy::transports::TransportError;

use super::Inner;

/// Bytes of an unknown error that are shown: its selector and two values.
const MAX_SHOWN_DATA: usize = 68;

/// What a node's refusal means. Nodes word these alike, but no standard says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has the transaction already.
    Known,
    /// The nonce is used up.
    NonceTooLow,
    /// Another one with this nonce pays as much or more, or this one pays less than the chain asks for.
    Underpriced,
    /// The account cannot pay.
    Unfunded,
    /// It will never take this transaction.
    ForGood,
    /// Anything else, a dead connection among them: try again.
    Other,
}

const KNOWN: [&str; 4] =
    ["already known", "known transaction", "already imported", "already in mempool"];
const NONCE_TOO_LOW: [&str; 4] =
    ["nonce too low", "nonce is too low", "nonce has already been used", "old nonce"];
const UNDERPRICED: [&str; 4] =
    ["underpriced", "less than block base fee", "fee too low", "below the minimum"];
const UNFUNDED: [&str; 2] = ["insufficient funds", "insufficient balance"];
const FOR_GOOD: [&str; 7] = [
    "intrinsic gas too low",
    "exceeds block gas limit",
    "exceeds transaction gas limit",
    "gas limit too high",
    "oversized data",
    "invalid chain id",
    "floor data gas",
];

impl Refusal {
    pub(super) fn of(error: &TransportError) -> Self {
        match error.as_error_resp() {
            Some(answer) => Self::of_text(&answer.message),
            None => Self::Other,
        }
    }

    fn of_text(message: &str) -> Self {
        let text = message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&KNOWN) {
            Self::Known
        } else if says(&NONCE_TOO_LOW) {
            Self::NonceTooLow
        } else if says(&UNDERPRICED) {
            Self::Underpriced
        } else if says(&UNFUNDED) {
            Self::Unfunded
        } else if says(&FOR_GOOD) {
            Self::ForGood
        } else {
            Self::Other
        }
    }
}

/// Outcome of a broadcast.
#[derive(Debug)]
pub(super) enum Broadcast {
    Accepted,
    Refused { refusal: Refusal, text: String },
}

impl Broadcast {
    /// The node has it, newly or from before.
    pub(super) fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted | Self::Refused { refusal: Refusal::Known, .. })
    }
}

impl Inner {
    pub(super) async fn broadcast(&self, raw: &Bytes) -> Broadcast {
        let sent = crate::provider::timed(self.chain.provider.send_raw_transaction(raw)).await;
        match sent {
            Ok(_) => Broadcast::Accepted,
            Err(error) => {
                let refusal = Refusal::of(&error);
                let text = match error.as_error_resp() {
                    Some(answer) => answer.message.to_string(),
                    None => error.to_string(),
                };
                Broadcast::Refused { refusal, text }
            }
        }
    }
}

/// The decoded reason, if the node's error is a revert.
pub(super) fn revert_reason(error: &TransportError) -> Option<String> {
    let answer = error.as_error_resp()?;
    match answer.as_revert_data() {
        Some(data) => Some(assay_bindings::decode_revert(&data).unwrap_or_else(|| {
            let known = data.get(..MAX_SHOWN_DATA).unwrap_or(&data);
            format!("an error that is not of these contracts: {}", hex::encode_prefixed(known))
        })),
        None if answer.message.to_ascii_lowercase().contains("revert") => {
            Some(answer.message.to_string())
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    /// Wordings of geth, anvil, reth, Nethermind and Erigon.
    #[test]
    fn refusals_are_understood() {
        let cases = [
            ("already known", Refusal::Known),
            ("AlreadyKnown", Refusal::Other),
            ("transaction already imported", Refusal::Known),
            ("nonce too low: next nonce 7, tx nonce 5", Refusal::NonceTooLow),
            ("replacement transaction underpriced", Refusal::Underpriced),
            (
                "max fee per gas less than block base fee: address 0x.., maxFeePerGas: 1",
                Refusal::Underpriced,
            ),
            ("insufficient funds for gas * price + value: balance 0, tx cost 1", Refusal::Unfunded),
            ("intrinsic gas too low: gas 20000, minimum needed 21000", Refusal::ForGood),
            ("internal error", Refusal::Other),
        ];
        for (text, refusal) in cases {
            assert_eq!(Refusal::of_text(text), refusal, "{text}");
        }
    }
}
