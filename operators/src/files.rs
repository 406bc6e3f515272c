//! `Files`: where files as source and as sink begin. Reading is in `sources/files/`, writing in `sinks/files/`.

use crate::sinks::files::WriteFiles;
use crate::sources::files::ReadFiles;
use std::path::PathBuf;

/// Files as source and as sink: choose a direction, then a format.
///
/// ```
/// use millstream_operators::Files;
///
/// let source = Files::read("access/*.log").lines().rate(1000);
/// let sink = Files::write("out").json();
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Files;

impl Files {
    /// Reads a file, the files of a directory, or those that a pattern matches; see [`ReadFiles`]. Nothing is looked at
    /// before the job starts.
    pub fn read(path: impl Into<PathBuf>) -> ReadFiles {
        ReadFiles::new(path.into())
    }

    /// Writes part files into a directory, exactly once; see [`WriteFiles`]. Nothing is made before the job starts.
    pub fn write(directory: impl Into<PathBuf>) -> WriteFiles {
        WriteFiles::new(directory.into())
    }
}
