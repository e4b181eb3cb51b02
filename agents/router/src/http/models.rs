//! `/v1/models`: what is served, at which price, by how many miners, and how fast of late.

use std::collections::BTreeSet;

use assay_types::NodeId;
use serde_json::{Value, json};

use super::{ask::not_served, error::ApiError};
use crate::{clock::now_s, config::ServedModel, tasks::dispatch::Dispatcher};

/// All models that may be seen.
pub fn list(
    dispatcher: &Dispatcher,
    may_see: impl Fn(&ServedModel) -> bool,
    started_s: u64,
) -> Value {
    let models = dispatcher.config.models.iter().filter(|model| may_see(model));
    let data: Vec<Value> = models.map(|m| shown(dispatcher, m, started_s)).collect();
    json!({"object": "list", "data": data})
}

/// One model.
///
/// # Errors
/// 404 if it is not served.
pub fn one(dispatcher: &Dispatcher, name: &str, started_s: u64) -> Result<Value, ApiError> {
    match dispatcher.config.models.iter().find(|m| m.name == name) {
        Some(model) => Ok(shown(dispatcher, model, started_s)),
        None => Err(not_served(name, "see /v1/models")),
    }
}

fn shown(dispatcher: &Dispatcher, model: &ServedModel, started_s: u64) -> Value {
    let connected = dispatcher.hub.connected();
    let (mut sessions, mut nodes, mut prices) = (0_u32, BTreeSet::<NodeId>::new(), (0, 0));
    {
        let book = dispatcher.ledger.book();
        let deadline = book.now_s(now_s()).saturating_add(dispatcher.config.deadline_s);
        for session in book.sessions().filter(|s| s.model == model.model_id) {
            let Some(reservation) = session.serving(deadline) else { continue };
            sessions += 1;
            nodes.extend(reservation.nodes.iter().filter(|node| connected.contains(node)));
            prices = (prices.0.max(session.price_in), prices.1.max(session.price_out));
        }
    }
    // A price stands in the terms of a session: without one there is none.
    let price = |minor: u128| (sessions > 0).then(|| minor.to_string());
    let pace = dispatcher.paces.of(&model.name);
    let first_token =
        pace.first_token.map(|(p50, p95)| json!({"p50": millis(p50), "p95": millis(p95)}));
    json!({
        "id": model.name,
        "object": "model",
        "created": started_s,
        "owned_by": "assay",
        "context_length": model.max_context,
        "assay": {
            "model_id": model.model_id,
            "price_per_million_prompt_tokens": price(prices.0),
            "price_per_million_answer_tokens": price(prices.1),
            "sessions": sessions,
            "miners_online": nodes.len(),
            "measured_answers": pace.answers,
            "time_to_first_token_ms": first_token,
            "tokens_per_second": pace.tokens_per_second.map(|rate| (rate * 10.0).round() / 10.0),
        },
    })
}

fn millis(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
