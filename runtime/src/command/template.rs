//! `spec`: a configuration to begin with, as runc's.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use super::Failure;

// Arguments of `spec`.
#[derive(Debug, clap::Args)]
pub(super) struct Template {
    /// Folder to write it to
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    rootless: bool,
}

/// Writes `config.json`, unless there is one.
pub(super) fn write(args: &Template) -> Result<(), Failure> {
    let path = args.bundle.join("config.json");
    let mut spec = match args.rootless {
        false => Spec::default(),
        true => {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            Spec::rootless(uid.as_raw(), gid.as_raw())
        }
    };
    spec.set_hostname(Some("dyno".to_owned()));
    if let Some(process) = spec.process_mut() {
        process.set_terminal(Some(true));
    }
    let mut text = serde_json::to_vec_pretty(&spec)?;
    text.push(b'\n');
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.map_err(|error| format!("write {}: {error}", path.display()))?;
    file.write_all(&text)?;
    Ok(())
}
