//! What can be asked of a host. The HTTP API is a thin layer over this.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dyno_api::dyno::{
    AttachRequest, Dependency, Dyno, DynoSpec, ExecRequest, ExitStatus, NetMode, Phase,
};
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::event::What;
use dyno_api::name::{DynoId, DynoName};
use dyno_api::query::StopQuery;
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::protocol::Request;
use jiff::Timestamp;

use crate::desired::{self, Record, Wanted};
use crate::durable::{self, from_io, internal};
use crate::host::{Host, blocking};
use crate::launch::{self, DEFAULT_GRACE_MS};
use crate::monitor::{self, Connection};
use crate::once::Once;
use crate::supervisor::{self, Ask, Handle, Presence, is_over};
use crate::{admission, exec, identity, images, layer, secrets, signal, volumes};

/// How long a new dyno waits for the name of one that is being removed.
const PASSING: Duration = Duration::from_secs(5);
/// What a stop may take beyond its grace before it is reported as failed.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// Creates a dyno, and starts it where that is asked for. When this fails,
/// nothing of it is left.
///
/// # Errors
/// Why it cannot be, with the value and what to try.
pub async fn create(
    host: Arc<Host>,
    spec: DynoSpec,
    start: bool,
    once: Option<Once>,
) -> Result<Dyno, ApiError> {
    let _begun = match &once {
        Some(once) => {
            let begun = host.at_work.begin(once)?;
            if let Some(handle) = host.registry().made_by(once)? {
                return Ok(handle.dyno());
            }
            Some(begun)
        }
        None => None,
    };
    admission::check(&spec, &host.facts, &host.paths)?;
    check_order(&host, &spec)?;
    secrets::check(&host, &spec)?;
    if let Some(name) = &spec.name {
        let passing = host.registry().is_passing(name);
        wait_for_name(passing).await;
    }
    // Layers that were found stay until the record that needs them is known.
    let finding = host.layers.read().await;
    let shared = host.clone();
    let record = blocking(move || reserve(&shared, spec, start, once)).await?;
    drop(finding);
    let (dyno, name) = (record.id.clone(), record.name.clone());
    let handle = supervisor::supervise(host.clone(), record);
    host.registry().open(&dyno, handle.clone());
    host.events.emit(What::DynoCreated { dyno, name });
    failpoint("create.supervised");
    let made = handle
        .ask(if start { Ask::Start } else { Ask::Prepare })
        .await;
    if let Err(error) = made {
        if let Err(left) = handle.ask(Ask::Remove { force: true }).await {
            tracing::error!(%left, "not everything of a failed creation was removed");
        }
        return Err(error);
    }
    Ok(handle.dyno())
}

/// Those that it comes after are there, and none of them after it.
fn check_order(host: &Host, spec: &DynoSpec) -> Result<(), ApiError> {
    let mut before: Vec<Dependency> = spec.after.clone();
    let mut seen = BTreeSet::new();
    while let Some(Dependency { name, .. }) = before.pop() {
        if Some(&name) == spec.name.as_ref() {
            let message = format!("{name} would come after itself");
            return Err(ApiError::new(ErrorKind::Invalid, message)
                .hint("`dyno inspect` shows whom a dyno comes after"));
        }
        match host.registry().find(name.as_str()) {
            Ok(handle) if seen.insert(name.to_string()) => before.extend(handle.dyno().spec.after),
            // What one of them came after may be gone since.
            Err(_) if spec.after.iter().any(|after| after.name == name) => {
                let message = format!("it comes after {name}, and there is no such dyno");
                return Err(
                    ApiError::new(ErrorKind::Invalid, message).hint(format!("create {name} first"))
                );
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

async fn wait_for_name(passing: Option<Handle>) {
    let Some(passing) = passing.filter(|handle| is_over(handle.dyno().status.phase)) else {
        return;
    };
    if tokio::time::timeout(PASSING, passing.removed())
        .await
        .is_err()
    {
        tracing::warn!("a dyno that has ended is not removed yet");
    }
}

/// Takes everything that is the new dyno's alone, and writes its record.
fn reserve(
    host: &Host,
    spec: DynoSpec,
    start: bool,
    once: Option<Once>,
) -> Result<Record, ApiError> {
    admission::check_sources(&spec, &host.paths)?;
    admission::devices(&spec)?;
    let image = images::find(host, &spec.image, spec.platform.as_deref())?;
    let id = identity::new_dyno_id().map_err(|error| from_io("cannot make an id", &error))?;
    let mut record = Record {
        version: desired::VERSION,
        name: spec
            .name
            .clone()
            .map_or_else(|| name_after(&spec.image, &id), Ok)?,
        id,
        created: Timestamp::now(),
        image: images::pin(&image),
        // A crash from here on leaves it fully gone or fully there.
        wanted: if start {
            Wanted::Running
        } else {
            Wanted::Created
        },
        uid_base: 0,
        ipv4: None,
        ipv6: None,
        ports: Vec::new(),
        rest: Phase::Created,
        reason: None,
        exit: None,
        restarts: 0,
        restore: None,
        failed_check: None,
        spec,
    };
    host.registry().reserve(&mut record)?;
    let written = address(host, &mut record)
        .inspect(|()| failpoint("create.reserved"))
        .and_then(|()| launch::make_state(host, &record))
        .inspect(|()| failpoint("create.folders"))
        .and_then(|()| keep(host, &record, once))
        .inspect(|()| failpoint("create.once"))
        .and_then(|()| Ok(record.save(&host.paths)?))
        .inspect(|()| failpoint("create.recorded"));
    match written {
        Ok(()) => Ok(record),
        Err(error) => {
            give_back(host, &record);
            Err(error)
        }
    }
}

fn keep(host: &Host, record: &Record, once: Option<Once>) -> Result<(), ApiError> {
    if let Some(once) = once {
        once.save(&host.paths, &record.id, record.survives())?;
        host.registry().made_with(&record.id, once);
    }
    Ok(())
}

fn address(host: &Host, record: &mut Record) -> Result<(), ApiError> {
    if record.spec.net == NetMode::Default {
        let (ipv4, ipv6) = host.network.reserve()?;
        (record.ipv4, record.ipv6) = (Some(ipv4), ipv6);
    }
    Ok(())
}

fn give_back(host: &Host, record: &Record) {
    let own = host.paths.dyno(&record.id);
    layer::forget(&own);
    let state = own.state;
    if let Err(error) = durable::remove_tree(&state) {
        tracing::warn!(%error, folder = %state.display(), "a half-made folder stays until the next start");
    }
    if let Some(ipv4) = record.ipv4 {
        host.network.release(ipv4);
    }
    host.registry().forget(&record.id);
}

/// `registry/some/Image:tag` → `image-3fa2`.
fn name_after(image: &str, id: &DynoId) -> Result<DynoName, ApiError> {
    let last = image
        .split(['@'])
        .next()
        .unwrap_or(image)
        .rsplit('/')
        .next()
        .unwrap_or(image);
    let base = last.split(':').next().unwrap_or(last).to_ascii_lowercase();
    let label: String = base
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(50)
        .collect();
    let label = label.trim_matches('-');
    let label = if label.is_empty() { "dyno" } else { label };
    let digits = id.as_str().get(..6).unwrap_or_default();
    format!("{label}-{digits}")
        .parse()
        .map_err(|error| internal(&error))
}

/// Every dyno, in order of creation, without what its configuration files hold.
pub fn list(host: &Host) -> Vec<Dyno> {
    let mut dynos: Vec<Dyno> = host.registry().handles().iter().map(Handle::dyno).collect();
    let files = |dyno: &mut Dyno| {
        for file in &mut dyno.spec.config_files {
            file.content = None;
        }
    };
    dynos.iter_mut().for_each(files);
    dynos.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    dynos
}

/// The dyno that is meant.
///
/// # Errors
/// NotFound.
pub fn find(host: &Host, wanted: &str) -> Result<Handle, ApiError> {
    host.registry().find(wanted)
}

/// Has a dyno's supervisor do something; the dyno as it is then.
///
/// # Errors
/// Why it is not done.
pub async fn tell(host: &Host, wanted: &str, ask: Ask) -> Result<Dyno, ApiError> {
    let handle = find(host, wanted)?;
    handle.ask(ask).await?;
    Ok(handle.dyno())
}

/// Starts a dyno that does not run.
///
/// # Errors
/// Why not.
pub async fn start(host: &Host, wanted: &str) -> Result<Dyno, ApiError> {
    tell(host, wanted, Ask::Start).await
}

/// Holds every process of a dyno still.
///
/// # Errors
/// Conflict when it does not run.
pub async fn pause(host: &Arc<Host>, wanted: &str) -> Result<Dyno, ApiError> {
    let id = find(host, wanted)?.look(|dyno| dyno.id.clone());
    volumes::keep_paused(host, &id).await;
    tell(host, wanted, Ask::Pause).await
}

/// Ends a dyno; it stays ended.
///
/// # Errors
/// Why not.
pub async fn stop(host: &Host, wanted: &str, query: &StopQuery) -> Result<Dyno, ApiError> {
    let handle = find(host, wanted)?;
    let signal = query.signal.as_deref().map(signal::parse).transpose()?;
    let grace = query
        .grace_ms
        .or(handle.dyno().spec.stop_grace_ms)
        .unwrap_or(DEFAULT_GRACE_MS);
    handle
        .ask(Ask::Stop {
            signal,
            grace_ms: query.grace_ms,
        })
        .await?;
    let limit = Duration::from_millis(grace).saturating_add(STOP_MARGIN);
    let still = |dyno: &Dyno| {
        matches!(
            dyno.status.phase,
            Phase::Running | Phase::Backoff | Phase::Stopping | Phase::Waiting
        )
    };
    let ended = tokio::time::timeout(limit, handle.until(|dyno| !still(dyno))).await;
    match ended {
        // A dyno with `rm` may be gone altogether.
        Ok(dyno) => Ok(dyno.unwrap_or_else(|| handle.dyno())),
        Err(_) => Err(ApiError::new(
            ErrorKind::Internal,
            handle.look(|dyno| {
                let reason = dyno.status.reason.as_deref().unwrap_or("nothing is known");
                let (name, seconds) = (&dyno.name, limit.as_secs());
                format!("dyno {name} has not ended within {seconds} s: {reason}")
            }),
        )
        .hint("a process of it hangs in the kernel: look at its wait channel with `dyno why`")),
    }
}

/// Stops a dyno and starts it again.
///
/// # Errors
/// Why not.
pub async fn restart(host: &Host, wanted: &str, query: &StopQuery) -> Result<Dyno, ApiError> {
    stop(host, wanted, query).await?;
    start(host, wanted).await
}

/// Sends a signal to a dyno's first process.
///
/// # Errors
/// Conflict when it does not run.
pub async fn kill(host: &Host, wanted: &str, name: Option<&str>) -> Result<Dyno, ApiError> {
    let signal = name.map_or(Ok(signal::KILL), signal::parse)?;
    tell(host, wanted, Ask::Signal(signal)).await
}

/// Removes a dyno with its layer and logs.
///
/// # Errors
/// Conflict when it runs and that is not forced.
pub async fn remove(host: &Host, wanted: &str, force: bool) -> Result<(), ApiError> {
    let handle = find(host, wanted)?;
    handle
        .ask(Ask::Remove { force })
        .await
        .map_err(|error| match error.kind {
            ErrorKind::Conflict => error.hint("stop it first, or remove it by force"),
            _ => error,
        })
}

/// Waits until a dyno has ended for good; where that is asked for, until it is
/// removed if its end is to remove it.
///
/// # Errors
/// NotFound when it is removed before; Internal when it ended without a status.
pub async fn wait(host: &Host, wanted: &str, removed: bool) -> Result<ExitStatus, ApiError> {
    let handle = find(host, wanted)?;
    let ended = handle.until(|dyno| is_over(dyno.status.phase)).await;
    let status = ended.unwrap_or_else(|| handle.dyno()).status;
    if removed && handle.dyno().spec.rm {
        handle.removed().await;
    }
    status
        .exit
        .filter(|_| status.phase != Phase::Lost)
        .ok_or_else(|| {
            let reason = status.reason.unwrap_or_else(|| "it was removed".to_owned());
            ApiError::new(
                ErrorKind::Internal,
                format!("dyno {wanted} has no exit status: {reason}"),
            )
        })
}

/// Joins a dyno's streams: a connection that speaks frames from here on, and
/// what is to be kept as long as it is used.
///
/// # Errors
/// Conflict when there is nothing to attach to; why it cannot be started, where
/// that is asked for.
pub async fn attach(
    host: &Host,
    wanted: &str,
    AttachRequest { stdin, size, start }: AttachRequest,
) -> Result<(Connection, Presence), ApiError> {
    let handle = find(host, wanted)?;
    let presence = handle.be_present();
    handle.ask(Ask::Prepare).await?;
    let socket = host.paths.dyno(&handle.dyno().id).monitor_socket();
    let (_, connection) = monitor::open(&socket, &Request::Attach { stdin, size }).await?;
    if start {
        handle.ask(Ask::Start).await?;
    }
    Ok((connection, presence))
}

/// Runs one more process in a dyno: a connection that speaks frames.
///
/// # Errors
/// Conflict when it does not run; what is wrong with the request.
pub async fn exec(
    host: &Arc<Host>,
    wanted: &str,
    request: ExecRequest,
) -> Result<Connection, ApiError> {
    let handle = find(host, wanted)?;
    let dyno = handle.dyno();
    if dyno.status.phase != Phase::Running {
        return Err(ApiError::new(
            ErrorKind::Conflict,
            format!("dyno {} is not running", dyno.name),
        ));
    }
    if dyno.status.paused {
        // Its monitor would wait for a process that is born frozen.
        let message = format!("dyno {} is paused", dyno.name);
        return Err(ApiError::new(ErrorKind::Conflict, message).hint("`dyno resume` it first"));
    }
    exec::begin(host, &dyno.id, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dyno_is_named_after_its_image() {
        let id = DynoId::from_bytes([0xab; 6]);
        for (image, name) in [
            ("host", "host-ababab"),
            ("localhost:5000/team/Web_App:1.2", "web-app-ababab"),
            ("busybox@sha256:00", "busybox-ababab"),
            ("___", "dyno-ababab"),
            (&"x".repeat(300), &format!("{}-ababab", "x".repeat(50))),
        ] {
            assert_eq!(name_after(image, &id).unwrap().as_str(), name);
        }
    }
}
