//! The gateway as a browser sees it.

use assay_store::{Bytes, ContentStore, cid_of, digest_of};
use reqwest::{Client, Response, StatusCode, header};

use crate::Running;

fn text(response: &Response, name: header::HeaderName) -> &str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn blocks_with_lasting_headers() {
    let store = Running::start().await;
    let contents = [
        (&br#"{"version":1,"ids":[1,2]}"#[..], "application/json"),
        (b"<script>alert(1)</script>", "application/octet-stream"),
    ];
    for (bytes, kind) in contents {
        let digest = store.client.put(Bytes::from_static(bytes)).await.unwrap();
        let cid = cid_of(digest);
        let url = format!("{}/ipfs/{cid}", store.server.url());
        let page = Client::new()
            .get(&url)
            .header(header::ORIGIN, "https://explorer.example")
            .send()
            .await
            .unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(text(&page, header::CONTENT_TYPE), kind);
        assert_eq!(text(&page, header::X_CONTENT_TYPE_OPTIONS), "nosniff");
        assert!(text(&page, header::CACHE_CONTROL).contains("immutable"));
        assert_eq!(text(&page, header::ACCESS_CONTROL_ALLOW_ORIGIN), "*");
        let etag = text(&page, header::ETAG).to_owned();
        assert_eq!(etag, format!("\"{cid}\""));
        assert_eq!(page.bytes().await.unwrap(), bytes);

        let head = Client::new().head(&url).send().await.unwrap();
        assert_eq!(
            (head.status(), text(&head, header::CONTENT_LENGTH)),
            (StatusCode::OK, bytes.len().to_string().as_str())
        );
        assert!(head.bytes().await.unwrap().is_empty());

        let again =
            Client::new().get(&url).header(header::IF_NONE_MATCH, etag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(again.bytes().await.unwrap().is_empty());
    }
    store.server.stop().await;
}

#[tokio::test]
async fn refusals_are_not_kept_by_caches() {
    let store = Running::start().await;
    let missing = cid_of(digest_of(b"nobody stored this")).to_string();
    let paths = [
        (missing.as_str(), StatusCode::NOT_FOUND),
        ("QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ", StatusCode::BAD_REQUEST),
        ("..%2F..%2Fetc%2Fpasswd", StatusCode::BAD_REQUEST),
        ("%FF", StatusCode::BAD_REQUEST),
    ];
    for (path, status) in paths {
        let page = reqwest::get(format!("{}/ipfs/{path}", store.server.url())).await.unwrap();
        assert_eq!(page.status(), status, "{path}");
        assert!(!text(&page, header::CACHE_CONTROL).contains("immutable"));
    }
    for method in [reqwest::Method::POST, reqwest::Method::PUT, reqwest::Method::DELETE] {
        let url = format!("{}/ipfs/{missing}", store.server.url());
        let answer = Client::new().request(method, url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    store.server.stop().await;
}
