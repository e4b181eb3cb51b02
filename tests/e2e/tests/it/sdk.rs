//! The client's library against a whole network, by its examples.

use alloy::primitives::{U256, aliases::U96};
use assay_bindings::SessionPayment;
use assay_client::{Client, ClientError, Question, Router, SignedRequest, Terms};
use assay_harness::Network;
use assay_types::{EndReason, link::CANCEL_SLACK_TOKENS};

use crate::PATIENCE;

#[path = "../../../../sdk/client/examples/own_wallet.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod own_wallet;
#[path = "../../../../sdk/client/examples/without_a_router.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod without_a_router;

/// Status and code of a refusal.
async fn refused(router: &Router, model: &str, signed: &SignedRequest) -> (u16, String) {
    match router.carry(model, signed).await.err() {
        Some(ClientError::Router { status, code, .. }) => (status.unwrap(), code.unwrap()),
        other => panic!("no refusal: {other:?}"),
    }
}

/// The wallet has enough of an answer, and pays for what it has read of it.
async fn ends_an_answer_early(client: &Client, session: u64, router: &Router) {
    let question = Question { max_output: 512, ..Question::new("Tell me a long story.") };
    let terms = Terms { lane: 1, attempts: 1, ..Terms::default() };
    let signed = client.sign(session, &question, &terms).await.unwrap();
    let mut stream = router.carry("assay-demo", &signed).await.unwrap();
    let read = loop {
        stream.next().await.unwrap().unwrap();
        match stream.cancel(client).await {
            Ok(read) => break read,
            // On a busy machine more has come meanwhile than a node gives away: it is read, and signed for.
            Err(ClientError::Router { code: Some(code), .. }) if code == "too_few_tokens" => {
                for _ in 0..CANCEL_SLACK_TOKENS {
                    stream.next().await.unwrap().unwrap();
                }
            }
            Err(error) => panic!("{error}"),
        }
    };
    let tokens = read.usage.unwrap().completion_tokens;
    assert!(stream.next().await.unwrap().is_none(), "nothing comes after it");

    let task = client.reader.wait_for_settlement(signed.task, PATIENCE).await.unwrap();
    assert_eq!(task.answers[0].outputTokens, tokens);
    // The fee is what these tokens come to, and the holder's signature is there.
    let verified = client.reader.verify(signed.task, None).await.unwrap().remove(0);
    assert_eq!((verified.findings.as_slice(), verified.compare_text(&read.text)), (&[][..], None));
    let block = verified.block.unwrap();
    assert_eq!((block.end_reason, block.ids.len()), (EndReason::Cancelled, tokens as usize));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_pays_for_its_own_answer_through_a_router_that_holds_nothing() {
    let network = Network::start(Default::default()).await.unwrap();
    let mut said = Vec::new();
    let outcome = own_wallet::run(network.data(), &mut said).await.unwrap();
    let own_wallet::Outcome { client, session, signed, answer, verified } = outcome;
    assert!(answer.text.to_lowercase().contains("session"), "{}", answer.text);
    assert_eq!(verified.findings, []);
    // The node has stated each token that it committed to, and whoever asks without a router is told that it would not.
    let tokens = verified.block.unwrap().ids.len();
    assert_eq!((answer.logprobs.len(), answer.logprobs[0].top.len()), (tokens, 2));
    let wish = Question { top_logprobs: Some(2), ..Question::new("hello") };
    let without = client.submit(session, &wish, &Terms::default()).await;
    assert!(matches!(without, Err(ClientError::NoLogprobs(_))), "{without:?}");

    // The fee came out of the wallet's own lane, and nothing else did; no lane is the router's.
    let lanes = client.reader.session(session).await.unwrap().unwrap().lanes;
    assert!(lanes.iter().all(|lane| lane.holder == client.address()), "{lanes:?}");
    let task = client.reader.task(signed.task).await.unwrap();
    let fee = U256::from(task.answers[0].fee);
    assert!(!fee.is_zero() && fee <= U256::from(signed.request.feeCap));
    let chain = &client.reader.chain;
    let payment = SessionPayment::new(chain.deployment.payment, &chain.provider);
    let funds = payment.fundsOf(session, signed.request.lane).call().await.unwrap();
    let allotment = U256::from(10).pow(U256::from(18));
    assert_eq!((U256::from(funds.free), U256::from(funds.held)), (allotment - fee, U256::ZERO));

    // What was signed serves once, and as it stands.
    let name = "assay-demo";
    let router = Router::new(network.http_url().unwrap(), None).unwrap();
    assert_eq!(refused(&router, name, &signed).await, (400, "bad_request".into()));
    let mut dearer = signed.clone();
    (dearer.request.feeCap, dearer.request.nonce) = (U96::MAX, signed.request.nonce + 1);
    assert_eq!(refused(&router, name, &dearer).await, (400, "bad_signature".into()));

    ends_an_answer_early(&client, session, &router).await;

    let mut said = Vec::new();
    let verified = without_a_router::run(network.data(), &mut said).await.unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(verified.iter().all(|answer| answer.findings.is_empty()), "{said}");
    assert!(said.contains("still draining"), "{said}");
    network.interrupt().await.unwrap();
}
