//! Apps: dynos that belong together.

use std::process::Command;

use dyno_tests::host::Host;
use dyno_tests::until;
use serde_json::json;

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
