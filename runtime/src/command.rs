//! The command line: the OCI operations, and what hostd executes.

mod checkpoint;
mod create;
mod events;
mod exec;
mod foreground;
mod lifecycle;
mod list;
mod log;
mod restore;
mod run;
mod save;
mod template;
mod update;
mod update_class;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use rustix::io::Errno;
use rustix::process::Pid;

pub(crate) use self::checkpoint::fits;
use self::log::Level;
use crate::container::{Error, Exit, StartError};
use crate::features::features;
use crate::init;
use crate::inside::Inside;
use crate::jail::Jail;
use crate::monitor;
use crate::own_file;
use crate::rootless;
use crate::state::{Driver, StateRoot};

/// A container runtime for Linux (OCI runtime spec 1.3).
// None of these is global to clap, which would copy it into each of two dozen
// commands at every start. They come before the command, as with runc.
#[derive(Debug, Parser)]
#[command(
    name = "dyno-runtime",
    version = VERSION,
    arg_required_else_help = true,
    disable_version_flag = true
)]
struct Cli {
    /// Folder of the containers' states [default: /run/dyno-runtime, or below $XDG_RUNTIME_DIR for an ordinary user]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File that failures and warnings are written to, too
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How lines of that file look
    #[arg(long, value_enum, default_value_t = log::Format::Text)]
    log_format: log::Format,
    /// Tell more
    #[arg(long)]
    debug: bool,
    /// Have systemd make the cgroups; linux.cgroupsPath is slice:prefix:name then
    #[arg(long)]
    systemd_cgroup: bool,
    /// Whether a cgroup may be missing that nobody may make and no limit needs: by default where we are not root of the host
    #[arg(
        id = "when",
        long = "rootless",
        value_enum,
        default_value_t = Rootless::Auto,
        value_name = "WHEN"
    )]
    rootless: Rootless,
    /// Who the caller is on the host: given by this program to itself
    #[arg(long, value_name = "UID:GID", hide = true)]
    ordinary_user: Option<rootless::Ids>,
    /// Print the version
    #[arg(long, short, action = clap::ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    command: Command,
}

/// As runc prints its own, for those who parse it.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

// Only the one that is called is described to clap: all of them would take a quarter
// of a megabyte for a moment, and a fifteenth of a start. The description of a
// type here would take the place of its command's, so these types have none.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    /// Set a container up and stop before its program
    Create(create::Creation),
    /// Create and start a container, and wait for its end
    Run(run::Run),
    /// Let a created container execute its program
    Start {
        /// The container
        id: String,
    },
    /// Run one more process in a running container
    Exec(exec::Exec),
    /// Print a container's state as JSON
    State {
        /// The container
        id: String,
    },
    /// List the containers
    List {
        /// How
        #[arg(long, short, value_enum, default_value_t = list::Format::Table)]
        format: list::Format,
        /// Ids only
        #[arg(long, short)]
        quiet: bool,
    },
    /// List the processes of a container
    Ps {
        /// How
        #[arg(long, short, value_enum, default_value_t = list::Format::Table)]
        format: list::Format,
        /// The container
        id: String,
        /// Options of ps(1) [default: -ef]
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "OPTION"
        )]
        options: Vec<String>,
    },
    /// Send a signal to a container's first process
    Kill {
        /// To every process of the container
        #[arg(long, short)]
        all: bool,
        /// The container
        id: String,
        /// Name or number
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Hold every process of a container still
    Pause {
        /// The container
        id: String,
    },
    /// Let a paused container run on
    Resume {
        /// The container
        id: String,
    },
    /// Give a container other limits
    Update(Box<update::Update>),
    /// Tell what a container uses, and when it runs out of memory
    Events(events::Events),
    /// Print what this runtime supports, as JSON
    Features,
    /// Save a running container's processes by CRIU
    Checkpoint(Box<checkpoint::Checkpoint>),
    /// Bring a container back that was saved
    Restore(Box<restore::Restore>),
    /// Become CRIU in a container's cgroup: given by this program to itself
    #[command(hide = true)]
    RestoreInside(restore::Inside),
    /// Save a dyno: given by its monitor to itself
    #[command(hide = true)]
    Save(save::Save),
    /// Remove what is left of a stopped container
    Delete {
        /// Kill it first if it runs; succeed if there is none
        #[arg(long, short)]
        force: bool,
        /// The container
        id: String,
    },
    /// Write a config.json to begin with
    Spec(template::Template),
    /// Be the parent of one dyno, as hostd asks in DIR/monitor.json
    Monitor {
        /// The dyno's run folder
        dir: PathBuf,
        /// It comes as a line on standard input; DIR is as long
        #[arg(long)]
        spare: bool,
    },
    /// Write the log of a dyno: given by a monitor to itself
    #[command(hide = true)]
    LogWriter {
        /// How, as JSON
        config: std::ffi::OsString,
    },
    /// Run a program that sees a container's files as its root does
    Inside {
        /// The container's first process
        #[arg(long)]
        pid: i32,
        /// When that was started: field 22 of /proc/PID/stat
        #[arg(long)]
        start_time: u64,
        /// A static program of the host, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
    /// Run a program that sees nothing but one folder
    Jail {
        /// The folder
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// Host id of the 65536 that are mapped into it
        #[arg(long, value_name = "ID")]
        uid_base: u32,
        /// A static program of the host, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<String>,
    },
}

impl Command {
    /// Whether it makes processes of a container, which must not see our file.
    fn makes_processes(&self) -> bool {
        matches!(
            self,
            Self::Create(_)
                | Self::Run(_)
                | Self::Exec(_)
                | Self::Start { .. }
                | Self::Monitor { .. }
                | Self::Restore(_)
        )
    }

    /// Lets an ordinary user go on as root of a user namespace of his own, where
    /// the command needs one: in this program, executed anew.
    fn become_root(&self, states: &StateRoot) -> Result<(), Failure> {
        let ids = match self {
            Self::Create(creation) => Some(creation.become_root()?),
            Self::Run(run) => Some(run.become_root()?),
            Self::Exec(exec) => lifecycle::become_root_beside(states, exec.id())?,
            Self::Start { id } if lifecycle::has_start_hooks(states, id)? => {
                lifecycle::become_root_beside(states, id)?
            }
            _ => None,
        };
        let Some(ids) = ids else {
            return Ok(());
        };
        let again = own_file::execute_again(ids.argument());
        again.map_err(|error| format!("execute its own program again: {error}").into())
    }
}

/// Whether a container may do without a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rootless {
    /// Where we are not root of the host
    Auto,
    /// Anywhere
    True,
    /// Nowhere
    False,
}

impl Rootless {
    fn is_so(self) -> bool {
        match self {
            Self::Auto => rootless::in_user_namespace(),
            Self::True => true,
            Self::False => false,
        }
    }
}

/// How long a killed container may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Exit code of a failure of ours, where a program's own would be expected.
const FAILED: u8 = 125;

/// The command line as clap knows it, for what is made of it elsewhere: manual pages.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Parses the command line and carries it out.
pub fn main() -> u8 {
    if let Some(code) = init::run_if_called() {
        return code;
    }
    own_file::show_name();
    if let Some(code) = crate::criu::stage::program() {
        return code;
    }
    let cli = Cli::parse();
    if let Err(error) = log::open(cli.log.as_deref(), cli.log_format, cli.debug) {
        eprintln!("dyno-runtime: open the log: {error}");
        return 1;
    }
    if let Some(ids) = cli.ordinary_user {
        ids.remember();
    }
    let states = StateRoot::new(cli.root.clone().unwrap_or_else(default_root));
    if !rustix::process::geteuid().is_root()
        && let Err(error) = cli.command.become_root(&states)
    {
        let code = match cli.command {
            Command::Exec(_) => exec::code_of(&error),
            _ => 1,
        };
        return ended(Err(error), |_| code);
    }
    if cli.command.makes_processes()
        && let Err(error) = own_file::put_out_of_reach()
    {
        log::tell(
            Level::Error,
            &format!("keep its own program from containers: {error}"),
        );
        return 1;
    }
    let driver = match (cli.systemd_cgroup, cli.rootless.is_so()) {
        (true, _) => Driver::Systemd,
        (false, true) => Driver::Delegated,
        (false, false) => Driver::Folders,
    };
    let done = match cli.command {
        Command::Create(args) => create::create(&states, &args, driver),
        Command::Run(args) => return ended(run::run(&states, &args, driver), |_| 1),
        Command::Start { id } => lifecycle::start(&states, &id),
        Command::Exec(args) => return ended(exec::exec(&states, &args), exec::code_of),
        Command::State { id } => lifecycle::state(&states, &id),
        Command::List { format, quiet } => list::list(&states, format, quiet),
        Command::Ps {
            format,
            id,
            options,
        } => list::ps(&states, &id, format, &options),
        Command::Kill { all, id, signal } => lifecycle::kill(&states, &id, &signal, all),
        Command::Pause { id } => lifecycle::pause(&states, &id),
        Command::Resume { id } => lifecycle::resume(&states, &id),
        Command::Update(args) => update::update(&states, &args),
        Command::Events(args) => events::events(&states, &args),
        Command::Features => print_features(),
        Command::Checkpoint(args) => checkpoint::checkpoint(&states, &args),
        Command::Restore(args) => {
            return ended(restore::restore(&states, &args, driver), |_| 1);
        }
        Command::RestoreInside(args) => restore::inside(&args),
        Command::Save(args) => return save::save(&args),
        Command::Delete { force, id } => lifecycle::delete(&states, &id, force),
        Command::Spec(args) => template::write(&args),
        Command::Monitor { spare: true, .. } => return monitor::spare::wait(),
        Command::Monitor { dir, .. } => return monitor::run(&dir),
        Command::LogWriter { config } => return monitor::log::writer::run(&config),
        Command::Inside {
            pid,
            start_time,
            program,
        } => return inside(pid, start_time, program),
        Command::Jail {
            root,
            uid_base,
            program,
        } => return jail(root, uid_base, program),
    };
    ended(done.map(|()| 0), |_| 1)
}

/// As runc prints them: OCI features.md.
fn print_features() -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&features())?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn ended(done: Result<u8, Failure>, code: impl Fn(&Failure) -> u8) -> u8 {
    done.unwrap_or_else(|error| {
        log::tell(Level::Error, &words(error.as_ref()));
        code(&error)
    })
}

/// runc's rule: root's containers are below /run, a user's below his own run folder.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR")
        .filter(|folder| !folder.is_empty() && rootless::has_own_run_folder());
    own.map_or_else(|| PathBuf::from("/run"), PathBuf::from)
        .join("dyno-runtime")
}

/// Tells what went wrong and changes nothing.
fn warn(message: &str) {
    log::tell(Level::Warning, message);
}

fn jail(root: PathBuf, id_base: u32, program: Vec<String>) -> u8 {
    let mut words = program.into_iter();
    let program = PathBuf::from(words.next().unwrap_or_default());
    let jail = Jail {
        root,
        id_base,
        program,
        args: words.collect(),
    };
    confined(jail.run())
}

fn inside(pid: i32, start_time: u64, program: Vec<String>) -> u8 {
    let Some(pid) = Pid::from_raw(pid.max(0)) else {
        let nobody = Error::system("find the container's first process")(Errno::SRCH);
        return fail(&nobody, FAILED);
    };
    let mut words = program.into_iter();
    let program = PathBuf::from(words.next().unwrap_or_default());
    let inside = Inside {
        pid,
        start_time,
        program,
        args: words.collect(),
    };
    confined(inside.run())
}

fn confined(ran: Result<Exit, StartError>) -> u8 {
    match ran {
        Ok(Exit::Code(code)) => code,
        Ok(Exit::Signal(signal)) => 128_u8.saturating_add(signal),
        Err(error @ StartError::NotFound { .. }) => fail(&error, 127),
        Err(error) => fail(&error, FAILED),
    }
}

/// Prints an error with all its causes, on one line.
fn fail(error: &dyn std::error::Error, code: u8) -> u8 {
    eprintln!("dyno-runtime: {}", words(error));
    code
}

/// An error with all its causes.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        message.push_str(": ");
        message.push_str(&source.to_string());
        cause = source.source();
    }
    message
}

/// An error of any of the modules that a command calls.
type Failure = Box<dyn std::error::Error>;
