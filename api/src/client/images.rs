//! Calls about images.

use http::Method;
use tokio::io::AsyncRead;

use super::body::RequestBody;
use super::connection::Call;
use super::path::encode;
use super::{Client, Error, Lines};
use crate::image::{Image, Progress, PullRequest};
use crate::query::{ImportQuery, LoadQuery};

impl Client {
    /// The images that are ready to run.
    ///
    /// # Errors
    /// [`Error`] where hostd does not answer.
    pub async fn images(&self) -> Result<Vec<Image>, Error> {
        self.json(Call::new(Method::GET, "/v1/images")).await
    }

    /// Pulls an image; the last line says how it went.
    ///
    /// # Errors
    /// [`Error::Api`] where the request is refused before anything is fetched.
    pub async fn pull(&self, request: &PullRequest) -> Result<Lines<Progress>, Error> {
        self.lines(Call::new(Method::POST, "/v1/images/pull").json(request)?)
            .await
    }

    /// Loads the images of an OCI or docker archive; the last line says how it went.
    ///
    /// # Errors
    /// [`Error::Api`] where the request is refused before the archive is read.
    pub async fn load(
        &self,
        query: &LoadQuery,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<Lines<Progress>, Error> {
        let call = Call::new(Method::POST, "/v1/images/load").query(query)?;
        self.lines(call.body(RequestBody::archive(archive).await?))
            .await
    }

    /// Makes an image of one layer from a tar archive of a root file system.
    ///
    /// # Errors
    /// [`Error::Api`] where the reference is refused.
    pub async fn import(
        &self,
        query: &ImportQuery,
        archive: impl AsyncRead + Send + 'static,
    ) -> Result<Lines<Progress>, Error> {
        let call = Call::new(Method::POST, "/v1/images/import").query(query)?;
        self.lines(call.body(RequestBody::archive(archive).await?))
            .await
    }

    /// Removes the reference to an image, and what no other image needs.
    ///
    /// # Errors
    /// [`Error::Api`] where there is no such image, or a dyno uses it.
    pub async fn remove_image(&self, reference: &str) -> Result<(), Error> {
        let path = format!("/v1/images/{}", encode(reference));
        self.done(Call::new(Method::DELETE, path)).await
    }
}
