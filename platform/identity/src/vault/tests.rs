use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    fn vault(&self) -> PathBuf {
        self.directory.path().join("identity/vault.redb")
    }

    fn master(&self) -> PathBuf {
        self.directory.path().join("pki/vault.key")
    }

    fn open(&self) -> Result<Vault, VaultError> {
        Vault::open(&self.vault(), &self.master())
    }

    fn raw(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, (&'static str, &'static str, &'static str), &'static [u8]>),
    ) {
        let database = redb::Database::open(self.vault()).expect("the file");
        let transaction = database.begin_write().expect("a transaction");
        change(&mut transaction.open_table(redb::TableDefinition::new("secrets")).expect("the table"));
        transaction.commit().expect("committed");
    }
}

fn password(owner: &str) -> SecretKey {
    SecretKey::only(SecretKind::Password, owner)
}

#[tokio::test]
async fn secrets_outlive_a_restart_and_go_with_their_owner() {
    let place = Place::new();
    let vault = place.open().expect("a vault");
    let key = SecretKey::new(SecretKind::ApplicationCredential, "alice", "ci");
    vault.put(password("alice"), "one".into()).await.expect("kept");
    vault.put(key.clone(), "two".into()).await.expect("kept");
    vault.put(password("alicea"), "three".into()).await.expect("kept");
    assert!(matches!(place.open(), Err(VaultError::Locked { .. })), "one process at a time");
    drop(vault);

    let vault = place.open().expect("the vault again");
    for path in [place.vault(), place.master()] {
        let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(vault.get(password("alice")).await.expect("read"), Some("one".into()));
    assert_eq!(vault.list("alice").await.expect("listed"), [key.clone(), password("alice")]);
    assert_eq!(vault.delete_owner("alice").await.expect("deleted"), 2);
    assert_eq!(vault.get(key).await.expect("read"), None);
    assert_eq!(vault.get(password("alicea")).await.expect("read"), Some("three".into()), "another owner");
    assert!(vault.delete(password("alicea")).await.expect("deleted"));
    assert!(!vault.delete(password("alicea")).await.expect("nothing to delete"));
}

#[tokio::test]
async fn a_transaction_is_whole_or_nothing() {
    let place = Place::new();
    let vault = place.open().expect("a vault");
    vault.put(password("alice"), "one".into()).await.expect("kept");
    let failed: Result<(), VaultError> = vault
        .transaction(|vault| {
            vault.put(&password("alice"), &"two".into())?;
            assert_eq!(vault.get(&password("alice"))?, Some("two".into()), "it sees its own writes");
            vault.put(&password(""), &"three".into())
        })
        .await;
    assert!(matches!(failed, Err(VaultError::BadKey { .. })));
    assert_eq!(vault.get(password("alice")).await.expect("read"), Some("one".into()));
    let big = SecretBytes::new(vec![0; VALUE_BYTES_MAX + 1]);
    assert!(matches!(vault.put(password("alice"), big).await, Err(VaultError::TooLarge { .. })));

    let replace = |expected: Option<&str>, value: Option<&str>| {
        vault.replace(password("alice"), expected.map(Into::into), value.map(Into::into))
    };
    assert!(!replace(None, Some("x")).await.expect("compared"));
    assert!(!replace(Some("two"), Some("x")).await.expect("compared"));
    assert!(replace(Some("one"), Some("two")).await.expect("replaced"));
    assert!(replace(Some("two"), None).await.expect("removed"));
    assert!(replace(None, Some("new")).await.expect("made"));
}

#[tokio::test]
async fn nothing_secret_is_in_the_file_or_in_debug_output() {
    let place = Place::new();
    let vault = place.open().expect("a vault");
    let secret = "correct horse battery staple";
    vault.put(password("alice"), secret.into()).await.expect("kept");
    let shown = format!("{vault:?} {:?}", vault.get(password("alice")).await);
    assert!(!shown.contains("horse"), "{shown}");
    drop(vault);
    let bytes = std::fs::read(place.vault()).expect("the file");
    assert!(!bytes.windows(5).any(|window| window == b"horse"));
}

#[tokio::test]
async fn records_cannot_be_moved_or_changed() {
    let place = Place::new();
    let vault = place.open().expect("a vault");
    vault.put(password("alice"), "one".into()).await.expect("kept");
    vault.put(password("mallory"), "two".into()).await.expect("kept");
    vault.put(password("bob"), "three".into()).await.expect("kept");
    drop(vault);
    place.raw(|table| {
        let get = |table: &redb::Table<'_, _, &'static [u8]>, owner: &'static str| {
            use redb::ReadableTable;
            let found: Option<redb::AccessGuard<'_, &[u8]>> =
                table.get((owner, "password", "")).expect("read");
            found.expect("a record").value().to_vec()
        };
        let stolen = get(table, "mallory");
        table.insert(("alice", "password", ""), stolen.as_slice()).expect("swapped");
        let mut bent = get(table, "bob");
        *bent.last_mut().expect("bytes") ^= 1;
        table.insert(("bob", "password", ""), bent.as_slice()).expect("bent");
    });
    let vault = place.open().expect("the vault still opens");
    for owner in ["alice", "bob"] {
        assert!(matches!(vault.get(password(owner)).await, Err(VaultError::Tampered { .. })), "{owner}");
    }
    assert_eq!(vault.get(password("mallory")).await.expect("read"), Some("two".into()));
}

#[tokio::test]
async fn the_master_key_rotates_and_a_cut_rotation_is_finished() {
    let place = Place::new();
    let vault = place.open().expect("a vault");
    for n in 0..50 {
        vault.put(password(&format!("u{n}")), format!("secret {n}").into()).await.expect("kept");
    }
    let first = std::fs::read_to_string(place.master()).expect("the key");
    vault.rotate_master_key().await.expect("rotated");
    let second = std::fs::read_to_string(place.master()).expect("the key");
    assert_ne!(first, second);
    assert_eq!(second.lines().count(), 2, "the old key is gone");
    assert_eq!(vault.get(password("u7")).await.expect("read"), Some("secret 7".into()));
    drop(vault);

    // As if the process had died after the new key was written and before anything was sealed by it.
    let fresh = MasterLines::of(&second).with_new_in_front();
    gantry_base::fs::write_atomic(&place.master(), fresh.as_bytes(), 0o600).expect("written");
    let vault = place.open().expect("finishes the rotation");
    assert_eq!(vault.get(password("u7")).await.expect("read"), Some("secret 7".into()));
    let third = std::fs::read_to_string(place.master()).expect("the key");
    assert_eq!(third.lines().collect::<Vec<_>>(), fresh.lines().take(2).collect::<Vec<_>>());
    drop(vault);

    gantry_base::fs::write_atomic(&place.master(), first.as_bytes(), 0o600).expect("written");
    assert!(matches!(place.open(), Err(VaultError::MasterKeyWrong { .. })), "a key of the past");
    gantry_base::fs::write_atomic(&place.master(), b"hello", 0o600).expect("written");
    assert!(matches!(place.open(), Err(VaultError::MasterKeyMalformed { .. })));
    gantry_base::fs::remove_all(&place.master()).expect("removed");
    assert!(matches!(place.open(), Err(VaultError::MasterKeyMissing { .. })), "never a new key over secrets");
}

struct MasterLines(Vec<String>);

impl MasterLines {
    fn of(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    fn with_new_in_front(mut self) -> String {
        use base64::Engine as _;
        let key: [u8; 32] = rand::random();
        self.0.insert(1, base64::engine::general_purpose::STANDARD.encode(key));
        self.0.join("\n")
    }
}

#[tokio::test]
async fn writers_go_on_while_the_key_rotates() {
    let place = Place::new();
    let vault = place.open().expect("a vault");
    let writers = (0..8).map(|writer| {
        let vault = vault.clone();
        tokio::spawn(async move {
            for round in 0..10 {
                let key = password(&format!("w{writer}"));
                vault.put(key.clone(), format!("{round}").into()).await.expect("kept");
                assert_eq!(vault.get(key).await.expect("read"), Some(format!("{round}").into()));
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..3 {
        vault.rotate_master_key().await.expect("rotated");
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    for writer in 0..8 {
        let key = password(&format!("w{writer}"));
        assert_eq!(vault.get(key).await.expect("read"), Some("9".to_owned().into()));
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Place::new();
    drop(place.open().expect("a vault"));
    let database = redb::Database::open(place.vault()).expect("the file");
    let transaction = database.begin_write().expect("a transaction");
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).expect("the table").insert("schema", 2).expect("written");
    transaction.commit().expect("committed");
    drop(database);
    for _ in 0..2 {
        assert!(matches!(place.open(), Err(VaultError::Newer { found: 2, known: 1, .. })));
    }
}
