//! Dynos that lie to their network, and where none may reach (P13).

use std::io::Write;
use std::net::TcpListener;
use std::process::Command;

use dyno_tests::host::Host;
use dyno_tests::until;

use super::rig::assert_sane;

const ADMIN: [&str; 4] = ["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];

fn address(host: &Host, dyno: &str) -> String {
    let dyno = host.inspect(dyno);
    dyno["status"]["ipv4"].as_str().unwrap().to_owned()
}

/// A dyno that sends whoever connects a word, and its address.
fn server(host: &Host, name: &str) -> String {
    let script = "while :; do nc -l -p 80 -e echo reached; done";
    host.ok(&["run", "-d", "--name", name, "busybox", "sh", "-c", script]);
    address(host, name)
}

/// A service of the host itself, on every address of it, as long as the test runs.
fn host_service(port: u16) {
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who connects and leaves at once is no matter.
            stream
                .and_then(|mut stream| stream.write_all(b"host\n"))
                .ok();
        }
    });
}

/// What a dyno that may change its own network gets from the server after doing so.
fn reaches(host: &Host, dyno: &str, change: &str, server: &str) -> bool {
    let script = format!("{change}; nc -w 2 {server} 80 < /dev/null");
    let output = host.run(&["exec", dyno, "sh", "-c", &script]);
    output.stdout.ends_with(b"reached\n")
}

#[test]
fn a_dyno_speaks_under_its_own_addresses_only() {
    let host = Host::with_busybox();
    let server = server(&host, "server");
    let run = [
        &["run", "-d", "--name", "liar"],
        &ADMIN[..],
        &["busybox", "sleep", "1000"],
    ];
    host.ok(&run.concat());
    let own = address(&host, "liar");
    until("the control: as itself it is heard", || {
        reaches(&host, "liar", "true", &server)
    });
    let other = own.rsplit_once('.').unwrap().0.to_owned() + ".200";
    let prefix = "dev eth0";
    for (change, back) in [
        (
            format!(
                "ip addr add {other}/32 {prefix}; ip route replace {server}/32 {prefix} src {other}"
            ),
            format!("ip route del {server}/32; ip addr del {other}/32 {prefix}"),
        ),
        (
            format!(
                "ip addr add 8.8.8.8/32 {prefix}; ip route replace {server}/32 {prefix} src 8.8.8.8"
            ),
            format!("ip route del {server}/32; ip addr del 8.8.8.8/32 {prefix}"),
        ),
    ] {
        assert!(
            !reaches(&host, "liar", &change, &server),
            "heard after {change}"
        );
        host.ok(&["exec", "liar", "sh", "-c", &back]);
        assert!(
            reaches(&host, "liar", "true", &server),
            "not itself after {back}"
        );
    }
    assert_sane(&host);
}

#[test]
fn a_dyno_cannot_take_anothers_address() {
    let host = Host::with_busybox();
    let victim = server(&host, "victim");
    let run = [
        &["run", "-d", "--name", "thief"],
        &ADMIN[..],
        &["busybox", "sleep", "1000"],
    ];
    host.ok(&run.concat());
    // It takes the address, and serves on it.
    let theft = format!(
        "ip addr add {victim}/32 dev eth0; (while :; do nc -l -p 80 -e echo stolen; done) > /dev/null 2>&1 &"
    );
    host.ok(&["exec", "thief", "sh", "-c", &theft]);
    let ask = format!("nc -w 2 {victim} 80 < /dev/null");
    // The control: the thief itself hears the thief.
    until("the thief serves", || {
        let output = host.run(&["exec", "thief", "sh", "-c", &ask]);
        output.stdout.starts_with(b"stolen")
    });
    for _ in 0..5 {
        let heard = host.ok(&["run", "--rm", "busybox", "sh", "-c", &ask]);
        assert_eq!(heard, "reached");
    }
}

#[test]
fn metadata_and_the_hosts_addresses_are_closed() {
    let host = Host::with_busybox();
    let ip = |arguments: &[&str]| {
        let status = Command::new("ip").args(arguments).status().unwrap();
        assert!(status.success(), "ip {arguments:?}");
    };
    ip(&["link", "add", "cloud", "type", "bridge"]);
    ip(&["link", "set", "cloud", "up"]);
    let places = ["169.254.169.254", "198.51.100.7", "100.100.100.200"];
    for place in places {
        ip(&["addr", "add", &format!("{place}/32"), "dev", "cloud"]);
    }
    host_service(8088);
    for place in places {
        // The control: from the host it is there.
        std::net::TcpStream::connect((place, 8088)).unwrap();
        let script = format!("nc -w 2 {place} 8088 < /dev/null");
        for arguments in [&[][..], &ADMIN] {
            let run = [
                &["run", "--rm"],
                arguments,
                &["busybox", "sh", "-c", &script],
            ]
            .concat();
            assert!(
                !host.run(&run).status.success(),
                "{place} is open to {arguments:?}"
            );
        }
    }
}

#[test]
fn what_is_not_published_is_not_reached_from_outside() {
    let host = Host::with_busybox();
    let address = server(&host, "server");
    // A neighbour of the host, on a link of its own.
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
    };
    let name = format!("dyno-test-{}", std::process::id());
    run("ip", &["netns", "add", &name]);
    let _neighbour = Neighbour(name.clone());
    run(
        "ip",
        &[
            "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &name,
        ],
    );
    run("ip", &["addr", "add", "192.0.2.1/24", "dev", "near"]);
    run("ip", &["link", "set", "near", "up"]);
    for arguments in [
        "addr add 192.0.2.2/24 dev far",
        "link set far up",
        "route add default via 192.0.2.1",
    ] {
        let mut all = vec!["-n", &name];
        all.extend(arguments.split(' '));
        run("ip", &all);
    }
    let nc = |place: &str, port: &str| {
        let script = format!("nc -w 2 {place} {port} < /dev/null");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, "busybox", "sh", "-c", &script]);
        command.output().unwrap()
    };
    // The control: the host itself is reached, and so is what is published.
    host_service(8088);
    assert_eq!(nc("192.0.2.1", "8088").stdout, b"host\n");
    let script = "while :; do nc -l -p 80 -e echo reached; done";
    host.ok(&["run", "-d", "-p", "8089:80", "busybox", "sh", "-c", script]);
    until("what is published answers", || {
        nc("192.0.2.1", "8089").stdout == b"reached\n"
    });
    assert!(
        !nc(&address, "80").status.success(),
        "a neighbour reached a dyno"
    );
}

/// A network namespace with a name, as long as this lives.
struct Neighbour(String);

impl Drop for Neighbour {
    fn drop(&mut self) {
        Command::new("ip")
            .args(["netns", "del", &self.0])
            .status()
            .ok();
    }
}
