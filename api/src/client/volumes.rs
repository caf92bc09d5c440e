//! Calls about volumes.

use http::Method;
use tokio::io::AsyncRead;

use super::body::RequestBody;
use super::connection::Call;
use super::path::encode;
use super::{Client, Download, Error};
use crate::query::{ExportQuery, ForceQuery, QuotaQuery};
use crate::volume::{RollbackRequest, Snapshot, SnapshotRequest, Volume, VolumeChange, VolumeSpec};

impl Client {
    /// Every volume.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        self.json(Call::new(Method::GET, "/v1/volumes")).await
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// [`Error::Api`] where the name is taken, or the quota cannot be enforced.
    pub async fn create_volume(&self, spec: &VolumeSpec) -> Result<Volume, Error> {
        let call = Call::new(Method::POST, "/v1/volumes").json(spec)?;
        self.json(call).await
    }

    /// One volume, with what it takes up.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none of that name.
    pub async fn volume(&self, name: &str) -> Result<Volume, Error> {
        self.json(Call::new(Method::GET, of(name, ""))).await
    }

    /// Changes a volume while it is used.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none, or nobody would enforce its quota.
    pub async fn set_volume(&self, name: &str, change: &VolumeChange) -> Result<Volume, Error> {
        let call = Call::new(Method::PATCH, of(name, "")).json(change)?;
        self.json(call).await
    }

    /// Removes a volume with its data; with its snapshots where that is forced.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none, or it is in use.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, of(name, "")).query(&ForceQuery { force })?;
        self.done(call).await
    }

    /// The snapshots of a volume.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such volume.
    pub async fn snapshots(&self, volume: &str) -> Result<Vec<Snapshot>, Error> {
        let call = Call::new(Method::GET, of(volume, "/snapshots"));
        self.json(call).await
    }

    /// Keeps a volume's files as they are now.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such volume, or the name is taken.
    pub async fn snapshot(
        &self,
        volume: &str,
        request: &SnapshotRequest,
    ) -> Result<Snapshot, Error> {
        let call = Call::new(Method::POST, of(volume, "/snapshots")).json(request)?;
        self.json(call).await
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none.
    pub async fn remove_snapshot(&self, volume: &str, snapshot: &str) -> Result<(), Error> {
        let path = of(volume, &format!("/snapshots/{}", encode(snapshot)));
        self.done(Call::new(Method::DELETE, path)).await
    }

    /// Gives a volume the files of one of its snapshots.
    ///
    /// # Errors
    /// [`Error::Api`] where there is none, or a dyno that mounts the volume runs.
    pub async fn roll_back(
        &self,
        volume: &str,
        request: &RollbackRequest,
    ) -> Result<Volume, Error> {
        let call = Call::new(Method::POST, of(volume, "/rollback")).json(request)?;
        self.json(call).await
    }

    /// A volume's files as a tar stream.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such volume or snapshot.
    pub async fn export_volume(&self, name: &str, query: &ExportQuery) -> Result<Download, Error> {
        let call = Call::new(Method::GET, of(name, "/archive")).query(query)?;
        self.download(call).await
    }

    /// Makes a volume of a tar stream.
    ///
    /// # Errors
    /// [`Error::Api`] where the name is taken or the archive is refused.
    pub async fn import_volume(
        &self,
        name: &str,
        query: &QuotaQuery,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<Volume, Error> {
        let call = Call::new(Method::PUT, of(name, "/archive")).query(query)?;
        self.json(call.body(RequestBody::archive(archive).await?))
            .await
    }
}

fn of(name: &str, rest: &str) -> String {
    format!("/v1/volumes/{}{rest}", encode(name))
}
