//! What becomes of a record that cannot be written: pure.

use super::message::{ERROR, KafkaMessage};

/// How long the text of an error may get, in bytes.
const ERROR_BYTES_MAX: usize = 1000;

/// Where it was to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) job: &'a str,
    pub(super) sink: &'a str,
    pub(super) topic: &'a str,
}

/// The dead letter of a record: key, value and headers as they were, as far as they fit into `bytes_max`, and headers
/// that say what is wrong, and where it was to go.
pub(super) fn dead_letter(message: KafkaMessage, why: &str, place: Place<'_>, bytes_max: usize) -> KafkaMessage {
    let end = (0..=why.len().min(ERROR_BYTES_MAX)).rev().find(|end| why.is_char_boundary(*end)).unwrap_or(0);
    let (size, value) = (message.size(), message.get_value().map_or(0, <[u8]>::len));
    let head = KafkaMessage::tombstone()
        .header(ERROR, &why[..end])
        .header("millstream.job", place.job)
        .header("millstream.sink", place.sink)
        .header("millstream.topic", place.topic);
    // one more header, if the value is cut off
    let mut room = bytes_max.saturating_sub(head.size() + 64);
    let mut dead = message;
    if size - value > room {
        let mut key = dead.take_key();
        dead.drop_headers();
        if let Some(key) = &mut key {
            dead = dead.header("millstream.key.bytes", key.len().to_string());
            key.truncate(room / 4);
        }
        dead = match key {
            Some(key) => dead.key(key),
            None => dead,
        };
    }
    room = room.saturating_sub(dead.size() - value);
    let dead = dead.into_dead_letter(room);
    head.get_headers().fold(dead, |dead, (name, value)| dead.header(name, value.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::kafka::message::VALUE_BYTES;
    use std::collections::BTreeMap;

    const PLACE: Place<'_> = Place { job: "shop", sink: "out", topic: "orders" };

    fn headers(message: &KafkaMessage) -> BTreeMap<&str, String> {
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        message.get_headers().map(|(name, value)| (name, text(value))).collect()
    }

    #[test]
    fn says_what_where_and_why() {
        let message = KafkaMessage::text("value").key("key").header("mine", "1");
        let dead = dead_letter(message, "it is wrong", PLACE, 10_000);
        assert_eq!((dead.get_key(), dead.get_value()), (Some(&b"key"[..]), Some(&b"value"[..])));
        let headers = headers(&dead);
        let expected = [
            (ERROR, "it is wrong"),
            ("millstream.job", "shop"),
            ("millstream.sink", "out"),
            ("millstream.topic", "orders"),
            ("mine", "1"),
        ];
        assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())).into());
    }

    #[test]
    fn fits_whatever_is_large() {
        let large = "x".repeat(100_000);
        for (message, why) in [
            (KafkaMessage::text(&large).key("k"), "short"),
            (KafkaMessage::text("v").key(&large), "short"),
            (KafkaMessage::text(&large).key(&large).header("mine", &large), "short"),
            (KafkaMessage::tombstone().key(&large), &*"ä".repeat(5000)),
        ] {
            let dead = dead_letter(message, why, PLACE, 4000);
            assert!(dead.size() <= 4000, "{}", dead.size());
            assert!(!headers(&dead)[ERROR].is_empty());
        }
        let dead = dead_letter(KafkaMessage::text(&large).key("k"), "short", PLACE, 4000);
        assert_eq!(headers(&dead)[VALUE_BYTES], "100000");
        assert!(dead.get_value().unwrap().len() > 3000);
    }
}
