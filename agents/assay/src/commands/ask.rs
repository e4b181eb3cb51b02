//! `assay ask`: one streamed question to a router.

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::{
    args::{AskArgs, Global},
    network::{Network, data_folder},
    ui,
};

/// Longest line of the stream: a chunk is some hundred bytes, an error some thousand.
const MAX_LINE_BYTES: usize = 1 << 20;

pub async fn run(global: &Global, args: AskArgs) -> Result<()> {
    let base = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let network = Network::load(&data_folder(global.data.as_deref())?)?;
            network.http_url.context("this network has no router: name one with --url")?
        }
    };
    let http = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let model = match args.model.clone() {
        Some(model) => model,
        None => first_model(&http, &base).await?,
    };
    let mut body = json!({
        "model": model,
        "messages": [{"role": "user", "content": args.prompt}],
        "temperature": args.temperature,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if let Some(max) = args.max_tokens {
        body["max_tokens"] = max.into();
    }
    let response = http
        .post(format!("{base}/v1/chat/completions"))
        .json(&body)
        .send()
        .await
        .with_context(|| unreachable_hint(&base))?;
    let task = response
        .headers()
        .get("x-assay-task")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    if !response.status().is_success() {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        bail!(
            "{}",
            api_error(&text).unwrap_or_else(|| format!("the router answered {status}: {text}"))
        );
    }
    let answer = stream_answer(response, global.json).await?;
    if global.json {
        let value = json!({"task": task, "text": answer.text, "usage": answer.usage});
        ui::line(serde_json::to_string_pretty(&value)?);
    } else {
        ui::line("");
        if let Some(task) = task {
            ui::note(format!("task {task}: {base}/v1/tasks/{task}"));
        }
    }
    Ok(())
}

fn unreachable_hint(base: &str) -> String {
    format!(
        "no router answers at {base}: start the network with `assay up`, or name a router with --url"
    )
}

async fn first_model(http: &reqwest::Client, base: &str) -> Result<String> {
    let models: Value = http
        .get(format!("{base}/v1/models"))
        .send()
        .await
        .with_context(|| unreachable_hint(base))?
        .json()
        .await
        .with_context(|| format!("{base}/v1/models is not what a router answers"))?;
    models["data"][0]["id"]
        .as_str()
        .map(str::to_owned)
        .context("the router serves no model yet: try again in some seconds")
}

struct Answer {
    text: String,
    usage: Value,
}

/// Reads server-sent events line by line and prints the text as it comes.
async fn stream_answer(response: reqwest::Response, quiet: bool) -> Result<Answer> {
    let mut bytes = response.bytes_stream();
    let mut buffer: Vec<u8> = Vec::new();
    let mut answer = Answer { text: String::new(), usage: Value::Null };
    while let Some(chunk) = bytes.next().await {
        buffer
            .extend_from_slice(&chunk.context("the stream broke off: the answer is not complete")?);
        anyhow::ensure!(buffer.len() <= MAX_LINE_BYTES, "the router sent a line without an end");
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let Some(data) = line.trim().strip_prefix("data:").map(str::trim) else { continue };
            if data == "[DONE]" {
                return Ok(answer);
            }
            take_chunk(data, quiet, &mut answer)?;
        }
    }
    bail!("the stream ended before the answer was complete")
}

fn take_chunk(data: &str, quiet: bool, answer: &mut Answer) -> Result<()> {
    if let Some(error) = api_error(data) {
        bail!("{error}");
    }
    let chunk: Value =
        serde_json::from_str(data).context("the router sent a chunk that is not JSON")?;
    if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str() {
        answer.text.push_str(text);
        if !quiet {
            ui::piece(text);
        }
    }
    if chunk["usage"].is_object() {
        answer.usage = chunk["usage"].clone();
    }
    Ok(())
}

fn api_error(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let error = value.get("error")?;
    let message = error["message"].as_str()?;
    Some(match error["code"].as_str() {
        Some(code) => format!("{message} ({code})"),
        None => message.to_owned(),
    })
}
