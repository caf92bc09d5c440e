use serde_json::json;

use super::*;
use crate::app::{compose, toml};

fn app(text: &str) -> App {
    toml::read(text, "dyno.toml".to_owned(), std::path::Path::new("/w")).unwrap()
}

/// The dynos of an app as they are once it was brought up.
fn brought_up(app: &App) -> Vec<Dyno> {
    let dynos = app.wanted().into_iter().map(|wanted| {
        serde_json::from_value(json!({
            "id": "0123456789ab", "name": wanted.name, "created": "2026-01-01T00:00:00Z",
            "spec": wanted.spec,
            "status": {
                "phase": "running", "pid": 1, "monitor_pid": 2, "ipv4": null, "ipv6": null,
                "ports": [], "started": null, "exit": null, "restarts": 0, "reason": null,
            },
        }))
        .unwrap()
    });
    dynos.collect()
}

fn planned(app: &App, there: &There) -> Plan {
    let all = app.with_those_before(&[]).unwrap();
    plan(app, there, &all, true).unwrap()
}

/// `web-1 create`, …
fn steps(plan: &Plan) -> Vec<String> {
    let step = |step: &Step| {
        let action = serde_json::to_value(step.action).unwrap();
        format!("{} {}", step.name, action.as_str().unwrap())
    };
    plan.dynos.iter().map(step).collect()
}

const SHOP: &str = r#"
    name = "shop"
    [services.web]
    image = "host"
    count = 2
    env = { LEVEL = "info" }
    after = ["db:ready"]
    [services.db]
    image = "host"
    volumes = ["data:/data"]
"#;

#[test]
fn nothing_there_is_all_to_make_in_order_and_then_nothing_is_to_do() {
    let app = app(SHOP);
    let plan = planned(&app, &There::default());
    let expected = ["shop-db-1 create", "shop-web-1 create", "shop-web-2 create"];
    assert_eq!(steps(&plan), expected);
    assert_eq!(plan.volumes, ["shop-data".parse().unwrap()]);
    let web = plan.dynos[1].spec.as_ref().unwrap();
    assert_eq!(web.after[0].to_string(), "shop-db-1:ready");

    let there = There {
        dynos: brought_up(&app),
        volumes: ["shop-data".parse().unwrap()].into(),
        ..There::default()
    };
    let plan = planned(&app, &there);
    let expected = ["shop-db-1 keep", "shop-web-1 keep", "shop-web-2 keep"];
    assert_eq!(
        (steps(&plan), plan.volumes),
        (expected.map(str::to_owned).to_vec(), vec![])
    );
}

#[test]
fn a_secret_that_the_app_brings_along_is_set_where_it_is_not_there() {
    let text = "name: shop\nsecrets: {db: {environment: DB}, old: {external: true}}\n\
                services: {web: {image: host, secrets: [db, old]}}";
    let own = |name: &str| (name == "DB").then(|| "s3cret".to_owned());
    let folder = std::path::Path::new("/none");
    let app = compose::read(text, "compose.yaml".to_owned(), folder, &own);
    let app = app.unwrap().app;
    let plan = planned(&app, &There::default());
    assert_eq!(plan.secrets, ["shop-db".parse().unwrap()]);
    let told = plan.to_string();
    assert!(
        told.starts_with("+ secret shop-db   set\n+ shop-web-1"),
        "{told}"
    );
    let there = There {
        secrets: ["shop-db".parse().unwrap()].into(),
        ..There::default()
    };
    assert!(planned(&app, &there).secrets.is_empty());
}

#[test]
fn what_differs_is_replaced_and_its_fields_are_told() {
    let there = There {
        dynos: brought_up(&app(SHOP)),
        ..There::default()
    };
    let other = SHOP
        .replace("info", "debug")
        .replace("count = 2", "count = 1\nmemory = \"64M\"");
    let plan = planned(&app(&other), &there);
    let expected = ["shop-web-2 remove", "shop-db-1 keep", "shop-web-1 replace"];
    assert_eq!(steps(&plan), expected);
    let told = plan.to_string();
    let expected = "\
+ volume shop-data   create
- shop-web-2   remove
= shop-db-1    unchanged
~ shop-web-1   replace
    env.LEVEL: \"info\" → \"debug\"
    limits.memory_bytes: nothing → 67108864
app shop: 1 to replace, 1 to remove, 1 unchanged";
    assert_eq!(told, expected);
}

#[test]
fn what_does_not_run_is_started_and_what_is_gone_from_the_file_goes() {
    let mut there = There {
        dynos: brought_up(&app(SHOP)),
        ..There::default()
    };
    there.dynos[0].status.phase = Phase::Exited;
    there.dynos[1].status.phase = Phase::Backoff;
    let only_db = "name = \"shop\"\n[services.db]\nimage = \"host\"\nvolumes = [\"data:/data\"]";
    let plan = planned(&app(only_db), &there);
    let expected = ["shop-web-2 remove", "shop-web-1 remove", "shop-db-1 start"];
    assert_eq!(steps(&plan), expected);
}

#[test]
fn a_named_service_comes_with_those_before_it_and_nobody_else_is_touched() {
    let app = app(&format!("{SHOP}[services.job]\nimage = \"host\""));
    let web = ["web".parse().unwrap()];
    let chosen = app.with_those_before(&web).unwrap();
    let mut there = There {
        dynos: brought_up(&app),
        ..There::default()
    };
    for dyno in &mut there.dynos {
        dyno.spec.env.insert("OLD".to_owned(), "1".to_owned());
    }
    let plan = plan(&app, &there, &chosen, false).unwrap();
    let expected = [
        "shop-db-1 replace",
        "shop-web-1 replace",
        "shop-web-2 replace",
    ];
    assert_eq!(steps(&plan), expected);
    assert!(app.with_those_before(&["wep".parse().unwrap()]).is_err());
}

#[test]
fn a_tag_that_means_another_image_is_a_difference() {
    let app = app("name = \"shop\"\n[services.web]\nimage = \"web:1\"");
    let image = |digest: &str| {
        serde_json::from_value::<Image>(json!({
            "reference": "docker.io/library/web:1", "digest": digest,
            "platform": "linux/amd64", "size_bytes": 1, "layers": 1, "created": null,
        }))
        .unwrap()
    };
    let mut there = There {
        dynos: brought_up(&app),
        images: vec![image("sha256:1")],
        ..There::default()
    };
    let spec = &mut there.dynos[0].spec;
    resolve(spec, &[image("sha256:1")]);
    assert_eq!(steps(&planned(&app, &there)), ["shop-web-1 keep"]);
    there.images = vec![image("sha256:2")];
    let plan = planned(&app, &there);
    assert_eq!(steps(&plan), ["shop-web-1 replace"]);
    assert_eq!(plan.dynos[0].differences[0].field, "service.image_digest");
}

#[test]
fn the_name_of_somebody_elses_dyno_is_not_taken() {
    let app = app("name = \"shop\"\n[services.web]\nimage = \"host\"");
    let mut there = There {
        dynos: brought_up(&app),
        ..There::default()
    };
    for service in [None, Some("other")] {
        let app_of = |name: &str| dyno_api::dyno::Service {
            app: name.parse().unwrap(),
            name: "web".parse().unwrap(),
            image_digest: None,
        };
        there.dynos[0].spec.service = service.map(app_of);
        let all = app.with_those_before(&[]).unwrap();
        let taken = plan(&app, &there, &all, true).unwrap_err();
        assert_eq!(taken.name.as_str(), "shop-web-1");
    }
}
