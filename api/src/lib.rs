//! The HTTP contract between `hostd` and everyone who talks to it.
//!
//! One definition of each type: the server, the typed client, the OpenAPI
//! document and the command line all come from here. Unknown fields are
//! refused everywhere, so that a misspelt option is an error and not a no-op.
//!
//! ```text
//! dyno, health, why, image, secret, token, volume, host, event, error, name   what travels
//! query                                            parameters after the `?`
//! frame                                            attach and exec streams
//! audit                                            who changed what
//! doctor                                           what a look at the machine found
//! edge                                             tables for dyno-edge
//! pem                                              keys and certificates as text
//! client                                           typed calls over a unix socket, ssh or TLS
//! openapi                                          the generated document
//! ```

pub mod audit;
pub mod checkpoint;
pub mod client;
pub mod doctor;
pub mod drain;
pub mod dyno;
pub mod edge;
pub mod error;
pub mod event;
pub mod frame;
pub mod health;
pub mod host;
pub mod image;
pub mod name;
pub mod openapi;
pub mod pem;
pub mod query;
pub mod secret;
pub mod token;
pub mod volume;
pub mod why;
