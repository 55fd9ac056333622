//! What all requests share.

use crate::config::GatewayConfig;
use crate::http::health::Readiness;
use std::sync::Arc;
use strandline_client::Client;

/// One gateway: its limits and its way to the cluster.
#[derive(Debug)]
pub struct App {
    /// Limits and names.
    pub config: GatewayConfig,
    /// The cluster.
    pub client: Client,
    pub(crate) readiness: Readiness,
}

/// The state of every route.
pub type AppState = Arc<App>;

impl App {
    /// A gateway in front of the client's cluster. Talks to nobody yet.
    pub fn new(config: GatewayConfig, client: Client) -> AppState {
        Arc::new(App { config, client, readiness: Readiness::default() })
    }
}
