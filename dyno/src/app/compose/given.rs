//! Secrets and configuration files: what the app brings along, and what a service is
//! given of it (Compose Specification, secrets, configs).

use std::collections::BTreeMap;
use std::path::PathBuf;

use dyno_api::name::DynoName;
use dyno_api::secret::{
    CONFIG_FILE_MAX_BYTES, ConfigFile, SECRET_MAX_BYTES, SecretFile, SecretName,
};

use super::super::document::{Fields, Item, Value};
use super::super::files;
use super::super::own_secret::OwnSecret;
use super::variables::Variables;
use super::{Scope, entries};
use crate::value::given::{self, GivenError};
use crate::value::mount;

/// Who may read a secret where a service does not say: all inside.
const SECRET_MODE: u32 = 0o444;

/// The secrets and configuration files of an app, by their keys in its file.
#[derive(Debug, Default)]
pub(super) struct Given {
    secrets: BTreeMap<String, Secret>,
    configs: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Secret {
    /// On the host.
    name: SecretName,
    /// What the app brings along; none where somebody else sets it.
    own: Option<OwnSecret>,
}

/// Where the bytes of a secret or configuration file come from.
enum Source {
    File(PathBuf),
    Text(String),
}

/// A service's wish for one of them.
struct Wish {
    key: String,
    target: Option<String>,
    mode: Option<u32>,
}

impl Given {
    /// What the top level says.
    pub(super) fn read(fields: &mut Fields<'_>, app: &DynoName, scope: &mut Scope<'_>) -> Self {
        let mut given = Self::default();
        for (key, item) in entries(fields, "secrets") {
            if let Some(secret) = secret(&key, &item, app, scope) {
                given.secrets.insert(key, secret);
            }
        }
        for (key, item) in entries(fields, "configs") {
            if let Some(content) = config(&item, scope) {
                given.configs.insert(key, content);
            }
        }
        given
    }

    /// Secrets that the app brings along.
    pub(super) fn own_secrets(&self) -> Vec<OwnSecret> {
        let own = |secret: &Secret| secret.own.clone();
        self.secrets.values().filter_map(own).collect()
    }

    /// Secrets of a service as files.
    pub(super) fn secrets(&self, fields: &mut Fields<'_>) -> Vec<SecretFile> {
        fields.list("secrets", |item| {
            let (mut uid, mut gid) = (None, None);
            let wish = wish(item, |fields| {
                uid = fields.read("uid", |item| item.parsed(given::parse_id));
                gid = fields.read("gid", |item| item.parsed(given::parse_id));
            })?;
            let Some(secret) = self.secrets.get(&wish.key) else {
                missing(item, &wish.key, "secrets");
                return None;
            };
            Some(SecretFile {
                name: secret.name.clone(),
                target: Some(wish.target.unwrap_or(wish.key)),
                mode: Some(wish.mode.unwrap_or(SECRET_MODE)),
                uid,
                gid,
            })
        })
    }

    /// Configuration files of a service.
    pub(super) fn configs(
        &self,
        fields: &mut Fields<'_>,
        variables: &mut Variables<'_>,
    ) -> Vec<ConfigFile> {
        fields.list("configs", |item| {
            let wish = wish(item, |_| {})?;
            let Some(content) = self.configs.get(&wish.key) else {
                missing(item, &wish.key, "configs");
                return None;
            };
            // Each service has a copy.
            item.take(variables.spend(content.len()))?;
            let target = wish.target.unwrap_or_else(|| format!("/{}", wish.key));
            Some(ConfigFile {
                target: item.take(mount::target_path(&target))?,
                content: Some(content.clone()),
                mode: wish.mode,
            })
        })
    }
}

fn missing(item: &Item<'_>, key: &str, place: &str) {
    item.wrong(format_args!("there is no {key:?} below the app's {place}"));
}

/// A key, or a table with it.
fn wish<'a>(item: &Item<'a>, more: impl FnOnce(&mut Fields<'a>)) -> Option<Wish> {
    let Value::Map(_) = item.node.value else {
        let (target, mode) = (None, None);
        return item.text().map(|key| Wish { key, target, mode });
    };
    let mut fields = item.fields()?;
    let key = fields.read("source", Item::text);
    if key.is_none() {
        item.wrong("source: it is missing");
    }
    let target = fields.read("target", Item::text);
    let mode = fields.read("mode", mode);
    more(&mut fields);
    fields.finish();
    Some(Wish {
        key: key?,
        target,
        mode,
    })
}

/// Permission bits in octal. A number without a 0 in front would be a decimal one, which
/// nobody means.
fn mode(item: &Item<'_>) -> Option<u32> {
    let number = matches!(item.node.value, Value::Number(_));
    item.parsed(|text| match text.strip_prefix("0o") {
        Some(octal) => given::parse_mode(octal),
        None if number && !text.starts_with('0') => Err(GivenError::Mode(text.to_owned())),
        None => given::parse_mode(text),
    })
}

fn secret(key: &str, item: &Item<'_>, app: &DynoName, scope: &mut Scope<'_>) -> Option<Secret> {
    let mut fields = item.fields()?;
    let external = fields.read("external", Item::flag).unwrap_or_default();
    let name: Option<SecretName> = match fields.take("name") {
        Some(name) => name.typed(),
        None if external => item.take(key.parse()),
        None => item.take(format!("{app}-{key}").parse()),
    };
    let source = match external {
        true => None,
        false => Some(source(item, &mut fields, scope)),
    };
    fields.ignore(|key| key == "labels" || key.starts_with("x-"));
    fields.finish();
    let name = name?;
    let own = match source {
        None => None,
        Some(source) => {
            let value = match source? {
                Source::File(path) => item.take(files::read_bytes(&path, SECRET_MAX_BYTES))?,
                Source::Text(text) => text.into_bytes(),
            };
            item.take(scope.variables.spend(value.len()))?;
            let name = name.clone();
            Some(OwnSecret { name, value })
        }
    };
    Some(Secret { name, own })
}

fn config(item: &Item<'_>, scope: &mut Scope<'_>) -> Option<String> {
    let mut fields = item.fields()?;
    let content = fields.read("content", Item::text);
    let source = match content {
        Some(content) => Some(Source::Text(content)),
        None => source(item, &mut fields, scope),
    };
    fields.ignore(|key| key == "labels" || key.starts_with("x-"));
    fields.finish();
    let content = match source? {
        Source::File(path) => item.take(files::read_text(&path, CONFIG_FILE_MAX_BYTES))?,
        Source::Text(text) => text,
    };
    item.take(scope.variables.spend(content.len()))?;
    Some(content)
}

fn source(item: &Item<'_>, fields: &mut Fields<'_>, scope: &Scope<'_>) -> Option<Source> {
    let file = fields.take("file");
    match (file, fields.take("environment")) {
        (Some(file), None) => Some(Source::File(scope.folder.join(file.text()?))),
        (None, Some(variable)) => {
            let name = variable.text()?;
            let value = scope.variables.get(&name);
            if value.is_none() {
                variable.wrong(format_args!("the variable {name} is not set"));
            }
            value.map(Source::Text)
        }
        _ => {
            item.wrong("one of file and environment is expected");
            None
        }
    }
}
