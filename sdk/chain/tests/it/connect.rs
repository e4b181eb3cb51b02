use alloy::primitives::Address;
use assay_chain::{Chain, ChainError};

use crate::world::World;

#[tokio::test]
async fn both_kinds_of_url_connect() {
    let world = World::new(true).await;
    for url in [world.node.http_url(), world.node.ws_url()] {
        let chain = Chain::connect(&url, world.deployment.clone()).await.unwrap();
        assert_eq!(chain.chain_id, 31337);
    }
}

#[tokio::test]
async fn a_chain_that_is_down_is_named_with_the_remedy() {
    let world = World::new(true).await;
    // A port that was free a moment ago.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    for scheme in ["http", "ws"] {
        let url = format!("{scheme}://127.0.0.1:{port}/v2/secret-key");
        let error = Chain::connect(&url, world.deployment.clone()).await.unwrap_err();
        assert!(matches!(&error, ChainError::Unreachable { .. }), "{error}");
        assert!(error.is_retryable());
        let text = error.to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("assay up"), "{text}");
        assert!(!format!("{error} {error:?}").contains("secret-key"), "{text}");
    }
    let error = Chain::connect("8545", world.deployment.clone()).await.unwrap_err();
    assert!(matches!(error, ChainError::BadUrl { .. }));
}

#[tokio::test]
async fn another_chain_is_refused() {
    let world = World::new(true).await;
    let deployment = assay_bindings::Deployment { chain_id: 42161, ..world.deployment.clone() };
    let error = Chain::connect(&world.node.http_url(), deployment).await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { expected: 42161, got: 31337, .. }), "{error}");
}

#[tokio::test]
async fn an_address_without_code_is_refused_by_name() {
    let world = World::new(true).await;
    let deployment =
        assay_bindings::Deployment { queue: Address::repeat_byte(9), ..world.deployment.clone() };
    let error = Chain::connect(&world.node.http_url(), deployment).await.unwrap_err();
    assert!(matches!(error, ChainError::NoContracts { contract: "SessionQueue", .. }), "{error}");
    assert!(error.to_string().contains("assay deploy"));
}
