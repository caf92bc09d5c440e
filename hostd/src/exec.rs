//! One more process in a dyno that runs.

mod run;

use std::sync::Arc;

use dyno_api::dyno::ExecRequest;
use dyno_api::error::{ApiError, ErrorKind};
use dyno_api::name::DynoId;
use dyno_failpoint::failpoint;
use dyno_runtime::monitor::protocol::Request;
use oci_spec::runtime::{Process, Spec};

use crate::desired::Record;
use crate::host::{Host, blocking};
use crate::monitor::{self, Connection};
use crate::{bundle, durable, launch, secrets};

pub(crate) use run::{QUOTED, printable, run, within};

/// Executes a program in a dyno: a connection that speaks frames.
///
/// # Errors
/// Conflict when it does not run; what is wrong with the request.
pub async fn begin(
    host: &Arc<Host>,
    dyno: &DynoId,
    request: ExecRequest,
) -> Result<Connection, ApiError> {
    let (stdin, size) = (request.stdin, request.size);
    let (shared, id) = (host.clone(), dyno.clone());
    let process = blocking(move || process(&shared, &id, &request)).await?;
    failpoint("exec.process");
    let socket = host.paths.dyno(dyno).monitor_socket();
    let request = Request::Exec {
        process: Box::new(process),
        stdin,
        size,
    };
    let (_, connection) = monitor::open(&socket, &request).await?;
    failpoint("exec.begun");
    Ok(connection)
}

fn process(host: &Host, id: &DynoId, request: &ExecRequest) -> Result<Process, ApiError> {
    let paths = host.paths.dyno(id);
    let missing = || ApiError::new(ErrorKind::Conflict, format!("dyno {id} is not running"));
    let record: Record = durable::read_json(&paths.record())?.ok_or_else(missing)?;
    let spec: Spec = durable::read_json(&paths.config())?.ok_or_else(missing)?;
    let mut first = spec.process().clone().ok_or_else(missing)?;
    // Those that its monitor gave it, and its bundle does not have.
    let secrets = secrets::variables(&paths, &record)?;
    if !secrets.is_empty() {
        let known = first.env().iter().flatten().cloned();
        first.set_env(Some(known.chain(secrets).collect()));
    }
    let own = first.user();
    let user = match &request.user {
        Some(user) => launch::identity(host, &record, user)?,
        None => {
            let mut user =
                launch::identity(host, &record, &format!("{}:{}", own.uid(), own.gid()))?;
            user.additional_gids = own.additional_gids().clone().unwrap_or_default();
            user
        }
    };
    Ok(bundle::exec_process(&first, request, &user)?)
}
