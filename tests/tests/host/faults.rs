//! hostd and monitors killed at the worst time.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dyno_tests::host::Host;
use dyno_tests::until;
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

fn pids(host: &Host) -> BTreeMap<String, u64> {
    let dynos: Value = serde_json::from_str(&host.ok(&["ps", "--json"])).unwrap();
    let pid = |dyno: &Value| {
        (
            dyno["name"].as_str().unwrap().to_owned(),
            dyno["status"]["pid"].as_u64().unwrap(),
        )
    };
    dynos.as_array().unwrap().iter().map(pid).collect()
}

#[test]
fn twenty_dynos_survive_a_killed_hostd_and_no_line_is_lost() {
    let mut host = Host::with_busybox();
    // Slow enough that twenty of them leave an emulated machine time for anything else.
    let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.2; done";
    for number in 0..20 {
        host.ok(&[
            "run",
            "-d",
            "--name",
            &format!("counter-{number}"),
            "busybox",
            "sh",
            "-c",
            script,
        ]);
    }
    let before = pids(&host);
    assert_eq!(before.len(), 20);
    host.kill();
    // They count on with nobody there.
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    host.spawn_again();
    host.until_it_answers();
    let back_after = begin.elapsed();
    assert_eq!(pids(&host), before);
    assert!(
        back_after < Duration::from_secs(30),
        "the API was back after {back_after:?}"
    );
    until("they counted past the kill", || {
        before
            .keys()
            .all(|name| host.ok(&["logs", name]).lines().count() > 20)
    });
    for name in before.keys() {
        let logs = host.ok(&["logs", name]);
        let lines: Vec<usize> = logs.lines().map(|line| line.parse().unwrap()).collect();
        let expected: Vec<usize> = (1..=lines.len()).collect();
        assert_eq!(lines, expected, "{name} lost or doubled a line");
    }
}

#[test]
fn a_dyno_crashes_and_comes_back_while_hostd_is_away() {
    let mut host = Host::with_busybox();
    let id = host.ok(&[
        "run",
        "-d",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ]);
    host.until_phase(&id, "running");
    let pid = host.inspect(&id)["status"]["pid"].as_i64().unwrap();
    host.kill();
    kill_process(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let state = host.path().join("run/dynos").join(&id).join("state.json");
    until("the monitor started it again", || {
        let state: Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
        state["status"]["phase"] == "running" && state["status"]["restarts"] == 1
    });
    host.spawn_again();
    host.until_it_answers();
    host.until_phase(&id, "running");
    assert_eq!(host.inspect(&id)["status"]["restarts"], 1);
}

#[test]
fn a_killed_monitor_takes_its_dyno_along_and_the_policy_applies() {
    let host = Host::with_busybox();
    let always = host.ok(&[
        "run",
        "-d",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ]);
    let never = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    for id in [&always, &never] {
        host.until_phase(id, "running");
        let status = host.inspect(id)["status"].clone();
        let pid = |name: &str| {
            Pid::from_raw(i32::try_from(status[name].as_i64().unwrap()).unwrap()).unwrap()
        };
        let (monitor, init) = (pid("monitor_pid"), pid("pid"));
        kill_process(monitor, Signal::KILL).unwrap();
        until("its process is gone", || {
            rustix::process::test_kill_process(init).is_err()
        });
    }
    host.until_phase(&never, "lost");
    until("the other is back", || {
        let status = &host.inspect(&always)["status"];
        status["phase"] == "running" && status["pid"].is_number()
    });
}

#[test]
fn a_restarted_hostd_still_attaches_executes_and_stops() {
    let mut host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    host.until_phase(&id, "running");
    host.kill_and_restart();
    assert_eq!(host.ok(&["exec", &id, "echo", "still here"]), "still here");
    host.ok(&["stop", &id]);
    host.until_phase(&id, "exited");
}

#[test]
fn hostd_killed_while_dynos_come_and_go_leaves_each_whole_or_gone() {
    let mut host = Host::with_busybox();
    let seed: u64 = std::env::var("DYNO_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7);
    let rounds = if std::env::var_os("DYNO_SOAK").is_some() {
        200
    } else {
        5
    };
    let mut random = seed;
    for round in 0..rounds {
        // xorshift64: any sequence will do, as long as it can be had again.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let name = format!("round-{round}");
        let mut create = host
            .dyno(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(random % 60_000));
        host.kill();
        let acknowledged = create.wait().unwrap().success();
        host.spawn_again();
        host.until_it_answers();
        let listed: Value = serde_json::from_str(&host.ok(&["ps", "-a", "--json"])).unwrap();
        let found = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|dyno| dyno["name"] == name.as_str())
            .cloned();
        assert!(
            found.is_some() || !acknowledged,
            "seed {seed}, round {round}: it was acknowledged and is gone"
        );
        if found.is_some() {
            host.ok(&["rm", "-f", &name]);
        }
        assert!(host.ids().is_empty(), "seed {seed}, round {round}");
        let left: Vec<_> = std::fs::read_dir(host.path().join("run/dynos"))
            .unwrap()
            .collect();
        assert!(left.is_empty(), "seed {seed}, round {round}: {left:?}");
    }
}

#[test]
fn a_record_that_cannot_be_read_does_not_cost_its_dyno_its_life() {
    let mut host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    host.until_phase(&id, "running");
    let pid = host.inspect(&id)["status"]["pid"].as_i64().unwrap();
    let init = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let record = host.path().join("state/dynos").join(&id).join("dyno.json");
    let whole = std::fs::read(&record).unwrap();
    host.kill();
    std::fs::File::create(&record).unwrap();
    host.spawn_again();
    host.until_it_answers();
    assert!(
        rustix::process::test_kill_process(init).is_ok(),
        "it was killed"
    );
    // With its record it is an ordinary dyno again.
    host.kill();
    std::io::Write::write_all(&mut std::fs::File::create(&record).unwrap(), &whole).unwrap();
    host.spawn_again();
    host.until_it_answers();
    host.until_phase(&id, "running");
    assert_eq!(host.inspect(&id)["status"]["pid"].as_i64(), Some(pid));
}

#[test]
fn a_monitor_that_hangs_keeps_no_client_waiting() {
    let host = Host::with_busybox();
    let id = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    host.until_phase(&id, "running");
    let monitor = &host.inspect(&id)["status"]["monitor_pid"];
    let monitor = Pid::from_raw(i32::try_from(monitor.as_i64().unwrap()).unwrap()).unwrap();
    kill_process(monitor, Signal::STOP).unwrap();
    let clients = [
        host.dyno(&["exec", &id, "true"]),
        host.dyno(&["attach", &id]),
    ]
    .map(|mut client| client.stderr(Stdio::piped()).spawn().unwrap());
    let [mut exec, mut attach] = clients;
    until("both were told", || {
        exec.try_wait().unwrap().is_some() && attach.try_wait().unwrap().is_some()
    });
    for client in [exec, attach] {
        let output = client.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{told}");
        assert!(told.contains("the monitor did not answer"), "{told}");
    }
    kill_process(monitor, Signal::CONT).unwrap();
    assert_eq!(host.ok(&["exec", &id, "echo", "again"]), "again");
    kill_process(monitor, Signal::STOP).unwrap();
    host.ok(&["rm", "-f", &id]);
}

/// Somebody looks at it with a debugger, say, while hostd is upgraded.
#[test]
fn a_monitor_that_hangs_while_hostd_starts_keeps_its_dyno_and_holds_up_nobody() {
    let mut host = Host::with_busybox();
    let run = |name| host.ok(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    for name in ["hung", "well", "doomed"] {
        run(name);
    }
    let before = pids(&host);
    let monitors = ["hung", "doomed"].map(|name| {
        let pid = host.inspect(name)["status"]["monitor_pid"].as_i64();
        Pid::from_raw(i32::try_from(pid.unwrap()).unwrap()).unwrap()
    });
    for monitor in monitors {
        kill_process(monitor, Signal::STOP).unwrap();
    }
    host.kill();
    let begin = Instant::now();
    host.spawn_again();
    host.until_it_answers();
    // A monitor is given twenty seconds for an answer.
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(pids(&host), before);
    host.ok(&["exec", "well", "true"]);
    host.ok(&["rm", "-f", "doomed"]);
    let [hung, doomed] = monitors;
    until("its monitor is gone", || test_kill_process(doomed).is_err());

    kill_process(hung, Signal::CONT).unwrap();
    assert_eq!(host.ok(&["exec", "hung", "echo", "again"]), "again");
    host.ok(&["kill", "hung"]);
    host.until_phase("hung", "exited");
}

/// Creates a dyno as `dyno run --rm` does, and leaves it at that.
fn create(host: &Host, name: &str) {
    let spec = json!({"image": "busybox", "command": ["sleep", "1000"], "name": name, "rm": true, "stdin": true});
    let created = Command::new("curl")
        .args(["-sf", "-H", "Content-Type: application/json", "-d"])
        .arg(spec.to_string())
        .arg("--unix-socket")
        .arg(host.socket())
        .arg("http://hostd/v1/dynos")
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
    assert_eq!(host.inspect(name)["status"]["phase"], "created");
}

/// Attaches to it: somebody is there until this is dropped.
fn attach(host: &Host, name: &str) -> UnixStream {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    let body = json!({"stdin": true}).to_string();
    let request = format!(
        "POST /v1/dynos/{name}/attach HTTP/1.1\r\nHost: hostd\r\n\
         Connection: upgrade\r\nUpgrade: dyno-frames\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    stream
}

#[test]
fn a_dyno_that_goes_with_its_end_goes_too_where_nobody_comes_to_start_it() {
    let mut host = Host::with_busybox();
    create(&host, "before");
    // Nor is a hostd that is started again in between of any use to it.
    host.kill_and_restart();
    create(&host, "attended");
    let attached = attach(&host, "attended");
    // As by `kill -9` between attaching and starting.
    create(&host, "left");
    drop(attach(&host, "left"));
    create(&host, "forgotten");
    for name in ["before", "left", "forgotten"] {
        until(&format!("{name} is gone"), || {
            !host.run(&["inspect", name]).status.success()
        });
    }
    // This one is older than the last, and its client is there.
    host.ok(&["start", "attended"]);
    host.until_phase("attended", "running");
    drop(attached);
}

/// hostd starts a monitor ahead: it ends with hostd, and where somebody kills it
/// the next dyno gets another.
#[test]
fn a_monitor_that_waits_for_its_dyno_may_be_killed_and_ends_with_hostd() {
    let mut host = Host::with_busybox();
    let first = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    let spare = || spare(host.pid());
    until("one waits", || spare().is_some());
    kill_process(spare().unwrap(), Signal::KILL).unwrap();
    let second = host.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    for id in [&first, &second] {
        host.until_phase(id, "running");
        let folder = host.path().join("run/dynos").join(id).display().to_string();
        let shown = |line: &Vec<String>| line[1..3] == ["monitor".to_owned(), folder.clone()];
        assert!(
            commands()
                .iter()
                .any(|(_, line)| line.len() > 2 && shown(line))
        );
    }
    until("another waits", || spare().is_some());
    let left = spare().unwrap();
    host.kill();
    until("it has ended", || test_kill_process(left).is_err());
    host.spawn_again();
    host.until_it_answers();
}

/// hostd dies after it has named the folder, before the monitor hears of it: the next
/// hostd finds nothing that has begun, and has another one serve that folder.
#[test]
fn a_monitor_that_hears_of_its_dyno_from_a_dead_hostd_leaves_it_to_the_next() {
    let mut host = Host::with_busybox();
    host.ok(&["run", "-d", "--name", "first", "busybox", "sleep", "1000"]);
    until("one waits", || spare(host.pid()).is_some());
    let spare = spare(host.pid()).unwrap();
    // A stop by a signal would end with its parent.
    let held = nix::unistd::Pid::from_raw(spare.as_raw_nonzero().get());
    ptrace::seize(held, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(held).unwrap();
    waitpid(held, None).unwrap();
    let subject = ["run", "-d", "--name", "subject", "--notify"];
    let subject = [&subject[..], &["busybox", "sleep", "1000"]].concat();
    let mut client = host.dyno(&subject).stderr(Stdio::null()).spawn().unwrap();
    let input = format!("/proc/{}/fd/0", spare.as_raw_nonzero());
    until("it is told", || {
        let input = std::fs::File::open(&input).unwrap();
        rustix::io::ioctl_fionread(input).unwrap() > 0
    });
    host.kill();
    assert!(!client.wait().unwrap().success());
    host.spawn_again();
    host.until_it_answers();
    host.ok(&["start", "subject"]);
    let run = host.path().join("run/dynos");
    let run = run.join(host.inspect("subject")["id"].as_str().unwrap());
    let socket = || {
        let there = std::fs::metadata(run.join("notify.sock")).unwrap();
        (there.ctime(), there.ctime_nsec())
    };
    let before = socket();
    ptrace::detach(held, None).unwrap();
    until("it ends", || test_kill_process(spare).is_err());
    assert_eq!(
        socket(),
        before,
        "where the dyno's own monitor listens to it"
    );
    host.ok(&["exec", "subject", "true"]);
}

/// The monitor that waits, a child of this hostd.
fn spare(hostd: u32) -> Option<Pid> {
    let parent = format!("\nPPid:\t{hostd}\n");
    let waits = |(pid, line): &(i32, Vec<String>)| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        line.iter().any(|word| word == "--spare") && status.contains(&parent)
    };
    let (pid, _) = commands().into_iter().find(waits)?;
    Pid::from_raw(pid)
}

/// The processes of this machine and their arguments.
fn commands() -> Vec<(i32, Vec<String>)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let words = line.split('\0').map(str::to_owned).collect();
            Some((entry.file_name().to_str()?.parse().ok()?, words))
        })
        .collect()
}
