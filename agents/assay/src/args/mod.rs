//! The command line.

mod api_key;
mod audit;
mod govern;
mod node;
mod session;
mod task;
mod verify;

use std::{net::SocketAddr, path::PathBuf};

use alloy::primitives::Address;

use clap::{Args, Parser, Subcommand};

use crate::cheat::CheatKind;

pub use api_key::{ApiKeyCommand, ApiKeyCreateArgs, ApiKeyRouter, BudgetPeriod};
pub use audit::{
    AuditArgs, AuditChain, AuditCommand, AuditExplainArgs, AuditRerun, AuditWatchArgs, Sample,
};
pub use govern::{
    DataType, ModelAttestArgs, ModelCalibrateArgs, ModelCommand, ModelDeprecateArgs,
    ModelPublishArgs, ModelRandomArgs, ModelRegisterArgs, ModelShape, ParamsCommand,
    ParamsProposeArgs,
};
pub use node::{NodeAppeal, NodeChange, NodeCommand, NodeRegisterArgs, NodeWithdraw};
pub use session::{
    LaneAdd, LaneCommand, LaneReclaim, SessionCommand, SessionOpenArgs, SessionTopUp,
};
pub use task::{TaskCancelArgs, TaskCommand, TaskSubmitArgs};
pub use verify::VerifyArgs;

/// An open network for AI inference: contracts, router, miners and oracle in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "assay",
    version,
    about,
    after_help = "Start with:\n  assay up\n  assay ask \"What is a session?\""
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Folder of the network: its description (network.json), keystores, content, databases.
    #[arg(long, env = "ASSAY_DATA", global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// TOML file with a section for each command; its settings have the names of the flags.
    #[arg(long, env = "ASSAY_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON value instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Log filter, e.g. `info` or `assay_miner=debug`; default: `warn`. Logs go to standard error.
    #[arg(long, env = "ASSAY_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log lines as JSON.
    #[arg(long, env = "ASSAY_LOG_JSON", global = true)]
    pub log_json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole network on this machine: chain, contracts, content store, oracle, router, miners. Goes on where the
    /// last one in its folder ended, however it ended.
    #[command(
        after_help = "Examples:\n  assay up\n  assay up --miners 2 --http 127.0.0.1:9000\n  assay up --model ~/models/Qwen3-0.6B --calibration ./qwen/calibration.json\n  assay up --rpc-url http://127.0.0.1:8545   # an anvil that runs already\n  assay up --fresh --cheat quantized          # see a dishonest miner being caught"
    )]
    Up(UpArgs),
    /// Ask a running router one question and print the answer as it comes.
    #[command(
        after_help = "Examples:\n  assay ask \"What is a session?\"\n  assay ask --max-tokens 40 --temperature 0 \"hello\""
    )]
    Ask(AskArgs),
    /// Deploy the contracts to a chain and describe the network in network.json.
    #[command(
        after_help = "Example:\n  ASSAY_PASSWORD=... assay deploy --rpc-url http://127.0.0.1:8545 --keystore deployer.json --data ./mynet"
    )]
    Deploy(DeployArgs),
    /// Open, show, change and close sessions.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Submit a task without a router, show one, take one back.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Score a task's answer with weights of one's own: do these tokens come out of this model? Ends with 1 if not.
    #[command(
        after_help = "Examples:\n  assay verify <task>\n  assay verify <task> --model ~/models/Qwen3-0.6B --calibration ./qwen/calibration.json\n\nThe miner's fingerprint stays sealed: it is not compared."
    )]
    Verify(VerifyArgs),
    /// Register a node, show nodes, let one leave, collect what it earned.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Register, deprecate, show and calibrate models, and vouch for what was measured of them.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Show the protocol's tunables, or propose others.
    #[command(subcommand)]
    Params(ParamsCommand),
    /// Show what an account has.
    Balance(BalanceArgs),
    /// Collect what the contracts owe to a key: earnings, and what closed sessions returned.
    Claim(ClaimArgs),
    /// Check this machine and the network: each check says what to do. Ends with 1 if one fails.
    Doctor(DoctorArgs),
    /// Replay the chain and check everything: ends with 0 if all is as the protocol says, 1 if something diverges, 2 if
    /// the audit could not be made.
    #[command(
        after_help = "Examples:\n  assay audit\n  assay audit --from 1000 --to 2000 --html report.html\n  assay audit --rpc-url https://... --deployment 1.toml --from 23000000   # any chain, from proofs\n  assay audit --rerun 20             # scores 20 answers again\n  assay audit watch\n  assay audit explain 3"
    )]
    Audit(AuditArgs),
    /// Measure the engine alone and through a whole network, side by side.
    #[command(after_help = "Example:\n  assay bench --runs 10")]
    Bench(BenchArgs),
    /// Run an oracle: captures beacon rounds and pushes deadlines. Anyone may.
    #[command(
        after_help = "Example:\n  ASSAY_PASSWORD=... assay oracle --data ./mynet --keystore oracle.json"
    )]
    Oracle(OracleArgs),
    /// Run a router for the sessions in which its key holds a lane.
    #[command(
        after_help = "Example:\n  ASSAY_PASSWORD=... assay router --data ./mynet --keystore router.json --http 127.0.0.1:8080"
    )]
    Router(RouterArgs),
    /// API keys of a router that was started with --api-keys: make, show and revoke them, also while it runs.
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Run a miner: registers its node, connects to routers, serves tasks.
    #[command(
        after_help = "Example:\n  ASSAY_PASSWORD=... assay miner --data ./mynet --keystore miner.json --router ws://127.0.0.1:8080/link --model assay-demo"
    )]
    Miner(MinerArgs),
    /// Print completions for a shell.
    #[command(
        after_help = "Example:\n  assay completions bash > ~/.local/share/bash-completion/completions/assay"
    )]
    Completions(CompletionsArgs),
}

#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Where the router listens.
    #[arg(long, env = "ASSAY_HTTP", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub http: SocketAddr,
    /// Where the embedded chain listens (HTTP and WebSocket).
    #[arg(long, env = "ASSAY_RPC", default_value = "127.0.0.1:8545", value_name = "ADDR")]
    pub rpc: SocketAddr,
    /// Where the embedded content store listens.
    #[arg(long, env = "ASSAY_IPFS", default_value = "127.0.0.1:5001", value_name = "ADDR")]
    pub ipfs: SocketAddr,
    /// Use this development chain (anvil) instead of the embedded one.
    #[arg(long, value_name = "URL")]
    pub rpc_url: Option<String>,
    /// Use this Kubo RPC instead of the embedded content store.
    #[arg(long, value_name = "URL")]
    pub ipfs_url: Option<String>,
    /// Miners to run, each of its own owner. A failing audit needs five owners.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub miners: u8,
    /// Model to serve: assay-demo, a folder, a .gguf file, or an id of the Hugging Face hub.
    #[arg(long, env = "ASSAY_MODEL", default_value = "assay-demo")]
    pub model: String,
    /// Thresholds of the model's proof: the calibration.json that `assay model calibrate --report` wrote. Without it, and
    /// without thresholds that are part of this program (those of assay-demo are), answers are not audited.
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Development chains only: one of the miners cheats, is watched, and caught. Asks questions itself.
    #[arg(long, value_name = "KIND")]
    pub cheat: Option<CheatKind>,
    /// Begin anew: removes the chain and the agents' databases that an earlier run left in the folder.
    #[arg(long)]
    pub fresh: bool,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Pairs of answers to time.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub runs: u32,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 128)]
    pub max_tokens: u32,
    /// The question.
    #[arg(long, default_value = "Explain how Assay works.")]
    pub prompt: String,
    /// Miners of the network.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub miners: u8,
    /// Model to run.
    #[arg(long, default_value = "assay-demo")]
    pub model: String,
}

#[derive(Debug, Args)]
pub struct AskArgs {
    /// The question.
    pub prompt: String,
    /// Base URL of the router; default: the network's.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Model to ask; default: the first that the router serves.
    #[arg(long)]
    pub model: Option<String>,
    /// Most tokens of the answer.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_tokens: u32,
    /// 0 (greedy) to 2, three decimals at most.
    #[arg(long, default_value = "0", value_parser = thousandths)]
    pub temperature: u32,
}

/// A number of at most three decimals: what the network signs.
fn thousandths(text: &str) -> Result<u32, String> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let padded = format!("{whole}{decimals:0<3}");
    let parsed = (decimals.len() <= 3).then(|| padded.parse().ok()).flatten();
    parsed.ok_or_else(|| "write a number with at most three decimals, such as 0.7".to_owned())
}

/// A key on disk. The password comes from ASSAY_PASSWORD or a file, never from a flag.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    /// Encrypted JSON keystore to sign with.
    #[arg(long, env = "ASSAY_KEYSTORE", value_name = "FILE", conflicts_with = "account")]
    pub keystore: Option<PathBuf>,
    /// Name of one of the keystores that `assay up` made (client, deployer, miner-1, ...).
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// File whose first line is the keystore's password; otherwise ASSAY_PASSWORD is read.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DeployArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// What to deploy: a file like script/deployments/<chain id>.toml; the addresses are written into it. Default: what
    /// `assay up` deploys, for development chains.
    #[arg(long, value_name = "FILE")]
    pub deployment: Option<PathBuf>,
    /// JSON-RPC of the chain; of several with commas between them the first deploys, and the network's commands use all.
    #[arg(long, env = "ASSAY_RPC_URL", value_name = "URL")]
    pub rpc_url: String,
    /// Kubo RPC that the network's commands shall use.
    #[arg(
        long,
        env = "ASSAY_IPFS_URL",
        default_value = "http://127.0.0.1:5001",
        value_name = "URL"
    )]
    pub ipfs_url: String,
}

#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// JSON-RPC of the chain; default: the network's. Several with commas between them: the next one takes over when one
    /// fails.
    #[arg(long, env = "ASSAY_RPC_URL", value_name = "URL")]
    pub rpc_url: Option<String>,
    /// Where /metrics, /health and /ready are served.
    #[arg(long, env = "ASSAY_OBSERVE", value_name = "ADDR")]
    pub observe: Option<SocketAddr>,
}

#[derive(Clone, Debug, Args)]
pub struct OracleArgs {
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Relay of drand, where the network's randomness is drand's; default: drand's own. May be repeated.
    #[arg(long = "drand", env = "ASSAY_DRAND", value_delimiter = ',', value_name = "URL")]
    pub drand: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub struct RouterArgs {
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Where the router listens.
    #[arg(long, env = "ASSAY_HTTP", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub http: SocketAddr,
    /// Kubo RPC; default: the network's.
    #[arg(long, env = "ASSAY_IPFS_URL", value_name = "URL")]
    pub ipfs_url: Option<String>,
    /// Serve whoever has an API key (`assay api-key create`), from any machine, and nobody else. Without it programs on this
    /// machine are served, whatever key they send. Keys go over the wire: put TLS in front.
    #[arg(long, env = "ASSAY_API_KEYS")]
    pub api_keys: bool,
    /// Open a session for every model that is served with so much COR of the router's own wallet, add as much whenever little
    /// is left, and open another when one ends. Without it the router serves sessions in which it is given a lane.
    #[arg(long, env = "ASSAY_SESSION_DEPOSIT", value_name = "COR")]
    pub session_deposit: Option<String>,
    /// COR below which a lane of a session of the router's own has too little left; default: a quarter of the deposit.
    #[arg(long, value_name = "COR", requires = "session_deposit")]
    pub top_up_below: Option<String>,
    /// Never ask a second node where the first token is late.
    #[arg(long, env = "ASSAY_NO_HEDGING")]
    pub no_hedging: bool,
    /// Send spans of requests to the OpenTelemetry collector there, http://host:4318; in programs built with `--features otlp`.
    #[arg(long, env = "ASSAY_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Nodes to draw for a session of the router's own, at most.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub session_nodes: u8,
}

#[derive(Clone, Debug, Args)]
pub struct MinerArgs {
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Link of a router, ws://host:port/link. May be repeated.
    #[arg(long = "router", env = "ASSAY_ROUTERS", value_delimiter = ',', value_name = "URL")]
    pub routers: Vec<String>,
    /// Kubo RPC; default: the network's.
    #[arg(long, env = "ASSAY_IPFS_URL", value_name = "URL")]
    pub ipfs_url: Option<String>,
    /// Model to run: assay-demo, a folder, a .gguf file, or an id of the Hugging Face hub.
    #[arg(long, env = "ASSAY_MODEL", default_value = "assay-demo")]
    pub model: String,
    /// Sessions served at once, slots in the draw, and units of collateral: 1 to 8.
    #[arg(long, default_value_t = 8)]
    pub capacity: u8,
    /// Never appeal. Without it, where a panel finds an answer false that this node's own model finds true, the owner pays
    /// the bond, and seven others decide.
    #[arg(long, env = "ASSAY_NO_APPEAL")]
    pub no_appeal: bool,
}

#[derive(Debug, Args)]
pub struct BalanceArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Account to show; default: the key's.
    pub address: Option<Address>,
}

#[derive(Debug, Args)]
pub struct ClaimArgs {
    #[command(flatten)]
    pub key: KeyArgs,
    /// Where the money goes; default: the key's account.
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<Address>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Model that shall be served: is it there?
    #[arg(long, env = "ASSAY_MODEL", default_value = "assay-demo")]
    pub model: String,
    /// Node to look at; default: those whose operator keys are in the folder.
    #[arg(long, value_name = "NODE")]
    pub node: Option<u32>,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}
