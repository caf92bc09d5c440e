//! The store by itself: what is on its disk, and what a thief or a crash does to it.

use std::path::Path;

use super::*;

const VALUE: &[u8] = b"correct horse battery staple";

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn store(top: &Path) -> Secrets {
    let paths = Paths {
        state_dir: top.join("state"),
        run_dir: top.join("run"),
    };
    Secrets::new(&paths, "0badcafe", Some(&top.join("key")))
}

fn chain(error: &SecretError) -> String {
    durable::chain(error)
}

#[test]
fn a_value_comes_back_and_is_on_no_disk() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    let set = secrets.set(&name("db"), VALUE).unwrap();
    assert_eq!(set.about.revision, 1);
    assert_eq!(secrets.value(&name("db")).unwrap(), VALUE);
    let record = fs::read(secrets.record(&name("db"))).unwrap();
    let found = record.windows(VALUE.len()).any(|part| part == VALUE);
    assert!(!found, "the value is in its record");
    let again = secrets.set(&name("db"), b"other").unwrap();
    assert_eq!(
        (again.about.revision, again.about.created),
        (2, set.about.created)
    );
    assert_eq!(secrets.value(&name("db")).unwrap(), b"other");
    secrets.remove(&name("db")).unwrap();
    let gone = secrets.value(&name("db")).unwrap_err();
    assert!(matches!(gone, SecretError::Missing(_)), "{gone:?}");
}

#[test]
fn equal_values_are_not_equal_on_disk() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    let one = secrets.set(&name("one"), VALUE).unwrap();
    let two = secrets.set(&name("two"), VALUE).unwrap();
    let part = |sealed: &Sealed| serde_json::to_value(sealed).unwrap();
    assert_ne!(part(&one)["value"], part(&two)["value"]);
    assert_ne!(part(&one)["nonce"], part(&two)["nonce"]);
}

/// Every byte of a record that says anything is under the seal.
#[test]
fn a_record_that_was_changed_does_not_open() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    secrets.set(&name("db"), VALUE).unwrap();
    let path = secrets.record(&name("db"));
    let whole: serde_json::Value = durable::read_json(&path).unwrap().unwrap();
    let flipped = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[0] = if bytes[0] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for (field, value) in [
        ("/value", flipped(whole["value"].as_str().unwrap()).into()),
        ("/nonce", flipped(whole["nonce"].as_str().unwrap()).into()),
        ("/about/revision", 7.into()),
        ("/about/created", "2001-01-01T00:00:00Z".into()),
        ("/about/updated", "2001-01-01T00:00:00Z".into()),
        ("/key", "0000000000000000".into()),
        ("/value", "".into()),
    ] {
        let mut changed = whole.clone();
        *changed.pointer_mut(field).unwrap() = value;
        durable::write_json(&path, &changed, Survives::Crash).unwrap();
        let error = secrets.value(&name("db")).unwrap_err();
        assert!(
            matches!(error, SecretError::Seal { .. }),
            "{field}: {error:?}"
        );
    }
    durable::write_json(&path, &whole, Survives::Crash).unwrap();
    assert_eq!(secrets.value(&name("db")).unwrap(), VALUE);
}

#[test]
fn the_record_of_one_is_not_anothers() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    secrets.set(&name("mine"), VALUE).unwrap();
    secrets.set(&name("theirs"), b"something else").unwrap();
    fs::copy(
        secrets.record(&name("mine")),
        secrets.record(&name("theirs")),
    )
    .unwrap();
    let error = secrets.value(&name("theirs")).unwrap_err();
    assert!(chain(&error).contains("another secret's"), "{error:?}");
}

#[test]
fn another_key_is_told_by_its_id_and_no_new_one_is_made() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    let key = secrets.set(&name("db"), VALUE).unwrap().key;
    fs::rename(top.path().join("key"), top.path().join("kept")).unwrap();
    let gone = secrets.value(&name("db")).unwrap_err();
    assert!(chain(&gone).contains("is gone"), "{gone:?}");
    let refused = secrets.set(&name("other"), VALUE).unwrap_err();
    assert!(chain(&refused).contains("is gone"), "{refused:?}");
    assert!(!top.path().join("key").exists());
    let elsewhere = tempfile::tempdir().unwrap();
    store(elsewhere.path()).set(&name("x"), VALUE).unwrap();
    fs::copy(elsewhere.path().join("key"), top.path().join("key")).unwrap();
    let wrong = secrets.value(&name("db")).unwrap_err();
    assert!(chain(&wrong).contains(&key), "{wrong:?}");
    let kept = secrets.rotate().unwrap_err();
    assert!(chain(&kept).contains(&key), "{kept:?}");
    fs::rename(top.path().join("kept"), top.path().join("key")).unwrap();
    assert_eq!(secrets.value(&name("db")).unwrap(), VALUE);
}

#[test]
fn a_rotation_leaves_every_value_and_no_old_key() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    let old = secrets.set(&name("one"), VALUE).unwrap();
    secrets.set(&name("two"), b"2").unwrap();
    let before = fs::read(top.path().join("key")).unwrap();
    let rotated = secrets.rotate().unwrap();
    assert_eq!(rotated.secrets, 2);
    assert_ne!(rotated.key, old.key);
    assert_eq!(secrets.value(&name("one")).unwrap(), VALUE);
    assert_eq!(secrets.value(&name("two")).unwrap(), b"2");
    let now = secrets.load(&name("one")).unwrap().unwrap();
    assert_eq!((now.key, now.about), (rotated.key, old.about));
    durable::write(&top.path().join("key"), &before, Survives::Crash).unwrap();
    assert!(secrets.value(&name("one")).is_err());
}

/// hostd was killed after the new key was there and before all records were.
#[test]
fn a_rotation_that_was_cut_short_loses_nothing_and_goes_on() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    secrets.set(&name("one"), VALUE).unwrap();
    secrets.set(&name("two"), b"2").unwrap();
    let keys = secrets.place.load().unwrap().unwrap();
    let both = secrets.place.replace(keys.with_another().unwrap()).unwrap();
    let about = secrets.load(&name("one")).unwrap().unwrap().about;
    secrets.save(&name("one"), &both, about, VALUE).unwrap();
    for _ in 0..2 {
        assert_eq!(secrets.value(&name("one")).unwrap(), VALUE);
        assert_eq!(secrets.value(&name("two")).unwrap(), b"2");
        secrets.rotate().unwrap();
    }
    let keys = secrets.place.load().unwrap().unwrap();
    assert!(keys.find(&both.current().id).is_none());
}

/// hostd was killed between the write and the rename.
#[test]
fn half_a_record_is_swept_and_the_old_value_holds() {
    let top = tempfile::tempdir().unwrap();
    let secrets = store(top.path());
    secrets.set(&name("a.b"), VALUE).unwrap();
    let half = secrets.record(&name("a.b")).with_extension("new");
    durable::write_mode(
        &half.with_extension("tmp"),
        b"{\"vers",
        0o600,
        Survives::Crash,
    )
    .unwrap();
    fs::rename(half.with_extension("tmp"), &half).unwrap();
    let again = store(top.path());
    assert_eq!(again.value(&name("a.b")).unwrap(), VALUE);
    assert!(!half.exists());
    assert_eq!(again.names().unwrap().len(), 1);
}
