//! The prefix cache: keys and values of sequences that ended, found again by their tokens.
//!
//! A tree of pages (chunks of the cache): a node holds the tokens of one page and the page, its children what came
//! next. The last page of a text may be part full; it has no children. Tokens are compared one by one, so no two
//! prefixes are confused, and each realm has a tree of its own: keys and values of one adapter are never another's.

use std::collections::HashMap;

use tern_kernels::{Cache, Chunk};

const PAGE: usize = Cache::CHUNK;
/// Fewer tokens than this of a page are computed again: a page would have to be copied for them.
const WORTH_A_COPY: usize = 8;

/// Who may share prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Realm {
    pub(super) salt: u64,
    /// The adapter's id; 0 for the model alone.
    pub(super) adapter: u64,
}

#[derive(Debug, Default)]
pub(super) struct Prefixes {
    nodes: Vec<Option<Node>>,
    roots: HashMap<Realm, Vec<usize>>,
    clock: u64,
}

#[derive(Debug)]
struct Node {
    realm: Realm,
    parent: Option<usize>,
    /// At most a page of them.
    tokens: Vec<u32>,
    page: Chunk,
    children: Vec<usize>,
    /// The clock when it was last found or left.
    used: u64,
}

impl Prefixes {
    /// The longest known beginning of these tokens: how many, and their pages.
    pub(super) fn find(&mut self, realm: Realm, tokens: &[u32]) -> (usize, Vec<Chunk>) {
        self.clock += 1;
        let (mut found, mut pages, mut parent) = (0, Vec::new(), None);
        while let Some((node, common)) = self.best_child(realm, parent, &tokens[found..]) {
            if common < WORTH_A_COPY {
                break;
            }
            let clock = self.clock;
            let node_ref = self.node_mut(node);
            node_ref.used = clock;
            pages.push(node_ref.page.clone());
            found += common;
            if common < PAGE {
                break;
            }
            parent = Some(node);
        }
        (found, pages)
    }

    /// Keeps the pages of these tokens.
    pub(super) fn leave(&mut self, realm: Realm, tokens: &[u32], pages: &[Chunk]) {
        self.clock += 1;
        let mut parent = None;
        for (tokens, page) in tokens.chunks(PAGE).zip(pages) {
            let best = self.best_child(realm, parent, tokens);
            let clock = self.clock;
            let node = match best {
                // Known already, or the beginning of what is known.
                Some((node, common)) if common == tokens.len() => node,
                // The node grows: it was a part of this page.
                Some((node, common)) if common == self.node(node).tokens.len() => {
                    let grown = self.node_mut(node);
                    grown.tokens = tokens.to_vec();
                    grown.page = page.clone();
                    node
                }
                _ => {
                    let (tokens, page) = (tokens.to_vec(), page.clone());
                    self.add(Node { realm, parent, tokens, page, children: Vec::new(), used: clock })
                }
            };
            self.node_mut(node).used = clock;
            parent = Some(node);
        }
    }

    /// Evicts the least recently used page; `false` if all are in use.
    pub(super) fn evict(&mut self) -> bool {
        let leaf = |node: &Node| node.children.is_empty() && node.page.is_unshared();
        let nodes = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.as_ref()?)));
        let Some((oldest, _)) = nodes.filter(|(_, node)| leaf(node)).min_by_key(|(_, node)| node.used) else {
            return false;
        };
        let Some(node) = self.nodes[oldest].take() else { return false };
        let siblings = match node.parent {
            Some(parent) => &mut self.node_mut(parent).children,
            None => self.roots.entry(node.realm).or_default(),
        };
        siblings.retain(|&child| child != oldest);
        if siblings.is_empty() && node.parent.is_none() {
            self.roots.remove(&node.realm);
        }
        true
    }

    /// Pages that could be evicted: no sequence shares them.
    pub(super) fn idle(&self) -> usize {
        self.nodes.iter().flatten().filter(|node| node.page.is_unshared()).count()
    }

    /// The child that shares most tokens with the beginning of these, and how many.
    fn best_child(&self, realm: Realm, parent: Option<usize>, tokens: &[u32]) -> Option<(usize, usize)> {
        let children = match parent {
            Some(parent) => &self.node(parent).children,
            None => self.roots.get(&realm)?,
        };
        let with_common = |&child: &usize| (child, common(&self.node(child).tokens, tokens));
        children.iter().map(with_common).filter(|(_, common)| *common > 0).max_by_key(|(_, common)| *common)
    }

    fn add(&mut self, node: Node) -> usize {
        let (realm, parent) = (node.realm, node.parent);
        let at = match self.nodes.iter().position(Option::is_none) {
            Some(free) => {
                self.nodes[free] = Some(node);
                free
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        };
        match parent {
            Some(parent) => self.node_mut(parent).children.push(at),
            None => self.roots.entry(realm).or_default().push(at),
        }
        at
    }

    fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().expect("links lead to nodes")
    }

    fn node_mut(&mut self, at: usize) -> &mut Node {
        self.nodes[at].as_mut().expect("links lead to nodes")
    }
}

/// How many tokens two texts have in common at their beginning.
pub(super) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_kernels::{ChunkCount, KvFormat};

    fn of(salt: u64) -> Realm {
        Realm { salt, adapter: 0 }
    }

    /// Pages for so many tokens, as a sequence would have them.
    fn pages(count: &ChunkCount, tokens: usize) -> Vec<Chunk> {
        let mut cache = Cache::new(KvFormat::INT8, 1, 1, 2).counted(count);
        cache.reserve(0, tokens).unwrap();
        cache.chunks().to_vec()
    }

    fn text(len: usize, last: u32) -> Vec<u32> {
        (0..len as u32 - 1).chain([last]).collect()
    }

    #[test]
    fn texts_are_found_by_their_beginning_and_in_their_realm_only() {
        let (mut tree, count) = (Prefixes::default(), ChunkCount::default());
        let first = text(600, 9999);
        tree.leave(of(1), &first, &pages(&count, 600));
        assert_eq!(count.get(), 3);
        assert_eq!(tree.find(of(2), &first).0, 0);
        assert_eq!(tree.find(Realm { adapter: 1, ..of(1) }, &first).0, 0);
        for len in [8, 256, 257 + 8, 599, 600] {
            let (found, pages) = tree.find(of(1), &first[..len]);
            assert_eq!((found, pages.len()), (len, len.div_ceil(256)));
        }
        assert_eq!(tree.find(of(1), &first[..7]).0, 0, "not worth a copy");
        let mut other = text(600, 7);
        assert_eq!(tree.find(of(1), &other).0, 599);
        other[300] = 0;
        assert_eq!(tree.find(of(1), &other).0, 300);
        other[0] = 5;
        assert_eq!(tree.find(of(1), &other).0, 0);
    }

    #[test]
    fn a_growing_text_replaces_its_last_page_and_others_branch_off() {
        let (mut tree, count) = (Prefixes::default(), ChunkCount::default());
        let long = text(700, 1);
        for len in [100, 300, 280, 700] {
            tree.leave(of(0), &long[..len], &pages(&count, len));
        }
        assert_eq!((count.get(), tree.idle()), (3, 3));
        let mut branch = long[..520].to_vec();
        branch[400] = 0;
        tree.leave(of(0), &branch, &pages(&count, 520));
        assert_eq!(count.get(), 5, "the first page is shared");
        assert_eq!((tree.find(of(0), &branch).0, tree.find(of(0), &long).0), (520, 700));
    }

    #[test]
    fn the_longest_unused_leaf_that_nobody_holds_goes_first() {
        let (mut tree, count) = (Prefixes::default(), ChunkCount::default());
        let (a, b) = (text(300, 1), vec![7; 300]);
        tree.leave(of(0), &a, &pages(&count, 300));
        tree.leave(of(0), &b, &pages(&count, 300));
        let (found, held) = tree.find(of(0), &a);
        assert_eq!((found, tree.idle()), (300, 2));
        assert!(tree.evict() && tree.evict(), "b's pages, the last one first");
        assert!(!tree.evict(), "a's are held");
        assert_eq!((tree.find(of(0), &b).0, count.get()), (0, 2));
        drop(held);
        assert!(tree.evict() && tree.evict() && !tree.evict());
        assert_eq!(count.get(), 0);
        assert!(tree.roots.is_empty());
    }
}
