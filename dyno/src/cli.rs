//! The arguments: global flags and the list of commands. Parsing never acts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::command::{self, Context};
use crate::failure::Failure;
use crate::hostd::{Asked, ContextName, Machine};
use crate::output::Output;

/// Run supervised containers on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "dyno",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit codes: run and exec return the command's own, 125 where dyno failed, 126 \
                  where the command cannot be executed, 127 where there is none. All others: 0 \
                  done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 forbidden, 6 exhausted, \
                  7 unsupported, 8 upstream, 9 no hostd, 10 no good token."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Socket of hostd, also DYNO_SOCKET [default: /run/dyno/hostd.sock]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        conflicts_with_all = ["host", "ctx"],
        help_heading = "Global options"
    )]
    socket: Option<PathBuf>,
    /// Another machine, over ssh (USER@HOST:PORT or as ssh calls it) or by TLS
    /// (https://HOST:PORT, with DYNO_CA, and DYNO_TOKEN or DYNO_CERT), also DYNO_HOST
    #[arg(
        long,
        global = true,
        value_name = "HOST",
        conflicts_with = "ctx",
        help_heading = "Global options"
    )]
    host: Option<Machine>,
    /// One that `ctx add` has named, also DYNO_CTX; `local` is this machine
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Global options"
    )]
    ctx: Option<ContextName>,
    /// Write JSON: lists as arrays, single things as objects, streams as lines
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
}

macro_rules! commands {
    ($($(#[$attribute:meta])* $name:ident($arguments:ty)),* $(,)?) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[$attribute])* $name($arguments),)*
        }

        impl Command {
            async fn run(self, context: &Context) -> Result<u8, Failure> {
                match self {
                    $(Self::$name(arguments) => arguments.run(context).await,)*
                }
            }
        }
    };
}

commands! {
    /// Create a dyno and start it
    Run(Box<command::run::Run>),
    /// Bring up the dynos of an app
    Up(command::up::Up),
    /// Show what up would do
    Plan(command::plan::PlanCommand),
    /// End and remove the dynos of an app
    Down(command::down::Down),
    /// List dynos
    Ps(command::ps::Ps),
    /// Show what a dyno wrote
    Logs(command::logs::Logs),
    /// Run one more process in a dyno
    Exec(command::exec::Exec),
    /// Take part in a dyno's standard streams
    Attach(command::attach::Attach),
    /// Copy files between a dyno and here
    Cp(command::cp::Cp),
    /// Show what a dyno has changed of its image's files
    Diff(command::diff::Diff),
    /// Start dynos that do not run
    Start(command::start::Start),
    /// Ask dynos to end, and end them after their grace
    Stop(command::stop::Stop),
    /// Stop dynos and start them again
    Restart(command::restart::Restart),
    /// Change the limits of a dyno
    Limit(command::limit::Limit),
    /// Hold dynos still
    Pause(command::pause::Pause),
    /// Let paused dynos go on
    Resume(command::resume::Resume),
    /// Save the processes of a dyno, to bring it back later
    Checkpoint(command::checkpoint::Checkpoint),
    /// List the checkpoints of a dyno
    Checkpoints(command::checkpoints::Checkpoints),
    /// Bring a dyno back from a checkpoint
    Restore(command::restore::Restore),
    /// Send a signal to dynos
    Kill(command::kill::Kill),
    /// Remove dynos
    Rm(command::rm::Rm),
    /// Wait until dynos have ended and show their exit codes
    Wait(command::wait::Wait),
    /// Show all about a dyno, as JSON
    Inspect(command::inspect::Inspect),
    /// Explain why a dyno restarts, waits or has ended
    Why(command::why::WhyCommand),
    /// Show what dynos use
    Stats(command::stats::StatsCommand),
    /// Show what dynos use, live
    Top(command::top::Top),
    /// Send what dynos write elsewhere
    Drain(command::drain::Drain),
    /// Fetch an image from its registry
    Pull(command::pull::Pull),
    /// List images
    Images(command::images::Images),
    /// Remove images
    Rmi(command::rmi::Rmi),
    /// Load images from an OCI or docker archive
    Load(command::load::Load),
    /// Make an image from a tar archive of a root file system
    Import(command::import::Import),
    /// Keep data that outlives dynos
    Volume(command::volume::Volume),
    /// Make several hosts on this machine, and have them fail
    Sandbox(command::sandbox::SandboxCommand),
    /// Keep secrets, and give them to dynos
    Secret(command::secret::Secret),
    /// Name machines, and choose one
    Ctx(command::ctx::Ctx),
    /// Let others use this host from elsewhere
    Token(command::token::Token),
    /// Show what happens on the host
    Events(command::events::Events),
    /// Show who changed what on the host
    Audit(command::audit::Audit),
    /// Show the host
    Info(command::info::Info),
    /// Look whether the host has what dynos need, and say what to do
    Doctor(command::doctor::Doctor),
    /// Show the versions of dyno and hostd
    Version(command::version::VersionCommand),
    /// Find out what is wrong
    Debug(command::debug::Debug),
    /// Write the completion script for a shell
    Completion(command::completion::Completion),
    /// Write manual pages, as roff
    Man(command::man::Man),
}

impl Cli {
    /// Runs the command; its exit code.
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let Global {
            socket,
            host,
            ctx,
            json,
        } = self.global;
        let asked = match (socket, host, ctx) {
            (Some(socket), _, _) => Some(Asked::Socket(socket)),
            (_, Some(host), _) => Some(Asked::Host(host)),
            (_, _, Some(ctx)) => Some(Asked::Context(ctx)),
            (None, None, None) => None,
        };
        let context = Context::new(asked, Output { json });
        self.command.run(&context).await
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_and_behind_the_command() {
        for line in [["dyno", "--json", "ps"], ["dyno", "ps", "--json"]] {
            assert!(Cli::try_parse_from(line).unwrap().global.json, "{line:?}");
        }
    }

    #[test]
    fn what_follows_the_image_is_the_dynos() {
        let words = |line: &[&str]| {
            let cli = Cli::try_parse_from(["dyno", "run"].iter().chain(line)).unwrap();
            assert!(!cli.global.json);
            let Command::Run(run) = cli.command else {
                panic!("{:?}", cli.command)
            };
            run.words().to_vec()
        };
        let line = ["--rm", "busybox", "ls", "-d", "--json", "--rm", "--", "-x"];
        assert_eq!(words(&line), line[1..]);
        assert_eq!(words(&["busybox", "-d"]), ["busybox", "-d"]);
        assert_eq!(
            words(&["-e", "A=1", "busybox", "--help"]),
            ["busybox", "--help"]
        );
    }

    #[test]
    fn an_unknown_flag_is_not_taken_for_an_image() {
        for line in [
            &["run", "--rn", "busybox"][..],
            &["exec", "-x", "web", "ls"],
        ] {
            assert!(
                Cli::try_parse_from(["dyno"].iter().chain(line)).is_err(),
                "{line:?}"
            );
        }
        assert!(Cli::try_parse_from(["dyno", "exec", "web"]).is_err());
    }
}
