//! What all parts of the engine share: folders, facts, images, the network,
//! and who is who among the dynos.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dyno_api::error::ApiError;
use dyno_images::Store;
use dyno_runtime::cgroup::Layout;
use jiff::Timestamp;
use tokio::sync::RwLock;
use tokio::task::spawn_blocking;

use crate::audit::Audit;
use crate::config::Serve;
use crate::drains::Drains;
use crate::durable::{chain, internal};
use crate::edge::Edge;
use crate::events::Events;
use crate::facts::{self, HostFacts};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::network::{self, DefaultNetwork};
use crate::once::AtWork;
use crate::paths::Paths;
use crate::readiness::Pulse;
use crate::registry::Registry;
use crate::remote::Remote;
use crate::secrets::Secrets;
use crate::spare::Spares;
use crate::tokens::Tokens;
use crate::volumes::Volumes;

/// The programs that hostd executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// `dyno-runtime`.
    pub runtime: PathBuf,
    /// `dyno-unpack`.
    pub unpack: PathBuf,
    /// `dyno-edge`.
    pub edge: PathBuf,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Its folders.
    pub paths: Paths,
    /// Who it is.
    pub identity: Identity,
    /// The machine.
    pub facts: HostFacts,
    /// The programs it executes.
    pub binaries: Binaries,
    /// What hostd was started with.
    pub options: Serve,
    /// Where its monitors come from.
    pub spares: Arc<Spares>,
    /// How the machine's cgroups are mounted.
    pub layout: Layout,
    /// Where the output of its dynos is sent.
    pub drains: Drains,
    /// When this hostd was started.
    pub started: Timestamp,
    /// What it counts.
    pub metrics: Metrics,
    /// Whether it still looks after its dynos.
    pub pulse: Pulse,
    /// What happened.
    pub events: Events,
    /// Who changed what.
    pub audit: Arc<Audit>,
    /// Its images.
    pub images: Store,
    /// What only its dynos are told.
    pub secrets: Secrets,
    /// Who may ask from elsewhere.
    pub tokens: Tokens,
    /// How they get in.
    pub remote: Remote,
    /// Its volumes.
    pub volumes: Volumes,
    /// Read by who takes layers into use, written by who removes unused ones.
    pub layers: RwLock<()>,
    /// The default network.
    pub network: DefaultNetwork,
    /// Where names are served.
    pub edge: Edge,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) at_work: AtWork,
    pub(crate) ready: AtomicBool,
    pub(crate) dns: AtomicBool,
    pub(crate) publishing: Mutex<()>,
    pub(crate) resolvers: Mutex<Vec<IpAddr>>,
}

impl Host {
    /// Who is who; never held across an await.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom names of the outside are asked of.
    pub(crate) fn resolvers(&self) -> Vec<IpAddr> {
        let resolvers = self.resolvers.lock();
        resolvers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files of the machine anew that may have changed. Blocks.
    pub(crate) fn reload(&self) {
        let resolvers = facts::resolvers();
        tracing::info!(?resolvers, "resolvers are read anew");
        *self
            .resolvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = resolvers;
        self.publish_names();
    }

    /// Writes the names of all attached dynos for the edge.
    pub(crate) fn publish_names(&self) {
        // Dynos come and go side by side: whoever looks last writes last.
        let _publishing = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let tables = self.network.tables(&self.resolvers());
        if let Err(error) = self.edge.write_tables(&tables) {
            tracing::warn!(%error, "the names of dynos are not up to date");
        }
    }

    /// Brings network, names and edge back to what they shall be.
    pub async fn repair(&self) {
        match self.network.repair().await {
            Ok(repairs) => {
                let count = u64::try_from(repairs.len()).unwrap_or(u64::MAX);
                self.metrics.repairs.fetch_add(count, Ordering::Relaxed);
                for repair in repairs {
                    tracing::warn!(?repair, "the network was not as it should be");
                }
            }
            // A dyno may have gone in the middle of it: the next look is soon.
            Err(error) => tracing::warn!(%error, "cannot check the network"),
        }
        // What hostd itself has to do is done: an edge that hangs is not hostd.
        self.pulse.beat();
        self.ensure_edge().await;
    }

    async fn ensure_edge(&self) {
        let (edge, gateways) = (self.edge.clone(), self.network.gateways());
        let ensured = spawn_blocking(move || edge.ensure(network::DEFAULT, &gateways)).await;
        let problem = match ensured {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(chain(&error)),
            Err(error) => Some(error.to_string()),
        };
        let was = self.dns.swap(problem.is_none(), Ordering::Relaxed);
        match problem {
            Some(problem) if was || !self.ready.load(Ordering::Relaxed) => {
                tracing::error!(problem, "dynos have no DNS");
            }
            None if !was => tracing::info!("DNS for dynos answers"),
            _ => {}
        }
    }
}

/// Runs blocking work of the engine off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(internal(&std::io::Error::from(error))),
    }
}
