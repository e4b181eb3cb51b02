//! Put, get and pin through HTTP, and what the disk may do in between.

use std::{fs, io::ErrorKind};

use assay_store::{
    Bytes, ContentStore, KuboStore, MAX_BLOCK_BYTES, StoreError, StoreServer, StoreServerConfig,
    cid_of, content_cid, digest_of, get_content, put_content,
};

use tempfile::TempDir;

use crate::{Running, config};

impl Running {
    async fn call(&self, call: &str) -> (u16, String) {
        let url = format!("{}/api/v0/{call}", self.server.url());
        let answer = reqwest::Client::new().post(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

#[tokio::test]
async fn put_get_and_pin() {
    let store = Running::start().await;
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let contents = [
        Bytes::new(),
        Bytes::from_static(b"hello world"),
        Bytes::from_static(b"\r\n--boundary\r\n\0"),
        every_byte.into(),
    ];
    for bytes in contents {
        let digest = digest_of(&bytes);
        assert!(!store.client.is_pinned(digest).await.unwrap());
        assert!(matches!(store.client.get(digest).await, Err(StoreError::NotFound { .. })));
        assert_eq!(store.client.put(bytes.clone()).await.unwrap(), digest);
        assert_eq!(store.client.get(digest).await.unwrap(), bytes);
        assert!(store.client.is_pinned(digest).await.unwrap());
        // Again: the same block, still pinned.
        assert_eq!(store.client.put(bytes.clone()).await.unwrap(), digest);
    }
    assert_eq!(store.client.health().await.unwrap(), "assay-store/0.1.0");
    store.server.stop().await;
}

#[tokio::test]
async fn largest_block_fits_and_one_byte_more_does_not() {
    let store = Running::start().await;
    let largest = Bytes::from(vec![7; MAX_BLOCK_BYTES]);
    let digest = store.client.put(largest.clone()).await.unwrap();
    assert_eq!(store.client.get(digest).await.unwrap(), largest);
    let over = store.client.put(Bytes::from(vec![7; MAX_BLOCK_BYTES + 1])).await;
    assert!(
        matches!(over, Err(StoreError::TooLarge { bytes, limit: MAX_BLOCK_BYTES }) if bytes == MAX_BLOCK_BYTES + 1),
        "{over:?}"
    );
    store.server.stop().await;
}

#[tokio::test]
async fn content_over_one_block_is_kept_as_a_file() {
    let store = Running::start().await;
    let content = Bytes::from(vec![9; 2 * MAX_BLOCK_BYTES + 1]);
    let cid = put_content(&store.client, content.clone()).await.unwrap();
    assert_eq!(cid, content_cid(&content));
    assert_eq!(store.call("repo/gc").await, (200, String::new()));
    assert_eq!(get_content(&store.client, &cid, content.len()).await.unwrap(), content);
    let over = get_content(&store.client, &cid, content.len() - 1).await;
    assert!(matches!(over, Err(StoreError::TooLarge { .. })), "{over:?}");
    store.server.stop().await;
}

#[tokio::test]
async fn same_block_from_many_at_once() {
    let store = Running::start().await;
    let bytes = Bytes::from(vec![3; 300_000]);
    let puts = (0..24).map(|_| store.client.put(bytes.clone()));
    let results = futures::future::join_all(puts).await;
    for result in results {
        assert_eq!(result.unwrap(), digest_of(&bytes));
    }
    assert_eq!(store.client.get(digest_of(&bytes)).await.unwrap(), bytes);
    let left = fs::read_dir(store.folder.path().join("store/tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files are gone");
    store.server.stop().await;
}

#[tokio::test]
async fn blocks_and_pins_outlive_a_restart() {
    let first = Running::start().await;
    let kept = first.client.put(Bytes::from_static(b"kept")).await.unwrap();
    let Running { folder, server, .. } = first;
    server.stop().await;
    // What an interrupted write leaves behind is swept away.
    let left = folder.path().join("store/tmp/9");
    fs::write(&left, b"half a bl").unwrap();
    let second = Running::start_in(folder).await;
    assert_eq!(second.client.get(kept).await.unwrap(), "kept");
    assert!(second.client.is_pinned(kept).await.unwrap());
    assert!(!left.exists());
    second.server.stop().await;
}

#[tokio::test]
async fn damaged_file_is_an_error_and_is_repaired_by_the_next_put() {
    let store = Running::start().await;
    let bytes = Bytes::from_static(b"what the miner said");
    let digest = store.client.put(bytes.clone()).await.unwrap();
    let file = store.file("blocks", digest);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    for damage in [&b"what the miner sais"[..], b"what", b"", &[0; MAX_BLOCK_BYTES + 5]] {
        fs::write(&file, damage).unwrap();
        let got = store.client.get(digest).await;
        assert!(
            matches!(&got, Err(StoreError::Daemon { message }) if message.contains("different hash")),
            "{got:?}"
        );
        let url = format!("{}/ipfs/{}", store.server.url(), cid_of(digest));
        let page = reqwest::get(url).await.unwrap();
        assert_eq!(page.status(), 500);
        let page = page.text().await.unwrap();
        assert!(
            !page.contains("what the miner")
                && !page.contains(store.folder.path().to_str().unwrap()),
            "{page}"
        );
    }
    store.client.put(bytes.clone()).await.unwrap();
    assert_eq!(store.client.get(digest).await.unwrap(), bytes);
    store.server.stop().await;
}

#[tokio::test]
async fn a_full_store_refuses_and_can_be_freed() {
    const UNIT: usize = 4096;
    let folder = TempDir::new().unwrap();
    let store = Running::start_with(folder, 4 * UNIT as u64).await;
    // The space that they take on disk counts: one, one and two units.
    let kept: Vec<Bytes> = [1, UNIT, UNIT + 1].map(|bytes| vec![5; bytes].into()).into();
    for bytes in &kept {
        store.client.put(bytes.clone()).await.unwrap();
    }
    let full = |error: StoreError| {
        assert!(
            matches!(&error, StoreError::Daemon { message } if message.contains("is full") && message.contains("16384")),
            "{error:?}"
        );
    };
    full(store.client.put(Bytes::from_static(b"one more")).await.unwrap_err());
    let Running { folder, server, .. } = store;
    server.stop().await;
    let store = Running::start_with(folder, 4 * UNIT as u64).await;
    full(store.client.put(Bytes::from_static(b"one more")).await.unwrap_err());
    assert!(!store.client.is_pinned(digest_of(b"one more")).await.unwrap());
    // What is there stays readable, can be stored again, and can be repaired.
    let damaged = store.file("blocks", digest_of(&kept[1]));
    fs::write(&damaged, b"half").unwrap();
    for bytes in &kept {
        assert_eq!(store.client.put(bytes.clone()).await.unwrap(), digest_of(bytes));
        assert_eq!(store.client.get(digest_of(bytes)).await.unwrap(), bytes);
    }
    // Freed: what nobody pins any more, and nothing else.
    assert_eq!(store.call("repo/gc").await, (200, String::new()));
    let gone = digest_of(&kept[2]);
    assert_eq!(store.call(&format!("pin/rm?arg={}", cid_of(gone))).await.0, 200);
    let removed = format!("{{\"Key\":{{\"/\":\"{}\"}}}}\n", cid_of(gone));
    assert_eq!(store.call("repo/gc").await, (200, removed));
    assert!(matches!(store.client.get(gone).await, Err(StoreError::NotFound { .. })));
    for bytes in [&b"one more"[..], b"and one"] {
        store.client.put(Bytes::from_static(bytes)).await.unwrap();
    }
    full(store.client.put(Bytes::from_static(b"too much")).await.unwrap_err());
    assert_eq!(store.client.get(digest_of(&kept[0])).await.unwrap(), kept[0]);
    store.server.stop().await;
}

#[tokio::test]
async fn nobody_at_the_address() {
    let store = Running::start().await;
    let url = store.server.url();
    store.server.stop().await;
    let client = KuboStore::new(&url).unwrap();
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }) && error.is_retryable(), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("assay up") && message.contains("--ipfs-url") && message.contains(&url),
        "{message}"
    );
}

#[tokio::test]
async fn dropping_the_server_ends_it() {
    let store = Running::start().await;
    let Running { folder, server, client } = store;
    drop(server);
    // The listener closes when its task is dropped, soon after the abort.
    while client.health().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(client.health().await, Err(StoreError::Unreachable { .. })));
    drop(folder);
}

#[tokio::test]
async fn taken_port_and_taken_folder_have_their_own_errors() {
    let store = Running::start().await;
    let addr = store.server.local_addr();
    let other = store.folder.path().join("other");
    let taken = StoreServer::start(StoreServerConfig { listen: addr, ..config(other) })
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&taken, StoreError::Bind { addr: asked, source } if *asked == addr && source.kind() == ErrorKind::AddrInUse),
        "{taken:?}"
    );
    assert!(taken.to_string().contains(&addr.to_string()), "{taken}");

    let folder = store.folder.path().join("store");
    let in_use = StoreServer::start(config(folder)).await.err().unwrap();
    assert!(matches!(in_use, StoreError::InUse { .. }), "{in_use:?}");

    let file = store.folder.path().join("a-file");
    fs::write(&file, b"").unwrap();
    let not_a_folder = StoreServer::start(config(file)).await.err().unwrap();
    assert!(matches!(not_a_folder, StoreError::Io { .. }), "{not_a_folder:?}");
    store.server.stop().await;
}
