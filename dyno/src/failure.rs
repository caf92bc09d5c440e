//! What is printed and returned when a command fails.
//!
//! ```text
//! error: what was wrong, with which value
//!   try: what to do about it
//! ```

use std::ffi::OsString;
use std::io::{self, Write};

use clap::CommandFactory;
use dyno_api::client::{self, TlsError};
use dyno_api::error::{ApiError, ErrorKind};

use crate::cli::Cli;
use crate::output::style;

/// Exit codes that are dyno's own; docs/cli.md explains them to users.
pub(crate) mod code {
    pub(crate) const GENERAL: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const NOT_FOUND: u8 = 3;
    pub(crate) const CONFLICT: u8 = 4;
    pub(crate) const FORBIDDEN: u8 = 5;
    pub(crate) const EXHAUSTED: u8 = 6;
    pub(crate) const UNSUPPORTED: u8 = 7;
    pub(crate) const UPSTREAM: u8 = 8;
    pub(crate) const NO_HOSTD: u8 = 9;
    pub(crate) const UNAUTHORIZED: u8 = 10;
    /// `run` and `exec`: dyno itself failed, not the command.
    pub(crate) const NOT_RUN: u8 = 125;
    /// `run` and `exec`: the command cannot be executed.
    pub(crate) const NOT_EXECUTABLE: u8 = 126;
    /// `run` and `exec`: there is no such command.
    pub(crate) const NO_COMMAND: u8 = 127;
    /// We were asked to end again and again: 128 + SIGINT, as a shell has it.
    pub(crate) const INTERRUPTED: u8 = 130;
    /// The reader of standard output is gone: 128 + SIGPIPE, as a shell has it.
    pub(crate) const PIPE: u8 = 141;
}

/// A failed command: what to print, and what to return.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
    kind: Option<ErrorKind>,
    /// It was told already, or nobody listens.
    silent: bool,
}

impl Failure {
    /// A failure of the command line itself.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code: code::GENERAL,
            kind: None,
            silent: false,
        }
    }

    /// Arguments that make no sense together.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(message).with_code(code::USAGE)
    }

    /// A failure to do something to a file or device.
    pub(crate) fn io(operation: impl Into<String>, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(code::PIPE);
        }
        Self::new(format!("{}: {error}", operation.into()))
    }

    /// A failure that was told already.
    pub(crate) fn silent(code: u8) -> Self {
        Self {
            silent: true,
            ..Self::new("").with_code(code)
        }
    }

    /// clap's refusal of these arguments, in the words of all others.
    pub(crate) fn from_clap(refusal: &clap::Error, arguments: &[OsString]) -> Self {
        let text = refusal.render().to_string();
        let mut paragraphs = text.split("\n\n").map(str::trim);
        let first = paragraphs.next().unwrap_or_default();
        let first = first.strip_prefix("error: ").unwrap_or(first);
        let message = first.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let tip = paragraphs
            .flat_map(str::lines)
            .find_map(|line| line.trim().strip_prefix("tip: "));
        let hint = tip.map_or_else(|| help_for(arguments), str::to_owned);
        Self::usage(message).hint(hint)
    }

    /// The same with something to try.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same as a failure of one of several dynos.
    #[must_use]
    pub(crate) fn of(mut self, name: &str) -> Self {
        self.message = format!("{name}: {}", self.message);
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// The same as a failure to run a command, as `env` and `docker run` count
    /// them. What concerns the standard output and the flags stays as it is.
    #[must_use]
    pub(crate) fn not_run(self) -> Self {
        match self.code {
            code::PIPE | code::USAGE if self.kind.is_none() => self,
            code::NOT_EXECUTABLE | code::NO_COMMAND => self,
            _ => self.with_code(code::NOT_RUN),
        }
    }

    /// The same as a failure to execute the command itself.
    #[must_use]
    pub(crate) fn not_executed(self) -> Self {
        match self.kind {
            Some(ErrorKind::NotFound) => self.with_code(code::NO_COMMAND),
            Some(ErrorKind::Forbidden) => self.with_code(code::NOT_EXECUTABLE),
            _ => self.not_run(),
        }
    }

    /// What the process returns.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What kind of failure hostd said it was.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        self.kind
    }

    /// Writes the message and the hint.
    pub(crate) fn render(&self, to: &mut dyn Write) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        let (red, reset) = style::stderr(style::ERROR);
        writeln!(to, "{red}error:{reset} {}", self.message)?;
        match &self.hint {
            Some(hint) => writeln!(to, "  try: {hint}"),
            None => Ok(()),
        }
    }
}

/// The line that shows the help of the command that the arguments name.
fn help_for(arguments: &[OsString]) -> String {
    let cli = Cli::command();
    let mut words = arguments
        .iter()
        .skip(1)
        .filter_map(|argument| argument.to_str());
    match words.find(|word| cli.find_subcommand(word).is_some()) {
        Some(command) => format!("dyno {command} --help"),
        None => "dyno --help".to_owned(),
    }
}

/// The exit code of commands other than `run` and `exec`.
fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Invalid => code::USAGE,
        ErrorKind::Unauthorized => code::UNAUTHORIZED,
        ErrorKind::Forbidden => code::FORBIDDEN,
        ErrorKind::NotFound => code::NOT_FOUND,
        ErrorKind::Conflict => code::CONFLICT,
        ErrorKind::Exhausted => code::EXHAUSTED,
        ErrorKind::Unsupported => code::UNSUPPORTED,
        ErrorKind::Upstream => code::UPSTREAM,
        ErrorKind::Internal => code::GENERAL,
    }
}

impl From<ApiError> for Failure {
    fn from(
        ApiError {
            kind,
            message,
            hint,
        }: ApiError,
    ) -> Self {
        let code = code_of(kind);
        Self {
            message,
            hint,
            code,
            kind: Some(kind),
            silent: false,
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let message = error.to_string();
        match error {
            client::Error::Api(refusal) => return refusal.into(),
            client::Error::Connect {
                source: ref cause, ..
            } => {
                let failure = Self::new(format!("{message}: {cause}")).with_code(code::NO_HOSTD);
                return if cause.kind() == io::ErrorKind::PermissionDenied {
                    failure.hint("sudo dyno …, or join the group that owns the socket")
                } else {
                    failure.hint("sudo hostd serve")
                };
            }
            // The other end has told why, in dyno's own words; 1 may be any shell's.
            client::Error::Bridge {
                status: Some(status @ 2..=10),
                ..
            } => return Self::silent(u8::try_from(status).unwrap_or(code::GENERAL)),
            client::Error::Bridge { ref name, status } => {
                let failure = Self::new(message).with_code(code::NO_HOSTD);
                return failure.hint(match status {
                    Some(126 | 127) => format!("install dyno on {name}, in the PATH of its ssh"),
                    _ => format!("ssh {name} dyno version"),
                });
            }
            client::Error::Tls { ref source, .. } => {
                let code = match source {
                    TlsError::Refused(_) => code::UNAUTHORIZED,
                    _ => code::NO_HOSTD,
                };
                return Self::new(chain(message, &error))
                    .hint(way_out(source))
                    .with_code(code);
            }
            client::Error::Program {
                ref program,
                ref source,
            } => {
                let failure = Self::new(format!("{message}: {source}")).with_code(code::NO_HOSTD);
                return failure.hint(format!("install {}", program.display()));
            }
            _ => {}
        }
        Self::new(chain(message, &error)).hint("look into the log of hostd")
    }
}

/// A message with all that it comes from.
fn chain(mut message: String, error: &dyn std::error::Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}

/// What to do where there is no connection by TLS.
fn way_out(why: &TlsError) -> &'static str {
    match why {
        TlsError::Unreachable { .. } | TlsError::NoAddress | TlsError::Late => {
            "on the host: `hostd serve --listen ADDRESS:PORT`, and a firewall that lets us in"
        }
        TlsError::Closed => {
            "a minute later: hostd closes to where many requests with a wrong token come from"
        }
        TlsError::NotTls | TlsError::Version | TlsError::Tls(_) => {
            "the address that `dyno token create` tells on the host"
        }
        TlsError::Authority(_) => {
            "compare it with what `dyno token create` tells on the host: this is another host, \
             or somebody is in between"
        }
        TlsError::Refused(_) => {
            "on the host, `dyno token create --cert FILE` makes another, and the clocks of both \
             machines: `date -u`"
        }
        TlsError::Clock => "compare the clocks of both machines: `date -u`",
    }
}

/// Failures to write the standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::io("cannot write the standard output", &error)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn rendered(failure: &Failure) -> String {
        let mut text = Vec::new();
        failure.render(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn refused(arguments: &[&str]) -> Failure {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let refusal = Cli::try_parse_from(&arguments).unwrap_err();
        Failure::from_clap(&refusal, &arguments)
    }

    #[test]
    fn a_refusal_says_what_and_what_to_try() {
        let refusal = ApiError::new(ErrorKind::NotFound, "no dyno \"web\"").hint("dyno ps -a");
        let failure = Failure::from(refusal);
        assert_eq!(
            rendered(&failure),
            "error: no dyno \"web\"\n  try: dyno ps -a\n"
        );
        assert_eq!(failure.code(), 3);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_flag_and_what_is_accepted() {
        let failure = refused(&["dyno", "run", "-m", "1KB", "busybox"]);
        let text = rendered(&failure);
        assert!(
            text.starts_with("error: invalid value '1KB' for '--memory <SIZE>': "),
            "{text}"
        );
        assert!(
            text.contains("at least 4 MiB") && text.contains("64M"),
            "{text}"
        );
        assert!(text.ends_with("  try: dyno run --help\n"), "{text}");
        assert_eq!(failure.code(), code::USAGE);
    }

    #[test]
    fn an_unknown_flag_is_named_and_help_offered() {
        let text = rendered(&refused(&["dyno", "ps", "--al"]));
        assert!(
            text.starts_with("error: unexpected argument '--al' found\n  try: "),
            "{text}"
        );
        let text = rendered(&refused(&["dyno", "pz"]));
        assert!(text.contains("'pz'") && text.contains("try: "), "{text}");
    }

    #[test]
    fn what_kept_a_command_from_running_is_told_apart() {
        let failure = |kind| Failure::from(ApiError::new(kind, "x"));
        assert_eq!(failure(ErrorKind::NotFound).not_executed().code(), 127);
        assert_eq!(failure(ErrorKind::Forbidden).not_executed().code(), 126);
        for kind in [ErrorKind::Invalid, ErrorKind::Conflict, ErrorKind::Internal] {
            assert_eq!(failure(kind).not_executed().code(), 125, "{kind:?}");
        }
        for kind in [ErrorKind::NotFound, ErrorKind::Invalid, ErrorKind::Upstream] {
            assert_eq!(failure(kind).not_run().code(), 125, "{kind:?}");
        }
        assert_eq!(Failure::usage("x").not_run().code(), 2);
        assert_eq!(Failure::silent(code::PIPE).not_run().code(), 141);
    }

    #[test]
    fn each_kind_has_an_exit_code_of_its_own() {
        use ErrorKind::*;
        let kinds = [
            Invalid,
            Unauthorized,
            Forbidden,
            NotFound,
            Conflict,
            Exhausted,
            Unsupported,
            Upstream,
            Internal,
        ];
        let mut codes: Vec<u8> = kinds.into_iter().map(code_of).collect();
        codes.push(code::NO_HOSTD);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), kinds.len() + 1);
    }

    #[test]
    fn a_gone_reader_is_not_worth_a_message() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((rendered(&failure).as_str(), failure.code()), ("", 141));
    }

    #[test]
    fn an_absent_hostd_is_told_with_its_socket() {
        let failure = Failure::from(client::Error::Connect {
            socket: "/run/dyno/hostd.sock".into(),
            source: io::Error::from(io::ErrorKind::ConnectionRefused),
        });
        let text = rendered(&failure);
        assert!(
            text.contains("/run/dyno/hostd.sock") && text.contains("try: "),
            "{text}"
        );
        assert_eq!(failure.code(), code::NO_HOSTD);
    }
}
