//! Apps: dynos that one file describes and that are brought up together.

mod compose;

use std::path::PathBuf;
use std::process::{Command, Output};

use dyno_tests::host::Host;
use dyno_tests::until;
use serde_json::{Value, json};

/// An app's folder, whose name is not the app's.
struct App<'a> {
    host: &'a Host,
    folder: PathBuf,
}

impl<'a> App<'a> {
    fn new(host: &'a Host, text: &str) -> Self {
        Self::of_file(host, "dyno.toml", text)
    }

    fn of_file(host: &'a Host, name: &str, text: &str) -> Self {
        let folder = host.path().join("app");
        std::fs::create_dir(&folder).unwrap();
        let app = Self { host, folder };
        app.write(name, text);
        app
    }

    fn write(&self, name: &str, text: &str) {
        dyno_tests::write_file(&self.folder.join(name), text);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut dyno = self.host.dyno(arguments);
        dyno.current_dir(&self.folder).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "dyno {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "dyno {arguments:?}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        (text, output.status.code().unwrap())
    }

    /// Names of dynos and the processes that they are.
    fn pids(&self) -> Vec<(String, Option<u64>)> {
        let list: Value = serde_json::from_str(&self.host.ok(&["ps", "-a", "--json"])).unwrap();
        let dynos = list.as_array().unwrap().iter();
        let pid = |dyno: &Value| {
            let name = dyno["name"].as_str().unwrap().to_owned();
            (name, dyno["status"]["pid"].as_u64())
        };
        let mut pids: Vec<_> = dynos.map(pid).collect();
        pids.sort();
        pids
    }

    fn names(&self) -> Vec<String> {
        self.pids().into_iter().map(|(name, _)| name).collect()
    }
}

/// A program that ends when it is asked to.
const RUNS: &str = "image = \"busybox\"\ncommand = \"sh -c 'trap exit TERM; sleep 1000 & wait'\"\n";

/// Starts a copy of a service as a client of the API does.
fn start_copy(host: &Host, name: &str, app: &str, service: &str) {
    let spec = json!({"image": "host", "command": ["sleep", "1000"], "name": name,
        "service": {"app": app, "name": service}});
    let created = Command::new("curl")
        .args(["-sf", "-H", "Content-Type: application/json", "-d"])
        .arg(spec.to_string())
        .arg("--unix-socket")
        .arg(host.socket())
        .arg("http://hostd/v1/dynos?start=true")
        .output()
        .unwrap();
    assert!(created.status.success(), "{created:?}");
}

#[test]
fn all_copies_of_a_service_are_found_by_its_name_and_short_in_the_app_alone() {
    let mut host = Host::start();
    for (name, app, service) in [
        ("shop-web-1", "shop", "web"),
        ("shop-web-2", "shop", "web"),
        ("shop-job-1", "shop", "job"),
        ("blog-web-1", "blog", "web"),
    ] {
        start_copy(&host, name, app, service);
    }
    let own = |names: &[&str]| {
        let address = |name: &&str| host_address(&host, name);
        let mut own: Vec<String> = names.iter().map(address).collect();
        own.sort();
        own
    };
    let (web, blog) = (own(&["shop-web-1", "shop-web-2"]), own(&["blog-web-1"]));
    let second = own(&["shop-web-2"]);
    let finds = |host: &Host, name: &str| {
        let output = host.run(&["exec", "shop-job-1", "getent", "ahostsv4", name]);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| line.contains("STREAM"));
        let mut found: Vec<String> = lines
            .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
            .collect();
        found.sort();
        found
    };
    for (name, addresses) in [
        ("web", &web),
        ("web.shop", &web),
        ("web.shop.dyno.internal", &web),
        ("web.blog", &blog),
    ] {
        until(&format!("{name} is found"), || {
            finds(&host, name) == *addresses
        });
    }
    // A service of another app has no short name here.
    assert!(finds(&host, "blog-web").is_empty());

    host.kill_and_restart();
    until("web is found again", || finds(&host, "web") == web);
    host.ok(&["rm", "-f", "shop-web-1"]);
    until("one is gone", || finds(&host, "web") == second);
    let service = &host.inspect("shop-web-2")["spec"]["service"];
    assert_eq!(*service, json!({"app": "shop", "name": "web"}));
}

fn host_address(host: &Host, dyno: &str) -> String {
    let status = &host.inspect(dyno)["status"];
    status["ipv4"].as_str().unwrap().to_owned()
}

#[test]
fn a_second_up_touches_nobody_and_another_field_one_service() {
    let host = Host::with_busybox();
    let text = format!(
        "name = \"shop\"\n[services.web]\n{RUNS}count = 2\nafter = [\"db\"]\n[services.db]\n{RUNS}"
    );
    let app = App::new(&host, &text);
    let plan = app.ok(&["plan"]);
    assert!(
        plan.contains("+ shop-web-2   create") && plan.contains("3 to create"),
        "{plan}"
    );
    assert!(app.pids().is_empty(), "a plan does something");

    assert_eq!(app.ok(&["up"]), plan);
    let first = app.pids();
    assert_eq!(app.names(), ["shop-db-1", "shop-web-1", "shop-web-2"]);
    assert!(first.iter().all(|(_, pid)| pid.is_some()), "{first:?}");
    let started = |name: &str| {
        host.inspect(name)["status"]["started"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(started("shop-db-1") < started("shop-web-1"));
    assert!(app.ok(&["up"]).ends_with("app shop: 3 unchanged\n"));
    assert_eq!(app.pids(), first);

    app.write(
        "dyno.toml",
        &text.replace("count = 2", "count = 2\nenv = { LEVEL = \"debug\" }"),
    );
    let told = app.ok(&["up"]);
    assert!(told.contains("env.LEVEL: nothing → \"debug\""), "{told}");
    let second = app.pids();
    assert_eq!(second[0], first[0]);
    assert!(second[1] != first[1] && second[2] != first[2], "{second:?}");
    assert!(second.iter().all(|(_, pid)| pid.is_some()), "{second:?}");
    assert_eq!(
        host.ok(&["exec", "shop-web-2", "sh", "-c", "echo $LEVEL"]),
        "debug"
    );

    // One is stopped by hand: it is started and nothing else.
    host.ok(&["stop", "shop-web-1"]);
    assert!(app.ok(&["up"]).contains("^ shop-web-1   start"));
    assert_eq!(app.pids()[0], first[0]);
    host.until_phase("shop-web-1", "running");
}

#[test]
fn copies_come_and_go_and_so_do_services() {
    let host = Host::with_busybox();
    let web = |count: u32| format!("name = \"shop\"\n[services.web]\n{RUNS}count = {count}\n");
    let app = App::new(&host, &format!("{}[services.job]\n{RUNS}", web(1)));
    host.ok(&["run", "-d", "--name", "mine", "busybox", "sleep", "1000"]);
    app.ok(&["up"]);
    let first = app.pids();
    app.write("dyno.toml", &web(3));
    // Only what is named is looked at.
    app.ok(&["up", "web"]);
    let expected = [
        "mine",
        "shop-job-1",
        "shop-web-1",
        "shop-web-2",
        "shop-web-3",
    ];
    assert_eq!(app.names(), expected);
    app.write("dyno.toml", &web(2));
    let plan: Value = serde_json::from_str(&app.ok(&["plan", "--json"])).unwrap();
    let action = |step: &Value| format!("{} {}", step["name"], step["action"]).replace('"', "");
    let steps: Vec<_> = plan["dynos"]
        .as_array()
        .unwrap()
        .iter()
        .map(action)
        .collect();
    let expected = [
        "shop-web-3 remove",
        "shop-job-1 remove",
        "shop-web-1 keep",
        "shop-web-2 keep",
    ];
    assert_eq!(steps, expected);
    app.ok(&["up"]);
    assert_eq!(app.names(), ["mine", "shop-web-1", "shop-web-2"]);
    assert_eq!((&app.pids()[0], &app.pids()[1]), (&first[0], &first[2]));
    assert_eq!(app.ok(&["down"]), "shop-web-1\nshop-web-2\n");
    assert_eq!(app.pids(), first[..1]);
}

#[test]
fn one_service_waits_for_another_to_be_ready_and_goes_before_it() {
    let host = Host::with_busybox();
    let app = App::new(
        &host,
        "name = \"shop\"\n[services.web]\nimage = \"busybox\"\nafter = [\"db:ready\"]\n\
         command = \"sh -c 'trap \\\"touch /times/web; exit\\\" TERM; cat /times/ready; sleep 1000 & wait'\"\n\
         volumes = [\"times:/times\"]\n\
         [services.db]\nimage = \"busybox\"\nvolumes = [\"times:/times\"]\n\
         readiness = \"interval=100ms exec:test -e /times/ready\"\n\
         command = \"sh -c 'trap \\\"test -e /times/web && touch /times/last; exit\\\" TERM; sleep 0.3; echo set > /times/ready; sleep 1000 & wait'\"\n",
    );
    app.ok(&["up"]);
    assert_eq!(host.ok(&["logs", "shop-web-1"]), "set");
    assert_eq!(host.inspect("shop-db-1")["status"]["health"], "ready");
    app.ok(&["down"]);
    let look = ["run", "--rm", "-v", "shop-times:/t", "busybox", "ls", "/t"];
    assert_eq!(host.ok(&look), "last\nready\nweb");
}

#[test]
fn volumes_outlive_an_app_unless_they_are_to_go() {
    let host = Host::with_busybox();
    let app = App::new(
        &host,
        &format!(
            "name = \"shop\"\n[volumes.old]\nexternal = true\n[services.db]\n{RUNS}\
             volumes = [\"data:/data\", \"old:/old\"]\n"
        ),
    );
    host.ok(&["volume", "create", "old"]);
    assert!(app.ok(&["up"]).starts_with("+ volume shop-data   create\n"));
    host.ok(&["exec", "shop-db-1", "touch", "/data/kept", "/old/kept"]);
    app.ok(&["down"]);
    assert!(app.ok(&["up"]).starts_with("+ shop-db-1"));
    host.ok(&["exec", "shop-db-1", "test", "-e", "/data/kept"]);
    assert_eq!(app.ok(&["down", "--volumes"]), "shop-db-1\nshop-data\n");
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "old");
    assert_eq!(app.ok(&["down", "--volumes"]), "");
}

#[test]
fn a_service_that_does_not_come_up_fails_with_the_reason() {
    let host = Host::with_busybox();
    let app = App::new(
        &host,
        &format!(
            "name = \"shop\"\n[services.db]\n{RUNS}[services.web]\nimage = \"busybox\"\n\
             command = [\"sh\", \"-c\", \"echo no such table; exit 3\"]\nafter = [\"db\"]\n"
        ),
    );
    let (error, code) = app.fails(&["up"]);
    assert_eq!(code, 1, "{error}");
    for part in [
        "shop-web-1 did not come up",
        "exit code 3",
        "| no such table",
        "dyno why shop-web-1",
    ] {
        assert!(error.contains(part), "{error}");
    }
    host.until_phase("shop-db-1", "running");

    let never = format!("name = \"shop\"\n[services.web]\n{RUNS}readiness = \"tcp://:80\"\n");
    app.write("dyno.toml", &never);
    let (error, code) = app.fails(&["up", "--timeout", "1s"]);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("shop-web-1 is not up in time"), "{error}");

    // A job that has done its work is no failure, nor is a program that is not there a job.
    app.write(
        "dyno.toml",
        "name = \"shop\"\n[services.web]\nimage = \"busybox\"\ncommand = \"true\"",
    );
    app.ok(&["up"]);
    app.write(
        "dyno.toml",
        "name = \"shop\"\n[services.web]\nimage = \"busybox\"\ncommand = \"/none\"",
    );
    let (error, code) = app.fails(&["up"]);
    assert_eq!(code, 3, "{error}");
    assert!(error.starts_with("error: shop-web-1: "), "{error}");
}

#[test]
fn what_a_file_cannot_say_is_refused_before_anything_is_done() {
    let host = Host::with_busybox();
    let app = App::new(
        &host,
        &format!("[services.web]\n{RUNS}memroy = 1\n[volume.x]\n"),
    );
    for words in [&["up"][..], &["plan"], &["down"]] {
        let (error, code) = app.fails(words);
        assert_eq!(code, 2, "{error}");
        for part in [
            "services.web.memroy: not supported (dyno.toml:4:1)",
            "volume: not supported (dyno.toml:5:",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert!(app.pids().is_empty());
    std::fs::remove_file(app.folder.join("dyno.toml")).unwrap();
    let (error, _) = app.fails(&["up"]);
    assert!(error.contains("there is no dyno.toml"), "{error}");

    host.ok(&[
        "run",
        "-d",
        "--name",
        "shop-web-1",
        "busybox",
        "sleep",
        "1000",
    ]);
    app.write(
        "dyno.toml",
        &format!("name = \"shop\"\n[services.web]\n{RUNS}"),
    );
    let (error, code) = app.fails(&["up"]);
    assert_eq!(code, 4, "{error}");
    assert!(error.contains("is not of the app shop"), "{error}");
}

#[test]
fn files_and_variables_are_seen_from_the_apps_folder() {
    let host = Host::with_busybox();
    let app = App::new(
        &host,
        &format!(
            "name = \"shop\"\n[services.web]\n{RUNS}env_file = \"web.env\"\nenv = {{ B = \"3\" }}\n\
             config_files = [\"app.conf:/etc/app.conf\"]\nvolumes = [\"./data:/data:ro\"]\n"
        ),
    );
    app.write("web.env", "A=1\nB=2\n");
    app.write("app.conf", "port 80\n");
    std::fs::create_dir(app.folder.join("data")).unwrap();
    app.write("data/x", "x");
    let file = app.folder.join("dyno.toml");
    let elsewhere = ["up", "-f", &file.to_string_lossy()];
    host.ok(&elsewhere);
    let script = "echo $A $B; cat /etc/app.conf /data/x";
    assert_eq!(
        host.ok(&["exec", "shop-web-1", "sh", "-c", script]),
        "1 3\nport 80\nx"
    );
    assert!(host.ok(&elsewhere).ends_with("1 unchanged"));
    app.write("app.conf", "port 81\n");
    assert!(host.ok(&elsewhere).contains("config_files: "));
    assert_eq!(
        host.ok(&["exec", "shop-web-1", "cat", "/etc/app.conf"]),
        "port 81"
    );
}

#[test]
fn the_example_runs() {
    let host = Host::start();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/clock/dyno.toml");
    let told = host.ok(&["up", "-f", file]);
    assert!(told.ends_with("app clock: 3 to create"), "{told}");
    until("a reader tells the time", || {
        host.ok(&["logs", "clock-reader-2"]).contains("it is ")
    });
    let gone = host.ok(&["down", "-f", file, "--volumes"]);
    let expected = "clock-reader-1\nclock-reader-2\nclock-clock-1\nclock-time";
    assert_eq!(gone, expected);
}
