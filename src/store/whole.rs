//! A store whose reads are whole, or fail.
//!
//! In: another store. Out: the same objects. Invariant: a body has as many bytes as were promised with
//! it; one that ends early would pass for a shorter log, or for a commit with fewer parts.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use std::fmt;
use std::sync::Arc;

/// Any store; its reads are counted.
#[derive(Debug)]
pub(super) struct WholeReads(pub Arc<dyn ObjectStore>);

impl fmt::Display for WholeReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The body, and an error where it ends early or goes on.
fn whole(body: BoxStream<'static, Result<Bytes>>, bytes: u64) -> BoxStream<'static, Result<Bytes>> {
    let broken = || Error::Generic { store: "store", source: "the body has not the length it should".into() };
    let next = move |under_way: Option<(BoxStream<'static, Result<Bytes>>, u64)>| async move {
        let (mut body, missing) = under_way?;
        match body.next().await {
            Some(Ok(some)) if some.len() as u64 <= missing => {
                let missing = missing - some.len() as u64;
                Some((Ok(some), Some((body, missing))))
            }
            None if missing == 0 => None,
            Some(Err(error)) => Some((Err(error), None)),
            Some(Ok(_)) | None => Some((Err(broken()), None)),
        }
    };
    // Readers of commits ask again after the end.
    unfold(Some((body, bytes)), next).fuse().boxed()
}

#[async_trait::async_trait]
impl ObjectStore for WholeReads {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let GetResult { payload, meta, range, attributes } = self.0.get_opts(location, options).await?;
        let payload = match payload {
            GetResultPayload::Stream(body) if !is_head => {
                GetResultPayload::Stream(whole(body, range.end - range.start))
            }
            other => other,
        };
        Ok(GetResult { payload, meta, range, attributes })
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    fn read(promised: u64, bodies: &[&'static str]) -> Result<usize> {
        let body = futures::stream::iter(bodies.to_vec()).map(|body| Ok(Bytes::from_static(body.as_bytes())));
        let all: Result<Vec<Bytes>> = crate::store::wait(whole(body.boxed(), promised).try_collect());
        Ok(all?.iter().map(Bytes::len).sum())
    }

    #[test]
    fn a_body_has_the_length_that_was_promised() {
        assert_eq!(read(0, &[]).unwrap(), 0);
        assert_eq!(read(5, &["ab", "", "cde"]).unwrap(), 5);
        assert!(read(6, &["ab", "cde"]).is_err(), "it ends early");
        assert!(read(4, &["ab", "cde"]).is_err(), "it goes on");
    }
}
