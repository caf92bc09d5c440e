//! Doing what a plan says, and taking an app away.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dyno_api::client::{self, Client};
use dyno_api::dyno::{Dyno, DynoSpec};
use dyno_api::error::ErrorKind;
use dyno_api::name::DynoName;
use dyno_api::query::{CreateQuery, RemoveQuery, StopQuery};
use dyno_api::volume::VolumeSpec;
use tokio::time::Instant;

use super::own_secret::OwnSecret;
use super::plan::{self, Action, Plan, Step};
use super::{App, arrival, order};
use crate::command::run::{self, PullWhen};
use crate::failure::Failure;

/// A plan that is to be carried out.
#[derive(Debug)]
pub(crate) struct CarryOut<'a> {
    pub(crate) client: &'a Client,
    pub(crate) app: &'a App,
    pub(crate) plan: Plan,
    pub(crate) pull: PullWhen,
    /// So long everything may take to come up, from the last start on.
    pub(crate) timeout: Duration,
}

impl CarryOut<'_> {
    /// Does everything, and waits until all that the plan leaves are up. What was
    /// done stays done where something fails: the next plan goes on from there.
    ///
    /// # Errors
    /// The first [`Failure`].
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        self.fetch().await?;
        self.make_volumes().await?;
        self.set_secrets().await?;
        let going = self.steps(|action| action == Action::Remove);
        let names = going.map(|step| step.name.to_string()).collect();
        end_all(self.client, names).await?;
        let several = self.replaced_more_than_once();
        for step in &self.plan.dynos {
            self.one(step).await?;
            // The others of a service work on until this one does.
            if step.action == Action::Replace && several.contains(&step.service) {
                self.is_up(step, Instant::now()).await?;
            }
        }
        let started = Instant::now();
        for step in self.steps(|action| action != Action::Remove) {
            self.is_up(step, started).await?;
        }
        Ok(())
    }

    fn steps(&self, which: impl Fn(Action) -> bool) -> impl Iterator<Item = &Step> {
        let steps = self.plan.dynos.iter();
        steps.filter(move |step| which(step.action))
    }

    fn replaced_more_than_once(&self) -> BTreeSet<DynoName> {
        let mut counts: BTreeMap<&DynoName, usize> = BTreeMap::new();
        for step in self.steps(|action| action == Action::Replace) {
            *counts.entry(&step.service).or_default() += 1;
        }
        let several = counts.into_iter().filter(|(_, count)| *count > 1);
        several.map(|(service, _)| service.clone()).collect()
    }

    /// Has every image here before anything is ended.
    async fn fetch(&mut self) -> Result<(), Failure> {
        if self.pull == PullWhen::Never {
            return Ok(());
        }
        let mut pulled = BTreeSet::new();
        for spec in self.plan.dynos.iter().filter_map(|step| step.made()) {
            let image = (spec.image.clone(), spec.platform.clone());
            if pulled.contains(&image) || run::is_there(self.client, spec).await? {
                continue;
            }
            run::pull_image(self.client, spec).await?;
            pulled.insert(image);
        }
        if pulled.is_empty() {
            return Ok(());
        }
        let images = self.client.images().await?;
        for step in &mut self.plan.dynos {
            if let Some(spec) = &mut step.spec {
                plan::resolve(spec, &images);
            }
        }
        Ok(())
    }

    async fn make_volumes(&self) -> Result<(), Failure> {
        for name in &self.plan.volumes {
            let wanted = self.app.volumes.iter().find(|volume| volume.name == *name);
            let spec = VolumeSpec {
                name: name.clone(),
                quota: wanted.map(|volume| volume.quota).unwrap_or_default(),
                from: None,
                live: false,
                backup: wanted
                    .map(|volume| volume.backup.clone())
                    .unwrap_or_default(),
            };
            self.client.create_volume(&spec).await?;
        }
        Ok(())
    }

    /// Nobody is told what a secret is, so also one that is there gets its value.
    async fn set_secrets(&self) -> Result<(), Failure> {
        for OwnSecret { name, value } in &self.app.secrets {
            let value = value.clone().into();
            self.client.set_secret(name.as_str(), value).await?;
        }
        Ok(())
    }

    async fn one(&self, step: &Step) -> Result<(), Failure> {
        let name = step.name.as_str();
        if step.action == Action::Replace {
            end(self.client.clone(), name.to_owned()).await?;
        }
        if let Some(spec) = step.made() {
            let unstarted = CreateQuery { start: false };
            let created = self.client.create(spec, unstarted).await;
            created.map_err(|error| Failure::from(error).of(name))?;
        }
        match step.action {
            Action::Create | Action::Replace | Action::Start => {
                let started = self.client.start(name).await;
                started
                    .map(drop)
                    .map_err(|error| Failure::from(error).of(name))
            }
            Action::Keep | Action::Remove => Ok(()),
        }
    }

    async fn is_up(&self, step: &Step, since: Instant) -> Result<(), Failure> {
        arrival::wait(self.client, step.name.as_str(), since + self.timeout).await
    }
}

impl Step {
    /// What is created in this step.
    fn made(&self) -> Option<&DynoSpec> {
        match self.action {
            Action::Create | Action::Replace => self.spec.as_deref(),
            Action::Start | Action::Keep | Action::Remove => None,
        }
    }
}

/// Ends and removes every dyno of the app, each before those that it comes after, and
/// those that depend on nobody else at once. The names of those that are gone.
///
/// # Errors
/// The first [`Failure`]; others may be gone.
pub(crate) async fn bring_down(client: &Client, app: &DynoName) -> Result<Vec<String>, Failure> {
    let mut dynos = client.dynos().await?;
    dynos.retain(|dyno| dyno.spec.service.as_ref().is_some_and(|s| s.app == *app));
    let mut gone = Vec::new();
    for names in in_rows(&dynos).into_iter().rev() {
        end_all(client, names.clone()).await?;
        gone.extend(names);
    }
    Ok(gone)
}

/// The names of the dynos, those in front that come after none of them, and each row
/// behind those that it comes after.
fn in_rows(dynos: &[Dyno]) -> Vec<Vec<String>> {
    let index: BTreeMap<&DynoName, usize> = dynos.iter().map(|dyno| &dyno.name).zip(0..).collect();
    let before = |dyno: usize| {
        let after = dynos[dyno].spec.after.iter();
        after
            .filter_map(|after| index.get(&after.name).copied())
            .collect::<Vec<_>>()
    };
    // hostd makes no dyno that comes after itself.
    let ordered = order::order(dynos.len(), before).unwrap_or_else(|_| (0..dynos.len()).collect());
    let mut depth = vec![0_usize; dynos.len()];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for dyno in ordered {
        let deepest = before(dyno)
            .into_iter()
            .map(|before| depth[before] + 1)
            .max();
        depth[dyno] = deepest.unwrap_or(0);
        rows.resize(rows.len().max(depth[dyno] + 1), Vec::new());
        rows[depth[dyno]].push(dynos[dyno].name.to_string());
    }
    rows
}

/// Ends and removes dynos, all at once.
async fn end_all(client: &Client, names: Vec<String>) -> Result<(), Failure> {
    let ending = names.into_iter().map(|name| {
        let end = end(client.clone(), name.clone());
        (name, tokio::spawn(end))
    });
    let ending: Vec<_> = ending.collect();
    let mut first = Ok(());
    for (name, ending) in ending {
        let ended = match ending.await {
            Ok(ended) => ended.map_err(|error| Failure::from(error).of(&name)),
            Err(error) => Err(Failure::new(format!("{name}: {error}"))),
        };
        first = first.and(ended);
    }
    first
}

/// Asks a dyno to end, and removes it.
async fn end(client: Client, name: String) -> Result<(), client::Error> {
    let done = match client.stop(&name, &StopQuery::default()).await {
        Ok(_) => client.remove(&name, RemoveQuery { force: true }).await,
        Err(error) => Err(error),
    };
    match done {
        // Somebody else was faster.
        Err(client::Error::Api(error)) if error.kind == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_behind_all_that_it_comes_after() {
        let dyno = |name: &str, after: &[&str]| {
            let after: Vec<_> = after
                .iter()
                .map(|name| serde_json::json!({"name": name}))
                .collect();
            serde_json::from_value::<Dyno>(serde_json::json!({
                "id": "0123456789ab", "name": name, "created": "2026-01-01T00:00:00Z",
                "spec": {"image": "host", "after": after},
                "status": {
                    "phase": "running", "pid": 1, "monitor_pid": 2, "ipv4": null, "ipv6": null,
                    "ports": [], "started": null, "exit": null, "restarts": 0, "reason": null,
                },
            }))
            .unwrap()
        };
        let dynos = [
            dyno("web", &["db", "cache"]),
            dyno("cache", &[]),
            dyno("db", &["disk", "gone"]),
            dyno("disk", &[]),
        ];
        let expected = vec![vec!["cache", "disk"], vec!["db"], vec!["web"]];
        assert_eq!(in_rows(&dynos), expected);
        assert!(in_rows(&[]).is_empty());
    }
}
