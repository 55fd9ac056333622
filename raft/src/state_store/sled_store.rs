//! The applied state in sled 0.34.
//!
//! ```text
//!   key                              value (postcard)
//!   m                                version, Applied, scalars of the image
//!   b │ broker id u64 BE             Broker
//!   t │ topic id 16                  Topic
//!   p │ topic id 16 │ partition BE   Partition
//!   g │ group                        Group
//!   k │ group                        ConsumerGroup (KIP-848)
//!   o │ group length u32 BE │ group │ topic id 16 │ partition BE   CommittedOffset
//! ```
//! One tree, so that one batch changes state and `m` together. sled's own `flush` does not flush the disk's
//! cache (it uses sync_file_range), so ours syncs the file as well; between flushes nothing is promised. sled may
//! panic on files that are damaged: that is caught and treated as unreadable.

use super::{Applied, StateStore, StoredState};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_metadata::{Broker, CommittedOffset, ConsumerGroup, Delta, Group, Image, Partition, Topic};
use strandline_record::{BrokerId, PartitionId, TopicId, TopicPartition};
use uuid::Uuid;

const VERSION: u32 = 1;
/// Key of all quotas; they are few.
const QUOTAS: &[u8] = b"q";
/// Keys written at once when everything is written.
const CHUNK: usize = 4096;

pub struct SledStore {
    path: PathBuf,
    db: Option<sled::Db>,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    version: u32,
    applied: Applied,
    index: u64,
    cluster_id: Option<Uuid>,
    formed_at_ms: i64,
    next_producer_id: i64,
}

impl SledStore {
    /// `path` is a directory of its own, which may be removed at any time while the node is stopped.
    pub fn new(path: &Path) -> Self {
        SledStore { path: path.to_owned(), db: None }
    }

    fn open(&mut self) -> io::Result<&sled::Db> {
        if self.db.is_none() {
            let config = sled::Config::new()
                .path(&self.path)
                // Read once at the start, written from then on.
                .cache_capacity(1 << 20)
                .mode(sled::Mode::LowSpace)
                // Its write buffers have this size.
                .segment_size(64 << 10)
                // No thread of its own: this store says when.
                .flush_every_ms(None);
            self.db = Some(guard("open", || Ok(config.open()?))?);
        }
        Ok(self.db.as_ref().expect("opened above"))
    }

    fn read(&mut self) -> io::Result<Option<StoredState>> {
        let db = self.open()?.clone();
        guard("read", move || {
            let Some(meta) = db.get(b"m")? else { return Ok(None) };
            let meta: Meta = decode(&meta)?;
            if meta.version != VERSION {
                return Err(invalid(format!("version {}", meta.version)));
            }
            let mut image = Image {
                index: meta.index,
                cluster_id: meta.cluster_id,
                formed_at_ms: meta.formed_at_ms,
                next_producer_id: meta.next_producer_id,
                ..Image::default()
            };
            for item in db.iter() {
                let (key, value) = item?;
                read_item(&mut image, &key, &value)?;
            }
            image.check().map_err(invalid)?;
            Ok(Some(StoredState { applied: meta.applied, image: Arc::new(image) }))
        })
    }
}

impl StateStore for SledStore {
    fn load(&mut self) -> io::Result<Option<StoredState>> {
        match self.read() {
            Ok(state) => Ok(state),
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "applied state unreadable; it will be rebuilt");
                self.wipe()?;
                Ok(None)
            }
        }
    }

    fn write(&mut self, state: &StoredState, delta: &Delta) -> io::Result<()> {
        let db = self.open()?.clone();
        let image = &state.image;
        guard(
            "write",
            AssertUnwindSafe(|| {
                let meta = Meta {
                    version: VERSION,
                    applied: state.applied.clone(),
                    index: image.index,
                    cluster_id: image.cluster_id,
                    formed_at_ms: image.formed_at_ms,
                    next_producer_id: image.next_producer_id,
                };
                let mut batch = sled::Batch::default();
                if delta.full {
                    // Without `m` there is no state, should this be cut short.
                    db.remove(b"m")?;
                    db.clear()?;
                    write_all(&db, image)?;
                } else {
                    write_changes(&mut batch, image, delta);
                }
                batch.insert(b"m".as_slice(), encode(&meta));
                db.apply_batch(batch)?;
                Ok(())
            }),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        let db = self.open()?.clone();
        let file = self.path.join("db");
        guard("flush", move || {
            db.flush()?;
            // Reason: sled is the one exception to "files only through storage::disk" (ARCHITECTURE.md).
            #[allow(clippy::disallowed_methods)]
            std::fs::File::open(file)?.sync_all()?;
            Ok(())
        })
    }

    fn wipe(&mut self) -> io::Result<()> {
        if let Some(db) = self.db.take() {
            // Dropping flushes; a damaged database may panic there too.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
        }
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A plain file where the directory belongs.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => std::fs::remove_file(&self.path),
            result => result,
        }
    }
}

fn guard<T>(what: &str, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(io::Error::other(format!("sled panicked at {what}"))))
}

fn write_changes(batch: &mut sled::Batch, image: &Image, delta: &Delta) {
    for id in &delta.brokers {
        put(batch, broker_key(*id), image.brokers.get(id).map(|b| encode(&**b)));
    }
    for id in &delta.topics {
        put(batch, topic_key(*id), image.topics.get(id).map(|t| encode(&**t)));
    }
    for tp in &delta.partitions {
        put(batch, partition_key(*tp), image.partitions.get(tp).map(|p| encode(&**p)));
    }
    for group in &delta.groups {
        put(batch, group_key(group), image.groups.get(group).map(|g| encode(&**g)));
        put(batch, consumer_group_key(group), image.consumer_groups.get(group).map(|g| encode(&**g)));
    }
    if delta.quotas {
        put(batch, QUOTAS.to_vec(), Some(encode(&image.quotas)));
    }
    for (group, tp) in &delta.offset_keys {
        put(batch, offset_key(group, *tp), image.committed_offset(group, *tp).map(encode));
    }
}

fn write_all(db: &sled::Db, image: &Image) -> io::Result<()> {
    let items = image
        .brokers
        .iter()
        .map(|(id, b)| (broker_key(*id), encode(&**b)))
        .chain(image.topics.iter().map(|(id, t)| (topic_key(*id), encode(&**t))))
        .chain(image.partitions.iter().map(|(tp, p)| (partition_key(*tp), encode(&**p))))
        .chain(image.groups.iter().map(|(id, g)| (group_key(id), encode(&**g))))
        .chain(image.consumer_groups.iter().map(|(id, g)| (consumer_group_key(id), encode(&**g))))
        .chain(image.offsets.iter().map(|((group, tp), o)| (offset_key(group, *tp), encode(o))))
        .chain([(QUOTAS.to_vec(), encode(&image.quotas))]);
    let mut batch = sled::Batch::default();
    for (position, (key, value)) in items.enumerate() {
        batch.insert(key, value);
        if position % CHUNK == CHUNK - 1 {
            db.apply_batch(std::mem::take(&mut batch))?;
        }
    }
    Ok(db.apply_batch(batch)?)
}

fn put(batch: &mut sled::Batch, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => batch.insert(key, value),
        None => batch.remove(key),
    }
}

fn read_item(image: &mut Image, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (kind, key) = key.split_first().ok_or_else(|| invalid("an empty key"))?;
    match kind {
        b'm' => {}
        b'q' => image.quotas = decode(value)?,
        b'b' => {
            let id = key.try_into().map_err(|_| invalid("a broker key"))?;
            let broker: Broker = decode(value)?;
            image.brokers.insert_mut(BrokerId(u64::from_be_bytes(id)), Arc::new(broker));
        }
        b't' => {
            let topic: Topic = decode(value)?;
            image.topic_ids.insert_mut(topic.name.clone(), topic.id);
            image.topics.insert_mut(topic.id, Arc::new(topic));
        }
        b'p' => {
            let partition: Partition = decode(value)?;
            image.partitions.insert_mut(decode_tp(key)?, Arc::new(partition));
        }
        b'g' => {
            let group: Group = decode(value)?;
            image.groups.insert_mut(text(key)?.into(), Arc::new(group));
        }
        b'k' => {
            let group: ConsumerGroup = decode(value)?;
            image.consumer_groups.insert_mut(text(key)?.into(), Arc::new(group));
        }
        b'o' => {
            let (length, rest) = key.split_at_checked(4).ok_or_else(|| invalid("an offset key"))?;
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            let (group, tp) = rest.split_at_checked(length).ok_or_else(|| invalid("an offset key"))?;
            let offset: CommittedOffset = decode(value)?;
            // One text for all offsets of a group; they come in order.
            let group = image.shared_group_id(text(group)?);
            image.offsets.insert_mut((group, decode_tp(tp)?), offset);
        }
        _ => return Err(invalid("a key of an unknown kind")),
    }
    Ok(())
}

fn broker_key(id: BrokerId) -> Vec<u8> {
    [b"b".as_slice(), &id.0.to_be_bytes()].concat()
}

fn topic_key(id: TopicId) -> Vec<u8> {
    [b"t".as_slice(), id.0.as_bytes()].concat()
}

fn partition_key(tp: TopicPartition) -> Vec<u8> {
    [b"p".as_slice(), tp.topic.0.as_bytes(), &tp.partition.0.to_be_bytes()].concat()
}

fn group_key(group: &str) -> Vec<u8> {
    [b"g".as_slice(), group.as_bytes()].concat()
}

fn consumer_group_key(group: &str) -> Vec<u8> {
    [b"k".as_slice(), group.as_bytes()].concat()
}

fn offset_key(group: &str, tp: TopicPartition) -> Vec<u8> {
    let length = (group.len() as u32).to_be_bytes();
    let (topic, partition) = (tp.topic.0.as_bytes(), tp.partition.0.to_be_bytes());
    [b"o".as_slice(), &length, group.as_bytes(), topic, &partition].concat()
}

fn decode_tp(key: &[u8]) -> io::Result<TopicPartition> {
    let key: [u8; 20] = key.try_into().map_err(|_| invalid("a partition key"))?;
    let topic = Uuid::from_slice(&key[..16]).expect("sixteen bytes");
    let partition = i32::from_be_bytes(key[16..].try_into().expect("four bytes"));
    Ok(TopicPartition { topic: TopicId(topic), partition: PartitionId(partition) })
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(invalid)
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("the image has no value that postcard cannot encode")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(invalid)
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
