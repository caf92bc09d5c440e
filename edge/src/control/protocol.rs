//! What travels over the control socket, see the [crate's contract](crate).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A request, one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How is it going?
    Status,
    /// Serve the attached sockets for `network` instead of those it had.
    Listen {
        /// The network's name.
        network: String,
    },
    /// Stop serving `network`.
    Close {
        /// The network's name.
        network: String,
    },
    /// Read the tables again, now.
    Reload,
    /// Hand out copies of all sockets, for a successor.
    Sockets,
    /// Drain and exit.
    Stop,
}

/// The answer to a request, one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// It was done; this is how things are now.
    Ok(Status),
    /// It was refused and nothing changed.
    Err(Refusal),
    /// In the answer to [`Request::Sockets`]: the attached sockets belong to this network.
    Network(String),
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The line is not a request.
    BadRequest,
    /// The attached descriptors are not what the request needs.
    BadSockets,
    /// A limit of the edge would be exceeded.
    Full,
    /// The edge is stopping.
    Stopping,
}

/// The state of the edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// The version of the binary.
    pub version: String,
    /// Whether Landlock is enforced (the kernel may lack it).
    pub landlock: bool,
    /// The tables in force.
    pub tables: TablesStatus,
    /// What is served, per network, as `udp ADDRESS:PORT` or `tcp ADDRESS:PORT`.
    pub listening: BTreeMap<String, Vec<String>>,
    /// Queries since the start.
    pub counters: Counters,
}

/// Which `tables.json` is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesStatus {
    /// How often a table was taken into force since the start.
    pub generation: u64,
    /// Inode of the file in force, 0 while there is none.
    pub inode: u64,
    /// Its modification time in nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Why the file that is there now is not the one in force.
    pub error: Option<String>,
}

/// Counts of queries, by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Answered from the tables.
    pub answered: u64,
    /// Answered by an upstream.
    pub forwarded: u64,
    /// Refused: strangers, unsupported requests.
    pub refused: u64,
    /// SERVFAIL: no upstream answered, or a limit was reached.
    pub failed: u64,
    /// Not answered at all: no query, or not even a header.
    pub dropped: u64,
}

/// The one line that the edge writes on stdout at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartLine {
    /// It serves and is confined.
    Ready {
        /// Its process id.
        pid: u32,
        /// The version of the binary.
        version: String,
    },
    /// It could not start and exits with 1.
    Failed {
        /// What went wrong.
        message: String,
    },
}
