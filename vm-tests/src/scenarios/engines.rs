//! Engines that people have already, with `dyno-runtime` in place of runc.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Context, systemd};
use crate::vm::{Options, Request, Vm};

/// Both are large programs, and nothing is fast without KVM.
const PATIENCE: Duration = Duration::from_secs(120);

/// An image of busybox alone, as an archive.
const ARCHIVE: &str = "mkdir -p /tmp/root/bin && cp /usr/bin/busybox /tmp/root/bin/\n\
    for name in sh sleep cat echo id true test tty head tail; do\n\
        ln -s busybox /tmp/root/bin/$name\n\
    done\n\
    tar -C /tmp/root -cf /tmp/root.tar .";

/// Podman is told in its configuration, so that its command lines are anybody's.
const CONFIGURATION: &str = "mkdir -p /etc/containers && cat >/etc/containers/containers.conf <<'END'\n\
    [engine]\n\
    runtime = \"dyno\"\n\
    cgroup_manager = \"cgroupfs\"\n\
    events_logger = \"file\"\n\
    [engine.runtimes]\n\
    dyno = [\"/usr/local/bin/dyno-runtime\"]\n\
    END\n";

const IMPORT: &str = "podman import --quiet /tmp/root.tar box";

/// Commands and what they print: run, exit codes, exec, logs, limits and others in
/// their place, usage, pause, terminals, volumes, health, stop, running out of memory.
const WITH_PODMAN: &[(&str, &str)] = &[
    ("podman info --format '{{.Host.OCIRuntime.Name}}'", "dyno"),
    (
        "podman run --rm --net none box sh -c 'echo out; exit 3' || echo $?",
        "out\n3",
    ),
    (
        "podman run --rm --net none box /no/such 2>/dev/null || echo $?",
        "127",
    ),
    (
        "podman run --rm --net none --user 7:8 box sh -c 'echo $(id -u):$(id -g)'",
        "7:8",
    ),
    ("podman run --rm --net none -t box tty", "/dev/pts/0\r"),
    (
        "echo typed | podman run --rm --net none -i box cat",
        "typed",
    ),
    (
        "podman run --rm --net none -v /tmp/root:/v:ro box sh -c 'test -e /v/bin/sh && echo seen; echo x 2>/dev/null >/v/x || echo refused'",
        "seen\nrefused",
    ),
    (
        "podman run --rm --net none --read-only --tmpfs /t box sh -c 'echo x >/t/x; echo x 2>/dev/null >/x || echo refused'",
        "refused",
    ),
    (
        "podman run -d --name one --net none -m 64m --pids-limit 50 --health-cmd 'test -e /bin/sh' --health-interval disable box sh -c 'trap \"exit 9\" TERM; echo begun; while :; do sleep 0.1; done' >/dev/null; until podman logs one | grep begun; do sleep 0.2; done",
        "begun",
    ),
    (
        "podman exec one sh -c 'echo inside; exit 4' || echo $?",
        "inside\n4",
    ),
    ("podman exec -t one tty", "/dev/pts/0\r"),
    (
        "cd /sys/fs/cgroup$(cut -d: -f3 /proc/$(podman inspect -f '{{.State.Pid}}' one)/cgroup) && cat memory.max pids.max",
        "67108864\n50",
    ),
    (
        // Between two sleeps the shell is alone.
        "until podman stats --no-stream --format '{{.MemUsage}} {{.PIDS}}' one | cut -d/ -f2 | grep ' 2$'; do :; done",
        " 67.11MB 2",
    ),
    (
        "podman update --memory 96m --cpus 0.5 one >/dev/null && cd /sys/fs/cgroup$(cut -d: -f3 /proc/$(podman inspect -f '{{.State.Pid}}' one)/cgroup) && cat memory.max pids.max cpu.max",
        "100663296\n50\n50000 100000",
    ),
    ("podman healthcheck run one && echo healthy", "healthy"),
    ("podman top one | grep -c 'sleep 0.1; done'", "1"),
    (
        "podman pause one >/dev/null && podman inspect -f '{{.State.Status}}' one",
        "paused",
    ),
    (
        "podman unpause one >/dev/null && podman inspect -f '{{.State.Status}}' one",
        "running",
    ),
    (
        "podman stop -t 20 one >/dev/null && podman inspect -f '{{.State.ExitCode}}' one",
        "9",
    ),
    (
        "podman start one >/dev/null && podman kill one >/dev/null && podman wait one",
        "137",
    ),
    ("podman rm one >/dev/null && podman ps -aq | wc -l", "0"),
    (OUT_OF_MEMORY, "5\noom"),
];

/// One process of several is killed; the container goes on to its end, and conmon has
/// heard of it: from the group's `memory.events` it makes a file where it was started.
/// Debian's Podman looks for that in another folder and says `OOMKilled: false`, with
/// any runtime.
const OUT_OF_MEMORY: &str = "cd $(mktemp -d) && podman run --rm --net none -m 32m box sh -c 'head -c 104857600 /dev/zero | tail -c 104857600 >/dev/null; exit 5' || echo $?; ls";

/// From here on its containers are scopes of systemd.
const WITH_SYSTEMD: &str =
    "sed -i 's/cgroup_manager = .*/cgroup_manager = \"systemd\"/' /etc/containers/containers.conf";

/// The same by systemd's cgroups: where a container is, what systemd knows of its
/// limits, exec, other limits, usage, pause, stop. An OOM is not among them: conmon
/// watches `memory.events` of the group that init is in, and looks once more when the
/// container has ended, when systemd has removed the scope. Which of its events it reads
/// first is chance: of eight such containers two left the file with this runtime, and
/// two with runc.
const WITH_PODMAN_AND_SYSTEMD: &[(&str, &str)] = &[
    ("podman info --format '{{.Host.CgroupManager}}'", "systemd"),
    (
        "podman run --rm --net none box sh -c 'echo out; exit 3' || echo $?",
        "out\n3",
    ),
    (
        "id=$(podman run -d --name two --net none -m 64m --pids-limit 50 --cpus 0.5 box sh -c 'trap \"exit 9\" TERM; while :; do sleep 0.1; done') && cut -d: -f3 /proc/$(podman inspect -f '{{.State.Pid}}' two)/cgroup | sed s/$id/ID/",
        "/machine.slice/libpod-ID.scope",
    ),
    (
        "systemctl show -P MemoryMax -P TasksMax -P CPUQuotaPerSecUSec -P Delegate libpod-$(podman inspect -f '{{.Id}}' two).scope",
        "yes\n500ms\n67108864\n50",
    ),
    (
        "podman exec two sh -c 'cat /proc/self/cgroup; exit 4' || echo $?",
        "0::/\n4",
    ),
    (
        // Between two sleeps the shell is alone.
        "until podman stats --no-stream --format '{{.MemUsage}} {{.PIDS}}' two | cut -d/ -f2 | grep ' 2$'; do :; done",
        " 67.11MB 2",
    ),
    (
        "podman update --memory 96m two >/dev/null && systemctl daemon-reload && cd /sys/fs/cgroup$(cut -d: -f3 /proc/$(podman inspect -f '{{.State.Pid}}' two)/cgroup) && cat memory.max pids.max cpu.max",
        "100663296\n50\n50000 100000",
    ),
    (
        "podman pause two >/dev/null && podman inspect -f '{{.State.Status}}' two && podman unpause two >/dev/null",
        "paused",
    ),
    (
        "podman stop -t 20 two >/dev/null && podman inspect -f '{{.State.ExitCode}}' two",
        "9",
    ),
    ("podman rm two >/dev/null && podman ps -aq | wc -l", "0"),
    (
        "systemctl list-units --all --plain --no-legend 'libpod-*.scope' | wc -l; ls -d /sys/fs/cgroup/machine.slice/libpod-* 2>/dev/null | wc -l",
        "0\n0",
    ),
];

/// Podman's containers run, and nothing of them stays.
pub(super) fn podman(context: &Context<'_>) -> Result<()> {
    with_debian(context, |vm| {
        sh(vm, CONFIGURATION)?;
        sh(vm, IMPORT)?;
        all_hold(vm, "", WITH_PODMAN)?;
        sh(vm, WITH_SYSTEMD)?;
        all_hold(vm, "", WITH_PODMAN_AND_SYSTEMD)
    })
}

/// A user who may do nothing but what every user may, and the ids that he is granted.
const USER: &str = "useradd --create-home --uid 1000 --user-group somebody\n\
    printf 'somebody:100000:65536\\n' | tee /etc/subuid >/etc/subgid\n\
    install --directory --mode 0700 --owner somebody --group somebody /run/user/1000\n\
    modprobe tun\n\
    chmod 644 /tmp/root.tar";

/// As him, without a session of systemd's: a cron job, or a shell behind `su`.
const AS_USER: &str = "exec setpriv --reuid somebody --regid somebody --init-groups \
    env --chdir /home/somebody HOME=/home/somebody USER=somebody XDG_RUNTIME_DIR=/run/user/1000 \
    STORAGE_DRIVER=vfs sh -c \"$0\"";

/// The same for him; where there is a network, it is slirp4netns'.
const WITH_ROOTLESS_PODMAN: &[(&str, &str)] = &[
    (
        "podman import --quiet /tmp/root.tar box >/dev/null && id -u",
        "1000",
    ),
    (
        "podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.Security.Rootless}}'",
        "dyno true",
    ),
    (
        "podman run --rm --net none box sh -c 'echo out; exit 3' || echo $?",
        "out\n3",
    ),
    (
        "podman run --rm --net none box /no/such 2>/dev/null || echo $?",
        "127",
    ),
    (
        "podman run --rm --net none box cat /proc/self/uid_map | tr -s ' ' | cut -d' ' -f2-",
        "0 1000 1\n1 100000 65536",
    ),
    (
        "podman run --rm --net none --user 7:8 box sh -c 'echo $(id -u):$(id -g)'",
        "7:8",
    ),
    (
        "podman run --rm --net none --userns keep-id box id -u",
        "1000",
    ),
    ("podman run --rm --net none -t box tty", "/dev/pts/0\r"),
    (
        "echo typed | podman run --rm --net none -i box cat",
        "typed",
    ),
    (
        "podman run --rm --net none -v /tmp/root:/v:ro box sh -c 'test -e /v/bin/sh && echo seen; echo x 2>/dev/null >/v/x || echo refused'",
        "seen\nrefused",
    ),
    (
        "podman run --rm --network slirp4netns box cat /proc/net/dev | grep -c tap0",
        "1",
    ),
    (
        "podman run --rm --net none -m 64m box true 2>&1 | grep -o 'memory.limit 67108864 cannot be enforced'",
        "memory.limit 67108864 cannot be enforced",
    ),
    (
        "podman run -d --name one --net none box sh -c 'trap \"exit 9\" TERM; echo begun; while :; do sleep 0.1; done' >/dev/null; until podman logs one | grep begun; do sleep 0.2; done",
        "begun",
    ),
    (
        "podman exec one sh -c 'echo inside; exit 4' || echo $?",
        "inside\n4",
    ),
    ("podman exec -t one tty", "/dev/pts/0\r"),
    (
        "podman stop -t 20 one >/dev/null && podman inspect -f '{{.State.ExitCode}}' one",
        "9",
    ),
    (
        "podman start one >/dev/null && podman kill one >/dev/null && podman wait one",
        "137",
    ),
    ("podman rm one >/dev/null && podman ps -aq | wc -l", "0"),
    ("ls /run/user/1000/dyno-runtime | wc -l", "0"),
];

/// An ordinary user's containers run, and nothing of them stays.
pub(super) fn rootless_podman(context: &Context<'_>) -> Result<()> {
    with_debian(context, |vm| {
        sh(vm, CONFIGURATION)?;
        sh(vm, USER)?;
        let failures: Vec<String> = WITH_ROOTLESS_PODMAN
            .iter()
            .filter_map(|(command, expected)| {
                prints(vm, &["sh", "-c", AS_USER, command], expected).err()
            })
            .map(|error| format!("{error:#}"))
            .collect();
        ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
        Ok(())
    })
}

const CONTAINERD: &str = "systemctl start containerd\n\
    podman save --quiet --format oci-archive -o /tmp/box.oci box\n\
    until ctr version >/dev/null 2>&1; do sleep 0.2; done\n\
    ctr image import --snapshotter native /tmp/box.oci >/dev/null";

/// The same with containerd's shim, by its own client.
const WITH_CONTAINERD: &[(&str, &str)] = &[
    (
        "$RUN --rm $BOX a sh -c 'echo out; exit 3' || echo $?",
        "out\n3",
    ),
    (
        "script -qec \"$RUN --rm --tty $BOX a tty\" /dev/null | grep -o /dev/pts/0",
        "/dev/pts/0",
    ),
    (
        "$RUN --detach --memory-limit 67108864 $BOX one sleep 1000 && ctr task ls | tail -1 | tr -s ' ' | cut -d' ' -f3",
        "RUNNING",
    ),
    (
        "ctr task exec --exec-id e one sh -c 'echo inside; exit 4' || echo $?",
        "inside\n4",
    ),
    (
        "cat /sys/fs/cgroup$(cut -d: -f3 /proc/$(ctr task ls | grep '^one' | tr -s ' ' | cut -d' ' -f2)/cgroup)/memory.max",
        "67108864",
    ),
    ("ctr task pause one && ctr task ls | grep -c PAUSED", "1"),
    ("ctr task resume one && ctr task ls | grep -c RUNNING", "1"),
    ("ctr task ps one | tail -n +2 | grep -c .", "1"),
    (
        "ctr task kill -s KILL one; until ctr task ls | grep STOPPED >/dev/null; do sleep 0.2; done; ctr task delete one 2>/dev/null; ctr container delete one; ctr task ls -q | wc -l",
        "0",
    ),
];

/// containerd's containers run, and nothing of them stays.
pub(super) fn containerd(context: &Context<'_>) -> Result<()> {
    with_debian(context, |vm| {
        sh(vm, CONFIGURATION)?;
        sh(vm, IMPORT)?;
        sh(vm, CONTAINERD)?;
        let words = "BOX=localhost/box:latest\n\
                     RUN='ctr run --snapshotter native --runc-binary /usr/local/bin/dyno-runtime'\n";
        all_hold(vm, words, WITH_CONTAINERD)
    })
}

fn with_debian(context: &Context<'_>, test: impl FnOnce(&Vm) -> Result<()>) -> Result<()> {
    let disk = context.kit.new_systemd_disk(context.name)?;
    let options = Options {
        memory_mib: 2048,
        ..Options::default()
    };
    let vm = Vm::boot(context.kit, context.name, disk, &options)?;
    systemd::until_up(&vm)?;
    sh(&vm, ARCHIVE)?;
    test(&vm)?;
    vm.shut_down()?;
    Ok(())
}

fn sh(vm: &Vm, script: &str) -> Result<String> {
    let request = Request::new(&["sh", "-c", script]).deadline(PATIENCE);
    vm.request(request)?.text()
}

/// Every command prints what it shall, in this order; all that do not are told.
fn all_hold(vm: &Vm, words: &str, commands: &[(&str, &str)]) -> Result<()> {
    let all = commands.iter();
    let failures: Vec<String> = all
        .filter_map(|(command, expected)| expect(vm, &format!("{words}{command}"), expected).err())
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    expect(vm, "ls /run/dyno-runtime 2>/dev/null | wc -l", "0")
}

fn expect(vm: &Vm, command: &str, expected: &str) -> Result<()> {
    prints(vm, &["sh", "-c", command], expected)
}

fn prints(vm: &Vm, words: &[&str], expected: &str) -> Result<()> {
    let output = vm.request(Request::new(words).deadline(PATIENCE))?;
    let command = words.last().copied().unwrap_or_default();
    let told = output.to_string();
    let printed = output.text().with_context(|| command.to_owned())?;
    ensure!(
        printed == expected,
        "{command}\nprinted {printed:?}, not {expected:?}\n{told}"
    );
    Ok(())
}
