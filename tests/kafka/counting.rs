//! The example `kafka_count`, its input, and a reader of what is committed that compares every record, as it appears,
//! with what it has to be: of each key the counts from one on, each with the value of that record.

use super::broker::{Broker, PATIENCE, Rec};
use crate::common::{Process, Random, Scratch, example, mix};
use millstream::clock;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) const IN: i32 = 4;
const OUT: i32 = 3;
const KEYS: u64 = 60;

/// The values of each key, in order.
type Values = BTreeMap<String, Vec<String>>;

/// A job, its topics, and what it has to write.
pub(super) struct Counting<'a> {
    pub(super) broker: &'a Broker,
    pub(super) input: String,
    pub(super) output: String,
    /// What the job may have read, put here before it is written.
    given: Arc<Mutex<Values>>,
    random: Random,
    log: PathBuf,
}

/// What stands in the output.
#[derive(Deserialize)]
struct Count {
    key: String,
    count: u64,
    last: String,
}

impl<'a> Counting<'a> {
    pub(super) fn new(broker: &'a Broker, directory: &Path, seed: u64) -> Self {
        // so that no node can lose what it has acknowledged
        let safe = if broker.nodes() > 1 { &[("min.insync.replicas", "2")][..] } else { &[] };
        Self {
            broker,
            input: broker.topic("in", IN, safe),
            output: broker.topic("out", OUT, safe),
            given: Arc::default(),
            random: Random::new(seed),
            log: directory.join("log"),
        }
    }

    /// One that begins: with a directory of its own, the data directory in it, and a watcher.
    pub(super) fn begin(broker: &'a Broker, seed: u64) -> (Scratch, Self, PathBuf, Watcher) {
        let scratch = Scratch::new();
        let counting = Self::new(broker, scratch.path(), seed);
        let (data, watcher) = (scratch.join("data"), counting.watch());
        (scratch, counting, data, watcher)
    }

    /// So many records of some keys: half of them plain, half in a transaction; some more are aborted.
    pub(super) fn write(&mut self, records: u64) {
        let mut made = self.draw(records);
        let rest = made.split_off(made.len() / 2);
        self.broker.write(made);
        let aborted = (0..20).map(|n| self.record(&format!("key{n}"), "aborted"));
        self.broker.transaction(false, aborted);
        self.broker.transaction(true, rest);
    }

    /// So many records, at once, outside of any transaction.
    pub(super) fn add(&mut self, records: u64) {
        let made = self.draw(records);
        self.broker.write(made);
    }

    fn draw(&mut self, records: u64) -> Vec<Rec> {
        let mut made = Vec::new();
        for _ in 0..records {
            let (key, value) = (format!("key{}", self.random.within(0..KEYS)), format!("v{}", self.random.next()));
            self.given.lock().unwrap().entry(key.clone()).or_default().push(value.clone());
            made.push(self.record(&key, &value));
        }
        made
    }

    fn record(&self, key: &str, value: &str) -> Rec {
        let hash = key.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        Rec::new(&self.input, (hash % IN as u64) as i32, value).key(key)
    }

    /// `kafka_count run` in a data directory, with more flags.
    pub(super) fn command(&self, data: &Path, flags: &[&str]) -> Command {
        let mut command = self.other(&["run"], data);
        command.args(flags);
        if !flags.contains(&"--checkpoint-interval") {
            command.args(["--checkpoint-interval", "100ms"]);
        }
        command
    }

    /// Another command of it, such as `offsets reset`.
    pub(super) fn other(&self, words: &[&str], data: &Path) -> Command {
        let mut command = example("kafka_count");
        command.args(words).args(["--brokers", &self.broker.address]);
        command.args(["--input-topic", &self.input, "--output-topic", &self.output]).arg("--data-dir").arg(data);
        command
    }

    pub(super) fn start(&self, data: &Path, flags: &[&str]) -> Process {
        Process::start(&mut self.command(data, flags), &self.log)
    }

    /// Runs it to the end of its input; whoever yields is started again.
    pub(super) fn finish(&self, data: &Path, flags: &[&str]) {
        loop {
            let mut process = self.start(data, &[flags, &["--until", "end"]].concat());
            match process.wait().unwrap() {
                0 => return,
                75 => assert!(process.printed().contains("yielded"), "{}", process.tail()),
                code => panic!("exit code {code}:\n{}", process.tail()),
            }
        }
    }

    /// That it is refused, with exit code 78 and these words.
    #[track_caller]
    pub(super) fn refused(&self, data: &Path, flags: &[&str], said: &[&str]) {
        self.start(data, &[flags, &["--until", "end"]].concat()).end().expect(78, said);
    }

    /// How many records the job is to have read.
    pub(super) fn records(&self) -> u64 {
        self.given.lock().unwrap().values().map(|values| values.len() as u64).sum()
    }

    /// The decisions that stand in the log.
    pub(super) fn decisions(&self) -> Vec<serde_json::Value> {
        let topic = self.progress_topic();
        let consumer = reader(self.broker, &topic, 1);
        let (_, end) = consumer.fetch_watermarks(&topic, 0, PATIENCE).unwrap();
        let mut all = Vec::new();
        let until = clock::now() + PATIENCE;
        loop {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                all.push(serde_json::from_slice(message.payload().unwrap()).unwrap());
            }
            // control records stand at the end
            let position = consumer.position().unwrap().find_partition(&topic, 0).unwrap().offset();
            if matches!(position, Offset::Offset(at) if at >= end) {
                return all;
            }
            assert!(clock::now() < until, "the decisions cannot be read: {position:?} of {end}");
        }
    }

    /// The job's name, which is the id of its clients as well.
    pub(super) fn job(&self) -> String {
        format!("kafka_count-{}", self.output)
    }

    pub(super) fn progress_topic(&self) -> String {
        format!("__millstream_progress_{}", self.job())
    }

    /// Whether there are records in the output whose transaction is not over.
    pub(super) fn has_undecided(&self) -> bool {
        let end = |isolation: &str| -> i64 {
            let mut config = self.broker.client();
            let consumer: BaseConsumer = config.set("isolation.level", isolation).create().unwrap();
            (0..OUT).map(|partition| consumer.fetch_watermarks(&self.output, partition, PATIENCE).unwrap().1).sum()
        };
        end("read_committed") < end("read_uncommitted")
    }

    /// Adds records until the job has some of them in a transaction that is open.
    #[track_caller]
    pub(super) fn opens(&mut self, process: &mut Process) {
        let open = process.wait_until(|| {
            self.add(100);
            self.has_undecided()
        });
        assert_eq!(open, Ok(true), "{}", process.tail());
    }

    /// V4: decisions grow by one, and the newest names a manifest that is intact.
    pub(super) fn check_decisions(&self, data: &Path) {
        let all = self.decisions();
        let epochs: Vec<u64> = all.iter().map(|r| r["epoch"].as_u64().unwrap()).collect();
        assert_eq!(epochs.first(), Some(&0));
        for (a, b) in all.iter().zip(&all[1..]) {
            let (n, next) = (a["epoch"].as_u64().unwrap(), b["epoch"].as_u64().unwrap());
            let is_claim = next == n && a["manifest"] == b["manifest"];
            let is_next = next == n + 1 && b["parent"] == a["manifest"];
            assert!(is_claim || is_next, "{a} before {b}");
        }
        let shown = example("kafka_count").args(["checkpoints", "verify", "--all", "--data-dir"]).arg(data).output();
        let shown = shown.unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stdout));
    }

    /// The same of what Kafka's own console consumer reads.
    pub(super) fn check_console(&self) {
        let most = self.records().to_string();
        let said = self.broker.tool(&[
            "console-consumer",
            "--topic",
            &self.output,
            "--isolation-level",
            "read_committed",
            "--from-beginning",
            "--formatter-property",
            "print.key=true",
            "--max-messages",
            &most,
            "--timeout-ms",
            "30000",
        ]);
        let (given, mut seen) = (self.given.lock().unwrap(), Seen::default());
        for line in said.lines() {
            let (key, value) = line.split_once('\t').unwrap();
            seen.take(Some(key.as_bytes()), Some(value.as_bytes()), &given).unwrap();
        }
        assert_eq!(seen.counts, counts_of(&given));
    }

    pub(super) fn watch(&self) -> Watcher {
        Watcher::start(reader(self.broker, &self.output, OUT), self.given.clone())
    }
}

/// How many records of each key there are to be.
fn counts_of(given: &Values) -> BTreeMap<String, u64> {
    given.iter().map(|(key, values)| (key.clone(), values.len() as u64)).collect()
}

/// Reads what is committed in a topic, from its beginning.
fn reader(broker: &Broker, topic: &str, partitions: i32) -> BaseConsumer {
    let mut config: ClientConfig = broker.client();
    config.set("group.id", "nobody").set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed").set("auto.offset.reset", "error");
    config.set("fetch.wait.max.ms", "20").set("reconnect.backoff.max.ms", "500");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(0)).unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer
}

/// V1 and V2: sees no record twice, none left out, and none before it is committed.
pub(super) struct Watcher {
    consumer: Arc<BaseConsumer>,
    seen: Arc<Mutex<Seen>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    given: Arc<Mutex<Values>>,
}

#[derive(Default)]
struct Seen {
    counts: BTreeMap<String, u64>,
    wrong: Option<String>,
    /// What the client said last, if it had to say something.
    trouble: Option<String>,
}

impl Watcher {
    fn start(consumer: BaseConsumer, given: Arc<Mutex<Values>>) -> Self {
        let consumer = Arc::new(consumer);
        let its_consumer = consumer.clone();
        let (seen, ends) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (its, of, until) = (seen.clone(), given.clone(), ends.clone());
        let thread = millstream::framework::spawn::thread("watcher", move || {
            while !until.load(Relaxed) {
                let message = match its_consumer.poll(Duration::from_millis(20)) {
                    Some(Ok(message)) => message,
                    // brokers that are away come back
                    Some(Err(error)) => {
                        its.lock().unwrap().trouble = Some(error.to_string());
                        continue;
                    }
                    None => continue,
                };
                let mut seen = its.lock().unwrap();
                if let Err(wrong) = seen.take(message.key(), message.payload(), &of.lock().unwrap()) {
                    let (partition, offset) = (message.partition(), message.offset());
                    seen.wrong.get_or_insert(format!("{wrong} (partition {partition}, offset {offset})"));
                }
            }
        });
        Self { consumer, seen, ends, thread: Some(thread.unwrap()), given }
    }

    /// How many records it has seen.
    #[track_caller]
    pub(super) fn seen(&self) -> u64 {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.wrong, None);
        seen.counts.values().sum()
    }

    /// Waits until it has seen so many.
    #[track_caller]
    pub(super) fn wait_for(&self, records: u64) {
        let until = clock::now() + PATIENCE;
        while self.seen() < records {
            assert!(clock::now() < until, "{} of {records} records came; {}", self.seen(), self.whereabouts());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it is, where its partitions begin and end for it, and what its client has complained of.
    fn whereabouts(&self) -> String {
        let positions = self.consumer.position().unwrap();
        let of_each = positions.elements().into_iter().map(|element| {
            let bounds = self.consumer.fetch_watermarks(element.topic(), element.partition(), PATIENCE);
            format!("{element:?} of {bounds:?}")
        });
        let of_each: Vec<_> = of_each.collect();
        format!("{of_each:#?}, {:?}", self.seen.lock().unwrap().trouble)
    }

    /// That in the end all there is to be is there, and nothing more.
    #[track_caller]
    pub(super) fn check_all(mut self) {
        let expected = counts_of(&self.given.lock().unwrap());
        self.wait_for(expected.values().sum());
        std::thread::sleep(Duration::from_millis(300));
        self.ends.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.wrong, None);
        assert_eq!(seen.counts, expected);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
    }
}

impl Seen {
    fn take(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, given: &Values) -> Result<(), String> {
        let Count { key: name, count, last } =
            serde_json::from_slice(value.unwrap_or_default()).map_err(|e| e.to_string())?;
        if key != Some(name.as_bytes()) {
            return Err(format!("the record of {name} has the key {key:?}"));
        }
        let before = self.counts.entry(name.clone()).or_default();
        if count != *before + 1 {
            return Err(format!("{name} has the count {count} after {before}"));
        }
        *before = count;
        match given.get(&name).and_then(|values| values.get(count as usize - 1)) {
            Some(value) if *value == last => Ok(()),
            other => Err(format!("{name} has the value {last} at count {count}, in place of {other:?}")),
        }
    }
}
