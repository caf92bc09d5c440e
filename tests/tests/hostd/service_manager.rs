//! hostd under a service manager: what it tells it, and sockets that it is given.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use dyno_tests::host::{Host, http_get_on, own_network, serve};
use dyno_tests::{DEADLINE, Folder, must_be_root, until};
use rustix::process::{Pid, Signal, kill_process};

fn log(folder: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(folder.join("hostd.log"))
        .unwrap()
}

fn signal(host: &Host, signal: Signal) {
    let pid = Pid::from_raw(host.pid().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn it_tells_when_it_is_ready_lives_reloads_and_ends() {
    must_be_root();
    own_network();
    let folder = Folder::new();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let hear = || {
        let mut message = [0; 1024];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let hear_but_watchdog = || loop {
        let message = hear();
        if message != "WATCHDOG=1\n" {
            return message;
        }
    };
    let hostd = serve(folder.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000")
        .stdin(Stdio::null())
        .stderr(log(folder.path()))
        .spawn()
        .unwrap();
    let host = Host::of(hostd, folder);
    assert_eq!(hear(), "READY=1\n");
    host.ok(&["version"]);
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1\n");
    }
    signal(&host, Signal::HUP);
    let reloading = hear_but_watchdog();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(hear_but_watchdog(), "READY=1\n");
    host.ok(&["version"]);
    // Who does not go on is not said to live.
    signal(&host, Signal::STOP);
    manager
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    until("it falls silent", || manager.recv(&mut [0; 64]).is_err());
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    signal(&host, Signal::CONT);
    signal(&host, Signal::TERM);
    assert_eq!(hear_but_watchdog(), "STOPPING=1\n");
}

/// Starts hostd as systemd does with a socket unit: it is descriptor 3.
fn start(folder: &Path, socket: &UnixListener) -> Child {
    let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let hostd = serve(folder);
    Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(hostd.get_program())
        .args(hostd.get_args())
        .stdin(OwnedFd::from(socket.try_clone().unwrap()))
        .stderr(log(folder))
        .spawn()
        .unwrap()
}

#[test]
fn who_connects_to_a_socket_that_is_held_waits_for_hostd_to_come_back() {
    must_be_root();
    own_network();
    let folder = Folder::new();
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    let socket = UnixListener::bind(run.join("hostd.sock")).unwrap();
    let ask = || {
        let stream = UnixStream::connect(run.join("hostd.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        thread::spawn(move || http_get_on(stream, "/v1/version", "Accept: */*"))
    };
    let early = ask();
    let hostd = start(folder.path(), &socket);
    let mut host = Host::of(hostd, folder);
    assert!(early.join().unwrap().unwrap().contains("\"api\":\"v1\""));
    host.import_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    // P4: whom hostd starts does not get it.
    let monitor = host.inspect(&id)["status"]["monitor_pid"].to_string();
    let links = |pid: &str| -> Vec<String> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = descriptors.map(|fd| fs::read_link(fd.unwrap().path()).unwrap());
        links
            .map(|link| link.to_string_lossy().into_owned())
            .collect()
    };
    let own = links("self").into_iter().chain([String::new()]);
    let hostds = links(&host.pid().to_string());
    let shared: Vec<String> = own.filter(|link| hostds.contains(link)).collect();
    let held: Vec<&String> = shared
        .iter()
        .filter(|link| link.starts_with("socket:"))
        .collect();
    assert_eq!(held.len(), 1, "the socket itself: {shared:?}");
    assert!(!links(&monitor).contains(held[0]));

    host.kill();
    let meanwhile = ask();
    host.replace(start(host.path(), &socket));
    assert!(
        meanwhile
            .join()
            .unwrap()
            .unwrap()
            .contains("\"api\":\"v1\"")
    );
    assert_eq!(host.ok(&["exec", &id, "echo", "still here"]), "still here");
}
