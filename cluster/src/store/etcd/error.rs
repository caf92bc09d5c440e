//! What etcd's errors mean, by their codes and, where these say too little, by their
//! words: those of `etcd/api/v3/v3rpc/rpctypes`.

use etcd_client::Error as Theirs;

use crate::store::{Error, LeaseId, Revision};

pub(super) fn broken(words: &str) -> Error {
    Error::Damaged(format!("etcd answers {words}"))
}

/// Of something that changes nothing, or may be done twice.
pub(super) fn of_read(error: Theirs) -> Error {
    match of_change(error) {
        Error::Uncertain(words) => Error::Unavailable(words),
        error => error,
    }
}

/// Of something that may have been done although there is no answer.
pub(super) fn of_change(error: Theirs) -> Error {
    match error {
        Theirs::GRpcStatus(status) => of_words(status.message(), status.code().into()),
        Theirs::InvalidArgs(words) => Error::Invalid(words),
        Theirs::InvalidUri(error) => Error::Invalid(error.to_string()),
        // The library makes this of a lease that has no time left.
        Theirs::LeaseKeepAliveError(_) => Error::NoLease(LeaseId(0)),
        other => Error::Uncertain(other.to_string()),
    }
}

/// Codes of gRPC, `google.rpc.Code`.
const INVALID: i32 = 3;
const NOT_FOUND: i32 = 5;
const DENIED: i32 = 7;
const EXHAUSTED: i32 = 8;
const PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNAUTHENTICATED: i32 = 16;

fn of_words(words: &str, code: i32) -> Error {
    let says = |part: &str| words.contains(part);
    let own = words.to_owned();
    match code {
        NOT_FOUND if says("lease not found") => Error::NoLease(LeaseId(0)),
        OUT_OF_RANGE if says("compacted") => Error::Compacted { first: Revision(0) },
        EXHAUSTED if says("space exceeded") => Error::Full(own),
        // It has more to do than it can, and has not begun this.
        EXHAUSTED if says("too many requests") => Error::Unavailable(own),
        // Nobody could be asked to agree.
        _ if says("no leader") => Error::Unavailable(own),
        DENIED | UNAUTHENTICATED => Error::Denied(own),
        INVALID if says("authentication failed") || says("user name is empty") => {
            Error::Denied(own)
        }
        INVALID | OUT_OF_RANGE | EXHAUSTED | PRECONDITION => Error::Invalid(own),
        _ => Error::Uncertain(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_surely_not_done_is_said_not_to_be() {
        let unsure = |words, code| matches!(of_words(words, code), Error::Uncertain(_));
        assert!(unsure("etcdserver: request timed out", 14));
        assert!(unsure("transport error", 2));
        assert!(unsure("etcdserver: leader changed", 14));
        assert!(!unsure("etcdserver: no leader", 14));
        assert!(!unsure("etcdserver: too many requests", EXHAUSTED));
    }
}
