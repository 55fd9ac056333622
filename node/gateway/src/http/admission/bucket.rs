//! Token buckets, one a client. Pure: the time comes with each call.
//!
//! Kept as the moment at which a bucket will be full again (the generic cell rate algorithm), so that a bucket is one
//! number and a full one needs no place at all.

use super::ClientKey;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Buckets of `burst` tokens that fill at `rate` a second.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Between two tokens.
    interval: Duration,
    /// What an empty bucket needs to be full.
    depth: Duration,
    max_clients: usize,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    full_at: HashMap<ClientKey, Duration>,
    /// The one bucket of all clients that no place is left for.
    others: Duration,
    swept: Duration,
}

/// Between two looks for buckets that are full and need no place.
const SWEEP: Duration = Duration::from_secs(1);

impl Buckets {
    pub(super) fn new(rate: u32, burst: u32, max_clients: usize) -> Buckets {
        let interval = Duration::from_secs(1) / rate.max(1);
        let depth = interval * burst.max(1);
        Buckets { interval, depth, max_clients, clients: Mutex::default() }
    }

    /// Takes a token at time `now`, or says when there will be one.
    pub(super) fn take(&self, client: ClientKey, now: Duration) -> Result<(), Duration> {
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let clients = &mut *clients;
        if clients.full_at.len() >= self.max_clients && now >= clients.swept + SWEEP {
            clients.swept = now;
            clients.full_at.retain(|_, full_at| *full_at > now);
        }
        let room = clients.full_at.len() < self.max_clients;
        let full_at = match clients.full_at.get_mut(&client) {
            Some(full_at) => full_at,
            None if room => clients.full_at.entry(client).or_default(),
            None => &mut clients.others,
        };
        let next = (*full_at).max(now) + self.interval;
        match next.checked_sub(now + self.depth) {
            None | Some(Duration::ZERO) => {
                *full_at = next;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> ClientKey {
        ClientKey::Named([n].into())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let buckets = Buckets::new(10, 3, 100);
        for _ in 0..3 {
            assert_eq!(buckets.take(client(1), ms(0)), Ok(()));
        }
        assert_eq!(buckets.take(client(1), ms(0)), Err(ms(100)));
        assert_eq!(buckets.take(client(1), ms(40)), Err(ms(60)), "a refusal costs nothing");
        assert_eq!(buckets.take(client(2), ms(40)), Ok(()), "another client has its own");
        assert_eq!(buckets.take(client(1), ms(100)), Ok(()));
        assert_eq!(buckets.take(client(1), ms(100)), Err(ms(100)));
        for _ in 0..3 {
            assert_eq!(buckets.take(client(1), ms(10_000)), Ok(()), "no more than the burst is saved up");
        }
        assert!(buckets.take(client(1), ms(10_000)).is_err());
    }

    #[test]
    fn clients_beyond_the_most_share_one_bucket_until_others_are_full_again() {
        let buckets = Buckets::new(1, 2, 2);
        assert_eq!(buckets.take(client(1), ms(5000)), Ok(()));
        assert_eq!(buckets.take(client(2), ms(5000)), Ok(()));
        assert_eq!(buckets.take(client(3), ms(5000)), Ok(()));
        assert_eq!(buckets.take(client(4), ms(5000)), Ok(()));
        assert!(buckets.take(client(5), ms(5000)).is_err(), "3, 4 and 5 share one");
        assert_eq!(buckets.clients.lock().unwrap().full_at.len(), 2);
        assert_eq!(buckets.take(client(5), ms(6500)), Ok(()), "those of 1 and 2 are full: there is room");
        assert_eq!(buckets.clients.lock().unwrap().full_at.len(), 1);
    }
}
