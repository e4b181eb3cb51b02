//! Damaged bodies of requests to the router: each is answered, none with an error of the server's.

use assay_fuzz::Target;
use assay_harness::{Network, NetworkOptions};
use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use crate::question;

/// Requests; some of them are answered by the model.
const ROUNDS: u32 = 300;
/// The places that take bodies.
const PATHS: [&str; 4] =
    ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"];

#[test]
fn fuzz_bodies_of_requests() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let flags = ["--miners", "1"].map(str::to_owned).into();
    let network = runtime.block_on(Network::start(NetworkOptions { flags })).unwrap();
    let mut chat = question(&network, "hi");
    chat["max_tokens"] = 4.into();
    let model = chat["model"].clone();
    let bodies = [
        chat.clone(),
        json!({"model": model, "prompt": ["a", "b"], "max_tokens": 4, "stop": ["x"], "n": 1}),
        json!({"model": model, "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 16}),
        json!({"model": model, "max_tokens": 4, "system": "s", "messages": chat["messages"]}),
    ];
    // The first byte chooses the place.
    let inputs = (0_u8..)
        .zip(&bodies)
        .map(|(place, body)| [vec![place], serde_json::to_vec(body).unwrap()].concat());
    let client = reqwest::Client::new();
    let ask = |input: &[u8]| {
        let (place, body) = input.split_first().unwrap_or((&0, &[]));
        let path = PATHS[usize::from(*place) % PATHS.len()];
        let url = format!("{}{path}", network.http_url().unwrap());
        let request = client.post(url).header(CONTENT_TYPE, "application/json");
        runtime.block_on(async {
            let answer = request.body(body.to_vec()).send().await.unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            assert!(status != 500, "{path}: {text}");
        });
    };
    Target::new("bodies-of-requests", inputs.collect(), ROUNDS).run(ask).unwrap();
    let log = network.log();
    assert!(!log.contains("panicked"), "{log}");
    ask(&[&[0][..], &serde_json::to_vec(&chat).unwrap()].concat());
}
