//! All that a store holds, in a file or in another store.
//!
//! ```text
//!  "dyno store 1\n"
//!  for each key:  its length (4 bytes), the value's (4), key, value     big-endian
//!  the end:       0 (4), how many keys there were (8), SHA-256 of all before
//! ```
//!
//! Revisions are not kept, as etcd gives none by choice; nor is what hangs on a lease:
//! who holds that says so anew. A backup is parsed as if a stranger had made it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::store::{
    Change, Entry, Error, Fresh, KEY_MAX, KEYS_MAX, Outcome, Store, TRANSACTION_MAX, Transaction,
    VALUE_MAX,
};

const MAGIC: &[u8] = b"dyno store 1\n";

/// Why there is no backup, or nothing of it was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What the store says.
    #[error(transparent)]
    Store(#[from] Error),
    /// The file cannot be written or read.
    #[error("the backup")]
    File(#[from] std::io::Error),
    /// It is no backup, or was changed since.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
    /// There is something in the store already.
    #[error("the store is not empty: it holds {0:?}")]
    NotEmpty(String),
    /// Somebody else has written to the store meanwhile.
    #[error("somebody else has changed {0:?} in the store meanwhile")]
    Disturbed(String),
}

type Result<T> = std::result::Result<T, BackupError>;

/// Writes a backup of one moment of the store; how many keys it has.
///
/// # Errors
/// [`BackupError::Store`], [`BackupError::File`].
pub async fn write(store: &dyn Store, file: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
    let entries = lasting(store).await?;
    let mut out = Hashed {
        file,
        sum: Sha256::new(),
    };
    out.write(MAGIC).await?;
    for entry in &entries {
        out.write(&length(&entry.key)).await?;
        out.write(&length(&entry.value)).await?;
        out.write(&entry.key).await?;
        out.write(&entry.value).await?;
    }
    out.write(&0_u32.to_be_bytes()).await?;
    let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    out.write(&count.to_be_bytes()).await?;
    let sum = out.sum.finalize();
    out.file.write_all(&sum).await?;
    out.file.flush().await?;
    Ok(count)
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

struct Hashed<'a, W> {
    file: &'a mut W,
    sum: Sha256,
}

impl<W: AsyncWrite + Unpin> Hashed<'_, W> {
    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sum.update(bytes);
        Ok(self.file.write_all(bytes).await?)
    }
}

/// Puts a backup into an empty store; how many keys it had. All of it is read and
/// checked before anything is written. One that was cut short may be done again.
///
/// # Errors
/// [`BackupError`]: nothing was written but for what the store says.
pub async fn restore(store: &dyn Store, file: &mut (impl AsyncRead + Unpin)) -> Result<u64> {
    fill(store, read(file).await?).await
}

/// Copies everything from one store into another, which is empty. Nobody may write to
/// either meanwhile. One that was cut short may be done again.
///
/// # Errors
/// [`BackupError`].
pub async fn copy(from: &Arc<dyn Store>, to: &Arc<dyn Store>) -> Result<u64> {
    let entries = lasting(&**from).await?;
    let pairs = entries.into_iter().map(|entry| (entry.key, entry.value));
    fill(&**to, pairs.collect()).await
}

async fn lasting(store: &dyn Store) -> Result<Vec<Entry>> {
    let list = store.list(b"", Fresh::Latest).await?;
    let lasting = list.value.into_iter().filter(|entry| entry.lease.is_none());
    Ok(lasting.collect())
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

async fn read(file: &mut (impl AsyncRead + Unpin)) -> Result<Pairs> {
    let mut sum = Sha256::new();
    let magic = take(file, MAGIC.len(), &mut sum).await?;
    if magic != MAGIC {
        return Err(BackupError::Damaged("it does not begin like one"));
    }
    let mut pairs = Pairs::new();
    loop {
        let key = number(file, &mut sum).await?;
        if key == 0 {
            break;
        }
        let value = number(file, &mut sum).await?;
        if key > KEY_MAX || value > VALUE_MAX {
            return Err(BackupError::Damaged("a key or value is longer than any"));
        }
        let key = take(file, key, &mut sum).await?;
        let value = take(file, value, &mut sum).await?;
        if pairs.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(BackupError::Damaged("its keys are not in order"));
        }
        pairs.insert(key, value);
    }
    let count = take(file, 8, &mut sum).await?;
    if count != u64::try_from(pairs.len()).unwrap_or(u64::MAX).to_be_bytes() {
        return Err(BackupError::Damaged(
            "it has fewer or more keys than it says",
        ));
    }
    let expected = sum.finalize();
    let mut found = [0; 32];
    exactly(file, &mut found).await?;
    if found[..] != expected[..] {
        return Err(BackupError::Damaged("its sum is another"));
    }
    match file.read(&mut [0]).await? {
        0 => Ok(pairs),
        _ => Err(BackupError::Damaged("it does not end where it says")),
    }
}

async fn exactly(file: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<()> {
    match file.read_exact(bytes).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(BackupError::Damaged("it is cut off"))
        }
        read => Ok(read.map(drop)?),
    }
}

async fn take(
    file: &mut (impl AsyncRead + Unpin),
    length: usize,
    sum: &mut Sha256,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    exactly(file, &mut bytes).await?;
    sum.update(&bytes);
    Ok(bytes)
}

async fn number(file: &mut (impl AsyncRead + Unpin), sum: &mut Sha256) -> Result<usize> {
    let mut bytes = [0; 4];
    exactly(file, &mut bytes).await?;
    sum.update(bytes);
    Ok(usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX))
}

async fn fill(store: &dyn Store, pairs: Pairs) -> Result<u64> {
    // What is there already is of a try that was cut short, or not ours to touch.
    for entry in store.list(b"", Fresh::Latest).await?.value {
        if pairs.get(&entry.key) != Some(&entry.value) {
            return Err(BackupError::NotEmpty(text(&entry.key)));
        }
    }
    let count = u64::try_from(pairs.len()).unwrap_or(u64::MAX);
    let mut next = Transaction::new();
    let mut bytes = 0;
    for (key, value) in &pairs {
        let more = key.len() + value.len();
        if next.expects().len() == KEYS_MAX || bytes + more > TRANSACTION_MAX {
            put(store, &std::mem::take(&mut next)).await?;
            bytes = 0;
        }
        next = next.create(&**key, &**value);
        bytes += more;
    }
    if !next.expects().is_empty() {
        put(store, &next).await?;
    }
    let there = store.list(b"", Fresh::Latest).await?.value;
    let there: Pairs = there
        .into_iter()
        .map(|entry| (entry.key, entry.value))
        .collect();
    let mut other = there
        .iter()
        .filter(|(key, value)| pairs.get(*key) != Some(*value));
    let missing = || pairs.keys().find(|key| !there.contains_key(*key));
    match other.next().map(|(key, _)| key).or_else(missing) {
        None => Ok(count),
        Some(key) => Err(BackupError::Disturbed(text(key))),
    }
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// Makes these keys, of which some may be there with the same values.
async fn put(store: &dyn Store, transaction: &Transaction) -> Result<()> {
    // As often as an answer may stay away.
    let mut tries = 3;
    loop {
        let outcome = store.commit(transaction).await;
        match outcome {
            Ok(Outcome::Committed { .. }) => return Ok(()),
            Err(Error::Uncertain(_) | Error::Unavailable(_)) if tries > 0 => tries -= 1,
            Err(error) => return Err(error.into()),
            Ok(Outcome::Conflict { found, .. }) => {
                let missing = missing(transaction, &found)?;
                if missing.expects().is_empty() {
                    return Ok(());
                }
                return Box::pin(put(store, &missing)).await;
            }
        }
    }
}

/// What of the transaction's keys is not there yet.
fn missing(transaction: &Transaction, found: &[Option<Entry>]) -> Result<Transaction> {
    let mut missing = Transaction::new();
    for (change, found) in transaction.changes().iter().zip(found) {
        let Change::Put { key, value, .. } = change else {
            continue;
        };
        match found {
            None => missing = missing.create(&**key, &**value),
            Some(entry) if entry.value == *value => {}
            Some(_) => return Err(BackupError::Disturbed(text(key))),
        }
    }
    Ok(missing)
}
