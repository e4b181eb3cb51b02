//! What a lane, or an API key, may still spend, and the nonces of a lane's tasks.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use assay_types::{Nonce, TaskId};

/// What one task takes of its lane's allotment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Held until the task settles, minor units.
    pub amount: u128,
    /// Unix seconds.
    pub deadline: u64,
    /// Whether the chain has the task; one that it never saw costs nothing after its deadline.
    pub on_chain: bool,
}

/// One lane's money and nonces, or one key's money.
#[derive(Debug, Default)]
pub(super) struct Purse {
    /// Fees of tasks that are settled, and tips of those that were refunded.
    pub spent: u128,
    open: HashMap<TaskId, Charge>,
    /// Sum of `open`.
    held: u128,
    /// Deadlines of open tasks that the chain did not have when they were charged, the earliest first: every request
    /// asks what is left, and must not walk over all tasks for it.
    unseen: BinaryHeap<Reverse<(u64, TaskId)>>,
    nonces: VecDeque<(u64, u64)>,
    /// One more than the largest nonce that the chain has.
    pub next_on_chain: u64,
    pub unpaid_until_s: u64,
}

impl Purse {
    /// What is left of an allotment. Tasks that the chain never saw and never will are put into `gone`.
    pub fn left(&mut self, allotment: u128, now_s: u64, gone: &mut Vec<TaskId>) -> u128 {
        if self.unpaid_until_s > now_s {
            return 0;
        }
        while let Some(Reverse((deadline, task))) = self.unseen.peek().copied()
            && deadline < now_s
        {
            self.unseen.pop();
            let is_over = |c: &Charge| !c.on_chain && c.deadline < now_s;
            if self.open.get(&task).is_some_and(is_over) {
                self.remove(&task);
                gone.push(task);
            }
        }
        allotment.saturating_sub(self.spent.saturating_add(self.held))
    }

    /// Counts a task, or counts it anew.
    pub fn insert(&mut self, task: TaskId, charge: Charge) {
        self.remove(&task);
        // Amounts are of 128 bits where the contract's have 96: their sum has room.
        self.held = self.held.saturating_add(charge.amount);
        if !charge.on_chain {
            self.unseen.push(Reverse((charge.deadline, task)));
        }
        self.open.insert(task, charge);
    }

    /// Counts a task as the database has it; one that is final stays spent.
    pub fn take_in(&mut self, task: TaskId, charge: Charge, is_final: bool) {
        if is_final {
            self.spent = self.spent.saturating_add(charge.amount);
        } else {
            self.insert(task, charge);
        }
    }

    /// Open tasks that the chain has not shown yet.
    pub fn unseen(&self) -> impl Iterator<Item = (TaskId, Charge)> {
        self.open
            .iter()
            .filter(|(_, charge)| !charge.on_chain)
            .map(|(task, charge)| (*task, *charge))
    }

    /// Whether no task is open.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// What an open task takes.
    pub fn charge(&self, task: &TaskId) -> Option<&Charge> {
        self.open.get(task)
    }

    /// Counts a task no more; whether it was counted.
    pub fn remove(&mut self, task: &TaskId) -> bool {
        let removed = self.open.remove(task);
        self.held = self.held.saturating_sub(removed.map_or(0, |charge| charge.amount));
        removed.is_some()
    }

    /// Counts nothing.
    pub fn clear(&mut self) {
        self.open.clear();
        self.unseen.clear();
        (self.held, self.spent) = (0, 0);
    }

    /// The next nonce, and how many are left after it.
    pub fn take_nonce(&mut self) -> Option<(Nonce, u64)> {
        let (next, end) = self.nonces.front_mut()?;
        let nonce = *next;
        *next += 1;
        if next == end {
            self.nonces.pop_front();
        }
        let left = self.nonces.iter().map(|(next, end)| end - next).sum();
        Some((Nonce(nonce), left))
    }

    /// Nonces from `start` up to before `end` are this process's own.
    pub fn give_nonces(&mut self, start: u64, end: u64) {
        match self.nonces.back_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if start < end => self.nonces.push_back((start, end)),
            _ => {}
        }
    }

    /// Nonces that were never used: the first, and the end, of the last range.
    pub fn unused_nonces(&mut self) -> Option<(u64, u64)> {
        self.nonces.drain(..).next_back()
    }

    /// Another life of the router used nonces below `first`.
    pub fn skip_to(&mut self, first: u64) {
        let used_here = self.nonces.front().is_some_and(|(next, _)| *next >= first);
        if !used_here {
            for range in &mut self.nonces {
                range.0 = range.0.max(first.min(range.1));
            }
            self.nonces.retain(|(next, end)| next < end);
        }
    }
}
