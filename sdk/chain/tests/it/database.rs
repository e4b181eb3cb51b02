use assay_chain::{Block, Database, DatabaseError, Outbox, OutboxError, load_cursor, save_cursor};

use crate::world::{Follower, World, succeeded};

#[test]
fn a_second_opening_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("miner.db");
    let first = Database::open(&path, &[]).unwrap();
    let error = Database::open(&path, &[]).unwrap_err();
    let DatabaseError::InUse { holder, .. } = &error else { panic!("{error}") };
    assert_eq!(*holder, format!("process {}", std::process::id()));
    assert!(error.to_string().contains("miner.db"));
    drop(first);
    Database::open(&path, &[]).unwrap();
}

/// Not a test by itself: the other process of the next one.
#[test]
fn other_process() {
    let Some(path) = std::env::var_os("ASSAY_TEST_HOLD") else { return };
    let _db = Database::open(std::path::Path::new(&path), &[]).unwrap();
    std::fs::write(std::path::Path::new(&path).with_extension("held"), "").unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_folder_that_another_process_uses_is_refused_until_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("miner.db");
    let mut other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "database::other_process"])
        .env("ASSAY_TEST_HOLD", &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !path.with_extension("held").exists() {
        assert!(other.try_wait().unwrap().is_none(), "the other process has ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let error = Database::open(&path, &[]).unwrap_err();
    let DatabaseError::InUse { holder, .. } = &error else { panic!("{error}") };
    assert_eq!(*holder, format!("process {}", other.id()));
    assert!(error.to_string().contains("another data folder"), "{error}");
    // However it ends, the folder is free.
    other.kill().unwrap();
    other.wait().unwrap();
    Database::open(&path, &[]).unwrap();
}

#[test]
fn migrations_run_once_each_and_a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.db");
    let one = "CREATE TABLE answers (id INTEGER PRIMARY KEY)";
    let two = "ALTER TABLE answers ADD COLUMN text TEXT";
    let count = |db: &Database| {
        db.transaction(|tx| {
            tx.query_row("SELECT COUNT(*) FROM pragma_table_info('answers')", [], |row| {
                row.get::<_, i64>(0)
            })
        })
        .unwrap()
    };
    assert_eq!(count(&Database::open(&path, &[one]).unwrap()), 1);
    assert_eq!(count(&Database::open(&path, &[one, two]).unwrap()), 2);
    assert_eq!(count(&Database::open(&path, &[one, two]).unwrap()), 2);
    let error = Database::open(&path, &[one]).unwrap_err();
    let DatabaseError::NewerSchema { found, known, .. } = &error else { panic!("{error}") };
    assert_eq!((found.as_str(), known.as_str()), ("2.2", "2.1"));
    assert!(error.to_string().contains("newer program"));
    // The same for the tables of this crate, and nothing is changed by the attempt.
    let db = Database::open(&path, &[one, two]).unwrap();
    db.transaction(|tx| tx.pragma_update(None, "user_version", (99 << 12) | 2)).unwrap();
    drop(db);
    for _ in 0..2 {
        let error = Database::open(&path, &[one, two]).unwrap_err();
        let DatabaseError::NewerSchema { found, .. } = &error else { panic!("{error}") };
        assert_eq!(found, "99.2");
    }
}

#[test]
fn a_failed_transaction_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let db =
        Database::open(&folder.path().join("agent.db"), &["CREATE TABLE t (x INTEGER)"]).unwrap();
    let failed = db.transaction(|tx| {
        tx.execute("INSERT INTO t VALUES (1)", [])?;
        tx.execute("INSERT INTO nowhere VALUES (1)", [])
    });
    assert!(matches!(failed, Err(DatabaseError::Sqlite { .. })));
    let rows = |db: &Database| {
        db.transaction(|tx| tx.query_row("SELECT COUNT(*) FROM t", [], |row| row.get::<_, i64>(0)))
    };
    assert_eq!(rows(&db).unwrap(), 0);
    db.transaction(|tx| tx.execute("INSERT INTO t VALUES (1)", [])).unwrap();
    assert_eq!(rows(&db).unwrap(), 1);
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.db");
    std::fs::write(&path, "this is a letter to my aunt, and a long one at that").unwrap();
    let error = Database::open(&path, &[]).unwrap_err();
    assert!(error.to_string().contains("agent.db"), "{error}");
}

/// Leaves no room for new pages; `None` gives it back.
fn limit_pages(db: &Database, spare: Option<i64>) {
    db.transaction(|tx| {
        let pages: i64 = tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let most = spare.map_or(1 << 30, |spare| pages + spare);
        tx.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()))
    })
    .unwrap();
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.db");
    let db = Database::open(&path, &["CREATE TABLE t (x BLOB)"]).unwrap();
    let insert = |db: &Database| {
        db.transaction(|tx| tx.execute("INSERT INTO t VALUES (zeroblob(20000))", []))
    };
    let rows = |db: &Database| {
        db.transaction(|tx| tx.query_row("SELECT COUNT(*) FROM t", [], |row| row.get::<_, i64>(0)))
            .unwrap()
    };
    insert(&db).unwrap();
    limit_pages(&db, Some(3));
    let error = insert(&db).unwrap_err();
    assert!(matches!(error, DatabaseError::Full { .. }) && error.is_retryable(), "{error}");
    let text = error.to_string();
    assert!(text.contains("agent.db") && text.contains("make room"), "{text}");
    assert_eq!(rows(&db), 1);
    // The agent ends and is started again, with room now.
    drop(db);
    let db = Database::open(&path, &["CREATE TABLE t (x BLOB)"]).unwrap();
    assert_eq!(rows(&db), 1);
    insert(&db).unwrap();
    assert_eq!(rows(&db), 2);
}

#[tokio::test]
async fn a_full_disk_sends_nothing_that_is_not_stored() {
    let world = World::new(true).await;
    let signer = alloy::signers::local::PrivateKeySigner::random();
    world.fund(signer.address()).await;
    let db = world.database("a");
    let outbox = Outbox::new(world.chain().await, signer, db.clone()).await.unwrap();
    limit_pages(&db, Some(0));
    // Until a page is full.
    let mut sent = 0;
    let error = loop {
        match outbox.send(world.emit(sent)).await {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(
        &error,
        OutboxError::Database { source: DatabaseError::Full { .. } } if error.is_retryable()
    ));
    limit_pages(&db, None);
    // The one that met the full disk goes through now, and none was sent twice.
    assert!(succeeded(&outbox.send(world.emit(sent)).await.unwrap()));
    for nonce in 0..=sent {
        assert_eq!(world.effects(nonce).await, 1);
    }
}

#[tokio::test]
async fn a_full_disk_loses_no_event() {
    let world = World::new(true).await;
    let start = world.head().await + 1;
    let mut follower = Follower::start(world.chain().await, world.database("a"), start);
    world.emit_block(0).await;
    let first = follower.committed().await;
    let db = follower.stop().await;
    limit_pages(&db, Some(0));
    let save = |block: &Block| db.transaction(|tx| save_cursor(tx, block));
    // Blocks that the disk has no room for in the end.
    let mut block = first;
    let error = loop {
        let mut next = block.clone();
        next.parent = block.at.hash;
        next.at.number += 1;
        next.at.hash = alloy::primitives::keccak256(block.at.hash);
        if let Err(error) = save(&next) {
            break error;
        }
        block = next;
    };
    assert!(matches!(error, DatabaseError::Full { .. }), "{error}");
    // The cursor stands at the last that was stored.
    assert_eq!(db.transaction(load_cursor).unwrap(), Some(block.at));
}
