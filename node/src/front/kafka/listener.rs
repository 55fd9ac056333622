//! Accepting Kafka clients: bounds on connections altogether and for each address.
//!
//! Nobody is served before this process is registered: its image could be of before a restart. Until then
//! connections wait in the socket's queue.

use super::KafkaFront;
use super::connection;
use crate::env::Listener;
use crate::net::{Acceptor, Limits};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const NOT_REGISTERED_YET: Duration = Duration::from_millis(20);

pub async fn run(front: Arc<KafkaFront>, listener: Box<dyn Listener>) {
    let context = front.context().clone();
    let stopping = context.stopping.clone();
    let accepting = async {
        while context.broker_epoch().is_none() {
            tokio::time::sleep(NOT_REGISTERED_YET).await;
        }
        let limits = Limits::new(context.config.max_connections);
        let mut acceptor = Acceptor::new("Kafka", listener, limits);
        context.meters.listens(acceptor.connections());
        let addresses = Arc::new(Addresses::new(context.config.connections_max_per_ip));
        loop {
            let mut io = acceptor.next().await;
            // Kafka's own first request is waited for by the connection itself.
            io.handshake_is_done();
            let address = io.remote().clone();
            let Some(counted) = addresses.clone().enter(host_of(&address)) else {
                tracing::debug!(remote = %address, "too many connections from this address");
                continue;
            };
            let (front, stopping) = (front.clone(), stopping.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => {}
                    () = connection::serve(front, io) => {}
                }
                drop(counted);
            });
        }
    };
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = accepting => {}
    }
}

/// `10.0.0.1:5000` without the port.
pub fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Connections of each address.
#[derive(Debug)]
struct Addresses {
    max: usize,
    open: Mutex<BTreeMap<Box<str>, usize>>,
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
struct Counted {
    addresses: Arc<Addresses>,
    host: Box<str>,
}

impl Addresses {
    fn new(max: usize) -> Self {
        Addresses { max, open: Mutex::default() }
    }

    fn enter(self: Arc<Self>, host: &str) -> Option<Counted> {
        {
            let mut open = self.open.lock();
            let count = open.entry(host.into()).or_insert(0);
            if *count >= self.max {
                return None;
            }
            *count += 1;
        }
        Some(Counted { addresses: self, host: host.into() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock();
        if let Some(count) = open.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_bound_and_gets_back_what_it_closes() {
        let addresses = Arc::new(Addresses::new(2));
        let enter = |host| addresses.clone().enter(host);
        let (first, _second) = (enter("a").unwrap(), enter("a").unwrap());
        assert!(enter("a").is_none());
        let other = enter("b").unwrap();
        drop(first);
        assert!(enter("a").is_some());
        drop(other);
        assert_eq!(addresses.open.lock().len(), 1, "an address without connections is forgotten");
        assert_eq!((host_of("10.0.0.1:5000"), host_of("[::1]:5000")), ("10.0.0.1", "[::1]"));
    }
}
