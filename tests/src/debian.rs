//! Real images: Debian 12 with real servers in it, pushed by skopeo to a real registry.
//!
//! ```text
//! mmdebstrap ─▶ base layer ─┬─ layer: a page, logs to stdout    ─▶ debian:nginx
//!              (one, shared)├─ layer: an entrypoint             ─▶ debian:postgres
//!                           └─ layer: a program                 ─▶ debian:python
//!        skopeo copy ─▶ docker-registry ─▶ target/real/registry   kept until the recipe changes
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use crate::programs;

mod registry;

pub use registry::Registry;

/// What the base layer is made by; the file to write comes last.
const MMDEBSTRAP: &[&str] = &[
    "--quiet",
    "--variant=minbase",
    "--include=nginx-light,postgresql-15,python3,curl",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "bookworm",
];

/// One image: the base, a layer of files, and a config.
struct Recipe {
    name: &'static str,
    files: &'static [(&'static str, u32, &'static str)],
    links: &'static [(&'static str, &'static str)],
    /// JSON, as in an image's `config`.
    config: &'static str,
}

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "nginx",
        files: &[
            ("var/www/html/index.html", 0o644, "a page by nginx\n"),
            // A whiteout: the base's page is hidden.
            ("var/www/html/.wh.index.nginx-debian.html", 0o644, ""),
        ],
        links: &[
            ("var/log/nginx/access.log", "/dev/stdout"),
            ("var/log/nginx/error.log", "/dev/stderr"),
        ],
        config: r#"{"Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT",
                    "ExposedPorts": {"80/tcp": {}}}"#,
    },
    Recipe {
        name: "postgres",
        files: &[(
            "usr/local/bin/serve-postgres",
            0o755,
            include_str!("debian/serve-postgres.sh"),
        )],
        links: &[],
        config: r#"{"Entrypoint": ["serve-postgres"], "Cmd": ["postgres"], "StopSignal": "SIGINT",
                    "Env": ["PGDATA=/var/lib/postgresql/data",
                            "PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin"]}"#,
    },
    Recipe {
        name: "python",
        files: &[("srv/app.py", 0o644, include_str!("debian/app.py"))],
        links: &[],
        config: r#"{"Cmd": ["python3", "app.py"], "WorkingDir": "/srv", "User": "nobody",
                    "Env": ["PATH=/usr/bin:/bin"]}"#,
    },
];

/// The registry's storage with the images in it.
#[derive(Debug)]
pub struct Debian {
    storage: PathBuf,
}

impl Debian {
    /// Finds the images, or makes them, which takes a minute or two and the network: to be
    /// called before [`Host::start`](crate::host::Host::start) leaves that.
    pub fn prepare() -> Self {
        crate::must_be_root();
        let target = programs();
        let target = target.ancestors().nth(2).expect("the target folder");
        let folder = target.join("real");
        fs::create_dir_all(&folder).expect("make a folder");
        // Tests are processes: one makes it, the others wait.
        let lock = File::create(folder.join("lock")).expect("make a lock");
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("lock");
        let (storage, made) = (folder.join("registry"), folder.join("recipe"));
        let recipe = recipe();
        if fs::read_to_string(&made).is_ok_and(|made| made == recipe) {
            return Self { storage };
        }
        let work = folder.join("work");
        for stale in [&work, &storage] {
            fs::remove_dir_all(stale).ok();
        }
        fs::create_dir(&work).expect("make a folder");
        make(&work, &storage, &base(&folder, &work));
        write(&made, recipe.as_bytes());
        fs::remove_dir_all(&work).expect("remove the work folder");
        Self { storage }
    }

    /// Starts a registry that has the images, in this thread's network. Its log is in `folder`.
    pub fn serve(&self, folder: &Path) -> Registry {
        Registry::start(&self.storage, folder)
    }
}

/// All that the images depend on.
fn recipe() -> String {
    let mut text = format!("{MMDEBSTRAP:?}\n");
    for recipe in RECIPES {
        let Recipe {
            name,
            files,
            links,
            config,
        } = recipe;
        text += &format!("{name} {files:?} {links:?} {config}\n");
    }
    text
}

/// The tar of the base, which takes longest and is kept by itself.
fn base(folder: &Path, work: &Path) -> PathBuf {
    let (base, made) = (folder.join("base.tar"), folder.join("base"));
    let wanted = MMDEBSTRAP.join(" ");
    if fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return base;
    }
    let new = work.join("base.tar");
    let file = new.to_str().expect("a path in UTF-8");
    run("mmdebstrap", &[MMDEBSTRAP, &[file]].concat());
    fs::rename(new, &base).expect("keep the base");
    write(&made, wanted.as_bytes());
    base
}

fn make(work: &Path, storage: &Path, base: &Path) {
    let layout = work.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).expect("make a folder");
    write(
        &layout.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    );
    let base = Layer::of(&layout, base, &work.join("base.tar.gz"));
    let mut manifests = Vec::new();
    for recipe in RECIPES {
        let (tar, compressed) = (recipe.tar(work), work.join("layer.tar.gz"));
        let top = Layer::of(&layout, &tar, &compressed);
        let mut manifest = image(&layout, &[&base, &top], recipe.config);
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": recipe.name});
        manifests.push(manifest);
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    write(&layout.join("index.json"), index.to_string().as_bytes());
    let registry = Registry::start(storage, work);
    for recipe in RECIPES {
        let from = format!("oci:{}:{}", layout.display(), recipe.name);
        let to = format!("docker://{}", registry.image(recipe.name));
        let access = [
            "--insecure-policy",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &from,
            &to,
        ];
        run("skopeo", &access);
    }
}

impl Recipe {
    /// The image's own layer.
    fn tar(&self, work: &Path) -> PathBuf {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let root = work.join(self.name);
        for (path, mode, content) in self.files {
            let path = parent_made(&root, path);
            write(&path, content.as_bytes());
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("set a mode");
        }
        for (path, target) in self.links {
            symlink(target, parent_made(&root, path)).expect("make a link");
        }
        let tar = root.with_extension("tar");
        // Without the folders, whose owners and modes are the base's.
        let entries = self.files.iter().map(|(path, ..)| *path);
        let entries: Vec<&str> = entries
            .chain(self.links.iter().map(|(path, _)| *path))
            .collect();
        let (file, root) = (
            tar.to_str().expect("UTF-8"),
            root.to_str().expect("UTF-8").to_owned(),
        );
        let owner = ["--owner=0", "--group=0"];
        run(
            "tar",
            &[&["-C", &root, "-cf", file][..], &owner, &entries].concat(),
        );
        tar
    }
}

fn parent_made(root: &Path, path: &str) -> PathBuf {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
    path
}

/// A layer in the layout, compressed.
struct Layer {
    descriptor: Value,
    diff_id: String,
}

impl Layer {
    fn of(layout: &Path, tar: &Path, compressed: &Path) -> Self {
        let diff_id = sha256(tar);
        let status = Command::new("gzip")
            .args(["-1", "-n", "-c"])
            .arg(tar)
            .stdout(File::create(compressed).expect("create a file"))
            .status();
        assert!(status.expect("run gzip").success(), "compress a layer");
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let descriptor = blob(layout, compressed, media_type);
        Self {
            descriptor,
            diff_id,
        }
    }
}

/// Writes config and manifest; gives the manifest's descriptor.
fn image(layout: &Path, layers: &[&Layer], config: &str) -> Value {
    let config: Value = serde_json::from_str(config).expect("a config in JSON");
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config_type = "application/vnd.oci.image.config.v1+json";
    let descriptors: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": document(layout, &config, config_type), "layers": descriptors,
    });
    document(layout, &manifest, manifest_type)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn document(layout: &Path, document: &Value, media_type: &str) -> Value {
    let file = layout.join("document.json");
    write(&file, document.to_string().as_bytes());
    blob(layout, &file, media_type)
}

/// Moves a file to its digest in the layout; gives its descriptor.
fn blob(layout: &Path, file: &Path, media_type: &str) -> Value {
    let (digest, size) = (sha256(file), file.metadata().expect("a file").len());
    let hex = digest.trim_start_matches("sha256:");
    fs::rename(file, layout.join("blobs/sha256").join(hex)).expect("move a blob");
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn sha256(file: &Path) -> String {
    let sum = run("sha256sum", &[file.to_str().expect("UTF-8")]);
    format!("sha256:{}", &sum[..64])
}

fn write(path: &Path, content: &[u8]) {
    let mut file = File::create(path).expect("create a file");
    file.write_all(content).expect("write a file");
}

/// Runs a program that must succeed; gives what it prints.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("run {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
