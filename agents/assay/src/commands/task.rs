//! `assay task submit|show|cancel`: tasks without a router.

use std::time::Duration;

use alloy::primitives::U256;
use anyhow::Result;
pub use assay_client::events;
use assay_client::{Question, Reader, TaskView, Terms, cor};
use assay_store::cid_of;
use assay_types::Dispatch;
use serde_json::{Value, json};

use super::{client, observer};
use crate::{
    args::{Global, TaskCancelArgs, TaskCommand, TaskSubmitArgs},
    ui,
};

/// Looks past the last deadline: the refund may still be on its way.
const GRACE: Duration = Duration::from_secs(30);

pub async fn run(global: &Global, command: TaskCommand) -> Result<()> {
    match command {
        TaskCommand::Submit(args) => submit(global, args).await,
        TaskCommand::Show(args) => {
            let (_, reader) = observer(global).await?;
            let task = reader.task(args.task).await?;
            show(global, &reader, &task).await
        }
        TaskCommand::Cancel(args) => cancel(global, args).await,
    }
}

async fn cancel(global: &Global, args: TaskCancelArgs) -> Result<()> {
    let (_, client) = client(global, &args.key, "client").await?;
    let task = client.cancel(args.task).await?;
    show(global, &client.reader, &task).await
}

async fn submit(global: &Global, args: TaskSubmitArgs) -> Result<()> {
    let (network, client) = client(global, &args.key, "client").await?;
    let question = Question {
        max_output: args.max_tokens,
        max_context: network.model.map(|model| model.max_context),
        ..Question::new(args.prompt)
    };
    let terms = Terms {
        node: args.node,
        deadline_s: args.deadline_s,
        redundancy: args.redundancy,
        attempts: args.attempts,
        dispatch: if args.pull { Dispatch::Pull } else { Dispatch::Push },
        ..Terms::default()
    };
    let submitted = client.submit(args.session, &question, &terms).await?;
    let task = submitted.task;
    if !global.json {
        ui::note(format!(
            "task {task} submitted in {}; waiting for its answer",
            submitted.transaction
        ));
    }
    let task = match args.no_wait {
        true => client.reader.task(task).await?,
        false => client.reader.wait_for_answer(task, submitted.longest + GRACE).await?,
    };
    show(global, &client.reader, &task).await
}

async fn show(global: &Global, reader: &Reader, task: &TaskView) -> Result<()> {
    let mut answers = Vec::new();
    for answer in reader.answers(task).await? {
        answers.push(json!({
            "node": answer.node,
            "fee": answer.fee.to_string(),
            "result_cid": cid_of(answer.output_digest).to_string(),
            "text": answer.block.text,
            "output_tokens": answer.block.ids.len(),
            "end_reason": answer.block.end_reason,
        }));
    }
    let fee: U256 = task.answers.iter().map(|event| U256::from(event.fee)).sum();
    let first = answers.first().cloned().unwrap_or_default();
    let submitted = &task.submitted;
    let value = json!({
        "task": task.task,
        "state": task.state_name(),
        "session": submitted.sessionId,
        "lane": submitted.task.lane,
        "node": first.get("node").cloned().unwrap_or(submitted.nodeId.into()),
        "held": submitted.task.held.to_string(),
        "fee": fee.to_string(),
        "result_cid": first["result_cid"],
        "text": first["text"],
        "output_tokens": first["output_tokens"],
        "end_reason": first["end_reason"],
        "answers": answers,
    });
    ui::show(global.json, &value, describe)
}

fn describe(value: &Value) -> String {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let amount = |key: &str| cor(text(key).parse::<U256>().unwrap_or_default());
    let mut lines = Vec::new();
    if value["text"].is_string() {
        lines.push(format!("{}\n", text("text")));
    }
    lines.push(format!("task {}: {}", text("task"), text("state")));
    lines.push(format!("  session {}, node {}", value["session"], value["node"]));
    let answers = value["answers"].as_array().map_or(0, Vec::len);
    match answers {
        0 => lines.push(format!("  held    {}", amount("held"))),
        1 => lines.push(format!("  fee     {}", amount("fee"))),
        count => lines.push(format!("  fee     {} for {count} answers", amount("fee"))),
    }
    if value["result_cid"].is_string() {
        lines.push(format!("  result  {}", text("result_cid")));
    }
    lines.join("\n")
}
