//! `linux.seccomp` of a config: several ABIs, and agents that are notified.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use dyno_tests::bundle::Bundle;
use dyno_tests::{DEADLINE, until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

/// An agent's socket in a bundle's folder.
pub(crate) struct Agent(UnixListener);

impl Agent {
    /// Has this called notified of in the bundle's container.
    pub(crate) fn for_calls(bundle: &mut Bundle, names: &[&str]) -> Self {
        let path = bundle.path().join("agent.sock");
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path.display().to_string(),
            "listenerMetadata": "what the agent knows",
            "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}],
        });
        Self(UnixListener::bind(path).unwrap())
    }

    /// What it is told about a process, and that one's listener.
    pub(crate) fn accept(&self) -> (Value, OwnedFd) {
        let (mut stream, _) = self.0.accept().unwrap();
        let (mut text, listener) = receive(&stream);
        stream.read_to_end(&mut text).unwrap();
        let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let link = std::fs::read_link(link).unwrap();
        assert_eq!(link.to_str(), Some("anon_inode:seccomp notify"));
        (serde_json::from_slice(&text).unwrap(), listener)
    }
}

/// The first part of a message, with its descriptor.
fn receive(stream: &UnixStream) -> (Vec<u8>, OwnedFd) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 4096];
    let mut slices = [IoSliceMut::new(&mut text)];
    let received = recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    assert_eq!(fds.len(), 1, "one descriptor");
    text.truncate(received.bytes);
    (text, fds.remove(0))
}

/// Waits until a call waits for this listener's owner.
fn await_notification(listener: &OwnedFd) {
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    let patience = Timespec::try_from(DEADLINE).unwrap();
    assert_eq!(poll(&mut polled, Some(&patience)), Ok(1), "no notification");
}

fn until_stopped(bundle: &Bundle) {
    until("the container stops", || {
        bundle.state()["status"] == "stopped"
    });
}

#[test]
fn an_agent_gets_the_listener_and_the_state_when_the_container_is_created() {
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::script("mkdir /tmp/x 2>&1 | sed 's/.*: //'");
        bundle.config["annotations"] = json!({"who": "me"});
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let agent = Agent::for_calls(&mut bundle, &["mkdir"]);
        let create = bundle.create();
        assert!(create.status.success(), "{create:?}");
        let (told, listener) = agent.accept();
        let pid = bundle.state()["pid"].clone();
        let expected = json!({
            "ociVersion": "1.2.0",
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": "what the agent knows",
            "state": {
                "ociVersion": "1.2.0",
                "id": bundle.id(),
                "status": "creating",
                "pid": pid,
                "bundle": bundle.path().display().to_string(),
                "annotations": {"who": "me"},
            },
        });
        assert_eq!(told, expected);
        bundle.start();
        await_notification(&listener);
        assert_eq!(bundle.state()["status"], "running", "it waits");
        drop(listener);
        until_stopped(&bundle);
        let stdout = std::fs::read_to_string(bundle.path().join("stdout")).unwrap();
        assert_eq!(stdout, "Function not implemented\n");
    }
}

#[test]
fn an_agent_is_asked_about_the_last_steps_too_and_nobody_waits_for_himself() {
    // What is called between the word to start and the program, and before that.
    for call in [
        "read", "umask", "chdir", "seccomp", "capset", "prctl", "execve",
    ] {
        let mut bundle = Bundle::new(&["true"]);
        let agent = Agent::for_calls(&mut bundle, &[call, "write"]);
        let create = bundle.create();
        assert!(create.status.success(), "{call}: {create:?}");
        let (_, listener) = agent.accept();
        if call != "read" {
            assert_eq!(bundle.state()["status"], "created", "{call}");
            bundle.start();
        }
        await_notification(&listener);
        drop(listener);
        until_stopped(&bundle);
    }
}

#[test]
fn without_an_agent_nothing_is_created() {
    let mut bundle = Bundle::new(&["true"]);
    let agent = Agent::for_calls(&mut bundle, &["mkdir"]);
    drop(agent);
    let create = bundle.create();
    let stderr = String::from_utf8_lossy(&create.stderr);
    assert!(!create.status.success());
    assert!(stderr.contains("linux.seccomp.listenerPath"), "{stderr}");
    assert!(stderr.contains("Connection refused"), "{stderr}");
    assert!(
        !bundle.call(&["state", bundle.id()]).status.success(),
        "nothing is left"
    );
    // Where nothing is notified of, there need be none.
    bundle.config["linux"]["seccomp"]["syscalls"] = json!([]);
    assert_eq!(bundle.output(), "");
}

// P15
#[test]
fn an_agent_that_accepts_nobody_holds_nobody_up() {
    let mut bundle = Bundle::new(&["true"]);
    let agent = Agent::for_calls(&mut bundle, &["mkdir"]);
    // One may wait to be accepted, and one does.
    rustix::net::listen(&agent.0, 0).unwrap();
    let _waiting = UnixStream::connect(bundle.path().join("agent.sock")).unwrap();
    let begin = Instant::now();
    let create = bundle.create();
    let stderr = String::from_utf8_lossy(&create.stderr);
    assert!(!create.status.success());
    assert!(stderr.contains("linux.seccomp.listenerPath"), "{stderr}");
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
}

#[test]
fn what_would_wait_for_itself_and_unknown_flags_are_refused_by_name() {
    let refused = |property: &str, value: Value, expected: &str| {
        let mut bundle = Bundle::new(&["true"]);
        let _agent = Agent::for_calls(&mut bundle, &["mkdir"]);
        bundle.config["linux"]["seccomp"][property] = value;
        let create = bundle.create();
        let stderr = String::from_utf8_lossy(&create.stderr);
        assert!(!create.status.success(), "{expected}");
        assert!(stderr.contains(expected), "{stderr}");
    };
    let sendmsg = json!([{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY"}]);
    refused("syscalls", sendmsg, "sendmsg cannot be SCMP_ACT_NOTIFY");
    let notify = json!("SCMP_ACT_NOTIFY");
    refused(
        "defaultAction",
        notify,
        "defaultAction cannot be SCMP_ACT_NOTIFY",
    );
    refused(
        "flags",
        json!(["SECCOMP_FILTER_FLAG_X"]),
        "SECCOMP_FILTER_FLAG_X",
    );
    refused("listenerPath", Value::Null, "listenerPath");
}

/// A static x86_64 program that makes one call of the 32-bit ABI, `int 0x80`, and
/// exits with its errno.
fn calling_i386(number: u8) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let mut code = vec![0xb8, number, 0, 0, 0, 0xcd, 0x80]; // mov eax, number; int 0x80
    code.extend([0x89, 0xc7, 0xf7, 0xdf]); // mov edi, eax; neg edi
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit
    let size = 120 + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + 120, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend([
        0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0,
    ]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(word.to_le_bytes());
    }
    out.extend(code);
    out
}

#[test]
fn the_architectures_that_are_listed_are_open_and_filtered() {
    let inside = |seccomp: Option<Value>| {
        let mut bundle = Bundle::script("/getuid; echo $?; /mkdir; echo $?");
        for (name, number) in [("getuid", 24), ("mkdir", 39)] {
            let path = bundle.path().join("layer").join(name);
            let mut file = File::create(&path).unwrap();
            file.write_all(&calling_i386(number)).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        if let Some(seccomp) = seccomp {
            bundle.config["linux"]["seccomp"] = seccomp;
        }
        bundle.run().stdout
    };
    let profile = |archs: &[&str]| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": archs,
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
        })
    };
    let control = inside(None);
    if control.starts_with("139") {
        dyno_tests::skip("the kernel has no 32-bit emulation");
        return;
    }
    assert_eq!(
        control, "0\n14\n",
        "EFAULT: without a filter the kernel looks at the path"
    );
    let three = profile(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    assert_eq!(inside(Some(three)), "0\n28\n");
    // 128 + SIGSYS
    assert_eq!(inside(Some(profile(&["SCMP_ARCH_X86_64"]))), "159\n159\n");
}
