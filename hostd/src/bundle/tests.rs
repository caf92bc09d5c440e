//! The bundle as JSON, because that is what the runtime reads.

use dyno_api::dyno::{DynoSpec, ExecRequest, IoLimits, Limits, Mount, NetMode, Ulimit};
use serde_json::{Value, json};

use dyno_images::ImageConfig;

use super::*;
use crate::admission::tests::{facts, paths};
use crate::desired::tests::record;

fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
    Identity {
        uid,
        gid,
        additional_gids: groups.to_vec(),
        home: Some(home.to_owned()),
        name: None,
    }
}

fn root() -> Identity {
    identity(0, 0, &[], "/root")
}

fn build_with(spec: DynoSpec, config: &ImageConfig, user: &Identity) -> Result<Value, BundleError> {
    let mut record = record(7);
    record.spec = spec;
    record.image.config = config.clone();
    let (facts, paths) = (facts(), paths());
    let devices = [DeviceNode {
        target: "/dev/fuse".into(),
        block: false,
        major: 10,
        minor: 229,
        access: "rw".into(),
    }];
    let built = build(&Inputs {
        record: &record,
        user,
        devices: &devices,
        idmapped: &["/srv".to_owned()],
        facts: &facts,
        paths: &paths,
        host: "0badcafe",
        unified: true,
    })?;
    Ok(serde_json::to_value(built).unwrap())
}

fn default_bundle() -> Value {
    build_with(DynoSpec::default(), &ImageConfig::default(), &root()).unwrap()
}

fn mount<'a>(bundle: &'a Value, target: &str) -> &'a Value {
    let mounts = bundle["mounts"].as_array().unwrap();
    mounts
        .iter()
        .find(|m| m["destination"] == target)
        .unwrap_or_else(|| panic!("no {target}: {mounts:?}"))
}

#[test]
fn the_root_is_an_overlay_of_the_layers_and_the_dynos_own() {
    let bundle = default_bundle();
    assert_eq!(
        bundle["mounts"][0],
        json!({"destination": "/", "type": "overlay", "source": "overlay", "options": [
            "lowerdir=/l/top:/l/bottom",
            "upperdir=/var/lib/dyno/dynos/070707070707/upper",
            "workdir=/var/lib/dyno/dynos/070707070707/work",
            "userxattr",
        ]})
    );
    assert_eq!(
        bundle["root"]["path"],
        "/run/dyno/dynos/070707070707/rootfs"
    );
}

#[test]
fn every_namespace_is_the_dynos_own() {
    let bundle = default_bundle();
    let mut names: Vec<_> = bundle["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["type"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]
    );
    let mapping = json!([{"containerID": 0, "hostID": 1 << 28, "size": 65536}]);
    assert_eq!(bundle["linux"]["uidMappings"], mapping);
    assert_eq!(bundle["linux"]["gidMappings"], mapping);
    assert_eq!(
        bundle["linux"]["cgroupsPath"],
        "/dyno-0badcafe/dynos/070707070707"
    );
    let host = build_with(
        DynoSpec {
            net: NetMode::Host,
            ..DynoSpec::default()
        },
        &ImageConfig::default(),
        &root(),
    )
    .unwrap();
    assert_eq!(host["linux"]["namespaces"].as_array().unwrap().len(), 6);
    assert!(host["linux"]["sysctl"].is_null());
}

#[test]
fn the_safe_defaults_hold_for_root() {
    let bundle = default_bundle();
    let process = &bundle["process"];
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["capabilities"]["ambient"], json!([]));
    assert_eq!(process["capabilities"]["inheritable"], json!([]));
    assert_eq!(
        process["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .len(),
        11
    );
    assert_eq!(
        process["rlimits"],
        json!([{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000}])
    );
    assert!(bundle["linux"]["seccomp"].is_object());
    assert_eq!(
        bundle["linux"]["resources"]["devices"][0],
        json!({"allow": false, "access": "rwm"})
    );
    assert_eq!(bundle["linux"]["resources"]["pids"]["limit"], 4096);
    assert!(
        mount(&bundle, "/sys/fs/cgroup")["options"]
            .as_array()
            .unwrap()
            .contains(&json!("ro"))
    );
    for path in ["/proc/kcore", "/proc/keys", "/sys/firmware"] {
        assert!(
            bundle["linux"]["maskedPaths"]
                .as_array()
                .unwrap()
                .contains(&json!(path))
        );
    }
    for file in ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"] {
        assert!(
            mount(&bundle, file)["options"]
                .as_array()
                .unwrap()
                .contains(&json!("ro"))
        );
    }
}

#[test]
fn who_is_not_root_holds_no_capability() {
    let user = identity(33, 34, &[4], "/var/www");
    let bundle = build_with(DynoSpec::default(), &ImageConfig::default(), &user).unwrap();
    let process = &bundle["process"];
    assert_eq!(
        process["user"],
        json!({"uid": 33, "gid": 34, "additionalGids": [4]})
    );
    assert_eq!(process["capabilities"]["effective"], json!([]));
    assert_eq!(process["capabilities"]["permitted"], json!([]));
}

#[test]
fn the_request_goes_over_the_image_and_both_over_the_defaults() {
    let config = ImageConfig {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        env: vec!["PATH=/image".into(), "A=image".into(), "B=image=b".into()],
        workdir: "/srv".into(),
        ..ImageConfig::default()
    };
    let spec = DynoSpec {
        command: vec!["given".into()],
        env: [("A".to_owned(), "request".to_owned())].into(),
        ..DynoSpec::default()
    };
    let bundle = build_with(spec, &config, &root()).unwrap();
    assert_eq!(bundle["process"]["args"], json!(["/entry", "given"]));
    assert_eq!(
        bundle["process"]["env"],
        json!([
            "A=request",
            "B=image=b",
            "HOME=/root",
            "HOSTNAME=dyno-070707070707",
            "PATH=/image"
        ])
    );
    assert_eq!(bundle["process"]["cwd"], "/srv");
    let replaced = DynoSpec {
        entrypoint: Some(vec!["/mine".into()]),
        ..DynoSpec::default()
    };
    assert_eq!(
        build_with(replaced, &config, &root()).unwrap()["process"]["args"],
        json!(["/mine"])
    );
    let cleared = DynoSpec {
        entrypoint: Some(vec![]),
        ..DynoSpec::default()
    };
    assert!(build_with(cleared, &config, &root()).is_err());
}

#[test]
fn an_images_nonsense_is_refused_and_picks_nothing_of_the_host() {
    for config in [
        ImageConfig {
            env: vec!["NOVALUE".into()],
            ..ImageConfig::default()
        },
        ImageConfig {
            env: vec!["=x".into()],
            ..ImageConfig::default()
        },
        ImageConfig {
            workdir: "../..".into(),
            ..ImageConfig::default()
        },
    ] {
        assert!(
            build_with(DynoSpec::default(), &config, &root()).is_err(),
            "{config:?}"
        );
    }
    let odd = ImageConfig {
        stop_signal: Some("EXPLODE".into()),
        ..ImageConfig::default()
    };
    assert_eq!(
        stop_signal(&DynoSpec::default(), &odd).unwrap(),
        signal_term()
    );
}

fn signal_term() -> u8 {
    crate::signal::TERM
}

#[test]
fn limits_become_resources() {
    let spec = DynoSpec {
        limits: Limits {
            memory_bytes: Some(64 << 20),
            cpu_millis: Some(1500),
            pids: Some(7),
            io: Some(IoLimits {
                read_bytes: Some(1 << 20),
                ..IoLimits::default()
            }),
            disk_bytes: None,
        },
        ulimits: [("core".to_owned(), Ulimit { soft: 0, hard: 1 })].into(),
        ..DynoSpec::default()
    };
    let bundle = build_with(spec, &ImageConfig::default(), &root()).unwrap();
    let resources = &bundle["linux"]["resources"];
    assert_eq!(
        resources["memory"],
        json!({"limit": 64 << 20, "swap": 64 << 20})
    );
    assert_eq!(
        resources["cpu"],
        json!({"quota": 150_000, "period": 100_000})
    );
    assert_eq!(resources["pids"]["limit"], 7);
    let rate = |rate: u64| json!([{"major": 254, "minor": 0, "rate": rate}]);
    let io = &resources["blockIO"];
    assert_eq!(io["throttleReadBpsDevice"], rate(1 << 20));
    assert_eq!(io["throttleWriteIOPSDevice"], rate(0));
    assert_eq!(resources["unified"]["memory.oom.group"], "1");
    assert_eq!(
        bundle["process"]["rlimits"][0],
        json!({"type": "RLIMIT_CORE", "hard": 1, "soft": 0})
    );
}

#[test]
fn mounts_come_parents_first_and_volumes_are_idmapped() {
    let spec = DynoSpec {
        mounts: vec![
            Mount::Tmpfs {
                target: "/data/deep/tmp".into(),
                size_bytes: Some(4096),
            },
            Mount::Volume {
                name: "pg".parse().unwrap(),
                target: "/data".into(),
                read_only: false,
            },
            Mount::Bind {
                source: "/srv".into(),
                target: "/www".into(),
                read_only: true,
            },
            Mount::Bind {
                source: "/nfs".into(),
                target: "/nfs".into(),
                read_only: false,
            },
            Mount::Bind {
                source: "/srv/hosts".into(),
                target: "/etc/hosts".into(),
                read_only: true,
            },
        ],
        ..DynoSpec::default()
    };
    let bundle = build_with(spec, &ImageConfig::default(), &root()).unwrap();
    let order: Vec<_> = bundle["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["destination"].as_str().unwrap())
        .collect();
    let place = |target| order.iter().position(|t| *t == target).unwrap();
    assert!(place("/data") < place("/data/deep/tmp"));
    assert_eq!(
        order.iter().filter(|t| **t == "/etc/hosts").count(),
        1,
        "the request's own file stays"
    );
    let options = |target| mount(&bundle, target)["options"].to_string();
    assert_eq!(
        mount(&bundle, "/data")["source"],
        "/var/lib/dyno/volumes/pg"
    );
    assert!(options("/data").contains("\"idmap\""));
    assert!(options("/www").contains("\"ridmap\"") && options("/www").contains("\"ro\""));
    assert!(!options("/nfs").contains("idmap"));
    assert!(options("/data/deep/tmp").contains("size=4096"));
}

#[test]
fn exec_never_has_more_than_the_first_process() {
    let bundle = default_bundle();
    let first: oci_spec::runtime::Process =
        serde_json::from_value(bundle["process"].clone()).unwrap();
    let request = ExecRequest {
        command: vec!["id".into()],
        tty: true,
        ..ExecRequest::default()
    };
    let user = identity(33, 33, &[], "/");
    let process = serde_json::to_value(exec_process(&first, &request, &user).unwrap()).unwrap();
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["capabilities"]["effective"], json!([]));
    assert_eq!(process["terminal"], true);
    assert_eq!(process["args"], json!(["id"]));
    assert!(
        process["env"]
            .as_array()
            .unwrap()
            .contains(&json!("TERM=xterm"))
    );
    assert!(exec_process(&first, &ExecRequest::default(), &user).is_err());
    let odd = ExecRequest {
        command: vec!["id".into()],
        workdir: Some("x".into()),
        ..ExecRequest::default()
    };
    assert!(exec_process(&first, &odd, &user).is_err());
}
