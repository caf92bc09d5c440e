//! The id of a container's first process, when it is another's by now (P2, P15).

use std::process::Command;

use dyno_tests::bundle::Bundle;
use serde_json::json;

/// In a process namespace of its own, where the next id can be chosen: `exec` reads
/// its process from a FIFO, and meanwhile the first process of the container ends
/// and a process outside of it gets its id. Arguments are the runtime, its state
/// folder, the bundle and the id.
const REUSE: &str = r#"
    "$1" --root "$2" run --detach --bundle "$3" "$4" </dev/null >/dev/null 2>&1 || exit 3
    pid=$("$1" --root "$2" state "$4" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
    mkfifo "$3/process"
    "$1" --root "$2" exec --process "$3/process" "$4" >"$3/told" 2>&1 &
    executed=$!
    exec 9>"$3/process"
    [ "$REUSED" = no ] || {
        kill -9 "$pid"
        while [ -e "/proc/$pid" ]; do sleep 0.01; done
        echo $((pid - 1)) >/proc/sys/kernel/ns_last_pid
        sleep 1000 9>&- &
        [ $! = "$pid" ] || exit 4
    }
    cat "$3/process.json" >&9
    exec 9>&-
    wait $executed
    echo "code $?"
    cat "$3/told"
    "$1" --root "$2" delete --force "$4"
"#;

/// What `exec` answers and its process tells.
fn executed(reused: &str) -> String {
    let bundle = Bundle::new(&["sleep", "1000"]).as_host_root();
    bundle.write();
    let secret = bundle.path().join("secret");
    dyno_tests::write_file(&secret, "secret");
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["cat", "/etc/group", secret]);
    let file = bundle.path().join("process.json");
    dyno_tests::write_file(&file, &process.to_string());
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    unshare.args(["sh", "-c", REUSE, "sh"]);
    unshare
        .arg(&bundle.program)
        .arg(bundle.path().join("state"));
    unshare.arg(bundle.path()).arg(bundle.id());
    let output = unshare.env("REUSED", reused).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn exec_goes_to_no_other_process_that_has_the_id_of_the_first_by_now() {
    let control = executed("no");
    assert!(control.contains("extra:x:2000"), "the control: {control}");
    let told = executed("yes");
    assert!(
        !told.contains("secret\n") && !told.ends_with("secret"),
        "{told}"
    );
    assert!(
        !told.starts_with("code 0") && told.contains("stopped"),
        "{told}"
    );
}
