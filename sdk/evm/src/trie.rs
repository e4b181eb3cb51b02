//! A Merkle Patricia trie in memory whose versions share what they have in common.
//!
//! A clone takes no time, and a change copies only the nodes on its path, so that the state of every
//! recent block can be kept and proven. The hash of a node is computed when it is first asked for and
//! stays with the node: after a block, only what the block changed is hashed.
//!
//! All keys have 32 bytes, so no key is the beginning of another, and a branch never has a value.
//!
//! Of a trie a part may be unknown but for its hash, see [`partial`].

mod partial;

use std::sync::{Arc, OnceLock};

use alloy::primitives::{B256, Bytes, keccak256};
use alloy::rlp::Encodable;
use alloy_trie::nodes::{BranchNodeRef, ExtensionNodeRef, LeafNodeRef, RlpNode};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieMask};

pub(crate) use self::partial::{Found, Nodes};

/// What the leaves of a trie hold.
pub(crate) trait Value: Clone + PartialEq {
    /// The bytes that the trie commits to.
    fn rlp(&self) -> Vec<u8>;

    /// The value of these bytes.
    fn from_rlp(bytes: &[u8]) -> alloy::rlp::Result<Self>;
}

/// A version of a trie.
#[derive(Debug, Clone)]
pub(crate) struct Trie<V>(Link<V>);

type Link<V> = Option<Arc<Node<V>>>;

#[derive(Debug)]
struct Node<V> {
    kind: Kind<V>,
    /// The node as its parent holds it: its encoding if that is short, or else its hash.
    reference: OnceLock<RlpNode>,
}

#[derive(Debug, Clone)]
enum Kind<V> {
    Leaf {
        path: Nibbles,
        value: V,
    },
    Extension {
        path: Nibbles,
        child: Arc<Node<V>>,
    },
    Branch([Link<V>; 16]),
    /// A node of which only the reference is known, and perhaps that it is a branch.
    Hidden {
        is_branch: bool,
    },
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self(None)
    }
}

/// A copy is made to be changed: it does not inherit the hash.
impl<V: Clone> Clone for Node<V> {
    fn clone(&self) -> Self {
        Self { kind: self.kind.clone(), reference: OnceLock::new() }
    }
}

impl<V> Kind<V> {
    fn link(self) -> Arc<Node<V>> {
        Arc::new(Node { kind: self, reference: OnceLock::new() })
    }
}

impl<V: Value> Trie<V> {
    /// Whether there is nothing in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of a key. Of what is hidden there is none: see [`Trie::find`].
    pub(crate) fn get(&self, key: &B256) -> Option<&V> {
        match self.find(key) {
            Found::Value(value) => Some(value),
            Found::Nothing | Found::Hidden => None,
        }
    }

    /// The value of a key, to be changed: this version no longer shares it with others.
    pub(crate) fn get_mut(&mut self, key: &B256) -> Option<&mut V> {
        // Without the value there is nothing to change, and no reason to copy a path.
        self.get(key)?;
        let key = Nibbles::unpack(key);
        let (mut node, mut depth) = (own(self.0.as_mut()?), 0);
        loop {
            match node {
                Kind::Leaf { value, .. } => return Some(value),
                Kind::Extension { path, child } => {
                    depth += path.len();
                    node = own(child);
                }
                Kind::Branch(children) => {
                    node = own(children[nibble(&key, depth)].as_mut()?);
                    depth += 1;
                }
                Kind::Hidden { .. } => return None,
            }
        }
    }

    /// Sets the value of a key. The way to it must be known.
    pub(crate) fn insert(&mut self, key: &B256, value: V) {
        put(&mut self.0, Nibbles::unpack(key), value);
    }

    /// Takes a key out. The way to it must be known, and what is left beside it: see [`Trie::orphan`].
    pub(crate) fn remove(&mut self, key: &B256) {
        if self.get(key).is_some() {
            self.0 = self.0.take().and_then(|root| cut(root, Nibbles::unpack(key)));
        }
    }

    /// The hash that commits to all keys and values.
    pub(crate) fn root(&self) -> B256 {
        let Some(root) = &self.0 else { return EMPTY_ROOT_HASH };
        let reference = root.reference();
        // The root is hashed even where another node would be put into its parent.
        reference.as_hash().unwrap_or_else(|| keccak256(reference))
    }

    /// The encoded nodes on the way to a key, or to the place where it would be.
    pub(crate) fn prove(&self, key: &B256) -> Vec<Bytes> {
        let key = Nibbles::unpack(key);
        let mut proof = Vec::new();
        let (mut next, mut depth) = (self.0.as_deref(), 0);
        while let Some(node) = next {
            if matches!(node.kind, Kind::Hidden { .. }) {
                break;
            }
            // A short node is part of its parent.
            if proof.is_empty() || node.reference().as_hash().is_some() {
                proof.push(node.encode().into());
            }
            next = match &node.kind {
                Kind::Leaf { .. } => None,
                Kind::Extension { path, child } => {
                    let matches = key.slice(depth..).starts_with(path);
                    depth += path.len();
                    matches.then_some(&**child)
                }
                Kind::Branch(children) => {
                    depth += 1;
                    children[nibble(&key, depth - 1)].as_deref()
                }
                Kind::Hidden { .. } => None,
            };
        }
        proof
    }

    /// Calls `tell` with the key and both values wherever this version differs from an `older` one.
    /// What they share is skipped as a whole.
    pub(crate) fn diff<'a>(
        &'a self,
        older: &'a Self,
        tell: &mut impl FnMut(B256, Option<&'a V>, Option<&'a V>),
    ) {
        let at = |link: &'a Link<V>| link.as_deref().map(|node| Cursor { node, skipped: 0 });
        diff(at(&older.0), at(&self.0), Nibbles::default(), tell);
    }
}

impl<V: Value> Node<V> {
    fn reference(&self) -> &RlpNode {
        self.reference.get_or_init(|| RlpNode::from_rlp(&self.encode()))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.kind {
            Kind::Leaf { path, value } => LeafNodeRef::new(path, &value.rlp()).encode(&mut out),
            Kind::Extension { path, child } => {
                ExtensionNodeRef::new(path, child.reference()).encode(&mut out);
            }
            Kind::Branch(children) => {
                let mut mask = TrieMask::default();
                let mut references = Vec::with_capacity(children.len());
                for (index, child) in (0..).zip(children) {
                    if let Some(child) = child {
                        mask.set_bit(index);
                        references.push(child.reference().clone());
                    }
                }
                BranchNodeRef::new(&references, mask).encode(&mut out);
            }
            // Its reference is there from the beginning, and nobody changes it.
            Kind::Hidden { .. } => {}
        }
        out
    }
}

fn nibble(path: &Nibbles, index: usize) -> usize {
    usize::from(path.get(index).unwrap_or_default())
}

/// The inside of a node, to be changed: copied if another version has it too, and without its hash.
fn own<V: Clone>(node: &mut Arc<Node<V>>) -> &mut Kind<V> {
    let node = Arc::make_mut(node);
    node.reference.take();
    &mut node.kind
}

fn put<V: Value>(link: &mut Link<V>, path: Nibbles, value: V) {
    match link {
        Some(node) => insert(node, path, value),
        None => *link = Some(Kind::Leaf { path, value }.link()),
    }
}

fn insert<V: Value>(node: &mut Arc<Node<V>>, path: Nibbles, value: V) {
    match own(node) {
        Kind::Branch(children) => put(&mut children[nibble(&path, 0)], path.slice(1..), value),
        Kind::Leaf { path: whole, value: old } if *whole == path => *old = value,
        Kind::Extension { path: prefix, child } if path.starts_with(prefix) => {
            insert(child, path.slice(prefix.len()..), value);
        }
        Kind::Hidden { .. } => debug_assert!(false, "a value behind a hash"),
        kind => *kind = fork(take(kind), &path, value),
    }
}

fn take<V>(kind: &mut Kind<V>) -> Kind<V> {
    std::mem::replace(kind, Kind::Branch(Default::default()))
}

/// Parts a leaf or an extension where the path of a new value leaves its own.
fn fork<V: Value>(old: Kind<V>, path: &Nibbles, value: V) -> Kind<V> {
    let mut children: [Link<V>; 16] = Default::default();
    let common = match old {
        Kind::Leaf { path: own, value } => {
            let common = own.common_prefix_length(path);
            let rest = own.slice(common + 1..);
            children[nibble(&own, common)] = Some(Kind::Leaf { path: rest, value }.link());
            common
        }
        Kind::Extension { path: own, child } => {
            let common = own.common_prefix_length(path);
            let rest = own.slice(common + 1..);
            children[nibble(&own, common)] = Some(join(rest, child));
            common
        }
        other @ (Kind::Branch(_) | Kind::Hidden { .. }) => return other,
    };
    let rest = path.slice(common + 1..);
    children[nibble(path, common)] = Some(Kind::Leaf { path: rest, value }.link());
    let branch = Kind::Branch(children);
    match common {
        0 => branch,
        _ => Kind::Extension { path: path.slice(..common), child: branch.link() },
    }
}

/// Puts a path in front of a node.
fn join<V: Value>(mut path: Nibbles, node: Arc<Node<V>>) -> Arc<Node<V>> {
    if path.is_empty() {
        return node;
    }
    match &node.kind {
        Kind::Branch(_) | Kind::Hidden { .. } => Kind::Extension { path, child: node }.link(),
        Kind::Leaf { path: rest, value } => {
            path.extend(rest);
            Kind::Leaf { path, value: value.clone() }.link()
        }
        Kind::Extension { path: rest, child } => {
            path.extend(rest);
            Kind::Extension { path, child: Arc::clone(child) }.link()
        }
    }
}

/// Takes out a key that is there, and closes the gap.
fn cut<V: Value>(mut node: Arc<Node<V>>, path: Nibbles) -> Link<V> {
    match take(own(&mut node)) {
        Kind::Leaf { .. } | Kind::Hidden { .. } => None,
        Kind::Extension { path: prefix, child } => {
            cut(child, path.slice(prefix.len()..)).map(|below| join(prefix, below))
        }
        Kind::Branch(mut children) => {
            let link = &mut children[nibble(&path, 0)];
            *link = link.take().and_then(|child| cut(child, path.slice(1..)));
            let mut left = (0_u8..).zip(&mut children).filter(|(_, child)| child.is_some());
            if let (Some((index, only)), None) = (left.next(), left.next()) {
                // A branch of one is no branch.
                let mut path = Nibbles::default();
                path.push(index);
                return only.take().map(|child| join(path, child));
            }
            Some(Kind::Branch(children).link())
        }
    }
}

/// A place in a trie: a node, or a point on the path that a leaf or an extension holds.
#[derive(Debug)]
struct Cursor<'a, V> {
    node: &'a Node<V>,
    skipped: usize,
}

impl<V> Clone for Cursor<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Cursor<'_, V> {}

impl<'a, V> Cursor<'a, V> {
    fn same(a: Option<Self>, b: Option<Self>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => std::ptr::eq(a.node, b.node) && a.skipped == b.skipped,
            (None, None) => true,
            _ => false,
        }
    }

    /// The value, if this is a leaf, and the rest of the way to it.
    fn leaf(self) -> Option<(Nibbles, &'a V)> {
        match &self.node.kind {
            Kind::Leaf { path, value } => Some((path.slice(self.skipped..), value)),
            _ => None,
        }
    }

    fn child(self, index: usize) -> Option<Self> {
        match &self.node.kind {
            Kind::Hidden { .. } => None,
            Kind::Branch(children) => {
                children[index].as_deref().map(|node| Self { node, skipped: 0 })
            }
            Kind::Leaf { path, .. } => {
                (nibble(path, self.skipped) == index).then_some(self.skip(path.len()))
            }
            Kind::Extension { path, child } => {
                if nibble(path, self.skipped) != index {
                    return None;
                }
                let at_end = self.skipped + 1 == path.len();
                Some(if at_end { Self { node: child, skipped: 0 } } else { self.skip(path.len()) })
            }
        }
    }

    fn skip(self, len: usize) -> Self {
        Self { node: self.node, skipped: (self.skipped + 1).min(len) }
    }
}

fn diff<'a, V: Value>(
    older: Option<Cursor<'a, V>>,
    newer: Option<Cursor<'a, V>>,
    path: Nibbles,
    tell: &mut impl FnMut(B256, Option<&'a V>, Option<&'a V>),
) {
    if Cursor::same(older, newer) {
        return;
    }
    let old_leaf = older.map(Cursor::leaf);
    let new_leaf = newer.map(Cursor::leaf);
    let key = |rest: &Nibbles| B256::from_slice(&path.join(rest).pack());
    match (old_leaf, new_leaf) {
        (Some(Some((a, old))), Some(Some((b, new)))) if a == b => {
            if old != new {
                tell(key(&a), Some(old), Some(new));
            }
        }
        // Leaves on their own need no step for each nibble.
        (None | Some(Some(_)), None | Some(Some(_))) => {
            if let Some(Some((rest, old))) = old_leaf {
                tell(key(&rest), Some(old), None);
            }
            if let Some(Some((rest, new))) = new_leaf {
                tell(key(&rest), None, Some(new));
            }
        }
        _ => {
            for index in 0_u8..16 {
                let below = |at: Option<Cursor<'a, V>>| at.and_then(|at| at.child(index.into()));
                let mut path = path;
                path.push(index);
                diff(below(older), below(newer), path, tell);
            }
        }
    }
}
