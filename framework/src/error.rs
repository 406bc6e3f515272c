//! The one error of the library, and the one that user code returns. Nothing else decides an exit code.

use std::fmt;
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
    /// Something else holds what the job needs for now; start again after a pause. Exit code 75.
    Busy,
    /// Another instance has taken the job over for good. Exit code 77.
    Superseded,
    /// Going on could lose or double records; a person has to decide. Never retried. Exit code 78.
    Refused,
}

impl ErrorKind {
    /// The exit code of a pipeline that ends with an error of this kind.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Topology | Self::Failed | Self::Io => 1,
            Self::Usage => 2,
            Self::Busy => 75,
            Self::Superseded => 77,
            Self::Refused => 78,
        }
    }

    /// Whether the job may recover in place and try again.
    #[must_use]
    pub fn is_retriable(self) -> bool {
        matches!(self, Self::Failed | Self::Io)
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
}

impl Error {
    /// An error that says what happened and, where there is something to do, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Vec::new(), source: None }
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
            Err(error) => {
                Self { kind: ErrorKind::Failed, message: error.to_string(), context: vec![place.into()], source: None }
            }
        }
    }

    /// An input or output error at `path`.
    pub fn io(error: std::io::Error, doing: &str, path: &std::path::Path) -> Self {
        let remedy = match error.kind() {
            std::io::ErrorKind::StorageFull => " (free space on that file system, then start again)",
            std::io::ErrorKind::PermissionDenied => " (give this user the right to it, or name another directory)",
            _ => "",
        };
        Self::new(ErrorKind::Io, format!("cannot {doing} {}: {error}{remedy}", path.display()))
    }

    /// What the caller has to do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
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
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
