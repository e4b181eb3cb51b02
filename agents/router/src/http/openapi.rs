//! The API's description: `/openapi.json`, and the page that shows it.

use assay_types::MAX_OUTPUT_LIMIT;
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::config::RouterConfig;

/// Written by hand, as requests are read by hand; the tests send what it allows and what it does not.
const DOCUMENT: &str = include_str!("openapi.json");
/// Self-contained: it loads nothing but the document.
const PAGE: &str = include_str!("docs.html");
/// Nothing of others runs in the page or is loaded by it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The OpenAPI document, with the models of this router in the place of any name.
///
/// # Errors
/// 500 if the document is broken, which a test excludes.
pub fn document(config: &RouterConfig, asks_for_keys: bool) -> Result<Value, ApiError> {
    let mut document: Value = serde_json::from_str(DOCUMENT).map_err(|error| {
        tracing::error!(%error, "the description of the API is broken");
        ApiError::internal("this router's description of its API is broken: report it")
    })?;
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    if asks_for_keys {
        document["components"]["securitySchemes"] = json!({
            "bearer": {"type": "http", "scheme": "bearer"},
            "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        });
        document["security"] = json!([{"bearer": []}, {"api_key": []}]);
    }
    let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    document["components"]["schemas"]["ModelName"]["enum"] = json!(names);
    // What the roomiest of them takes.
    let context = config.models.iter().map(|model| model.max_context).max().unwrap_or_default();
    let most = context.saturating_sub(1).clamp(1, MAX_OUTPUT_LIMIT);
    for bounded in ["AnswerTokens", "AnswerTokensRequired"] {
        document["components"]["schemas"][bounded]["maximum"] = json!(most);
    }
    Ok(document)
}

/// A page that shows the document.
pub async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ask::tests::config;

    #[test]
    fn the_document_names_the_models_and_their_bounds() {
        let document = document(&config(), false).unwrap();
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["ModelName"]["enum"], json!(["assay-demo"]));
        assert_eq!(schemas["AnswerTokens"]["maximum"], 1023);
        assert_eq!(schemas["AnswerTokensRequired"]["maximum"], 1023);
        assert!(document["security"].is_null());
        let document = super::document(&config(), true).unwrap();
        assert_eq!(document["security"], json!([{"bearer": []}, {"api_key": []}]));
    }
}
