//! A limit a minute: what is left fills up evenly. No clock of its own.

/// The time over which limits are counted.
const MINUTE_MS: u64 = 60_000;

/// Why nothing can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// So much is there after this time.
    Wait {
        /// Milliseconds.
        ms: u64,
    },
    /// It is more than the limit.
    Never,
}

/// What is left of a limit. A part of a minute fills in a part of the limit, so that it is counted in 60,000ths.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    limit: u64,
    left: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(limit: u32, now_ms: u64) -> Self {
        let limit = u64::from(limit);
        Self { limit, left: limit * MINUTE_MS, at_ms: now_ms }
    }

    /// Takes so many.
    ///
    /// # Errors
    /// If there are not so many; nothing is taken then.
    pub fn take(&mut self, count: u64, now_ms: u64) -> Result<(), Refused> {
        if count > self.limit {
            return Err(Refused::Never);
        }
        let passed = now_ms.saturating_sub(self.at_ms).min(MINUTE_MS);
        self.at_ms = self.at_ms.max(now_ms);
        self.fill(passed * self.limit);
        let wanted = count * MINUTE_MS;
        match self.left.checked_sub(wanted) {
            Some(left) => self.left = left,
            None => return Err(Refused::Wait { ms: (wanted - self.left).div_ceil(self.limit) }),
        }
        Ok(())
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, count: u64) {
        self.fill(count.saturating_mul(MINUTE_MS));
    }

    fn fill(&mut self, with: u64) {
        self.left = self.left.saturating_add(with).min(self.limit * MINUTE_MS);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_fills_up_evenly() {
        let mut bucket = Bucket::new(6, 1000);
        for _ in 0..6 {
            assert_eq!(bucket.take(1, 1000), Ok(()));
        }
        assert_eq!(bucket.take(1, 1000), Err(Refused::Wait { ms: 10_000 }));
        assert_eq!(bucket.take(1, 10_999), Err(Refused::Wait { ms: 1 }));
        assert_eq!(bucket.take(1, 11_000), Ok(()));
        assert_eq!(bucket.take(7, u64::MAX), Err(Refused::Never));
        bucket.give_back(100);
        assert_eq!(bucket.take(6, 11_000), Ok(()));
        assert_eq!(bucket.take(1, 5), Err(Refused::Wait { ms: 10_000 }), "clocks may go back");
    }

    proptest! {
        /// In any minute at most twice the limit is taken: what was there, and what came since.
        #[test]
        fn no_minute_has_more_than_the_limit_twice(
            limit in 1_u32..50,
            steps in prop::collection::vec((0_u64..5_000, 1_u64..5), 1..200),
        ) {
            let (mut bucket, mut now, mut taken) = (Bucket::new(limit, 0), 0, Vec::new());
            for (pause, count) in steps {
                now += pause;
                if bucket.take(count, now).is_ok() {
                    taken.push((now, count));
                }
            }
            for (end, _) in &taken {
                let within = taken.iter().filter(|(at, _)| at <= end && end - at < MINUTE_MS);
                prop_assert!(within.map(|(_, count)| count).sum::<u64>() <= 2 * u64::from(limit));
            }
        }
    }
}
