//! The router that is measured: the real one, with a constant chain and a constant store.

use std::{net::SocketAddr, path::Path, sync::Arc};

use alloy::signers::local::PrivateKeySigner;
use anyhow::Result;
use assay_router::{Journal, Parts, RouterConfig, ServedModel, assemble};
use assay_runtime::{LogOptions, init_logging, install_metrics, shutdown_signal};
use assay_types::B256;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::MODEL,
    chain::{ConstantChain, model_id},
    store::ConstantStore,
};

/// Name of the store's socket in the router's folder.
pub const BLOCKS_SOCKET: &str = "blocks.sock";
/// Blocks that wait to be taken in.
const BLOCK_QUEUE: usize = 64;
/// Tokens of prompt and answer.
const MAX_CONTEXT: u32 = 8192;

/// Serves until it is told to end.
///
/// # Errors
/// If the router does not start, or fails.
#[tokio::main]
pub async fn serve(listen: SocketAddr, data: &Path) -> Result<()> {
    init_logging(&LogOptions::default())?;
    install_metrics()?;
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(0x31))?;
    let chain = ConstantChain::default();
    let store = ConstantStore::new(chain.clone());
    let socket = UnixListener::bind(data.join(BLOCKS_SOCKET))?;
    let (blocks, updates) = mpsc::channel(BLOCK_QUEUE);
    let stop = CancellationToken::new();
    let (holder, chain_stop, maker) = (signer.address(), stop.clone(), chain.clone());
    let making = async move {
        maker.run(holder, blocks, chain_stop).await;
        Ok(())
    };
    let model = ServedModel { name: MODEL.into(), model_id: model_id(), max_context: MAX_CONTEXT };
    let parts = Parts {
        chain: Arc::new(chain),
        signer,
        store: Arc::new(store.clone()),
        journal: Journal::open(data)?,
        blocks: updates,
        services: vec![("constant chain", Box::pin(making))],
        services_stop: stop,
    };
    let config = RouterConfig::new(listen, data.to_path_buf(), vec![model]);
    let mut router = assemble(config, parts).await?;
    tokio::select! {
        ended = router.wait() => return Ok(ended?),
        ended = store.listen(socket) => return ended,
        () = shutdown_signal() => {}
    }
    Ok(router.stop().await?)
}
