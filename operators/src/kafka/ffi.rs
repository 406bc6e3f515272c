//! All of Kafka that the safe client does not offer, and all of its `unsafe`: queues to which partitions are forwarded,
//! taking messages from them in batches, looking at a message in place, asking for the ids of topics, and waiting for
//! what a producer has on its way.
//!
//! What the functions below rely on: pointers come from librdkafka and are used while the client they belong to lives
//! (each value here holds an `Arc` of it), each is given back exactly once (in `Drop`), and librdkafka may be called
//! from any thread.

use super::client::Client;
use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientContext, TopicPartitionList};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// What librdkafka calls when a queue that was empty is so no more; from a thread of its own, with a lock held.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

/// A queue of messages of some partitions.
pub(crate) struct Queue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    /// Behind a pointer that librdkafka holds, hence boxed.
    _wake: Box<Wake>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues have a lock of their own and may be used from any thread, by several at once.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

unsafe extern "C" fn woken(_: *mut rd::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: `wake` is the pointer that `Queue::new` gave, to a `Wake` that lives until `Queue::drop` has taken this
    // callback away; librdkafka calls it with the lock of the queue held, so never after that.
    let wake = unsafe { &*wake.cast::<Wake>() };
    wake();
}

impl Queue {
    pub(crate) fn new(client: Arc<Client>, wake: Wake) -> Option<Self> {
        // SAFETY: the client is alive; the result is checked for null.
        let queue = NonNull::new(unsafe { rd::rd_kafka_queue_new(client.client().native_ptr()) })?;
        let wake = Box::new(wake);
        let opaque: *const Wake = &*wake;
        // SAFETY: the queue is alive, and what `opaque` points to stays where it is until `drop`.
        unsafe { rd::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(woken), opaque.cast_mut().cast()) };
        Some(Self { queue, _wake: wake, client })
    }

    /// From now on what is fetched of this partition comes to this queue. False if the topic cannot be named.
    pub(crate) fn attach(&self, topic: &str, partition: i32) -> bool {
        let Ok(topic) = CString::new(topic) else { return false };
        // SAFETY: the client is alive and the name is a C string; the result is checked for null.
        let own =
            unsafe { rd::rd_kafka_queue_get_partition(self.client.client().native_ptr(), topic.as_ptr(), partition) };
        let Some(own) = NonNull::new(own) else { return false };
        // SAFETY: both queues are alive; forwarding takes a reference of its own to the target, and `own` is a
        // reference of ours, which is given back.
        unsafe {
            rd::rd_kafka_queue_forward(own.as_ptr(), self.queue.as_ptr());
            rd::rd_kafka_queue_destroy(own.as_ptr());
        }
        true
    }

    /// Takes up to `most` messages that are there, or waits up to `wait` for that many; appends them.
    pub(crate) fn take(&self, most: usize, wait: Duration, into: &mut Messages) -> usize {
        into.messages.reserve(most);
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let free = into.messages.spare_capacity_mut().as_mut_ptr();
        // SAFETY: `free` has room for `most` pointers, of which librdkafka writes as many as it says, none of them
        // null; a failure is -1, and nothing is written. `NonNull` has the layout of a pointer.
        let taken = unsafe {
            let taken = rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), wait_ms, free.cast(), most);
            let taken = usize::try_from(taken).unwrap_or(0);
            into.messages.set_len(into.messages.len() + taken);
            taken
        };
        into.client.get_or_insert_with(|| self.client.clone());
        taken
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is alive; without the callback nothing points to `wake` any more. This is the one place
        // that gives the reference back.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, std::ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Commits offsets to the consumer group, and tells when that is done.
pub(crate) struct Commits {
    /// Where the outcome comes.
    queue: NonNull<rd::rd_kafka_queue_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues have a lock of their own and may be used from any thread, by several at once.
unsafe impl Send for Commits {}
// SAFETY: as above.
unsafe impl Sync for Commits {}

impl Commits {
    pub(crate) fn new(client: Arc<Client>) -> Option<Self> {
        // SAFETY: the client is alive; the result is checked for null.
        let queue = NonNull::new(unsafe { rd::rd_kafka_queue_new(client.client().native_ptr()) })?;
        Some(Self { queue, client })
    }

    /// Sends them, and does not wait.
    pub(crate) fn begin(&self, offsets: &TopicPartitionList) -> Result<(), RDKafkaErrorCode> {
        let native = self.client.client().native_ptr();
        // SAFETY: client, list and queue are alive; librdkafka copies the list, and without a callback it needs no
        // pointer of ours.
        let err = unsafe {
            rd::rd_kafka_commit_queue(native, offsets.ptr(), self.queue.as_ptr(), None, std::ptr::null_mut())
        };
        ok(err)
    }

    /// The outcome of one, if there is any.
    pub(crate) fn done(&self) -> Option<Result<(), RDKafkaErrorCode>> {
        // SAFETY: the queue is alive; the event is ours, given back below after the last look at it. The list belongs
        // to it, or is null.
        unsafe {
            let event = NonNull::new(rd::rd_kafka_queue_poll(self.queue.as_ptr(), 0))?;
            let mut done = ok(rd::rd_kafka_event_error(event.as_ptr()));
            if let Some(list) = NonNull::new(rd::rd_kafka_event_topic_partition_list(event.as_ptr())) {
                let list = list.as_ref();
                let count = usize::try_from(list.cnt).unwrap_or(0);
                let each = if list.elems.is_null() { &[][..] } else { std::slice::from_raw_parts(list.elems, count) };
                done = each.iter().fold(done, |done, one| done.and(ok(one.err)));
            }
            rd::rd_kafka_event_destroy(event.as_ptr());
            Some(done)
        }
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        // SAFETY: the queue is alive, and this is the one place that gives the reference back.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

fn ok(err: rd::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match err {
        rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        err => Err(err.into()),
    }
}

/// Messages that were taken, each where it was fetched to.
#[derive(Default)]
pub(crate) struct Messages {
    messages: Vec<NonNull<rd::rd_kafka_message_t>>,
    /// They must not outlive it; none as long as there is no message.
    client: Option<Arc<Client>>,
}

// SAFETY: messages are owned by whoever took them and may be read and given back on any thread.
unsafe impl Send for Messages {}

impl Messages {
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn get(&self, i: usize) -> Option<Message<'_>> {
        // SAFETY: the pointers are valid until they are given back, which needs `&mut self`.
        self.messages.get(i).map(|message| Message(unsafe { message.as_ref() }))
    }

    /// Gives all of them back.
    pub(crate) fn clear(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each was taken from a queue and leaves the list here.
            unsafe { rd::rd_kafka_message_destroy(message.as_ptr()) };
        }
        self.client = None;
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A message in place: a record, or what is to be known of a partition (`error`).
#[derive(Clone, Copy)]
pub(crate) struct Message<'a>(&'a rd::rd_kafka_message_t);

impl<'a> Message<'a> {
    /// None of a record.
    #[inline]
    pub(crate) fn error(self) -> Option<rd::rd_kafka_resp_err_t> {
        Some(self.0.err).filter(|err| *err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
    }

    /// The text of an error.
    pub(crate) fn error_text(self) -> String {
        // SAFETY: the message is alive; the text is a C string that lives as long, or null.
        let text = unsafe { NonNull::new(rd::rd_kafka_message_errstr(self.0).cast_mut()) };
        // SAFETY: as above.
        text.map_or_else(String::new, |text| unsafe { c_text(text.as_ptr()) })
    }

    /// Tells topics apart, as long as their partitions are assigned.
    #[inline]
    pub(crate) fn topic_id(self) -> usize {
        self.0.rkt as usize
    }

    pub(crate) fn topic(self) -> &'a str {
        if self.0.rkt.is_null() {
            return "";
        }
        // SAFETY: the message holds its topic, whose name is a C string that lives as long; names are ASCII.
        unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(self.0.rkt)) }.to_str().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn partition(self) -> i32 {
        self.0.partition
    }

    #[inline]
    pub(crate) fn offset(self) -> i64 {
        self.0.offset
    }

    #[inline]
    pub(crate) fn key(self) -> Option<&'a [u8]> {
        bytes(self.0.key, self.0.key_len)
    }

    #[inline]
    pub(crate) fn value(self) -> Option<&'a [u8]> {
        bytes(self.0.payload, self.0.len)
    }

    /// Milliseconds since 1970; none if the record has no time.
    pub(crate) fn timestamp_ms(self) -> Option<i64> {
        // SAFETY: the message is alive; the kind of the time is not asked for.
        let ms = unsafe { rd::rd_kafka_message_timestamp(self.0, std::ptr::null_mut()) };
        Some(ms).filter(|ms| *ms >= 0)
    }

    /// The header at a place. librdkafka takes them apart when they are asked for first.
    pub(crate) fn header(self, i: usize) -> Option<(&'a str, Option<&'a [u8]>)> {
        let mut headers = std::ptr::null_mut();
        let (mut name, mut value, mut size) = (std::ptr::null::<c_char>(), std::ptr::null::<c_void>(), 0);
        let none = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        // SAFETY: the message is alive, and so are its headers and what they point to until it is given back; the
        // results are read only where librdkafka says that it has written them.
        unsafe {
            if rd::rd_kafka_message_headers(self.0, &mut headers) != none
                || rd::rd_kafka_header_get_all(headers, i, &mut name, &mut value, &mut size) != none
            {
                return None;
            }
            let name = CStr::from_ptr(name).to_str().unwrap_or_default();
            Some((name, bytes(value.cast_mut(), size)))
        }
    }
}

/// Bytes that librdkafka points to.
#[inline]
fn bytes<'a>(start: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: private to this file: start and length come from one message, which keeps the bytes as long as it lives;
    // null means that there is nothing, which is not the same as nothing in it.
    NonNull::new(start.cast::<u8>()).map(|start| unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
}

/// # Safety
/// A C string.
unsafe fn c_text(text: *const c_char) -> String {
    // SAFETY: so the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Waits until nothing is on its way from this producer, at most so long; meanwhile nothing lingers. Whether that came.
/// Its events have to be served by another thread.
pub(crate) fn flush<C: ClientContext>(producer: &rdkafka::client::Client<C>, wait: Duration) -> bool {
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive, and librdkafka may be called from any thread.
    let err = unsafe { rd::rd_kafka_flush(producer.native_ptr(), wait_ms) };
    err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The oldest offset of a partition and its high watermark, as of the last answer of its broker; less than 0 before.
pub(crate) fn watermarks(client: &Client, topic: &str, partition: i32) -> Option<(i64, i64)> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    let native = client.client().native_ptr();
    // SAFETY: the client is alive, the name is a C string, and the results are plain numbers.
    let err = unsafe { rd::rd_kafka_get_watermark_offsets(native, topic.as_ptr(), partition, &mut low, &mut high) };
    (err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then_some((low, high))
}

/// The ids of topics, as Kafka's tools print them; none of a topic of which the broker does not tell one.
///
/// # Errors
/// The code of what went wrong.
pub(crate) fn topic_ids(
    client: &Client,
    topics: &[String],
    wait: Duration,
) -> Result<Vec<Option<String>>, rd::rd_kafka_resp_err_t> {
    let failed = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG;
    let names: Vec<_> =
        topics.iter().map(|topic| CString::new(&**topic)).collect::<Result<_, _>>().map_err(|_| failed)?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive, the names outlive the call; what is made here is given back below, on each path
    // once, the event last, for what the result points to belongs to it.
    unsafe {
        let native = client.client().native_ptr();
        let wanted = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = rd::rd_kafka_AdminOptions_new(native, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, std::ptr::null_mut(), 0);
        let queue = rd::rd_kafka_queue_new(native);
        rd::rd_kafka_DescribeTopics(native, wanted, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, wait_ms.saturating_add(1000));
        let found = described(event);
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_TopicCollection_destroy(wanted);
        let found = found?;
        Ok(topics.iter().map(|topic| found.iter().find(|(name, _)| name == topic).map(|(_, id)| id.clone())).collect())
    }
}

/// # Safety
/// An event of `rd_kafka_queue_poll`, or null.
unsafe fn described(event: *mut rd::rd_kafka_event_t) -> Result<Vec<(String, String)>, rd::rd_kafka_resp_err_t> {
    let none = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    if event.is_null() {
        return Err(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT);
    }
    // SAFETY: the event is alive, and all that is looked at here belongs to it; librdkafka gives null for a result of
    // another kind, and the number of topics with the array of them.
    unsafe {
        let error = rd::rd_kafka_event_error(event);
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if error != none || result.is_null() {
            return Err(if error == none { rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__FAIL } else { error });
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let topics = if topics.is_null() { &[][..] } else { std::slice::from_raw_parts(topics, count) };
        let mut found = Vec::new();
        for topic in topics {
            let failed = rd::rd_kafka_TopicDescription_error(*topic);
            let id = rd::rd_kafka_TopicDescription_topic_id(*topic);
            if (failed.is_null() || rd::rd_kafka_error_code(failed) == none) && !id.is_null() {
                let id = rd::rd_kafka_Uuid_base64str(id);
                let name = rd::rd_kafka_TopicDescription_name(*topic);
                found.push((c_text(name), c_text(id)));
            }
        }
        Ok(found)
    }
}
