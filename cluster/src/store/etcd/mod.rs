//! The store of several hosts: etcd, by its own protocol, version 3.
//!
//! Reads are linearizable unless they ask for less. A list is read by pages, all of the
//! revision of the first. Every call has a deadline; what may be asked twice without
//! harm is asked again until then. A commit is not: when its answer does not come, it
//! may be done or not, and [`Error::Uncertain`] says so.
//!
//! ```text
//!  ours                   etcd's
//!  Is::At(revision)       mod_revision == revision
//!  Is::Absent, Present    create_revision == 0, > 0
//!  Watch after            start_revision = after + 1
//! ```

mod error;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions,
    KeyValue, PutOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
pub use etcd_client::{Certificate, Identity, TlsOptions};
use tokio::time::{Instant, sleep, timeout_at};

use self::error::{broken, of_change, of_read};
use super::transaction::{check_key, end_of};
use super::{
    Batch, Change, Entry, Error, Event, Expect, Fresh, Is, Lease, LeaseId, Outcome, Read, Result,
    Revision, Source, Status, Store, Transaction, Watch,
};

/// Until then every call has ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before what may be asked twice is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// A silent peer is asked whether it is there, and given up.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3));
/// Entries of a list that are read at once: as many of the largest fit into an answer.
const PAGE: i64 = 128;
/// Bytes of an answer at most.
const ANSWER_MAX: usize = 64 << 20;
/// Seconds of a lease at most, as etcd has it.
const TTL_MAX: u64 = 9_000_000_000;

type Theirs<T> = std::result::Result<T, etcd_client::Error>;

/// Who answers, and who asks.
#[derive(Clone, Default)]
pub struct Config {
    /// `http://10.0.0.1:2379`, one for each member.
    pub endpoints: Vec<String>,
    /// What is trusted and shown, where they are `https://`.
    pub tls: Option<TlsOptions>,
    /// Name and password, where etcd wants one.
    pub user: Option<(String, String)>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _password)| name);
        f.debug_struct("Config")
            .field("endpoints", &self.endpoints)
            .field("tls", &self.tls.is_some())
            .field("user", &user)
            .finish()
    }
}

impl Config {
    pub(crate) fn options(&self, patience: Duration) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(patience)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password);
        }
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        options
    }
}

/// A store in etcd.
pub struct Etcd {
    pub(crate) config: Config,
    pub(crate) client: Client,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Etcd {
    /// Prepares to ask; asks at once only where there is a user.
    ///
    /// # Errors
    /// [`Error::Invalid`] for endpoints that are none, [`Error::Denied`],
    /// [`Error::Unavailable`].
    pub async fn connect(config: Config) -> Result<Self> {
        let options = config.options(PATIENCE);
        let connected = Client::connect(&config.endpoints, Some(options));
        let client = timeout_at(Instant::now() + PATIENCE, connected).await;
        let client = client.map_err(|_late| late())?.map_err(of_read)?;
        Ok(Self { config, client })
    }

    /// Asks again until there is an answer, an error that will stay, or no time left.
    pub(crate) async fn again<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Theirs<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut last = late();
        loop {
            match timeout_at(deadline, ask(self.client.clone())).await {
                Err(_late) => return Err(last),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match of_read(error) {
                    error @ Error::Unavailable(_) if Instant::now() + PAUSE < deadline => {
                        last = error;
                        sleep(PAUSE).await;
                    }
                    error => return Err(error),
                },
            }
        }
    }

    pub(crate) async fn once<T>(&self, ask: impl Future<Output = Theirs<T>>) -> Result<T> {
        match timeout_at(Instant::now() + PATIENCE, ask).await {
            Err(_late) => Err(Error::Uncertain(NO_ANSWER.into())),
            Ok(answer) => answer.map_err(of_change),
        }
    }

    /// One page of keys from `key` on.
    async fn page(&self, key: &[u8], options: GetOptions) -> Result<(Revision, Page)> {
        let answer = self.again(|client| {
            let (key, options) = (key.to_vec(), options.clone());
            let mut keys = client.kv_client().max_decoding_message_size(ANSWER_MAX);
            async move { keys.get(key, Some(options)).await }
        });
        let answer = answer.await?;
        let entries = answer.kvs().iter().map(entry).collect::<Result<_>>()?;
        let page = Page {
            entries,
            more: answer.more(),
        };
        Ok((revision(answer.header())?, page))
    }

    async fn whole_list(&self, prefix: &[u8], serializable: bool) -> Result<Read<Vec<Entry>>> {
        let (mut begin, end) = (prefix.to_vec(), end_of(prefix).unwrap_or(vec![0]));
        if begin.is_empty() {
            begin.push(0);
        }
        let options = || {
            let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            match serializable {
                true => options.with_serializable(),
                false => options,
            }
        };
        let (revision, mut page) = self.page(&begin, options()).await?;
        let mut value = page.entries;
        while page.more {
            let last = value
                .last()
                .ok_or_else(|| broken("an empty page with more behind it"))?;
            begin = [&last.key[..], &[0]].concat();
            let options = options().with_revision(signed(revision.0)?);
            page = self.page(&begin, options).await?.1;
            value.append(&mut page.entries);
        }
        Ok(Read { revision, value })
    }
}

struct Page {
    entries: Vec<Entry>,
    more: bool,
}

const NO_ANSWER: &str = "no answer came in time";

fn late() -> Error {
    Error::Unavailable(NO_ANSWER.into())
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_large| Error::Invalid(format!("{number} is too large")))
}

fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_negative| broken("a negative number"))
}

fn revision(header: Option<&ResponseHeader>) -> Result<Revision> {
    let header = header.ok_or_else(|| broken("an answer without a header"))?;
    unsigned(header.revision()).map(Revision)
}

fn entry(pair: &KeyValue) -> Result<Entry> {
    let lease = unsigned(pair.lease())?;
    Ok(Entry {
        key: pair.key().to_vec(),
        value: pair.value().to_vec(),
        created: Revision(unsigned(pair.create_revision())?),
        modified: Revision(unsigned(pair.mod_revision())?),
        lease: (lease != 0).then_some(LeaseId(lease)),
    })
}

fn compare(Expect { key, is }: &Expect) -> Result<Compare> {
    let key = key.clone();
    Ok(match is {
        Is::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
        Is::Present => Compare::create_revision(key, CompareOp::Greater, 0),
        Is::At(revision) => Compare::mod_revision(key, CompareOp::Equal, signed(revision.0)?),
    })
}

fn operation(change: &Change) -> Result<TxnOp> {
    Ok(match change {
        Change::Delete { key } => TxnOp::delete(key.clone(), None),
        Change::Put { key, value, lease } => {
            let options = match lease {
                Some(lease) => Some(PutOptions::new().with_lease(signed(lease.0)?)),
                None => None,
            };
            TxnOp::put(key.clone(), value.clone(), options)
        }
    })
}

/// For what may be served by a member that lags behind.
fn behind(fresh: Fresh) -> Option<Revision> {
    match fresh {
        Fresh::Latest => None,
        Fresh::AtLeast(revision) => Some(revision),
    }
}

fn not_before<T>(least: Option<Revision>, read: Read<T>) -> Result<Read<T>> {
    match least {
        Some(least) if read.revision < least => Err(Error::Unavailable(format!(
            "revision {least} has not come yet"
        ))),
        _ => Ok(read),
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &[u8], fresh: Fresh) -> Result<Read<Option<Entry>>> {
        check_key(key)?;
        let least = behind(fresh);
        if let Some(least) = least {
            let options = GetOptions::new().with_serializable();
            let (revision, page) = self.page(key, options).await?;
            if revision >= least {
                let value = page.entries.into_iter().next();
                return Ok(Read { revision, value });
            }
        }
        let (revision, page) = self.page(key, GetOptions::new()).await?;
        let value = page.entries.into_iter().next();
        not_before(least, Read { revision, value })
    }

    async fn list(&self, prefix: &[u8], fresh: Fresh) -> Result<Read<Vec<Entry>>> {
        let least = behind(fresh);
        if let Some(least) = least {
            let list = self.whole_list(prefix, true).await?;
            if list.revision >= least {
                return Ok(list);
            }
        }
        not_before(least, self.whole_list(prefix, false).await?)
    }

    async fn commit(&self, transaction: &Transaction) -> Result<Outcome> {
        transaction.check()?;
        let compares: Vec<Compare> = transaction
            .expects()
            .iter()
            .map(compare)
            .collect::<Result<_>>()?;
        let changes: Vec<TxnOp> = transaction
            .changes()
            .iter()
            .map(operation)
            .collect::<Result<_>>()?;
        let looks = transaction.expects().iter();
        let looks: Vec<TxnOp> = looks
            .map(|expect| TxnOp::get(expect.key.clone(), None))
            .collect();
        let asked = Txn::new().when(compares).and_then(changes).or_else(looks);
        let mut keys = self
            .client
            .kv_client()
            .max_decoding_message_size(ANSWER_MAX);
        let answer = self.once(keys.txn(asked)).await?;
        let revision = revision(answer.header())?;
        if answer.succeeded() {
            return Ok(Outcome::Committed { revision });
        }
        let found = answer.op_responses().into_iter().map(|found| match found {
            TxnOpResponse::Get(found) => found.kvs().first().map(entry).transpose(),
            _ => Err(broken("an answer to another question")),
        });
        let found: Vec<Option<Entry>> = found.collect::<Result<_>>()?;
        if found.len() != transaction.expects().len() {
            return Err(broken("fewer answers than questions"));
        }
        Ok(Outcome::Conflict { revision, found })
    }

    async fn watch(&self, prefix: &[u8], after: Revision) -> Result<Watch> {
        let mut begin = prefix.to_vec();
        if begin.is_empty() {
            begin.push(0);
        }
        let options = WatchOptions::new()
            .with_range(end_of(prefix).unwrap_or(vec![0]))
            .with_start_revision(signed(after.0)?.saturating_add(1))
            .with_progress_notify();
        let deadline = Instant::now() + PATIENCE;
        let mut watches = self
            .client
            .watch_client()
            .max_decoding_message_size(ANSWER_MAX);
        let stream = timeout_at(deadline, watches.watch(begin, Some(options))).await;
        let stream = stream.map_err(|_late| late())?.map_err(of_read)?;
        let mut follower = Follower { stream, after };
        let first = timeout_at(deadline, follower.batch()).await;
        first.map_err(|_late| late())??;
        Ok(Watch::new(follower))
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        // Whole seconds, and never less than was asked for.
        let seconds = ttl.as_millis().div_ceil(1000).clamp(1, u128::from(TTL_MAX));
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        // One that was made and not heard of ends by itself.
        let granted =
            self.again(|mut client| async move { client.lease_grant(seconds, None).await });
        let granted = granted.await?;
        Ok(Lease {
            id: LeaseId(unsigned(granted.id())?),
            ttl: Duration::from_secs(unsigned(granted.ttl())?),
        })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Lease> {
        let id = signed(lease.0)?;
        let kept = self.again(|mut client| async move {
            let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
            // The library keeps the first answer for itself.
            keeper.keep_alive().await?;
            answers.message().await
        });
        let kept = match kept.await {
            // What the client library makes of an answer with no time left.
            Err(Error::NoLease(_)) => None,
            kept => kept?,
        };
        match kept.map(|kept| unsigned(kept.ttl())).transpose()? {
            None | Some(0) => Err(Error::NoLease(lease)),
            Some(seconds) => Ok(Lease {
                id: lease,
                ttl: Duration::from_secs(seconds),
            }),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let id = signed(lease.0)?;
        let mut client = self.client.clone();
        match self.once(client.lease_revoke(id)).await {
            Err(Error::NoLease(_)) => Err(Error::NoLease(lease)),
            revoked => revoked.map(drop),
        }
    }

    async fn compact(&self, first: Revision) -> Result<()> {
        let revision = signed(first.0)?;
        let mut client = self.client.clone();
        match self.once(client.compact(revision, None)).await {
            // It is done already.
            Err(Error::Compacted { .. }) => Ok(()),
            compacted => compacted.map(drop),
        }
    }

    async fn status(&self) -> Result<Status> {
        let status = self
            .again(|mut client| async move { client.status().await })
            .await?;
        let alarms = self.again(|mut client| async move {
            client.alarm(AlarmAction::Get, AlarmType::None, None).await
        });
        let alarms = alarms.await?;
        let alarms = alarms.alarms().iter().map(|alarm| {
            let member = alarm.member_id();
            match alarm.alarm() {
                AlarmType::Nospace => format!("member {member:x} has no space left"),
                AlarmType::Corrupt => format!("member {member:x} holds other data than the rest"),
                AlarmType::None => format!("member {member:x} has an unknown alarm"),
            }
        });
        Ok(Status {
            revision: revision(status.header())?,
            bytes: unsigned(status.db_size())?,
            used: unsigned(status.raft_used_db_size())?,
            alarms: alarms.collect(),
        })
    }
}

/// The changes that a stream of etcd's tells.
struct Follower {
    stream: WatchStream,
    after: Revision,
}

impl Follower {
    /// May be dropped and called again: the stream keeps what was not taken.
    async fn batch(&mut self) -> Result<Batch> {
        let gone = || Error::Unavailable("the stream of changes has ended".into());
        let answer = self
            .stream
            .message()
            .await
            .map_err(of_read)?
            .ok_or_else(gone)?;
        if answer.canceled() {
            let first = unsigned(answer.compact_revision())?;
            return Err(match first {
                0 => Error::Unavailable(answer.cancel_reason().to_owned()),
                first => Error::Compacted {
                    first: Revision(first),
                },
            });
        }
        let events = answer.events().iter().map(|event| {
            let pair = event.kv().ok_or_else(|| broken("a change of nothing"))?;
            Ok(match event.event_type() {
                EventType::Put => Event::Put(entry(pair)?),
                EventType::Delete => Event::Delete {
                    key: pair.key().to_vec(),
                    revision: Revision(unsigned(pair.mod_revision())?),
                },
            })
        });
        let events: Vec<Event> = events.collect::<Result<_>>()?;
        // The header's is the store's, which may be ahead of what was told, but for word
        // of progress.
        let told = match events.last() {
            Some(last) => last.revision(),
            None if answer.created() => self.after,
            None => revision(answer.header())?,
        };
        self.after = told.max(self.after);
        Ok(Batch {
            revision: self.after,
            events,
        })
    }
}

#[async_trait]
impl Source for Follower {
    async fn next(&mut self) -> Result<Batch> {
        self.batch().await
    }
}
