//! A reader that looks at a lake over and over while something happens to it.
//!
//! In: a lake, the states that may be seen. Out: how often it looked.
//! Invariant: a state that is neither the one before nor the one after fails the test.

use pennymill::domain::category::Categories;
use pennymill::input::published::read_groups;
use pennymill::output::lake::{Lake, MONTHLY_SPENDING};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Cents and transactions by (month, user, category), as a reader of the newest version sees them.
pub type State = BTreeMap<(String, u64, String), (i64, u64)>;

/// What the newest version of a lake says; nothing, where nothing was published.
pub fn state(lake: &str) -> State {
    let (mut state, categories) = (State::new(), Categories::builtin());
    let lake = Lake::open(lake).unwrap();
    let Some(table) = lake.table(MONTHLY_SPENDING).unwrap() else { return state };
    for part in table.files().unwrap() {
        let bytes = lake.place.child(MONTHLY_SPENDING).child(&part.path).read().unwrap();
        for group in read_groups(bytes, &categories, &part.path).unwrap() {
            let month = part.month.unwrap().to_string();
            let key = (month, group.user_id, categories.code(group.category).to_string());
            let before = state.insert(key, (group.amount_cents, group.transaction_count));
            assert!(before.is_none(), "a group is published twice");
        }
    }
    state
}

/// A reader at work.
pub struct Watch {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<usize>,
}

impl Watch {
    /// Starts to look. Every state it sees has to be one of these.
    pub fn start(lake: &str, allowed: Vec<State>) -> Watch {
        Watch::start_with(lake, move |seen| allowed.contains(seen))
    }

    /// Starts to look. `is_allowed` judges every state it sees, in the order in which it sees them.
    pub fn start_with(lake: &str, is_allowed: impl Fn(&State) -> bool + Send + 'static) -> Watch {
        let (stop, lake) = (Arc::new(AtomicBool::new(false)), lake.to_string());
        let stopped = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            let mut reads = 0;
            while !stopped.load(Ordering::Relaxed) {
                assert!(is_allowed(&state(&lake)), "a reader sees a state that nobody published");
                reads += 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            reads
        });
        Watch { stop, reader }
    }

    /// Stops looking. Out: how often it looked.
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.join().unwrap()
    }
}
