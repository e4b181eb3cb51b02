//! The RPC as other clients of Kubo speak it.

use assay_store::{Bytes, ContentStore, MAX_BLOCK_BYTES, cid_of, digest_of};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::Running;

const HELLO: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

impl Running {
    fn post(&self, call: &str) -> RequestBuilder {
        Client::new().post(format!("{}/api/v0/{call}", self.server.url()))
    }

    async fn json(&self, call: &str) -> (StatusCode, Value) {
        read(self.post(call)).await
    }
}

async fn read(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let bytes = answer.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{status} {bytes:?}")))
}

/// A form as curl and other clients of Kubo write it.
fn with_parts(request: RequestBuilder, parts: &[&[u8]]) -> RequestBuilder {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(b"--XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--XyZ--\r\n");
    request.header("content-type", "multipart/form-data; boundary=XyZ").body(body)
}

#[tokio::test]
async fn answers_have_kubos_shapes() {
    let store = Running::start().await;
    let put = with_parts(store.post("block/put"), &[b"hello world"]);
    assert_eq!(read(put).await, (StatusCode::OK, json!({ "Key": HELLO, "Size": 11 })));
    for options in ["cid-codec=raw", "format=raw&cid-codec=raw&mhtype=sha2-256&mhlen=-1&pin=false"]
    {
        let put = with_parts(store.post(&format!("block/put?{options}")), &[b"hello world"]);
        assert_eq!(read(put).await.1["Key"], HELLO, "{options}");
    }
    let (status, unpinned) = store.json(&format!("pin/ls?arg={HELLO}")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        unpinned,
        json!({ "Message": format!("path '/ipfs/{HELLO}' is not pinned"), "Code": 0, "Type": "error" })
    );

    let pins = json!({ "Pins": [HELLO] });
    assert_eq!(
        store.json(&format!("pin/add?arg=/ipfs/{HELLO}&recursive=true&progress=false")).await,
        (StatusCode::OK, pins.clone())
    );
    let keys = json!({ "Keys": { HELLO: { "Type": "recursive" } } });
    for call in [
        format!("pin/ls?arg={HELLO}&type=all"),
        "pin/ls".into(),
        "pin/ls?arg=&type=recursive".into(),
    ] {
        assert_eq!(store.json(&call).await, (StatusCode::OK, keys.clone()), "{call}");
    }
    assert_eq!(store.json("pin/ls?type=direct").await.1, json!({ "Keys": {} }));
    assert_eq!(
        store.json(&format!("block/stat?arg={HELLO}")).await.1,
        json!({ "Key": HELLO, "Size": 11 })
    );
    assert_eq!(store.json("repo/stat").await.1["NumObjects"], 1);
    assert_eq!(store.json("id").await.1["AgentVersion"], "assay-store/0.1.0");
    let cat = store.post(&format!("cat?arg={HELLO}&offset=6&length=3")).send().await.unwrap();
    assert_eq!(cat.text().await.unwrap(), "wor");
    let got = store.post(&format!("block/get?arg={HELLO}")).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "hello world");

    assert_eq!(store.json(&format!("pin/rm?arg={HELLO}")).await, (StatusCode::OK, pins));
    let (status, again) = store.json(&format!("pin/rm?arg={HELLO}")).await;
    assert_eq!(
        (status, &again["Message"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("not pinned or pinned indirectly"))
    );
    assert!(!store.client.is_pinned(digest_of(b"hello world")).await.unwrap());
    store.server.stop().await;
}

#[tokio::test]
async fn pin_of_a_missing_block_is_refused() {
    let store = Running::start().await;
    let (status, answer) = store.json(&format!("pin/add?arg={HELLO}")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer["Message"].as_str().unwrap().contains("could not find"), "{answer}");
    store.server.stop().await;
}

#[tokio::test]
async fn bad_calls_are_refused_in_kubos_shape() {
    let store = Running::start().await;
    let dag_pb = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
    for call in [
        "block/get".to_owned(),
        "block/get?arg=".into(),
        "block/get?arg=nonsense".into(),
        format!("block/get?arg={dag_pb}"),
        format!("pin/add?arg={}", "b".repeat(5000)),
        format!("cat?arg={HELLO}&offset=-1"),
        "pin/ls?type=wrong".into(),
    ] {
        let (status, answer) = store.json(&call).await;
        assert_eq!(
            (status, &answer["Code"], &answer["Type"]),
            (StatusCode::BAD_REQUEST, &json!(1), &json!("error")),
            "{call}: {answer}"
        );
    }
    let puts = [
        ("block/put?cid-codec=dag-pb", &[&b"x"[..]][..]),
        ("block/put?mhtype=sha1", &[b"x"]),
        ("block/put?mhlen=20", &[b"x"]),
        ("block/put?format=v0", &[b"x"]),
        ("block/put?format=raw&cid-codec=dag-cbor", &[b"x"]),
        ("block/put?pin=maybe", &[b"x"]),
        ("block/put", &[]),
        ("block/put", &[b"x", b"y"]),
    ];
    for (call, parts) in puts {
        let (status, answer) = read(with_parts(store.post(call), parts)).await;
        assert_eq!(
            (status, &answer["Code"]),
            (StatusCode::BAD_REQUEST, &json!(1)),
            "{call}: {answer}"
        );
    }
    let (status, _) = read(store.post("block/put").body("no form")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(store.json("key/gen?arg=x").await.0, StatusCode::NOT_FOUND);
    let get =
        Client::new().get(format!("{}/api/v0/version", store.server.url())).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(store.json("repo/stat").await.1["NumObjects"], 0, "nothing of it was stored");
    store.server.stop().await;
}

#[tokio::test]
async fn oversize_block_is_refused_by_the_server_too() {
    let store = Running::start().await;
    let (status, answer) =
        read(with_parts(store.post("block/put"), &[&vec![1; MAX_BLOCK_BYTES + 1]])).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer["Message"].as_str().unwrap().contains("over 1MiB"), "{answer}");
    // Far over the limit the server stops reading: the sender sees its answer or a closed connection.
    if let Ok(answer) =
        with_parts(store.post("block/put"), &[&vec![1; 8 * MAX_BLOCK_BYTES]]).send().await
    {
        assert!(!answer.status().is_success());
    }
    assert_eq!(store.json("repo/stat").await.1["NumObjects"], 0);
    store.server.stop().await;
}

#[tokio::test]
async fn web_pages_are_refused_by_the_api() {
    let store = Running::start().await;
    let digest = store.client.put(Bytes::from_static(b"mine")).await.unwrap();
    let cid = cid_of(digest);
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("referer", "http://127.0.0.1:5001/"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("sec-fetch-site", "same-origin"),
    ] {
        for call in [format!("pin/rm?arg={cid}"), "block/put".into(), "pin/ls".into()] {
            let answer = with_parts(store.post(&call).header(name, value), &[b"planted"])
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name} {call}");
        }
    }
    assert!(store.client.is_pinned(digest).await.unwrap());
    assert!(store.client.get(digest_of(b"planted")).await.is_err());
    store.server.stop().await;
}
