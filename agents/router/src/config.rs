//! What a router is told, and every limit that it keeps.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use assay_types::{MAX_BLOCK_BYTES, ModelId};

use crate::treasury::OwnSessions;

/// Largest body of a request: a request block of 1 MiB, and room for the JSON around it.
pub const MAX_BODY_BYTES: usize = MAX_BLOCK_BYTES + (64 << 10);
/// Largest body of a cancellation: a number and a signature.
pub const MAX_CANCELLATION_BYTES: usize = 4096;
/// Requests that are served at once; each holds up to two bodies and an answer in memory.
pub const MAX_REQUESTS: usize = 256;
/// Connections that are open at once: those of all requests, all miners and all WebSockets, and as many that
/// wait for their next request.
pub const MAX_CONNECTIONS: usize = 2 * (MAX_REQUESTS + MAX_LINKS + MAX_SOCKETS);
/// Connections that the system takes before the router does; what it is not told otherwise is 128. Clients come in bursts,
/// and one for which there is no room tries again after a second.
pub const ACCEPT_QUEUE: u32 = 1024;
/// Bytes of a request's line and headers: far above what clients send, cookies of the host included.
pub const MAX_HEAD_BYTES: usize = 32 << 10;
/// Headers of a request.
pub const MAX_HEADERS: usize = 64;
/// Bytes that a connection buffers of what it reads or writes; a head must fit.
pub const CONNECTION_BUFFER_BYTES: usize = 64 << 10;
/// Clients that are connected by WebSocket at once.
pub const MAX_SOCKETS: usize = 256;
/// Frames that a client may send in [`SOCKET_WINDOW`], pings included: many times what a client needs.
pub const SOCKET_FRAMES: u32 = 120;
/// Time in which a client's frames are counted.
pub const SOCKET_WINDOW: Duration = Duration::from_secs(10);
/// Requests that wait at once for a node to have room; more are refused at once.
pub const MAX_WAITING: usize = 64;
/// Time that a request waits for a node to have room.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);
/// Nodes that one request is offered to: a second chance when a node is busy, not a walk over all.
pub const MAX_OFFERS: usize = 3;
/// Time in which a node answers an offer; it tokenises the prompt and looks at the chain.
pub const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A node that has not answered an offer by then may be at work: its task is submitted all the same. One
/// that declines at once costs no transaction.
pub const SUBMIT_AFTER: Duration = Duration::from_millis(250);
/// Headers of a streamed answer wait this long for the first token, so that an early failure is an HTTP error.
pub const HEADERS_WITHIN: Duration = Duration::from_secs(2);
/// Time to read a result block back from the content store.
pub const RESULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between two tries to read it: the pin may be moments behind the `done`.
pub const RESULT_RETRY: Duration = Duration::from_millis(100);
/// Comments that keep a silent stream open through proxies.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Miners connected at once; a session has at most 8 nodes.
pub const MAX_LINKS: usize = 512;
/// Nodes whose record is remembered while they are away.
pub const MAX_STANDINGS: usize = 4 * MAX_LINKS;
/// Time in which a miner proves its key.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest first frame: before the key is proven nobody may send megabytes.
pub const MAX_HELLO_BYTES: usize = 4096;
/// Bytes that are read from a WebSocket at once. Each read clears so many first, and a token is a few hundred.
pub const SOCKET_READ_BYTES: usize = 8 << 10;
/// Frames that wait to be written to one miner: an offer is up to 2 MiB. All tasks of a node can be resumed
/// at once.
pub const WRITE_QUEUE: usize = 64;
/// Commands that wait for one connection.
pub const COMMAND_QUEUE: usize = 256;
/// Most tasks that a node gets at once, whatever it says: a node has at most 8 slots.
pub const MAX_CAPACITY: u32 = 32;
/// Pins, submissions and receipts that are under way at once.
pub const MAX_CHORES: usize = 64;
/// Time between two looks at the chores, which are begun together then: an answer need not share the processor with what
/// nobody waits for. Little beside a block's time.
pub const CHORE_DELAY: Duration = Duration::from_millis(5);
/// How long a stopping router waits for chores: a few blocks of a fast chain.
pub const CHORES_GRACE: Duration = Duration::from_secs(8);
/// Chores that wait; the requests that make them are bounded by [`MAX_REQUESTS`].
pub const CHORE_QUEUE: usize = 4 * MAX_REQUESTS;
/// Entries of timelines that wait to be written: those of some seconds at full speed would be more, but a disk that is
/// away for long shall not fill the memory.
pub const NOTE_QUEUE: usize = 64 * MAX_REQUESTS;
/// Entries of timelines in one database transaction. Where the disk is slow or the processor busy, a transaction takes
/// long whatever is in it: the more wait, the more are written at once.
pub const NOTE_BATCH: usize = NOTE_QUEUE / 4;
/// Time that an entry waits for others to be written with it, while nobody waits for it: what is to be said of a short
/// answer, and of those beside it, then goes to the disk at once. A kill loses so much of timelines at most, and the tasks
/// of that time are left to their nodes to submit.
pub const NOTE_DELAY: Duration = Duration::from_millis(20);
/// With so many entries waiting the database is behind.
pub const NOTES_BEHIND: usize = NOTE_QUEUE / 32;
/// Nonces that one database transaction takes ahead of use, so that no request waits for the disk. A crash
/// skips at most so many.
pub const NONCE_BATCH: u64 = 32;
/// More are asked for when so many are left.
pub const NONCES_WANTED: u64 = NONCE_BATCH / 2;
/// Those that were asked for do not wait for other entries any longer when so few are left.
pub const NONCES_URGENT: u64 = NONCES_WANTED / 4;
/// The contract takes no nonce that is so far ahead of the largest that it has.
pub const NONCE_WINDOW: u64 = 256;
/// A task that no node took is not submitted, unless its nonce is so far ahead of those on chain: half of the
/// window, so that the other half is left to those that are on their way.
pub const NONCE_LAG: u64 = NONCE_WINDOW / 2;
/// Nodes that may answer one request, as in the contract.
pub const MAX_REDUNDANCY: u8 = 8;
/// A request block that is not pinned after this is tried again; the first try is at once.
pub const PIN_RETRY: Duration = Duration::from_secs(2);
/// Longest pause between two tries, for a store that is away for long.
pub const MAX_PIN_RETRY: Duration = Duration::from_secs(60);
/// A request block that could not be pinned for so long is given up: no dispute about it is open any more.
pub const PIN_WITHIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Request blocks that are read from the database at once, each up to 1 MiB.
pub const PIN_BATCH: u32 = 16;
/// How often tasks that ended long ago are removed.
pub const PRUNE_INTERVAL: Duration = Duration::from_secs(600);
/// Tasks that one database transaction removes: requests wait for it.
pub const PRUNE_BATCH: u32 = 256;
/// Tokens that a chat template may add around a conversation: a default system prompt is the longest part.
pub const TEMPLATE_TOKENS: usize = 256;
/// Tokens that a chat template may add around one message.
pub const MESSAGE_TOKENS: usize = 16;
/// Pause of a session after a submission was refused for lack of money.
pub const UNPAID_PAUSE: Duration = Duration::from_secs(30);

/// How long clients of HTTP may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until the head of a request is there, on a new connection and on one that waits for its next request: no
    /// program types it by hand.
    pub head: Duration,
    /// Until the body is there: a megabyte over a poor line, and no more.
    pub body: Duration,
    /// For a client to read anything of what it is sent: longer than any pause of a line that works.
    pub write: Duration,
    /// Without a frame on a WebSocket that waits for its next request; clients send pings more often.
    pub socket: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            socket: Duration::from_secs(60),
        }
    }
}

/// A model that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModel {
    /// Its name in requests.
    pub name: String,
    /// Its id on chain.
    pub model_id: ModelId,
    /// Most tokens of prompt and answer together.
    pub max_context: u32,
}

/// Settings of a router.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Where HTTP and the miners' link are served.
    pub http: SocketAddr,
    /// Folder of its database.
    pub data: PathBuf,
    /// What is served.
    pub models: Vec<ServedModel>,
    /// Tokens of an answer when a request does not say: enough for a page, little enough to hold money for.
    pub default_max_output: u32,
    /// Answers of other nodes that a request gets, each paid, when it does not say: 1 to [`MAX_REDUNDANCY`].
    pub default_redundancy: u8,
    /// Seconds from a request to its deadline on chain.
    pub deadline_s: u64,
    /// Time until the first token.
    pub first_token_timeout: Duration,
    /// Time between two tokens.
    pub token_timeout: Duration,
    /// Time that tasks wait for a node whose connection dropped: some of its tries to come back.
    pub resume_timeout: Duration,
    /// How long clients may take.
    pub patience: Patience,
    /// Whether API keys are asked for, those of [`crate::keys::file`] in `data`; else only this machine is served.
    pub api_keys: bool,
    /// Sessions that the router opens and fills itself; `None`: it serves those in which it is given a lane.
    pub own_sessions: Option<OwnSessions>,
    /// Whether a second node is asked where the first token is late ([`crate::tasks::hedge`]).
    pub hedging: bool,
    /// Collector that spans are sent to ([`crate::traces`]), as `http://host:4318`; needs the feature `otlp`.
    pub otlp_endpoint: Option<String>,
    /// How long tasks stay in the database after their deadline; far longer than any reorganisation.
    pub keep_tasks: Duration,
    /// Block that events are read from when the database is new: the deployment's.
    pub start_block: u64,
}

impl RouterConfig {
    /// Development defaults: loopback, 256 tokens, a deadline of one minute.
    pub fn new(http: SocketAddr, data: PathBuf, models: Vec<ServedModel>) -> Self {
        Self {
            http,
            data,
            models,
            default_max_output: 256,
            default_redundancy: 1,
            deadline_s: 60,
            first_token_timeout: Duration::from_secs(45),
            token_timeout: Duration::from_secs(20),
            resume_timeout: Duration::from_secs(5),
            patience: Patience::default(),
            api_keys: false,
            own_sessions: None,
            hedging: true,
            otlp_endpoint: None,
            keep_tasks: Duration::from_secs(90 * 24 * 3600),
            start_block: 0,
        }
    }
}
