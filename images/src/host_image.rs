//! The built-in image `host`: a small generated root onto which the machine's `/usr` is bound.
//!
//! The root is planned in memory from a fixed list of the machine's public files, and the digest
//! of that plan is the layer's id: the image is stale exactly when the plan is another one.
//! What is on the list is all there is: `/root`, `/home`, `/var`, keys and configuration of the
//! machine are not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::digest::{Digest, LayerId};
use crate::image::{Bind, Image, ImageConfig};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Inner, StoreError, failed, set_mode};

/// Changes whenever this file makes another root of the same machine.
const GENERATION: &str = "host image 1";
/// A public file of the machine that is larger than this is left out.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Accounts of people begin here; 65534 is nobody.
const FIRST_PERSON: u32 = 1000;
const NOBODY: u32 = 65_534;

/// Parts of the root that are links into `/usr` on a merged system, else folders of their own.
const USR_PARTS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Copied if they are public, small and regular.
const PUBLIC_FILES: [&str; 15] = [
    "etc/debian_version",
    "etc/gai.conf",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/localtime",
    "etc/mime.types",
    "etc/os-release",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/protocols",
    "etc/rpc",
    "etc/services",
    "etc/shells",
    "etc/ssl/cert.pem",
    "etc/ssl/openssl.cnf",
    "etc/timezone",
];
/// Whose public files and links are copied, without folders below.
const PUBLIC_FOLDERS: [&str; 3] = ["etc/alternatives", "etc/ld.so.conf.d", "etc/ssl/certs"];
/// Looked at to see whether something may have changed.
const WATCHED: [&str; 2] = ["etc/passwd", "etc/group"];
/// Folders and their modes; nothing is in them.
const EMPTY_FOLDERS: [(&str, u32); 20] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
    networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The image as of this process's last look at the machine.
#[derive(Debug)]
pub(crate) struct Current {
    stamp: Vec<Option<(u64, i64, i64)>>,
    pub(crate) layer: LayerId,
    binds: Vec<Bind>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder(u32),
    File(Vec<u8>),
    Link(PathBuf),
}

/// The root to be: what is at each path, folders before what is in them.
#[derive(Debug, Default)]
struct Plan {
    nodes: BTreeMap<String, Node>,
    binds: Vec<Bind>,
}

/// Gives the image, making its layer if this machine's is not there yet.
pub(crate) fn provide(store: &Arc<Inner>) -> Result<Image, StoreError> {
    let machine = Path::new("/");
    let stamp = stamp(machine);
    let mut current = store
        .host_image()
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let fresh = current
        .as_ref()
        .is_some_and(|current| current.stamp == stamp);
    if !fresh {
        let plan = Plan::of(machine);
        let layer = LayerId(plan.digest());
        // Pinned until it is current: collection spares both.
        let _pin = store.pin(layer.0);
        if store.layer(&layer)?.is_none() {
            store.make_layer_by(layer, |root| plan.write(root))?;
        }
        *current = Some(Current {
            stamp,
            layer,
            binds: plan.binds,
        });
    }
    let Some(Current { layer, binds, .. }) = &*current else {
        unreachable!("it was just made")
    };
    let size_bytes = store.layer(layer)?.map_or(0, |record| record.bytes);
    Ok(Image {
        reference: Reference::host(),
        digest: layer.0,
        id: layer.0,
        platform: Platform::host(),
        created: None,
        stored: jiff::Timestamp::now(),
        size_bytes,
        layers: vec![*layer],
        config: ImageConfig {
            env: vec![PATH.to_owned()],
            ..ImageConfig::default()
        },
        binds: binds.clone(),
        layers_root: store.layers_root(),
    })
}

/// Inode and change time of everything the plan is made from: cheaper than the plan.
fn stamp(machine: &Path) -> Vec<Option<(u64, i64, i64)>> {
    let watched = PUBLIC_FILES
        .iter()
        .chain(&PUBLIC_FOLDERS)
        .chain(&USR_PARTS)
        .chain(&WATCHED);
    watched
        .map(|path| {
            let metadata = machine.join(path).symlink_metadata().ok()?;
            Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
        })
        .collect()
}

impl Plan {
    fn of(machine: &Path) -> Plan {
        let mut plan = Plan::default();
        for (path, mode) in EMPTY_FOLDERS {
            plan.nodes.insert(path.to_owned(), Node::Folder(mode));
        }
        plan.nodes
            .insert("var/run".to_owned(), Node::Link("/run".into()));
        plan.nodes
            .insert("var/lock".to_owned(), Node::Link("/run/lock".into()));
        // Mount points of what a dyno gets of its own.
        for path in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
            plan.file(path, Vec::new());
        }
        plan.file("etc/nsswitch.conf", NSSWITCH.into());
        let (passwd, group) = system_accounts(machine);
        plan.file("etc/passwd", passwd);
        plan.file("etc/group", group);
        for path in PUBLIC_FILES {
            plan.copy(machine, path);
        }
        for folder in PUBLIC_FOLDERS {
            let entries = fs::read_dir(machine.join(folder))
                .into_iter()
                .flatten()
                .flatten();
            for entry in entries {
                if let Some(name) = entry.file_name().to_str() {
                    plan.copy(machine, &format!("{folder}/{name}"));
                }
            }
        }
        plan.bind(machine, "usr");
        for part in USR_PARTS {
            plan.usr_part(machine, part);
        }
        plan
    }

    /// Copies a file of the machine if everybody may see it, or a link to what is shown, too.
    /// What is missing or leads elsewhere is left out: no link is followed here.
    fn copy(&mut self, machine: &Path, path: &str) {
        let source = machine.join(path);
        let Ok(metadata) = source.symlink_metadata() else {
            return;
        };
        if metadata.is_symlink() {
            let Ok(target) = fs::read_link(&source) else {
                return;
            };
            let target_path = match target.is_absolute() {
                true => target.clone(),
                false => Path::new("/").join(path).with_file_name("").join(&target),
            };
            if stays_beside(&target) || leads_into_usr(&normalised(&target_path)) {
                self.parents(path);
                self.nodes.insert(path.to_owned(), Node::Link(target));
            }
        } else if let Some(content) = public_content(&source) {
            self.file(path, content);
        }
    }

    fn file(&mut self, path: &str, content: Vec<u8>) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), Node::File(content));
    }

    fn parents(&mut self, path: &str) {
        let mut path = path;
        while let Some((parent, _)) = path.rsplit_once('/') {
            self.nodes
                .entry(parent.to_owned())
                .or_insert(Node::Folder(0o755));
            path = parent;
        }
    }

    fn usr_part(&mut self, machine: &Path, part: &str) {
        let source = machine.join(part);
        match fs::read_link(&source) {
            Ok(target) if leads_into_usr(&Path::new("/").join(&target)) => {
                self.nodes.insert(part.to_owned(), Node::Link(target));
            }
            // Not merged: a folder of its own, shown like /usr.
            _ if source.is_dir() => {
                self.nodes.insert(part.to_owned(), Node::Folder(0o755));
                self.bind(machine, part);
            }
            _ => {}
        }
    }

    fn bind(&mut self, machine: &Path, part: &str) {
        self.binds.push(Bind {
            source: machine.join(part),
            target: format!("/{part}"),
        });
    }

    /// Unambiguous: every field ends with its length known.
    fn digest(&self) -> Digest {
        let mut bytes = GENERATION.as_bytes().to_vec();
        for (path, node) in &self.nodes {
            let (kind, content): (u8, &[u8]) = match node {
                Node::Folder(mode) => (b'd', &mode.to_be_bytes()),
                Node::File(content) => (b'f', content),
                Node::Link(target) => (b'l', target.as_os_str().as_encoded_bytes()),
            };
            bytes.push(kind);
            for field in [path.as_bytes(), content] {
                bytes.extend((field.len() as u64).to_be_bytes());
                bytes.extend(field);
            }
        }
        Digest::of(&bytes)
    }

    /// Writes it into the empty folder `root`, which only root can reach. Gives its size.
    fn write(&self, root: &Path) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for (path, node) in &self.nodes {
            let to = root.join(path);
            match node {
                Node::Folder(mode) => {
                    fs::create_dir(&to).map_err(failed("create folder", &to))?;
                    set_mode(&to, *mode)?;
                }
                Node::File(content) => {
                    write_public(&to, content).map_err(failed("write", &to))?;
                    bytes += content.len() as u64;
                }
                Node::Link(target) => {
                    std::os::unix::fs::symlink(target, &to)
                        .map_err(failed("create symlink", &to))?;
                }
            }
        }
        Ok(bytes)
    }
}

fn write_public(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    file.write_all(content)?;
    // Whatever the umask is.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

/// The file's content if it is regular, everybody may read it, it is small and no private key.
fn public_content(path: &Path) -> Option<Vec<u8>> {
    let metadata = path.symlink_metadata().ok()?;
    let public =
        metadata.is_file() && metadata.mode() & 0o004 != 0 && metadata.len() <= MAX_FILE_BYTES;
    let content = if public {
        fs::read(path).ok()?
    } else {
        return None;
    };
    let is_key = content.windows(12).any(|window| window == b"PRIVATE KEY-");
    (!is_key).then_some(content)
}

/// Whether an absolute path without `..` is of something that is shown.
fn leads_into_usr(target: &Path) -> bool {
    let first = target
        .components()
        .nth(1)
        .and_then(|part| part.as_os_str().to_str());
    first.is_some_and(|first| first == "usr" || USR_PARTS.contains(&first))
}

/// An absolute path with its `..` resolved by the text.
fn normalised(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => normal.push(name),
            std::path::Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

/// Whether a link names its neighbour, as the hashes of certificates do.
fn stays_beside(target: &Path) -> bool {
    matches!(
        target.components().collect::<Vec<_>>()[..],
        [std::path::Component::Normal(_)]
    )
}

/// The machine's accounts without its people: programs find `www-data` and `postgres`, and
/// nobody learns who works here. No password field is kept.
fn system_accounts(machine: &Path) -> (Vec<u8>, Vec<u8>) {
    let read = |file: &str| fs::read_to_string(machine.join(file)).unwrap_or_default();
    let is_system =
        |id: &str| matches!(id.parse::<u32>(), Ok(id) if id < FIRST_PERSON || id == NOBODY);
    let mut users = Vec::new();
    let mut passwd = String::new();
    for line in read("etc/passwd").lines() {
        if let [name, _, uid, gid, gecos, home, shell] = line.split(':').collect::<Vec<_>>()[..]
            && is_system(uid)
            && is_system(gid)
        {
            users.push(name.to_owned());
            passwd += &format!("{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}\n");
        }
    }
    let mut group = String::new();
    for line in read("etc/group").lines() {
        if let [name, _, gid, members] = line.split(':').collect::<Vec<_>>()[..]
            && is_system(gid)
        {
            let members = members
                .split(',')
                .filter(|member| users.iter().any(|user| user == member));
            let members = members.collect::<Vec<_>>().join(",");
            group += &format!("{name}:x:{gid}:{members}\n");
        }
    }
    (passwd.into(), group.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A machine with public files, and with everything that must not be shown.
    fn machine() -> tempfile::TempDir {
        let machine = tempfile::tempdir().unwrap();
        let put = |path: &str, content: &str, mode: u32| {
            let path = machine.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_public(&path, content.as_bytes()).unwrap();
            set_mode(&path, mode).unwrap();
        };
        put("usr/bin/true", "", 0o755);
        put(
            "etc/passwd",
            "root:SECRET:0:0:r:/root:/bin/sh\nwww:x:33:33::/:/\nann:x:1000:1000:SECRET:/home/ann:/bin/sh\nbad\n",
            0o644,
        );
        put(
            "etc/group",
            "root:x:0:\nadm:x:4:ann,www\nann:x:1000:\n",
            0o644,
        );
        put("etc/shadow", "root:SECRET:", 0o640);
        put(
            "etc/ssl/certs/ca-certificates.crt",
            "-----BEGIN CERTIFICATE-----",
            0o644,
        );
        put(
            "etc/ssl/certs/oops.pem",
            "-----BEGIN RSA PRIVATE KEY-----\nSECRET",
            0o644,
        );
        put("etc/ssl/certs/unreadable.pem", "SECRET", 0o600);
        put("etc/ssl/private/host.key", "SECRET", 0o644);
        put("etc/services", "SECRET", 0o640);
        put("root/.ssh/id_ed25519", "SECRET", 0o644);
        put("home/ann/diary", "SECRET", 0o644);
        put("var/lib/x", "SECRET", 0o644);
        put("etc/ssh/ssh_host_key", "SECRET", 0o644);
        fs::create_dir_all(machine.path().join("etc/alternatives")).unwrap();
        symlink(
            "/usr/bin/true",
            machine.path().join("etc/alternatives/good"),
        )
        .unwrap();
        symlink(
            "/usr/../root/.ssh/id_ed25519",
            machine.path().join("etc/alternatives/sly"),
        )
        .unwrap();
        symlink(
            "../ssl/private/host.key",
            machine.path().join("etc/ssl/certs/sly.pem"),
        )
        .unwrap();
        symlink("usr/bin", machine.path().join("bin")).unwrap();
        fs::create_dir(machine.path().join("lib")).unwrap();
        machine
    }

    fn is_secret(node: &Node) -> bool {
        matches!(node, Node::File(content) if String::from_utf8_lossy(content).contains("SECRET"))
    }

    #[test]
    fn shows_what_is_public_and_nothing_else() {
        let machine = machine();
        let plan = Plan::of(machine.path());
        assert!(!plan.nodes.contains_key("etc/ssl/certs/sly.pem"));
        let secrets: Vec<_> = plan
            .nodes
            .iter()
            .filter(|(_, node)| is_secret(node))
            .collect();
        assert!(secrets.is_empty(), "{secrets:?}");
        assert_eq!(
            plan.nodes["etc/passwd"],
            Node::File(b"root:x:0:0:r:/root:/bin/sh\nwww:x:33:33::/:/\n".into())
        );
        assert_eq!(
            plan.nodes["etc/group"],
            Node::File(b"root:x:0:\nadm:x:4:www\n".into())
        );
        assert_eq!(
            plan.nodes["etc/alternatives/good"],
            Node::Link("/usr/bin/true".into())
        );
        assert!(plan.nodes.contains_key("etc/ssl/certs/ca-certificates.crt"));
        assert!(!plan.nodes.contains_key("etc/alternatives/sly"));
        for folder in ["root", "home", "var", "etc/ssh", "etc/ssl/private"] {
            let inside = plan
                .nodes
                .keys()
                .filter(|path| path.starts_with(&format!("{folder}/")));
            let inside: Vec<_> = inside
                .filter(|path| !matches!(plan.nodes[*path], Node::Folder(_) | Node::Link(_)))
                .collect();
            assert!(inside.is_empty(), "{inside:?}");
        }
    }

    #[test]
    fn binds_usr_and_links_into_it_as_the_machine_does() {
        let machine = machine();
        let plan = Plan::of(machine.path());
        assert_eq!(plan.nodes["bin"], Node::Link("usr/bin".into()));
        assert_eq!(plan.nodes["lib"], Node::Folder(0o755));
        let targets: Vec<_> = plan.binds.iter().map(|bind| bind.target.as_str()).collect();
        assert_eq!(targets, ["/usr", "/lib"]);
    }

    #[test]
    fn the_digest_changes_with_the_machine_and_only_then() {
        let machine = machine();
        let before = (Plan::of(machine.path()).digest(), stamp(machine.path()));
        assert_eq!(
            (Plan::of(machine.path()).digest(), stamp(machine.path())),
            before
        );
        fs::remove_file(machine.path().join("etc/alternatives/good")).unwrap();
        symlink(
            "/usr/bin/false",
            machine.path().join("etc/alternatives/good"),
        )
        .unwrap();
        let after = (Plan::of(machine.path()).digest(), stamp(machine.path()));
        assert_ne!(after.0, before.0);
        assert_ne!(after.1, before.1);
    }

    #[test]
    fn writes_what_was_planned() {
        let machine = machine();
        let plan = Plan::of(machine.path());
        let root = tempfile::tempdir().unwrap();
        plan.write(root.path()).unwrap();
        let mode = |path: &str| root.path().join(path).metadata().unwrap().mode() & 0o7777;
        assert_eq!(
            (mode("tmp"), mode("root"), mode("etc/passwd")),
            (0o1777, 0o700, 0o644)
        );
        assert_eq!(fs::read_dir(root.path().join("usr")).unwrap().count(), 0);
    }
}
