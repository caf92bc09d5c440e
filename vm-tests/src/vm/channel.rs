//! Carries frames between the commands of the harness and the agent.
//!
//! One thread reads and hands each frame to the command it belongs to. When
//! the machine is gone, every command sees its queue closed.

use std::collections::HashMap;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wire::{Frame, Hello, Kind};

/// Commands that wait for frames; `None` once the machine is gone.
type Routes = Arc<Mutex<Option<HashMap<u32, Sender<Frame>>>>>;

/// The harness's end of the agent's port.
#[derive(Debug)]
pub(super) struct Channel {
    writer: Mutex<ChildStdin>,
    routes: Routes,
    next: Mutex<u32>,
}

impl Channel {
    /// Waits for the agent's first word.
    ///
    /// # Errors
    /// When it does not come before the deadline, or the machine ends.
    pub(super) fn open(
        stdin: ChildStdin,
        stdout: ChildStdout,
        deadline: Duration,
    ) -> Result<(Self, Hello)> {
        let (sender, greetings) = mpsc::channel();
        let routes: Routes = Arc::new(Mutex::new(Some(HashMap::from([(0, sender)]))));
        let reader = Arc::clone(&routes);
        thread::spawn(move || distribute(stdout, &reader));
        let hello = match greetings.recv_timeout(deadline) {
            Ok(frame) => serde_json::from_slice(&frame.payload).context("reading hello")?,
            Err(RecvTimeoutError::Timeout) => bail!("no word from the guest in {deadline:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("the machine ended before it was up"),
        };
        Ok((
            Self {
                writer: Mutex::new(stdin),
                routes,
                next: Mutex::new(1),
            },
            hello,
        ))
    }

    /// A new channel and the queue of what the agent says on it.
    ///
    /// # Errors
    /// When the machine is gone.
    pub(super) fn open_route(&self) -> Result<(u32, Receiver<Frame>)> {
        let channel = {
            let mut next = lock(&self.next);
            *next += 1;
            *next
        };
        let (sender, frames) = mpsc::channel();
        lock(&self.routes)
            .as_mut()
            .context("the machine is gone")?
            .insert(channel, sender);
        Ok((channel, frames))
    }

    /// Whatever the agent still says on this channel is dropped.
    pub(super) fn close_route(&self, channel: u32) {
        if let Some(routes) = lock(&self.routes).as_mut() {
            routes.remove(&channel);
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the machine is gone.
    pub(super) fn send(&self, frame: &Frame) -> Result<()> {
        frame
            .write_to(&mut *lock(&self.writer))
            .context("writing to the guest")
    }
}

/// Reads until the machine is gone.
fn distribute(mut stdout: ChildStdout, routes: &Routes) {
    loop {
        match Frame::read_from(&mut stdout) {
            Ok(Some(frame)) => {
                // A second hello is an agent that died and was started again:
                // nobody waits for it, and its commands run into their deadlines.
                if let Some(routes) = lock(routes).as_mut() {
                    let gone = match routes.get(&frame.channel) {
                        Some(route) => {
                            let last = matches!(frame.kind, Kind::Exit | Kind::Hello);
                            let channel = frame.channel;
                            (route.send(frame).is_err() || last).then_some(channel)
                        }
                        None => None,
                    };
                    if let Some(channel) = gone {
                        routes.remove(&channel);
                    }
                }
            }
            Ok(None) => break,
            Err(error) => {
                eprintln!("reading from the guest: {error}");
                break;
            }
        }
    }
    *lock(routes) = None;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
