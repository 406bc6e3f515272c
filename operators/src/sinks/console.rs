//! A sink that prints: one line per record on standard output, at least once.

use millstream_framework::{Batch, BoxError, Epoch, Error, ErrorKind, Sink, SinkContext, SinkWriter};
use std::fmt::Display;
use std::io::{self, Write};

/// Prints records as they come, as their `Display`. At least once: what is processed again after a restart is printed
/// again. The lines of one subtask stay in order, those of several are mixed line by line.
#[derive(Debug, Clone, Copy)]
pub struct Console;

impl Console {
    /// Standard output.
    #[must_use]
    pub fn out() -> Self {
        Self
    }
}

#[diagnostic::do_not_recommend]
impl<T: Display + 'static> Sink<T> for Console {
    type Writer = ConsoleWriter<io::Stdout>;
    async fn open(&self, _: &SinkContext) -> Result<Self::Writer, BoxError> {
        Ok(ConsoleWriter::new(io::stdout()))
    }
    /// What is printed is visible at once and belongs to no epoch.
    fn separates_epochs(&self) -> bool {
        true
    }
}

/// The writer of [`Console`]: a batch is formatted, printed in one piece and flushed, so nothing is held back.
#[derive(Debug)]
pub struct ConsoleWriter<W> {
    out: W,
    text: Vec<u8>,
}

impl<W: Write> ConsoleWriter<W> {
    fn new(out: W) -> Self {
        Self { out, text: Vec::new() }
    }

    fn print<T: Display>(&mut self, values: &[T]) -> io::Result<()> {
        self.text.clear();
        for value in values {
            writeln!(self.text, "{value}")?;
        }
        self.out.write_all(&self.text)?;
        self.out.flush()
    }
}

impl<T: Display + 'static, W: Write + 'static> SinkWriter<T> for ConsoleWriter<W> {
    type Committable = ();
    async fn write(&mut self, batch: Batch<T>) -> Result<(), BoxError> {
        let text = "cannot print to standard output: see whether what reads it is still there";
        self.print(&batch.values).map_err(|error| Error::new(ErrorKind::Io, text).because(error).into())
    }
    async fn prepare(&mut self, _: Epoch) -> Result<Option<()>, BoxError> {
        Ok(None)
    }
    async fn commit(&mut self, (): ()) -> Result<(), BoxError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::block_on;

    #[test]
    fn prints_one_line_per_record() {
        let mut writer = ConsoleWriter::new(Vec::new());
        block_on(writer.write(Batch::from(vec!["a", "b"]))).unwrap();
        block_on(writer.write(Batch::from(vec![1, 2]))).unwrap();
        assert_eq!(writer.out, b"a\nb\n1\n2\n");
    }

    #[test]
    fn a_closed_output_is_an_error_that_says_so() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = block_on(ConsoleWriter::new(Closed).write(Batch::from(vec![1]))).unwrap_err().to_string();
        assert!(error.contains("standard output") && error.contains("broken pipe"), "{error}");
    }
}
