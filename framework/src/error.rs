//! The one error of the library, and the one that user code returns. Nothing else decides an exit code.

use bytesize::ByteSize;
use std::fmt;
use std::io::ErrorKind as IoKind;
use std::path::Path;
use std::sync::Arc;

/// What user code returns: `?` works on every error type, on `&str` and on `anyhow::Error`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, chosen by what the caller has to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line or a setting is wrong: correct it. Exit code 2.
    Usage,
    /// The topology is wrong: change the program. Exit code 1.
    Topology,
    /// A source, a sink, an operator or a function of the user failed. Restarted by the policy, then exit code 1.
    Failed,
    /// The disk or another service of the machine failed. Restarted by the policy, then exit code 1.
    Io,
    /// A disk or a quota is full: free space. Nothing is lost. Restarted by the policy, since others may free some,
    /// then exit code 1.
    Full,
    /// A file or directory may not be read or written: give the right to it, or name another one. Never retried. Exit
    /// code 1.
    Denied,
    /// Something else holds what the job needs for now; start again after a pause. Exit code 75.
    Busy,
    /// Another instance has taken the job over for good. Exit code 77.
    Superseded,
    /// Going on could lose or double records, as with damaged files; a person has to decide. Never retried. Exit code
    /// 78.
    Refused,
}

impl ErrorKind {
    /// The exit code of a pipeline that ends with an error of this kind.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Topology | Self::Failed | Self::Io | Self::Full | Self::Denied => 1,
            Self::Usage => 2,
            Self::Busy => 75,
            Self::Superseded => 77,
            Self::Refused => 78,
        }
    }

    /// Whether the job may recover in place and try again.
    #[must_use]
    pub fn is_retriable(self) -> bool {
        matches!(self, Self::Failed | Self::Io | Self::Full)
    }
}

/// The error of the library: a kind, what happened and what to do, where it happened, and the error underneath. Clones
/// share the latter: all who wait for a job are told why it ended.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync + 'static>>,
    /// What to do, said last.
    advice: Option<String>,
}

impl Error {
    /// An error that says what happened and, where there is something to do, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Vec::new(), source: None, advice: None }
    }

    /// A refusal: going on could lose or double records. Connectors return it as a [`BoxError`]; the job then ends with
    /// exit code 78 and is not restarted.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// The error underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Where it happened, from the inside out: each call adds an outer place.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.context.push(place.into());
        self
    }

    /// What user code or a connector returned, with the place. An [`Error`] inside keeps its kind.
    pub fn from_user(error: BoxError, place: impl Into<String>) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error.at(place),
            Err(error) => Self::new(ErrorKind::Failed, error.to_string()).at(place),
        }
    }

    /// An input or output error at `path`: of the kind [`Full`](ErrorKind::Full) or [`Denied`](ErrorKind::Denied) where
    /// it is that, else [`Io`](ErrorKind::Io). Says what to do; asks the file system how much room there is if there is
    /// too little.
    pub fn io(error: std::io::Error, doing: &str, path: &Path) -> Self {
        Self::storage(error.kind(), &error.to_string(), doing, path)
    }

    /// The same of a library that has errors of its own, and their text.
    pub(crate) fn storage(cause: IoKind, text: &str, doing: &str, path: &Path) -> Self {
        let (kind, remedy) = match cause {
            IoKind::StorageFull => (ErrorKind::Full, format!("{}{ELSE}", room(path))),
            IoKind::QuotaExceeded => {
                (ErrorKind::Full, format!("the quota of this user is used up; free space there{ELSE}"))
            }
            IoKind::NotADirectory => (ErrorKind::Io, FILE.into()),
            IoKind::ReadOnlyFilesystem => (ErrorKind::Denied, READ_ONLY.into()),
            IoKind::PermissionDenied => (ErrorKind::Denied, RIGHT.into()),
            _ => (ErrorKind::Io, String::new()),
        };
        let message = format!("cannot {doing} {}: {text}", path.display());
        Self::new(kind, if remedy.is_empty() { message } else { format!("{message} ({remedy})") })
    }

    /// What to do, which is said last.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Where it began and what happened there, without the places further out.
    pub(crate) fn innermost(&self) -> String {
        let place = self.context.first().map(|place| format!("{place}: ")).unwrap_or_default();
        let source = self.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{place}{}{source}", self.message)
    }

    /// What the caller has to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

const ELSE: &str = ", or move the directory to where there is more, then start again: nothing is lost, the job goes \
    on from its last checkpoint";
const FILE: &str = "a file stands where a directory should be: move it away, or name another directory";
const READ_ONLY: &str = "that file system is mounted read-only: mount it for writing, or name another directory; if \
    it was writable before, its disk may have failed";
const RIGHT: &str = "give this user the right to it, or name another directory";

/// How much room there is where `path` is or was to be made, if that can be told, and what to do first.
fn room(path: &Path) -> String {
    let stat = path.ancestors().find_map(|there| rustix::fs::statvfs(there).ok());
    stat.map_or("free space there".into(), |stat| {
        let [free, all] = [stat.f_bavail, stat.f_blocks].map(|blocks| blocks.saturating_mul(stat.f_frsize));
        scarce((free, all), (stat.f_favail, stat.f_files))
    })
}

/// Of a file system with so many bytes and files free, and in all. Not all of them count files.
fn scarce((free, all): (u64, u64), files: (u64, u64)) -> String {
    match files {
        (0, files @ 1..) => format!("that file system has all the {files} files it can have; remove some there"),
        _ => format!("{} of {} are left on that file system; free space there", ByteSize::b(free), ByteSize::b(all)),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.context.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n{advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_the_disk_say_what_to_do() {
        let path = std::env::temp_dir().join("not-there").join("file");
        for (cause, kind, said) in [
            (IoKind::StorageFull, ErrorKind::Full, "are left on that file system; free space there"),
            (IoKind::QuotaExceeded, ErrorKind::Full, "the quota of this user is used up; free space there"),
            (IoKind::ReadOnlyFilesystem, ErrorKind::Denied, "mounted read-only"),
            (IoKind::PermissionDenied, ErrorKind::Denied, "give this user the right"),
            (IoKind::NotADirectory, ErrorKind::Io, "a file stands where a directory should be: move it away"),
            (IoKind::NotFound, ErrorKind::Io, "not-there/file: "),
        ] {
            let error = Error::io(cause.into(), "write", &path);
            let text = error.to_string();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(text.starts_with("cannot write ") && text.contains(said), "{text}");
        }
    }

    #[test]
    fn what_is_scarce_is_named() {
        assert!(
            scarce((4096, 8192), (3, 9)).starts_with("4.0 KiB of 8.0 KiB are left on that file system; free space")
        );
        assert!(scarce((4096, 8192), (0, 9)).contains("all the 9 files it can have; remove some"));
        assert!(scarce((0, 8192), (0, 0)).contains("free space"), "btrfs counts no files");
    }

    /// The system's own numbers are understood.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_full() {
        use std::io::Write;
        let path = Path::new("/dev/full");
        let error = std::fs::OpenOptions::new().write(true).open(path).and_then(|mut full| full.write_all(b"x"));
        assert_eq!(Error::io(error.unwrap_err(), "write", path).kind(), ErrorKind::Full);
    }

    #[test]
    fn places_come_first_and_advice_last() {
        let error = Error::new(ErrorKind::Failed, "it broke").because("too old").at("gear").at("engine");
        assert_eq!(error.innermost(), "gear: it broke: too old");
        assert_eq!(error.advise("buy another").to_string(), "engine: gear: it broke: too old\nbuy another");
    }
}
