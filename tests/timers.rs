//! Timers in whole pipelines. How they fire in one operator is tested beside the code, that they survive crashes in
//! `crash/timers.rs`.

use crate::common::{Scratch, gives, job, mix, refused};
use millstream::prelude::*;
use std::collections::BTreeMap;

const SPLITS: u64 = 3;
const RECORDS: u64 = 3000;
const KEYS: u64 = 90;
const SILENCE: Duration = Duration::from_millis(400);

/// Key and time.
type Click = (u64, i64);
/// Key, clicks, and when the session was over.
type Over = (u64, u64, i64);

/// Each key belongs to one split, in which times never go back.
fn click(split: u64, offset: u64) -> Click {
    let random = mix(split << 32 | offset);
    (random % (KEYS / SPLITS) * SPLITS + split, offset as i64 * 10 + (random >> 40) as i64 % 10)
}

#[derive(State)]
struct Session {
    clicks: ValueState<u64>,
    over: EventTimer,
}

struct Sessions;

impl Sessions {
    fn close(key: u64, session: &mut Session, over: Timestamp) -> Option<Over> {
        session.clicks.take().map(|clicks| (key, clicks, over.as_millis()))
    }
}

impl Process for Sessions {
    type Key = u64;
    type In = Click;
    type Out = Over;
    type State = Session;
    fn on_record(
        &self,
        (key, at): Click,
        session: &mut Session,
        cx: &mut Context<'_, u64, Over>,
    ) -> Result<(), BoxError> {
        assert_eq!((*cx.key(), cx.time().as_millis()), (key, at));
        assert!(cx.watermark() < cx.time(), "the record would be late");
        // the record may come before the watermark that ends the session
        if let Some(over) = session.over.at().filter(|over| *over <= cx.time()) {
            Self::close(key, session, over).into_iter().for_each(|over| cx.emit(over));
        }
        *session.clicks.or_default() += 1;
        session.over.set(cx.time() + SILENCE);
        Ok(())
    }
    fn on_timer(&self, session: &mut Session, cx: &mut Context<'_, u64, Over>) -> Result<(), BoxError> {
        assert_eq!(session.over.fired(), Some(cx.time()));
        assert!(cx.watermark() >= cx.time());
        Self::close(*cx.key(), session, cx.time()).into_iter().for_each(|over| cx.emit(over));
        Ok(())
    }
}

#[test]
fn sessions_are_over_when_nothing_came_for_a_while() {
    let mut open: BTreeMap<u64, (u64, i64)> = BTreeMap::new();
    let mut expect: Vec<Over> = Vec::new();
    let silence = SILENCE.as_millis() as i64;
    for (key, at) in (0..SPLITS).flat_map(|split| (0..RECORDS).map(move |offset| click(split, offset))) {
        let (clicks, over) = open.entry(key).or_default();
        if *clicks > 0 && *over <= at {
            expect.push((key, std::mem::take(clicks), *over));
        }
        (*clicks, *over) = (*clicks + 1, at + silence);
    }
    expect.extend(open.into_iter().map(|(key, (clicks, over))| (key, clicks, over)));
    assert!(expect.len() > KEYS as usize * 3, "few sessions end before the input does");
    let build = |t: &Topology, sink| {
        t.source("clicks", Generator::new(click).splits(SPLITS).count(RECORDS))
            .event_time(|(_, at)| Timestamp::from_millis(*at), Watermarks::monotonous())
            .key_by(|(key, _)| key)
            .process("sessions", Sessions)
            .sink("over", sink);
    };
    gives(build, expect);
}

#[test]
fn timers_in_event_time_over_records_without_one_are_refused() {
    let scratch = Scratch::new();
    let error = refused(job(&scratch, |t| {
        t.source("clicks", Records::of([(1, 1)])).key_by(|(key, _)| key).process("sessions", Sessions).discard();
        Ok(())
    }));
    let text = error.to_string();
    assert!(text.contains("`sessions` at tests/timers.rs:"), "{text}");
    assert!(text.contains("works in event time, but its records have none: write `.event_time("), "{text}");
}
