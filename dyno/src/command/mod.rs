//! One file per command: its flags, and what it does with them.

pub(crate) mod attach;
pub(crate) mod audit;
pub(crate) mod checkpoint;
pub(crate) mod checkpoints;
pub(crate) mod completion;
pub(crate) mod cp;
mod credentials;
pub(crate) mod ctx;
pub(crate) mod debug;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod limit;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod restart;
pub(crate) mod restore;
pub(crate) mod resume;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod secret;
pub(crate) mod start;
pub(crate) mod stats;
mod status;
pub(crate) mod stop;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod up;
mod usage;
pub(crate) mod version;
pub(crate) mod volume;
pub(crate) mod wait;
pub(crate) mod why;

use std::io;

use dyno_api::client::{self, Client};

use crate::failure::Failure;
use crate::hostd::{Asked, Place};
use crate::output::Output;

/// What every command has: which hostd was asked for, and how to write.
#[derive(Debug)]
pub(crate) struct Context {
    asked: Option<Asked>,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(asked: Option<Asked>, output: Output) -> Self {
        Self { asked, output }
    }

    /// Where hostd is. Not every command asks: one that mends a broken list of
    /// contexts must not fail because of it.
    pub(crate) fn place(&self) -> Result<Place, Failure> {
        Place::find(self.asked.clone())
    }

    /// A client of hostd, which is started where there is none.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        self.place()?.connect().await
    }

    /// Does the same to several things at once and writes the names of those
    /// it was done to. A failure holds up no other; the first one's code is ours.
    pub(crate) async fn each<Act, Acting>(
        &self,
        names: Vec<String>,
        act: Act,
    ) -> Result<u8, Failure>
    where
        Act: Fn(Client, String) -> Acting,
        Acting: Future<Output = Result<(), client::Error>> + Send + 'static,
    {
        let client = self.client().await?;
        let acting: Vec<_> = names
            .into_iter()
            .map(|name| (name.clone(), tokio::spawn(act(client.clone(), name))))
            .collect();
        let (mut done, mut code) = (Vec::new(), 0);
        for (name, acting) in acting {
            let failure = match acting.await {
                Ok(Ok(())) => {
                    done.push(name);
                    continue;
                }
                Ok(Err(error)) => Failure::from(error),
                Err(error) => Failure::new(format!("{name}: {error}")),
            };
            failure.render(&mut io::stderr().lock()).unwrap_or_default();
            code = if code == 0 { failure.code() } else { code };
        }
        self.output.names(&done)?;
        Ok(code)
    }
}

/// The program and its arguments, of the words behind an image or a dyno. A
/// `--` before them, as other tools want it, is not among them.
fn command(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut words = words.peekable();
    words.next_if(|word| word == "--");
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_pair_of_hyphens_is_not_the_commands() {
        let command = |words: &[&str]| command(words.iter().map(|&word| word.to_owned()));
        assert_eq!(command(&["--", "ls", "--", "-l"]), ["ls", "--", "-l"]);
        assert_eq!(command(&["ls", "--"]), ["ls", "--"]);
        assert!(command(&[]).is_empty());
    }
}
