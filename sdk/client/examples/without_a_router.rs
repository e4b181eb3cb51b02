//! A session of one's own and a task by transaction: contracts and content store alone, no router.
//!
//! `assay up` in one terminal, then `cargo run -p assay-client --example without_a_router -- <its data folder>`.

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::signers::local::LocalSigner;
use assay_client::{Client, ClientError, Network, Opening, Question, Terms, Verified, cor};

/// What `assay up` encrypts the keys of its development accounts with.
const PASSWORD: &str = "assay-development";
/// An oracle draws nodes within seconds, and nodes answer in less.
const PATIENCE: Duration = Duration::from_secs(120);
/// 10^18 minor units.
const COR: u128 = 1_000_000_000_000_000_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::args_os().nth(1).ok_or("name the data folder of `assay up`")?;
    run(&PathBuf::from(data), &mut io::stdout()).await?;
    Ok(())
}

/// Opens, funds, submits, verifies, closes; what was found out about the answer.
pub async fn run(data: &Path, out: &mut impl Write) -> Result<Vec<Verified>, Box<dyn Error>> {
    let network = Network::load(data)?;
    let key = LocalSigner::decrypt_keystore(data.join("keys/client.json"), PASSWORD)?;
    let client = Client::connect(&network, key).await?;
    let model = network.model.ok_or("the network describes no model")?;

    let opening = Opening {
        model_id: model.model_id,
        deposit: 2 * COR,
        min_nodes: 1,
        max_nodes: 2,
        dedicated: Vec::new(),
        lanes: Vec::new(),
    };
    let (session, nodes) = client.open(&opening, PATIENCE).await?;
    writeln!(out, "session {session} with nodes {nodes:?}")?;
    client.wallet.fund(session, 0, COR).await?;

    let question = Question {
        max_output: 24,
        max_context: Some(model.max_context),
        ..Question::new("What is a miner?")
    };
    let submitted = client.submit(session, &question, &Terms::default()).await?;
    let task = client.reader.wait_for_answer(submitted.task, PATIENCE).await?;
    for answer in client.reader.answers(&task).await? {
        writeln!(out, "node {}: {} ({})", answer.node, answer.block.text, cor(answer.fee))?;
    }
    let verified = client.reader.verify(submitted.task, None).await?;
    for answer in &verified {
        writeln!(out, "findings: {:?}, its proof: {:?}", answer.findings, answer.audit)?;
    }
    client.wallet.close(session).await?;
    // Its notice ends later; then anyone may finish it, and what is left is the owner's to withdraw.
    match client.wallet.finish(session).await {
        Err(ClientError::Refused { reason, .. }) => writeln!(out, "still draining: {reason}")?,
        ended => ended?,
    }
    Ok(verified)
}
