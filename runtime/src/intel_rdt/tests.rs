//! On an ordinary folder in resctrl's form: what the kernel does there, such as filling
//! a group with files, is done by hand. Files keep all that was ever written to them.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn resctrl() -> (TempDir, Resctrl) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("info")).unwrap();
    std::fs::create_dir(folder.path().join("mon_groups")).unwrap();
    let resctrl = Resctrl(folder.path().to_owned());
    (folder, resctrl)
}

fn wanted(json: Value) -> LinuxIntelRdt {
    serde_json::from_value(json).unwrap()
}

/// A class that somebody else has made.
fn class(folder: &TempDir, name: &str, schemata: &str) {
    let class = folder.path().join(name);
    std::fs::create_dir_all(class.join("mon_groups")).unwrap();
    put(&class.join("schemata"), schemata);
    put(&class.join("tasks"), "");
}

fn put(path: &Path, text: &str) {
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn text(folder: &TempDir, name: &str) -> String {
    std::fs::read_to_string(folder.path().join(name)).unwrap()
}

/// As the kernel does when a group is removed.
fn empty(group: &Path) {
    for file in ["schemata", "tasks"] {
        std::fs::remove_file(group.join(file)).ok();
    }
    std::fs::remove_dir(group.join("mon_groups")).ok();
}

#[test]
fn a_class_without_closid_is_the_containers_and_goes_with_it() {
    let (folder, resctrl) = resctrl();
    let wanted = wanted(json!({
        "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L3:0=3", "L2:0=1"],
    }));
    let record = resctrl.plan(&wanted, "box").unwrap();
    assert!(!folder.path().join("box").exists(), "nothing is made yet");
    record.make(&wanted).unwrap();
    // In two writes: the kernel takes each resource once in one.
    assert_eq!(
        text(&folder, "box/schemata"),
        "L3:0=f\nMB:0=20\nL3:0=3\nL2:0=1\n"
    );
    record.admit(Pid::from_raw(17).unwrap()).unwrap();
    assert_eq!(text(&folder, "box/tasks"), "17\n");
    empty(&folder.path().join("box"));
    record.remove().unwrap();
    assert!(!folder.path().join("box").exists());
    record.remove().unwrap();
}

#[test]
fn a_class_that_was_there_is_left_there() {
    let (folder, resctrl) = resctrl();
    class(&folder, "gold", "L3:0=0f\n");
    class(&folder, "box", "L3:0=ff\n");
    for json in [
        json!({"closID": "gold"}),
        json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}),
        json!({"closID": "gold", "schemata": ["MB:0=10"]}),
        json!({"closID": "/"}),
        json!({}),
    ] {
        let wanted = wanted(json);
        let record = resctrl.plan(&wanted, "box").unwrap();
        record.make(&wanted).unwrap();
        record.remove().unwrap();
        record.undo().unwrap();
    }
    for name in ["gold/schemata", "gold/tasks", "box/schemata"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    assert!(text(&folder, "gold/schemata").ends_with("MB:0=10\n"));
    assert_eq!(
        text(&folder, "box/schemata"),
        "L3:0=ff\n",
        "nothing was asked for"
    );
}

#[test]
fn a_class_by_closid_stays_when_the_container_goes_but_not_after_a_failure() {
    let (folder, resctrl) = resctrl();
    let wanted = wanted(json!({"closID": "gold", "schemata": ["L3:0=f"]}));
    let record = resctrl.plan(&wanted, "box").unwrap();
    record.make(&wanted).unwrap();
    record.remove().unwrap();
    assert!(
        folder.path().join("gold").is_dir(),
        "others may be in it by now"
    );
    put(&folder.path().join("gold/tasks"), "4711\n");
    record.undo().unwrap();
    assert!(folder.path().join("gold").is_dir(), "somebody is in it");
    put(&folder.path().join("gold/tasks"), "");
    // Here it holds files: that its removal is tried is all that can be seen.
    let error = record.undo().unwrap_err().to_string();
    assert!(error.contains("could not remove"), "{error}");
}

#[test]
fn the_default_class_is_the_root_of_the_file_system() {
    let (folder, resctrl) = resctrl();
    let wanted = wanted(json!({"closID": "/", "enableMonitoring": true}));
    let record = resctrl.plan(&wanted, "box").unwrap();
    record.make(&wanted).unwrap();
    record.admit(Pid::from_raw(17).unwrap()).unwrap();
    assert_eq!(text(&folder, "tasks"), "17\n");
    assert_eq!(text(&folder, "mon_groups/box/tasks"), "17\n");
    assert!(!folder.path().join("schemata").exists());
    empty(&folder.path().join("mon_groups/box"));
    record.remove().unwrap();
    assert!(!folder.path().join("mon_groups/box").exists());
    assert!(folder.path().join("mon_groups").is_dir());
}

#[test]
fn a_class_that_is_there_and_differs_is_refused_and_left_as_it_is() {
    let (folder, resctrl) = resctrl();
    class(&folder, "gold", "MB:0=100\nL3:0=ff\n");
    for (json, line) in [
        (
            json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}),
            "L3:0=ff",
        ),
        (
            json!({"closID": "gold", "memBwSchema": "MB:0=50"}),
            "MB:0=100",
        ),
        (
            json!({"closID": "gold", "l3CacheSchema": "L2:0=f"}),
            "L2:0=f",
        ),
    ] {
        let wanted = wanted(json);
        let record = resctrl.plan(&wanted, "box").unwrap();
        let error = record.make(&wanted).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains("closID"), "{error}");
    }
    assert_eq!(text(&folder, "gold/schemata"), "MB:0=100\nL3:0=ff\n");
}

#[test]
fn what_cannot_be_a_class_is_refused_by_name() {
    let (_folder, resctrl) = resctrl();
    let plan = |json: Value, id: &str| {
        let planned = resctrl.plan(&wanted(json), id);
        planned
            .err()
            .map_or(String::new(), |error| error.to_string())
    };
    let told = plan(json!({"closID": "gold"}), "box");
    assert!(told.contains("closID") && told.contains("gold"), "{told}");
    let schema = json!({"closID": "info", "l3CacheSchema": "L3:0=f"});
    assert!(plan(schema, "box").contains("closID"));
    assert!(plan(json!({}), "mon_groups").contains("closID"));
    assert_eq!(
        plan(json!({"closID": "/"}), "info"),
        "",
        "it needs no class"
    );
}

#[test]
fn what_the_kernel_says_of_a_failure_is_told_and_nothing_stays() {
    let (folder, resctrl) = resctrl();
    put(
        &folder.path().join("info/last_cmd_status"),
        "out of CLOSIDs\n",
    );
    let wanted = wanted(json!({"l3CacheSchema": "L3:0=f"}));
    let record = resctrl.plan(&wanted, "box").unwrap();
    // In the way of the file that is to be written.
    std::fs::create_dir_all(folder.path().join("box/schemata")).unwrap();
    let error = record.make(&wanted).unwrap_err().to_string();
    assert!(
        error.contains("could not make") && error.contains("out of CLOSIDs"),
        "{error}"
    );
    let before = wanted.clone();
    let error = record.change(&before).unwrap_err().to_string();
    assert!(error.contains("could not read"), "{error}");
}

#[test]
fn a_change_tells_what_there_was_to_put_it_back() {
    let (folder, resctrl) = resctrl();
    class(&folder, "box", "    MB:0=100;1=100\n    L3:0=ff\n");
    let record = resctrl
        .plan(&wanted(json!({"closID": "box"})), "x")
        .unwrap();
    let change = wanted(json!({"memBwSchema": "MB:0=20"}));
    let before = record.change(&change).unwrap();
    assert_eq!(before, ["MB:0=100;1=100"]);
    record.put_back(&before).unwrap();
    let told = text(&folder, "box/schemata");
    assert!(
        told.ends_with("L3:0=ff\nMB:0=20\nMB:0=100;1=100\n"),
        "{told}"
    );
}

#[test]
fn a_record_comes_back_as_it_was() {
    let (_folder, resctrl) = resctrl();
    let wanted = wanted(json!({"l3CacheSchema": "L3:0=f", "enableMonitoring": true}));
    let record = resctrl.plan(&wanted, "box").unwrap();
    let text = serde_json::to_vec(&record).unwrap();
    assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
}
