//! `assay ask`: one streamed question to a router.

use anyhow::{Context, Result};
use assay_client::{Question, Router};
use assay_types::Sampling;
use serde_json::json;

use crate::{
    args::{AskArgs, Global},
    network::{Network, data_folder},
    ui,
};

pub async fn run(global: &Global, args: AskArgs) -> Result<()> {
    let base = match &args.url {
        Some(url) => url.clone(),
        None => {
            let network = Network::load(&data_folder(global.data.as_deref())?)?;
            network.http_url.context("this network has no router: name one with --url")?
        }
    };
    let router = Router::new(&base, None)?;
    let model = match args.model.clone() {
        Some(model) => model,
        None => {
            let models = router.models().await?.into_iter().next();
            models.context("the router serves no model yet: try again in some seconds")?.id
        }
    };
    let question = Question {
        max_output: args.max_tokens,
        sampling: Sampling { temperature_milli: args.temperature, ..Sampling::default() },
        ..Question::new(args.prompt)
    };
    let mut answer = router.ask(&model, &question).await?;
    while let Some(piece) = answer.next().await? {
        if !global.json {
            ui::piece(&piece.text);
        }
    }
    let answer = answer.finish().await?;
    if global.json {
        let usage = answer.usage.map(|usage| {
            json!({
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            })
        });
        let value = json!({"task": answer.task, "text": answer.text, "usage": usage});
        ui::line(serde_json::to_string_pretty(&value)?);
    } else {
        ui::line("");
        if let Some(task) = answer.task {
            ui::note(format!("task {task}: {}/v1/tasks/{task}", router.base()));
        }
    }
    Ok(())
}
