//! The image as it moves: one publisher (the state machine), any number of receivers, each of which gets the
//! newest image and the merged delta since the image that it saw last.
//!
//! Publishing costs the same however many receivers there are or how far they are behind: the last deltas are
//! kept, and a receiver that missed more than these is told that everything may have changed.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use strandline_metadata::{Delta, Image};
use tokio::sync::watch;

/// Deltas kept for receivers that are behind.
const KEPT_DELTAS: usize = 256;

#[derive(Default)]
struct Feed {
    image: Arc<Image>,
    /// Number of publications so far.
    version: u64,
    /// Deltas that led to the last versions, up to the present one.
    deltas: VecDeque<Arc<Delta>>,
}

/// Publishes images. Clones share the feed.
#[derive(Clone)]
pub struct ImageFeed {
    feed: Arc<Mutex<Feed>>,
    version: watch::Sender<u64>,
}

impl Default for ImageFeed {
    fn default() -> Self {
        ImageFeed { feed: Arc::default(), version: watch::Sender::new(0) }
    }
}

impl ImageFeed {
    pub fn publish(&self, image: Arc<Image>, delta: Delta) {
        let mut feed = self.feed.lock();
        feed.image = image;
        feed.version += 1;
        feed.deltas.push_back(Arc::new(delta));
        if feed.deltas.len() > KEPT_DELTAS {
            feed.deltas.pop_front();
        }
        self.version.send_replace(feed.version);
    }

    /// The newest image.
    pub fn image(&self) -> Arc<Image> {
        self.feed.lock().image.clone()
    }

    /// A receiver that has seen nothing: its first `changed` answers at once, with a full delta.
    pub fn subscribe(&self) -> ImageReceiver {
        ImageReceiver { feed: self.feed.clone(), version: self.version.subscribe(), seen: None }
    }
}

/// Follows the image. Dropped changes are merged, never lost.
pub struct ImageReceiver {
    feed: Arc<Mutex<Feed>>,
    version: watch::Receiver<u64>,
    seen: Option<u64>,
}

impl ImageReceiver {
    /// Waits for an image that this receiver has not seen. Once the node has stopped it waits for ever.
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> (Arc<Image>, Delta) {
        loop {
            if let Some(changed) = self.take() {
                return changed;
            }
            if self.version.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The newest image and what changed since the last one seen, if there is a newer one.
    pub fn take(&mut self) -> Option<(Arc<Image>, Delta)> {
        let feed = self.feed.lock();
        self.version.borrow_and_update();
        let full = Delta { full: true, ..Delta::default() };
        let delta = match self.seen {
            None => full,
            Some(seen) if seen == feed.version => return None,
            Some(seen) => {
                let missed = (feed.version - seen) as usize;
                match feed.deltas.len().checked_sub(missed) {
                    None => full,
                    Some(known) => {
                        let mut merged = Delta::default();
                        feed.deltas.iter().skip(known).for_each(|d| merged.merge(Delta::clone(d)));
                        merged
                    }
                }
            }
        };
        self.seen = Some(feed.version);
        Some((feed.image.clone(), delta))
    }

    /// The newest image, seen or not; changes nothing.
    pub fn image(&self) -> Arc<Image> {
        self.feed.lock().image.clone()
    }

    /// Waits until the image has applied Raft entry `index`, and answers that image. What `changed` answers
    /// next is not affected.
    pub async fn wait_applied(&self, index: u64) -> Arc<Image> {
        let mut version = self.version.clone();
        loop {
            version.borrow_and_update();
            let image = self.image();
            if image.index >= index {
                return image;
            }
            if version.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Clone for ImageReceiver {
    /// A receiver that has seen what this one has.
    fn clone(&self) -> Self {
        ImageReceiver { feed: self.feed.clone(), version: self.version.clone(), seen: self.seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_record::BrokerId;

    fn at(index: u64) -> Arc<Image> {
        Arc::new(Image { index, ..Image::default() })
    }

    fn brokers(ids: std::ops::Range<u64>) -> Delta {
        Delta { brokers: ids.map(BrokerId).collect(), ..Delta::default() }
    }

    #[test]
    fn what_a_receiver_missed_is_merged_and_what_is_too_long_ago_is_everything() {
        let feed = ImageFeed::default();
        let mut receiver = feed.subscribe();
        assert!(receiver.take().unwrap().1.full, "it has seen nothing");
        assert_eq!(receiver.take(), None);
        feed.publish(at(1), brokers(1..2));
        feed.publish(at(2), brokers(2..4));
        let mut late = receiver.clone();
        assert_eq!(receiver.take(), Some((at(2), brokers(1..4))));
        assert_eq!(receiver.take(), None);
        for index in 3..3 + KEPT_DELTAS as u64 {
            feed.publish(at(index), brokers(index..index + 1));
        }
        let (image, delta) = receiver.take().unwrap();
        assert_eq!(
            (image.index, delta.full, delta.brokers.len()),
            (2 + KEPT_DELTAS as u64, false, KEPT_DELTAS)
        );
        assert!(late.take().unwrap().1.full);
        assert!(feed.subscribe().take().unwrap().1.full);
    }
}
