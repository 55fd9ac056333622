//! DescribeClientQuotas and AlterClientQuotas (KIP-546). The quotas themselves are agreed metadata; what they do
//! is in `quota.rs`.

use super::cluster::refused;
use super::{Code, NONE, text};
use crate::error::ServeError;
use crate::front::kafka::dispatch::Call;
use kafka_protocol::error::ResponseError::InvalidRequest;
use kafka_protocol::messages::alter_client_quotas_request::EntryData as Asked;
use kafka_protocol::messages::alter_client_quotas_response::{
    EntityData as AnsweredEntity, EntryData as Answered,
};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::quotas::{QuotaEntity, QuotaName};

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";

/// What a component of the request asks of one part of an entity.
enum Match {
    Exact(Arc<str>),
    Default,
    Any,
}

fn matcher(component: &ComponentData) -> Result<Match, ServeError> {
    const EXACT: i8 = 0;
    const DEFAULT: i8 = 1;
    const ANY: i8 = 2;
    match (component.match_type, &component._match) {
        (EXACT, Some(name)) => Ok(Match::Exact(Arc::from(&**name))),
        (DEFAULT, None) => Ok(Match::Default),
        (ANY, None) => Ok(Match::Any),
        _ => {
            Err(ServeError::InvalidRequest("a component names a value if and only if it is exact".to_owned()))
        }
    }
}

impl Match {
    fn fits(&self, name: Option<&QuotaName>) -> bool {
        match (self, name) {
            (_, None) => false,
            (Match::Any, Some(_)) | (Match::Default, Some(QuotaName::Default)) => true,
            (Match::Exact(wanted), Some(QuotaName::Named(name))) => wanted == name,
            (Match::Exact(_) | Match::Default, Some(_)) => false,
        }
    }
}

/// The matches for users and client ids.
fn filter(components: &[ComponentData]) -> Result<(Option<Match>, Option<Match>), ServeError> {
    let (mut user, mut client) = (None, None);
    for component in components {
        let place = match &*component.entity_type {
            USER => &mut user,
            CLIENT_ID => &mut client,
            other => return Err(ServeError::InvalidRequest(format!("there are no quotas of {other}"))),
        };
        if place.replace(matcher(component)?).is_some() {
            return Err(ServeError::InvalidRequest(format!("{} is named twice", component.entity_type)));
        }
    }
    Ok((user, client))
}

pub fn describe(call: &Call, request: &DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    let (user, client) = match filter(&request.components) {
        Ok(filter) => filter,
        Err(error) => {
            let (code, message) = refused(&error);
            let response = DescribeClientQuotasResponse::default().with_error_code(code);
            return response.with_error_message(message).with_entries(None);
        }
    };
    let image = call.context().image();
    let fits = |matcher: &Option<Match>, name: &Option<QuotaName>| match matcher {
        Some(matcher) => matcher.fits(name.as_ref()),
        // Strictly, an entity has the parts that were named and no other.
        None => !request.strict || name.is_none(),
    };
    let entries = image
        .quotas
        .iter()
        .filter(|(entity, _)| fits(&user, &entity.user) && fits(&client, &entity.client_id))
        .map(|(entity, values)| {
            let values = values
                .iter()
                .map(|(key, rate)| ValueData::default().with_key(text(key)).with_value(*rate as f64));
            EntryData::default().with_entity(wire_entity(entity)).with_values(values.collect())
        });
    DescribeClientQuotasResponse::default().with_error_code(NONE).with_entries(Some(entries.collect()))
}

fn wire_entity(entity: &QuotaEntity) -> Vec<EntityData> {
    let part = |kind: &str, name: &QuotaName| {
        let name = match name {
            QuotaName::Default => None,
            QuotaName::Named(name) => Some(text(name)),
        };
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name)
    };
    let user = entity.user.as_ref().map(|name| part(USER, name));
    user.into_iter().chain(entity.client_id.as_ref().map(|name| part(CLIENT_ID, name))).collect()
}

pub async fn alter(call: &Call, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let mut response = AlterClientQuotasResponse::default();
    for entry in request.entries {
        let (code, message) = alter_one(call, &entry, request.validate_only).await;
        let entity = entry.entity.into_iter().map(|part| {
            let answered = AnsweredEntity::default().with_entity_type(part.entity_type);
            answered.with_entity_name(part.entity_name)
        });
        let answered = Answered::default().with_error_code(code).with_error_message(message);
        response.entries.push(answered.with_entity(entity.collect()));
    }
    response
}

async fn alter_one(call: &Call, entry: &Asked, validate_only: bool) -> (Code, Option<StrBytes>) {
    match change(entry) {
        Err(why) => (InvalidRequest.code(), Some(text(&why))),
        Ok((entity, changes)) => {
            let altered = call.front.controller.alter_quotas(entity, changes, validate_only).await;
            altered.err().map_or((NONE, None), |error| refused(&error))
        }
    }
}

type Changes = BTreeMap<Arc<str>, Option<u64>>;

fn change(entry: &Asked) -> Result<(QuotaEntity, Changes), String> {
    let mut entity = QuotaEntity::default();
    for part in &entry.entity {
        let place = match &*part.entity_type {
            USER => &mut entity.user,
            CLIENT_ID => &mut entity.client_id,
            other => return Err(format!("there are no quotas of {other}")),
        };
        let name = match &part.entity_name {
            Some(name) => QuotaName::Named(Arc::from(&**name)),
            None => QuotaName::Default,
        };
        if place.replace(name).is_some() {
            return Err(format!("{} is named twice", part.entity_type));
        }
    }
    let mut changes = Changes::new();
    for op in &entry.ops {
        let rate = match op.remove {
            true => None,
            false if op.value.is_finite() && op.value >= 1.0 => Some(op.value as u64),
            false => return Err(format!("{} must be at least 1 byte a second", op.key)),
        };
        if changes.insert(Arc::from(&*op.key), rate).is_some() {
            return Err(format!("{} is changed twice", op.key));
        }
    }
    Ok((entity, changes))
}
