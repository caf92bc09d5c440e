//! Containers of an ordinary user: his uid is nobody else's, and what the host says
//! of him (passwd, subuid, subgid) is so in this test's own mount namespace only.
//!
//! Long because such a user can do everything that root can, or is told why not:
//! each command and each property again.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use dyno_tests::machine::Machine;
use dyno_tests::{Folder, programs, root, until, write_file};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// First of the 65536 ids that the user is granted besides his own.
const GRANTED: u32 = 0x6200_0000;

/// A user with a bundle of his own, and his own copy of the program.
struct User {
    folder: Folder,
    uid: u32,
    config: Value,
}

impl User {
    /// His container runs this script.
    fn with(script: &str) -> Self {
        let mut user = Self::new();
        let spec = user.call(&["spec", "--rootless", "--bundle", &user.text("bundle")]);
        assert!(spec.status.success(), "{spec:?}");
        let config = std::fs::read(user.path("bundle/config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["process"]["args"] = json!(["sh", "-c", script]);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["process"]["terminal"] = json!(false);
        config["root"]["readonly"] = json!(false);
        user.config = config;
        user
    }

    fn new() -> Self {
        dyno_tests::must_be_root();
        let user = Self {
            folder: Folder::new(),
            uid: 0x6100_0000 + std::process::id(),
            config: Value::Null,
        };
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let uid = user.uid;
        user.show(
            "/etc/passwd",
            &format!("{passwd}somebody:x:{uid}:{uid}::/:/bin/sh\n"),
        );
        for file in ["/etc/subuid", "/etc/subgid"] {
            user.show(file, &format!("somebody:{GRANTED}:65536\n"));
        }
        for name in ["bundle", "bundle/rootfs", "run"] {
            std::fs::create_dir(user.path(name)).unwrap();
        }
        root::fill(&user.path("bundle/rootfs"));
        std::fs::copy(programs().join("dyno-runtime"), user.path("dyno-runtime")).unwrap();
        let everything = [
            user.text("bundle"),
            user.text("run"),
            user.text("dyno-runtime"),
        ];
        let owner = format!("{uid}:{uid}");
        let chown = Command::new("chown")
            .args(["-R", &owner])
            .args(everything)
            .status();
        assert!(chown.unwrap().success());
        user
    }

    /// Shows a file of `/etc` with another content, in this thread's mounts only.
    fn show(&self, path: &str, content: &str) {
        let ours = self.path(Path::new(path).file_name().unwrap().to_str().unwrap());
        write_file(&ours, content);
        if !Path::new(path).exists() {
            // A guest without the file gets one: nobody there has granted anything.
            write_file(Path::new(path), "");
        }
        mount(
            Some(&ours),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A mark that is in the names of all there is of his containers.
    fn id(&self) -> String {
        self.folder
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// Anything, as the user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .uid(self.uid)
            .gid(self.uid)
            .current_dir("/")
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("USER", "somebody")
            .stdin(Stdio::null());
        command
    }

    fn runtime(&self, args: &[&str]) -> Command {
        let mut command = self.command(&self.text("dyno-runtime"));
        command.args(args);
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        self.runtime(args).output().unwrap()
    }

    /// A command of the runtime that works.
    fn must(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes the configuration and takes a command that wants it.
    fn on_bundle(&self, words: &[&str]) -> Vec<String> {
        write_file(&self.path("bundle/config.json"), &self.config.to_string());
        let bundle = ["--bundle".to_owned(), self.text("bundle"), self.id()];
        words
            .iter()
            .map(|&word| word.to_owned())
            .chain(bundle)
            .collect()
    }

    fn run(&self) -> Output {
        let words = self.on_bundle(&["run"]);
        self.call(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What it prints, running to its end.
    fn output(&self) -> String {
        let run = self.run();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8(run.stdout).unwrap()
    }

    /// What he is told instead of getting a container, of which nothing is left.
    fn refusal(&self) -> String {
        let before = self.machine();
        let run = self.run();
        assert_eq!(run.status.code(), Some(1), "{run:?}");
        self.nothing_is_left_since(&before);
        String::from_utf8(run.stderr).unwrap()
    }

    fn detached(&self, word: &[&str]) {
        let words = self.on_bundle(word);
        let output = std::fs::File::create(self.path("output")).unwrap();
        let mut command = self.runtime(&[]);
        command
            .args(words)
            .stderr(output.try_clone().unwrap())
            .stdout(output);
        let status = command.status().unwrap();
        assert!(status.success(), "{}", self.printed());
    }

    /// What a detached one has printed.
    fn printed(&self) -> String {
        std::fs::read_to_string(self.path("output")).unwrap()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.must(&["state", &self.id()])).unwrap()
    }

    fn machine(&self) -> Machine {
        Machine::look(&self.id(), &[&self.path("run")])
    }

    fn nothing_is_left_since(&self, before: &Machine) {
        until("nothing is left", || {
            let left = self.machine().difference(before);
            // The folder of all his containers stays.
            left.iter().all(|thing| thing.ends_with("run/dyno-runtime"))
        });
    }

    /// Maps ids from 1 on to those that he is granted.
    fn with_granted_ids(mut self) -> Self {
        let ranges = json!([
            {"containerID": 0, "hostID": self.uid, "size": 1},
            {"containerID": 1, "hostID": GRANTED, "size": 65535},
        ]);
        self.config["linux"]["uidMappings"] = ranges.clone();
        self.config["linux"]["gidMappings"] = ranges;
        self
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Whatever state a failed test left it in.
        self.call(&["delete", "--force", &self.id()]);
    }
}

#[test]
fn his_container_runs_and_leaves_nothing() {
    let user = User::with(
        "id -u; cat /proc/1/comm; ls /dev/null /dev/pts/ptmx; echo x >/dev/null; \
         echo made >/here; hostname; exit 3",
    );
    let before = user.machine();
    let run = user.run();
    assert_eq!(run.status.code(), Some(3), "{run:?}");
    let stdout = String::from_utf8(run.stdout).unwrap();
    assert_eq!(stdout, "0\nsh\n/dev/null\n/dev/pts/ptmx\ndyno\n");
    // His own id, and no other, is root inside.
    let made = std::fs::metadata(user.path("bundle/rootfs/here")).unwrap();
    assert_eq!(made.uid(), user.uid);
    user.nothing_is_left_since(&before);
    let states = std::fs::metadata(user.path("run/dyno-runtime")).unwrap();
    assert_eq!(states.permissions().mode() & 0o7777, 0o1700);
    assert_eq!(states.uid(), user.uid);
}

#[test]
fn every_command_works_as_the_user() {
    let user = User::with("trap 'exit 9' TERM; echo begun; while :; do sleep 0.05; done");
    let id = user.id();
    let before = user.machine();
    user.detached(&["create"]);
    assert_eq!(user.state()["status"], "created");
    assert_eq!(user.state()["owner"], "somebody");
    user.must(&["start", &id]);
    until("it has begun", || user.printed() == "begun\n");
    let pid = user.state()["pid"].as_i64().unwrap();
    assert!(user.must(&["list", "--quiet"]).contains(&id));
    let processes: Vec<i64> =
        serde_json::from_str(&user.must(&["ps", "--format", "json", &id])).unwrap();
    assert!(processes.contains(&pid), "{processes:?}");
    let exec = user.call(&["exec", &id, "sh", "-c", "id -u; exit 4"]);
    assert_eq!(
        (exec.status.code(), &*exec.stdout),
        (Some(4), &b"0\n"[..]),
        "{exec:?}"
    );
    let absent = user.call(&["exec", &id, "/no/such"]);
    assert_eq!(absent.status.code(), Some(127), "{absent:?}");
    assert_eq!(user.must(&["exec", "--tty", &id, "tty"]), "/dev/pts/0\r\n");
    let pause = user.call(&["pause", &id]);
    let message = String::from_utf8(pause.stderr).unwrap();
    assert!(
        !pause.status.success() && message.contains("no cgroup"),
        "{message}"
    );
    let early = user.call(&["delete", &id]);
    assert!(!early.status.success(), "it runs");
    user.must(&["kill", "--all", &id, "TERM"]);
    until("it ends", || user.state()["status"] == "stopped");
    user.must(&["delete", &id]);
    user.nothing_is_left_since(&before);
}

#[test]
fn one_that_runs_is_deleted_by_force() {
    let user = User::with("sleep 1000 & sleep 1000");
    let before = user.machine();
    user.detached(&["run", "--detach"]);
    user.must(&["delete", "--force", &user.id()]);
    user.nothing_is_left_since(&before);
}

#[test]
fn a_create_that_is_killed_at_any_moment_leaves_nothing_behind_a_forced_delete() {
    let user = User::with("sleep 1000");
    user.detached(&["create"]);
    user.must(&["delete", "--force", &user.id()]);
    let before = user.machine();
    let mut killed = 0;
    for delay in (0..30).map(|step| step * 2000) {
        let words = user.on_bundle(&["create"]);
        let mut create = user.command("timeout");
        let seconds = format!("0.{delay:06}");
        create.args(["--signal=KILL", &seconds, &user.text("dyno-runtime")]);
        let output = std::fs::File::create(user.path("output")).unwrap();
        create
            .args(words)
            .stderr(output.try_clone().unwrap())
            .stdout(output);
        killed += usize::from(!create.status().unwrap().success());
        user.must(&["delete", "--force", &user.id()]);
        user.nothing_is_left_since(&before);
    }
    assert!(killed > 3, "only {killed} were killed: this proves nothing");
}

#[test]
fn one_that_waits_and_is_not_on_record_is_found_by_what_it_waits_for() {
    // As a `create` leaves it that is killed between the two.
    let user = User::with("sleep 1000");
    let before = user.machine();
    user.detached(&["create"]);
    let pid = user.state()["pid"].to_string();
    let record = user
        .path("run/dyno-runtime")
        .join(user.id())
        .join("state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    state["pid"] = json!(0);
    state["startTime"] = json!(0);
    write_file(&record, &state.to_string());
    assert!(Path::new("/proc").join(&pid).exists());
    user.must(&["delete", "--force", &user.id()]);
    until("it ends", || !Path::new("/proc").join(&pid).exists());
    user.nothing_is_left_since(&before);
}

#[test]
fn it_has_a_terminal_and_what_may_be_worse_than_the_callers() {
    let mut user = User::with("tty; cat /proc/self/oom_score_adj; test -w /dev/tty && echo owned");
    user.config["process"]["terminal"] = json!(true);
    user.config["process"]["oomScoreAdj"] = json!(777);
    assert_eq!(user.output(), "/dev/pts/0\r\n777\r\nowned\r\n");
    // To be spared is not his to have; as with runc he is not refused for asking.
    user.config["process"]["oomScoreAdj"] = json!(-777);
    let output = user.output();
    assert!(
        !output.contains("-777") && output.ends_with("owned\r\n"),
        "{output}"
    );
}

#[test]
fn it_is_as_confined_as_any_other() {
    let script = "grep -E '^(NoNewPrivs|CapBnd)' /proc/self/status | tr -d '\\t'; \
                  cat /proc/keys | wc -c; echo 1 2>/dev/null >/proc/sys/kernel/hostname || echo refused";
    let user = User::with(script);
    let confined = "CapBnd:0000000020000420\nNoNewPrivs:1\n0\nrefused\n";
    assert_eq!(user.output(), confined);
}

#[test]
fn several_ranges_are_mapped_by_the_helpers() {
    let mut user = User::with(
        "id -u; id -g; id -G; cat /proc/self/uid_map | tr -s ' '; mkdir /open/made; exit 5",
    )
    .with_granted_ids();
    std::fs::create_dir(user.path("bundle/rootfs/open")).unwrap();
    std::fs::set_permissions(
        user.path("bundle/rootfs/open"),
        Permissions::from_mode(0o777),
    )
    .unwrap();
    user.config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    let run = user.run();
    assert_eq!(run.status.code(), Some(5), "{run:?}");
    let stdout = String::from_utf8(run.stdout).unwrap();
    // As the user's own namespace counts, where he is root.
    assert_eq!(stdout, format!("7\n8\n8 9\n 0 0 1\n 1 {GRANTED} 65535\n"));
    let made = std::fs::metadata(user.path("bundle/rootfs/open/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (GRANTED + 6, GRANTED + 7));
    std::fs::remove_dir(user.path("bundle/rootfs/open/made")).unwrap();
}

#[test]
fn he_may_be_another_than_root_inside_and_exec_finds_the_same_ids() {
    let mut user = User::with("sleep 1000");
    let ranges = json!([
        {"containerID": 0, "hostID": GRANTED, "size": 1000},
        {"containerID": 1000, "hostID": user.uid, "size": 1},
    ]);
    user.config["linux"]["uidMappings"] = ranges.clone();
    user.config["linux"]["gidMappings"] = ranges;
    user.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    user.detached(&["run", "--detach"]);
    let script = "id -u; id -G; echo mine >/tmp/mine";
    std::fs::set_permissions(
        user.path("bundle/rootfs/tmp"),
        Permissions::from_mode(0o777),
    )
    .unwrap();
    assert_eq!(
        user.must(&["exec", &user.id(), "sh", "-c", script]),
        "1000\n1000\n"
    );
    let mine = std::fs::metadata(user.path("bundle/rootfs/tmp/mine")).unwrap();
    assert_eq!(mine.uid(), user.uid);
    let as_root = user.must(&["exec", "--user", "0:0", &user.id(), "id", "-u"]);
    assert_eq!(as_root, "0\n");
}

#[test]
fn ids_that_nobody_granted_are_refused_by_name() {
    let mut user = User::with("true").with_granted_ids();
    user.config["linux"]["uidMappings"][1]["hostID"] = json!(GRANTED + 65536);
    let message = user.refusal();
    let first = (GRANTED + 65536).to_string();
    for word in ["linux.uidMappings", "newuidmap", &first, "/etc/subuid"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let mut user = user.with_granted_ids();
    user.config["linux"]["gidMappings"][1]["size"] = json!(70_000);
    let message = user.refusal();
    for word in ["linux.gidMappings", "newgidmap", "/etc/subgid"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn a_helper_that_is_not_installed_is_named() {
    let user = User::with("true").with_granted_ids();
    // What cannot be executed is as good as absent.
    mount(
        Some("/dev/null"),
        "/usr/bin/newuidmap",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    // Nor is another taken for it that is in his PATH.
    let other = user.path("run/newuidmap");
    write_file(&other, "#!/bin/sh\ntouch $0.called\n");
    std::fs::set_permissions(&other, Permissions::from_mode(0o755)).unwrap();
    let words = user.on_bundle(&["run"]);
    let mut run = user.runtime(&[]);
    run.args(words).env("PATH", user.path("run"));
    assert!(!run.output().unwrap().status.success());
    assert!(!user.path("run/newuidmap.called").exists());
    let message = user.refusal();
    for word in [
        "linux.uidMappings",
        "/usr/bin/newuidmap",
        "uidmap",
        &GRANTED.to_string(),
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn what_an_ordinary_user_cannot_have_is_refused_by_name() {
    let mut user = User::with("true");
    user.config["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}});
    let message = user.refusal();
    assert!(
        message.contains("memory.limit") && message.contains("delegated"),
        "{message}"
    );

    user.config["linux"]["resources"] = json!({});
    user.config["process"]["user"]["additionalGids"] = json!([0]);
    let message = user.refusal();
    assert!(message.contains("process.user.additionalGids"), "{message}");

    user.config["process"]["user"]["additionalGids"] = json!([]);
    user.config["linux"]["devices"] =
        json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]);
    let message = user.refusal();
    assert!(
        message.contains("linux.devices") && message.contains("/dev/null"),
        "{message}"
    );

    user.config["linux"]["devices"] = json!([]);
    let namespaces = user.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "user");
    let linux = user.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let message = user.refusal();
    assert!(
        message.contains("user namespace") && message.contains("spec --rootless"),
        "{message}"
    );
}

#[test]
fn without_a_run_folder_of_his_own_he_is_told_where_it_failed() {
    let user = User::with("true");
    let words = user.on_bundle(&["run"]);
    let mut run = user.runtime(&[]);
    let output = run
        .args(words)
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        message.contains("/run/dyno-runtime") && message.contains("--root"),
        "{message}"
    );
}

#[test]
fn hooks_run_at_their_time() {
    let mut user = User::with("cat /told; sleep 1000");
    let told = user.text("bundle/rootfs/told");
    let hook = |words: String| json!([{"path": "/bin/sh", "args": ["sh", "-c", words]}]);
    user.config["hooks"] = json!({
        "createRuntime": hook(format!("echo createRuntime >>{told}")),
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "/bin/busybox echo start >>/told"]}],
    });
    user.detached(&["create"]);
    user.must(&["start", &user.id()]);
    until("it has printed", || {
        user.printed() == "createRuntime\nstart\n"
    });
}

#[test]
fn his_own_file_of_the_runtime_is_out_of_reach() {
    // P5: it belongs to him, and so to the container's root.
    let user = User::with("sleep 1000");
    user.detached(&["create"]);
    let exe = format!("/proc/{}/exe", user.state()["pid"]);
    let program = std::fs::read_link(&exe).unwrap().display().to_string();
    assert!(program.starts_with("/memfd:dyno-runtime"), "{program}");
    let file = std::fs::File::open(&exe).unwrap();
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
    assert!(seals.contains(rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::SEAL));
}

#[test]
fn nobody_inside_looks_into_a_process_of_ours() {
    // P4: the strongest there is inside, root of the container's user namespace.
    let user = User::with("sleep 1000");
    user.detached(&["create"]);
    let pid = user.state()["pid"].to_string();
    let look = || {
        let mut nsenter = user.command("nsenter");
        nsenter.args(["--user", "--preserve-credentials", "--target", &pid, "--"]);
        let output = nsenter
            .args(["readlink", &format!("/proc/{pid}/exe")])
            .output()
            .unwrap();
        output.status.success()
    };
    assert!(!look(), "before its execve");
    user.must(&["start", &user.id()]);
    until("the control: it is seen once it runs", look);
}

#[test]
fn root_of_a_user_namespace_runs_containers_in_it() {
    // As under rootless Podman: no namespace of the container's own, no mappings.
    let mut user =
        User::with("id -u; ls /dev/null; grep -c . /proc/self/mountinfo >/dev/null; exit 6");
    let namespaces = user.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "user");
    let linux = user.config["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let words = user.on_bundle(&["run"]);
    let mut command = user.command("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        &user.text("dyno-runtime"),
    ]);
    let run = command.args(words).output().unwrap();
    assert_eq!(run.status.code(), Some(6), "{run:?}");
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "0\n/dev/null\n");
    // There it is runc's rule that decides, too.
    assert!(user.path("run/dyno-runtime").exists());
}

/// A cgroup of the v2 tree that is delegated to a user, with a group for his shell.
struct Delegation(PathBuf);

impl Delegation {
    fn new(user: &User) -> Self {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let tree = if unified.exists() {
            unified
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let has = std::fs::read_to_string(tree.join("cgroup.controllers")).unwrap();
        if has.split_whitespace().any(|name| name == "memory") {
            write_file(&tree.join("cgroup.subtree_control"), "+memory");
        }
        let folder = tree.join(user.id());
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(folder.join("shell")).unwrap();
        for name in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "shell",
            "shell/cgroup.procs",
        ] {
            std::os::unix::fs::chown(folder.join(name), Some(user.uid), None).unwrap();
        }
        Self(folder)
    }

    /// Calls the runtime from the user's shell's group.
    fn call(&self, user: &User, words: &[String]) -> ExitStatus {
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(
                "echo $$ >\"$0\"; id=$1; shift; \
                 exec /usr/bin/setpriv --reuid \"$id\" --regid \"$id\" --clear-groups \"$@\"",
            )
            .arg(self.0.join("shell/cgroup.procs"))
            .arg(user.uid.to_string())
            .arg(user.text("dyno-runtime"))
            .args(words)
            .env("XDG_RUNTIME_DIR", user.path("run"));
        let file = std::fs::File::create(user.path("output")).unwrap();
        shell
            .stderr(file.try_clone().unwrap())
            .stdout(file)
            .stdin(Stdio::null());
        shell.status().unwrap()
    }

    /// Whether a limit on memory can be set in it.
    fn has_memory(&self) -> bool {
        let controllers = std::fs::read_to_string(self.0.join("cgroup.controllers")).unwrap();
        controllers.split_whitespace().any(|name| name == "memory")
    }
}

impl Drop for Delegation {
    fn drop(&mut self) {
        for folder in [self.0.join("shell"), self.0.clone()] {
            std::fs::remove_dir(folder).unwrap_or_default();
        }
    }
}

#[test]
fn a_cgroup_that_is_delegated_is_used() {
    let mut user = User::with("sleep 1000");
    let delegation = Delegation::new(&user);
    let id = user.id();
    user.config["linux"]["cgroupsPath"] = json!(format!("/{id}/box"));
    let words = user.on_bundle(&["run", "--detach"]);
    let status = delegation.call(&user, &words);
    assert!(status.success(), "{}", user.printed());
    let pid = user.state()["pid"].to_string();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&format!("0::/{id}/box")), "{groups}");
    user.must(&["pause", &id]);
    assert_eq!(user.state()["status"], "paused");
    user.must(&["resume", &id]);
    user.must(&["delete", "--force", &id]);
    assert!(!delegation.0.join("box").exists());

    // With the controllers that were delegated, too, and no others.
    user.config["linux"]["resources"] = json!({"memory": {"limit": 64 << 20}});
    let words = user.on_bundle(&["run", "--detach"]);
    let status = delegation.call(&user, &words);
    if delegation.has_memory() {
        assert!(status.success(), "{}", user.printed());
        let limit = std::fs::read_to_string(delegation.0.join("box/memory.max")).unwrap();
        assert_eq!(limit.trim(), (64 << 20).to_string());
        user.must(&["delete", "--force", &id]);
    } else {
        assert!(!status.success());
        let message = user.printed();
        assert!(message.contains("memory"), "{message}");
    }
    assert!(!delegation.0.join("box").exists());
}
