//! The connected nodes: which has room, and how it is reached.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use assay_types::{
    NodeId, TaskId,
    link::{Offer, SignedCancellation},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    score::{Candidate, Score},
    standing::{Outcome, Standing},
    state::{NotCut, Stream, TaskEvent},
};
use crate::config::{COMMAND_QUEUE, MAX_CAPACITY, MAX_STANDINGS};

/// A task for a connection.
#[derive(Debug)]
pub struct NewTask {
    /// Its id.
    pub task: TaskId,
    /// What the miner is sent.
    pub offer: Box<Offer>,
    /// What its request block says of log probabilities.
    pub top_logprobs: Option<u32>,
    /// Where its events go; has room for all of them.
    pub events: mpsc::Sender<TaskEvent>,
    /// Whether it was accepted; dropped if the node left without an answer.
    pub accepted: oneshot::Sender<bool>,
}

/// A client that waits.
#[derive(Debug)]
pub struct Client {
    /// Where a task's events go; has room for all of them.
    pub events: mpsc::Sender<TaskEvent>,
    /// Whether the node took it, until it has said so.
    pub accepted: Option<oneshot::Sender<bool>>,
}

/// A task whose connection is gone, and which goes on when its node comes back.
#[derive(Debug)]
pub struct Parted {
    /// What the node has said so far.
    pub stream: Stream,
    /// Who waits, if anybody does.
    pub client: Option<Client>,
}

/// What a connection is told.
#[derive(Debug)]
pub enum Command {
    /// Offer this.
    Offer(NewTask),
    /// Go on with these.
    Adopt(Vec<Parted>),
    /// Nobody waits for it.
    Cancel(TaskId),
    /// The holder of its lane ends it.
    Cut(Cut),
}

/// The word of a lane's holder that ends a task.
#[derive(Debug)]
pub struct Cut {
    /// The task.
    pub task: TaskId,
    /// The word.
    pub signed: SignedCancellation,
    /// Whether the node is told; dropped if its connection is lost.
    pub heard: oneshot::Sender<Result<(), NotCut>>,
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
    /// Tasks of nodes that are not connected, with the connection that they had.
    parted: HashMap<NodeId, (u64, Vec<Parted>)>,
    connections: u64,
    /// Also of nodes that are not connected: who comes back is not forgiven.
    standings: HashMap<NodeId, Standing>,
}

/// Who may get a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// The nodes that its session has.
    pub nodes: &'a [NodeId],
    /// Those of them that were asked before.
    pub tried: &'a [NodeId],
    /// The node that answered the conversation's turn before.
    pub familiar: Option<NodeId>,
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
    /// What an earlier connection of the node left.
    pub parted: Vec<Parted>,
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
        let parted = links.parted.remove(&node).map(|(_, tasks)| tasks).unwrap_or_default();
        let link = Link {
            connection,
            commands: sender,
            capacity: capacity.clamp(1, MAX_CAPACITY),
            load: load(&parted),
            served: 0,
            draining: false,
            replaced: replaced.clone(),
        };
        if let Some(older) = links.by_node.insert(node, link) {
            older.replaced.cancel();
        }
        drop(links);
        self.0.freed.notify_waiters();
        Registered { connection, commands, replaced, parted }
    }

    /// The connection is gone. Its tasks wait for the node's next one, or go there if it is there already.
    ///
    /// # Errors
    /// The tasks, if the next one does not keep up.
    pub fn part(
        &self,
        node: NodeId,
        connection: u64,
        tasks: Vec<Parted>,
    ) -> Result<(), Vec<Parted>> {
        let mut links = self.links();
        let outcome = match links.by_node.get_mut(&node) {
            Some(newer) if newer.connection != connection => {
                if tasks.is_empty() {
                    return Ok(());
                }
                let more = load(&tasks);
                match newer.commands.try_send(Command::Adopt(tasks)) {
                    Ok(()) => {
                        newer.load = newer.load.saturating_add(more);
                        Ok(())
                    }
                    Err(error) => match error.into_inner() {
                        Command::Adopt(tasks) => Err(tasks),
                        _ => Ok(()),
                    },
                }
            }
            _ => {
                links.by_node.remove(&node);
                if !tasks.is_empty() {
                    let left_by = (connection, Vec::new());
                    links.parted.entry(node).or_insert(left_by).1.extend(tasks);
                }
                Ok(())
            }
        };
        drop(links);
        self.0.freed.notify_waiters();
        outcome
    }

    /// Tasks that the connection left and that no other one has taken over.
    pub fn give_up(&self, node: NodeId, connection: u64) -> Vec<Parted> {
        let mut links = self.links();
        match links.parted.get(&node) {
            Some((left_by, _)) if *left_by == connection => {
                links.parted.remove(&node).map(|(_, tasks)| tasks).unwrap_or_default()
            }
            _ => Vec::new(),
        }
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

    /// What became of a task that the node took.
    pub fn judge(&self, node: NodeId, outcome: Outcome) {
        self.links().standing(node).note(outcome, Instant::now());
    }

    /// The chain has counted the node to this level.
    pub fn set_level(&self, node: NodeId, level: u8) {
        self.links().standing(node).level = level;
    }

    /// Room on that of the nodes whose score is best ([`super::score`]), without those that were tried.
    ///
    /// # Errors
    /// Why there is none.
    pub fn reserve(&self, choice: &Choice<'_>) -> Result<Slot, NoNode> {
        let mut links = self.links();
        let now = Instant::now();
        let mut best: Option<(Score, NodeId)> = None;
        let mut connected = false;
        for node in choice.nodes.iter().filter(|n| !choice.tried.contains(n)) {
            let Some(link) = links.by_node.get(node).filter(|l| !l.draining) else { continue };
            connected = true;
            let standing = links.standings.get(node).copied().unwrap_or_default();
            let candidate = Candidate {
                rests: !standing.takes(link.load, now),
                expected: standing.expected(now),
                level: standing.level,
                load: link.load,
                capacity: link.capacity,
                served: link.served,
                is_familiar: choice.familiar == Some(*node),
            };
            let score = candidate.score();
            if link.load < link.capacity && best.is_none_or(|(least, _)| score < least) {
                best = Some((score, *node));
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

    /// Tells the node that nobody waits for the task, now or when it comes back.
    pub fn cancel(&self, node: NodeId, task: TaskId) {
        let mut links = self.links();
        if let Some((_, tasks)) = links.parted.get_mut(&node) {
            for parted in tasks.iter_mut().filter(|parted| parted.stream.task == task) {
                parted.stream.muted = true;
                parted.client = None;
            }
        }
        let commands = links.by_node.get(&node).map(|l| l.commands.clone());
        drop(links);
        if let Some(commands) = commands
            && commands.try_send(Command::Cancel(task)).is_err()
        {
            tracing::warn!(%node, %task, "the node's connection is too busy to be told of a cancelled task");
        }
    }

    /// Tells the node that the holder of a task's lane ends it; whoever says so hears whether it does. Nobody hears
    /// anything while the node is not connected, or its connection does not keep up.
    pub fn cut(&self, node: NodeId, cut: Cut) {
        let commands = self.links().by_node.get(&node).map(|link| link.commands.clone());
        if let Some(commands) = commands {
            let _ = commands.try_send(Command::Cut(cut));
        }
    }
}

impl Links {
    fn standing(&mut self, node: NodeId) -> &mut Standing {
        let Self { by_node, standings, .. } = self;
        if standings.len() >= MAX_STANDINGS && !standings.contains_key(&node) {
            standings.retain(|node, _| by_node.contains_key(node));
        }
        standings.entry(node).or_default()
    }
}

fn load(tasks: &[Parted]) -> u32 {
    u32::try_from(tasks.len()).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALL: [NodeId; 2] = [NodeId(1), NodeId(2)];

    fn hub() -> (Hub, Vec<Registered>) {
        let hub = Hub::default();
        let registered = ALL.map(|node| hub.register(node, 4));
        (hub, registered.into())
    }

    fn reserve(hub: &Hub, tried: &[NodeId]) -> Result<Slot, NoNode> {
        hub.reserve(&Choice { nodes: &ALL, tried, familiar: None })
    }

    fn next(hub: &Hub) -> NodeId {
        reserve(hub, &[]).unwrap().node()
    }

    #[tokio::test]
    async fn a_node_that_is_felt_to_be_slower_serves_when_the_faster_one_is_busy() {
        let (hub, _links) = hub();
        hub.judge(NodeId(1), Outcome::Began(Duration::from_millis(400)));
        hub.judge(NodeId(2), Outcome::Began(Duration::from_millis(300)));
        let held: Vec<Slot> = (0..8).map(|_| reserve(&hub, &[]).unwrap()).collect();
        let order: Vec<u32> = held.iter().map(|slot| slot.node().0).collect();
        assert_eq!(order.iter().filter(|node| **node == 1).count(), 4, "{order:?}");
        assert_eq!(reserve(&hub, &[]).unwrap_err(), NoNode::Busy);
        drop(held);
        hub.judge(NodeId(1), Outcome::Began(Duration::from_secs(9)));
        assert!((0..6).all(|_| next(&hub) == NodeId(2)), "each is given back at once");
    }

    #[tokio::test]
    async fn a_node_that_rests_is_asked_only_if_there_is_no_other() {
        let (hub, _links) = hub();
        (0..3).for_each(|_| hub.judge(NodeId(2), Outcome::Failed));
        assert!((0..4).all(|_| next(&hub) == NodeId(1)));
        assert_eq!(reserve(&hub, &[NodeId(1)]).unwrap().node(), NodeId(2));
        // It is not forgiven by leaving.
        let _again = hub.register(NodeId(2), 4);
        assert!((0..4).all(|_| next(&hub) == NodeId(1)));
        hub.judge(NodeId(2), Outcome::Completed(None));
        assert!((0..4).any(|_| next(&hub) == NodeId(2)));
    }

    #[tokio::test]
    async fn a_node_of_a_higher_level_is_given_up_to_twice_as_many() {
        let (hub, _links) = hub();
        hub.set_level(NodeId(2), 10);
        let order: Vec<NodeId> = (0..30).map(|_| next(&hub)).collect();
        let of_two = order.iter().filter(|node| **node == NodeId(2)).count();
        assert_eq!(of_two, 20, "{order:?}");
    }

    #[tokio::test]
    async fn a_conversation_stays_with_its_node_while_that_has_room_to_spare() {
        let (hub, _links) = hub();
        let choice = Choice { nodes: &ALL, tried: &[], familiar: Some(NodeId(2)) };
        let held: Vec<Slot> = (0..4).map(|_| hub.reserve(&choice).unwrap()).collect();
        let order: Vec<u32> = held.iter().map(|slot| slot.node().0).collect();
        assert_eq!(order, [2, 2, 2, 1], "the last place is left to others");
        drop(held);
        let tried = Choice { tried: &[NodeId(2)], ..choice };
        assert_eq!(hub.reserve(&tried).unwrap().node(), NodeId(1));
        (0..3).for_each(|_| hub.judge(NodeId(2), Outcome::Failed));
        assert_eq!(hub.reserve(&choice).unwrap().node(), NodeId(1), "it is not well");
    }
}
