//! Whose turn it is: of the keys that wait, each in its turn, however many requests it has. No IO, no clock.

use std::collections::VecDeque;

/// What waits, by key; those without one are together.
#[derive(Debug)]
pub struct Turns<T> {
    /// The key whose turn is next comes first.
    keys: VecDeque<(Option<String>, VecDeque<T>)>,
    len: usize,
    limit: usize,
}

impl<T> Turns<T> {
    /// Room for so many.
    pub fn new(limit: usize) -> Self {
        Self { keys: VecDeque::new(), len: 0, limit }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Waits from now on. Where the room is full, the newest of the key that has most in it has to leave, if that is not
    /// this one; whether there is room.
    pub fn join(&mut self, key: Option<&str>, entry: T) -> bool {
        let mine = self.queue(key).map_or(0, |queue| queue.len());
        if self.len >= self.limit {
            let most = self.keys.iter_mut().map(|(_, queue)| queue).max_by_key(|queue| queue.len());
            let Some(most) = most.filter(|most| most.len() > mine + 1) else { return false };
            most.pop_back();
            self.len -= 1;
        }
        self.len += 1;
        match self.queue(key) {
            Some(queue) => queue.push_back(entry),
            None => self.keys.push_back((key.map(str::to_owned), VecDeque::from([entry]))),
        }
        true
    }

    fn queue(&mut self, key: Option<&str>) -> Option<&mut VecDeque<T>> {
        let of_key = |(other, _): &&mut (Option<String>, VecDeque<T>)| other.as_deref() == key;
        self.keys.iter_mut().find(of_key).map(|(_, queue)| queue)
    }

    /// Lets those go that do not wait any more.
    pub fn retain(&mut self, waits: impl Fn(&T) -> bool) {
        for (_, queue) in &mut self.keys {
            queue.retain(&waits);
        }
        self.keys.retain(|(_, queue)| !queue.is_empty());
        self.len = self.keys.iter().map(|(_, queue)| queue.len()).sum();
    }

    /// Gives turns until nobody can be served: of each key the oldest that can be.
    pub fn give(&mut self, mut serve: impl FnMut(&mut T) -> bool) {
        let mut passed = 0;
        while passed < self.keys.len()
            && let Some((key, mut queue)) = self.keys.pop_front()
        {
            match queue.iter_mut().position(&mut serve) {
                Some(served) => {
                    queue.remove(served);
                    self.len -= 1;
                    passed = 0;
                }
                None => passed += 1,
            }
            if !queue.is_empty() {
                self.keys.push_back((key, queue));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves so many of what waits.
    fn served(turns: &mut Turns<&'static str>, count: usize) -> Vec<&'static str> {
        let mut served = Vec::new();
        turns.give(|entry| {
            let is_room = served.len() < count;
            if is_room {
                served.push(*entry);
            }
            is_room
        });
        served
    }

    #[test]
    fn a_key_with_many_requests_does_not_delay_others() {
        let mut turns = Turns::new(10);
        for (key, entry) in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2")] {
            assert!(turns.join(Some(key), entry));
        }
        assert!(turns.join(None, "open"));
        assert_eq!(served(&mut turns, 2), ["a1", "b1"]);
        assert_eq!(served(&mut turns, 0), Vec::<&str>::new(), "nobody loses a turn");
        assert_eq!(served(&mut turns, 9), ["open", "a2", "b2", "a3"]);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_cannot_be_served_now_does_not_block_the_rest() {
        let mut turns = Turns::new(10);
        for entry in ["stuck", "a1", "a2"] {
            assert!(turns.join(Some("a"), entry));
        }
        let mut served = Vec::new();
        turns.give(|entry| {
            let can = *entry != "stuck";
            served.extend(can.then_some(*entry));
            can
        });
        assert_eq!(served, ["a1", "a2"]);
        assert!(!turns.is_empty());
        turns.retain(|entry| *entry != "stuck");
        assert!(turns.is_empty());
    }

    #[test]
    fn a_full_room_is_shared() {
        let mut turns = Turns::new(4);
        for entry in ["a1", "a2", "a3", "a4"] {
            assert!(turns.join(Some("a"), entry));
        }
        assert!(!turns.join(Some("a"), "a5"));
        assert!(turns.join(Some("b"), "b1"));
        assert!(turns.join(Some("b"), "b2"));
        assert!(!turns.join(Some("b"), "b3"), "each has half");
        assert_eq!(served(&mut turns, 9), ["a1", "b1", "a2", "b2"]);
    }
}
