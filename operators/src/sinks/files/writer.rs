//! Writes the part files of one subtask. The steps of an epoch are numbered in `mod.rs`.

use super::directory;
use super::encode::Encode;
use super::name;
use millstream_framework::{Batch, BoxError, Epoch, Error, ErrorKind, SinkContext, SinkWriter};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// How much is written to the file at once.
const BUFFER: usize = 256 * 1024;

/// A part file that is durable and not yet visible, by the names it has in its directory; what stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFile {
    pub(super) pending: String,
    pub(super) visible: String,
}

/// The writer of [`FileSink`](super::FileSink). Holds at most 256 KiB and one record.
#[derive(Debug)]
pub struct PartWriter<F> {
    directory: PathBuf,
    format: F,
    cx: SinkContext,
    buffer: Vec<u8>,
    /// The file of the running epoch, once something was written to it.
    file: Option<File>,
    /// Which part the running epoch is of this writer.
    part: u64,
}

impl<F> PartWriter<F> {
    pub(super) fn new(directory: PathBuf, format: F, cx: &SinkContext) -> Self {
        Self { directory, format, cx: cx.clone(), buffer: Vec::new(), file: None, part: 1 }
    }

    fn pending(&self) -> String {
        name::pending(&self.cx, self.part)
    }

    /// Writes the buffer to the file of the running epoch, which is made if need be.
    fn write_buffer(&mut self) -> Result<(), Error> {
        let path = self.directory.join(self.pending());
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(directory::create(&path)?),
        };
        file.write_all(&self.buffer).map_err(|error| Error::io(error, "write", &path))?;
        self.cx.traffic.add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    fn write_values<T>(&mut self, values: &[T]) -> Result<(), BoxError>
    where
        F: Encode<T>,
    {
        for value in values {
            self.format.encode(value, &mut self.buffer)?;
            self.buffer.push(b'\n');
            if self.buffer.len() >= BUFFER {
                self.write_buffer()?;
            }
        }
        Ok(())
    }
}

impl<T: 'static, F: Encode<T>> SinkWriter<T> for PartWriter<F> {
    type Committable = PartFile;

    async fn write(&mut self, batch: Batch<T>) -> Result<(), BoxError> {
        self.write_values(&batch.values)
    }

    async fn prepare(&mut self, epoch: Epoch) -> Result<Option<PartFile>, BoxError> {
        if !self.buffer.is_empty() {
            self.write_buffer()?;
        }
        let Some(file) = self.file.take() else { return Ok(None) };
        let part = PartFile {
            pending: self.pending(),
            visible: name::visible(&self.cx, epoch, Encode::<T>::extension(&self.format)),
        };
        self.part += 1;
        let (directory, path) = (self.directory.clone(), self.directory.join(&part.pending));
        blocking(move || {
            file.sync_all().map_err(|error| Error::io(error, "fsync", &path))?;
            directory::sync(&directory)
        })
        .await?;
        Ok(Some(part))
    }

    async fn commit(&mut self, part: PartFile) -> Result<(), BoxError> {
        let directory = self.directory.clone();
        blocking(move || directory::show(&directory, &part)).await
    }
}

/// Runs what waits for the disk beside the worker. If the future is dropped the work is still done to its end, which is
/// harmless: an fsync, the rename of a decided file, or the removal of an abandoned one.
pub(super) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, BoxError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => {
            Err(Error::new(ErrorKind::Io, "a thread that waited for the disk has failed").because(error).into())
        }
    }
}
