//! Metrics say what the kernel says, in a format that a strict reader takes.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use dyno_tests::host::{Host, http_get, http_get_on};
use dyno_tests::metrics::{Sample, parse};
use dyno_tests::until;
use serde_json::Value;

const ADDRESS: &str = "127.0.0.1:9100";

/// What is scraped over the API's socket.
fn scrape(host: &Host, accept: &str) -> String {
    let stream = UnixStream::connect(host.socket()).unwrap();
    let page = http_get_on(stream, "/metrics", &format!("Accept: {accept}"));
    page.unwrap_or_else(|error| panic!("{error}"))
}

fn samples(host: &Host) -> Vec<Sample> {
    parse(&scrape(host, "text/plain"), false).unwrap()
}

/// The value of one series, by its name and these of its labels.
fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |sample: &Sample| labels.iter().all(|(n, v)| sample.label(n) == Some(v));
    let mut found = samples.iter().filter(|sample| sample.name == name);
    found.find(|sample| has(sample)).map(|sample| sample.value)
}

/// Seconds of processor time, as the v2 tree counts them for a dyno's cgroup.
fn cpu_seconds(status: &Value) -> f64 {
    let own = fs::read_to_string(format!("/proc/{}/cgroup", status["pid"])).unwrap();
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap();
    let trees = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let files = trees.map(|tree| Path::new(tree).join(path).join("cpu.stat"));
    let text = files
        .iter()
        .find_map(|file| fs::read_to_string(file).ok())
        .unwrap();
    let usec = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "));
    usec.unwrap().parse::<f64>().unwrap() / 1e6
}

#[test]
fn metrics_are_the_kernels_and_health_is_told() {
    let host = Host::start_with(&["--metrics-listen", ADDRESS]);
    host.import_busybox();
    let limit = 64 << 20;
    let run = [
        "run", "-d", "--name", "web", "-p", "8080:80", "--memory", "64m",
    ];
    let work = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 1000";
    host.ok(&[&run[..], &["busybox", "sh", "-c", work]].concat());
    until("it has worked", || host.ok(&["logs", "web"]) == "done");
    let status = &host.inspect("web")["status"];
    let before = cpu_seconds(status);
    let page = samples(&host);
    let after = cpu_seconds(status);
    let documented = include_str!("../../../docs/metrics.md");
    for sample in &page {
        let name = sample.name.trim_end_matches("_bucket");
        let name = name.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(documented.contains(&format!("`{name}`")), "{name}");
    }
    let web = [("dyno", "web")];
    let used = value(&page, "dyno_cpu_seconds_total", &web).unwrap();
    assert!(
        before > 0.0 && (before..=after).contains(&used),
        "{before} {used} {after}"
    );
    let of_web = |name: &str| value(&page, name, &web);
    assert_eq!(of_web("dyno_memory_limit_bytes"), Some(f64::from(limit)));
    assert!(of_web("dyno_pids") >= Some(1.0));
    assert_eq!(of_web("dyno_up"), Some(1.0));
    assert_eq!(of_web("dyno_oom_kills_total"), Some(0.0));
    assert!(of_web("dyno_memory_bytes") <= of_web("dyno_memory_peak_bytes"));
    assert!(of_web("dyno_log_bytes") > Some(0.0));
    let own = |name: &str, labels: &[(&str, &str)]| value(&page, name, labels);
    assert_eq!(own("dyno_phase", &[("phase", "running")]), Some(1.0));
    assert_eq!(own("dyno_host_dynos", &[("phase", "running")]), Some(1.0));
    assert_eq!(own("dyno_host_dynos", &[("phase", "lost")]), Some(0.0));
    assert_eq!(
        own("dyno_network_published_ports", &[("protocol", "tcp")]),
        Some(1.0)
    );
    assert_eq!(own("dyno_images", &[]), Some(1.0));
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.split_whitespace().nth(1).unwrap().parse::<f64>();
    assert_eq!(
        own("dyno_host_memory_bytes", &[]),
        Some(total.unwrap() * 1024.0)
    );
    let label = own("dyno_info", &[("dyno", "web"), ("image", "busybox")]);
    assert_eq!(label, Some(1.0));
    let created = [
        ("method", "POST"),
        ("route", "/v1/dynos"),
        ("status", "2xx"),
    ];
    assert_eq!(own("dyno_api_requests_total", &created), Some(1.0));
    assert_eq!(
        own("dyno_api_requests_in_flight", &[]),
        Some(1.0),
        "this one"
    );

    let open = scrape(&host, "application/openmetrics-text; version=1.0.0");
    assert_eq!(
        value(&parse(&open, true).unwrap(), "dyno_up", &web),
        Some(1.0)
    );

    by_tcp_too();

    // Nothing that a client makes up becomes a label.
    for path in ["/v1/dynos/made-up", "/made/up", "/v1/dynos?made=up"] {
        let stream = UnixStream::connect(host.socket()).unwrap();
        http_get_on(stream, path, "Accept: */*").unwrap_err();
    }
    let page = scrape(&host, "*/*");
    assert!(!page.contains("made"), "{page}");

    host.ok(&["rm", "-f", "web"]);
    assert_eq!(value(&samples(&host), "dyno_up", &web), None);
}

/// By TCP there are these three and nothing else.
fn by_tcp_too() {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let page = http_get(address, "/metrics").unwrap();
    assert_eq!(
        value(&parse(&page, false).unwrap(), "dyno_up", &[("dyno", "web")]),
        Some(1.0)
    );
    assert_eq!(http_get(address, "/healthz").unwrap(), "ok\n");
    until("hostd is ready", || http_get(address, "/readyz").is_ok());
    // P14: nothing else is served to whom nobody asks.
    assert!(http_get(address, "/v1/dynos").is_err());
}

#[test]
fn a_state_folder_that_cannot_be_written_is_not_ready() {
    let host = Host::start_with(&["--metrics-listen", ADDRESS]);
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let folder = host.path().join("state/readyz.probe");
    fs::create_dir(&folder).unwrap();
    let ready = || {
        let stream = std::net::TcpStream::connect(address).unwrap();
        http_get_on(stream, "/readyz", "Accept: */*")
    };
    let error = ready().unwrap_err().to_string();
    assert!(error.contains(" 503 "), "{error}");
    assert!(
        error.contains("the state folder cannot be written"),
        "{error}"
    );
    fs::remove_dir(&folder).unwrap();
    until("hostd is ready", || ready().is_ok());
}
