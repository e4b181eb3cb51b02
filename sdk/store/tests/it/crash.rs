//! The embedded store in a process of its own, which is killed.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use assay_store::{Bytes, ContentStore, KuboStore, StoreError, StoreServer, digest_of};
use futures::{StreamExt, stream::FuturesUnordered};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{Running, config};

/// Names the folder for [`serve_until_killed`].
const FOLDER: &str = "ASSAY_STORE_TEST_FOLDER";

/// The other process: this test, started by the ones below.
#[tokio::test]
#[ignore = "only a process of its own runs this"]
async fn serve_until_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let server = StoreServer::start(config(PathBuf::from(folder))).await.unwrap();
    // Past the capture of tests, which would hold it back.
    writeln!(std::io::stdout(), "{}", server.url()).unwrap();
    std::future::pending::<()>().await;
}

struct Process {
    child: Child,
    client: KuboStore,
}

impl Process {
    /// `limits` are shell commands that run before the store.
    async fn start(folder: &Path, limits: &str) -> Self {
        let test = env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limits} exec \"$0\" \"$@\"")])
            .arg(test)
            .args(["--exact", "crash::serve_until_killed", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("the store does not start");
            // The test runner writes before it, on the same line.
            if let Some(start) = line.find("http://") {
                return Self { child, client: KuboStore::new(&line[start..]).unwrap() };
            }
        }
    }

    /// `kill -9`, and waits for the end.
    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

fn contents() -> Vec<Bytes> {
    (0..48_u8).map(|n| vec![n; 1 + usize::from(n) * 5000].into()).collect()
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("store");
    let process = Process::start(&store, "").await;
    let client = &process.client;
    let mut puts: FuturesUnordered<_> =
        contents().into_iter().map(|bytes| async move { client.put(bytes).await }).collect();
    let mut answered = Vec::new();
    while answered.len() < 8 {
        answered.push(puts.next().await.unwrap().unwrap());
    }
    // The others are under way: asking for their answers goes on beside the kill.
    let mut child = process.child;
    let (killed, rest) = tokio::join!(child.kill(), puts.collect::<Vec<_>>());
    killed.unwrap();
    for put in rest {
        match put {
            Ok(digest) => answered.push(digest),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }

    // Halves of blocks, as a kill and a broken disk may leave them.
    fs::write(store.join("tmp/1000"), b"hal").unwrap();
    let again = Running::start_in(folder).await;
    let half = Bytes::from_static(b"a block of which only a half was written");
    again.client.put(half.clone()).await.unwrap();
    fs::write(again.file("blocks", digest_of(&half)), &half[..20]).unwrap();
    let Running { folder, server, .. } = again;
    server.stop().await;
    let again = Running::start_in(folder).await;

    assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0);
    let all = contents();
    for digest in answered {
        let bytes = all.iter().find(|bytes| digest_of(bytes) == digest).unwrap();
        assert_eq!(again.client.get(digest).await.unwrap(), bytes);
        assert!(again.client.is_pinned(digest).await.unwrap());
    }
    for bytes in &all {
        // Of the ones without an answer each is there whole or not at all.
        match again.client.get(digest_of(bytes)).await {
            Ok(got) => assert_eq!(got, bytes),
            Err(error) => assert!(matches!(error, StoreError::NotFound { .. }), "{error:?}"),
        }
        assert_eq!(again.client.put(bytes.clone()).await.unwrap(), digest_of(bytes));
    }
    let damaged = again.client.get(digest_of(&half)).await;
    assert!(matches!(damaged, Err(StoreError::Daemon { .. })), "{damaged:?}");
    again.client.put(half.clone()).await.unwrap();
    assert_eq!(again.client.get(digest_of(&half)).await.unwrap(), half);
    again.server.stop().await;
}

#[tokio::test]
async fn two_processes_never_share_a_folder() {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("store");
    let process = Process::start(&store, "").await;
    let second = StoreServer::start(config(store.clone())).await.err().unwrap();
    assert!(matches!(&second, StoreError::InUse { folder } if *folder == store), "{second:?}");
    // The first one is not disturbed, and a killed one leaves no lock behind.
    process.client.put(Bytes::from_static(b"still mine")).await.unwrap();
    process.kill().await;
    StoreServer::start(config(store)).await.unwrap().stop().await;
}

/// The system refuses to write more than 32 KiB to a file, as a full disk does in the middle of a block.
#[tokio::test]
async fn a_write_that_fails_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let store = folder.path().join("store");
    let process = Process::start(&store, "trap '' XFSZ; ulimit -f 64;").await;
    let small = process.client.put(vec![1; 20_000].into()).await.unwrap();
    let large = Bytes::from(vec![2; 200_000]);
    let error = process.client.put(large.clone()).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Daemon { message } if message.contains("free space")),
        "{error:?}"
    );
    assert!(error.is_retryable());
    assert!(matches!(
        process.client.get(digest_of(&large)).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(!process.client.is_pinned(digest_of(&large)).await.unwrap());
    assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0);
    assert_eq!(process.client.get(small).await.unwrap(), vec![1; 20_000]);
    process.client.put(Bytes::from_static(b"and more fits")).await.unwrap();
    process.kill().await;
}
