//! `cargo xtask dist`: what people install, made from a release build.
//!
//! ```text
//! target/dist/
//!   dyno-VERSION-x86_64-linux.tar.gz   bin, man pages, completions
//!   dyno_VERSION_amd64.deb             the same for Debian and Ubuntu
//!   SHA256SUMS
//! ```
//! Both hold the same bytes for the same commit: names are sorted, owners are root,
//! and times are the commit's (`SOURCE_DATE_EPOCH`,
//! <https://reproducible-builds.org/specs/source-date-epoch/>).

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};

/// What is installed, beside each other: hostd looks for the others in its own folder.
const PROGRAMS: [&str; 5] = ["dyno", "hostd", "dyno-runtime", "dyno-edge", "dyno-unpack"];

/// Those that are asked for their version; dyno-unpack speaks with hostd alone.
const TALKING: [&str; 4] = ["dyno", "hostd", "dyno-runtime", "dyno-edge"];

/// Make a tarball and a Debian package from a release build
#[derive(Debug, clap::Args)]
pub(crate) struct Dist {
    /// Folder of the programs
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "target/x86_64-unknown-linux-gnu/release"
    )]
    programs: PathBuf,
    /// Folder to write to
    #[arg(long, value_name = "FOLDER", default_value = "target/dist")]
    to: PathBuf,
}

impl Dist {
    /// Makes both, and runs what is in the tarball in a folder that has nothing else.
    pub(crate) fn run(&self) -> Result<()> {
        if self.to.exists() {
            fs::remove_dir_all(&self.to)
                .with_context(|| format!("removing {}", self.to.display()))?;
        }
        let stage = self.to.join("stage");
        self.stage(&stage.join("usr"))?;
        let version = version(&self.programs.join("dyno"))?;
        let epoch = epoch()?;
        let tarball = self.tarball(&stage, &version, &epoch)?;
        let package = self.package(&stage, &version, &epoch)?;
        fs::remove_dir_all(&stage)?;
        let sums = output(
            Command::new("sha256sum")
                .current_dir(&self.to)
                .args([&tarball, &package]),
        )?;
        put(&self.to.join("SHA256SUMS"), &sums.stdout, 0o644)?;
        runs_alone(&self.to.join(&tarball), &version)?;
        for name in [&tarball, &package] {
            let size = fs::metadata(self.to.join(name))?.len();
            println!("{} {:.1} MiB", self.to.join(name).display(), mib(size));
        }
        Ok(())
    }

    /// The tree below `/usr`.
    fn stage(&self, usr: &Path) -> Result<()> {
        for name in PROGRAMS {
            let built = self.programs.join(name);
            let to = usr.join("bin").join(name);
            fs::create_dir_all(usr.join("bin"))?;
            run(Command::new("strip").arg("-o").arg(&to).arg(&built))
                .with_context(|| format!("is there a release build in {}?", built.display()))?;
            fs::set_permissions(&to, Permissions::from_mode(0o755))?;
            static_only(&to)?;
            without_failpoints(&to)?;
        }
        let program = |name: &str| usr.join("bin").join(name);
        let share = usr.join("share");
        for (name, section) in [("dyno", "man1"), ("hostd", "man8")] {
            let pages = share.join("man").join(section);
            run(Command::new(program(name))
                .args(["man", "--to"])
                .arg(&pages))?;
            run(Command::new("gzip").args(["-9nr"]).arg(&pages))?;
        }
        for (shell, path) in [
            ("bash", "bash-completion/completions/dyno"),
            ("zsh", "zsh/vendor-completions/_dyno"),
            ("fish", "fish/vendor_completions.d/dyno.fish"),
        ] {
            let script = output(Command::new(program("dyno")).args(["completion", shell]))?;
            put(&share.join(path), &script.stdout, 0o644)?;
        }
        let doc = share.join("doc/dyno");
        for (from, to) in [
            ("README.md", "README.md"),
            ("CHANGELOG.md", "changelog"),
            ("LICENSE", "copyright"),
        ] {
            put(&doc.join(to), &fs::read(from)?, 0o644)?;
        }
        run(Command::new("gzip").arg("-9n").arg(doc.join("changelog")))
    }

    fn tarball(&self, stage: &Path, version: &str, epoch: &str) -> Result<String> {
        let folder = format!("dyno-{version}-x86_64-linux");
        let name = format!("{folder}.tar.gz");
        run(Command::new("tar")
            .args(["--create", "--sort=name", "--owner=0", "--group=0"])
            .args([
                "--numeric-owner",
                "--format=gnu",
                "--use-compress-program=gzip -9n",
            ])
            .arg(format!("--mtime=@{epoch}"))
            .arg(format!("--transform=s,^usr,{folder},"))
            .arg("--file")
            .arg(self.to.join(&name))
            .arg("--directory")
            .arg(stage)
            .arg("usr"))?;
        Ok(name)
    }

    /// As deb(5) and the Debian policy, chapter 5 and 6, say.
    fn package(&self, stage: &Path, version: &str, epoch: &str) -> Result<String> {
        let name = format!("dyno_{version}_amd64.deb");
        let size = output(
            Command::new("du")
                .args(["-sk", "--apparent-size"])
                .arg(stage),
        )?;
        let size = String::from_utf8(size.stdout)?;
        let size = size.split_whitespace().next().context("du said nothing")?;
        let control = include_str!("dist/control")
            .replace("@VERSION@", version)
            .replace("@SIZE@", size);
        put(
            &stage.join("etc/needrestart/conf.d/dyno.conf"),
            include_bytes!("../../hostd/src/systemd/needrestart.conf"),
            0o644,
        )?;
        let debian = stage.join("DEBIAN");
        let own = b"/etc/needrestart/conf.d/dyno.conf\n";
        put(&debian.join("conffiles"), own, 0o644)?;
        put(&debian.join("control"), control.as_bytes(), 0o644)?;
        for (script, text) in [
            ("postinst", include_str!("dist/postinst")),
            ("prerm", include_str!("dist/prerm")),
            ("postrm", include_str!("dist/postrm")),
        ] {
            put(&debian.join(script), text.as_bytes(), 0o755)?;
        }
        run(Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Zxz"])
            .arg(stage)
            .arg(self.to.join(&name))
            .env("SOURCE_DATE_EPOCH", epoch))?;
        Ok(name)
    }
}

/// A dynamic program has an interpreter, which the machine may lack, elf(5).
fn static_only(program: &Path) -> Result<()> {
    let headers = output(
        Command::new("readelf")
            .args(["--program-headers", "--wide"])
            .arg(program),
    )?;
    let headers = String::from_utf8_lossy(&headers.stdout);
    ensure!(
        headers.contains("LOAD") && !headers.contains("INTERP"),
        "{} is not static",
        program.display()
    );
    Ok(())
}

/// What a test can have end by a variable is no release. In the program as it was built,
/// that would be the variable's name.
fn without_failpoints(program: &Path) -> Result<()> {
    let bytes = fs::read(program)?;
    let variable = b"DYNO_FAILPOINT";
    ensure!(
        !bytes.windows(variable.len()).any(|part| part == variable),
        "{} has crash points: it was built with debug assertions",
        program.display()
    );
    Ok(())
}

/// Unpacks the tarball into an empty folder and runs what is in it as if that were all
/// there is.
fn runs_alone(tarball: &Path, version: &str) -> Result<()> {
    let folder = tarball.with_extension("check");
    fs::create_dir_all(&folder)?;
    run(Command::new("tar")
        .arg("--extract")
        .arg("--file")
        .arg(tarball)
        .arg("--directory")
        .arg(&folder)
        .arg("--strip-components=1"))?;
    for name in TALKING {
        let said = output(
            Command::new("chroot")
                .arg(&folder)
                .arg(format!("/bin/{name}"))
                .arg("--version"),
        )?;
        let said = String::from_utf8_lossy(&said.stdout);
        ensure!(
            said.lines()
                .next()
                .is_some_and(|line| line.contains(version)),
            "{name} says {said:?}, which is not {version}"
        );
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Of a program, by what it says.
fn version(program: &Path) -> Result<String> {
    let said = output(Command::new(program).arg("--version"))?;
    let said = String::from_utf8(said.stdout)?;
    let version = said.split_whitespace().last();
    Ok(version.context("dyno has no version")?.to_owned())
}

/// Seconds since 1970: the environment's, else those of the last commit.
fn epoch() -> Result<String> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    let time = output(Command::new("git").args(["log", "-1", "--format=%ct"]))?;
    Ok(String::from_utf8(time.stdout)?.trim().to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Writes a file and the folders above it.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}\n{said}", output.status);
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This one has the variable's name in it, as a program with crash points has.
    #[test]
    fn a_program_with_crash_points_is_refused() {
        let own = std::env::current_exe().unwrap();
        let refused = without_failpoints(&own).unwrap_err().to_string();
        assert!(refused.contains("crash points"), "{refused}");
        without_failpoints(Path::new("/bin/true")).unwrap();
    }
}
