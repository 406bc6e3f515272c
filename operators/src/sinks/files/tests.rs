//! The sink of files against its contract: what is seen when, and what a crash between any two calls leaves.

use super::*;
use crate::testing::{block_on, said, sink_context};
use millstream_framework::{Batch, Epoch, SinkWriter};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use tempfile::TempDir;

/// A directory that is not there yet, and a sink that writes into it.
fn sink() -> (TempDir, FileSink<Text>) {
    let directory = tempfile::tempdir().unwrap();
    let sink = WriteFiles::new(directory.path().join("out/deep")).text();
    (directory, sink)
}

/// All names in the output directory, and those that are not hidden with their content.
fn look<F>(sink: &FileSink<F>) -> (Vec<String>, Vec<(String, String)>) {
    let mut names: Vec<String> =
        fs::read_dir(&sink.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let visible = names.iter().filter(|name| !name.starts_with('.'));
    let visible = visible.map(|name| (name.clone(), fs::read_to_string(sink.path.join(name)).unwrap())).collect();
    (names, visible)
}

async fn open(sink: &FileSink<Text>, cx: &SinkContext) -> PartWriter<Text> {
    Sink::<String>::open(sink, cx).await.unwrap()
}

async fn write(writer: &mut PartWriter<Text>, lines: &[&str]) {
    writer.write(Batch::from(lines.iter().map(|l| l.to_string()).collect::<Vec<_>>())).await.unwrap();
}

async fn prepare(writer: &mut PartWriter<Text>, epoch: Epoch) -> Option<PartFile> {
    SinkWriter::<String>::prepare(writer, epoch).await.unwrap()
}

async fn commit(writer: &mut PartWriter<Text>, part: PartFile) {
    SinkWriter::<String>::commit(writer, part).await.unwrap();
}

async fn inspect(sink: &FileSink<Text>, cx: &SinkContext) -> Visible {
    Sink::<String>::inspect(sink, cx).await.unwrap()
}

async fn clean(sink: &FileSink<Text>, cx: &SinkContext, listed: Visible) {
    Sink::<String>::clean(sink, cx, listed).await.unwrap();
}

#[test]
fn an_epoch_is_seen_when_it_is_committed_and_not_before() {
    let (_directory, sink) = sink();
    let cx = sink_context("result", 2);
    block_on(async {
        let mut writer = open(&sink, &cx).await;
        write(&mut writer, &["a", "b"]).await;
        write(&mut writer, &["c"]).await;
        assert_eq!(look(&sink).1, []);
        let one = prepare(&mut writer, 1).await.unwrap();
        write(&mut writer, &["d"]).await;
        assert_eq!(look(&sink).1, []);
        commit(&mut writer, one).await;
        let first = (format!("result-0000000001-0002-{}.txt", cx.attempt), "a\nb\nc\n".to_owned());
        assert_eq!(look(&sink).1, std::slice::from_ref(&first));
        let two = prepare(&mut writer, 2).await.unwrap();
        commit(&mut writer, two).await;
        let second = (format!("result-0000000002-0002-{}.txt", cx.attempt), "d\n".to_owned());
        assert_eq!(look(&sink).1, [first, second]);
    });
    assert_eq!(look(&sink).0.len(), 2);
}

#[test]
fn an_empty_epoch_leaves_no_file() {
    let (_directory, sink) = sink();
    block_on(async {
        let mut writer = open(&sink, &sink_context("result", 0)).await;
        write(&mut writer, &[]).await;
        assert_eq!(prepare(&mut writer, 1).await, None);
        assert_eq!(prepare(&mut writer, 2).await, None);
        assert_eq!(look(&sink).0, [""; 0]);
        write(&mut writer, &[""]).await;
        let part = prepare(&mut writer, 3).await.unwrap();
        commit(&mut writer, part).await;
        assert_eq!(look(&sink).1[0].1, "\n");
    });
}

#[test]
fn more_than_a_buffer_is_written_in_order() {
    let (_directory, sink) = sink();
    let lines: Vec<String> = (0..100_000).map(|i| format!("line {i}")).collect();
    block_on(async {
        let mut writer = open(&sink, &sink_context("result", 0)).await;
        for batch in lines.chunks(1024) {
            writer.write(Batch::from(batch.to_vec())).await.unwrap();
        }
        assert_eq!(look(&sink).1, []);
        let part = prepare(&mut writer, 1).await.unwrap();
        commit(&mut writer, part).await;
    });
    assert_eq!(look(&sink).1[0].1, lines.join("\n") + "\n");
}

#[test]
fn a_commit_may_come_again_and_by_another_writer() {
    let (_directory, sink) = sink();
    block_on(async {
        let mut writer = open(&sink, &sink_context("result", 0)).await;
        write(&mut writer, &["a"]).await;
        let part = prepare(&mut writer, 1).await.unwrap();
        let text = serde_json::to_string(&part).unwrap();
        drop(writer);
        let mut another = open(&sink, &sink_context("result", 3)).await;
        for _ in 0..2 {
            commit(&mut another, serde_json::from_str(&text).unwrap()).await;
            assert_eq!(look(&sink).0.len(), 1);
            assert_eq!(look(&sink).1[0].1, "a\n");
        }
        // committed, and taken away by whoever reads the output
        fs::remove_file(sink.path.join(&part.visible)).unwrap();
        commit(&mut another, part).await;
        assert_eq!(look(&sink).0, [""; 0]);
    });
}

#[test]
fn a_visible_file_is_never_written_over() {
    let (_directory, sink) = sink();
    block_on(async {
        let mut writer = open(&sink, &sink_context("result", 0)).await;
        write(&mut writer, &["new"]).await;
        let part = prepare(&mut writer, 1).await.unwrap();
        fs::write(sink.path.join(&part.visible), "old").unwrap();
        let error = SinkWriter::<String>::commit(&mut writer, part.clone()).await.unwrap_err();
        assert_eq!(said(&error).0, ErrorKind::Refused);
        assert_eq!(fs::read_to_string(sink.path.join(part.visible)).unwrap(), "old");
    });
}

#[test]
fn a_recovery_commits_what_is_decided_and_clears_the_rest_away() {
    let (_directory, sink) = sink();
    let dead = sink_context("result", 0);
    block_on(async {
        let mut writer = open(&sink, &dead).await;
        write(&mut writer, &["1"]).await;
        let shown = prepare(&mut writer, 1).await.unwrap();
        commit(&mut writer, shown).await;
        write(&mut writer, &["2"]).await;
        let decided = prepare(&mut writer, 2).await.unwrap(); // decided, then killed before the commit
        write(&mut writer, &["3"]).await;
        prepare(&mut writer, 3).await.unwrap(); // prepared, not decided
        writer.write(Batch::from(vec!["4".repeat(300_000)])).await.unwrap(); // being written
        drop(writer);

        let cx = sink_context("result", 0);
        let listed = inspect(&sink, &cx).await;
        assert_eq!(listed.newest, Some((1, BTreeSet::from([dead.attempt]))));
        assert_eq!(listed.pending.len(), 3);
        let mut writer = open(&sink, &cx).await;
        write(&mut writer, &["3 again"]).await;
        commit(&mut writer, decided).await;
        let ours = prepare(&mut writer, 3).await.unwrap();
        clean(&sink, &cx, listed.clone()).await;
        clean(&sink, &cx, listed).await;
        commit(&mut writer, ours).await;
        let texts: Vec<String> = look(&sink).1.into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["1\n", "2\n", "3 again\n"]);
        assert_eq!(look(&sink).0.len(), 3);
        assert_eq!(inspect(&sink, &cx).await, Visible { newest: Some((3, [cx.attempt].into())), pending: Vec::new() });
    });
}

#[test]
fn what_is_not_ours_is_neither_seen_nor_touched() {
    let (_directory, sink) = sink();
    block_on(async {
        let mut other = open(&sink, &sink_context("result-2", 0)).await;
        write(&mut other, &["x"]).await;
        let shown = prepare(&mut other, 9).await.unwrap();
        commit(&mut other, shown).await;
        write(&mut other, &["y"]).await;
        prepare(&mut other, 10).await.unwrap();
        for name in ["notes.txt", ".pending-result", ".pending-result-old", "result-0000000009-0000-old.txt"] {
            fs::write(sink.path.join(name), "").unwrap();
        }
        let before = look(&sink);
        let cx = sink_context("result", 0);
        assert_eq!(inspect(&sink, &cx).await, Visible::default());
        let forged = Visible { newest: None, pending: before.0.clone() };
        clean(&sink, &cx, forged).await;
        assert_eq!(look(&sink), before);
    });
}

#[test]
fn only_listed_files_are_cleared_away() {
    let (_directory, sink) = sink();
    let cx = sink_context("result", 0);
    block_on(async {
        let listed = inspect(&sink, &cx).await;
        let mut writer = open(&sink, &cx).await;
        write(&mut writer, &["a"]).await;
        prepare(&mut writer, 1).await.unwrap();
        clean(&sink, &cx, listed).await;
    });
    assert_eq!(look(&sink).0.len(), 1);
}

#[test]
fn the_newest_epoch_shows_all_its_attempts() {
    let (_directory, sink) = sink();
    let (one, other) = (sink_context("result", 0), sink_context("result", 1));
    block_on(async {
        for (cx, epoch) in [(&one, 4), (&one, 5), (&other, 5), (&other, 3)] {
            let mut writer = open(&sink, cx).await;
            write(&mut writer, &["a"]).await;
            let part = prepare(&mut writer, epoch).await.unwrap();
            commit(&mut writer, part).await;
        }
        assert_eq!(inspect(&sink, &one).await.newest, Some((5, [one.attempt, other.attempt].into())));
    });
}

#[test]
fn json_writes_one_value_per_line() {
    #[derive(Serialize)]
    struct Count {
        word: String,
        count: u64,
    }
    let directory = tempfile::tempdir().unwrap();
    let sink = WriteFiles::new(directory.path().into()).json();
    block_on(async {
        let mut writer = Sink::<Count>::open(&sink, &sink_context("result", 0)).await.unwrap();
        writer.write(Batch::from(vec![Count { word: "the\n".into(), count: 17 }])).await.unwrap();
        let part = SinkWriter::<Count>::prepare(&mut writer, 1).await.unwrap().unwrap();
        SinkWriter::<Count>::commit(&mut writer, part).await.unwrap();
    });
    let (name, text) = look(&sink).1.remove(0);
    assert!(name.ends_with(".jsonl"));
    assert_eq!(text, "{\"word\":\"the\\n\",\"count\":17}\n");
}

#[test]
fn mistakes_say_what_to_do() {
    let (directory, sink) = sink();
    let hidden = sink_context(".result", 0);
    let (kind, text) = said(&block_on(Sink::<String>::inspect(&sink, &hidden)).unwrap_err());
    assert_eq!(kind, ErrorKind::Usage);
    assert!(text.contains("`.result`"), "{text}");

    fs::write(directory.path().join("out"), "a file").unwrap();
    let (kind, text) = said(&block_on(Sink::<String>::inspect(&sink, &sink_context("result", 0))).unwrap_err());
    assert_eq!(kind, ErrorKind::Io);
    assert!(text.contains("out"), "{text}");

    let sink = WriteFiles::new(directory.path().join("json")).json();
    block_on(async {
        type Keyed = std::collections::BTreeMap<(u8, u8), u8>;
        let mut writer = Sink::<Keyed>::open(&sink, &sink_context("result", 0)).await.unwrap();
        let batch = Batch::from(vec![Keyed::from([((1, 2), 3)])]);
        let error = writer.write(batch).await.unwrap_err().to_string();
        assert!(error.contains("cannot be written as JSON") && error.contains("key must be a string"), "{error}");
    });
}
