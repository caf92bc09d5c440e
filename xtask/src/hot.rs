//! `cargo xtask hot`: which code a container's start needs, side by side.
//!
//! The kernel maps a program's file in pieces of 64 KiB, wherever a line of them is
//! executed. What a start needs lies all over the program: 0.8 MB of 4.8, and nearly
//! every piece was mapped. `runtime/hot.ld` tells the linker to put it first.
//!
//! The list is made by executing the program step by step (ptrace(2)), and by
//! asking the linker which of its input sections the instructions were in. Names of
//! sections are given as patterns without the hashes in them, so that the list stays
//! good on other machines and with other compilers. What is not in it, or no longer
//! there, lies or is mapped as it would without: nothing breaks by an old list.

mod map;
mod trace;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::map::Map;
use self::trace::Trace;
use crate::nested;

/// Parts of dependencies that only unusual input needs: the patterns for CPUs in
/// `execCPUAffinity`, time zones, numbers with a point, words for error numbers.
const COLD: [&str; 9] = [
    "*regex_syntax*",
    "*regex_automata*",
    "*aho_corasick*",
    "*jiff*",
    "*zmij*",
    "*libc.a:fpioconst.o",
    "*libm*.a:*",
    "*.nix-*",
    "*.anstream-*",
];

/// Makes `runtime/hot.ld` anew; takes some minutes.
pub(crate) fn run() -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = manifest.parent().context("the project's folder")?;
    let folder = Folder::make()?;
    let (program, map) = build(project, &folder.0)?;
    let map = Map::read(&map)?;
    let mut trace = Trace::of(map.bounds().context("an empty map")?);
    for scenario in scenarios(&folder.0)? {
        for words in scenario.commands {
            println!("{}", words.join(" "));
            let mut command = Command::new(&program);
            command.arg("--root").arg(folder.0.join("state"));
            command.args(words).current_dir(&scenario.bundle);
            trace.follow(&command)?;
        }
    }
    let sections = map.patterns(trace.addresses());
    let path = project.join("runtime/hot.ld");
    println!("{} sections -> {}", sections.len(), path.display());
    File::create(path)?.write_all(script(&sections).as_bytes())?;
    Ok(())
}

/// A folder of our own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let folder = PathBuf::from(format!("/var/tmp/dyno-hot-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Builds the program; where it is, and the linker's map of it.
fn build(project: &Path, folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let map = folder.join("map");
    let mut command = nested::command(env!("CARGO"));
    command
        .current_dir(project)
        .args(["rustc", "--release", "--package", "dyno-runtime"])
        .args(["--bin", "dyno-runtime", "--target-dir"])
        .arg(project.join("target/hot"))
        .arg("--")
        .arg(format!("-Clink-arg=-Wl,-Map={}", map.display()));
    ensure!(command.status()?.success(), "the release build failed");
    let program = "target/hot/x86_64-unknown-linux-gnu/release/dyno-runtime";
    Ok((project.join(program), map))
}

/// A bundle, and the commands that it is used with.
struct Scenario {
    bundle: PathBuf,
    commands: Vec<Vec<&'static str>>,
}

/// What is wanted most comes first.
fn scenarios(folder: &Path) -> Result<[Scenario; 3]> {
    let plain = bundle(folder, "plain", |_| {})?;
    let waiting = bundle(folder, "waiting", |config| {
        config["process"]["args"] = json!(["/bin/sleep", "600"]);
    })?;
    let filtered = bundle(folder, "filtered", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                { "names": ["mount", "ptrace", "bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
                { "names": ["personality"], "action": "SCMP_ACT_ERRNO",
                  "args": [{ "index": 0, "value": 4, "op": "SCMP_CMP_EQ" }] },
            ],
        });
    })?;
    Ok([
        Scenario {
            bundle: plain,
            commands: vec![vec!["run", "a"]],
        },
        Scenario {
            bundle: waiting,
            commands: vec![
                vec!["create", "b"],
                vec!["start", "b"],
                vec!["state", "b"],
                vec!["exec", "b", "/bin/true"],
                vec!["kill", "b", "KILL"],
                vec!["delete", "--force", "b"],
            ],
        },
        Scenario {
            bundle: filtered,
            commands: vec![vec!["run", "c"]],
        },
    ])
}

fn bundle(folder: &Path, name: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
    let bundle = folder.join(name);
    let programs = bundle.join("rootfs/bin");
    fs::create_dir_all(&programs)?;
    fs::copy("/bin/busybox", programs.join("busybox")).context("busybox-static")?;
    for applet in ["true", "sleep"] {
        std::os::unix::fs::symlink("busybox", programs.join(applet))?;
    }
    let spec = Command::new("runc")
        .arg("spec")
        .current_dir(&bundle)
        .status();
    ensure!(spec.context("runc")?.success(), "runc spec");
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    change(&mut config);
    serde_json::to_writer(File::create(path)?, &config)?;
    Ok(bundle)
}

/// The linker's script. The stubs of the C library's choices (`.iplt`) and what the
/// unwinder looks at once (`.eh_frame`) lie beside what is hot.
fn script(hot: &[String]) -> String {
    let each = |sections: &str| COLD.map(|files| format!("{files}({sections})")).join(" ");
    let lines: String = hot.iter().map(|line| format!("    {line}\n")).collect();
    format!(
        "/* Made by `cargo xtask hot`: what a container's start executes, in the order\n \
         * in which it does. See docs/performance.md. */\n\
         SECTIONS {{\n  .text : {{\n{lines}  }}\n}} INSERT AFTER .iplt;\n\
         SECTIONS {{ .text.cold : {{ *(.text .text.*) }} }} INSERT AFTER .text;\n\
         SECTIONS {{ .rodata.cold : {{ {rodata} }} }} INSERT AFTER .eh_frame;\n\
         SECTIONS {{ .data.rel.ro : {{\n  \
         *(EXCLUDE_FILE({cold}) .data.rel.ro EXCLUDE_FILE({cold}) .data.rel.ro.*)\n  \
         *(.data.rel.ro .data.rel.ro.*)\n}} }} INSERT AFTER .init_array;\n",
        rodata = each(".rodata .rodata.*"),
        cold = COLD.join(" "),
    )
}
