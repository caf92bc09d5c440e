//! Which hostd a command is for, and the way there.
//!
//! ```text
//! flags ─▶ variables ─▶ contexts  ──▶ Place ─┬▶ local  a socket here, started where none listens
//!          the first that says so            ├▶ ssh    dyno there, whose streams are the connection
//!                                            └▶ https  hostd there, by TLS and with a token
//! ```

pub(crate) mod bridge;
mod contexts;
mod destination;
pub(crate) mod https;
mod local;
mod machine;
mod private;
mod ssh;

use std::ffi::OsString;
use std::path::PathBuf;

use dyno_api::client::Client;

pub(crate) use contexts::{Contexts, Entry, LOCAL, Name as ContextName};
pub(crate) use local::{become_daemon, no_program, program};
pub(crate) use machine::Machine;

use crate::failure::Failure;
use https::Https;
use local::Local;
use ssh::Ssh;

/// The hostd that a flag or a variable names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The one behind this socket.
    Socket(PathBuf),
    /// That of another machine.
    Host(Machine),
    /// That of a context.
    Context(ContextName),
}

/// Where hostd is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Behind a socket of this machine.
    Local(Local),
    /// On another machine, behind its socket.
    Ssh(Ssh),
    /// On another machine, where it listens itself.
    Https(Https),
}

impl Place {
    /// From what the flags ask for, else the variables, else the chosen context.
    ///
    /// # Errors
    /// A [`Failure`] for a variable that cannot be read, a context that is not
    /// there, and a list of contexts that cannot be read.
    pub(crate) fn find(asked: Option<Asked>) -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let asked = match asked {
            Some(asked) => Some(asked),
            None => from_variables(variable)?,
        };
        Ok(match asked {
            Some(Asked::Socket(socket)) => Self::Local(Local::find(Some(socket))),
            Some(Asked::Host(Machine::Ssh(to))) => Self::Ssh(Ssh::to(to)),
            Some(Asked::Host(Machine::Https(to))) => {
                Self::Https(Https::from_variables(to, variable)?)
            }
            Some(Asked::Context(name)) => Self::of_context(&Contexts::load()?, &name)?,
            None => {
                let contexts = Contexts::load()?;
                match contexts.chosen() {
                    Some(name) => Self::of_context(&contexts, name)?,
                    None => Self::Local(Local::find(None)),
                }
            }
        })
    }

    fn of_context(contexts: &Contexts, name: &ContextName) -> Result<Self, Failure> {
        let Some(entry) = contexts.find(name)? else {
            return Ok(Self::Local(Local::find(None)));
        };
        Ok(match entry.host.clone() {
            Machine::Ssh(to) => Self::Ssh(Ssh::to(to)),
            Machine::Https(to) => Self::Https(Https::of_context(name, to, entry)?),
        })
    }

    /// A client of that hostd, started where there is none.
    ///
    /// # Errors
    /// A [`Failure`] where none runs and none may or can be started, and where
    /// its machine cannot be reached.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        match self {
            Self::Local(local) => local.connect().await,
            Self::Ssh(ssh) => ssh.connect().await,
            Self::Https(https) => https.connect().await,
        }
    }

    /// A client of that hostd, if it runs; on this machine none is started.
    ///
    /// # Errors
    /// A [`Failure`] where one runs and does not let us in, and where its machine
    /// cannot be reached.
    pub(crate) async fn running(&self) -> Result<Option<Client>, Failure> {
        match self {
            Self::Local(local) => local.running().await,
            Self::Ssh(ssh) => ssh.connect().await.map(Some),
            Self::Https(https) => https.connect().await.map(Some),
        }
    }
}

/// What the environment asks for; the most exact of them wins.
fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Asked>, Failure> {
    if let Some(socket) = variable("DYNO_SOCKET") {
        return Ok(Some(Asked::Socket(socket.into())));
    }
    let wrong = |name: &str, value: &OsString, why: &dyn std::fmt::Display| {
        Failure::usage(format!("{name}={}: {why}", value.display()))
    };
    let text = |value: &OsString| value.to_string_lossy().into_owned();
    if let Some(value) = variable("DYNO_HOST") {
        let host = text(&value).parse();
        let host = host.map_err(|why| wrong("DYNO_HOST", &value, &why))?;
        return Ok(Some(Asked::Host(host)));
    }
    if let Some(value) = variable("DYNO_CTX") {
        let name = text(&value).parse();
        let name = name.map_err(|why| wrong("DYNO_CTX", &value, &why))?;
        return Ok(Some(Asked::Context(name)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_comes_before_a_host_and_a_host_before_a_context() {
        let asked = |variables: &[(&str, &str)]| {
            from_variables(|name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            })
            .unwrap()
        };
        let socket = ("DYNO_SOCKET", "/x.sock");
        let host = ("DYNO_HOST", "ann@box");
        let ctx = ("DYNO_CTX", "prod");
        assert_eq!(
            asked(&[ctx, host, socket]),
            Some(Asked::Socket("/x.sock".into()))
        );
        assert_eq!(
            asked(&[ctx, host]),
            Some(Asked::Host("ann@box".parse().unwrap()))
        );
        assert_eq!(asked(&[ctx]), Some(Asked::Context("prod".parse().unwrap())));
        assert_eq!(asked(&[]), None);
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        let wrong = from_variables(|name| (name == "DYNO_HOST").then(|| "-oProxyCommand=x".into()));
        let mut text = Vec::new();
        wrong.unwrap_err().render(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("DYNO_HOST=-oProxyCommand=x"), "{text}");
    }
}
