//! Takes up the work of an earlier hostd: every record gets its supervisor
//! again, and what belongs to no record goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dyno_api::error::ApiError;
use dyno_api::health::HealthState;
use dyno_api::name::DynoId;
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::protocol::{Phase, State as MonitorState, Status};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::timeout;

use crate::boot_order::Turns;
use crate::desired::{self, Record};
use crate::durable::{self, Survives, chain, from_io};
use crate::health::Saved;
use crate::health::plan::Plan;
use crate::host::{Host, blocking};
use crate::launch::{self, Running};
use crate::once::Once;
use crate::supervisor::machine::{Evidence, Recovery, Traits, recover};
use crate::{boot_order, cgroups, identity, supervisor};

/// How long a monitor may take to answer before hostd goes on without its word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Adopts, restarts, or sweeps; every dyno on disk has its supervisor when
/// this returns.
///
/// # Errors
/// When the folders cannot be read.
pub async fn take_up(host: &Arc<Host>) -> Result<(), ApiError> {
    let shared = host.clone();
    let (records, unread, same_boot) = blocking(move || read(&shared)).await?;
    failpoint("recover.read");
    let mut looked_at = Vec::new();
    for record in records {
        let host = host.clone();
        looked_at.push(tokio::spawn(async move {
            let (evidence, running) = look(&host, &record, same_boot).await;
            (record, evidence, running)
        }));
    }
    let mut found = Vec::new();
    for look in looked_at {
        match look.await {
            Ok(look) => found.push(look),
            Err(error) => tracing::error!(%error, "a dyno could not be looked at"),
        }
    }
    failpoint("recover.looked");
    give_back(host, found.iter_mut().map(|(record, ..)| record))?;
    failpoint("recover.claimed");
    let mut resumed = Vec::new();
    for (record, evidence, running) in found {
        let how = decide(host, &record, evidence, running.as_ref());
        resumed.push((record, running, how));
    }
    let adopted: Vec<u32> = resumed
        .iter()
        .filter_map(|(_, running, _)| Some(running.as_ref()?.pid))
        .collect();
    let shared = host.clone();
    blocking(move || {
        sweep(&shared, &adopted, &unread);
        Ok(())
    })
    .await?;
    failpoint("recover.swept");
    resumed.sort_by_key(|(record, ..)| boot_order::rank(record));
    let mut turns = Turns::new();
    for (record, running, how) in resumed {
        tracing::info!(dyno = %record.id, name = %record.name, ?how, "taken up");
        let id = record.id.clone();
        let turn = (how == Recovery::Start).then(|| turns.wait());
        let handle = supervisor::resume(host.clone(), record, running, how, turn);
        host.registry().open(&id, handle);
        failpoint("recover.first");
    }
    turns.begin(usize::try_from(host.facts.cpus).unwrap_or(1));
    host.publish_names();
    Ok(())
}

/// The records, the ids of those that cannot be read, and whether they were
/// used in this boot already; what an earlier boot left in the run folder goes
/// first.
fn read(host: &Host) -> Result<(Vec<Record>, BTreeSet<String>, bool), ApiError> {
    let failed = |what: &str, error: io::Error| from_io(&format!("cannot {what}"), &error);
    let boot = identity::boot_id().map_err(|error| failed("read the boot id", error))?;
    let known = durable::read_json::<String>(&host.paths.boot()).unwrap_or_default();
    let same_boot = known.as_ref() == Some(&boot);
    if !same_boot {
        durable::remove_tree(&host.paths.run_dynos())
            .map_err(|error| failed("empty the run folder", error))?;
        durable::write_json(&host.paths.boot(), &boot, Survives::Crash)?;
    }
    fs::create_dir_all(host.paths.run_dynos())
        .map_err(|error| failed("make the run folder", error))?;
    let (records, damaged) = desired::load_all(&host.paths)
        .map_err(|error| failed("read the records of dynos", error))?;
    let mut unread = BTreeSet::new();
    for (id, error) in damaged {
        tracing::error!(dyno = id, error = %chain(&error), "this record cannot be read; the dyno is left alone, running or not");
        unread.insert(id);
    }
    Ok((records, unread, same_boot))
}

async fn look(host: &Host, record: &Record, same_boot: bool) -> (Evidence, Option<Running>) {
    if !same_boot {
        return (Evidence::Nothing, None);
    }
    let paths = host.paths.dyno(&record.id);
    let state = durable::read_json::<MonitorState>(&paths.monitor_state())
        .ok()
        .flatten();
    // Without a state there never was a container in this boot; and what an earlier
    // hostd was about to kill says nothing.
    let state = state.filter(|_| !paths.condemned().exists());
    let Some(state) = state else {
        return (Evidence::Unstarted, None);
    };
    if state.status.phase.is_final() {
        return (last_word(&state.status), None);
    }
    let pid = state.monitor.pid;
    let opened = match timeout(PATIENCE, Running::open(&paths, pid)).await {
        Ok(opened) => opened.ok(),
        // It lives, and so does its dyno: it is heard when it answers.
        Err(_) => Running::unheard(&paths, pid, &state.status),
    };
    match opened {
        Some(running) => {
            let evidence = match running.last.phase {
                Phase::Created => Evidence::Unstarted,
                phase if phase.is_final() => last_word(&running.last),
                _ => Evidence::Started,
            };
            (evidence, Some(running))
        }
        None if state.status.phase == Phase::Created => (Evidence::Unstarted, None),
        None => (Evidence::Vanished, None),
    }
}

fn last_word(status: &Status) -> Evidence {
    match status.by_system {
        true => Evidence::LastWordBySystem,
        false => Evidence::LastWord,
    }
}

/// Gives each dyno back what is its alone. Who has lost something gets another
/// only after everybody has claimed what they have.
fn give_back<'a>(
    host: &Host,
    records: impl Iterator<Item = &'a mut Record>,
) -> Result<(), ApiError> {
    let mut claims = Vec::new();
    for record in records {
        let range = host.registry().readmit(record);
        if let Some(once) = Once::load(&host.paths, &record.id) {
            host.registry().made_with(&record.id, once);
        }
        let address = record.ipv4.is_none_or(|ipv4| host.network.claim(ipv4));
        claims.push((record, range, address));
    }
    for (record, range, address) in claims {
        if !range {
            host.registry().new_range(record)?;
        }
        if !address {
            // The subnet is another one: a dyno that runs is not reachable any more.
            tracing::warn!(dyno = %record.id, ipv4 = ?record.ipv4, "its address is not of this network; it gets another");
            let (four, six) = host.network.reserve()?;
            (record.ipv4, record.ipv6) = (Some(four), six);
        }
    }
    Ok(())
}

/// How the dyno goes on.
fn decide(host: &Host, record: &Record, evidence: Evidence, running: Option<&Running>) -> Recovery {
    let traits = Traits {
        rm: record.spec.rm,
        restart: record.spec.restart,
        wanted: record.wanted,
    };
    let how = recover(evidence, traits);
    if let (Recovery::Adopt { .. }, Some(running), Some(place)) =
        (how, running, launch::place(record))
    {
        let in_service = in_service(host, record, running);
        let init = running.last.pid.unwrap_or(0);
        host.network.adopt(place, init, in_service);
    }
    how
}

/// Whether the published ports of a dyno that runs lead to it, as an earlier
/// hostd left them.
fn in_service(host: &Host, record: &Record, running: &Running) -> bool {
    if !Plan::of(&record.spec, &record.image.config).gates_service() {
        return true;
    }
    Saved::load(&host.paths.dyno(&record.id))
        .filter(|saved| Some(saved.run) == running.last.started)
        .is_some_and(|saved| saved.state == HealthState::Ready)
}

/// Removes what belongs to no record: monitors that nobody watches, groups,
/// bundles. A record that cannot be read is a record.
fn sweep(host: &Host, adopted: &[u32], unread: &BTreeSet<String>) {
    let belongs = |id: &str| {
        let known = id
            .parse::<DynoId>()
            .is_ok_and(|id| host.registry().contains(&id));
        known || unread.contains(id)
    };
    for (pid, id) in monitors(host) {
        if !adopted.contains(&pid) && !unread.contains(&id) {
            tracing::warn!(pid, "a monitor that belongs to no dyno is killed");
            kill(pid);
        }
    }
    for id in cgroups::present(&host.layout, &host.identity.id) {
        if belongs(id.as_str()) {
            continue;
        }
        if let Err(error) = cgroups::kill(&host.layout, &host.identity.id, &id) {
            tracing::error!(dyno = %id, error = %chain(&error), "a leftover cgroup stays");
        }
    }
    let folders = [host.paths.run_dynos(), host.paths.run_secrets()];
    let entries = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok());
    for entry in entries.flatten().flatten() {
        if entry.file_name().to_str().is_some_and(belongs) {
            continue;
        }
        if let Err(error) = durable::remove_tree(&entry.path()) {
            tracing::error!(%error, folder = %entry.path().display(), "a leftover bundle stays");
        }
    }
}

/// The monitors of this host's run folder and their dynos, by their command
/// line: also those that a crash caught before they had a socket. A child that a
/// monitor has cloned shows its parent's until it executes a program: it is a dyno's
/// first process, and no monitor.
fn monitors(host: &Host) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let run = host.paths.run_dynos();
    let found: BTreeMap<u32, String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let folder = Path::new(std::str::from_utf8(words.get(2)?).ok()?);
            let ours = words.get(1) == Some(&&b"monitor"[..]) && folder.starts_with(&run);
            let id = folder.file_name()?.to_str()?;
            ours.then(|| (pid, id.to_owned()))
        })
        .collect();
    let is_a_child = |pid: u32| parent(pid).is_some_and(|parent| found.contains_key(&parent));
    let monitors = found.iter().filter(|(pid, _)| !is_a_child(**pid));
    monitors.map(|(pid, id)| (*pid, id.clone())).collect()
}

/// The fourth field of proc_pid_stat(5); the second one, the name, may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(1)?.parse().ok()
}

fn kill(pid: u32) {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    let killed =
        pidfd_open(raw, PidfdFlags::empty()).and_then(|fd| pidfd_send_signal(fd, Signal::KILL));
    if let Err(error) = killed {
        tracing::debug!(%error, pid, "a leftover monitor is gone already");
    }
}
