//! Checks: who is in service, who is ended, and that neither depends on hostd
//! being there all the time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use dyno_tests::host::{Host, http_get};
use dyno_tests::until;

const PUBLISHED: &str = "127.0.0.1:8080";

fn is_refused() -> bool {
    let connected = TcpStream::connect(PUBLISHED);
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn until_health(host: &Host, dyno: &str, health: &str) {
    until(&format!("{dyno} is {health}"), || {
        host.inspect(dyno)["status"]["health"] == health
    });
}

#[test]
fn an_unready_dyno_takes_no_new_connection_and_nobody_is_restarted_for_hostds_absence() {
    let mut host = Host::with_busybox();
    let serve = "mkdir /www; echo web > /www/index.html; exec httpd -f -p 80 -h /www";
    let flags = [
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "8080:80",
        "--restart",
        "always",
        "--startup",
        "interval=100ms timeout=1m tcp://:80",
        "--liveness",
        "interval=100ms timeout=1m failures=1 exec:test -d /www",
        "--readiness",
        "interval=100ms timeout=1m failures=1 http://:80/ready",
    ];
    host.ok(&[&flags[..], &["busybox", "sh", "-c", serve]].concat());
    until_health(&host, "web", "unready");
    assert!(is_refused());
    let answers = || http_get(PUBLISHED.parse().unwrap(), "/").is_ok();
    host.ok(&["exec", "web", "touch", "/www/ready"]);
    until("it is in service", answers);
    until_health(&host, "web", "ready");
    assert!(host.ok(&["ps"]).contains("(ready)"));

    // What was found holds without hostd, and for the next one.
    host.kill();
    assert!(answers());
    host.spawn_again();
    host.until_it_answers();
    assert_eq!(host.inspect("web")["status"]["health"], "ready");
    assert!(answers());

    host.ok(&["exec", "web", "rm", "/www/ready"]);
    until_health(&host, "web", "unready");
    until("it is out of service", is_refused);
    let status = host.inspect("web")["status"].clone();
    assert_eq!(status["failed_check"]["check"], "readiness");
    let reason = status["failed_check"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("status 404"), "{reason}");
    assert_eq!(status["restarts"], 0);
    let why = host.ok(&["why", "web"]);
    assert!(
        why.contains("out of service") && why.contains("status 404"),
        "{why}"
    );
    let events = host.ok(&["events", "--no-follow", "--since", "0"]);
    assert!(events.contains("dyno web unready: status 404"), "{events}");
}

#[test]
fn connections_that_there_are_outlive_the_time_out_of_service() {
    let host = Host::with_busybox();
    host.add_address("198.51.100.7/24");
    let echo = "touch /ready; nc -l -p 80 -e cat";
    let flags = [
        "run",
        "-d",
        "--name",
        "echo",
        "-p",
        "8080:80",
        "--readiness",
        "interval=100ms timeout=1m failures=1 exec:test -e /ready",
    ];
    host.ok(&[&flags[..], &["busybox", "sh", "-c", echo]].concat());
    until_health(&host, "echo", "ready");
    let mut stream = None;
    until("it accepts a connection", || {
        stream = TcpStream::connect("198.51.100.7:8080").ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    let mut says = |word: &[u8; 4]| {
        stream.write_all(word).unwrap();
        let mut echoed = [0; 4];
        stream.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, word);
    };
    says(b"well");
    host.ok(&["exec", "echo", "rm", "/ready"]);
    until_health(&host, "echo", "unready");
    assert!(TcpStream::connect("198.51.100.7:8080").is_err());
    says(b"here");
}

#[test]
fn what_does_not_live_is_ended_as_a_failure_and_started_again_by_its_policy() {
    let host = Host::with_busybox();
    // It ends with 0 when it is asked to: a failure all the same.
    let script = "trap 'exit 0' TERM; touch /alive; while :; do sleep 0.1; done";
    let liveness = "interval=100ms timeout=1m failures=2 sh:echo look; test -e /alive || { echo gone; exit 4; }";
    let flags = [
        "run",
        "-d",
        "--name",
        "a",
        "--restart",
        "on-failure",
        "--liveness",
        liveness,
    ];
    host.ok(&[&flags[..], &["busybox", "sh", "-c", script]].concat());
    until_health(&host, "a", "ready");
    host.ok(&["exec", "a", "rm", "/alive"]);
    until("it was started again", || {
        host.inspect("a")["status"]["restarts"] == 1
    });
    host.until_phase("a", "running");
    let status = host.inspect("a")["status"].clone();
    assert_eq!(status["failed_check"]["check"], "liveness");
    assert_eq!(status["failed_check"]["failures"], 2);
    assert_eq!(status["failed_check"]["reason"], "exit code 4: look gone");
    let events = host.ok(&["events", "--no-follow", "--since", "0"]);
    assert!(
        events.contains("dyno a unhealthy: the liveness check failed 2 times"),
        "{events}"
    );
}

#[test]
fn what_does_not_start_in_time_is_ended_until_its_policy_gives_up() {
    let host = Host::with_busybox();
    let flags = [
        "run",
        "-d",
        "--name",
        "slow",
        "--restart",
        "on-failure:1",
        "--startup",
        "interval=100ms tcp://:81",
        "--start-timeout",
        "300ms",
        "--stop-grace",
        "100ms",
    ];
    host.ok(&[&flags[..], &["busybox", "sleep", "1000"]].concat());
    host.until_phase("slow", "exited");
    let status = host.inspect("slow")["status"].clone();
    assert_eq!(status["restarts"], 1);
    let reason = status["reason"].as_str().unwrap();
    assert!(
        reason.contains("given up after it failed 2 times"),
        "{reason}"
    );
    assert!(reason.contains("not started within 300ms"), "{reason}");
}

#[test]
fn a_dyno_says_itself_when_it_is_ready_and_is_ended_where_its_watchdog_hears_nothing() {
    let mut host = Host::with_busybox();
    let slow = std::env::var_os("DYNO_SLOW").is_some();
    let watchdog = if slow { "20s" } else { "2s" };
    let program = dyno_tests::programs().join("notify");
    let program = format!("{}:/notify:ro", program.display());
    let script =
        "touch /ping; while [ -e /ping ]; do /notify WATCHDOG=1; sleep 0.2; done; sleep 1000";
    let flags = [
        "run",
        "-d",
        "--name",
        "a",
        "-v",
        &program,
        "--restart",
        "always",
        "--notify",
        "--watchdog",
        watchdog,
        "--stop-grace",
        "100ms",
        "-p",
        "8080:80",
    ];
    host.ok(&[&flags[..], &["busybox", "sh", "-c", script]].concat());
    until_health(&host, "a", "starting");
    // The monitor hears it, hostd or not.
    let mut say = host.dyno(&["exec", "a", "/notify", "STATUS=warm\x07 up", "READY=1"]);
    assert!(say.status().unwrap().success());
    until_health(&host, "a", "ready");
    host.kill();
    host.spawn_again();
    host.until_it_answers();
    let status = host.inspect("a")["status"].clone();
    assert_eq!(
        (&status["health"], &status["restarts"]),
        (&"ready".into(), &0.into())
    );
    assert_eq!(status["status_text"], "warm  up");

    host.ok(&["exec", "a", "rm", "/ping"]);
    until("its watchdog ended it", || {
        host.inspect("a")["status"]["restarts"] == 1
    });
    until_health(&host, "a", "starting");
    assert_eq!(
        host.inspect("a")["status"]["status_text"],
        serde_json::Value::Null
    );
    assert!(is_refused());
}

/// A server of gRPC's own making. It is well while /tmp/well is there, and knows of
/// itself and of one service.
const GRPC_SERVER: &str = r#"
import grpc, os
from concurrent import futures

def check(service, context):
    if service not in (b"", b"\x0a\x04shop"):
        context.abort(grpc.StatusCode.NOT_FOUND, "who?")
    return b"\x08\x01" if os.path.exists("/tmp/well") else b"\x08\x02"

check = grpc.unary_unary_rpc_method_handler(check)
health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((health,))
server.add_insecure_port("0.0.0.0:50051")
server.start()
server.wait_for_termination()
"#;

#[test]
fn a_server_of_grpc_is_asked_as_the_protocol_has_it() {
    let host = Host::start();
    let run = |name: &str, check: &str| {
        let check = format!("interval=100ms timeout=1m failures=1 {check}");
        let flags = ["run", "-d", "--name", name, "--readiness", &check, "host"];
        host.ok(&[&flags[..], &["/usr/bin/python3", "-c", GRPC_SERVER]].concat());
    };
    let until_reason = |name: &str, reason: &str| {
        until(&format!("{name}: {reason}"), || {
            host.inspect(name)["status"]["failed_check"]["reason"] == reason
        });
    };
    run("shop", "grpc://:50051/shop");
    until_reason("shop", "the service says NOT_SERVING");
    host.ok(&["exec", "shop", "touch", "/tmp/well"]);
    until_health(&host, "shop", "ready");
    host.ok(&["exec", "shop", "rm", "/tmp/well"]);
    until_health(&host, "shop", "unready");

    run("other", "grpc://:50051/other");
    let unknown = "gRPC status 5 (the server knows no such service): who?";
    until_reason("other", unknown);
}
