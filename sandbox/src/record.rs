//! What is kept of a sandbox, in its folder.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Name, Result};

const FILE: &str = "sandbox.json";

/// How it is written.
const VERSION: u32 = 1;

/// A host of a sandbox.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// `host1` and so on.
    pub name: String,
    /// Its address on the wire.
    pub address: Ipv4Addr,
}

/// One direction in which nothing arrives.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Who sends.
    pub from: String,
    /// Who hears nothing of it.
    pub to: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) name: Name,
    pub(crate) hostd: PathBuf,
    pub(crate) hosts: Vec<Host>,
    pub(crate) cuts: Vec<Cut>,
}

impl Record {
    pub(crate) fn new(name: Name, hosts: u8, hostd: &Path) -> Self {
        let host = |n| Host {
            name: format!("host{n}"),
            address: Ipv4Addr::new(10, 213, 0, n),
        };
        Self {
            version: VERSION,
            name,
            hostd: hostd.to_owned(),
            hosts: (1..=hosts).map(host).collect(),
            cuts: Vec::new(),
        }
    }

    pub(crate) fn is_there(folder: &Path) -> bool {
        folder.join(FILE).exists()
    }

    pub(crate) fn read(folder: &Path, name: &Name) -> Result<Self> {
        let path = folder.join(FILE);
        let text = std::fs::read(&path).map_err(|source| Error::io("read", &path, source))?;
        let wrong = |why: String| Error::Record {
            path: path.clone(),
            why,
        };
        let record: Self =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        match (record.version, &record.name == name) {
            (VERSION, true) => Ok(record),
            (VERSION, false) => Err(wrong(format!("it is of {:?}", record.name.as_str()))),
            (other, _) => Err(wrong(format!(
                "it has version {other}, which this dyno does not know"
            ))),
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let new = path.with_extension("new");
        let failed = |source| Error::io("write", &path, source);
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)
    }
}
