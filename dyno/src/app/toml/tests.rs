use dyno_api::dyno::{DynoSpec, Mount, RestartPolicy, Until};
use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<App, Failure> {
    super::read(text, "dyno.toml".to_owned(), Path::new("/srv/My_Shop"))
}

fn refused(text: &str) -> String {
    let mut told = Vec::new();
    read(text).unwrap_err().render(&mut told).unwrap();
    String::from_utf8(told).unwrap()
}

fn spec(keys: &str) -> DynoSpec {
    let app = read(&format!(
        "name = \"shop\"\n[services.web]\nimage = \"host\"\n{keys}"
    ))
    .unwrap();
    app.wanted().remove(0).spec
}

#[test]
fn the_least_is_an_image_and_the_folders_name() {
    let app = read("[services.web]\nimage = \"host\"").unwrap();
    assert_eq!(app.name.as_str(), "my-shop");
    let wanted = app.wanted();
    assert_eq!(wanted[0].name.as_str(), "my-shop-web-1");
    assert_eq!((wanted.len(), wanted[0].spec.image.as_str()), (1, "host"));
}

#[test]
fn a_key_means_what_the_flag_of_run_means() {
    let made = spec(
        r#"
        entrypoint = []
        command = "sh -c 'echo $A'"
        env = { A = "1", B = 2, C = true }
        labels = { tier = "web" }
        ports = ["8080:80", 53]
        volumes = ["data:/data:ro", "./x:/x"]
        tmpfs = ["/t:size=1M"]
        memory = "64M"
        cpu = 0.5
        pids = 32
        restart = "on-failure:3"
        readiness = "interval=1s tcp://:80"
        start_timeout = "90s"
        stop_grace = "1m"
        net = "default"
        ulimits = ["nofile=1024:2048"]
        disk = "2G"
        cap_add = ["NET_ADMIN"]
        secrets = ["db:mode=0440"]
        secret_env = { PASSWORD = "db" }
        log_mode = "drop"
        read_only = true
        init = true
        "#,
    );
    assert_eq!(made.entrypoint, Some(Vec::new()));
    assert_eq!(made.command, ["sh", "-c", "echo $A"]);
    assert_eq!(
        (&*made.env["A"], &*made.env["B"], &*made.env["C"]),
        ("1", "2", "true")
    );
    let ports: Vec<_> = made
        .ports
        .iter()
        .map(|p| (p.host_port, p.dyno_port))
        .collect();
    assert_eq!(ports, [(Some(8080), 80), (None, 53)]);
    let [
        Mount::Volume {
            name,
            read_only: true,
            ..
        },
        Mount::Bind { source, .. },
        Mount::Tmpfs {
            size_bytes: Some(1_048_576),
            ..
        },
    ] = &made.mounts[..]
    else {
        panic!("{:?}", made.mounts);
    };
    assert_eq!(
        (name.as_str(), source.as_str()),
        ("shop-data", "/srv/My_Shop/x")
    );
    assert_eq!(made.limits.memory_bytes, Some(64 << 20));
    assert_eq!(made.limits.disk_bytes, Some(2 << 30));
    assert_eq!(
        (made.limits.cpu_millis, made.limits.pids),
        (Some(500), Some(32))
    );
    let retries = RestartPolicy::OnFailure {
        max_retries: Some(3),
    };
    assert_eq!(made.restart, retries);
    assert_eq!(made.health.readiness.unwrap().interval_ms, Some(1000));
    assert_eq!(made.health.start_timeout_ms, Some(90_000));
    assert_eq!(made.stop_grace_ms, Some(60_000));
    assert_eq!(made.secrets[0].mode, Some(0o440));
    assert_eq!(made.secret_env["PASSWORD"].as_str(), "db");
    assert!(made.read_only && made.init && made.ulimits.contains_key("nofile"));
}

#[test]
fn copies_come_after_all_copies_of_what_their_service_comes_after() {
    let app = read(
        "name = \"shop\"\n[services.web]\nimage = \"host\"\ncount = 2\nafter = [\"db:ready\"]\n\
         [services.db]\nimage = \"host\"\ncount = 2\n[services.off]\nimage = \"host\"\ncount = 0",
    )
    .unwrap();
    let wanted = app.wanted();
    let names: Vec<_> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
    assert_eq!(
        names,
        ["shop-db-1", "shop-db-2", "shop-web-1", "shop-web-2"]
    );
    let after = &wanted[3].spec.after;
    let after: Vec<_> = after
        .iter()
        .map(|after| (after.name.as_str(), after.until))
        .collect();
    assert_eq!(
        after,
        [("shop-db-1", Until::Ready), ("shop-db-2", Until::Ready)]
    );
}

#[test]
fn a_volume_says_what_is_done_before_and_after_a_copy() {
    let app = read(
        "name = \"shop\"\n[volumes.data]\nbefore_backup = \"sh -c 'sync; true'\"\n\
         after_backup = [\"rm\", \"/tmp/x y\"]\nbackup_timeout = \"5s\"\n\
         [services.web]\nimage = \"host\"\nvolumes = [\"data:/d\"]",
    )
    .unwrap();
    let backup = &app.volumes[0].backup;
    assert_eq!(backup.before, ["sh", "-c", "sync; true"]);
    assert_eq!(backup.after, ["rm", "/tmp/x y"]);
    assert_eq!(backup.timeout_ms, Some(5000));
}

#[test]
fn volumes_have_names_of_their_own_and_maybe_limits() {
    let app = read(
        "name = \"shop\"\n[volumes.data]\nquota = \"1G\"\n[volumes.old]\nexternal = true\n\
         [services.web]\nimage = \"host\"\nvolumes = [\"data:/d\", \"old:/o\", \"new:/n\"]",
    )
    .unwrap();
    let volumes: Vec<_> = app
        .volumes
        .iter()
        .map(|volume| (volume.name.as_str(), volume.external, volume.quota.bytes))
        .collect();
    let expected = [
        ("shop-data", false, Some(1 << 30)),
        ("shop-new", false, None),
        ("old", true, None),
    ];
    assert_eq!(volumes, expected);
}

#[test]
fn all_that_is_wrong_is_told_with_its_place() {
    let told = refused(
        "name = \"shop\"\nnmae = 1\n[services.web]\nimage = \"host\"\nmemroy = \"64M\"\n\
         ports = [\"80\", \"x\"]\nafter = [\"db\"]\n[services.Bad]\nimage = 1\ncpu = \"half\"\n",
    );
    for line in [
        "nmae: not supported (dyno.toml:2:1)",
        "services.web.memroy: not supported (dyno.toml:5:1)",
        "services.web.ports[1]: \"x\": \"x\" is not a port; accepted are 1 to 65535 (dyno.toml:6:16)",
        "services.web: it comes after db, and there is no such service (dyno.toml:3:1)",
        "services.Bad: 'B' is not allowed in a name; use a-z, 0-9 and - (dyno.toml:8:1)",
        "services.Bad.cpu: \"half\": not a number of CPUs",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    let twice = refused("name = \"a\"\nname = \"b\"\n");
    assert!(twice.contains("duplicate key (dyno.toml:2:1)"), "{twice}");
    let circle = refused(
        "[services.a]\nimage = \"host\"\nafter = [\"b\"]\n[services.b]\nimage = \"host\"\nafter = [\"a\"]",
    );
    assert!(circle.contains("it would come after itself"), "{circle}");
    for text in [
        "",
        "services = 1",
        "[services.web]\n",
        "[[services.web]]\n",
        "name = \"../x\"",
    ] {
        assert!(refused(text).starts_with("error: "), "{text:?}");
    }
    let many = refused("[services.a]\nimage = \"host\"\ncount = 101");
    assert!(many.contains("from 0 to 100 (dyno.toml:3:9)"), "{many}");
    let cursor = refused("[services.web]\nimage = \"host\"\n\"\\u001b[2J\" = 1");
    assert!(!cursor.contains('\x1b'), "{cursor:?}");
}

#[test]
fn what_is_nested_without_end_is_refused() {
    refused(&format!(
        "a = {}{}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    ));
    let dotted = vec!["a"; 100_000].join(".");
    refused(&format!("{dotted} = 1"));
}

proptest! {
    #[test]
    fn any_text_is_an_app_or_refused(text in ".{0,200}") {
        read(&text).ok();
    }

    #[test]
    fn any_keys_are_a_service_or_refused(
        lines in prop::collection::vec(
            "(image|command|env|ports|volumes|count|after|memory|readiness|secrets|tmpfs|labels) = \
             (1|-1|0\\.5|true|\"[a-z:/=,0-9']{0,9}\"|\\[\\]|\\[\"[a-z:/=,0-9]{0,9}\"\\]|\\{ a = 1 \\})",
            0..6,
        ),
    ) {
        let text = format!("[services.web]\n{}", lines.join("\n"));
        read(&text).ok();
    }
}
