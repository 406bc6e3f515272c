//! What the proxy knows of Kafka's protocol: whose a request is and what it asks for, where the error codes of a reply
//! stand, and replies of its own that say nothing but an error. Versions that are not known here are a panic.

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Produce,
    Fetch,
    ListOffsets,
    Metadata,
    OffsetCommit,
    /// Of transactions.
    FindCoordinator,
    InitProducerId,
    AddPartitionsToTxn,
    EndTxn,
}

impl Api {
    /// Of each its number, the first version of the form with tags, and the newest version whose form is known here.
    const ALL: [(Self, i16, i16, i16); 9] = [
        (Self::Produce, 0, 9, 10),
        (Self::Fetch, 1, 12, 16),
        (Self::ListOffsets, 2, 6, 7),
        (Self::Metadata, 3, 9, 13),
        (Self::OffsetCommit, 8, 8, 9),
        (Self::FindCoordinator, 10, 3, 2),
        (Self::InitProducerId, 22, 2, 4),
        (Self::AddPartitionsToTxn, 24, 3, 3),
        (Self::EndTxn, 26, 3, 4),
    ];
}

/// The beginning of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// None for those that are passed on whatever they are.
    pub(super) api: Option<Api>,
    pub(super) client: String,
    pub(super) id: i32,
    version: i16,
    has_tags: bool,
    /// Where what follows begins.
    body: usize,
}

impl Head {
    pub(super) fn of(request: &[u8]) -> Self {
        let mut walk = Walk { bytes: request, at: 0, has_tags: false };
        let (number, version, id) = (walk.i16(), walk.i16(), walk.i32());
        let client = String::from_utf8_lossy(walk.text()).into_owned();
        let known = Api::ALL.iter().find(|(_, known, ..)| *known == number);
        // without tags it ends with the type of the key, 1 for transactions: others ask for the coordinator of a group
        let is_meant =
            |api: Api, tags: i16| api != Api::FindCoordinator || version >= tags || request.last() == Some(&1);
        let known = known.filter(|(api, _, tags, _)| is_meant(*api, *tags));
        let has_tags = known.is_some_and(|(_, _, tags, _)| version >= *tags);
        walk.has_tags = has_tags;
        walk.tags();
        Self { api: known.map(|(api, ..)| *api), client, id, version, has_tags, body: walk.at }
    }

    fn check(&self) {
        let newest = Api::ALL.iter().find(|(api, ..)| Some(*api) == self.api).map_or(0, |(.., newest)| *newest);
        assert!(self.version <= newest, "the form of {self:?} is not known");
    }

    /// A walk through what follows the beginning of its reply.
    fn reply<'a>(&self, bytes: &'a [u8]) -> Walk<'a> {
        self.check();
        // behind the number of the request
        let mut walk = Walk { bytes, at: 4, has_tags: self.has_tags };
        walk.tags();
        walk
    }
}

/// Where a transaction's time-out stands in a request for a producer's id.
pub(super) fn timeout_of(head: &Head, request: &[u8]) -> usize {
    let mut walk = Walk { bytes: request, at: head.body, has_tags: head.has_tags };
    walk.text();
    walk.at
}

/// Where the error codes stand in a reply.
pub(super) fn errors_of(head: &Head, reply: &[u8]) -> Vec<usize> {
    let (mut walk, mut found, version) = (head.reply(reply), Vec::new(), head.version);
    let mut topics = |walk: &mut Walk<'_>, partition: &mut dyn FnMut(&mut Walk<'_>)| {
        walk.each(|walk| {
            match head.api {
                // its id in place of its name
                Some(Api::Fetch) if version >= 13 => walk.at += 16,
                _ => _ = walk.text(),
            }
            walk.each(|walk| {
                // the partition's number, and the error
                walk.at += 4;
                found.push(walk.at);
                walk.at += 2;
                partition(walk);
                walk.tags();
            });
            walk.tags();
        });
    };
    match head.api {
        Some(Api::Produce) => topics(&mut walk, &mut |walk| {
            assert!(version >= 5);
            // first offset, time at which it was appended, start of the log
            walk.at += 8 + 8 + 8;
            if version >= 8 {
                // records at fault, each with its number in the batch and a text; a text for all
                walk.each(|walk| {
                    walk.at += 4;
                    walk.text();
                    walk.tags();
                });
                walk.text();
            }
        }),
        Some(Api::Fetch) => {
            // of before 4 the transactions are missing, which all clients here need
            assert!(version >= 11);
            // how long to hold back, error and number of the session
            walk.at += 4 + 2 + 4;
            topics(&mut walk, &mut |walk| {
                // high watermark, last stable offset, start of the log
                walk.at += 8 + 8 + 8;
                walk.each(|walk| {
                    // of an aborted transaction, its producer and its first offset
                    walk.at += 8 + 8;
                    walk.tags();
                });
                // the node to read from, and the records
                walk.at += 4;
                walk.bytes();
            });
        }
        Some(Api::ListOffsets) => {
            assert!(version >= 4);
            // how long to hold back; of each partition the time, the offset and the leader's epoch
            walk.at += 4;
            topics(&mut walk, &mut |walk| walk.at += 8 + 8 + 4);
        }
        Some(Api::OffsetCommit) => {
            // how long to hold back, here and below
            walk.at += if version >= 3 { 4 } else { 0 };
            topics(&mut walk, &mut |_| ());
        }
        Some(Api::AddPartitionsToTxn) => {
            walk.at += 4;
            topics(&mut walk, &mut |_| ());
        }
        Some(Api::Metadata) => found = topics_of(&mut walk, version),
        Some(Api::FindCoordinator | Api::InitProducerId | Api::EndTxn) => {
            walk.at += if head.api == Some(Api::FindCoordinator) && version == 0 { 0 } else { 4 };
            found.push(walk.at);
        }
        None => {}
    }
    found
}

/// Where the error codes of topics stand in metadata.
fn topics_of(walk: &mut Walk<'_>, version: i16) -> Vec<usize> {
    assert!(version >= 9);
    let mut found = Vec::new();
    // how long to hold back; of each node its number, host, port and rack
    walk.at += 4;
    walk.each(|walk| {
        walk.at += 4;
        walk.text();
        walk.at += 4;
        walk.text();
        walk.tags();
    });
    // the cluster's id, and the number of the controller
    walk.text();
    walk.at += 4;
    walk.each(|walk| {
        found.push(walk.at);
        // the error, the name, the id, and whether it is internal
        walk.at += 2;
        walk.text();
        walk.at += 1 + if version >= 10 { 16 } else { 0 };
        walk.each(|walk| {
            // error, number of the partition, leader and its epoch; which nodes have it, in sync and offline
            walk.at += 2 + 4 + 4 + 4;
            (0..3).for_each(|_| walk.each(|walk| walk.at += 4));
            walk.tags();
        });
        // what the user may do
        walk.at += 4;
        walk.tags();
    });
    found
}

/// A reply with this error to a request that nobody but the proxy sees.
///
/// # Panics
/// For requests that change nothing: those are passed on, and their replies changed.
pub(super) fn refusal(head: &Head, request: &[u8], code: i16) -> Vec<u8> {
    head.check();
    let mut walk = Walk { bytes: request, at: head.body, has_tags: head.has_tags };
    let mut reply = Reply { bytes: head.id.to_be_bytes().to_vec(), has_tags: head.has_tags };
    reply.tags();
    match head.api {
        Some(Api::InitProducerId) => {
            // not to hold back, here and below
            reply.numbers(&[0; 4]);
            reply.numbers(&code.to_be_bytes());
            // neither a producer nor an epoch
            reply.numbers(&[0xff; 10]);
        }
        Some(Api::EndTxn) => {
            reply.numbers(&[0; 4]);
            reply.numbers(&code.to_be_bytes());
        }
        Some(Api::AddPartitionsToTxn) => {
            // the transaction's id, and the producer's id and epoch
            walk.text();
            walk.at += 8 + 2;
            reply.numbers(&[0; 4]);
            topics(&mut walk, &mut reply, code, |_, _| ());
        }
        Some(Api::Produce) => {
            assert!(head.version >= 8);
            // the transaction's id, how many nodes are to have it, and for how long to wait
            walk.text();
            walk.at += 2 + 4;
            topics(&mut walk, &mut reply, code, |walk, reply| {
                walk.bytes();
                // no offset, no time, no start of the log, no records at fault, no text
                reply.numbers(&[0xff; 24]);
                reply.length(Some(0));
                reply.short(None);
            });
            reply.numbers(&[0; 4]);
        }
        other => panic!("{other:?} is not answered by the proxy"),
    }
    reply.tags();
    reply.bytes
}

/// To each partition of a request the code, and what `more` takes and gives.
fn topics(walk: &mut Walk<'_>, reply: &mut Reply, code: i16, more: impl Fn(&mut Walk<'_>, &mut Reply)) {
    let topics = walk.count();
    reply.length(Some(topics));
    for _ in 0..topics {
        let name = walk.text().to_vec();
        reply.short(Some(&name));
        let partitions = walk.count();
        reply.length(Some(partitions));
        for _ in 0..partitions {
            // the partition's number
            reply.numbers(&walk.bytes[walk.at..walk.at + 4]);
            walk.at += 4;
            reply.numbers(&code.to_be_bytes());
            more(walk, reply);
            walk.tags();
            reply.tags();
        }
        walk.tags();
        reply.tags();
    }
}

/// A reply that grows.
struct Reply {
    bytes: Vec<u8>,
    has_tags: bool,
}

impl Reply {
    fn numbers(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: usize) {
        while number > 0x7f {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Of an array.
    fn length(&mut self, length: Option<usize>) {
        match self.has_tags {
            true => self.varint(length.map_or(0, |length| length + 1)),
            false => self.numbers(&length.map_or(-1, |length| length as i32).to_be_bytes()),
        }
    }

    /// A text, or none.
    fn short(&mut self, text: Option<&[u8]>) {
        match (self.has_tags, text) {
            (true, text) => self.length(text.map(<[u8]>::len)),
            (false, text) => self.numbers(&text.map_or(-1, |text| text.len() as i16).to_be_bytes()),
        }
        self.numbers(text.unwrap_or_default());
    }

    fn tags(&mut self) {
        if self.has_tags {
            self.bytes.push(0);
        }
    }
}

/// A walk through a message.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    has_tags: bool,
}

impl<'a> Walk<'a> {
    fn i16(&mut self) -> i16 {
        self.at += 2;
        i16::from_be_bytes([self.bytes[self.at - 2], self.bytes[self.at - 1]])
    }

    fn i32(&mut self) -> i32 {
        self.at += 4;
        i32::from_be_bytes(self.bytes[self.at - 4..self.at].try_into().unwrap())
    }

    fn varint(&mut self) -> usize {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.bytes[self.at];
            self.at += 1;
            number |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }

    /// Of a text.
    fn length(&mut self) -> Option<usize> {
        match self.has_tags {
            true => self.varint().checked_sub(1),
            false => usize::try_from(self.i16()).ok(),
        }
    }

    /// Of an array, or of bytes; 0 if there is none.
    fn count(&mut self) -> usize {
        match self.has_tags {
            true => self.varint().saturating_sub(1),
            false => usize::try_from(self.i32()).unwrap_or(0),
        }
    }

    fn text(&mut self) -> &'a [u8] {
        let length = self.length().unwrap_or(0);
        self.at += length;
        &self.bytes[self.at - length..self.at]
    }

    fn bytes(&mut self) {
        let length = self.count();
        self.at += length;
    }

    fn each(&mut self, mut one: impl FnMut(&mut Self)) {
        for _ in 0..self.count() {
            one(self);
        }
    }

    fn tags(&mut self) {
        if self.has_tags {
            for _ in 0..self.varint() {
                self.varint();
                let length = self.varint();
                self.at += length;
            }
        }
    }
}
