//! `offsets reset` of jobs that read Kafka, and of one that decides there.

use super::broker::{broker, numbers};
use super::counting::Counting;
use super::{collecting, run, to_end, up_to};
use crate::common::{Scratch, named};
use millstream::prelude::*;

#[test]
fn a_partition_goes_on_where_it_is_told() {
    let broker = broker();
    let (topic, scratch) = (broker.topic("moved", 2, &[]), Scratch::new());
    for partition in [0, 1] {
        broker.write(numbers(&topic, partition, 0..10).zip(0..).map(|(rec, n)| rec.at(1_000_000 + n * 1000)));
    }
    let read = || to_end(broker, &*topic);
    let reset = |flags: &[&str]| {
        let words = [&["job", "offsets", "reset", "--execute"], flags].concat();
        collecting(&scratch, read()).0.main_with(words)
    };
    assert_eq!(run(&scratch, read()).len(), 20);
    let split = format!("{topic}/1");
    for (to, from) in
        [("earliest", 0), ("7", 7), ("latest", 10), ("1970-01-01T00:16:44Z", 4), ("2100-01-01T00:00:00Z", 10)]
    {
        assert_eq!(reset(&["--split", &split, "--to", to]), ExitCode::SUCCESS, "{to}");
        assert_eq!(run(&scratch, read()), (from..10).collect::<Vec<_>>(), "{to}");
    }
    assert_eq!(reset(&["--split", &split, "--to", "11"]), ExitCode::from(2));
    assert_eq!(reset(&["--to", "earliest"]), ExitCode::SUCCESS);
    assert_eq!(run(&scratch, read()).len(), 20);
    assert_eq!(run(&scratch, read()), up_to(0));
}

/// Its decisions stand in Kafka, and so does this one: the counts go on by one, and the log names the new checkpoint.
#[test]
fn a_topic_that_was_made_again_is_gone_on_with_exactly_once() {
    let (_scratch, mut counting, data, watcher) = Counting::begin(broker(), 6);
    for _ in 0..2 {
        counting.write(200);
        counting.finish(&data, &[]);
    }
    counting.broker.delete(&counting.input);
    counting.refused(&data, &[], &["no partition", "--to forget --execute"]);
    counting.broker.make(&counting.input, super::counting::IN, &[]);
    counting.write(200);
    let mut resets = 0;
    loop {
        let mut process = counting.start(&data, &["--until", "end"]);
        let code = process.wait().unwrap();
        if code == 0 {
            break;
        }
        let said = process.printed();
        assert!(code == 78 && said.contains("deleted and made again"), "{said}");
        let before = counting.decisions().len();
        let command = named(&said, "offsets reset");
        let plan: Vec<_> = command.iter().map(String::as_str).filter(|word| *word != "--execute").collect();
        let output = counting.other(&plan, &data).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("Nothing has been changed"), "{said}");
        assert_eq!(counting.decisions().len(), before, "a plan decides nothing");
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        let output = counting.other(&words, &data).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("its topic was made again"), "{said}");
        assert_eq!(counting.decisions().len(), before + 2, "the claim and the decision");
        resets += 1;
        assert!(resets <= super::counting::IN, "it is refused again and again");
    }
    assert_eq!(resets, super::counting::IN);
    counting.check_decisions(&data);
    watcher.check_all();
}

/// Dies at each step of the decision; given again, the command is carried out, and nothing is lost or doubled.
#[cfg(debug_assertions)]
#[test]
fn a_reset_that_dies_is_given_again() {
    let (_scratch, mut counting, data, watcher) = Counting::begin(broker(), 7);
    counting.write(200);
    counting.finish(&data, &[]);
    let points = ["recovery-fenced", "recovery-decided", "recovery-claimed", "recovery-cleared", "manifest-durable"];
    let points =
        [&points[..], &["manifest-renamed", "checkpoint-written", "checkpoint-recorded", "checkpoint-decided"]];
    for point in points.concat() {
        // what is passed over is none of what is to be counted
        counting.broker.write(
            ["0", "1", "2", "3"]
                .map(|n| super::broker::Rec::new(&counting.input, n.parse().unwrap(), "passed over").key("nobody")),
        );
        let words = ["offsets", "reset", "--to", "latest", "--execute"];
        crate::common::dies_at(&mut counting.other(&words, &data), point, 0);
        let ended = counting.other(&words, &data).output().unwrap();
        assert!(ended.status.success(), "{point}: {}", String::from_utf8_lossy(&ended.stderr));
        counting.write(50);
        counting.finish(&data, &[]);
    }
    counting.check_decisions(&data);
    watcher.check_all();
    let list =
        crate::common::example("kafka_count").args(["checkpoints", "list", "--data-dir"]).arg(&data).output().unwrap();
    println!("{}", String::from_utf8_lossy(&list.stdout));
}
