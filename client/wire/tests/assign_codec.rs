//! The consumer embedded protocol's bytes, against bytes worked out from Kafka's schema, and against bytes
//! that nobody should write.

use proptest::prelude::*;
use strandline_wire::assign::{Assignment, CodecError, Subscription};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._-]{1,20}"
}

prop_compose! {
    fn subscriptions()(
        topics in prop::collection::vec(name(), 0..5),
        user_data in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        owned in prop::collection::btree_set((name(), 0..50i32), 0..10),
        generation in prop::option::of(0..i32::MAX),
        rack in prop::option::of(name()),
    ) -> Subscription {
        let owned_partitions = owned.into_iter().collect();
        Subscription { topics, user_data, owned_partitions, generation, rack, instance_id: None }
    }
}

proptest! {
    #[test]
    fn a_subscription_reads_back_and_older_versions_lack_what_they_do_not_have(subscription in subscriptions()) {
        let encoded = subscription.encode().unwrap();
        prop_assert_eq!(&Subscription::decode(&encoded).unwrap(), &subscription);
        prop_assert_eq!(&subscription.encode_version(3).unwrap(), &encoded);
        let mut older = subscription;
        for version in (0..3).rev() {
            match version {
                2 => older.rack = None,
                1 => older.generation = None,
                _ => older.owned_partitions.clear(),
            }
            prop_assert_eq!(&Subscription::decode(&older.encode_version(version).unwrap()).unwrap(), &older);
        }
    }

    #[test]
    fn an_assignment_reads_back(
        partitions in prop::collection::btree_set((name(), 0..50i32), 0..20),
        user_data in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
    ) {
        let assignment = Assignment { partitions: partitions.into_iter().collect(), user_data };
        prop_assert_eq!(Assignment::decode(&assignment.encode().unwrap()).unwrap(), assignment);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Subscription::decode(&bytes);
        let _ = Assignment::decode(&bytes);
    }

    #[test]
    fn a_damaged_subscription_is_read_or_refused(
        subscription in subscriptions(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = subscription.encode().unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = Subscription::decode(&bytes);
        let _ = Subscription::decode(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let subscription = Subscription {
        topics: vec!["foo".into(), "ba".into()],
        user_data: Some(vec![0xab]),
        owned_partitions: vec![("foo".into(), 1), ("foo".into(), 0)],
        generation: Some(7),
        rack: Some("r1".into()),
        instance_id: None,
    };
    let expected = unhex(
        "0003  00000002 0003 666f6f 0002 6261  00000001 ab
         00000001 0003 666f6f 00000002 00000000 00000001  00000007  0002 7231",
    );
    assert_eq!(subscription.encode().unwrap(), expected);
    let nothing = unhex("0003 00000000 ffffffff 00000000 ffffffff ffff");
    assert_eq!(Subscription::default().encode().unwrap(), nothing);
    assert_eq!(Subscription::decode(&nothing).unwrap(), Subscription::default());

    let assignment = Assignment { partitions: vec![("foo".into(), 2)], user_data: None };
    let expected = unhex("0003  00000001 0003 666f6f 00000001 00000002  ffffffff");
    assert_eq!(assignment.encode().unwrap(), expected);
    assert_eq!(Assignment::decode(&[]).unwrap(), Assignment::default());
}

#[test]
fn what_other_clients_and_later_versions_write_is_read() {
    // Version 1 that ends after the user data; version 0 with null user data; version 9 with more behind.
    let foo = vec!["foo".to_string()];
    for text in [
        "0001 00000001 0003 666f6f 00000000",
        "0000 00000001 0003 666f6f ffffffff",
        "0009 00000001 0003 666f6f ffffffff 00000000 ffffffff ffff c0ffee",
    ] {
        assert_eq!(Subscription::decode(&unhex(text)).unwrap().topics, foo, "{text}");
    }
}

#[test]
fn hostile_lengths_are_refused_before_anything_is_reserved() {
    for (text, error) in [
        ("", CodecError::Truncated("version")),
        ("ffff 00000000", CodecError::Negative("version")),
        ("0000 7fffffff", CodecError::Truncated("topics")),
        ("0000 ffffffff", CodecError::Negative("topics")),
        ("0000 00000001 0005 61", CodecError::Truncated("topic")),
        ("0000 00000001 ffff 00000000", CodecError::Negative("topic")),
        ("0000 00000001 8000 00000000", CodecError::Negative("topic")),
        ("0000 00000001 0002 fffe 00000000", CodecError::NotUtf8("topic")),
        ("0000 00000000 7fffffff", CodecError::Truncated("user data")),
        ("0000 00000000 fffffffe", CodecError::Negative("user data")),
        ("0001 00000000 ffffffff 7fffffff", CodecError::Truncated("topics")),
        ("0001 00000000 ffffffff 00000001 0001 61 7fffffff", CodecError::Truncated("partitions")),
    ] {
        assert_eq!(Subscription::decode(&unhex(text)), Err(error), "{text}");
    }
    // A name that would be copied for each of many partitions.
    let long = Assignment { partitions: vec![("x".repeat(250), 0)], user_data: None };
    assert_eq!(long.encode(), Err(CodecError::TooLong("topic")));
    let mut bytes = unhex("0000 00000001 00fa");
    bytes.extend([b'x'; 250]);
    bytes.extend(unhex("00000001 00000000 ffffffff"));
    assert_eq!(Assignment::decode(&bytes), Err(CodecError::TooLong("topic")));
}
