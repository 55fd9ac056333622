//! What all requests share.

use crate::config::GatewayConfig;
use crate::http::health::Readiness;
use crate::ingest::Ingest;
use crate::server::ServeError;
use std::sync::Arc;
use strandline_client::Client;

/// One gateway: its limits and its way to the cluster.
#[derive(Debug)]
pub struct App {
    /// Limits and names.
    pub config: GatewayConfig,
    /// The cluster.
    pub client: Client,
    /// The ingest pipeline, where this gateway has one.
    pub ingest: Option<Arc<Ingest>>,
    pub(crate) readiness: Readiness,
}

/// The state of every route.
pub type AppState = Arc<App>;

impl App {
    /// A gateway in front of the client's cluster. Talks to nobody yet; [`Ingest::run`] brings events into the store.
    ///
    /// # Errors
    /// [`ServeError::Config`].
    pub fn new(config: GatewayConfig, client: Client) -> Result<AppState, ServeError> {
        let ingest = match config.ingest.store {
            Some(_) => Some(Ingest::new(config.ingest.clone(), client.clone()).map_err(ServeError::Config)?),
            None => None,
        };
        Ok(Arc::new(App { config, client, ingest, readiness: Readiness::default() }))
    }
}
