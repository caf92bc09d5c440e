//! `run`: create and start in one, and stay until the end unless told otherwise.

use super::create::{Creation, Made, New};
use super::foreground::{Signals, attend};
use super::{Failure, lifecycle};
use crate::container::Parent;
use crate::rootless;
use crate::state::{Driver, StateError, StateRoot};

// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    creation: Creation,
    /// Return once the program runs
    #[arg(long, short)]
    detach: bool,
    /// Leave the container when it has ended, for `state` and `delete`
    #[arg(long)]
    keep: bool,
    /// Leave orphans to whoever else takes them, as is always done
    #[arg(long)]
    no_subreaper: bool,
}

impl Run {
    /// As for `create`.
    pub(super) fn become_root(&self) -> Result<rootless::Ids, Failure> {
        self.creation.become_root()
    }
}

/// Runs a container; the exit code of its program, unless it is left alone.
pub(super) fn run(states: &StateRoot, args: &Run, driver: Driver) -> Result<u8, Failure> {
    let outlets = &args.creation.outlets;
    let new = New::begin(states, &args.creation, driver)?;
    if args.detach && new.wants_terminal() && outlets.console_socket.is_none() {
        let error = "process.terminal is true and nobody stays to pass it on: \
                     give --console-socket";
        return Err(new.after(error.into()));
    }
    let signals = match args.detach {
        true => None,
        false => Some(Signals::listen()?),
    };
    let (made, created) = new.make(Parent::Foreground, outlets)?;
    let init = created.pid;
    let bundle = made.container.bundle();
    let started = match bundle.has_start_hooks() {
        false => Ok(()),
        true => lifecycle::run_start_hooks(&made.container, &made.record, init),
    };
    let started = started.and_then(|()| Ok(created.start()?));
    let mut process = match started {
        Ok(process) => process,
        Err(error) => return Err(super::create::after(error, made.clear())),
    };
    lifecycle::run_poststart(bundle, &made.record);
    let Some(signals) = signals else {
        return Ok(0);
    };
    let Made {
        state,
        record,
        container,
    } = made;
    // A lock covers an operation, not a container's life.
    drop(state);
    let terminal = process.terminal.take();
    let code = attend(&process, terminal, &signals);
    if !args.keep {
        match states.open(&record.id) {
            Ok(state) => lifecycle::remove(state, &record, Some(container.bundle()))?,
            // Somebody else has deleted it.
            Err(StateError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(code?)
}
