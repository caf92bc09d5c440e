use std::net::{IpAddr, Ipv4Addr};

use dyno_api::dyno::{DynoSpec, LogMode, Mount, NetMode, Protocol, RestartPolicy, Until};
use dyno_api::health::Probe;
use proptest::prelude::*;

use super::*;

mod given;

/// A folder with files beside a compose file.
struct Beside(tempfile::TempDir);

impl Beside {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            use std::io::Write as _;
            let mut file = std::fs::File::create(folder.path().join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        Self(folder)
    }

    fn read(&self, text: &str) -> Result<Read, Failure> {
        let own = |name: &str| match name {
            "OWN" => Some("mine".to_owned()),
            "BOTH" => Some("environment".to_owned()),
            "HOME" => Some("/home/ada".to_owned()),
            _ => None,
        };
        super::read(text, "compose.yaml".to_owned(), self.0.path(), &own)
    }

    fn app(&self, text: &str) -> App {
        self.read(text).unwrap().app
    }

    /// The first dyno of an app with one service, of these keys.
    fn spec(&self, keys: &str) -> DynoSpec {
        let text = "name: shop\nvolumes: {data: }\nservices:\n  web:\n    image: host\n";
        let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
        self.app(&format!("{text}{keys}")).wanted().remove(0).spec
    }
}

fn spec(keys: &str) -> DynoSpec {
    Beside::new(&[]).spec(keys)
}

fn told(failure: &Failure) -> String {
    let mut told = Vec::new();
    failure.render(&mut told).unwrap();
    String::from_utf8(told).unwrap()
}

fn refused(text: &str) -> String {
    told(&Beside::new(&[]).read(text).unwrap_err())
}

/// The refusal of a service with these keys.
fn service_refused(keys: &str) -> String {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    refused(&format!(
        "name: shop\nservices:\n  web:\n    image: host\n{keys}"
    ))
}

#[test]
fn a_process_is_what_its_keys_say() {
    let made = spec(
        r#"
command: sh -c 'echo "$$A"'
entrypoint: ["/entry", "-x"]
user: 1000:1000
working_dir: /w
hostname: h
tty: true
stdin_open: true
read_only: true
init: true
restart: unless-stopped
stop_signal: SIGINT
stop_grace_period: 1m30s
network_mode: none
labels: {tier: front, empty: }
shm_size: 128m
storage_opt: {size: 2G}
platform: linux/amd64
cap_add: [NET_ADMIN]
cap_drop: [ALL]
devices: ["/dev/fuse:/dev/fuse:rwm"]
ulimits: {nproc: 100, nofile: {soft: 10, hard: 20}}
logging: {driver: json-file, options: {max-size: 1m, max-file: "3", mode: non-blocking}}
privileged: false
security_opt: ["no-new-privileges:true"]
expose: ["80"]
x-mine: [1]
"#,
    );
    assert_eq!(made.command, ["sh", "-c", "echo \"$A\""]);
    assert_eq!(made.entrypoint.unwrap(), ["/entry", "-x"]);
    let texts = [made.user, made.workdir, made.hostname, made.stop_signal];
    let texts = texts.map(Option::unwrap);
    assert_eq!(texts, ["1000:1000", "/w", "h", "SIGINT"]);
    assert_eq!(made.limits.disk_bytes, Some(2 << 30));
    assert!(made.tty && made.stdin && made.read_only && made.init);
    assert_eq!(made.restart, RestartPolicy::Always);
    assert_eq!(made.stop_grace_ms, Some(90_000));
    assert_eq!(made.net, NetMode::None);
    assert_eq!(
        (&*made.labels["tier"], &*made.labels["empty"]),
        ("front", "")
    );
    assert_eq!(made.shm_size_bytes, Some(128 << 20));
    assert_eq!(made.platform.as_deref(), Some("linux/amd64"));
    assert_eq!(made.security.cap_add, ["NET_ADMIN"]);
    assert_eq!(made.security.cap_drop, ["ALL"]);
    assert_eq!(made.devices[0].access.as_deref(), Some("rwm"));
    assert_eq!(
        (made.ulimits["nproc"].hard, made.ulimits["nofile"].soft),
        (100, 10)
    );
    assert_eq!(made.log.max_bytes, Some(1 << 20));
    assert_eq!(
        (made.log.max_files, made.log.mode),
        (Some(3), LogMode::Drop)
    );

    let made = spec("labels: [a=b=c, d]\nrestart: no\n");
    assert_eq!((&*made.labels["a"], &*made.labels["d"]), ("b=c", ""));
    assert_eq!(made.restart, RestartPolicy::No);
    let made = spec("restart: on-failure:3\ncommand: [a, b c]\nentrypoint: []");
    let retries = RestartPolicy::OnFailure {
        max_retries: Some(3),
    };
    assert_eq!((made.restart, made.entrypoint), (retries, Some(Vec::new())));
    assert_eq!(made.command, ["a", "b c"]);
}

#[test]
fn limits_and_copies_are_said_here_or_there() {
    let limits = spec("mem_limit: 64m\ncpus: 0.5\npids_limit: 32").limits;
    assert_eq!(
        (limits.memory_bytes, limits.cpu_millis, limits.pids),
        (Some(64 << 20), Some(500), Some(32))
    );
    let deployed =
        "deploy: {mode: replicated, resources: {limits: {memory: 64m, cpus: '0.5', pids: 32}}}";
    assert_eq!(spec(deployed).limits, limits);
    assert_eq!(spec(&format!("mem_limit: 64m\n{deployed}")).limits, limits);
    let error = service_refused(&format!("mem_limit: 65m\n{deployed}"));
    assert!(
        error.contains("deploy: memory: the service itself says otherwise (compose.yaml:6:"),
        "{error}"
    );
    for keys in [
        "scale: 3",
        "deploy: {replicas: 3}",
        "scale: 3\ndeploy: {replicas: 3}",
    ] {
        let app = Beside::new(&[]).app(&format!(
            "services:\n  web:\n    image: host\n    {}",
            keys.replace('\n', "\n    ")
        ));
        assert_eq!(app.wanted().len(), 3, "{keys}");
    }
}

#[test]
fn ports_are_short_or_long() {
    let made = spec(
        "ports:\n- 22:22\n- 80\n- \"127.0.0.1:8080:81/udp\"\n- 90-91:82-83\n\
         - {target: 84, published: \"8084\", host_ip: \"::1\", protocol: udp, mode: host, name: x}\n- target: 85\n",
    );
    let ports: Vec<_> = made
        .ports
        .iter()
        .map(|p| (p.host_port, p.dyno_port))
        .collect();
    let expected = [
        (Some(22), 22),
        (None, 80),
        (Some(8080), 81),
        (Some(90), 82),
        (Some(91), 83),
        (Some(8084), 84),
        (None, 85),
    ];
    assert_eq!(ports, expected);
    assert_eq!(made.ports[2].address, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    assert_eq!(
        (made.ports[2].protocol, made.ports[5].protocol),
        (Protocol::Udp, Protocol::Udp)
    );
    assert!(made.ports[5].address.unwrap().is_ipv6());
}

#[test]
fn mounts_are_short_or_long() {
    let beside = Beside::new(&[]);
    let made = beside.spec(
        "volumes:\n- data:/a:ro\n- ./x:/b\n- ~/y:/c:z\n- {type: volume, source: data, target: /d, volume: {nocopy: true}}\n\
         - {type: bind, source: x, target: /e, read_only: true, bind: {create_host_path: false}}\n\
         - {type: tmpfs, target: /f, tmpfs: {size: 1m}}\ntmpfs: /g\n",
    );
    let folder = beside.0.path().display().to_string();
    let shown = |mount: &Mount| match mount {
        Mount::Volume {
            name,
            target,
            read_only,
        } => format!("{name} {target} {read_only}"),
        Mount::Bind {
            source,
            target,
            read_only,
        } => format!("{} {target} {read_only}", source.replace(&folder, "HERE")),
        Mount::Tmpfs { target, size_bytes } => format!("{target} {size_bytes:?}"),
    };
    let shown: Vec<_> = made.mounts.iter().map(shown).collect();
    let expected = [
        "shop-data /a true",
        "HERE/x /b false",
        "/home/ada/y /c false",
        "shop-data /d false",
        "HERE/x /e true",
        "/f Some(1048576)",
        "/g None",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn volumes_are_the_apps_or_others() {
    let app = Beside::new(&[]).app(
        "name: shop\nvolumes:\n  Db_data:\n    driver: local\n    labels: {a: b}\n  old: {external: true}\n\
         \x20 new: {name: other}\n  far: {external: true, name: near}\nservices: {}\n",
    );
    let volumes = app
        .volumes
        .iter()
        .map(|volume| (volume.name.as_str(), volume.external));
    let expected = [
        ("shop-db-data", false),
        ("near", true),
        ("other", false),
        ("old", true),
    ];
    assert_eq!(volumes.collect::<Vec<_>>(), expected);
    let error = refused("name: shop\nvolumes: {a_b: , a-b: }\nservices: {}\n");
    assert!(
        error.contains("it is shop-a-b on the host, as a_b is (compose.yaml:2:"),
        "{error}"
    );
}

#[test]
fn a_healthcheck_is_a_readiness_check() {
    let command = |keys: &str| {
        let check = spec(keys).health.readiness.unwrap();
        let Probe::Command { command } = check.probe.clone() else {
            panic!("{check:?}");
        };
        (command.join(" "), check)
    };
    let (line, check) = command(
        "healthcheck: {test: [CMD, a, b], interval: 1m30s, timeout: 2s, retries: 5, start_period: 1m}",
    );
    assert_eq!(line, "a b");
    assert_eq!(
        (check.interval_ms, check.timeout_ms, check.failures),
        (Some(90_000), Some(2000), Some(5))
    );
    let (line, check) = command("healthcheck: {test: a || b}");
    assert_eq!(
        (&*line, check.interval_ms),
        ("/bin/sh -c a || b", Some(30_000))
    );
    assert_eq!(command("healthcheck: {test: [CMD-SHELL, a || b]}").0, line);
    for keys in [
        "{test: [NONE]}",
        "{disable: true}",
        "{disable: true, test: [CMD, a]}",
    ] {
        let health = spec(&format!("healthcheck: {keys}")).health;
        assert!(health.readiness.is_none() && health.ignore_image, "{keys}");
    }
    for keys in [
        "{}",
        "{test: []}",
        "{test: [CMD]}",
        "{test: [a, b]}",
        "{test: a, retries: 0}",
        "{test: a, interval: x}",
    ] {
        let error = service_refused(&format!("healthcheck: {keys}"));
        assert!(
            error.contains("services.web.healthcheck"),
            "{keys}: {error}"
        );
    }
}

#[test]
fn services_come_after_others() {
    let app = |depends: &str| {
        Beside::new(&[]).app(&format!(
            "name: s\nservices:\n  web: {{image: host, depends_on: {depends}}}\n  db: {{image: host, scale: 2}}\n",
        ))
    };
    for (depends, until) in [
        ("[db]", Until::Started),
        ("{db: {condition: service_started}}", Until::Started),
        (
            "{db: {condition: service_healthy, required: true, restart: false}}",
            Until::Ready,
        ),
    ] {
        let wanted = app(depends).wanted().remove(2).spec;
        let after: Vec<_> = wanted
            .after
            .iter()
            .map(|a| (a.name.as_str(), a.until))
            .collect();
        assert_eq!(after, [("s-db-1", until), ("s-db-2", until)], "{depends}");
    }
    let error = service_refused("depends_on: {db: {condition: service_completed_successfully}}");
    assert!(
        error.contains("service_started or service_healthy is expected"),
        "{error}"
    );
    let error = service_refused("depends_on: [db]");
    assert!(
        error.contains("it comes after db, and there is no such service"),
        "{error}"
    );
}

#[test]
fn every_key_that_is_not_read_is_named_at_once() {
    let error = refused(
        "version: '3'\nnetworks: {a: }\nservices:\n  web:\n    build: .\n    image: host\n    privileged: true\n    oom_kill_disable: true\n    \
         networks: [a]\n    container_name: x\n    healthcheck: {test: a, start_interval: 1s}\n    deploy: {placement: {}, resources: {reservations: {}}}\n    \
         volumes: [\"/anonymous\", \"none:/x\", {type: volume, source: s, target: /y, volume: {subpath: a}}]\n  db: {extends: web}\ninclude: [x]\n",
    );
    for line in [
        "networks: not supported (compose.yaml:2:1)",
        "services.web.build: not supported (compose.yaml:5:5)",
        "services.web.privileged: \"true\" is not supported; accepted is false (compose.yaml:7:17)",
        "services.web.oom_kill_disable: \"true\" is not supported; accepted is false (compose.yaml:8:23)",
        "services.web.networks: not supported (compose.yaml:9:5)",
        "services.web.container_name: not supported (compose.yaml:10:5)",
        "services.web.healthcheck.start_interval: not supported (compose.yaml:11:28)",
        "services.web.deploy.placement: not supported (compose.yaml:12:14)",
        "services.web.deploy.resources.reservations: not supported (compose.yaml:12:41)",
        "services.web.volumes[0]: \"/anonymous\": a volume without a name is not supported: write name:/anonymous (compose.yaml:13:15)",
        "services.web.volumes[1]: there is no volume \"none\"; name it below `volumes` (compose.yaml:13:29)",
        "services.web.volumes[2].volume.subpath: not supported (compose.yaml:13:",
        "services.db: image: it is missing; nothing is built here (compose.yaml:14:7)",
        "services.db.extends: not supported (compose.yaml:14:8)",
        "include: not supported (compose.yaml:15:1)",
    ] {
        assert!(error.contains(line), "{line}\n{error}");
    }
    assert!(error.contains("try: docs/up.md"), "{error}");
    for (text, expected) in [
        ("", "a table is expected, not nothing (compose.yaml:1:1)"),
        ("- a", "a table is expected, not a list (compose.yaml:1:1)"),
        ("name: shop", "services: there is none (compose.yaml:1:1)"),
        (
            "name: My_Shop\nservices: {}",
            "'M' is not allowed in a name",
        ),
        (
            "services: {my_web: {image: host}}",
            "services.my_web: '_' is not allowed in a name",
        ),
        (
            "services: {web: }",
            "services.web: a table is expected, not nothing",
        ),
        (
            "services: {web: {image: host, command: []}}",
            "services.web.command: an empty command",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains(" is refused:"), "{text}: {error}");
    }
}

#[test]
fn so_many_things_that_are_wrong_are_told_in_short() {
    let wrong = "  - $\n".repeat(90_000);
    let error = refused(&format!("services:\n  web: # comment\n{}", wrong));
    assert!(
        error.ends_with("and 89951 more\n  try: docs/up.md lists what such a file can say\n"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_text_is_an_app_or_refused(text in "\\PC{0,100}") {
        Beside::new(&[]).read(&text).ok();
    }

    #[test]
    fn any_keys_are_a_service_or_refused(
        lines in prop::collection::vec(
            "(image|command|entrypoint|environment|env_file|ports|volumes|tmpfs|scale|depends_on|deploy|mem_limit|cpus|healthcheck|\
             secrets|configs|labels|ulimits|logging|restart|expose|network_mode|security_opt): \
             (1|-1|0\\.5|true|~|\"[a-z:/=,0-9'$\\{\\}-]{0,9}\"|\\[\\]|\\[\"[a-z:/=,0-9-]{0,9}\"\\]|\\{ [a-z]{1,6}: 1 \\}|\
             \\{ (type|target|source|test|limits|path): (volume|bind|tmpfs|/a|a|\\[CMD, a\\]|\\{\\}) \\}|\
             \\[\\{ (type|target|source|path): (volume|bind|tmpfs|/a|a|80) \\}\\])",
            0..6,
        ),
    ) {
        let text = format!("services:\n  web:\n    {}\n", lines.join("\n    "));
        Beside::new(&[]).read(&text).ok();
    }
}
