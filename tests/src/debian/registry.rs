//! A registry process, and what it was asked for.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::host::Host;

/// Debian's `docker-registry`, anonymous, on a free port of loopback.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    log: PathBuf,
    port: u16,
}

impl Registry {
    pub(super) fn start(storage: &Path, folder: &Path) -> Self {
        let (config, log) = (folder.join("registry.yml"), folder.join("registry.log"));
        let settings = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            storage.display()
        );
        super::write(&config, settings.as_bytes());
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the registry's log"))
            .spawn()
            .expect("docker-registry: apt-get install docker-registry");
        let mut registry = Self {
            process,
            log,
            port: 0,
        };
        crate::until("the registry listens", || {
            registry.port = registry
                .lines()
                .iter()
                .find_map(|line| port(line))
                .unwrap_or(0);
            registry.port != 0
        });
        registry
    }

    /// The full name of one of the images.
    pub fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/debian:{name}", self.port)
    }

    /// Pulls one of the images, after which no registry is needed.
    pub fn image_pulled(self, host: &Host, name: &str) -> String {
        let image = self.image(name);
        host.ok(&["pull", &image]);
        image
    }

    /// The digests of the blobs that were fetched so far.
    pub fn fetched(&self) -> Vec<String> {
        let lines = self.lines();
        let events = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let completed = events
            .filter(|event| event["msg"] == "response completed")
            .filter(|event| event["http.request.method"] == "GET");
        completed
            .filter_map(|event| {
                let (_, digest) = event["http.request.uri"].as_str()?.split_once("/blobs/")?;
                Some(digest.to_owned())
            })
            .collect()
    }

    fn lines(&self) -> Vec<String> {
        let log = BufReader::new(File::open(&self.log).expect("the registry's log"));
        log.lines().map_while(Result::ok).collect()
    }
}

fn port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..digits].parse().ok()
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
