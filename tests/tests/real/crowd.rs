//! Many at once, and none left.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;

use dyno_tests::debian::Debian;
use dyno_tests::host::{Host, http_get};
use dyno_tests::machine::Machine;
use dyno_tests::until;
use serde_json::Value;

const DYNOS: u16 = 50;
const FIRST_PORT: u16 = 9000;

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + number))
}

/// The name that the service on this port gives, if it answers.
fn answer(number: u16) -> Option<String> {
    let body = http_get(address(number), "/").ok()?;
    let body: Value = serde_json::from_str(&body).ok()?;
    body["host"].as_str().map(str::to_owned)
}

/// Does something for each dyno, from four threads.
fn for_each(act: impl Fn(u16, &str) + Sync) {
    thread::scope(|scope| {
        for first in 0..4 {
            let act = &act;
            scope.spawn(move || {
                for number in (first..DYNOS).step_by(4) {
                    act(number, &format!("app-{number}"));
                }
            });
        }
    });
}

#[test]
fn fifty_dynos_answer_at_once_and_leave_nothing() {
    let debian = Debian::prepare();
    let host = Host::start();
    let image = debian.serve(host.path()).image_pulled(&host, "python");
    let folders = ["run", "state/dynos"].map(|folder| host.path().join(folder));
    let folders = [folders[0].as_path(), folders[1].as_path()];
    let mark = host.path().to_string_lossy().into_owned();
    let info: Value = serde_json::from_str(&host.ok(&["info", "--json"])).unwrap();
    let host_mark = format!("dyno-{}", info["id"].as_str().unwrap());
    let look = || {
        let machine = Machine::look(&mark, &folders).with_network();
        (machine, Machine::look(&host_mark, &[]))
    };
    // The first one sets up what stays, such as the bridge.
    host.ok(&["run", "--rm", "-p", "9000:80", &image, "true"]);
    until("the first is gone", || host.ids().is_empty());
    let before = look();

    for_each(|number, name| {
        let port = format!("{}:80", FIRST_PORT + number);
        host.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--hostname",
            name,
            "-m",
            "64M",
            "-p",
            &port,
            &image,
        ]);
    });
    for number in 0..DYNOS {
        let name = format!("app-{number}");
        until(&format!("{name} answers"), || answer(number).is_some());
    }
    // All of them live now: each port leads to its own dyno, each has its own address.
    let mut addresses = BTreeSet::new();
    for number in 0..DYNOS {
        let name = format!("app-{number}");
        assert_eq!(answer(number).as_deref(), Some(name.as_str()));
        let status = host.inspect(&name)["status"].clone();
        assert_eq!(status["phase"], "running", "{status}");
        addresses.insert(status["ipv4"].as_str().unwrap().to_owned());
    }
    assert_eq!(addresses.len(), usize::from(DYNOS));
    assert_eq!(host.ids().len(), usize::from(DYNOS));

    for_each(|_, name| {
        host.ok(&["rm", "-f", name]);
    });
    assert!(host.ids().is_empty());
    let mut left = Vec::new();
    until("nothing is left", || {
        let after = look();
        left = after.0.difference(&before.0);
        left.extend(after.1.difference(&before.1));
        left.retain(|thing| !thing.contains("/run/events"));
        if !left.is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        left.is_empty()
    });
}
