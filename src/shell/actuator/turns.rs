//! Whose turn it is to evict: `eviction.rate`, and how many requests are under way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Evictions under way at once, in the whole cluster.
const UNDER_WAY_MAX: usize = 64;
/// What the rate is about.
const SECOND: Duration = Duration::from_secs(1);

/// Hands out turns, first come, first served; but who may spare some waits behind who may not.
///
/// The API server receives at most so many evictions within *any* second: a request counts until a second
/// after its answer, since how long it was on its way is not known.
#[derive(Debug)]
pub(super) struct Turns {
    per_second: usize,
    /// Who waits longest holds it, and looks whether it may go.
    queue: tokio::sync::Mutex<()>,
    /// The same for those who leave some to others.
    sparing: tokio::sync::Mutex<()>,
    book: Mutex<Book>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Book {
    /// Turns that are in use.
    under_way: usize,
    /// When those used within the last second were over, oldest first.
    over: VecDeque<Instant>,
    not_before: Option<Instant>,
}

/// A turn: at most one request, sent while it is held.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    used: bool,
}

impl Turn {
    /// Notes that the request is being sent; a turn that is dropped without it goes to somebody else.
    pub(super) fn send(&mut self) {
        self.used = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut book = self.turns.book();
        book.under_way -= 1;
        if self.used {
            book.over.push_back(Instant::now());
        }
        drop(book);
        self.turns.changed.notify_waiters();
    }
}

impl Turns {
    /// So many a second, at least one.
    pub(super) fn per_second(turns: u32) -> Self {
        Self {
            per_second: usize::try_from(turns).unwrap_or(usize::MAX).max(1),
            queue: tokio::sync::Mutex::default(),
            sparing: tokio::sync::Mutex::default(),
            book: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits for one's turn. Whoever stops waiting loses nothing but the place in the queue. With `spare`, so
    /// many stay free behind it, a third of all at most: for requests whose moment comes later, and that
    /// others wait for.
    pub(super) async fn turn(self: Arc<Self>, spare: usize) -> Turn {
        let spare = spare.min(self.per_second / 3);
        let queue = if spare == 0 {
            &self.queue
        } else {
            &self.sparing
        };
        let _first = queue.lock().await;
        loop {
            // From here on nothing that changes is missed.
            let changed = self.changed.notified();
            let free_at = match self.take(spare) {
                Ok(()) => break,
                Err(free_at) => free_at,
            };
            match free_at {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
        Turn {
            turns: Arc::clone(&self),
            used: false,
        }
    }

    /// Whether an eviction is under way, or was within the last second.
    pub(super) fn in_use(&self) -> bool {
        let now = Instant::now();
        let book = self.book();
        let last = book.over.back();
        book.under_way > 0 || last.is_some_and(|at| now < *at + SECOND)
    }

    /// Gives no turn for so long, because a server asked for quiet.
    pub(super) fn quiet(&self, lasting: Duration) {
        let until = Instant::now() + lasting;
        let mut book = self.book();
        book.not_before = book.not_before.max(Some(until));
    }

    /// Takes a turn, or says when one is free if nobody gives one back before.
    fn take(&self, spare: usize) -> Result<(), Option<Instant>> {
        let now = Instant::now();
        let mut book = self.book();
        while book.over.front().is_some_and(|at| *at + SECOND <= now) {
            book.over.pop_front();
        }
        if let Some(until) = book.not_before.filter(|until| *until > now) {
            return Err(Some(until));
        }
        if book.under_way >= UNDER_WAY_MAX {
            return Err(None);
        }
        let used = book.under_way + book.over.len();
        if used + spare >= self.per_second {
            // When so many of those that are over do not count any more that one is free.
            let excess = used + spare - self.per_second;
            return Err(book.over.get(excess).map(|at| *at + SECOND));
        }
        book.under_way += 1;
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_allowed_however_long_each_request_takes() {
        let turns = Arc::new(Turns::per_second(20));
        let mut sent = Vec::new();
        for n in 0..100 {
            let mut turn = Arc::clone(&turns).turn(0).await;
            turn.send();
            // It arrives at any time until it is answered.
            let arrives = Duration::from_millis(n * 37 % 90);
            let answered = arrives + Duration::from_millis(n % 13);
            sent.push(Instant::now() + arrives);
            tokio::spawn(async move {
                tokio::time::sleep(answered).await;
                drop(turn);
            });
        }
        sent.sort();
        for (at, later) in sent.iter().zip(&sent[20..]) {
            assert!(*later - *at >= SECOND, "{at:?} {later:?}");
        }
        // And not much slower than allowed: four times a second and the time of an answer.
        assert!(sent[99] - sent[0] < Duration::from_millis(4600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_not_used_is_free_again_at_once() {
        let turns = Arc::new(Turns::per_second(1));
        let start = Instant::now();
        for _ in 0..10 {
            drop(Arc::clone(&turns).turn(0).await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        // So is one that is held by whoever stops waiting.
        let held = Arc::clone(&turns).turn(0).await;
        let waits = tokio::spawn(Arc::clone(&turns).turn(0));
        tokio::task::yield_now().await;
        waits.abort();
        drop(held);
        drop(Arc::clone(&turns).turn(0).await);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_holds_all_and_so_many_are_under_way_at_most() {
        let turns = Arc::new(Turns::per_second(1000));
        let start = Instant::now();
        turns.quiet(Duration::from_secs(10));
        let mut held = vec![Arc::clone(&turns).turn(0).await];
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        for _ in 1..UNDER_WAY_MAX {
            held.push(Arc::clone(&turns).turn(0).await);
        }
        let next = tokio::spawn(Arc::clone(&turns).turn(0));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!next.is_finished());
        held.pop();
        next.await.expect("it has its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn who_spares_some_leaves_them_to_those_whose_moment_comes() {
        let turns = Arc::new(Turns::per_second(20));
        let start = Instant::now();
        let take = async |spare| Arc::clone(&turns).turn(spare).await.send();
        for _ in 0..14 {
            take(12).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        // A third is left, and one who spares does not stand in the way of one who does not.
        let waits = tokio::spawn(Arc::clone(&turns).turn(12));
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(!waits.is_finished());
        for _ in 0..6 {
            take(0).await;
        }
        assert_eq!(start.elapsed(), Duration::from_millis(400));
        waits.await.expect("it has its turn").send();
        assert_eq!(
            start.elapsed(),
            SECOND,
            "fourteen are free again, and six of them are spared"
        );
        // Spared or not: twenty within any second.
        let mut left = 0;
        while tokio::time::timeout(Duration::ZERO, take(0)).await.is_ok() {
            left += 1;
        }
        assert_eq!(left, 13);
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_in_use_from_a_request_until_a_second_after_its_answer() {
        let turns = Arc::new(Turns::per_second(2));
        assert!(!turns.in_use());
        let mut turn = Arc::clone(&turns).turn(0).await;
        turn.send();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(turns.in_use(), "the answer is not there yet");
        drop(turn);
        tokio::time::advance(SECOND - Duration::from_millis(1)).await;
        assert!(turns.in_use());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!turns.in_use());
        drop(Arc::clone(&turns).turn(0).await);
        assert!(!turns.in_use(), "a turn that was given back is no request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_of_nothing_is_one_a_second() {
        let turns = Arc::new(Turns::per_second(0));
        let start = Instant::now();
        for _ in 0..2 {
            Arc::clone(&turns).turn(0).await.send();
        }
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
