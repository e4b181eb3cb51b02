use assay_chain::{Database, DatabaseError};

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
