//! Apps: many dynos that one file describes and that are brought up together.
//!
//! ```text
//!  dyno.toml ────▶ toml ───┬─▶ App ─▶ plan ─┬─▶ show        what a person reads
//!  compose.yaml ─▶ compose ─┘            ▲   └─▶ carry_out ─▶ arrival
//!                                        │
//!            hostd: dynos, images, volumes, secrets
//! ```
//! A reader turns a text into an [`App`] and refuses all that it does not know, with
//! its place. What is to be done follows from it and from what is there, as a pure
//! function; only then is anything touched.

mod arrival;
mod carry_out;
mod compose;
mod count;
mod document;
mod file;
mod files;
mod order;
mod own_secret;
mod plan;
mod show;
mod toml;
mod volumes;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dyno_api::dyno::{Dependency, DynoSpec, Until};
use dyno_api::name::DynoName;

use self::document::{Item, Place, Problems, clean};
use self::own_secret::OwnSecret;
use self::volumes::Volumes;
use crate::failure::Failure;

pub(crate) use self::carry_out::{CarryOut, bring_down};
pub(crate) use self::file::load;
pub(crate) use self::plan::{Plan, There, plan};
use self::volumes::Volume;

/// Dynos of one app.
const MAX_DYNOS: u32 = 1000;

/// What one file describes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct App {
    /// Its name.
    pub(crate) name: DynoName,
    /// Its services, each behind those that it comes after.
    services: Vec<Service>,
    /// Its volumes.
    pub(crate) volumes: Vec<Volume>,
    /// Secrets that its file brings along.
    pub(crate) secrets: Vec<OwnSecret>,
}

/// A process type of an app.
#[derive(Debug, Clone, PartialEq)]
struct Service {
    name: DynoName,
    /// So many copies of it run.
    count: u32,
    /// Services that it comes after.
    after: Vec<ServiceAfter>,
    /// What each copy is, apart from its name and whom it comes after.
    spec: DynoSpec,
    /// Where it is in the file.
    path: String,
    place: Place,
}

/// A service that another one comes after, and how far it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServiceAfter {
    service: DynoName,
    until: Until,
}

/// One dyno as an app wants it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    /// Its service.
    pub(crate) service: DynoName,
    /// Its name.
    pub(crate) name: DynoName,
    /// What it is.
    pub(crate) spec: DynoSpec,
}

impl Service {
    /// One that is read from there.
    fn new(item: &Item<'_>) -> Self {
        Self {
            // Known when it is added.
            name: placeholder(),
            count: 1,
            after: Vec::new(),
            spec: DynoSpec::default(),
            path: item.path.clone(),
            place: item.node.place,
        }
    }
}

impl App {
    /// Its dynos, each behind those that it comes after: `APP-SERVICE-N`.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        let counts: BTreeMap<_, _> = self.services.iter().map(|s| (&s.name, s.count)).collect();
        let mut wanted = Vec::new();
        for service in &self.services {
            let after: Vec<Dependency> = service
                .after
                .iter()
                .flat_map(|after| {
                    let copies = counts.get(&after.service).copied().unwrap_or_default();
                    let dependency = |name| Dependency {
                        name,
                        until: after.until,
                    };
                    copies_of(&self.name, &after.service, copies).map(dependency)
                })
                .collect();
            for name in copies_of(&self.name, &service.name, service.count) {
                let spec = DynoSpec {
                    name: Some(name.clone()),
                    service: Some(dyno_api::dyno::Service {
                        app: self.name.clone(),
                        name: service.name.clone(),
                        image_digest: None,
                    }),
                    after: after.clone(),
                    ..service.spec.clone()
                };
                wanted.push(Wanted {
                    service: service.name.clone(),
                    name,
                    spec,
                });
            }
        }
        wanted
    }

    /// A specification for each image of these services.
    pub(crate) fn images(&self, chosen: &BTreeSet<DynoName>) -> Vec<DynoSpec> {
        let specs = self.services.iter().filter(|s| chosen.contains(&s.name));
        let images: BTreeMap<_, _> = specs
            .map(|service| &service.spec)
            .map(|spec| ((&spec.image, &spec.platform), spec))
            .collect();
        images.into_values().cloned().collect()
    }

    /// These services and all that they come after; all where none is named.
    ///
    /// # Errors
    /// The name that no service has.
    pub(crate) fn with_those_before(
        &self,
        named: &[DynoName],
    ) -> Result<BTreeSet<DynoName>, Failure> {
        let mut chosen = BTreeSet::new();
        let mut left: Vec<&DynoName> = match named {
            [] => self.services.iter().map(|service| &service.name).collect(),
            named => named.iter().collect(),
        };
        while let Some(name) = left.pop() {
            let Some(service) = self.services.iter().find(|s| s.name == *name) else {
                let known: Vec<_> = self.services.iter().map(|s| s.name.as_str()).collect();
                return Err(
                    Failure::usage(format!("the app {} has no service {name}", self.name))
                        .hint(format!("one of: {}", known.join(", "))),
                );
            };
            if chosen.insert(name.clone()) {
                left.extend(service.after.iter().map(|after| &after.service));
            }
        }
        Ok(chosen)
    }
}

/// The names of a service's copies, in order.
fn copies_of(app: &DynoName, service: &DynoName, count: u32) -> impl Iterator<Item = DynoName> {
    // That they are names was found out when the file was read.
    (1..=count).filter_map(move |number| copy_name(app, service, number).ok())
}

fn copy_name(
    app: &DynoName,
    service: &DynoName,
    number: u32,
) -> Result<DynoName, dyno_api::name::NameError> {
    format!("{app}-{service}-{number}").parse()
}

fn placeholder() -> DynoName {
    "service".parse().expect("a constant that is a name")
}

/// An app while its file is read.
#[derive(Debug, Default)]
struct Draft {
    name: Option<DynoName>,
    services: Vec<Service>,
    volumes: Volumes,
    secrets: Vec<OwnSecret>,
}

impl Draft {
    /// Adds a service, if there is anything to add.
    fn add(&mut self, name: Option<DynoName>, service: Option<Service>, item: &Item<'_>) {
        let (Some(name), Some(service), Some(app)) = (name, service, &self.name) else {
            return;
        };
        if let Err(error) = copy_name(app, &name, service.count.max(1)) {
            item.wrong(format_args!("{app}-{name}-{}: {error}", service.count));
        }
        self.services.push(Service { name, ..service });
    }

    /// The app, if nothing is wrong with it.
    ///
    /// # Errors
    /// All that is.
    fn finish(self, problems: &Problems) -> Result<App, Failure> {
        let index: BTreeMap<&DynoName, usize> =
            self.services.iter().map(|s| &s.name).zip(0..).collect();
        for service in &self.services {
            for after in &service.after {
                if !index.contains_key(&after.service) {
                    let (path, name) = (&service.path, &after.service);
                    let what =
                        format!("{path}: it comes after {name}, and there is no such service");
                    problems.note(service.place, what);
                }
            }
        }
        let dynos = self
            .services
            .iter()
            .map(|service| service.count)
            .sum::<u32>();
        if dynos > MAX_DYNOS {
            let place = self.services.last().map(|service| service.place);
            let place = place.unwrap_or(Place { line: 1, column: 1 });
            problems.note(
                place,
                format!("{dynos} dynos; an app has at most {MAX_DYNOS}"),
            );
        }
        let before = |service: usize| {
            let after = self.services[service].after.iter();
            after
                .filter_map(|after| index.get(&after.service).copied())
                .collect()
        };
        let ordered = order::order(self.services.len(), before);
        let ordered = ordered.unwrap_or_else(|in_circle| {
            let Service { path, place, .. } = &self.services[in_circle];
            problems.note(*place, format!("{path}: it would come after itself"));
            Vec::new()
        });
        drop(index);
        problems.or(())?;
        let mut services: Vec<Option<Service>> = self.services.into_iter().map(Some).collect();
        Ok(App {
            name: self
                .name
                .ok_or_else(|| Failure::usage("the app has no name"))?,
            services: ordered
                .into_iter()
                .filter_map(|index| services[index].take())
                .collect(),
            volumes: self.volumes.into_list(),
            secrets: self.secrets,
        })
    }
}

/// The name of an app whose file says none: that of its folder.
fn name_of_folder(root: &Item<'_>, folder: &Path) -> Option<DynoName> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let label: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let parsed = label.trim_matches('-').parse();
    parsed
        .map_err(|error| {
            let name = clean(&name);
            let what =
                format!("name: it is missing, and the folder's name {name:?} is none: {error}");
            root.problems.note(root.node.place, what);
        })
        .ok()
}
