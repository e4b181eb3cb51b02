//! The connected nodes: which has room, and how it is reached.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use assay_types::{NodeId, TaskId, link::Offer};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::state::TaskEvent;
use crate::config::{COMMAND_QUEUE, MAX_CAPACITY};

/// A task for a connection.
#[derive(Debug)]
pub struct NewTask {
    /// Its id.
    pub task: TaskId,
    /// What the miner is sent.
    pub offer: Box<Offer>,
    /// Where its events go; has room for all of them.
    pub events: mpsc::Sender<TaskEvent>,
    /// Whether it was accepted; dropped if the node left without an answer.
    pub accepted: oneshot::Sender<bool>,
}

/// What a connection is told.
#[derive(Debug)]
pub enum Command {
    /// Offer this.
    Offer(NewTask),
    /// Nobody waits for it.
    Cancel(TaskId),
}

#[derive(Debug)]
struct Link {
    connection: u64,
    commands: mpsc::Sender<Command>,
    capacity: u32,
    load: u32,
    /// Tasks given to it on this connection.
    served: u64,
    draining: bool,
    replaced: CancellationToken,
}

/// The connected nodes. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    links: Mutex<Links>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Links {
    by_node: HashMap<NodeId, Link>,
    connections: u64,
}

/// Why no node takes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNode {
    /// None of them is connected.
    Disconnected,
    /// All that are connected have as many tasks as they take.
    Busy,
}

/// Room for one task on one node; given back when it is dropped without an offer.
#[derive(Debug)]
pub struct Slot {
    hub: Hub,
    node: NodeId,
    connection: u64,
    commands: mpsc::Sender<Command>,
    used: bool,
}

/// What a new connection works with.
#[derive(Debug)]
pub struct Registered {
    /// Number of the connection.
    pub connection: u64,
    /// What it is told.
    pub commands: mpsc::Receiver<Command>,
    /// A newer connection of the same node is there.
    pub replaced: CancellationToken,
}

impl Hub {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has proven its key: from now on it is offered tasks. An older connection of it ends.
    pub fn register(&self, node: NodeId, capacity: u32) -> Registered {
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let replaced = CancellationToken::new();
        let mut links = self.links();
        links.connections += 1;
        let connection = links.connections;
        let link = Link {
            connection,
            commands: sender,
            capacity: capacity.clamp(1, MAX_CAPACITY),
            load: 0,
            served: 0,
            draining: false,
            replaced: replaced.clone(),
        };
        if let Some(older) = links.by_node.insert(node, link) {
            older.replaced.cancel();
        }
        drop(links);
        self.0.freed.notify_waiters();
        Registered { connection, commands, replaced }
    }

    /// The connection is gone.
    pub fn unregister(&self, node: NodeId, connection: u64) {
        let mut links = self.links();
        if links.by_node.get(&node).is_some_and(|l| l.connection == connection) {
            links.by_node.remove(&node);
        }
        drop(links);
        self.0.freed.notify_waiters();
    }

    /// The node takes no more tasks on this connection.
    pub fn drain(&self, node: NodeId, connection: u64) {
        if let Some(link) =
            self.links().by_node.get_mut(&node).filter(|l| l.connection == connection)
        {
            link.draining = true;
        }
    }

    /// One task less on the node.
    pub fn release(&self, node: NodeId, connection: u64) {
        if let Some(link) =
            self.links().by_node.get_mut(&node).filter(|l| l.connection == connection)
        {
            link.load = link.load.saturating_sub(1);
        }
        self.0.freed.notify_waiters();
    }

    /// Resolves when a node may have room again. Ask for it before [`Self::reserve`], await it after.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.freed.notified()
    }

    /// Nodes that are connected now.
    pub fn connected(&self) -> Vec<NodeId> {
        self.links().by_node.keys().copied().collect()
    }

    /// Room on the least loaded of `nodes`, without those that were tried; of equals, on the one that had the
    /// fewest tasks so far, so that idle miners take turns.
    ///
    /// # Errors
    /// Why there is none.
    pub fn reserve(&self, nodes: &[NodeId], tried: &[NodeId]) -> Result<Slot, NoNode> {
        let mut links = self.links();
        let mut best: Option<((u32, u64), NodeId)> = None;
        let mut connected = false;
        for node in nodes.iter().filter(|n| !tried.contains(n)) {
            let Some(link) = links.by_node.get(node).filter(|l| !l.draining) else { continue };
            connected = true;
            // Share of the capacity in use, in thousandths.
            let load = link.load.saturating_mul(1000) / link.capacity;
            let rank = (load, link.served);
            if link.load < link.capacity && best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, *node));
            }
        }
        let Some((_, node)) = best else {
            return Err(if connected { NoNode::Busy } else { NoNode::Disconnected });
        };
        let Some(link) = links.by_node.get_mut(&node) else { return Err(NoNode::Disconnected) };
        link.load += 1;
        link.served += 1;
        let (connection, commands) = (link.connection, link.commands.clone());
        Ok(Slot { hub: self.clone(), node, connection, commands, used: false })
    }

    /// Tells the node that nobody waits for the task.
    pub fn cancel(&self, node: NodeId, task: TaskId) {
        let commands = self.links().by_node.get(&node).map(|l| l.commands.clone());
        if let Some(commands) = commands
            && commands.try_send(Command::Cancel(task)).is_err()
        {
            tracing::warn!(%node, %task, "the node's connection is too busy to be told of a cancelled task");
        }
    }
}

impl Slot {
    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Offers a task; the connection gives the room back when the task ends.
    ///
    /// # Errors
    /// If the connection is gone or does not keep up.
    pub fn offer(mut self, task: NewTask) -> Result<(), NoNode> {
        match self.commands.try_send(Command::Offer(task)) {
            Ok(()) => {
                self.used = true;
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(NoNode::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NoNode::Disconnected),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.used {
            self.hub.release(self.node, self.connection);
        }
    }
}
