//! Tries of which only a part is known.
//!
//! What is not known stands as a hidden node, which has a reference and nothing else; the nodes of proofs, found by their
//! hash, open it. So a trie can begin as nothing but a root, and nobody who tells nodes of it can tell wrong ones. What
//! changes a trie changes the known part alone, and its root is right all the same.
//!
//! One thing needs more than the way to a key: when a key is taken out and only one other child of its branch is left,
//! the two nodes become one, and what the other is must be known (the [orphan](Trie::orphan)). After the change a proof
//! of the key that is gone ends at the node that the orphan became, and the orphan is a part of that one: which part,
//! its hash tells.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use alloy::primitives::{B256, Bytes, keccak256};
use alloy::rlp::Decodable;
use alloy_trie::nodes::{RlpNode, TrieNode};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};

use super::{Kind, Link, Node, Trie, Value, nibble};
use crate::witness::ProofError;

/// Nibbles of a key.
const KEY_NIBBLES: usize = 64;

/// What a trie knows of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// Its value.
    Value(T),
    /// That it is not there.
    Nothing,
    /// Nothing: a proof must tell.
    Hidden,
}

/// Encoded nodes by their hash.
#[derive(Debug)]
pub(crate) struct Nodes<'a>(HashMap<B256, &'a Bytes>);

impl<'a> Nodes<'a> {
    pub(crate) fn new(nodes: impl IntoIterator<Item = &'a Bytes>) -> Self {
        Self(nodes.into_iter().map(|node| (keccak256(node), node)).collect())
    }

    fn get(&self, hash: &B256) -> Result<&'a Bytes, ProofError> {
        self.0.get(hash).copied().ok_or(ProofError::Lacks { hash: *hash })
    }
}

impl<V: Value> Trie<V> {
    /// A trie with this root, of which nothing else is known.
    pub(crate) fn behind(root: B256) -> Self {
        Self((root != EMPTY_ROOT_HASH).then(|| Arc::new(hidden(RlpNode::word_rlp(&root), false))))
    }

    /// What is known of a key.
    pub(crate) fn find(&self, key: &B256) -> Found<&V> {
        let key = Nibbles::unpack(key);
        let (mut next, mut depth) = (self.0.as_deref(), 0);
        while let Some(node) = next {
            next = match &node.kind {
                Kind::Leaf { path, value } => {
                    return if key.slice(depth..) == *path {
                        Found::Value(value)
                    } else {
                        Found::Nothing
                    };
                }
                Kind::Extension { path, child } => {
                    if !key.slice(depth..).starts_with(path) {
                        return Found::Nothing;
                    }
                    depth += path.len();
                    Some(child)
                }
                Kind::Branch(children) => {
                    depth += 1;
                    children[nibble(&key, depth - 1)].as_deref()
                }
                Kind::Hidden { .. } => return Found::Hidden,
            };
        }
        Found::Nothing
    }

    /// Opens what is hidden on the way to a key. Its value, if it has one: to be told more of, not to be changed.
    ///
    /// # Errors
    /// When a node on the way is not among those that are told, or is none. What was opened before it stays so.
    pub(crate) fn reveal(
        &mut self,
        key: &B256,
        nodes: &Nodes<'_>,
    ) -> Result<Option<&mut V>, ProofError> {
        let key = Nibbles::unpack(key);
        let (mut next, mut depth) = (self.0.as_mut(), 0);
        while let Some(node) = next {
            let node = unshare(node);
            if let (Kind::Hidden { .. }, Some(hash)) = (&node.kind, node.reference().as_hash()) {
                node.kind = parse(nodes.get(&hash)?, depth)?;
            }
            next = match &mut node.kind {
                Kind::Leaf { path, value } => {
                    return Ok((key.slice(depth..) == *path).then_some(value));
                }
                Kind::Extension { path, child } => {
                    if !key.slice(depth..).starts_with(path) {
                        return Ok(None);
                    }
                    depth += path.len();
                    Some(child)
                }
                Kind::Branch(children) => {
                    depth += 1;
                    children[nibble(&key, depth - 1)].as_mut()
                }
                Kind::Hidden { .. } => None,
            };
        }
        Ok(None)
    }

    /// Hash of the node that must be known before this key can be taken out: the one other child of its branch.
    pub(crate) fn orphan(&self, key: &B256) -> Option<B256> {
        let key = Nibbles::unpack(key);
        let (mut node, mut depth) = (self.0.as_deref()?, 0);
        let mut beside = None;
        loop {
            node = match &node.kind {
                Kind::Leaf { path, .. } if key.slice(depth..) == *path => return beside,
                Kind::Leaf { .. } | Kind::Hidden { .. } => return None,
                Kind::Extension { path, child } => {
                    if !key.slice(depth..).starts_with(path) {
                        return None;
                    }
                    depth += path.len();
                    child
                }
                Kind::Branch(children) => {
                    let own = nibble(&key, depth);
                    depth += 1;
                    let others = children.iter().enumerate().filter(|(index, _)| *index != own);
                    let mut others = others.filter_map(|(_, child)| child.as_deref());
                    beside = match (others.next(), others.next()) {
                        (Some(only), None) => only.unknown(),
                        _ => None,
                    };
                    children[own].as_deref()?
                }
            };
        }
    }

    /// Opens the orphan of a key with a proof of the trie in which the key is gone.
    ///
    /// # Errors
    /// When it is a part of none of these nodes.
    pub(crate) fn adopt(&mut self, key: &B256, nodes: &Nodes<'_>) -> Result<(), ProofError> {
        let Some(hash) = self.orphan(key) else { return Ok(()) };
        let mut parts = nodes.0.values().filter_map(|node| part::<V>(node, hash));
        let part = parts.next().ok_or(ProofError::Lacks { hash })?;
        let key = Nibbles::unpack(key);
        let (mut next, mut depth) = (self.0.as_mut(), 0);
        while let Some(node) = next {
            next = match &mut unshare(node).kind {
                Kind::Leaf { .. } | Kind::Hidden { .. } => None,
                Kind::Extension { path, child } => {
                    depth += path.len();
                    Some(child)
                }
                Kind::Branch(children) => {
                    let orphan = |child: &&mut Arc<Node<V>>| child.unknown() == Some(hash);
                    if let Some(orphan) = children.iter_mut().flatten().find(orphan) {
                        unshare(orphan).kind = part;
                        return Ok(());
                    }
                    depth += 1;
                    children[nibble(&key, depth - 1)].as_mut()
                }
            };
        }
        Ok(())
    }
}

impl<V: Value> Node<V> {
    /// Its hash, if nothing else is known of it.
    fn unknown(&self) -> Option<B256> {
        match self.kind {
            Kind::Hidden { is_branch: false } => self.reference().as_hash(),
            _ => None,
        }
    }
}

fn hidden<V>(reference: RlpNode, is_branch: bool) -> Node<V> {
    Node { kind: Kind::Hidden { is_branch }, reference: OnceLock::from(reference) }
}

/// A node, to be opened: copied if another version has it too, with its hash, which stays what it is.
fn unshare<V: Clone>(node: &mut Arc<Node<V>>) -> &mut Node<V> {
    if Arc::get_mut(node).is_none() {
        *node = Arc::new(Node { kind: node.kind.clone(), reference: node.reference.clone() });
    }
    Arc::make_mut(node)
}

/// A node at a depth, in nibbles. It is encoded as this trie would encode it, or it is none.
fn parse<V: Value>(bytes: &[u8], depth: usize) -> Result<Kind<V>, ProofError> {
    let bad = || ProofError::NoNode { hash: keccak256(bytes) };
    let mut rest = bytes;
    let node = TrieNode::decode(&mut rest).map_err(|_| bad())?;
    let kind = match node {
        TrieNode::Leaf(leaf) if depth + leaf.key.len() == KEY_NIBBLES => {
            Kind::Leaf { path: leaf.key, value: V::from_rlp(&leaf.value).map_err(|_| bad())? }
        }
        TrieNode::Extension(extension)
            if !extension.key.is_empty() && depth + extension.key.len() < KEY_NIBBLES =>
        {
            let child = child(&extension.child, depth + extension.key.len())?;
            Kind::Extension { path: extension.key, child }
        }
        TrieNode::Branch(branch) if depth < KEY_NIBBLES => {
            let mut children: [Link<V>; 16] = Default::default();
            for (index, reference) in branch.as_ref().children() {
                if let Some(reference) = reference {
                    children[usize::from(index)] = Some(child(reference, depth + 1)?);
                }
            }
            Kind::Branch(children)
        }
        _ => return Err(bad()),
    };
    let node = Node { kind, reference: OnceLock::new() };
    if node.encode() != bytes {
        return Err(bad());
    }
    Ok(node.kind)
}

/// A child: hidden behind its hash, or, if it is short, there.
fn child<V: Value>(reference: &RlpNode, depth: usize) -> Result<Arc<Node<V>>, ProofError> {
    Ok(match reference.as_hash() {
        Some(_) => Arc::new(hidden(reference.clone(), false)),
        None => parse(reference.as_slice(), depth)?.link(),
    })
}

/// The end of a leaf's or an extension's path, if that is the node of this hash.
fn part<V: Value>(node: &[u8], hash: B256) -> Option<Kind<V>> {
    let mut rest = node;
    let node = TrieNode::decode(&mut rest).ok()?;
    let (path, child) = match &node {
        TrieNode::Leaf(leaf) => (leaf.key, None),
        TrieNode::Extension(extension) => (extension.key, Some(&extension.child)),
        _ => return None,
    };
    // All of an extension's path may be new; then its child is the orphan, and a branch.
    if child.is_some_and(|child| child.as_hash() == Some(hash)) {
        return Some(Kind::Hidden { is_branch: true });
    }
    (0..=path.len()).find_map(|start| {
        let path = path.slice(start..);
        let kind = match (&node, child) {
            (TrieNode::Leaf(leaf), _) => Kind::Leaf { path, value: V::from_rlp(&leaf.value).ok()? },
            (_, Some(child)) if !path.is_empty() && child.is_hash() => {
                // Only a branch stands below an extension.
                Kind::Extension { path, child: Arc::new(hidden(child.clone(), true)) }
            }
            _ => return None,
        };
        let node = Node { kind, reference: OnceLock::new() };
        (node.reference().as_hash() == Some(hash)).then_some(node.kind)
    })
}

#[cfg(test)]
mod tests;
