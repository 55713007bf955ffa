//! Parts held to the checksums that were written down when they were published.
//!
//! In: the parts that a question may read. Out: how many were held, and how many could not be; or the
//! error that names the part that is damaged.
//! Invariant: no row of a part is answered with before the part is known to be what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::{DataFusionError, Result as PlanResult};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::planted::Bug;

/// Parts that are read at the same time.
const AT_ONCE: usize = 4;

/// What was held to its checksum so far, for one question.
#[derive(Debug)]
pub struct Verifier {
    /// SHA-256 by path in the store, in lower hexadecimal.
    checksums: BTreeMap<String, String>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    held: BTreeSet<Path>,
    unknown: BTreeSet<Path>,
}

impl Verifier {
    pub fn new(checksums: BTreeMap<String, String>) -> Verifier {
        Verifier { checksums, seen: Mutex::default() }
    }

    /// Parts that are what was written, and parts whose checksum nobody knows.
    pub fn counts(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.held.len(), seen.unknown.len())
    }

    /// Reads each part that was not read before, whole. Errors when one is not what was written.
    pub async fn hold(&self, store: &Arc<dyn ObjectStore>, parts: Vec<Path>) -> PlanResult<()> {
        let held = parts.into_iter().map(|part| self.hold_part(store.clone(), part));
        let held = futures::stream::iter(held).buffer_unordered(AT_ONCE).try_collect::<()>().await;
        held.map_err(|error| DataFusionError::External(Box::new(error)))
    }

    async fn hold_part(&self, store: Arc<dyn ObjectStore>, part: Path) -> Result<()> {
        let checksum = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match self.checksums.get(part.as_ref()) {
                _ if seen.held.contains(&part) => return Ok(()),
                None => {
                    seen.unknown.insert(part);
                    return Ok(());
                }
                Some(checksum) => checksum.clone(),
            }
        };
        let (reading, path) = (store, part.clone());
        let found = tokio::spawn(async move { sha256_of(&reading, &path).await }).await;
        let found = found.map_err(|_| Error::invariant("a thread of the query stopped"))??;
        if found != checksum && !Bug::VerifyIgnored.is_planted() {
            let error = Error::unfit("it is not what was written: the lake is damaged").at(&part);
            return Err(error.advise("restore it from a copy; `pennymill audit` lists what else is damaged"));
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).held.insert(part);
        Ok(())
    }
}

/// The checksum of an object, read piece by piece.
async fn sha256_of(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<String> {
    let mut pieces = store.get(path).await?.into_stream();
    let mut digest = Sha256::new();
    while let Some(piece) = pieces.next().await {
        digest.update(&piece?);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
