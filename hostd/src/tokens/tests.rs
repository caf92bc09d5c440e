use std::fs;
use std::path::Path;
use std::time::Duration;

use dyno_api::token::Scope;

use super::*;

fn spec(name: &str, expires_in: Option<u64>) -> TokenSpec {
    TokenSpec {
        name: name.parse().unwrap(),
        scopes: [Scope::Read].into(),
        expires_in,
    }
}

fn open(folder: &Path) -> Tokens {
    Tokens::open(folder.join("tokens")).unwrap()
}

fn made(tokens: &Tokens, name: &str, expires: Option<Timestamp>) -> (Token, String) {
    tokens.make(spec(name, None), expires, new_secret).unwrap()
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

#[test]
fn a_secret_opens_after_a_restart_and_is_not_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = open(folder.path());
    let (token, secret) = made(&tokens, "ci", None);
    let file = folder.path().join(format!("tokens/{}.json", token.id));
    assert!(!fs::read_to_string(file).unwrap().contains(&secret[5..]));
    let again = open(folder.path());
    let now = Timestamp::now();
    assert_eq!(again.authenticate(&secret, now).unwrap().id(), &token.id);
    assert!(again.authenticate("", now).is_none());
    assert!(
        again
            .authenticate(&secret[..secret.len() - 1], now)
            .is_none()
    );
}

#[test]
fn what_is_taken_away_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = open(folder.path());
    let (token, secret) = made(&tokens, "ci", None);
    let (_, other) = made(&tokens, "other", None);
    let live = tokens.authenticate(&secret, Timestamp::now()).unwrap();
    tokens.take_away("ci").unwrap();
    // A use that is noted late does not bring it back.
    assert!(live.used(Timestamp::now()));
    tokens.note_use(&live);
    for tokens in [&tokens, &open(folder.path())] {
        assert!(tokens.authenticate(&secret, Timestamp::now()).is_none());
        assert!(tokens.authenticate(&other, Timestamp::now()).is_some());
        let error = tokens.take_away(token.id.as_str()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
    }
}

#[test]
fn a_token_is_good_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = open(folder.path());
    let (token, secret) = made(&tokens, "ci", Some(later(60)));
    assert!(tokens.authenticate(&secret, Timestamp::now()).is_some());
    let expires = token.expires.unwrap();
    assert!(tokens.authenticate(&secret, expires).is_none());
    assert!(tokens.authenticate(&secret, later(61)).is_none());
}

#[tokio::test]
async fn whoever_waits_is_told_that_a_token_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = open(folder.path());
    let (_, revoked) = made(&tokens, "revoked", None);
    let (_, expired) = made(&tokens, "expired", Some(later(1)));
    let now = Timestamp::now();
    let revoked = tokens.authenticate(&revoked, now).unwrap();
    let expired = tokens.authenticate(&expired, now).unwrap();
    let soon = tokio::time::timeout(Duration::from_millis(100), revoked.over());
    assert!(soon.await.is_err());
    tokens.take_away("revoked").unwrap();
    let waited = async { tokio::join!(revoked.over(), expired.over()) };
    tokio::time::timeout(Duration::from_secs(20), waited)
        .await
        .unwrap();
}

#[test]
fn a_use_is_noted_once_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = open(folder.path());
    let (_, secret) = made(&tokens, "ci", None);
    let first = Timestamp::now();
    let live = tokens.authenticate(&secret, first).unwrap();
    let used = |now| {
        if live.used(now) {
            tokens.note_use(&live);
        }
    };
    used(first);
    let noted = || {
        open(folder.path())
            .all()
            .values()
            .next()
            .unwrap()
            .shown()
            .last_used
    };
    assert_eq!(noted(), Some(first));
    used(first + SignedDuration::from_secs(59));
    assert_eq!(noted(), Some(first));
    let next = first + SignedDuration::from_secs(61);
    used(next);
    assert_eq!(noted(), Some(next));
}

#[test]
fn two_of_one_name_are_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = open(folder.path());
    made(&tokens, "ci", None);
    let error = tokens.make(spec("ci", None), None, new_secret).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
}

#[test]
fn a_record_that_is_none_opens_nothing_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (token, secret) = made(&open(folder.path()), "ci", None);
    let file = folder.path().join(format!("tokens/{}.json", token.id));
    let text = fs::read_to_string(&file).unwrap();
    for damaged in ["", "{}", &text.replace("\"version\": 1", "\"version\": 9")] {
        crate::durable::write(&file, damaged.as_bytes(), crate::durable::Survives::Crash).unwrap();
        let tokens = open(folder.path());
        assert!(tokens.authenticate(&secret, Timestamp::now()).is_none());
    }
    // A copy under another name would be good twice, and be taken away once.
    crate::durable::write(&file, text.as_bytes(), crate::durable::Survives::Crash).unwrap();
    fs::copy(&file, folder.path().join("tokens/000000000000.json")).unwrap();
    assert_eq!(open(folder.path()).all().len(), 1);
}

#[test]
fn a_token_without_scopes_or_time_is_refused() {
    let now = Timestamp::now();
    assert_eq!(check(&spec("ci", None), now).unwrap(), None);
    let expires = check(&spec("ci", Some(60)), now).unwrap().unwrap();
    assert_eq!(expires.duration_since(now).as_secs(), 60);
    let empty = TokenSpec {
        scopes: [].into(),
        ..spec("ci", None)
    };
    for wrong in [empty, spec("ci", Some(0)), spec("ci", Some(u64::MAX))] {
        assert_eq!(check(&wrong, now).unwrap_err().kind, ErrorKind::Invalid);
    }
}
