//! config-linux.md, "Seccomp".

use serde_json::{Value, json};

use crate::rig::Container;

fn filtered(script: &str, rules: &Value) -> Container {
    let mut container = Container::script(script);
    container.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    });
    container
}

#[test]
fn an_errno_is_returned() {
    let rules =
        json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let told = filtered(
        "mkdir /x 2>&1; grep ^Seccomp: /proc/self/status | tr -d '\\t'",
        &rules,
    )
    .output();
    assert!(
        told.contains("No space left") && told.ends_with("Seccomp:2\n"),
        "{told}"
    );
}

#[test]
fn a_call_is_deadly() {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]);
    let told = filtered("mkdir /x 2>/dev/null; echo $?", &rules).output();
    assert_eq!(told, "159\n");
}

#[test]
fn an_argument_decides() {
    let rules = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]);
    let script = "trap 'echo usr2' USR2; kill -USR1 $$ 2>/dev/null || echo refused; kill -USR2 $$";
    assert_eq!(filtered(script, &rules).output(), "refused\nusr2\n");
}

#[test]
fn a_list_of_what_is_allowed_refuses_the_rest() {
    let mut container = Container::script("echo here; mkdir /x 2>/dev/null || echo refused");
    container.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": [
            "read", "write", "open", "openat", "close", "stat", "lstat", "fstat", "newfstatat",
            "statx", "mmap", "mprotect", "munmap", "brk", "rt_sigaction", "rt_sigprocmask",
            "rt_sigreturn", "ioctl", "access", "faccessat", "pipe", "pipe2", "dup", "dup2",
            "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getpgid", "fork",
            "vfork", "clone", "execve", "execveat", "exit", "exit_group", "wait4", "uname",
            "fcntl", "getcwd", "chdir", "readlink", "arch_prctl", "set_tid_address",
            "set_robust_list", "rseq", "prlimit64", "getrandom", "futex", "prctl", "capset",
            "capget", "setuid", "setgid", "setgroups", "close_range", "getdents64", "poll",
            "setresuid", "setresgid", "umask", "kill", "sched_yield", "epoll_ctl", "nanosleep",
            "epoll_pwait", "clock_gettime", "gettid", "tgkill", "sigaltstack", "madvise",
            "keyctl", "fchdir", "fstatfs", "statfs", "getsockopt", "sendmsg", "sendto", "recvmsg",
        ]}],
    });
    let told = container.output();
    assert_eq!(told, "here\nrefused\n");
}

#[test]
fn an_executed_process_is_filtered_too() {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let mut container = filtered("", &rules);
    container.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    container.start();
    let output = container.call(&["exec", container.id(), "/bin/mkdir", "/x"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(!container.path("rootfs/x").exists());
}

#[test]
fn an_unknown_action_is_refused() {
    let rules = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NONSENSE"}]);
    filtered("true", &rules).refused("SCMP_ACT_NONSENSE");
}
