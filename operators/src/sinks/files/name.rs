//! What part files are called. Names are read from the right, since the name of a sink may hold `-` itself.

use millstream_framework::{Attempt, Epoch, SinkContext};

/// What the names of files begin with that are not visible yet.
const PENDING: &str = ".pending-";

/// The name of a file that is visible: what sorts by name sorts by epoch.
pub(super) fn visible(cx: &SinkContext, epoch: Epoch, extension: &str) -> String {
    let SinkContext { sink, subtask, attempt, .. } = cx;
    format!("{sink}-{epoch:010}-{subtask:04}-{attempt}.{extension}")
}

/// The name of a file that is being written, the `part`-th of its writer: which epoch it will be of is not known yet.
pub(super) fn pending(cx: &SinkContext, part: u64) -> String {
    let SinkContext { sink, subtask, attempt, .. } = cx;
    format!("{PENDING}{sink}-{part:010}-{subtask:04}-{attempt}")
}

/// Epoch and attempt of a visible file of `sink`; none for any other file.
pub(super) fn parse_visible(sink: &str, name: &str) -> Option<(Epoch, Attempt)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let plain = !extension.is_empty() && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    parse(sink, stem).filter(|_| plain)
}

/// Whether it is a pending file of `sink`.
pub(super) fn is_pending(sink: &str, name: &str) -> bool {
    name.strip_prefix(PENDING).and_then(|stem| parse(sink, stem)).is_some()
}

/// The number and the attempt of `<sink>-<number>-<subtask>-<attempt>`.
fn parse(sink: &str, stem: &str) -> Option<(u64, Attempt)> {
    let mut parts = stem.rsplitn(4, '-');
    let attempt = Attempt::parse(parts.next()?)?;
    number(parts.next()?, 4)?;
    let number = number(parts.next()?, 10)?;
    (parts.next()? == sink).then_some((number, attempt))
}

/// A decimal number of at least `width` digits.
fn number(text: &str, width: usize) -> Option<u64> {
    let digits = text.len() >= width && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{TIGHT, any_text, bounded, cases, damaged_text};
    use crate::testing::sink_context;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_back() {
        for sink in ["result", "a-b", "x-0000000001-0002", "a.b"] {
            for (epoch, subtask) in [(1, 0), (12_345_678_901, 12_345)] {
                let cx = sink_context(sink, subtask);
                let name = visible(&cx, epoch, "jsonl");
                assert_eq!(parse_visible(sink, &name), Some((epoch, cx.attempt)), "{name}");
                assert!(!is_pending(sink, &name));
                let name = pending(&cx, epoch);
                assert!(is_pending(sink, &name), "{name}");
                assert_eq!(parse_visible(sink, &name), None, "{name}");
            }
        }
    }

    #[test]
    fn reads_as_promised() {
        let cx = sink_context("result", 3);
        let attempt = cx.attempt;
        assert_eq!(visible(&cx, 7, "txt"), format!("result-0000000007-0003-{attempt}.txt"));
        assert_eq!(pending(&cx, 2), format!(".pending-result-0000000002-0003-{attempt}"));
    }

    #[test]
    fn what_is_of_another_sink_or_of_nobody_is_not_ours() {
        let cx = sink_context("a-b", 0);
        let (ours, hidden) = (visible(&cx, 1, "txt"), pending(&cx, 1));
        for sink in ["a", "b", "-b", "a-b-0000000001", ""] {
            assert_eq!(parse_visible(sink, &ours), None, "{sink}");
            assert!(!is_pending(sink, &hidden), "{sink}");
        }
        for name in [
            ours.trim_end_matches(".txt"),
            &format!("{ours}."),
            &format!("{ours}.gz"),
            &format!("{ours}~"),
            &ours.replace("-0000000001-", "-1-"),
            &ours.replace("-0000000001-", "-+000000001-"),
            "notes.txt",
            "a-b.txt",
            "",
        ] {
            assert_eq!(parse_visible("a-b", name), None, "{name}");
        }
        assert!(!is_pending("a-b", &format!("{hidden}.txt")));
    }

    proptest! {
        #![proptest_config(cases(1000))]

        /// No two names of one sink mean the same file.
        #[test]
        fn any_name_is_taken(
            sink in "[a-z.-]{1,5}", number in prop_oneof![0..9u64, any::<u64>()], subtask in 0usize..20_000,
            other in any_text(), damages in any::<bool>(), part in any::<bool>(),
        ) {
            let cx = sink_context(&sink, subtask);
            let name = if part { pending(&cx, number) } else { visible(&cx, number, "txt") };
            prop_assert_eq!(parse_visible(&sink, &name), (!part).then_some((number, cx.attempt)));
            prop_assert_eq!(is_pending(&sink, &name), part);
            let strange = if damages { format!("{name}{other}") } else { other };
            let _ = bounded(strange.len(), TIGHT, || (parse_visible(&sink, &strange), is_pending(&sink, &strange)))?;
        }

        #[test]
        fn any_damaged_name_is_taken(
            name in damaged_text((0..9u64).prop_map(|number| visible(&sink_context("a-b", 3), number, "txt"))),
        ) {
            let _ = bounded(name.len(), TIGHT, || (parse_visible("a-b", &name), is_pending("a-b", &name)))?;
            let json = serde_json::to_string(&name).unwrap();
            let json = format!(r#"{{"pending": {json}, "visible": {name}}}"#);
            let _ = bounded(json.len(), TIGHT, || serde_json::from_str::<super::super::writer::PartFile>(&json))?;
        }
    }
}
