//! What a taken-over edge could do: the confinement attacked from inside.
//!
//! A thread of the test confines itself and then tries; the test's own thread
//! stays root and cleans up. Each attempt has its control: the same attempt before.

use std::fs::File;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use dyno_edge::confine::{Confinement, Landlock, confine};

use crate::rig::{Rig, UID};

type Attempt = (&'static str, fn() -> std::io::Result<()>);

/// All of them work for root, and none afterwards.
const ATTEMPTS: &[Attempt] = &[
    ("read a file of the host", || {
        File::open("/etc/passwd").map(drop)
    }),
    ("write a file", || {
        // A file without a name: nothing to remove after the control.
        let mut options = File::options();
        options
            .write(true)
            .custom_flags(libc::O_TMPFILE)
            .open("/tmp")
            .map(drop)
    }),
    ("execute a program", || {
        Command::new("/bin/true").status().map(drop)
    }),
    ("make a unix socket", || UnixDatagram::unbound().map(drop)),
    ("start a thread", || {
        std::thread::Builder::new().spawn(|| ()).map(drop)
    }),
    ("become root again", || {
        rustix::thread::set_thread_uid(rustix::process::Uid::ROOT).map_err(Into::into)
    }),
    ("signal another process", || {
        let parent = nix::unistd::getppid();
        nix::sys::signal::kill(parent, None).map_err(Into::into)
    }),
    ("leave its namespaces", || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).map_err(Into::into)
    }),
];

#[test]
fn a_confined_edge_reaches_nothing_but_its_folder_and_the_network() {
    let rig = Rig::new();
    for (what, attempt) in ATTEMPTS {
        attempt().unwrap_or_else(|error| panic!("the control failed: {what}: {error}"));
    }
    let own = rig.folder.join("tables.json");
    File::create(&own).unwrap();
    std::os::unix::fs::chown(&rig.folder, None, Some(UID)).unwrap();
    let folder = File::open(&rig.folder).unwrap();
    let confined = std::thread::spawn(move || {
        let confinement = Confinement {
            uid: UID,
            gid: UID,
            readable: folder.as_fd(),
        };
        assert_eq!(confine(&confinement).unwrap(), Landlock::Enforced);
        for (what, attempt) in ATTEMPTS {
            let error = attempt().expect_err(what);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
        }
        let (flags, mode) = (rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        rustix::fs::openat(&folder, "tables.json", flags, mode).expect("its folder is readable");
        UdpSocket::bind("127.0.0.1:0").expect("it can ask upstreams");
    });
    confined.join().unwrap();
}
