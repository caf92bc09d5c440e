//! What CRIU refuses to save unless a flag asks for it: each is refused without its flag,
//! which leaves the container running, and with it comes back and works.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process::Child;
use std::time::Duration;

use dyno_tests::{programs, root};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;

/// Calls that say that all before them were made, and wait for [`let_go`].
const WAIT: &str = "83,@/ready,493;257,-100,@/go,0";

/// A container that makes these system calls, among them [`WAIT`].
fn calling(calls: &str) -> Bundle {
    let bundle = plain(Bundle::new(&["/bin/probe", &format!("calls={calls}")]));
    let layer = bundle.path().join("layer");
    std::fs::copy(programs().join("probe"), layer.join("bin/probe")).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, layer.join("go"), FileType::Fifo, mode, 0).unwrap();
    bundle
}

fn waits(bundle: &Bundle) {
    until("it waits", || bundle.path().join("layer/ready").exists());
}

/// Opens what it waits for; it must be kept until it has gone on.
fn let_go(bundle: &Bundle) -> File {
    let mut options = OpenOptions::new();
    let both = options.read(true).write(true);
    both.open(bundle.path().join("layer/go")).unwrap()
}

/// Saves it and brings it back, which works with these flags only.
fn comes_back_only_with(
    bundle: &Bundle,
    common: &[&str],
    (saving, restoring): (&[&str], &[&str]),
    refusal: &str,
) {
    let image = image(bundle);
    let words = [&["checkpoint", "--image-path", &image], common].concat();
    let output = bundle.call(&[&words, &[bundle.id()][..]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains(refusal), "{output:?}");
    assert_eq!(bundle.state()["status"], "running");
    let output = bundle.call(&[&words, saving, &[bundle.id()]].concat());
    succeeded(&output, bundle, "dump.log");
    let output = restore_with(bundle, &[common, restoring].concat());
    succeeded(&output, bundle, "restore.log");
    assert_eq!(bundle.state()["status"], "running");
}

const EMPTY: [&str; 2] = ["--empty-ns", "network"];

#[test]
fn a_lock_of_a_file_is_held_on() {
    if skipped() {
        return;
    }
    let bundle = calling(&format!("257,-100,@/lock,66,384;73,%1,2;{WAIT}"));
    bundle.run_detached();
    waits(&bundle);
    let taken = || {
        let file = File::open(bundle.path().join("layer/lock")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive)
    };
    assert_eq!(taken(), Err(Errno::WOULDBLOCK));
    let flags: &[&str] = &["--file-locks"];
    comes_back_only_with(&bundle, &EMPTY, (flags, flags), "--file-locks");
    assert_eq!(taken(), Err(Errno::WOULDBLOCK));
    assert!(bundle.call(&["kill", bundle.id(), "KILL"]).status.success());
    until("it lets the file go", || taken().is_ok());
}

#[test]
fn a_file_whose_name_is_gone_gets_one_for_a_while() {
    if skipped() {
        return;
    }
    let calls = "257,-100,@/a,66,384;86,@/a,@/b;257,-100,@/b,1025;87,@/b";
    let bundle = calling(&format!("{calls};{WAIT};1,%3,@after,5"));
    bundle.run_detached();
    waits(&bundle);
    comes_back_only_with(&bundle, &EMPTY, (&["--link-remap"], &[]), "link-remap");
    let layer = bundle.path().join("layer");
    let names = std::fs::read_dir(&layer).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.all(|name| !name.starts_with("link_remap")));
    let _go = let_go(&bundle);
    let written = || std::fs::read_to_string(layer.join("a")).unwrap() == "after";
    until("it writes to the file", written);
}

#[test]
fn a_unix_socket_whose_other_end_is_outside_is_connected_again() {
    if skipped() {
        return;
    }
    let folder = dyno_tests::Folder::new();
    let path = folder.path().join("socket");
    let outside = UnixDatagram::bind(&path).unwrap();
    outside
        .set_read_timeout(Some(dyno_tests::DEADLINE))
        .unwrap();
    let said = || {
        let mut text = [0; 64];
        let length = outside.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    // sockaddr_un of unix(7).
    let name = [b"\x01\x00", path.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    let calls = format!(
        "41,1,2,0;42,%1,#{hex},{};1,%1,@before,6;{WAIT};1,%1,@after,5",
        name.len()
    );
    let mut bundle = calling(&calls);
    // CRIU asks the kernel for the sockets of the container's network: one of another is
    // unknown to it.
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut();
    namespaces
        .unwrap()
        .retain(|namespace| namespace["type"] != "network");
    // By the same name as outside: CRIU connects to the one that the other end has.
    bundle.mount(json!({
        "destination": folder.path(), "type": "bind", "source": folder.path(), "options": ["bind"],
    }));
    bundle.run_detached();
    waits(&bundle);
    assert_eq!(said(), "before");
    let flags: &[&str] = &["--ext-unix-sk"];
    comes_back_only_with(&bundle, &[], (flags, flags), "--ext-unix-sk");
    let _go = let_go(&bundle);
    assert_eq!(said(), "after");
}

/// A terminal: its master, and its slave as three streams.
fn terminal() -> (File, [File; 3]) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::libc::O_NOCTTY);
    let slave = options.read(true).write(true).open(name.to_str().unwrap());
    let slave = slave.unwrap();
    let streams = [(); 3].map(|()| slave.try_clone().unwrap());
    (File::from(master), streams)
}

#[test]
fn on_a_terminal_of_the_callers_it_goes_on_at_that_of_restore() {
    if skipped() {
        return;
    }
    let script = "until [ -e /stop ]; do sleep 0.1; done; echo the end; sleep 1000";
    let bundle = plain(Bundle::script(script));
    let (_first, [stdin, stdout, stderr_of_it]) = terminal();
    let mut run = bundle.command(&["run", "--detach"]);
    run.stdin(stdin).stdout(stdout).stderr(stderr_of_it);
    assert!(run.status().unwrap().success());
    let refused = checkpoint(&bundle, &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(stderr(&refused).contains("tty: "), "{refused:?}");
    assert_eq!(bundle.state()["status"], "running");
    succeeded(&checkpoint(&bundle, &["--shell-job"]), &bundle, "dump.log");
    let (mut second, [stdin, stdout, stderr_of_it]) = terminal();
    let image = image(&bundle);
    let words = ["restore", "--detach", "--shell-job", "--image-path", &image];
    let mut restore = bundle.command(&[&words[..], &EMPTY].concat());
    restore.stdin(stdin).stdout(stdout).stderr(stderr_of_it);
    let output = Output {
        status: restore.status().unwrap(),
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    drop(restore);
    succeeded(&output, &bundle, "restore.log");
    dyno_tests::write_file(&bundle.path().join("layer/stop"), "");
    let mut told = [0; "the end\r\n".len()];
    second.read_exact(&mut told).unwrap();
    assert_eq!(String::from_utf8_lossy(&told), "the end\r\n");
}

/// A network with a loopback that is up, which outlives a container.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let script = "ip link set lo up && exec sleep 1000";
        let child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .spawn();
        let network = Self(child.unwrap());
        until("its loopback is up", || {
            let name = std::fs::read(format!("/proc/{}/comm", network.0.id()));
            name.unwrap() == b"sleep\n"
        });
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn join(&self, mut bundle: Bundle) -> Bundle {
        for namespace in bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(self.path());
            }
        }
        bundle
    }

    /// Whether two programs in it can talk to each other.
    fn works(&self) -> bool {
        let namespace = File::open(self.path()).unwrap();
        let talk = move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
        };
        // A namespace is a thread's.
        std::thread::spawn(talk).join().unwrap()
    }

    /// A line of `/proc/net/tcp` that begins so, without its number.
    fn has_tcp(&self, line: &str) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.0.id()));
        text.unwrap().lines().any(|found| found.contains(line))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Of `/proc/net/tcp`: port 7000 listens; is connected to by somebody.
const LISTENS: &str = " 00000000:1B58 00000000:0000 0A";
const CONNECTED: &str = " 0100007F:1B58 0100007F:";

#[test]
fn an_established_connection_goes_on() {
    if skipped() {
        return;
    }
    let network = Network::new();
    let script = "mkfifo /say /hear; exec 4<>/hear 5<>/say; \
         nc -l -p 7000 <&4 >/heard & \
         until cat /proc/net/tcp /proc/net/tcp6 | grep -q ':1B58 .* 0A '; do sleep 0.1; done; \
         nc 127.0.0.1 7000 <&5 >/dev/null & \
         n=0; while :; do n=$((n+1)); echo $n >&5; sleep 0.1; done";
    let bundle = network.join(plain(Bundle::script(script)));
    bundle.run_detached();
    let heard = || {
        let text = std::fs::read_to_string(bundle.path().join("layer/heard"));
        let text = text.unwrap_or_default();
        let last = text.lines().last().and_then(|line| line.parse().ok());
        (text.lines().count(), last.unwrap_or(0))
    };
    until("it is heard", || heard().0 > 3);
    let flags: &[&str] = &["--tcp-established"];
    comes_back_only_with(&bundle, &[], (flags, flags), "--tcp-established");
    let before = heard().0;
    until("it is heard again", || heard().0 > before + 3);
    let (count, last) = heard();
    assert_eq!(count, last, "each number once");
    assert!(network.works());
}

#[test]
fn the_network_of_others_is_locked_for_connections_that_are_saved_only() {
    if skipped() {
        return;
    }
    let network = Network::new();
    let bundle = network.join(counting());
    bundle.run_detached();
    until("it counts", || count(&bundle) > 2);
    let image = image(&bundle);
    let words = ["checkpoint", "--image-path", &image, bundle.id()];
    let save = |more: &[&str]| {
        let saved = bundle.call(&[&words, more].concat());
        succeeded(&saved, &bundle, "dump.log");
    };
    save(&[]);
    assert!(network.works());
    succeeded(&restore_with(&bundle, &[]), &bundle, "restore.log");
    save(&["--tcp-established"]);
    assert!(!network.works(), "the control: CRIU locks it");
    let restored = restore_with(&bundle, &["--tcp-established"]);
    succeeded(&restored, &bundle, "restore.log");
    assert!(network.works());
}

#[test]
fn a_connection_that_nobody_has_accepted_yet_is_left_out() {
    if skipped() {
        return;
    }
    let network = Network::new();
    // sockaddr_in of ip(7): port 7000 of any address.
    let address = "#02001b58000000000000000000000000";
    let bundle = calling(&format!("41,2,1,0;49,%1,{address},16;50,%1,8;{WAIT}"));
    let bundle = network.join(bundle);
    bundle.run_detached();
    waits(&bundle);
    let mut client = Command::new("nsenter")
        .arg(format!("--net={}", network.path()))
        .arg(root::busybox())
        .args(["nc", "127.0.0.1", "7000"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    until("it is connected", || network.has_tcp(CONNECTED));
    let flags: &[&str] = &["--tcp-skip-in-flight"];
    comes_back_only_with(&bundle, &[], (flags, &[]), "In-flight connection");
    assert!(network.has_tcp(LISTENS));
    client.kill().unwrap();
    client.wait().unwrap();
}
