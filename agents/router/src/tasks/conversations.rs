//! Which node answered a conversation last, so that its next turn goes there: an engine that keeps what it has read
//! reads only what is new.
//!
//! A request for the next turn begins with all messages of the one before. So a request is remembered by a hash of its
//! messages, and a later one is recognised by the hash of what it begins with, up to an answer. No prompt is kept. The
//! hash is keyed by chance in each process: nobody can make two conversations collide, and where they do by chance,
//! one of them is asked of another node than it might have been.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Mutex, PoisonError},
};

use assay_types::{NodeId, Prompt};

use crate::http::ask::Ask;

/// Conversations that are remembered at least: as many as are at work at once, many times over.
const REMEMBERED: usize = 4096;
/// Who says what a conversation goes on from.
const ANSWERER: &str = "assistant";

/// A conversation up to one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Turn(u64);

/// The nodes of conversations.
#[derive(Debug, Default)]
pub struct Conversations {
    key: RandomState,
    nodes: Mutex<Nodes>,
}

/// In two generations: when the younger one is full, the older one is forgotten.
#[derive(Debug, Default)]
struct Nodes {
    young: HashMap<Turn, NodeId>,
    old: HashMap<Turn, NodeId>,
}

impl Conversations {
    /// The turn that this request asks for; `None` for a text, which has no turns.
    pub fn turn(&self, ask: &Ask) -> Option<Turn> {
        self.turns(ask).pop()
    }

    /// The node that answered the turn before this one.
    pub fn familiar(&self, ask: &Ask) -> Option<NodeId> {
        let mut turns = self.turns(ask);
        turns.pop();
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let node_of = |turn| nodes.young.get(&turn).or_else(|| nodes.old.get(&turn)).copied();
        turns.into_iter().rev().find_map(node_of)
    }

    /// The node answers this turn.
    pub fn answered(&self, turn: Turn, node: NodeId) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.young.len() >= REMEMBERED {
            nodes.old = std::mem::take(&mut nodes.young);
        }
        nodes.young.insert(turn, node);
    }

    /// The earlier turns of a request, each of which an answer follows, and its own at the end. Conversations of
    /// different models and of different keys are different ones.
    fn turns(&self, ask: &Ask) -> Vec<Turn> {
        let Prompt::Messages(messages) = &ask.prompt else { return Vec::new() };
        let mut hasher = self.key.build_hasher();
        ask.model.model_id.0.hash(&mut hasher);
        ask.key.as_ref().map(|key| key.id.as_str()).hash(&mut hasher);
        let mut turns = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            if i > 0 && message.role == ANSWERER {
                turns.push(Turn(hasher.finish()));
            }
            message.role.hash(&mut hasher);
            message.content.hash(&mut hasher);
        }
        turns.push(Turn(hasher.finish()));
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use assay_types::{Message, Sampling};

    use super::*;
    use crate::{
        http::ask::tests::config,
        keys::key::{ApiKey, Limits},
    };

    /// A request of these messages, the user's and the assistant's in turn.
    fn ask(messages: &[&str]) -> Ask {
        let role = |i: usize| if i.is_multiple_of(2) { "user" } else { "assistant" };
        let list: Vec<Message> = messages
            .iter()
            .enumerate()
            .map(|(i, text)| Message { role: role(i).into(), content: (*text).into() })
            .collect();
        Ask {
            model: config().models.remove(0),
            prompt: Prompt::Messages(list),
            sampling: Sampling::default(),
            stop: Vec::new(),
            top_logprobs: None,
            max_output: 1,
            max_prompt: 1,
            redundancy: 1,
            key: None,
            signed: None,
        }
    }

    fn answer(known: &Conversations, messages: &[&str], node: u32) {
        known.answered(known.turn(&ask(messages)).unwrap(), NodeId(node));
    }

    #[test]
    fn the_next_turn_is_recognised_and_nothing_else_is() {
        let known = Conversations::default();
        answer(&known, &["hi"], 3);
        let familiar = |messages: &[&str]| known.familiar(&ask(messages)).map(|node| node.0);
        assert_eq!(familiar(&["hi", "hello", "more"]), Some(3));
        assert_eq!(familiar(&["hi", "whatever it said", "more", "yes", "and?"]), Some(3));
        assert_eq!(familiar(&["hi"]), None, "the same question again is another conversation");
        assert_eq!(familiar(&["ho", "hello", "more"]), None);
        assert_eq!(familiar(&["h", "ihello", "more"]), None);
        answer(&known, &["hi", "hello", "more"], 5);
        assert_eq!(
            familiar(&["hi", "hello", "more", "yes", "and?"]),
            Some(5),
            "the last turn counts"
        );
        assert_eq!(familiar(&["hi", "hey", "more"]), Some(3), "another branch");
        let mut text = ask(&["hi", "hello", "more"]);
        text.prompt = Prompt::Text("hi".into());
        assert_eq!((known.familiar(&text), known.turn(&text)), (None, None));
    }

    #[test]
    fn conversations_of_different_keys_and_models_are_different_ones() {
        let known = Conversations::default();
        answer(&known, &["hi"], 3);
        let mut other = ask(&["hi", "hello", "more"]);
        assert!(known.familiar(&other).is_some());
        other.model.model_id = assay_types::ModelId([9; 32].into());
        assert_eq!(known.familiar(&other), None);
        let mut other = ask(&["hi", "hello", "more"]);
        let limits = Limits::default();
        let (id, name) = ("key_1".into(), String::new());
        other.key = Some(Arc::new(ApiKey { id, name, created_s: 1, revoked_s: None, limits }));
        assert_eq!(known.familiar(&other), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_stays() {
        let known = Conversations::default();
        for n in 0..3 * REMEMBERED {
            answer(&known, &[&n.to_string()], 1);
        }
        let familiar = |n: usize| known.familiar(&ask(&[&n.to_string(), "a", "b"]));
        assert_eq!(familiar(0), None);
        assert_eq!(familiar(2 * REMEMBERED + 1), Some(NodeId(1)));
        let nodes = known.nodes.lock().unwrap();
        assert!(nodes.young.len() + nodes.old.len() <= 2 * REMEMBERED);
    }
}
