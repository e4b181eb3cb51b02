//! A block as it was told, and as it is.

use alloy::consensus::ReceiptEnvelope;
use alloy::consensus::proofs::calculate_receipt_root;
use alloy::primitives::{Bloom, Log};
use alloy::rpc::types::TransactionReceipt;
use assay_bindings::Deployment;
use assay_evm::{SignedTx, TxReceiptRecord};

use crate::facts::{Facts, contract_of};
use crate::report::{Divergence, Report, Rule};
use crate::source::Fetched;

/// What the block before was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    pub(crate) number: u64,
    pub(crate) hash: alloy::primitives::B256,
    pub(crate) timestamp_s: u64,
}

/// The header before anything is executed. False if the block cannot follow its parent.
pub(crate) fn header(block: &Fetched, parent: &Parent, report: &mut Report) -> bool {
    let number = parent.number + 1;
    let before = report.divergences.len() as u64 + report.unlisted;
    let mut differs = |what: &str, expected: String, found: String| {
        if expected != found {
            let divergence = Divergence::new(Rule::Header, what, (expected, found));
            report.diverges(divergence.in_block(number));
        }
    };
    let header = &block.header;
    differs("the block's number", number.to_string(), header.number.to_string());
    differs("the block's parent", parent.hash.to_string(), header.parent_hash.to_string());
    differs("the hash of the block's header", block.hash.to_string(), block.told_hash.to_string());
    let roots = (block.transactions_root, header.transactions_root);
    differs("the root of the block's transactions", roots.0.to_string(), roots.1.to_string());
    let roots = (block.withdrawals_root, header.withdrawals_root);
    differs(
        "the root of the block's withdrawals",
        format!("{:?}", roots.0),
        format!("{:?}", roots.1),
    );
    if header.timestamp < parent.timestamp_s {
        let earliest = format!("at least {}", parent.timestamp_s);
        differs("the block's time", earliest, header.timestamp.to_string());
    }
    for tx in block.unsigned.iter().filter_map(|index| block.transactions.get(*index)) {
        let what = "a transaction that its sender did not sign";
        let expected = "a signature of the sender over the transaction's hash";
        let found = format!("another one, or none; the sender is said to be {}", tx.signer());
        let divergence = Divergence::new(Rule::Signature, what, (expected, found));
        report.diverges(divergence.in_block(number).in_transaction(*tx.tx_hash()));
    }
    let links = header.number == number && header.parent_hash == parent.hash;
    links || report.divergences.len() as u64 + report.unlisted == before
}

/// The header after everything was executed.
pub(crate) fn results(block: &Fetched, receipts: &[TxReceiptRecord], report: &mut Report) {
    let header = &block.header;
    let envelopes: Vec<&ReceiptEnvelope<Log>> =
        receipts.iter().map(|receipt| &receipt.envelope).collect();
    let root = calculate_receipt_root(&envelopes);
    let gas = receipts.last().map_or(0, |receipt| receipt.envelope.cumulative_gas_used());
    let bloom =
        receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | *receipt.envelope.logs_bloom());
    let rows = [
        ("the gas that the block used", gas.to_string(), header.gas_used.to_string()),
        ("the root of the receipts", root.to_string(), header.receipts_root.to_string()),
        ("the bloom of the logs", bloom.to_string(), header.logs_bloom.to_string()),
    ];
    for (what, expected, found) in rows {
        if expected != found {
            let divergence = Divergence::new(Rule::Results, what, (expected, found));
            report.diverges(divergence.in_block(header.number));
        }
    }
}

/// The receipts that were told.
pub(crate) fn receipts(
    block: &Fetched,
    executed: &[TxReceiptRecord],
    deployment: &Deployment,
    report: &mut Report,
) {
    let number = block.header.number;
    if block.receipts.len() != executed.len() {
        let counts = (executed.len(), block.receipts.len());
        let divergence = Divergence::new(Rule::Missing, "the number of receipts", counts);
        report.diverges(divergence.in_block(number));
    }
    for ((tx, told), is) in block.transactions.iter().zip(&block.receipts).zip(executed) {
        let mut divergences = differences(tx, told, is);
        let Some(first) = divergences.first_mut() else { continue };
        // What the transaction was about: the first of its events says it.
        let told_logs = told.inner.logs().iter().map(|log| &log.inner);
        let facts = is.logs().iter().chain(told_logs);
        if let Some(facts) = facts.filter_map(|log| Facts::of_log(deployment, log)).next() {
            (first.task, first.node, first.session) = (facts.task, facts.node, facts.session);
        }
        for divergence in divergences {
            report.diverges(divergence.in_block(number).in_transaction(*tx.tx_hash()));
        }
    }

    fn differences(
        tx: &SignedTx,
        told: &TransactionReceipt,
        is: &TxReceiptRecord,
    ) -> Vec<Divergence> {
        let receipt = |what: &str, values| Divergence::new(Rule::Receipt, what, values);
        let mut found = Vec::new();
        if told.transaction_hash != *tx.tx_hash() {
            let hashes = (tx.tx_hash().to_string(), told.transaction_hash.to_string());
            return vec![receipt("a receipt of another transaction", hashes)];
        }
        let (expected, status) = (is.is_success(), told.inner.status());
        if expected != status {
            let word = |success| if success { "success" } else { "failure" }.to_owned();
            found.push(receipt("a receipt's status", (word(expected), word(status))));
        }
        if told.gas_used != is.gas_used {
            let gas = (is.gas_used.to_string(), told.gas_used.to_string());
            found.push(receipt("a receipt's gas", gas));
        }
        let cumulative = is.envelope.cumulative_gas_used();
        if told.inner.cumulative_gas_used() != cumulative {
            let gas = (cumulative.to_string(), told.inner.cumulative_gas_used().to_string());
            found.push(receipt("a receipt's gas up to there", gas));
        }
        if told.inner.logs_bloom() != is.envelope.logs_bloom() {
            let blooms =
                (is.envelope.logs_bloom().to_string(), told.inner.logs_bloom().to_string());
            found.push(receipt("a receipt's bloom", blooms));
        }
        found.extend(logs(told, is));
        found
    }
}

fn logs(told: &TransactionReceipt, is: &TxReceiptRecord) -> Option<Divergence> {
    let (told, is) = (told.inner.logs(), is.logs());
    let none = || "no log".to_owned();
    for index in 0..told.len().max(is.len()) {
        let (found, expected) = (told.get(index).map(|log| &log.inner), is.get(index));
        if found != expected {
            let text = |log: Option<&Log>| log.map_or_else(none, |log| format!("{log:?}"));
            let what = format!("log {index} of a receipt");
            return Some(Divergence::new(Rule::Receipt, what, (text(expected), text(found))));
        }
    }
    None
}

/// Names the contract of a divergence, if its address is one of the deployment's.
pub(crate) fn named(
    mut divergence: Divergence,
    deployment: &Deployment,
    address: alloy::primitives::Address,
) -> Divergence {
    divergence.contract =
        Some((contract_of(deployment, address).unwrap_or("a contract").to_owned(), address));
    divergence
}
