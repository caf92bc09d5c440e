//! Apps that a compose file describes.

use std::time::{Duration, Instant};

use dyno_tests::host::{Host, http_get};
use dyno_tests::until;
use serde_json::{Value, json};

use super::App;

/// A database that is healthy after a moment, and a page that reads from it.
const SHOP: &str = r#"
name: shop
x-common: &common
  image: busybox
  restart: "no"
  stop_grace_period: 1s
services:
  web:
    <<: *common
    command: sh -c 'cp /data/ready /www/index.html && exec httpd -f -p 80 -h /www'
    depends_on: { db: { condition: service_healthy } }
    ports: ["127.0.0.1:8080:80"]
    volumes: ["data:/data:ro", "./www:/www"]
    environment: { LEVEL: "${LEVEL:-info}" }
  db:
    <<: *common
    command: ["sh", "-c", "sleep 0.3; cat /run/secrets/key > /data/ready; exec sleep 1000"]
    volumes: [data:/data]
    secrets: [key]
    mem_limit: 64m
    healthcheck: { test: test -e /data/ready, interval: 100ms }
volumes: { data: }
secrets: { key: { file: ./key.txt } }
"#;

#[test]
fn an_app_of_a_compose_file_comes_changes_and_goes() {
    let host = Host::with_busybox();
    let app = App::of_file(&host, "compose.yaml", SHOP);
    app.write("key.txt", "s3cret\n");
    std::fs::create_dir(app.folder.join("www")).unwrap();
    let plan = app.ok(&["plan"]);
    let expected = [
        "+ volume shop-data   create",
        "+ secret shop-key   set",
        "+ shop-db-1    create",
        "+ shop-web-1   create",
        "app shop: 2 to create",
    ];
    assert_eq!(plan.lines().collect::<Vec<_>>(), expected);
    assert_eq!(
        host.ok(&["secret", "ls", "-q"]),
        "",
        "a plan does something"
    );

    assert_eq!(app.ok(&["up"]), plan);
    let first = app.pids();
    // The database was healthy first, or there were nothing to read.
    let page = || http_get("127.0.0.1:8080".parse().unwrap(), "/").ok();
    until("the page has the secret", || {
        page().as_deref() == Some("s3cret\n")
    });
    let db = host.inspect("shop-db-1");
    assert_eq!(db["status"]["health"], "ready");
    assert_eq!(db["spec"]["limits"]["memory_bytes"], 64 << 20);
    let secrets = json!([{"name": "shop-key", "target": "key", "mode": 0o444}]);
    assert_eq!(db["spec"]["secrets"], secrets);

    let nothing = "= shop-db-1    unchanged\n= shop-web-1   unchanged\napp shop: 2 unchanged\n";
    assert_eq!(app.ok(&["plan"]), nothing);
    assert_eq!(app.ok(&["up"]), nothing);
    assert_eq!(app.pids(), first);

    app.write(".env", "LEVEL=debug\n");
    app.write("key.txt", "other\n");
    let told = app.ok(&["up"]);
    assert!(told.contains("env.LEVEL: \"info\" → \"debug\""), "{told}");
    let second = app.pids();
    assert!(second[0] == first[0] && second[1] != first[1], "{second:?}");
    // What a secret is counts from the next start on.
    host.ok(&["restart", "shop-db-1"]);
    until("the other secret is there", || {
        host.ok(&["exec", "shop-db-1", "cat", "/data/ready"]) == "other"
    });

    let gone = "shop-web-1\nshop-db-1\nshop-data\nshop-key\n";
    assert_eq!(app.ok(&["down", "--volumes"]), gone);
    assert!(app.pids().is_empty());
    assert_eq!(host.ok(&["secret", "ls", "-q"]), "");
    assert_eq!(app.ok(&["down", "--volumes"]), "");
}

#[test]
fn the_environment_goes_before_dotenv_and_dyno_toml_before_a_compose_file() {
    let host = Host::start();
    let text = "name: ${WHO:-nobody}\nservices:\n  web: {image: host, hostname: \"a$MISSING\"}\n";
    let app = App::of_file(&host, "docker-compose.yml", text);
    let plan = |who: Option<&str>| {
        let mut dyno = host.dyno(&["plan", "--json"]);
        let output = dyno
            .current_dir(&app.folder)
            .envs(who.map(|who| ("WHO", who)));
        let output = output.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (plan["app"].as_str().unwrap().to_owned(), said)
    };
    let missing = "note: MISSING is not set, and nothing is put in for it\n";
    assert_eq!(plan(None), ("nobody".to_owned(), missing.to_owned()));
    app.write(".env", "WHO=file\nMISSING=\n");
    assert_eq!(plan(None), ("file".to_owned(), String::new()));
    assert_eq!(plan(Some("mine")).0, "mine");
    app.write("compose.yaml", &text.replace("$MISSING", ""));
    let second = "note: compose.yaml is read, and not docker-compose.yml\n";
    assert_eq!(plan(None), ("file".to_owned(), second.to_owned()));
    app.write("compose.override.yaml", "services: {}\n");
    let (_, said) = plan(None);
    let both = "and not docker-compose.yml, compose.override.yaml\n";
    assert!(said.ends_with(both), "{said}");
    app.write(
        "dyno.toml",
        "name = \"ours\"\n[services.web]\nimage = \"host\"\n",
    );
    let second = "note: dyno.toml is read, and not compose.yaml, docker-compose.yml, compose.override.yaml\n";
    assert_eq!(plan(None), ("ours".to_owned(), second.to_owned()));
}

#[test]
fn what_a_compose_file_cannot_say_is_named_before_anything_is_done() {
    let host = Host::with_busybox();
    let text = "services:\n  web:\n    build: .\n    image: busybox\n    privileged: true\n    \
                networks: [front]\nnetworks:\n  front:\n";
    let app = App::of_file(&host, "compose.yml", text);
    for words in [&["up"][..], &["plan"], &["down"]] {
        let (error, code) = app.fails(words);
        assert_eq!(code, 2, "{error}");
        for part in [
            "compose.yml is refused:",
            "services.web.build: not supported (compose.yml:3:5)",
            "services.web.privileged: \"true\" is not supported; accepted is false (compose.yml:5:17)",
            "services.web.networks: not supported (compose.yml:6:5)",
            "networks: not supported (compose.yml:7:1)",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert!(app.pids().is_empty());

    let (error, code) = app.fails(&["up", "-f", "compose.json"]);
    assert!(code == 1 && error.contains("cannot read"), "{code} {error}");
    app.write("compose.json", "{}");
    let (error, code) = app.fails(&["up", "-f", "compose.json"]);
    assert!(
        code == 2 && error.contains("is no app's file"),
        "{code} {error}"
    );
}

#[test]
fn a_file_that_would_blow_up_is_refused_at_once() {
    let host = Host::start();
    let lines = (1..20).map(|line| {
        let above = vec![format!("*a{}", line - 1); 10].join(", ");
        format!("x-a{line}: &a{line} [{above}]\n")
    });
    let aliases = format!(
        "x-a0: &a0 ha\n{}services: {{}}\n",
        lines.collect::<String>()
    );
    let app = App::of_file(&host, "compose.yaml", &aliases);
    let begun = Instant::now();
    let (error, code) = app.fails(&["up"]);
    assert_eq!(code, 2, "{error}");
    assert!(
        error.contains("more than 100000 values") && error.contains("(compose.yaml:6:"),
        "{error}"
    );

    let lines = (1..60).map(|line| format!("A{line}=${{A{0}}}${{A{0}}}\n", line - 1));
    app.write(".env", &format!("A0=haha\n{}", lines.collect::<String>()));
    app.write("compose.yaml", "services: {}\n");
    let (error, code) = app.fails(&["up"]);
    assert_eq!(code, 2, "{error}");
    assert!(
        error.contains("bytes of variables and files are put in"),
        "{error}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn the_example_of_a_compose_file_runs() {
    let host = Host::start();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/compose/compose.yaml"
    );
    let told = host.ok(&["up", "-f", file]);
    assert!(told.ends_with("app watch: 3 to create"), "{told}");
    until("a reader tells the time", || {
        host.ok(&["logs", "watch-reader-2"]).contains("it is ")
    });
    let gone = host.ok(&["down", "-f", file, "--volumes"]);
    let expected = "watch-reader-1\nwatch-reader-2\nwatch-clock-1\nwatch-time";
    assert_eq!(gone, expected);
}
