//! Hearing of it at once when somebody removes our rules or links, so that
//! the next reconciliation need not wait for its turn: a flushed table leaves
//! dynos unfiltered until it is back (P13).

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::NETFILTER;

use crate::error::{Error, Result};
use crate::netlink::Socket;

/// `1 << (NFNLGRP_NFTABLES - 1)`
const RULES: u32 = 1 << 6;
/// `RTMGRP_LINK`
const LINKS: u32 = 1;
const NFT_DEL_FIRST: u16 = 10 << 8;
const RTM_DELLINK: u16 = 17;

/// A subscription to changes of rules and links, by anybody but the
/// [`Network`](crate::Network) it came from.
#[derive(Debug)]
pub struct Watch {
    rules: Socket,
    links: Socket,
    own: Vec<u32>,
}

impl Watch {
    /// `own` are the port ids of the sockets whose changes are no news.
    pub(crate) fn open(own: Vec<u32>) -> Result<Self> {
        let failed = |source| Error::Netlink {
            operation: "subscribe to network changes".to_owned(),
            source,
        };
        Ok(Self {
            rules: Socket::subscribe(Some(NETFILTER), RULES).map_err(failed)?,
            links: Socket::subscribe(None, LINKS).map_err(failed)?,
            own,
        })
    }

    /// Waits until somebody changed nft rules or removed a link, or until
    /// `timeout` has passed; says which. Removals of links by
    /// [`Network::detach`](crate::Network::detach) count, too.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let failed = |errno: rustix::io::Errno| Error::Netlink {
            operation: "wait for network changes".to_owned(),
            source: errno.into(),
        };
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let wait = Timespec::try_from(left).ok(); // longer than that is for ever
            let ready = {
                let mut sockets = [
                    PollFd::from_borrowed_fd(self.rules.as_fd(), PollFlags::IN),
                    PollFd::from_borrowed_fd(self.links.as_fd(), PollFlags::IN),
                ];
                rustix::io::retry_on_intr(|| poll(&mut sockets, wait.as_ref())).map_err(failed)?
            };
            if ready == 0 {
                return Ok(false);
            }
            if self.news()? {
                return Ok(true);
            }
        }
    }

    /// Reads what is there; whether any of it is news.
    fn news(&mut self) -> Result<bool> {
        let own = &self.own;
        let rules = self
            .rules
            .heard(|kind, sender| kind >= NFT_DEL_FIRST && !own.contains(&sender))?;
        let links = self.links.heard(|kind, _| kind == RTM_DELLINK)?;
        Ok(rules || links)
    }
}
