//! `compose.yaml` (Compose Specification): from its text to an app.
//!
//! ```text
//! text ─▶ yaml ─▶ Node ─▶ interpolate ─▶ Node ─▶ service, given, volumes ─▶ App
//!                              ▲
//!                   the caller's variables, .env
//! ```
//! docs/up.md has what is read of the specification. All else is refused by name: what
//! were left out without a word would be missed by somebody.

mod dotenv;
mod given;
mod health;
mod interpolate;
mod limits;
mod log;
mod mounts;
mod ports;
mod process;
mod service;
mod template;
mod variables;

use std::path::Path;

use dyno_api::name::DynoName;

use self::given::Given;
use self::variables::Variables;
use super::document::{Fields, Item, Node, Problems, Value};
use super::volumes::Volumes;
use super::{App, Draft, yaml};
use crate::failure::Failure;

/// The app's name as a variable.
const PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";

/// What a file describes, and what its author should know.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) app: App,
    /// Variables that are wanted and not set.
    pub(super) unset: Vec<String>,
}

/// The app that a text describes. Relative paths are seen from `folder`, where `.env` is;
/// `own` is the caller's environment.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub(super) fn read(
    text: &str,
    file: String,
    folder: &Path,
    own: &dyn Fn(&str) -> Option<String>,
) -> Result<Read, Failure> {
    let problems = Problems::new(file);
    let mut variables = Variables::new(own);
    variables
        .add_dotenv(folder)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let Some(mut root) = yaml::parse(text, &problems) else {
        return problems
            .or(())
            .and(Err(Failure::usage("the file cannot be read")));
    };
    let name = name(&mut root, folder, &mut variables, &problems);
    interpolate::all_but_name(&mut root, &mut variables, &problems);
    let mut scope = Scope {
        folder,
        volumes: Volumes::default(),
        given: Given::default(),
        variables,
    };
    let draft = app(&Item::root(&root, &problems), name, &mut scope);
    Ok(Read {
        app: draft.finish(&problems)?,
        unset: scope.variables.into_unset().into_iter().collect(),
    })
}

/// What services are read with.
struct Scope<'a> {
    folder: &'a Path,
    volumes: Volumes,
    given: Given,
    variables: Variables<'a>,
}

/// The app's name, which is a variable for all else.
fn name(
    root: &mut Node,
    folder: &Path,
    variables: &mut Variables<'_>,
    problems: &Problems,
) -> Option<DynoName> {
    interpolate::name(root, variables, problems);
    let root = Item::root(root, problems);
    let Value::Map(_) = root.node.value else {
        problems.note(
            root.node.place,
            format_args!("a table is expected, not {}", root.node.value),
        );
        return None;
    };
    let given = root.fields().and_then(|mut fields| fields.take("name"));
    let name = match given {
        Some(given) => given.typed(),
        None => super::name_of_folder(&root, folder),
    };
    if let Some(name) = &name {
        variables.fix(PROJECT_NAME, name.as_str());
    }
    name
}

fn app(root: &Item<'_>, name: Option<DynoName>, scope: &mut Scope<'_>) -> Draft {
    let mut draft = Draft::default();
    let Some(name) = name else {
        return draft;
    };
    let Some(mut fields) = root.fields() else {
        return draft;
    };
    draft.name = Some(name.clone());
    // The name was read. The version is a word of the past.
    fields.ignore(|key| ["name", "version"].contains(&key) || key.starts_with("x-"));
    scope.volumes = Volumes::new(name.clone());
    for (key, item) in entries(&mut fields, "volumes") {
        mounts::declare(&key, &item, &mut scope.volumes);
    }
    scope.given = Given::read(&mut fields, &name, scope);
    match fields.take("services") {
        Some(services) => {
            for (name, item) in services.entries() {
                let name = item.take(name.parse());
                let read = service::read(&item, scope);
                draft.add(name, read, &item);
            }
        }
        None => root
            .problems
            .note(root.node.place, "services: there is none"),
    }
    fields.finish();
    draft.volumes = std::mem::take(&mut scope.volumes);
    draft.secrets = scope.given.own_secrets();
    draft
}

fn entries<'a>(fields: &mut Fields<'a>, key: &str) -> Vec<(String, Item<'a>)> {
    let entries = fields.take(key).map(|item| item.entries());
    entries.unwrap_or_default()
}

/// Takes a key that changes nothing if it says this, and can say nothing else.
fn only(fields: &mut Fields<'_>, key: &str, accepted: &[&str]) {
    let Some(item) = fields.take(key) else { return };
    let Some(text) = item.text() else { return };
    if !accepted.contains(&text.as_str()) {
        let accepted = accepted.join(" or ");
        item.wrong(format_args!(
            "{text:?} is not supported; accepted is {accepted}"
        ));
    }
}

#[cfg(test)]
mod tests;
