//! What has to be done so that what is there becomes what is wanted. Pure: nothing is
//! asked and nothing is touched here.

use std::collections::{BTreeMap, BTreeSet};

use dyno_api::dyno::{Dyno, DynoSpec, Phase};
use dyno_api::image::Image;
use dyno_api::name::DynoName;
use dyno_api::secret::SecretName;
use serde::Serialize;
use serde_json::Value;

use super::{App, Wanted};
use crate::failure::{Failure, code};
use crate::value::reference;

/// What is on the host.
#[derive(Debug, Default)]
pub(crate) struct There {
    /// Every dyno; those of the app with what their files hold.
    pub(crate) dynos: Vec<Dyno>,
    /// Names of volumes.
    pub(crate) volumes: BTreeSet<DynoName>,
    /// Images.
    pub(crate) images: Vec<Image>,
    /// Names of secrets, where the app brings any along.
    pub(crate) secrets: BTreeSet<SecretName>,
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    /// The app.
    pub(crate) app: DynoName,
    /// Volumes that are made.
    pub(crate) volumes: Vec<DynoName>,
    /// Secrets that the app brings along and that are not there yet.
    pub(crate) secrets: Vec<SecretName>,
    /// What becomes of each dyno: those that go, then the others in the order in which
    /// they are started.
    pub(crate) dynos: Vec<Step>,
}

/// What becomes of one dyno.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Step {
    /// Its service.
    pub(crate) service: DynoName,
    /// Its name.
    pub(crate) name: DynoName,
    /// What becomes of it.
    pub(crate) action: Action,
    /// What is another thing than before, where it is replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) differences: Vec<Difference>,
    /// What it shall be; none where it goes.
    #[serde(skip)]
    pub(crate) spec: Option<Box<DynoSpec>>,
}

/// What can become of a dyno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// There is none.
    Create,
    /// There is another one of this name.
    Replace,
    /// It is as it shall be, but does not run.
    Start,
    /// It is left alone.
    Keep,
    /// Nobody wants it any more.
    Remove,
}

/// A field of a specification that is another one, in the words of the API.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// The field, such as `env.LEVEL`.
    pub(crate) field: String,
    /// What it was; null where it was not given.
    pub(crate) old: Value,
    /// What it shall be.
    pub(crate) new: Value,
}

/// A dyno of a wanted name that is none of the app's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name {name} belongs to a dyno that is not of the app {app}")]
pub(crate) struct Taken {
    pub(crate) name: DynoName,
    app: DynoName,
}

impl From<Taken> for Failure {
    fn from(taken: Taken) -> Self {
        Self::new(taken.to_string())
            .with_code(code::CONFLICT)
            .hint(format!(
                "dyno rm {}, or another name for the app",
                taken.name
            ))
    }
}

/// What has to be done for the services that are `chosen`. Dynos of the app that no
/// service wants go, where `all` are chosen.
///
/// # Errors
/// [`Taken`].
pub(crate) fn plan(
    app: &App,
    there: &There,
    chosen: &BTreeSet<DynoName>,
    all: bool,
) -> Result<Plan, Taken> {
    let wanted: Vec<Wanted> = app
        .wanted()
        .into_iter()
        .filter(|wanted| chosen.contains(&wanted.service))
        .collect();
    let names: BTreeSet<&DynoName> = wanted.iter().map(|wanted| &wanted.name).collect();
    let of_app = there.dynos.iter().rev();
    let mut dynos: Vec<Step> = of_app
        .filter_map(|dyno| {
            let service = dyno.spec.service.as_ref()?;
            let goes = service.app == app.name
                && !names.contains(&dyno.name)
                && (all || chosen.contains(&service.name));
            goes.then(|| Step {
                service: service.name.clone(),
                name: dyno.name.clone(),
                action: Action::Remove,
                differences: Vec::new(),
                spec: None,
            })
        })
        .collect();
    for wanted in &wanted {
        dynos.push(step(app, there, wanted)?);
    }
    let mounted: BTreeSet<DynoName> = wanted.iter().flat_map(|w| volumes_of(&w.spec)).collect();
    let volumes = app.volumes.iter().filter(|volume| {
        let used = all || mounted.contains(&volume.name);
        used && !volume.external && !there.volumes.contains(&volume.name)
    });
    let secrets = app.secrets.iter().map(|secret| secret.name.clone());
    Ok(Plan {
        app: app.name.clone(),
        volumes: volumes.map(|volume| volume.name.clone()).collect(),
        secrets: secrets
            .filter(|name| !there.secrets.contains(name))
            .collect(),
        dynos,
    })
}

fn volumes_of(spec: &DynoSpec) -> Vec<DynoName> {
    let volume = |mount: &dyno_api::dyno::Mount| match mount {
        dyno_api::dyno::Mount::Volume { name, .. } => Some(name.clone()),
        _ => None,
    };
    spec.mounts.iter().filter_map(volume).collect()
}

fn step(app: &App, there: &There, wanted: &Wanted) -> Result<Step, Taken> {
    let mut spec = wanted.spec.clone();
    resolve(&mut spec, &there.images);
    let found = there.dynos.iter().find(|dyno| dyno.name == wanted.name);
    let (action, differences) = match found {
        None => (Action::Create, Vec::new()),
        Some(dyno) if dyno.spec.service.as_ref().map(|s| &s.app) != Some(&app.name) => {
            return Err(Taken {
                name: wanted.name.clone(),
                app: app.name.clone(),
            });
        }
        Some(dyno) => match differences(&dyno.spec, &spec) {
            differences if !differences.is_empty() => (Action::Replace, differences),
            _ if runs(dyno.status.phase) => (Action::Keep, Vec::new()),
            _ => (Action::Start, Vec::new()),
        },
    };
    Ok(Step {
        service: wanted.service.clone(),
        name: wanted.name.clone(),
        action,
        differences,
        spec: Some(Box::new(spec)),
    })
}

/// Notes in the specification which image its reference means now, if one is there.
pub(super) fn resolve(spec: &mut DynoSpec, images: &[Image]) {
    let wanted = reference::full(&spec.image);
    let found = images.iter().find(|image| {
        let platform = spec.platform.as_ref();
        image.reference == wanted && platform.is_none_or(|platform| *platform == image.platform)
    });
    if let Some(service) = &mut spec.service {
        service.image_digest = found.map(|image| image.digest.clone());
    }
}

/// Whether hostd sees to it that it runs.
fn runs(phase: Phase) -> bool {
    match phase {
        Phase::Waiting | Phase::Running | Phase::Backoff => true,
        Phase::Created | Phase::Stopping | Phase::Exited | Phase::Lost | Phase::Failed => false,
    }
}

/// In which fields the specifications differ.
pub(super) fn differences(old: &DynoSpec, new: &DynoSpec) -> Vec<Difference> {
    let value = |spec: &DynoSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut found = Vec::new();
    compare(&value(old), &value(new), String::new(), &mut found);
    found
}

fn compare(old: &Value, new: &Value, field: String, found: &mut Vec<Difference>) {
    let empty = serde_json::Map::new();
    let (before, after) = match (old, new) {
        (Value::Object(before), Value::Object(after)) => (before, after),
        // An object that is absent has no fields.
        (Value::Object(before), Value::Null) => (before, &empty),
        (Value::Null, Value::Object(after)) => (&empty, after),
        _ if old == new => return,
        _ => {
            return found.push(Difference {
                field,
                old: old.clone(),
                new: new.clone(),
            });
        }
    };
    let keys: BTreeMap<&String, ()> = before.keys().chain(after.keys()).map(|k| (k, ())).collect();
    for key in keys.into_keys() {
        let field = match field.as_str() {
            "" => key.clone(),
            above => format!("{above}.{key}"),
        };
        let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        compare(&of(before), &of(after), field, found);
    }
}

#[cfg(test)]
mod tests;
