//! Who is started before whom.

use dyno_tests::host::Host;

fn run(host: &Host, name: &str, flags: &[&str]) {
    let words = ["run", "-d", "--name", name, "--restart", "always"];
    host.ok(&[&words[..], flags, &["busybox", "sleep", "1000"]].concat());
}

#[test]
fn a_dyno_starts_once_the_one_before_it_is_ready_whatever_hostd_goes_through() {
    let mut host = Host::with_busybox();
    run(
        &host,
        "db",
        &["--readiness", "interval=100ms exec:test -e /ready"],
    );
    run(&host, "web", &["--after", "db:ready", "--priority", "5"]);
    run(&host, "log", &["--after", "db"]);
    host.until_phase("log", "running");
    let status = host.inspect("web")["status"].clone();
    assert_eq!(
        (&status["phase"], &status["reason"]),
        (&"waiting".into(), &"it comes after db:ready".into())
    );
    assert!(
        host.ok(&["ps"])
            .contains("waiting: it comes after db:ready")
    );
    assert!(host.ok(&["why", "web"]).contains("db:ready"));

    // A stop is a stop, and a start goes on waiting.
    host.ok(&["stop", "web"]);
    host.until_phase("web", "exited");
    host.ok(&["start", "web"]);
    host.until_phase("web", "waiting");
    host.kill_and_restart();
    host.until_phase("web", "waiting");
    assert_eq!(host.inspect("db")["status"]["restarts"], 0);

    host.ok(&["exec", "db", "touch", "/ready"]);
    host.until_phase("web", "running");
    assert_eq!(
        host.inspect("web")["status"]["reason"],
        serde_json::Value::Null
    );
}

#[test]
fn whoever_would_come_after_nobody_or_itself_is_refused() {
    let host = Host::with_busybox();
    let refused = |name: &str, after: &str| {
        let words = [
            "run", "-d", "--name", name, "--after", after, "busybox", "true",
        ];
        let (error, code) = host.fails(&words);
        assert_eq!(code, 125, "{error}");
        error
    };
    assert!(refused("web", "db").contains("there is no such dyno"));
    run(&host, "db", &[]);
    run(&host, "web", &["--after", "db"]);
    host.ok(&["rm", "-f", "db"]);
    assert!(refused("db", "web:ready").contains("db would come after itself"));
}
