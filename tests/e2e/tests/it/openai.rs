//! The official `openai` package for Python, unchanged but for its base URL.

use std::process::Command;

use assay_harness::{Network, root};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_gets_plain_and_streamed_answers() {
    let network = Network::start(Default::default()).await.unwrap();
    let python = std::env::var_os("ASSAY_TEST_PYTHON").expect(
        "ASSAY_TEST_PYTHON names no Python with the openai package: run the tests with script/test",
    );
    let base = format!("{}/v1", network.http_url().unwrap());
    let output = Command::new(python)
        .arg(root().join("tests/e2e/clients/openai_chat.py"))
        .arg(base)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}\n{}", network.log());
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["model"], "assay-demo");
    assert!(seen["task"].as_str().unwrap().starts_with("0x"), "{seen}");
    // Greedy twice. The noise that breaks near-ties differs from task to task, so only the sense is compared.
    for kind in ["plain", "streamed"] {
        let text = seen[kind].as_str().unwrap();
        assert!(text.to_lowercase().contains("session"), "{kind}: {text:?}");
        assert!(!text.contains("<|"), "special tokens leak: {text:?}");
        let finish = seen[&format!("{kind}_finish")].as_str().unwrap();
        assert!(["stop", "length"].contains(&finish), "{finish}");
        let usage = &seen[&format!("{kind}_usage")];
        let count = |name: &str| usage[name].as_u64().unwrap();
        assert!(count("prompt_tokens") > 0 && count("completion_tokens") > 0, "{usage}");
        assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    }
    assert!(seen["chunks"].as_u64().unwrap() > 3, "the answer did not come in pieces: {seen}");
    assert_eq!(seen["unknown_model"], "NotFoundError");
    network.interrupt().await.unwrap();
}
