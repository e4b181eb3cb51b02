//! Requests signed by one's own wallet: a router passes them on and shows the answer; it holds no money and signs nothing.
//!
//! `assay up` in one terminal, then `cargo run -p assay-client --example own_wallet -- <its data folder>`.

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use alloy::{primitives::U256, signers::local::LocalSigner};
use assay_client::{
    Answer, Client, Network, Opening, Question, Router, SignedRequest, Terms, Verified, cor,
};

/// What `assay up` encrypts the keys of its development accounts with.
const PASSWORD: &str = "assay-development";
/// An oracle draws nodes within seconds, and settles soon after the answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// 10^18 minor units.
const COR: u128 = 1_000_000_000_000_000_000;
/// The first lane beside the owner's.
const LANE: u32 = 1;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::args_os().nth(1).ok_or("name the data folder of `assay up`")?;
    run(&PathBuf::from(data), &mut io::stdout()).await?;
    Ok(())
}

/// What came of it.
pub struct Outcome {
    /// The client.
    pub client: Client,
    /// Its session.
    pub session: u64,
    /// What it signed.
    pub signed: SignedRequest,
    /// What the router showed.
    pub answer: Answer,
    /// The answer, as it was committed.
    pub verified: Verified,
}

/// Opens a session with a lane of one's own, signs a request, has a router pass it on, and checks what came back.
pub async fn run(data: &Path, out: &mut impl Write) -> Result<Outcome, Box<dyn Error>> {
    let network = Network::load(data)?;
    let key = LocalSigner::decrypt_keystore(data.join("keys/client.json"), PASSWORD)?;
    let client = Client::connect(&network, key).await?;
    let model = network.model.ok_or("the network describes no model")?;
    let router = Router::new(&network.http_url.ok_or("the network has no router")?, None)?;

    let opening = Opening {
        model_id: model.model_id,
        deposit: 3 * COR,
        min_nodes: 1,
        max_nodes: 2,
        dedicated: Vec::new(),
        // Nodes work on a signature only where its money cannot be taken back at once.
        lanes: vec![(client.address(), COR)],
    };
    let (session, nodes) = client.open(&opening, PATIENCE).await?;
    writeln!(out, "session {session} with nodes {nodes:?}")?;

    let question = Question {
        max_output: 48,
        max_context: Some(model.max_context),
        // With the likeliest two tokens at each position: what the node says, beside what it commits to.
        top_logprobs: Some(2),
        ..Question::new("What is a session?")
    };
    let terms = Terms { lane: LANE, attempts: 1, ..Terms::default() };
    let signed = client.sign(session, &question, &terms).await?;
    writeln!(
        out,
        "signed for task {}, at most {}",
        signed.task,
        cor(U256::from(signed.request.feeCap))
    )?;

    let mut stream = router.carry(&model.name, &signed).await?;
    while let Some(piece) = stream.next().await? {
        write!(out, "{}", piece.text)?;
    }
    let answer = stream.finish().await?;
    if let Some(least) = answer.logprobs.iter().min_by_key(|at| at.chosen.logprob_micronats) {
        let percent = 100.0 * least.chosen.nats().exp();
        writeln!(out, "\nleast sure of {:?}: {percent:.1} %", least.chosen.token)?;
    }

    let task = client.reader.wait_for_settlement(signed.task, PATIENCE).await?;
    if let Some(finding) = task.compare_request(signed.request.requestDigest) {
        return Err(finding.into());
    }
    let verified = client.reader.verify(signed.task, None).await?.remove(0);
    if let Some(finding) = verified.compare_text(&answer.text) {
        return Err(finding.into());
    }
    writeln!(
        out,
        "{} by node {}: {:?}",
        task.state_name(),
        verified.scope.node,
        verified.findings
    )?;
    Ok(Outcome { client, session, signed, answer, verified })
}
