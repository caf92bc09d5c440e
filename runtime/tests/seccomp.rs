//! Filters against the kernel: what a call returns once a filter is loaded.
//!
//! A filter belongs to the thread that loads it and to whom that starts, so each
//! test filters a thread of its own. Calls that no safe function makes are made by a
//! program of a few bytes, which ends with the errno it got.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dyno_runtime::seccomp::{compile, compile_notifier, default_profile, jail_profile};
use oci_spec::runtime::LinuxSeccomp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, netlink, socket_with};
use serde_json::json;

/// Runs `work` on a thread under the filter.
fn under<T: Send>(profile: &LinuxSeccomp, work: impl FnOnce() -> T + Send) -> T {
    let filter = compile(profile).unwrap();
    std::thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            filter.load().unwrap();
            work()
        });
        filtered.join().unwrap()
    })
}

/// A static x86_64 program that runs `code` with every register zero.
struct Program(PathBuf);

impl Program {
    fn new(code: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("dyno-test-probe-{pid}-{next}"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.write_all(&elf(code)).unwrap();
        file.set_permissions(Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    /// Makes one call and exits with its errno, or 0.
    fn calling(number: u32) -> Self {
        let mut code = vec![0xb8]; // mov eax, number
        code.extend(number.to_le_bytes());
        code.extend([0x0f, 0x05]); // syscall
        code.extend([0x89, 0xc7, 0xf7, 0xdf]); // mov edi, eax; neg edi
        code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit
        Self::new(&code)
    }

    /// The same by `int 0x80`, with up to three arguments.
    fn calling_i386(number: u32, arguments: [u32; 3]) -> Self {
        let mut code = Vec::new();
        // mov ebx, …; mov ecx, …; mov edx, …; mov eax, …
        let registers = [0xbb, 0xb9, 0xba, 0xb8];
        let [first, second, third] = arguments;
        for (register, value) in registers.into_iter().zip([first, second, third, number]) {
            code.push(register);
            code.extend(value.to_le_bytes());
        }
        code.extend([0xcd, 0x80]); // int 0x80
        code.extend([0x89, 0xc7, 0xf7, 0xdf]); // mov edi, eax; neg edi
        code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit
        Self::new(&code)
    }

    fn run(&self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match Command::new(&self.0).status() {
                // Another test's fork still holds the file open for writing.
                Err(error)
                    if error.kind() == ErrorKind::ExecutableFileBusy
                        && Instant::now() < deadline => {}
                status => return status.unwrap(),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// An ELF file with one segment: `code`, right after the headers.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const BASE: u64 = 0x40_0000;
    let size = HEADERS + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86_64
    out.extend((BASE + HEADERS).to_le_bytes()); // entry
    out.extend(64_u64.to_le_bytes()); // program headers
    out.extend([0; 12]); // no sections, no flags
    out.extend([64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]); // sizes and counts
    out.extend([1, 0, 0, 0, 5, 0, 0, 0]); // load, readable and executable
    for number in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(number.to_le_bytes());
    }
    out.extend(code);
    out
}

fn call(number: i64) -> Option<i32> {
    Program::calling(u32::try_from(number).unwrap())
        .run()
        .code()
}

fn open(family: AddressFamily, kind: SocketType, protocol: Option<Protocol>) -> Result<(), Errno> {
    socket_with(family, kind, SocketFlags::CLOEXEC, protocol).map(drop)
}

#[test]
fn a_filtered_thread_says_so() {
    let status = |_: ()| std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(
        status(()).contains("Seccomp:\t0"),
        "the control is not filtered"
    );
    let inside = under(&default_profile(&[]), || status(()));
    assert!(
        inside.contains("Seccomp:\t2") && inside.contains("NoNewPrivs:\t1"),
        "{inside}"
    );
}

// P12
#[test]
fn everyday_sockets_open_and_others_are_unknown_families() {
    let raw = || open(AddressFamily::PACKET, SocketType::RAW, None);
    let audit = || {
        open(
            AddressFamily::NETLINK,
            SocketType::RAW,
            Some(netlink::AUDIT),
        )
    };
    // NETLINK_ROUTE is protocol 0.
    let route = || open(AddressFamily::NETLINK, SocketType::RAW, None);
    assert_eq!(raw(), Ok(()), "the control may");
    under(&default_profile(&[]), || {
        for family in [
            AddressFamily::UNIX,
            AddressFamily::INET,
            AddressFamily::INET6,
        ] {
            assert_eq!(open(family, SocketType::STREAM, None), Ok(()));
        }
        assert_eq!(route(), Ok(()));
        assert_eq!(raw(), Err(Errno::AFNOSUPPORT));
        assert_eq!(audit(), Err(Errno::AFNOSUPPORT));
        let vsock = open(AddressFamily::VSOCK, SocketType::STREAM, None);
        assert_eq!(vsock, Err(Errno::AFNOSUPPORT));
    });
}

// P12
#[test]
fn calls_that_containers_escaped_by_are_refused() {
    let refused = [
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_fsopen,
        libc::SYS_open_tree,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_perf_event_open,
        libc::SYS_init_module,
        libc::SYS_kexec_load,
    ];
    assert_ne!(
        call(libc::SYS_setns),
        Some(libc::EPERM),
        "the control gets another errno"
    );
    assert_ne!(call(libc::SYS_unshare), Some(libc::EPERM));
    under(&default_profile(&[]), || {
        for number in refused {
            assert_eq!(call(number), Some(libc::EPERM), "system call {number}");
        }
        assert_eq!(call(libc::SYS_clone3), Some(libc::ENOSYS));
        assert_eq!(call(9999), Some(libc::ENOSYS), "from the future");
        assert_eq!(call(libc::SYS_getuid), Some(0), "an allowed call");
    });
}

#[test]
fn a_shell_with_a_pipeline_runs_under_the_default_profile() {
    let line = "x=$(echo deep | cat) && test \"$x\" = deep && mkdir $D && rmdir $D";
    let folder = std::env::temp_dir().join(format!("dyno-test-shell-{}", std::process::id()));
    let status = under(&default_profile(&[]), || {
        Command::new("/bin/sh")
            .args(["-c", line])
            .env("D", &folder)
            .status()
            .unwrap()
    });
    assert!(status.success(), "{status}");
}

#[test]
fn threads_start_under_the_default_profile() {
    let sum = under(&default_profile(&[]), || {
        let threads: Vec<_> = (0..4).map(|i| std::thread::spawn(move || i)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum::<i32>()
    });
    assert_eq!(sum, 6);
}

#[test]
fn the_32_bit_abi_is_deadly_and_the_x32_abi_does_not_exist() {
    // mov eax, 1; int 0x80: exit(0) of i386.
    let old = Program::new(&[0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    let control = old.run();
    let x32_getpid = 0x4000_0000 | libc::SYS_getpid;
    under(&default_profile(&[]), || {
        let status = old.run();
        if control.success() {
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
        } else {
            // A kernel without the 32-bit ABI lets nobody use it.
            assert_eq!(control.signal(), Some(libc::SIGSEGV), "{control}");
            assert_eq!(status.signal(), control.signal());
        }
        assert_eq!(call(x32_getpid), Some(libc::ENOSYS));
    });
}

#[test]
fn a_profile_for_three_abis_holds_in_each_of_them() {
    let deny = |names: &[&str], errno: i32| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno });
    let mut vsock = deny(&["socket"], 74);
    vsock["args"] = json!([{ "index": 0, "value": 40, "op": "SCMP_CMP_EQ" }]);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
        "syscalls": [
            deny(&["getuid32"], 70), deny(&["mkdir", "accept"], 71), deny(&["ioctl"], 73), vsock,
        ],
    });
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    let x32 = |number: i64| call(0x4000_0000 | number);
    let i386 = |number, arguments| Program::calling_i386(number, arguments).run();
    let control = i386(199, [0; 3]);
    under(&profile, || {
        assert_eq!(call(libc::SYS_mkdir), Some(71));
        assert_eq!(call(libc::SYS_ioctl), Some(73));
        assert_eq!(
            call(libc::SYS_getuid),
            Some(0),
            "another call than getuid32"
        );
        // The filter is asked whether or not the kernel has this ABI.
        assert_eq!(x32(libc::SYS_mkdir), Some(71));
        assert_eq!(x32(514), Some(73), "its own number of ioctl");
        assert_eq!(
            x32(libc::SYS_ioctl),
            Some(libc::ENOSYS),
            "no number of its own"
        );
        if control.signal() == Some(libc::SIGSEGV) {
            // A kernel without the 32-bit ABI lets nobody use it.
            assert_eq!(i386(199, [0; 3]).signal(), control.signal());
            return;
        }
        assert_eq!(control.code(), Some(0), "root's uid, without a filter");
        for (number, arguments, errno) in [
            (199, [0; 3], 70),                     // getuid32
            (39, [0; 3], 71),                      // mkdir
            (54, [0; 3], 73),                      // ioctl
            (24, [0; 3], 0),                       // getuid, another call
            (359, [40, 1, 0], 74),                 // socket of AF_VSOCK
            (359, [99, 1, 0], libc::EAFNOSUPPORT), // socket
            (102, [1, 0, 0], 74),                  // socketcall, perhaps the same
            (102, [5, 0, 0], 71),                  // socketcall, accept
            (102, [2, 0, 0], libc::EFAULT),        // socketcall, bind
        ] {
            let status = i386(number, arguments);
            assert_eq!(
                status.code(),
                Some(errno),
                "i386 {number} {arguments:?}: {status}"
            );
        }
    });
}

#[test]
fn a_call_that_is_notified_of_waits_for_its_answer() {
    let profile = |flags: &[&str]| {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "/agent",
            "flags": flags,
            "syscalls": [
                { "names": ["getuid"], "action": "SCMP_ACT_NOTIFY" },
                { "names": ["getgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 },
            ],
        });
        serde_json::from_value::<LinuxSeccomp>(profile).unwrap()
    };
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    for flags in [
        &[][..],
        &["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        &["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
    ] {
        waits_for_its_answer(&profile(flags));
    }
    // Last, as it is over all threads of this process then: it fails while one of those
    // above, with a filter of its own, is still on its way out after it was joined.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while threads() > before {
        assert!(std::time::Instant::now() < deadline, "threads are left");
        std::thread::yield_now();
    }
    waits_for_its_answer(&profile(&["SECCOMP_FILTER_FLAG_TSYNC"]));
}

fn waits_for_its_answer(profile: &LinuxSeccomp) {
    let notifier = compile_notifier(profile).unwrap().unwrap();
    let filter = compile(profile).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            let listener = notifier.load().unwrap();
            filter.load().unwrap();
            assert_eq!(call(libc::SYS_getgid), Some(77), "the filter's own answer");
            let notified = Program::calling(102); // getuid
            let mut child = Command::new(&notified.0).spawn().unwrap();
            let mut polled = [PollFd::new(&listener, PollFlags::IN)];
            let patience = Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            };
            assert_eq!(poll(&mut polled, Some(&patience)), Ok(1), "a notification");
            assert!(child.try_wait().unwrap().is_none(), "it waits");
            // Nobody will answer any more.
            drop(listener);
            assert_eq!(child.wait().unwrap().code(), Some(libc::ENOSYS));
        });
    });
}

#[test]
fn every_action_does_what_it_says() {
    let profile = |action: &str| {
        let rule = json!({ "names": ["getuid"], "action": action });
        serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }))
    };
    let run = |action: &str| {
        under(&profile(action).unwrap(), || Program::calling(102).run()) // getuid
    };
    assert_eq!(run("SCMP_ACT_ERRNO").code(), Some(libc::EPERM));
    // Without a tracer a traced call fails with ENOSYS, seccomp(2).
    assert_eq!(run("SCMP_ACT_TRACE").code(), Some(libc::ENOSYS));
    for deadly in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
    ] {
        assert_eq!(run(deadly).signal(), Some(libc::SIGSYS), "{deadly}");
    }
    assert_eq!(run("SCMP_ACT_TRAP").signal(), Some(libc::SIGSYS));
    for harmless in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
        assert_eq!(run(harmless).code(), Some(0), "{harmless}");
    }
}

/// Set for the copy of this process that a test jails: the program it shall become.
const JAILED: &str = "DYNO_TEST_JAILED";

// P8
#[test]
fn the_jail_opens_no_socket_and_starts_no_process() {
    if let Some(program) = std::env::var_os(JAILED) {
        become_jailed(&program);
    }
    // Under its filter nothing can be started: the jailed process becomes the program.
    let jailed = |number: i64| {
        let program = Program::calling(u32::try_from(number).unwrap());
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "the_jail_opens_no_socket_and_starts_no_process"]);
        command
            .env(JAILED, &program.0)
            .output()
            .unwrap()
            .status
            .code()
    };
    for number in [libc::SYS_socket, libc::SYS_ptrace] {
        assert_ne!(call(number), Some(libc::EPERM), "the control may");
        assert_eq!(jailed(number), Some(libc::EPERM), "system call {number}");
    }
    assert_eq!(jailed(libc::SYS_fork), Some(libc::EPERM));
    assert_eq!(
        jailed(libc::SYS_clone),
        Some(libc::EPERM),
        "no thread's flags"
    );
    assert_eq!(jailed(libc::SYS_getuid), Some(0), "an allowed call");
}

fn become_jailed(program: &OsStr) -> ! {
    rustix::thread::set_no_new_privs(true).unwrap();
    compile(&jail_profile()).unwrap().load().unwrap();
    panic!("cannot execute: {}", Command::new(program).exec());
}
