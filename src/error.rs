//! What can go wrong, where, what to do about it, and the exit code a scheduler sees.
//!
//! In: a failure of any room. Out: one line for a person and one number for cron.
//! Invariant: no user data (sellers, amounts, user ids), no credentials and nothing of a file's content
//! stand in a message; a place is an object, a line and a column.

mod misread;
mod printable;
mod secrets;

pub use misread::{Misread, line_and_column, near};
pub use printable::{is_printable, json, printable};

use crate::planted::Bug;
use printable::one_line;
use secrets::without_secrets;
use std::fmt;
use url::Url;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds a caller can act on. The numbers follow `sysexits.h` where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input itself is refused; nothing was published.
    InputRefused,
    /// An input, table or job file that was named does not exist.
    NotFound,
    /// An invariant broke: our bug. Nothing was published.
    Invariant,
    /// The output cannot be written: disk full, quota, read-only.
    CannotWrite,
    /// Store unreachable, lock held, race lost too often: try again later.
    Temporary,
    /// The commit may or may not have landed. Running again is safe.
    OutcomeUnknown,
    /// Credentials were refused or have expired.
    Credentials,
    /// The job file or the store cannot be used as it is.
    Unfit,
}

impl Kind {
    /// The process exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::InputRefused => 65,
            Kind::NotFound => 66,
            Kind::Invariant => 70,
            Kind::CannotWrite => 73,
            Kind::Temporary => 75,
            Kind::OutcomeUnknown => 76,
            Kind::Credentials => 77,
            Kind::Unfit => 78,
        }
    }
}

/// Exit code of a run that published and wants a look: inputs were held.
pub const EXIT_NEEDS_A_LOOK: u8 = 3;

/// An error with its kind, its place and its remedy. Displays as one line.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    what: String,
    place: Option<String>,
    advice: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Error {
        Error { kind, what: what.into(), place: None, advice: None }
    }

    pub fn unfit(what: impl Into<String>) -> Error {
        Error::new(Kind::Unfit, what)
    }

    pub fn invariant(what: impl Into<String>) -> Error {
        Error::new(Kind::Invariant, what).advise("nothing was published; please report this as a bug")
    }

    /// The temporary folder is full, missing or broken: for its owner to mend.
    pub fn temporary_folder(error: std::io::Error) -> Error {
        if let std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData = error.kind() {
            return Error::invariant("what was put aside does not come back")
                .at(std::env::temp_dir().display());
        }
        let error = Error::new(Kind::CannotWrite, error.to_string()).at(std::env::temp_dir().display());
        error.advise("make room there, or name another temporary folder in TMPDIR")
    }

    /// Names the place: an object or file, with line and column where known (`a.tsv:3:7`).
    /// An inner place, which is more precise, is kept.
    pub fn at(mut self, place: impl fmt::Display) -> Error {
        self.place.get_or_insert_with(|| place.to_string());
        self
    }

    /// Puts what the place lies in before it: a table is named within its lake.
    pub fn below(mut self, outer: impl fmt::Display) -> Error {
        self.place = Some(match self.place.take() {
            Some(place) => format!("{outer}/{place}"),
            None => outer.to_string(),
        });
        self
    }

    /// Where the place is named already.
    pub fn without_place(self) -> Error {
        Error { place: None, ..self }
    }

    /// Says what to do. An inner advice, which is more precise, is kept.
    pub fn advise(mut self, advice: impl Into<String>) -> Error {
        self.advice.get_or_insert_with(|| advice.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let discreet = |text: &str| one_line(&without_secrets(text));
        if let Some(place) = &self.place {
            // A place is a name, which keeps its spaces.
            write!(f, "{}: ", printable(&without_secrets(place)))?;
        }
        f.write_str(&discreet(&self.what))?;
        if let Some(advice) = &self.advice {
            write!(f, "; {}", discreet(advice))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Says a line on stderr. What cannot be said is no reason to stop.
pub fn talk(line: impl fmt::Display) {
    use std::io::Write;
    let line = printable(&without_secrets(&line.to_string()));
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Error {
        use object_store::Error as Store;
        let kind = match &error {
            Store::NotFound { .. } => Kind::NotFound,
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => Kind::Credentials,
            Store::NotSupported { .. }
            | Store::NotImplemented { .. }
            | Store::InvalidPath { .. }
            | Store::UnknownConfigurationKey { .. } => Kind::Unfit,
            _ if is_refusal(&chain(&error)) => Kind::Credentials,
            _ => io_kind(&error).unwrap_or(Kind::Temporary),
        };
        Error::new(kind, without_answer(&chain(&error)))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        let kind = io_kind(&error).unwrap_or(Kind::Temporary);
        Error::new(kind, error.to_string())
    }
}

/// Whether a store refused our credentials: its client tells only in words.
pub fn is_refusal(text: &str) -> bool {
    ["403 Forbidden", "401 Unauthorized", "ExpiredToken"].iter().any(|words| text.contains(words))
}

/// What the innermost operating-system error behind `error` means for a scheduler.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<Kind> {
    let mut cause = Some(error);
    let mut found = None;
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind as Io;
            found = match io.kind() {
                Io::NotFound => Some(Kind::NotFound),
                Io::PermissionDenied
                | Io::StorageFull
                | Io::QuotaExceeded
                | Io::ReadOnlyFilesystem
                | Io::FileTooLarge
                | Io::NotADirectory => Some(Kind::CannotWrite),
                _ => found,
            };
        }
        cause = current.source();
    }
    found
}

/// The error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let said = current.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = current.source();
    }
    text
}

/// A place as messages and manifests may name it: a URL without what lets its reader in.
pub fn shown(text: &str) -> String {
    match text.contains("://").then(|| Url::parse(text)) {
        Some(Ok(url)) if !Bug::SecretKept.is_planted() => without_credentials(&url),
        _ => text.to_string(),
    }
}

/// The same of a URL that was parsed.
pub fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Errors only for URLs that cannot carry credentials in the first place.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

/// What comes before the words of a server in its client's messages.
const ANSWERS: [&str; 2] = ["Server returned non-2xx status code: ", "Server returned error response: "];

/// A server's answer may repeat the request with its token: of its words only status and code are kept.
pub fn without_answer(text: &str) -> String {
    let Some(start) = ANSWERS.iter().filter_map(|words| Some(text.find(words)? + words.len())).min() else {
        return text.to_string();
    };
    let (client, server) = text.split_at(start);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == ' ';
    let status = match server.as_bytes().first() {
        Some(digit) if digit.is_ascii_digit() => server.split(|c| !is_plain(c)).next().unwrap_or_default(),
        _ => "an error",
    };
    let code = server.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match code.map(|(code, _)| code).filter(|code| code.chars().all(is_plain) && code.len() < 40) {
        Some(code) => format!("{client}{status}, {code}"),
        None => format!("{client}{status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_place_and_advice() {
        let error = Error::unfit("unknown\nkey `x`").at("a.toml:3:1").advise("did you mean `y`?");
        assert_eq!(error.to_string(), "a.toml:3:1: unknown key `x`; did you mean `y`?");
        assert_eq!(error.kind.exit_code(), 78);
    }

    #[test]
    fn of_a_servers_answer_only_its_status_and_code_are_told() {
        let said = "GET https://host/a - Server returned non-2xx status code: 403 Forbidden: <Error><Code>\
                    ExpiredToken</Code><Token>secret</Token></Error>";
        let told = "GET https://host/a - Server returned non-2xx status code: 403 Forbidden, ExpiredToken";
        assert_eq!(without_answer(said), told);
        assert_eq!(
            without_answer("Server returned error response: secret"),
            "Server returned error response: an error"
        );
        assert_eq!(without_answer("nothing of it"), "nothing of it");
    }
}
