//! The daemon `hostd`: see the library for what it does.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dyno_hostd::config::{Action, Command};
use dyno_hostd::durable::chain;
use dyno_hostd::journal::Journal;
use dyno_hostd::{daemon, doctor, systemd, teardown, upgrade};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How long work in progress may keep a daemon that was told to end.
const LAST_STEPS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run(&Command::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&*error),
    }
}

fn run(action: &Action) -> Result<(), Box<dyn std::error::Error>> {
    match action {
        Action::Serve(options) => {
            let filter =
                EnvFilter::try_from_env("HOSTD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
            log(filter);
            let runtime = event_loop()?;
            let served = runtime.block_on(daemon::serve(options));
            // Blocking work may go on for minutes; to end in the middle of it
            // is a crash, after which everything is whole.
            runtime.shutdown_timeout(LAST_STEPS);
            Ok(served?)
        }
        Action::Doctor(options) => Ok(doctor::tell(
            &doctor::examine(&options.serve),
            options.json,
        )?),
        Action::Hold => Ok(event_loop()?.block_on(systemd::hold())?),
        Action::Teardown(options) => Ok(teardown::teardown(options)?),
        Action::Install(options) => Ok(systemd::install(options)?),
        Action::Uninstall => Ok(systemd::uninstall(Path::new("/etc/systemd/system"))?),
        Action::Upgrade(options) => {
            let said = upgrade::upgrade(options)?;
            Ok(writeln!(std::io::stdout(), "{said}")?)
        }
        Action::Man(man) => Ok(man.write()?),
        Action::Version => Ok(writeln!(
            std::io::stdout(),
            "hostd {}",
            env!("CARGO_PKG_VERSION")
        )?),
    }
}

/// Writes to the journal, where standard error leads there; else to standard error.
fn log(filter: EnvFilter) {
    let registry = tracing_subscriber::registry().with(filter);
    match Journal::of_stderr() {
        Some(journal) => registry.with(journal).init(),
        None => {
            let lines = tracing_subscriber::fmt::layer()
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr);
            registry.with(lines).init();
        }
    }
}

fn event_loop() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

fn complain(error: &dyn std::error::Error) -> ExitCode {
    match writeln!(std::io::stderr(), "hostd: {}", chain(error)) {
        Ok(()) => ExitCode::FAILURE,
        Err(_) => ExitCode::FAILURE,
    }
}
