//! The shapes of the requests that are served, by the versions that have each field: `f(from, to, kind)`, and
//! for tagged fields that the decoder knows `t(number, from, kind)`. Taken from the decoders of
//! `kafka-protocol` 0.18; the tests of `versions.rs` compare each with its decoder in every version.

use super::shape::Kind::{Array, Bytes, Fixed, Nullable, Struct, Text};
use super::shape::{Field, Kind, Shape, Tag};

const fn f(from: i16, to: i16, kind: Kind) -> Field {
    Field { from, to, kind }
}

const fn t(number: u32, from: i16, kind: Kind) -> Tag {
    Tag { number, from, kind }
}

pub static API_VERSIONS: Shape = Shape { fields: &[f(3, 4, Text), f(3, 4, Text)], tags: &[] };
static METADATA_TOPIC: Shape = Shape { fields: &[f(10, 13, Fixed(16)), f(0, 13, Text)], tags: &[] };
pub static METADATA: Shape = Shape {
    fields: &[
        f(0, 13, Array(&Struct(&METADATA_TOPIC))),
        f(4, 13, Fixed(1)),
        f(8, 10, Fixed(1)),
        f(8, 13, Fixed(1)),
    ],
    tags: &[],
};
static PRODUCE_PARTITION_PRODUCE_DATA: Shape =
    Shape { fields: &[f(3, 13, Fixed(4)), f(3, 13, Bytes)], tags: &[] };
static PRODUCE_TOPIC_PRODUCE_DATA: Shape = Shape {
    fields: &[
        f(3, 12, Text),
        f(13, 13, Fixed(16)),
        f(3, 13, Array(&Struct(&PRODUCE_PARTITION_PRODUCE_DATA))),
    ],
    tags: &[],
};
pub static PRODUCE: Shape = Shape {
    fields: &[
        f(3, 13, Text),
        f(3, 13, Fixed(2)),
        f(3, 13, Fixed(4)),
        f(3, 13, Array(&Struct(&PRODUCE_TOPIC_PRODUCE_DATA))),
    ],
    tags: &[],
};
static FETCH_PARTITION: Shape = Shape {
    fields: &[
        f(4, 18, Fixed(4)),
        f(9, 18, Fixed(4)),
        f(4, 18, Fixed(8)),
        f(12, 18, Fixed(4)),
        f(5, 18, Fixed(8)),
        f(4, 18, Fixed(4)),
    ],
    tags: &[t(0, 17, Fixed(16)), t(1, 18, Fixed(8))],
};
static FETCH_TOPIC: Shape = Shape {
    fields: &[f(4, 12, Text), f(13, 18, Fixed(16)), f(4, 18, Array(&Struct(&FETCH_PARTITION)))],
    tags: &[],
};
static FETCH_FORGOTTEN_TOPIC: Shape =
    Shape { fields: &[f(7, 12, Text), f(13, 18, Fixed(16)), f(7, 18, Array(&Fixed(4)))], tags: &[] };
static FETCH_REPLICA_STATE: Shape = Shape { fields: &[f(15, 18, Fixed(4)), f(15, 18, Fixed(8))], tags: &[] };
pub static FETCH: Shape = Shape {
    fields: &[
        f(4, 14, Fixed(4)),
        f(4, 18, Fixed(4)),
        f(4, 18, Fixed(4)),
        f(4, 18, Fixed(4)),
        f(4, 18, Fixed(1)),
        f(7, 18, Fixed(4)),
        f(7, 18, Fixed(4)),
        f(4, 18, Array(&Struct(&FETCH_TOPIC))),
        f(7, 18, Array(&Struct(&FETCH_FORGOTTEN_TOPIC))),
        f(11, 18, Text),
    ],
    tags: &[t(0, 4, Text), t(1, 15, Struct(&FETCH_REPLICA_STATE))],
};
static LIST_OFFSETS_PARTITION: Shape =
    Shape { fields: &[f(1, 10, Fixed(4)), f(4, 10, Fixed(4)), f(1, 10, Fixed(8))], tags: &[] };
static LIST_OFFSETS_TOPIC: Shape =
    Shape { fields: &[f(1, 10, Text), f(1, 10, Array(&Struct(&LIST_OFFSETS_PARTITION)))], tags: &[] };
pub static LIST_OFFSETS: Shape = Shape {
    fields: &[
        f(1, 10, Fixed(4)),
        f(2, 10, Fixed(1)),
        f(1, 10, Array(&Struct(&LIST_OFFSETS_TOPIC))),
        f(10, 10, Fixed(4)),
    ],
    tags: &[],
};
static OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_PARTITION: Shape =
    Shape { fields: &[f(2, 4, Fixed(4)), f(2, 4, Fixed(4)), f(2, 4, Fixed(4))], tags: &[] };
static OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_TOPIC: Shape = Shape {
    fields: &[f(2, 4, Text), f(2, 4, Array(&Struct(&OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_PARTITION)))],
    tags: &[],
};
pub static OFFSET_FOR_LEADER_EPOCH: Shape = Shape {
    fields: &[f(3, 4, Fixed(4)), f(2, 4, Array(&Struct(&OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_TOPIC)))],
    tags: &[],
};
pub static INIT_PRODUCER_ID: Shape =
    Shape { fields: &[f(0, 5, Text), f(0, 5, Fixed(4)), f(3, 5, Fixed(8)), f(3, 5, Fixed(2))], tags: &[] };
pub static DESCRIBE_CLUSTER: Shape =
    Shape { fields: &[f(0, 2, Fixed(1)), f(1, 2, Fixed(1)), f(2, 2, Fixed(1))], tags: &[] };
pub static FIND_COORDINATOR: Shape =
    Shape { fields: &[f(0, 3, Text), f(1, 6, Fixed(1)), f(4, 6, Array(&Text))], tags: &[] };
static JOIN_GROUP_PROTOCOL: Shape = Shape { fields: &[f(0, 9, Text), f(0, 9, Bytes)], tags: &[] };
pub static JOIN_GROUP: Shape = Shape {
    fields: &[
        f(0, 9, Text),
        f(0, 9, Fixed(4)),
        f(1, 9, Fixed(4)),
        f(0, 9, Text),
        f(5, 9, Text),
        f(0, 9, Text),
        f(0, 9, Array(&Struct(&JOIN_GROUP_PROTOCOL))),
        f(8, 9, Text),
    ],
    tags: &[],
};
static SYNC_GROUP_ASSIGNMENT: Shape = Shape { fields: &[f(0, 5, Text), f(0, 5, Bytes)], tags: &[] };
pub static SYNC_GROUP: Shape = Shape {
    fields: &[
        f(0, 5, Text),
        f(0, 5, Fixed(4)),
        f(0, 5, Text),
        f(3, 5, Text),
        f(5, 5, Text),
        f(5, 5, Text),
        f(0, 5, Array(&Struct(&SYNC_GROUP_ASSIGNMENT))),
    ],
    tags: &[],
};
pub static HEARTBEAT: Shape =
    Shape { fields: &[f(0, 4, Text), f(0, 4, Fixed(4)), f(0, 4, Text), f(3, 4, Text)], tags: &[] };
static LEAVE_GROUP_MEMBER_IDENTITY: Shape =
    Shape { fields: &[f(3, 5, Text), f(3, 5, Text), f(5, 5, Text)], tags: &[] };
pub static LEAVE_GROUP: Shape = Shape {
    fields: &[f(0, 5, Text), f(0, 2, Text), f(3, 5, Array(&Struct(&LEAVE_GROUP_MEMBER_IDENTITY)))],
    tags: &[],
};
static OFFSET_COMMIT_PARTITION: Shape =
    Shape { fields: &[f(2, 9, Fixed(4)), f(2, 9, Fixed(8)), f(6, 9, Fixed(4)), f(2, 9, Text)], tags: &[] };
static OFFSET_COMMIT_TOPIC: Shape =
    Shape { fields: &[f(2, 9, Text), f(2, 9, Array(&Struct(&OFFSET_COMMIT_PARTITION)))], tags: &[] };
pub static OFFSET_COMMIT: Shape = Shape {
    fields: &[
        f(2, 9, Text),
        f(2, 9, Fixed(4)),
        f(2, 9, Text),
        f(7, 9, Text),
        f(2, 4, Fixed(8)),
        f(2, 9, Array(&Struct(&OFFSET_COMMIT_TOPIC))),
    ],
    tags: &[],
};
static OFFSET_FETCH_TOPIC: Shape = Shape { fields: &[f(1, 7, Text), f(1, 7, Array(&Fixed(4)))], tags: &[] };
static OFFSET_FETCH_TOPICS: Shape = Shape { fields: &[f(8, 9, Text), f(8, 9, Array(&Fixed(4)))], tags: &[] };
static OFFSET_FETCH_GROUP: Shape = Shape {
    fields: &[f(8, 9, Text), f(9, 9, Text), f(9, 9, Fixed(4)), f(8, 9, Array(&Struct(&OFFSET_FETCH_TOPICS)))],
    tags: &[],
};
pub static OFFSET_FETCH: Shape = Shape {
    fields: &[
        f(1, 7, Text),
        f(1, 7, Array(&Struct(&OFFSET_FETCH_TOPIC))),
        f(8, 9, Array(&Struct(&OFFSET_FETCH_GROUP))),
        f(7, 9, Fixed(1)),
    ],
    tags: &[],
};
static OFFSET_DELETE_PARTITION: Shape = Shape { fields: &[f(0, 0, Fixed(4))], tags: &[] };
static OFFSET_DELETE_TOPIC: Shape =
    Shape { fields: &[f(0, 0, Text), f(0, 0, Array(&Struct(&OFFSET_DELETE_PARTITION)))], tags: &[] };
pub static OFFSET_DELETE: Shape =
    Shape { fields: &[f(0, 0, Text), f(0, 0, Array(&Struct(&OFFSET_DELETE_TOPIC)))], tags: &[] };
pub static DESCRIBE_GROUPS: Shape = Shape { fields: &[f(0, 6, Array(&Text)), f(3, 6, Fixed(1))], tags: &[] };
pub static LIST_GROUPS: Shape = Shape { fields: &[f(4, 5, Array(&Text)), f(5, 5, Array(&Text))], tags: &[] };
static CONSUMER_GROUP_HEARTBEAT_TOPIC_PARTITIONS: Shape =
    Shape { fields: &[f(0, 1, Fixed(16)), f(0, 1, Array(&Fixed(4)))], tags: &[] };
pub static CONSUMER_GROUP_HEARTBEAT: Shape = Shape {
    fields: &[
        f(0, 1, Text),
        f(0, 1, Text),
        f(0, 1, Fixed(4)),
        f(0, 1, Text),
        f(0, 1, Text),
        f(0, 1, Fixed(4)),
        f(0, 1, Array(&Text)),
        f(1, 1, Text),
        f(0, 1, Text),
        f(0, 1, Array(&Struct(&CONSUMER_GROUP_HEARTBEAT_TOPIC_PARTITIONS))),
    ],
    tags: &[],
};
pub static CONSUMER_GROUP_DESCRIBE: Shape =
    Shape { fields: &[f(0, 1, Array(&Text)), f(0, 1, Fixed(1))], tags: &[] };
pub static DELETE_GROUPS: Shape = Shape { fields: &[f(0, 2, Array(&Text))], tags: &[] };
static CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT: Shape =
    Shape { fields: &[f(2, 7, Fixed(4)), f(2, 7, Array(&Fixed(4)))], tags: &[] };
static CREATE_TOPICS_CREATABLE_TOPIC_CONFIG: Shape =
    Shape { fields: &[f(2, 7, Text), f(2, 7, Text)], tags: &[] };
static CREATE_TOPICS_CREATABLE_TOPIC: Shape = Shape {
    fields: &[
        f(2, 7, Text),
        f(2, 7, Fixed(4)),
        f(2, 7, Fixed(2)),
        f(2, 7, Array(&Struct(&CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT))),
        f(2, 7, Array(&Struct(&CREATE_TOPICS_CREATABLE_TOPIC_CONFIG))),
    ],
    tags: &[],
};
pub static CREATE_TOPICS: Shape = Shape {
    fields: &[f(2, 7, Array(&Struct(&CREATE_TOPICS_CREATABLE_TOPIC))), f(2, 7, Fixed(4)), f(2, 7, Fixed(1))],
    tags: &[],
};
static DELETE_TOPICS_DELETE_TOPIC_STATE: Shape =
    Shape { fields: &[f(6, 6, Text), f(6, 6, Fixed(16))], tags: &[] };
pub static DELETE_TOPICS: Shape = Shape {
    fields: &[
        f(6, 6, Array(&Struct(&DELETE_TOPICS_DELETE_TOPIC_STATE))),
        f(1, 5, Array(&Text)),
        f(1, 6, Fixed(4)),
    ],
    tags: &[],
};
static CREATE_PARTITIONS_ASSIGNMENT: Shape = Shape { fields: &[f(0, 3, Array(&Fixed(4)))], tags: &[] };
static CREATE_PARTITIONS_TOPIC: Shape = Shape {
    fields: &[f(0, 3, Text), f(0, 3, Fixed(4)), f(0, 3, Array(&Struct(&CREATE_PARTITIONS_ASSIGNMENT)))],
    tags: &[],
};
pub static CREATE_PARTITIONS: Shape = Shape {
    fields: &[f(0, 3, Array(&Struct(&CREATE_PARTITIONS_TOPIC))), f(0, 3, Fixed(4)), f(0, 3, Fixed(1))],
    tags: &[],
};
static DELETE_RECORDS_PARTITION: Shape = Shape { fields: &[f(0, 2, Fixed(4)), f(0, 2, Fixed(8))], tags: &[] };
static DELETE_RECORDS_TOPIC: Shape =
    Shape { fields: &[f(0, 2, Text), f(0, 2, Array(&Struct(&DELETE_RECORDS_PARTITION)))], tags: &[] };
pub static DELETE_RECORDS: Shape =
    Shape { fields: &[f(0, 2, Array(&Struct(&DELETE_RECORDS_TOPIC))), f(0, 2, Fixed(4))], tags: &[] };
static DESCRIBE_CONFIGS_RESOURCE: Shape =
    Shape { fields: &[f(1, 4, Fixed(1)), f(1, 4, Text), f(1, 4, Array(&Text))], tags: &[] };
pub static DESCRIBE_CONFIGS: Shape = Shape {
    fields: &[f(1, 4, Array(&Struct(&DESCRIBE_CONFIGS_RESOURCE))), f(1, 4, Fixed(1)), f(3, 4, Fixed(1))],
    tags: &[],
};
static ALTER_CONFIGS_ALTERABLE_CONFIG: Shape = Shape { fields: &[f(0, 2, Text), f(0, 2, Text)], tags: &[] };
static ALTER_CONFIGS_RESOURCE: Shape = Shape {
    fields: &[f(0, 2, Fixed(1)), f(0, 2, Text), f(0, 2, Array(&Struct(&ALTER_CONFIGS_ALTERABLE_CONFIG)))],
    tags: &[],
};
pub static ALTER_CONFIGS: Shape =
    Shape { fields: &[f(0, 2, Array(&Struct(&ALTER_CONFIGS_RESOURCE))), f(0, 2, Fixed(1))], tags: &[] };
static INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG: Shape =
    Shape { fields: &[f(0, 1, Text), f(0, 1, Fixed(1)), f(0, 1, Text)], tags: &[] };
static INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE: Shape = Shape {
    fields: &[
        f(0, 1, Fixed(1)),
        f(0, 1, Text),
        f(0, 1, Array(&Struct(&INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG))),
    ],
    tags: &[],
};
pub static INCREMENTAL_ALTER_CONFIGS: Shape = Shape {
    fields: &[f(0, 1, Array(&Struct(&INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE))), f(0, 1, Fixed(1))],
    tags: &[],
};
static DESCRIBE_TOPIC_PARTITIONS_TOPIC: Shape = Shape { fields: &[f(0, 0, Text)], tags: &[] };
static DESCRIBE_TOPIC_PARTITIONS_CURSOR: Shape =
    Shape { fields: &[f(0, 0, Text), f(0, 0, Fixed(4))], tags: &[] };
pub static DESCRIBE_TOPIC_PARTITIONS: Shape = Shape {
    fields: &[
        f(0, 0, Array(&Struct(&DESCRIBE_TOPIC_PARTITIONS_TOPIC))),
        f(0, 0, Fixed(4)),
        f(0, 0, Nullable(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)),
    ],
    tags: &[],
};
static DESCRIBE_LOG_DIRS_DESCRIBABLE_LOG_DIR_TOPIC: Shape =
    Shape { fields: &[f(1, 4, Text), f(1, 4, Array(&Fixed(4)))], tags: &[] };
pub static DESCRIBE_LOG_DIRS: Shape =
    Shape { fields: &[f(1, 4, Array(&Struct(&DESCRIBE_LOG_DIRS_DESCRIBABLE_LOG_DIR_TOPIC)))], tags: &[] };
static DESCRIBE_PRODUCERS_TOPIC: Shape =
    Shape { fields: &[f(0, 0, Text), f(0, 0, Array(&Fixed(4)))], tags: &[] };
pub static DESCRIBE_PRODUCERS: Shape =
    Shape { fields: &[f(0, 0, Array(&Struct(&DESCRIBE_PRODUCERS_TOPIC)))], tags: &[] };
static ELECT_LEADERS_TOPIC_PARTITIONS: Shape =
    Shape { fields: &[f(0, 2, Text), f(0, 2, Array(&Fixed(4)))], tags: &[] };
pub static ELECT_LEADERS: Shape = Shape {
    fields: &[f(1, 2, Fixed(1)), f(0, 2, Array(&Struct(&ELECT_LEADERS_TOPIC_PARTITIONS))), f(0, 2, Fixed(4))],
    tags: &[],
};
static ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_PARTITION: Shape =
    Shape { fields: &[f(0, 1, Fixed(4)), f(0, 1, Array(&Fixed(4)))], tags: &[] };
static ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_TOPIC: Shape = Shape {
    fields: &[f(0, 1, Text), f(0, 1, Array(&Struct(&ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_PARTITION)))],
    tags: &[],
};
pub static ALTER_PARTITION_REASSIGNMENTS: Shape = Shape {
    fields: &[
        f(0, 1, Fixed(4)),
        f(1, 1, Fixed(1)),
        f(0, 1, Array(&Struct(&ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_TOPIC))),
    ],
    tags: &[],
};
static LIST_PARTITION_REASSIGNMENTS_TOPICS: Shape =
    Shape { fields: &[f(0, 0, Text), f(0, 0, Array(&Fixed(4)))], tags: &[] };
pub static LIST_PARTITION_REASSIGNMENTS: Shape = Shape {
    fields: &[f(0, 0, Fixed(4)), f(0, 0, Array(&Struct(&LIST_PARTITION_REASSIGNMENTS_TOPICS)))],
    tags: &[],
};
static DESCRIBE_CLIENT_QUOTAS_COMPONENT_DATA: Shape =
    Shape { fields: &[f(0, 1, Text), f(0, 1, Fixed(1)), f(0, 1, Text)], tags: &[] };
pub static DESCRIBE_CLIENT_QUOTAS: Shape = Shape {
    fields: &[f(0, 1, Array(&Struct(&DESCRIBE_CLIENT_QUOTAS_COMPONENT_DATA))), f(0, 1, Fixed(1))],
    tags: &[],
};
static ALTER_CLIENT_QUOTAS_ENTITY_DATA: Shape = Shape { fields: &[f(0, 1, Text), f(0, 1, Text)], tags: &[] };
static ALTER_CLIENT_QUOTAS_OP_DATA: Shape =
    Shape { fields: &[f(0, 1, Text), f(0, 1, Fixed(8)), f(0, 1, Fixed(1))], tags: &[] };
static ALTER_CLIENT_QUOTAS_ENTRY_DATA: Shape = Shape {
    fields: &[
        f(0, 1, Array(&Struct(&ALTER_CLIENT_QUOTAS_ENTITY_DATA))),
        f(0, 1, Array(&Struct(&ALTER_CLIENT_QUOTAS_OP_DATA))),
    ],
    tags: &[],
};
pub static ALTER_CLIENT_QUOTAS: Shape = Shape {
    fields: &[f(0, 1, Array(&Struct(&ALTER_CLIENT_QUOTAS_ENTRY_DATA))), f(0, 1, Fixed(1))],
    tags: &[],
};
