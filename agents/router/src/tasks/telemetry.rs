//! Metrics of answers, with the names and labels of OpenTelemetry's conventions for generative AI, and of the router's
//! own part in them.

use std::time::Duration;

use assay_types::Prompt;
use axum::http::StatusCode;
use metrics::{Label, counter, histogram};

use super::running::Finish;
use crate::http::ask::Ask;

/// What all metrics of one answer say of it.
#[derive(Clone, Debug)]
pub struct Telemetry {
    operation: &'static str,
    model: String,
}

/// What a router does itself for an answer, besides waiting for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the choice of a node to the offer: the request is encoded, charged and signed.
    Offer,
    /// From the end of the stream to the end of the answer: the pinned result is read and compared.
    Check,
}

impl Telemetry {
    /// Of an answer to this request.
    pub fn of(ask: &Ask) -> Self {
        let operation = match ask.prompt {
            Prompt::Messages(_) => "chat",
            Prompt::Text(_) => "text_completion",
        };
        Self { operation, model: ask.model.name.clone() }
    }

    /// What is asked for, as OpenTelemetry names it.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    fn labels(&self) -> Vec<Label> {
        vec![
            Label::from_static_parts("agent", "router"),
            Label::from_static_parts("gen_ai_provider_name", "assay"),
            Label::from_static_parts("gen_ai_operation_name", self.operation),
            Label::new("gen_ai_request_model", self.model.clone()),
        ]
    }

    /// Time from the request to the first token.
    pub fn first_token(&self, after: Duration) {
        histogram!("gen_ai_server_time_to_first_token_seconds", self.labels()).record(after);
    }

    /// Time of each token after the first.
    pub fn token(&self, each: Duration) {
        histogram!("gen_ai_server_time_per_output_token_seconds", self.labels()).record(each);
    }

    /// The answer is complete so long after the request.
    pub fn complete(&self, after: Duration, finish: &Finish) {
        histogram!("gen_ai_server_request_duration_seconds", self.labels()).record(after);
        counter!("gen_ai_usage_input_tokens_total", self.labels())
            .increment(finish.prompt_tokens.into());
        counter!("gen_ai_usage_output_tokens_total", self.labels())
            .increment(finish.output_tokens.into());
    }

    /// There is no whole answer. The status stands for the error: codes may be a node's own words.
    pub fn failed(&self, after: Duration, status: StatusCode) {
        self.ended(after, status.as_str().to_owned());
    }

    /// The client hung up before the answer was complete.
    pub fn hung_up(&self, after: Duration) {
        self.ended(after, "client_gone".to_owned());
    }

    fn ended(&self, after: Duration, error: String) {
        let mut labels = self.labels();
        labels.push(Label::new("error_type", error));
        histogram!("gen_ai_server_request_duration_seconds", labels).record(after);
    }
}

/// The router's own part took so long.
pub fn overhead(stage: Stage, took: Duration) {
    let stage = match stage {
        Stage::Offer => "offer",
        Stage::Check => "check",
    };
    histogram!("assay_router_overhead_seconds", "agent" => "router", "stage" => stage).record(took);
}

/// A request waited so long for a node to have room.
pub fn queued(waited: Duration) {
    histogram!("assay_router_queue_seconds", "agent" => "router").record(waited);
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    /// Names of metrics in a text.
    fn names(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let of_ours = words.filter(|word| {
            word.starts_with("assay_router_")
                || word.starts_with("gen_ai_server_")
                || word.starts_with("gen_ai_usage_")
        });
        of_ours
            .map(|word| word.trim_end_matches("_bucket").trim_end_matches("_count").to_owned())
            .collect()
    }

    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, text),
                false => text.push_str(&fs::read_to_string(path).unwrap()),
            }
        }
    }

    #[test]
    fn the_dashboard_shows_metrics_that_there_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dashboard = fs::read_to_string(root.join("../../script/grafana/router.json")).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
        assert!(parsed["panels"].as_array().unwrap().len() > 5);
        let mut text = String::new();
        sources(&root.join("src"), &mut text);
        let (shown, known) = (names(&dashboard), names(&text));
        assert!(shown.is_subset(&known), "{:?}", shown.difference(&known));
        assert!(shown.len() > 8, "{shown:?}");
    }
}
