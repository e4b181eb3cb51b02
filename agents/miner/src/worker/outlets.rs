//! The outlets of a node: of what runs, and for a while of what has ended, so that a router whose
//! connection dropped at the wrong moment still gets the end.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use assay_types::{B256, TaskId};

use super::{LinkRef, Outlet};

/// Ended tasks that are kept: several connections' worth of a node of eight places.
const MAX_ENDED: usize = 64;
/// Bytes of ended tasks that are kept: a few of the largest answers, or all of ordinary ones.
const MAX_ENDED_BYTES: usize = 16 << 20;

/// Why a task cannot be resumed: a stable code, and what to do.
pub(crate) type NotResumed = (&'static str, &'static str);

/// Outlets by task. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlets(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    by_task: HashMap<TaskId, Outlet>,
    /// Oldest first, with the size of each.
    ended: VecDeque<(TaskId, usize)>,
    ended_bytes: usize,
}

impl Outlets {
    /// The outlet of a task that begins.
    pub(crate) fn open(
        &self,
        task: TaskId,
        request_digest: B256,
        link: Option<LinkRef>,
        stream: bool,
    ) -> Outlet {
        let outlet = Outlet::new(task, request_digest, link, stream);
        let mut shelf = self.lock();
        shelf.forget(task);
        shelf.by_task.insert(task, outlet.clone());
        outlet
    }

    /// The task has ended: its router may still come back for what it missed.
    pub(crate) fn retire(&self, outlet: &Outlet) {
        let (task, size) = (outlet.task(), outlet.size());
        let mut shelf = self.lock();
        shelf.ended.push_back((task, size));
        shelf.ended_bytes += size;
        while shelf.ended.len() > MAX_ENDED || shelf.ended_bytes > MAX_ENDED_BYTES {
            let Some((oldest, _)) = shelf.ended.front().copied() else { return };
            shelf.forget(oldest);
        }
    }

    /// `link`'s router has the first `seq` tokens of a task of its own.
    ///
    /// # Errors
    /// If the node does not have the task, or never made those tokens.
    pub(crate) fn resume(&self, task: TaskId, link: LinkRef, seq: u32) -> Result<(), NotResumed> {
        let Some(outlet) = self.get(task).filter(|outlet| outlet.belongs_to(link.router)) else {
            return Err((
                "unknown_task",
                "this node does not have the task: it was restarted, or the task ended long ago",
            ));
        };
        if outlet.resume(link, seq) {
            return Ok(());
        }
        Err(("bad_seq", "this node has not streamed so many tokens: resume from those that came"))
    }

    /// The outlet of a task that runs, or ended not long ago.
    pub(crate) fn get(&self, task: TaskId) -> Option<Outlet> {
        self.lock().by_task.get(&task).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn forget(&mut self, task: TaskId) {
        self.by_task.remove(&task);
        if let Some(place) = self.ended.iter().position(|(ended, _)| *ended == task)
            && let Some((_, size)) = self.ended.remove(place)
        {
            self.ended_bytes -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_types::Address;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;

    impl Outlets {
        fn count(&self) -> usize {
            self.lock().by_task.len()
        }
    }

    fn task(n: usize) -> TaskId {
        TaskId(B256::left_padding_from(&n.to_be_bytes()))
    }

    fn link(router: u8) -> LinkRef {
        LinkRef::new(Address::repeat_byte(router), mpsc::channel(1).0, CancellationToken::new())
    }

    #[test]
    fn a_task_is_resumed_by_its_own_router_alone() {
        let outlets = Outlets::default();
        let outlet = outlets.open(task(1), B256::ZERO, Some(link(1)), true);
        outlet.token(5, "x", None);
        let code = |n, router, seq| outlets.resume(task(n), link(router), seq).map_err(|e| e.0);
        assert_eq!(code(1, 2, 0), Err("unknown_task"));
        assert_eq!(code(2, 1, 0), Err("unknown_task"));
        assert_eq!(code(1, 1, 2), Err("bad_seq"));
        assert_eq!(code(1, 1, 1), Ok(()));
        // A task of the chain is nobody's yet.
        outlets.open(task(3), B256::ZERO, None, true);
        assert_eq!(code(3, 1, 0), Err("unknown_task"));
    }

    #[test]
    fn ended_tasks_are_bounded_in_number_and_bytes() {
        let outlets = Outlets::default();
        for n in 0..3 * MAX_ENDED {
            let outlet = outlets.open(task(n), B256::ZERO, Some(link(1)), true);
            outlets.retire(&outlet);
        }
        assert_eq!(outlets.count(), MAX_ENDED);
        assert!(outlets.resume(task(3 * MAX_ENDED - 1), link(1), 0).is_ok());
        assert!(outlets.resume(task(0), link(1), 0).is_err());
        let text = "x".repeat(MAX_ENDED_BYTES / 4);
        for n in 0..8 {
            let outlet = outlets.open(task(n), B256::ZERO, Some(link(1)), true);
            outlet.token(1, &text, None);
            outlets.retire(&outlet);
            assert!(outlets.lock().ended_bytes <= MAX_ENDED_BYTES);
        }
        let (known, ended) = (outlets.count(), outlets.lock().ended.len());
        assert_eq!(known, ended);
        // One that begins again is not counted among the ended.
        outlets.open(task(7), B256::ZERO, Some(link(1)), true);
        let shelf = outlets.lock();
        assert_eq!(shelf.ended.iter().map(|(_, size)| size).sum::<usize>(), shelf.ended_bytes);
        assert_eq!(shelf.by_task.len(), shelf.ended.len() + 1);
    }
}
