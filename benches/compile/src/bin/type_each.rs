//! Sixty pipelines over a record type each.

use millstream::prelude::*;

macro_rules! all {
    ($($n:literal)*) => {
        fn topology(t: &Topology) -> Result<(), BoxError> {
            $( {
                compile::records!();
                compile::pipeline!(t, $n);
            } )*
            Ok(())
        }
    };
}
compile::sixty!(all);

fn main() -> ExitCode {
    Job::new("type_each", topology).main()
}
