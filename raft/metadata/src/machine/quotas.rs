//! Applying changes of quotas.

use super::Applied;
use crate::command::{Rejection, Response};
use crate::image::{Delta, Image};
use crate::quotas::{MAX_ENTITIES, QuotaEntity, check};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sets (`Some`) and removes (`None`) quotas of one entity, which is forgotten with its last one.
pub(super) fn alter(
    image: &mut Image,
    entity: &QuotaEntity,
    changes: &BTreeMap<Arc<str>, Option<u64>>,
    delta: &mut Delta,
) -> Applied {
    check(entity, changes)?;
    let known = image.quotas.get(entity);
    if known.is_none() && image.quotas.size() >= MAX_ENTITIES {
        return Err(Rejection::Invalid(format!("there are {MAX_ENTITIES} entities with quotas already")));
    }
    let mut values = known.map(|values| BTreeMap::clone(values)).unwrap_or_default();
    for (key, rate) in changes {
        match rate {
            Some(rate) => values.insert(key.clone(), *rate),
            None => values.remove(key),
        };
    }
    match values.is_empty() {
        true => drop(image.quotas.remove_mut(entity)),
        false => image.quotas.insert_mut(entity.clone(), Arc::new(values)),
    }
    delta.quotas = true;
    Ok(Response::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quotas::{CONSUMER_BYTE_RATE, PRODUCER_BYTE_RATE, QuotaName, rate};

    fn entity() -> QuotaEntity {
        QuotaEntity { user: None, client_id: Some(QuotaName::Named("c".into())) }
    }

    fn change(image: &mut Image, entity: &QuotaEntity, changes: &[(&str, Option<u64>)]) -> (Applied, bool) {
        let changes = changes.iter().map(|(key, rate)| (Arc::from(*key), *rate)).collect();
        let mut delta = Delta::default();
        let applied = alter(image, entity, &changes, &mut delta);
        (applied, delta.quotas)
    }

    #[test]
    fn quotas_are_set_and_removed_one_by_one_and_an_entity_goes_with_its_last() {
        let mut image = Image::default();
        let both = [(PRODUCER_BYTE_RATE, Some(5)), (CONSUMER_BYTE_RATE, Some(7))];
        assert_eq!(change(&mut image, &entity(), &both), (Ok(Response::Done), true));
        assert_eq!(rate(&image, &entity(), CONSUMER_BYTE_RATE), Some(7));
        change(&mut image, &entity(), &[(CONSUMER_BYTE_RATE, None)]).0.unwrap();
        assert_eq!(rate(&image, &entity(), CONSUMER_BYTE_RATE), None);
        assert_eq!(rate(&image, &entity(), PRODUCER_BYTE_RATE), Some(5));
        change(&mut image, &entity(), &[(PRODUCER_BYTE_RATE, None)]).0.unwrap();
        assert!(image.quotas.is_empty());
    }

    #[test]
    fn what_is_not_a_quota_is_refused_and_changes_nothing() {
        let mut image = Image::default();
        let long = QuotaEntity { user: Some(QuotaName::Named("x".repeat(2000).into())), client_id: None };
        for (entity, changes) in [
            (QuotaEntity::default(), [(PRODUCER_BYTE_RATE, Some(1))]),
            (entity(), [("request_percentage", Some(1))]),
            (entity(), [(PRODUCER_BYTE_RATE, Some(0))]),
            (long, [(PRODUCER_BYTE_RATE, Some(1))]),
        ] {
            let (applied, changed) = change(&mut image, &entity, &changes);
            assert!(matches!(applied, Err(Rejection::Invalid(_))) && !changed, "{entity:?} {changes:?}");
        }
        assert_eq!(image, Image::default());
    }
}
