//! Sixty pipelines over one record type.

use millstream::prelude::*;

compile::records!();

macro_rules! all {
    ($($n:literal)*) => {
        fn topology(t: &Topology) -> Result<(), BoxError> {
            $( compile::pipeline!(t, $n); )*
            Ok(())
        }
    };
}
compile::sixty!(all);

fn main() -> ExitCode {
    Job::new("one_type", topology).main()
}
