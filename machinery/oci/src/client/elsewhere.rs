//! Blobs that the registry has somewhere else, and sends its clients to.

use http::Method;
use http::header::LOCATION;
use reqwest::Response;

use super::{ClientError, RegistryClient, header};

impl RegistryClient {
    /// Follows redirects of a client that does not with `elsewhere`, which has neither the registry's credentials nor
    /// its certificates.
    pub fn sent_elsewhere(mut self, elsewhere: reqwest::Client) -> Self {
        self.elsewhere = Some(elsewhere);
        self
    }

    pub(super) async fn followed(
        &self,
        response: Response,
        method: &Method,
        headers: &[(http::HeaderName, String)],
    ) -> Result<Response, ClientError> {
        let Some(elsewhere) = &self.elsewhere else { return Ok(response) };
        if *method != Method::GET || !response.status().is_redirection() {
            return Ok(response);
        }
        let to = response.url().join(&header(&response, &LOCATION)?);
        let to = to.map_err(|error| ClientError::Protocol(format!("it sends to no address: {error}")))?;
        let request = headers.iter().fold(elsewhere.get(to), |r, (name, value)| r.header(name, value));
        Ok(request.send().await?)
    }
}
