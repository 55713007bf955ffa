//! Work that is done ahead of its turn, on a pool.
//!
//! In: items in their order, and what to do with each. Out: the results in the same order.
//! Invariant: a bounded number of results are under way or wait to be taken.

use rayon::Scope;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};

pub struct Ahead<'s, 'scope, I, W, T> {
    scope: &'s Scope<'scope>,
    items: I,
    work: &'scope W,
    results: VecDeque<Receiver<T>>,
    most: usize,
}

impl<'s, 'scope, I, W, T> Ahead<'s, 'scope, I, W, T>
where
    I: Iterator<Item: Send + 'scope>,
    W: Fn(I::Item) -> T + Sync,
    T: Send + 'scope,
{
    /// Starts on the first `most` items.
    pub fn new(scope: &'s Scope<'scope>, items: I, work: &'scope W, most: usize) -> Self {
        let mut ahead = Ahead { scope, items, work, results: VecDeque::new(), most };
        ahead.fill();
        ahead
    }

    fn fill(&mut self) {
        while self.results.len() < self.most
            && let Some(item) = self.items.next()
        {
            let (send, receive) = sync_channel(1);
            let work = self.work;
            // Nobody waits for the result when the run has failed meanwhile.
            self.scope.spawn(move |_| drop(send.send(work(item))));
            self.results.push_back(receive);
        }
    }

    /// The next result, once it is there; none behind the last.
    pub fn take_next(&mut self) -> Option<T> {
        let result = self.results.pop_front()?.recv().expect("a panic of a worker ends the scope");
        self.fill();
        Some(result)
    }
}
