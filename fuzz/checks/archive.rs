//! Archives that may be damaged or hostile, and valid ones.
//!
//! In: a byte that selects the kind of archive, and bytes. Out: whether they are a valid archive.
//! Invariant: no byte is read twice, and the output stays within the limits.

use super::BYTE_ORDER_MARK;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use pennymill::engine::read::scan;
use pennymill::input::fetch::Compression;
use pennymill::input::plan::{LogObject, Split};
use pennymill::kernel::scan::Block;
use pennymill::limits::DECOMPRESSION_RATIO_MAX;
use pennymill::store::{Place, wait};
use std::io::Write;
use std::sync::Arc;

/// Small archives have no limit on the ratio of decompression.
const SMALL_BYTES: u64 = 1024 * 1024;

/// Input: a byte that selects the kind of archive, and bytes that may be one. Reading must end,
/// with output within the limit. The same bytes, compressed and read, must be unchanged.
pub fn archive(bytes: &[u8]) -> bool {
    let Some((choice, bytes)) = bytes.split_first() else { return false };
    let compression = if choice.is_multiple_of(2) { Compression::Gzip } else { Compression::Zstd };
    let mut given = 0;
    let read = read_archive(compression, bytes.to_vec(), |block| given += block.line_bytes());
    assert!(given <= SMALL_BYTES.max(bytes.len() as u64 * DECOMPRESSION_RATIO_MAX), "{given} bytes came out");
    let (first, second) = bytes.split_at(usize::from(*choice) * bytes.len() / 256);
    let archive = [packed(compression, first), packed(compression, second)].concat();
    let mut at = if bytes.starts_with(BYTE_ORDER_MARK) { 3 } else { 0 };
    let whole = read_archive(compression, archive, |block| {
        let (offset, content) = match &block {
            Block::Lines { offset, bytes } => (*offset, *bytes),
            Block::Overlong { offset, head, .. } => (*offset, *head),
        };
        assert_eq!(offset, at as u64, "the offset of a block");
        assert_eq!(content, &bytes[at..][..content.len()], "the content of a block");
        at += block.line_bytes() as usize;
    });
    assert_eq!((whole, at), (Ok(()), bytes.len()), "all members of an archive are read completely");
    read.is_ok()
}

fn packed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    if compression == Compression::Zstd {
        return zstd::encode_all(bytes, 1).expect("bytes in memory");
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("bytes in memory")
}

/// Reads an archive from a store. Error: the archive is damaged.
fn read_archive(
    compression: Compression,
    archive: Vec<u8>,
    mut on_block: impl FnMut(Block),
) -> Result<(), String> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (path, size_bytes) = (Path::from("log"), archive.len() as u64);
    wait(store.put(&path, archive.into())).expect("memory takes it");
    let url = "memory:///".parse().expect("a URL");
    let place = Place { store, path, shown: "log".to_string(), url };
    let (name, version) = ("log".to_string(), String::new());
    let object = LogObject { name, place, etag: None, version, size_bytes, compression };
    let whole = Split { object: 0, start: 0, end: u64::MAX };
    let mut read_bytes = 0;
    let read = scan(&object, whole, 4096, |block, bytes| {
        read_bytes += bytes;
        on_block(block);
        true
    });
    assert!(read_bytes <= size_bytes, "{read_bytes} bytes of {size_bytes} were read");
    read.expect("memory does not fail")
}
