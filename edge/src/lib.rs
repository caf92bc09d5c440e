//! The edge of a host: the DNS of its networks, as a process of its own.
//!
//! `dyno-edge` answers the dynos' name queries from a table that hostd keeps
//! on disk and forwards the rest. It is started by hostd, gives its privileges
//! up before it reads the first byte from a dyno, and outlives hostd: names
//! keep resolving while hostd is away, and hostd adopts it when it is back.
//!
//! ```text
//! hostd ──exec──▶ dyno-edge            lifecycle   start as root, take over, confine, serve, drain
//!   │                │                 confine     uid, capabilities, Landlock, seccomp, rlimits
//!   ├─tables.json──▶ tables            what answers: read again at each change (inotify)
//!   └─edge.sock────▶ control           what listens: sockets by SCM_RIGHTS; status, stop
//!                    │
//! dynos ──:53────▶ dns                 answer (pure), udp, tcp, forward ──▶ upstream resolvers
//! ```
//!
//! # Contract with hostd
//!
//! ## Start
//!
//! ```text
//! dyno-edge --tables /run/dyno/edge/tables.json --control /run/dyno/edge/edge.sock
//!           --uid N --gid N [--replace]
//! ```
//!
//! Started as root with stdin `/dev/null`, stdout a pipe and stderr a log file
//! (not a pipe: it lives longer than hostd; it writes a line per event, never
//! one per query). `N` is an id of the host's range that nothing else uses.
//! The folder of the tables must exist; the edge makes it `0750 root:gid`, so
//! a `tables.json` of mode 0644 is readable to it and to nobody else. A missing
//! `tables.json` is an empty table until it appears.
//!
//! It writes **one line** of JSON on stdout and closes it:
//! `{"ready":{"pid":N,"version":"…"}}` or `{"failed":{"message":"…"}}` (then
//! exit code 1). After `ready` it is confined, and `edge.sock` accepts. It has called
//! setsid(2); nothing ties it to its parent. Whoever spawned it should still
//! wait(2) for it to avoid a zombie.
//!
//! No environment variable is read. Sockets do not come at exec but over the
//! control socket, first ones and later ones alike: a threaded parent cannot
//! choose a child's descriptor numbers without unsafe code, and so the start,
//! a new network and the adoption after a restart of hostd are one path.
//!
//! ## Control socket
//!
//! A stream socket, 0600, owned by root; peers other than root (or the user
//! who started the edge) are turned away. One JSON line per request (at most
//! 4 KiB), one JSON line per answer, `{"ok":…}` or
//! `{"err":{"kind":"…","message":"…"}}`; any number of requests on one
//! connection, one after the other.
//!
//! | request | descriptors | answer |
//! |---|---|---|
//! | `{"op":"status"}` | – | [`control::protocol::Status`] |
//! | `{"op":"listen","network":"NAME"}` | 1…8: bound UDP sockets and listening TCP sockets, in any order, in the same sendmsg(2) as the line | `Status`; replaces what the network had |
//! | `{"op":"close","network":"NAME"}` | – | `Status`; unknown names are fine |
//! | `{"op":"reload"}` | – | `Status`, after the tables were read again: a barrier |
//! | `{"op":"sockets"}` | – | `{"network":"NAME"}` per network, one line each with its descriptors, then `Status` |
//! | `{"op":"stop"}` | – | `Status`; then it stops reading, finishes what is in flight (at most 5 s), exits 0 |
//!
//! `status` looks like this; `listening` is what hostd compares with the
//! networks that it wants, and `tables` says which file is being served
//! (`inode` and `modified_ns` of the file as stat(2) gives them):
//!
//! ```json
//! {"ok":{"pid":812,"version":"0.1.0","landlock":true,
//!   "tables":{"generation":3,"inode":1234,"modified_ns":1763824000000000000,"error":null},
//!   "listening":{"default":["udp 10.88.0.1:53","tcp 10.88.0.1:53"]},
//!   "counters":{"answered":10,"forwarded":4,"refused":0,"failed":0,"dropped":0}}}
//! ```
//!
//! A broken `tables.json` leaves the old table in force; `tables.error` says what is wrong.
//!
//! ## Adoption and replacement
//!
//! At hostd's start: connect to `edge.sock`. Refused or missing → start one.
//! Answered → compare `version` and `listening`, send what is missing. To
//! upgrade: start the new binary with `--replace`. It fetches the sockets from
//! the old edge (`sockets`), serves, and only then sends it `stop`; if it dies
//! before that, the old one serves on as if nothing had happened. Without
//! `--replace` a start beside a living edge fails and says so.
//!
//! ## resolv.conf of a dyno
//!
//! ```text
//! nameserver GATEWAY-ADDRESS
//! search dyno.internal
//! ```
//!
//! A name of the client's network is answered bare (`web.`) and qualified
//! (`web.dyno.internal.`). Other names under `dyno.internal.` do not exist,
//! everything else is forwarded to the tables' upstreams. Addresses that
//! belong to no network of the tables are refused.

mod causes;
pub mod command;
pub mod confine;
pub mod control;
pub mod dns;
pub mod lifecycle;
pub mod listeners;
mod parent;
pub mod tables;
