//! The namespaces and the wire, by ip(8).

use std::path::PathBuf;
use std::process::Command;

use crate::{Error, Host, Name, Result};

/// Where ip-netns(8) keeps namespaces.
const NAMESPACES: &str = "/run/netns";

/// Who nobody is: a locally administered address that no link here has.
const NOBODY: &str = "02:00:5e:00:53:00";

#[derive(Clone, Debug)]
pub(crate) struct Network {
    name: Name,
}

impl Network {
    pub(crate) fn of(name: &Name) -> Self {
        Self { name: name.clone() }
    }

    /// The namespace of a host, as ip-netns(8) lists it.
    pub(crate) fn namespace(&self, host: &Host) -> String {
        format!("{}-{}", self.name, host.name)
    }

    /// Its file.
    pub(crate) fn file(&self, host: &Host) -> PathBuf {
        PathBuf::from(NAMESPACES).join(self.namespace(host))
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    pub(crate) fn make(&self, hosts: &[Host]) -> Result<()> {
        let switch = self.switch();
        ip(&["netns", "add", &switch])?;
        // Nothing but IPv4 is spoken: a cut cuts everything.
        quiet(&switch)?;
        let bridge = ["link", "add", "br0", "up", "type", "bridge"];
        ip(&[&["-n", &switch][..], &bridge].concat())?;
        for host in hosts {
            let namespace = self.namespace(host);
            ip(&["netns", "add", &namespace])?;
            quiet(&namespace)?;
            let inside = |arguments: &[&str]| ip(&[&["-n", &namespace], arguments].concat());
            inside(&["link", "set", "lo", "up"])?;
            let pair = ["link", "add", "eth0", "type", "veth", "peer", "name"];
            inside(&[&pair[..], &[&host.name, "netns", &switch]].concat())?;
            let address = format!("{}/24", host.address);
            inside(&["addr", "add", &address, "dev", "eth0"])?;
            inside(&["link", "set", "eth0", "up"])?;
            let port = ["link", "set", &host.name, "master", "br0", "up"];
            ip(&[&["-n", &switch][..], &port].concat())?;
        }
        Ok(())
    }

    /// Takes everything away, whatever there is of it.
    pub(crate) fn remove(&self, hosts: &[Host]) -> Result<()> {
        let all = hosts.iter().map(|host| self.namespace(host));
        for namespace in all.chain([self.switch()]) {
            if PathBuf::from(NAMESPACES).join(&namespace).exists() {
                ip(&["netns", "del", &namespace])?;
            }
        }
        Ok(())
    }

    pub(crate) fn cut(&self, from: &Host, to: &Host) -> Result<()> {
        let to = to.address.to_string();
        let nobody = ["lladdr", NOBODY, "nud", "permanent"];
        let neighbour = ["neigh", "replace", &to, "dev", "eth0"];
        ip(&[&["-n", &self.namespace(from)][..], &neighbour, &nobody].concat())
    }

    pub(crate) fn heal(&self, from: &Host, to: &Host) -> Result<()> {
        let to = to.address.to_string();
        let neighbour = ["neigh", "del", &to, "dev", "eth0"];
        match ip(&[&["-n", &self.namespace(from)][..], &neighbour].concat()) {
            // A cut that was on record and not made.
            Err(Error::Command { said, .. }) if said.contains("No such file") => Ok(()),
            done => done,
        }
    }

    pub(crate) fn lose(&self, host: &Host, percent: u8) -> Result<()> {
        if percent == 0 {
            return self.lose_nothing(host);
        }
        let loss = format!("{percent}%");
        for (namespace, link) in self.ends(host) {
            let netem = ["root", "netem", "loss", &loss];
            let qdisc = ["-n", &namespace, "qdisc", "replace", "dev", link];
            match run("tc", &[&qdisc[..], &netem].concat()) {
                Err(Error::Command { said, .. }) if said.contains("qdisc kind is unknown") => {
                    return Err(Error::NoLoss);
                }
                done => done?,
            }
        }
        Ok(())
    }

    pub(crate) fn lose_nothing(&self, host: &Host) -> Result<()> {
        for (namespace, link) in self.ends(host) {
            let qdisc = ["-n", &namespace, "qdisc", "del", "dev", link, "root"];
            match run("tc", &qdisc) {
                // There is none.
                Err(Error::Command { said, .. })
                    if said.contains("No such file") || said.contains("handle of zero") => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn ends<'a>(&self, host: &'a Host) -> [(String, &'a str); 2] {
        [(self.namespace(host), "eth0"), (self.switch(), &host.name)]
    }

    /// A command in a host's namespace.
    pub(crate) fn command(&self, host: &Host, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let net = format!("--net={}", self.file(host).display());
        command.arg(net).arg("--").arg(program);
        command
    }
}

/// Turns IPv6 off, for links that there are and those to come.
fn quiet(namespace: &str) -> Result<()> {
    let net = format!("--net={NAMESPACES}/{namespace}");
    let script = "for links in all default; do \
                      file=/proc/sys/net/ipv6/conf/$links/disable_ipv6; \
                      test ! -e $file || echo 1 > $file; \
                  done";
    run("nsenter", &[&net, "--", "sh", "-c", script])
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let command = || format!("{program} {}", arguments.join(" "));
    let failed = |said: String| Error::Command {
        command: command(),
        said,
    };
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}
