//! Local files, opened so that nothing else can stand in their place.
//!
//! In: paths. Out: open files, text, deletions.
//! Invariant: what is opened is a plain file, so that nobody waits for the other end of a pipe; what is
//! deleted below a folder is reached from it without following a link, and what is written goes where no
//! link stood when the write began.

use crate::error::{Error, Result};
use crate::planted::Bug;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// What stands where a plain file, or a folder of our own, has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Odd {
    #[error("it is a link, and nothing below a lake may be one: put the file or folder itself there")]
    Link,
    #[error("it is a named pipe, and only plain files are opened: put a file in its place")]
    Pipe,
    #[error("it is a socket, and only plain files are opened: put a file in its place")]
    Socket,
    #[error("it is a device, and only plain files are opened: put a file in its place")]
    Device,
    #[error("it is a folder, and has to be a plain file: move it away")]
    Folder,
}

impl Odd {
    /// None of a plain file.
    fn of(kind: std::fs::FileType) -> Option<Odd> {
        match kind {
            _ if kind.is_file() => None,
            _ if kind.is_symlink() => Some(Odd::Link),
            _ if kind.is_dir() => Some(Odd::Folder),
            _ if kind.is_fifo() => Some(Odd::Pipe),
            _ if kind.is_socket() => Some(Odd::Socket),
            _ => Some(Odd::Device),
        }
    }

    fn at(self, path: &Path) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, NotPlain { path: path.to_path_buf(), odd: self })
    }
}

/// Why a path was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{odd}")]
pub struct NotPlain {
    path: PathBuf,
    pub odd: Odd,
}

impl NotPlain {
    /// None where the system failed.
    pub fn behind(error: &io::Error) -> Option<&NotPlain> {
        error.get_ref()?.downcast_ref()
    }

    /// For messages of those who do not know the path.
    pub fn named(&self) -> String {
        format!("{}: {}", self.path.display(), self.odd)
    }
}

/// An error of this room as one for a person: what is no plain file is unfit.
pub fn failure(error: io::Error) -> Error {
    match NotPlain::behind(&error) {
        Some(refused) => Error::unfit(refused.to_string()).at(refused.path.display()),
        None => error.into(),
    }
}

/// Opens a plain file for reading, or one that a link leads to.
pub fn open(path: &Path) -> io::Result<File> {
    if Bug::PipeOpened.is_planted() {
        return File::open(path);
    }
    // Without the first flag, a pipe that nobody writes to would be waited for here.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = File::options().read(true).custom_flags(flags.bits() as i32).open(path);
    expect_plain(opened.map_err(|error| socket(error, path))?, path)
}

fn expect_plain(file: File, path: &Path) -> io::Result<File> {
    match Odd::of(file.metadata()?.file_type()) {
        None => Ok(file),
        Some(odd) => Err(odd.at(path)),
    }
}

/// A socket, and a pipe that nobody reads, cannot be opened at all.
fn socket(error: io::Error, path: &Path) -> io::Error {
    match error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) {
        true => Odd::Socket.at(path),
        false => error,
    }
}

/// What stands at a path, if it is no plain file. Links are not followed.
pub fn refuse_what_is_not_plain(path: &Path) -> io::Result<()> {
    match Odd::of(path.symlink_metadata()?.file_type()) {
        None => Ok(()),
        Some(odd) => Err(odd.at(path)),
    }
}

/// Errors when one of the folders from `root`, itself excluded, down to `folder` is a link.
pub fn expect_no_links(root: &Path, folder: &Path) -> io::Result<()> {
    let Ok(below) = folder.strip_prefix(root) else { return Ok(()) };
    if Bug::PutFollowsLinks.is_planted() {
        return Ok(());
    }
    let mut path = root.to_path_buf();
    for name in below.components() {
        path.push(name);
        match path.symlink_metadata() {
            Ok(found) if found.is_symlink() => return Err(Odd::Link.at(&path)),
            Ok(_) => {}
            // Whatever is made there is made by us.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Opens the folder that lies at `below`, from `root` on without following a link: whoever swaps a folder
/// for a link in the meantime gets an error.
fn folder_below(root: &Path, below: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (mut folder, mut path) = (rustix::fs::open(root, flags, Mode::empty())?, root.to_path_buf());
    for name in below.components() {
        let Component::Normal(name) = name else { return Err(io::ErrorKind::InvalidInput.into()) };
        path.push(name);
        let opened = openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty());
        folder = opened.map_err(|error| match refuse_what_is_not_plain(&path) {
            // Systems do not agree on the error of a link that is not followed.
            Err(refused) if NotPlain::behind(&refused).is_some_and(|r| r.odd != Odd::Folder) => refused,
            _ => error.into(),
        })?;
    }
    Ok(folder)
}

/// Deletes the plain file at `below`, reached from `root` on without following a link.
pub fn remove(root: &Path, below: &Path) -> io::Result<()> {
    if Bug::GcFollowsLinks.is_planted() {
        return std::fs::remove_file(root.join(below));
    }
    let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = folder_below(root, parent)?;
    let found = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let odd = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => return Ok(unlinkat(&folder, name, AtFlags::empty())?),
        FileType::Symlink => Odd::Link,
        FileType::Directory => Odd::Folder,
        _ => Odd::Device,
    };
    Err(odd.at(&root.join(below)))
}

/// Opens the file that is locked while `folder`, right below `root`, is worked on; both are created where
/// they are missing. A link is refused: it would create a file wherever it leads.
pub fn open_lock(root: &Path, folder: &str, name: &str) -> Result<File> {
    let path = root.join(folder);
    let at = |error: io::Error| failure(error).at(path.display());
    expect_no_links(root, &path).map_err(at)?;
    std::fs::create_dir_all(&path).map_err(at)?;
    let opened = folder_below(root, folder.as_ref()).map_err(at)?;
    let mut flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
    if !Bug::LockLinkFollowed.is_planted() {
        flags |= OFlags::NOFOLLOW;
    }
    let file = openat(&opened, name, flags, Mode::from_raw_mode(0o666));
    let file = file.map_err(|error| match error {
        Errno::NXIO | Errno::ISDIR | Errno::LOOP => match refuse_what_is_not_plain(&path.join(name)) {
            Err(refused) => refused,
            Ok(()) => error.into(),
        },
        _ => error.into(),
    });
    let file = file.and_then(|file| expect_plain(file.into(), &path.join(name)));
    file.map_err(|error| failure(error).at(path.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_plain_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("plain"), "text").unwrap();
        symlink(at("plain"), at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        assert_eq!(std::io::read_to_string(open(&at("link")).unwrap()).unwrap(), "text");
        let refused = |path: &Path| NotPlain::behind(&open(path).unwrap_err()).map(|refused| refused.odd);
        assert_eq!(refused(&at("pipe")), Some(Odd::Pipe));
        assert_eq!(refused(&at("socket")), Some(Odd::Socket));
        assert_eq!(refused(folder.path()), Some(Odd::Folder));
        assert_eq!(refused(Path::new("/dev/null")), Some(Odd::Device));
        assert_eq!(open(&at("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_deleted_is_reached_without_a_link() {
        let (lake, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = outside.path().join("month/part");
        std::fs::create_dir(outside.path().join("month")).unwrap();
        std::fs::write(&kept, "kept").unwrap();
        std::fs::create_dir_all(lake.path().join("table/month")).unwrap();
        std::fs::write(lake.path().join("table/month/part"), "ours").unwrap();
        symlink(outside.path(), lake.path().join("linked")).unwrap();
        symlink(outside.path().join("month"), lake.path().join("table/linked")).unwrap();
        symlink(&kept, lake.path().join("table/month/link")).unwrap();
        let remove = |below: &str| remove(lake.path(), below.as_ref());
        for below in ["linked/month/part", "table/linked/part", "table/month/link"] {
            let refused = remove(below).unwrap_err();
            assert_eq!(NotPlain::behind(&refused).map(|refused| refused.odd), Some(Odd::Link), "{below}");
        }
        for below in ["../part", "table/../table/month/part", "/etc/hostname", "table/month", "table/none"] {
            assert!(remove(below).is_err(), "{below}");
        }
        remove("table/month/part").unwrap();
        assert!(kept.exists() && !lake.path().join("table/month/part").exists());
    }
}
