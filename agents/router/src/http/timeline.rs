//! `GET /v1/tasks/{id}`.

use alloy::hex;
use assay_store::cid_of;
use assay_types::TaskId;
use serde_json::{Value, json};

use crate::book::{answers::AnswerRow, db::TaskRow};

/// A task as JSON. Amounts are decimal strings in minor units.
pub fn task_json(id: TaskId, row: &TaskRow) -> Value {
    let error =
        row.error_code.as_ref().map(|code| json!({"code": code, "message": row.error_message}));
    let receipt = row.receipt.as_ref().map(|signed| {
        json!({
            "seq": signed.receipt.seq,
            "stream_hash": signed.receipt.streamHash,
            "signature": hex::encode_prefixed(signed.signature.as_bytes()),
        })
    });
    // The answer of record; until there is one, what was shown.
    let record = row.answers.iter().find(|answer| answer.is_committed());
    let output_digest = record.map_or(row.output_digest, |answer| answer.output_digest);
    let prompt_tokens = record.map_or(row.prompt_tokens, |answer| answer.prompt_tokens);
    let output_tokens = record.map_or(row.output_tokens, |answer| answer.output_tokens);
    let answers: Vec<Value> = row.answers.iter().map(answer_json).collect();
    json!({
        "id": id,
        "object": "assay.task",
        "model": row.model,
        "state": row.chain_state,
        "answer": row.answer,
        "error": error,
        "session_id": row.session,
        "api_key": row.api_key,
        "lane": row.lane,
        "nonce": row.nonce,
        "node_id": row.node,
        "max_prompt": row.max_prompt,
        "max_output": row.max_output,
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "held": row.hold,
        "fee": row.fee,
        "deadline_s": row.deadline,
        "request_digest": row.request_digest,
        "request_cid": cid_of(row.request_digest).to_string(),
        "output_digest": output_digest,
        "output_cid": output_digest.map(|digest| cid_of(digest).to_string()),
        "answers": answers,
        "receipt": receipt,
        "timeline": row.timeline,
    })
}

fn answer_json(answer: &AnswerRow) -> Value {
    let mut shown = json!(answer);
    shown["output_cid"] = json!(answer.output_digest.map(|digest| cid_of(digest).to_string()));
    shown
}
