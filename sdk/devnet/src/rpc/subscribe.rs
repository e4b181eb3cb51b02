//! `eth_subscribe`: news pushed over a WebSocket.

use std::sync::Arc;

use alloy::rpc::types::Filter;
use alloy::rpc::types::pubsub::{Params as SubParams, SubscriptionKind};
use jsonrpsee::core::SubscriptionError;
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{PendingSubscriptionSink, SubscriptionSink};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::logs::check;
use super::{Answer, Context, FromParams, Maybe, Module, Must};
use crate::convert;
use crate::error::{DevnetError, RpcError};
use crate::node::News;

/// What a subscriber hears of.
#[derive(Debug)]
enum Topic {
    Heads,
    Logs(Box<Filter>),
    Transactions {
        full: bool,
    },
    /// This node never syncs: the subscription is silent.
    Syncing,
}

pub(super) fn register(module: &mut Module) -> Result<(), DevnetError> {
    module.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending, context, _| subscribe(params, pending, context),
    )?;
    Ok(())
}

fn topic(params: &Params<'_>) -> Answer<Topic> {
    let (Must(kind), Maybe(options)) = <(Must<SubscriptionKind>, Maybe<SubParams>)>::read(params)?;
    match (kind, options.unwrap_or_default()) {
        (SubscriptionKind::NewHeads, _) => Ok(Topic::Heads),
        (SubscriptionKind::Logs, SubParams::Logs(filter)) => {
            check(&filter)?;
            Ok(Topic::Logs(filter))
        }
        (SubscriptionKind::Logs, SubParams::None) => Ok(Topic::Logs(Box::default())),
        (SubscriptionKind::NewPendingTransactions, SubParams::Bool(full)) => {
            Ok(Topic::Transactions { full })
        }
        (SubscriptionKind::NewPendingTransactions, SubParams::None) => {
            Ok(Topic::Transactions { full: false })
        }
        (SubscriptionKind::Syncing, _) => Ok(Topic::Syncing),
        (kind, _) => Err(RpcError::params(format!(
            "the subscription {kind:?} with these parameters is not supported"
        ))),
    }
}

async fn subscribe(
    params: Params<'static>,
    pending: PendingSubscriptionSink,
    context: Arc<Context>,
) -> Result<(), SubscriptionError> {
    let topic = match topic(&params) {
        Ok(topic) => topic,
        Err(error) => {
            pending.reject(ErrorObjectOwned::from(error)).await;
            return Ok(());
        }
    };
    // Before the answer goes out: nothing that happens after it is missed.
    let mut news = context.subscribe();
    drop(context);
    let sink = pending.accept().await?;
    loop {
        let item = tokio::select! {
            biased;
            () = sink.closed() => return Ok(()),
            item = news.recv() => item,
        };
        match item {
            Ok(item) => {
                if !tell(&sink, &topic, &item).await? {
                    return Ok(());
                }
            }
            Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Lagged(missed)) => {
                // A gap that the client does not know of would be worse than an end that it sees.
                tracing::warn!(missed, "a subscriber reads too slowly and was cut off");
                return Err("the subscriber reads too slowly; subscribe again".into());
            }
        }
    }
}

/// Sends what the topic has to say about the news. False when nobody listens any more.
async fn tell(
    sink: &SubscriptionSink,
    topic: &Topic,
    news: &News,
) -> Result<bool, SubscriptionError> {
    match (topic, news) {
        (Topic::Heads, News::Block(block)) => send(sink, &convert::header(block)).await,
        (Topic::Logs(filter), News::Block(block)) => {
            for log in convert::matching_logs(block, filter, false) {
                if !send(sink, &log).await? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Topic::Logs(filter), News::Dropped(blocks)) => {
            // The newest first, as a reorganisation takes them back.
            for block in blocks.iter().rev() {
                for log in convert::matching_logs(block, filter, true).iter().rev() {
                    if !send(sink, log).await? {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        }
        (Topic::Transactions { full: false }, News::Transaction(tx)) => {
            send(sink, tx.tx_hash()).await
        }
        (Topic::Transactions { full: true }, News::Transaction(tx)) => {
            send(sink, &convert::pending_transaction(tx)).await
        }
        _ => Ok(true),
    }
}

async fn send(sink: &SubscriptionSink, item: &impl Serialize) -> Result<bool, SubscriptionError> {
    let message = serde_json::value::to_raw_value(item)?;
    Ok(sink.send(message).await.is_ok())
}
