//! Secrets and configuration files that a request may ask for.

use std::path::Path;

use dyno_api::dyno::DynoSpec;
use dyno_api::error::ApiError;
use dyno_api::secret::CONFIG_FILE_MAX_BYTES;

use super::invalid;
use super::mounts::{RESERVED, check_path, target};

/// P19: bytes of all configuration files of one dyno.
const MAX_CONFIG: usize = 512 << 10;
/// Files of either kind, and variables.
const MAX_FILES: usize = 64;
/// The largest id inside.
const MAX_ID: u32 = 65_535;

pub(super) fn check(spec: &DynoSpec) -> Result<(), ApiError> {
    let counts = [
        ("secrets", spec.secrets.len()),
        ("secret_env", spec.secret_env.len()),
        ("config_files", spec.config_files.len()),
    ];
    if let Some((list, length)) = counts.iter().find(|(_, length)| *length > MAX_FILES) {
        return Err(invalid(format!(
            "{length} {list}; at most {MAX_FILES} are allowed"
        )));
    }
    let mut targets: Vec<String> = spec.mounts.iter().map(target).map(str::to_owned).collect();
    for file in &spec.secrets {
        check_target("secret", &file.path(), &mut targets)?;
        check_mode(file.mode)?;
        let mut ids = [file.uid, file.gid].into_iter().flatten();
        if let Some(id) = ids.find(|id| *id > MAX_ID) {
            return Err(invalid(format!("there is no id {id} in a dyno"))
                .hint(format!("ids go up to {MAX_ID}")));
        }
    }
    let mut total = 0;
    for file in &spec.config_files {
        check_target("configuration file", &file.target, &mut targets)?;
        check_mode(file.mode)?;
        let Some(content) = &file.content else {
            return Err(invalid(format!("{} has no content", file.target)));
        };
        total += content.len();
        if content.len() > CONFIG_FILE_MAX_BYTES || total > MAX_CONFIG {
            return Err(invalid(format!(
                "configuration files have at most {CONFIG_FILE_MAX_BYTES} bytes each and {MAX_CONFIG} in all"
            ))
            .hint("use a volume or a bind mount for what is larger"));
        }
    }
    for variable in spec.secret_env.keys() {
        if variable.is_empty() || variable.contains(['=', '\0']) {
            return Err(invalid(format!(
                "{variable:?} is not the name of an environment variable"
            )));
        }
        if spec.env.contains_key(variable) {
            return Err(invalid(format!(
                "{variable} is given as a variable and as a secret"
            )));
        }
    }
    Ok(())
}

fn check_target(what: &str, path: &str, taken: &mut Vec<String>) -> Result<(), ApiError> {
    check_path(what, path)?;
    // Beneath /proc, /sys and /dev the kernel's own files are.
    let kernels = ["/proc", "/sys", "/dev"];
    let reserved = RESERVED.iter().any(|own| Path::new(own) == Path::new(path))
        || kernels.iter().any(|own| Path::new(path).starts_with(own));
    if reserved || path.ends_with('/') {
        return Err(invalid(format!("no {what} can be at {path}")));
    }
    if taken
        .iter()
        .any(|other| Path::new(other) == Path::new(path))
    {
        return Err(invalid(format!("two mounts on {path}")));
    }
    taken.push(path.to_owned());
    Ok(())
}

fn check_mode(mode: Option<u32>) -> Result<(), ApiError> {
    match mode {
        Some(mode) if mode & !0o777 != 0 => Err(invalid(format!(
            "{mode:o} are no permission bits of a file: at most 777, octal"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::Mount;
    use dyno_api::secret::{ConfigFile, SecretFile};

    use super::*;

    fn secret(name: &str, target: Option<&str>) -> SecretFile {
        SecretFile {
            name: name.parse().unwrap(),
            target: target.map(str::to_owned),
            mode: None,
            uid: None,
            gid: None,
        }
    }

    fn file(target: &str, content: &str) -> ConfigFile {
        ConfigFile {
            target: target.to_owned(),
            content: Some(content.to_owned()),
            mode: None,
        }
    }

    fn refusal(change: impl FnOnce(&mut DynoSpec)) -> String {
        let mut spec = DynoSpec {
            secrets: vec![secret("db", None)],
            config_files: vec![file("/etc/app.toml", "x = 1\n")],
            ..DynoSpec::default()
        };
        assert_eq!(check(&spec), Ok(()));
        change(&mut spec);
        check(&spec).unwrap_err().message
    }

    #[test]
    fn what_cannot_be_given_is_refused_with_the_value() {
        for target in ["../x", "/dev/x", "/proc/self/x", "/", "/a/"] {
            refusal(|spec| spec.secrets[0].target = Some(target.into()));
            refusal(|spec| spec.config_files[0].target = target.into());
        }
        assert!(refusal(|spec| spec.secrets.push(secret("db", None))).contains("/run/secrets/db"));
        assert!(refusal(|spec| spec.secrets[0].mode = Some(0o4755)).contains("4755"));
        assert!(refusal(|spec| spec.secrets[0].uid = Some(65_536)).contains("65536"));
        let taken = refusal(|spec| {
            let target = "/etc/app.toml".to_owned();
            spec.mounts.push(Mount::Tmpfs {
                target,
                size_bytes: None,
            });
        });
        assert!(taken.contains("/etc/app.toml"), "{taken}");
    }

    #[test]
    fn configuration_files_are_small_and_have_content() {
        refusal(|spec| spec.config_files[0].content = None);
        let large = "x".repeat(CONFIG_FILE_MAX_BYTES);
        refusal(|spec| spec.config_files[0].content = Some(format!("{large}x")));
        refusal(|spec| {
            for number in 0..3 {
                spec.config_files.push(file(&format!("/{number}"), &large));
            }
        });
    }

    #[test]
    fn a_variable_has_one_meaning() {
        let name = || "db".parse().unwrap();
        refusal(|spec| drop(spec.secret_env.insert("A=B".into(), name())));
        let twice = refusal(|spec| {
            spec.env.insert("PASSWORD".into(), "x".into());
            spec.secret_env.insert("PASSWORD".into(), name());
        });
        assert!(twice.contains("PASSWORD"), "{twice}");
    }
}
