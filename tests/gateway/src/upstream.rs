//! A constant OpenAI-compatible server over HTTP, with as little work as possible.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval},
};

use crate::{
    answer::{MODEL, PACE, WORD, WORDS},
    client::Incoming,
};

/// Serves until it is killed.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                // A gateway that hangs up is no error of the measurement: lost answers are counted there.
                let _ = talk(stream).await;
            });
        }
    })
}

async fn talk(mut stream: TcpStream) -> Result<()> {
    let whole = response(&completion());
    let mut incoming = Incoming::default();
    while let Some((head, body)) = incoming.message(&mut stream).await? {
        if !head.starts_with(b"POST /v1/chat/completions") {
            stream.write_all(&response(&about(&head))).await?;
            continue;
        }
        let asked: Value = serde_json::from_slice(&body)?;
        if asked["stream"] == Value::Bool(true) {
            // One gateway renames it.
            let count = asked.get("max_tokens").or_else(|| asked.get("max_completion_tokens"));
            tokens(&mut stream, count.and_then(Value::as_u64).unwrap_or(1)).await?;
        } else {
            stream.write_all(&whole).await?;
        }
    }
    Ok(())
}

fn response(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

fn completion() -> Value {
    json!({
        "id": "chatcmpl-mock", "object": "chat.completion", "created": 1_700_000_000, "model": MODEL,
        "choices": [{
            "index": 0, "finish_reason": "stop", "logprobs": null,
            "message": {"role": "assistant", "content": WORDS.concat()},
        }],
        "usage": {"prompt_tokens": 40, "completion_tokens": WORDS.len(), "total_tokens": 40 + WORDS.len()},
    })
}

/// What gateways ask before they send anything: models, health, the server's settings.
fn about(head: &[u8]) -> Value {
    if head.starts_with(b"GET /v1/models") {
        return json!({"object": "list", "data": [
            {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "vllm", "max_model_len": 4096},
        ]});
    }
    json!({
        "status": "ok", "version": "0.11.0", "model_path": MODEL, "served_model_name": MODEL,
        "is_generation": true, "tokenizer_path": "",
    })
}

async fn tokens(stream: &mut TcpStream, count: u64) -> Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let chunk = |delta: Value, reason: Option<&str>| {
        let data = json!({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}],
        });
        event(&data.to_string())
    };
    let token = chunk(json!({"content": WORD}), None);
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..count {
        ticks.tick().await;
        stream.write_all(&token).await?;
    }
    let mut end = chunk(json!({}), Some("length"));
    end.extend(event("[DONE]"));
    end.extend(b"0\r\n\r\n");
    Ok(stream.write_all(&end).await?)
}

/// One event in one chunk.
fn event(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}
