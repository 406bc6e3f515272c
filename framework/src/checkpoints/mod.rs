//! Checkpoints: how one is taken, decided, restored and thrown away. Types and decisions are pure; I/O is in
//! `store.rs`. Who carries the commands out (sending barriers, loading state) is the runtime, which this folder does
//! not know.
//!
//! | file | what | pure |
//! |---|---|---|
//! | `manifest.rs` | M(n), the file that is a checkpoint, and how parts become one | yes |
//! | `listing.rs` | the names in the directory of checkpoints | yes |
//! | `recover.rs` | what to resume from: the recovery table | yes |
//! | `record.rs` | its rows where sinks decide | yes |
//! | `outlook.rs` | what the next start will do, for those who look | yes |
//! | `protocol.rs` | the coordinator: events in, commands out | yes |
//! | `collect.rs` | what may be deleted | yes |
//! | `directory.rs` | the job directory, read only: listing, verifying | no |
//! | `store.rs` | the job directory: writing, deleting | no |
//! | `hold.rs` | its lock, and the mark of a job that was renamed | no |
//! | `log.rs` | where checkpoints are decided: the directory, or the log of sinks | no |
//!
//! # The protocol
//! The rules were checked by an explicit-state model; [Hx], [Mx], [Kx] name what goes wrong without them. I1 to I5 are
//! the invariants below. Change nothing here without the model.
//!
//! 0. GENESIS. Checkpoint 0 (start offsets as numbers, no output) is decided before any record flows [H7]. So is the
//!    first checkpoint of a job that goes back to an older one [H16].
//! 1. Epoch n starts once n-1 is decided and finished: never two checkpoints at a time [I2]. Each source, between
//!    polls, records the offset of each split and sends barrier n. An epoch in which nothing was read is not taken, but
//!    for a last one if results are to come of what was read before.
//! 2. A subtask aligns barrier n on its inputs, forwards it before any later record, freezes its state, goes on, and
//!    acks when its snapshot is durable.
//! 3. Sinks prepare n: all of epoch n is written where it can be taken back. Until n is decided they send nothing of
//!    n+1 [M11].
//! 4. When all acks are in and all of n-1 is finished [H2, H3], M(n) is written: temporary file, fsync, rename to
//!    `manifest-<n>-<attempt>`, fsync of the directory. It is never overwritten, renamed or moved [H8].
//! 5. THE DECISION. Without a sink that decides: the return of that fsync [H4]. With one: its commit.
//! 6. Sinks commit, idempotently; sources may show their offsets; a marker `decided-<n>` is written; old checkpoints
//!    are collected: M(n) and its `keep` - 1 nearest ancestors by hash stay [K1], with what they need [K2, M12], and so
//!    does everything of epochs from n on [H10, H11].
//!
//! I1 a decision is asked for only when M(n) is durable. I2 M(n+1) is not written and barrier n+1 not sent before n is
//! known decided and finished. I3 at most one producer of a transactional log can commit. I4 nothing a recovery may
//! need is ever deleted. I5 decisions form a chain by hash.
//!
//! # Recovery
//! A *claim* is the newest record R once more, with the instance of this process, alone in a transaction: it says whose
//! the job is. A process makes one in its life; its genesis counts as one. Where the directory decides, the lock says
//! that, and steps 0, 3, 4 and 6 are nothing to do.
//!
//! 0. Only in a process that has run before. If its claim is not known to be decided it yields, and never fences back
//!    [C10]. Else it looks, without fencing, whose the newest record is, an undecided one included [C3]: another
//!    instance's, then it is superseded [C2]; its own, then it goes on.
//! 1. [`Store::open`]: lock the job directory. A recovery in place keeps the lock. R is looked at as a hint: what is
//!    sure to be refused is refused before a job that runs elsewhere is fenced.
//! 2. [`Store::list`] and the sinks' `inspect`: list, and make the names durable before acting on any of them [H5].
//! 3. Fence: no earlier producer can decide any more, and what they left open is settled.
//! 4. Read R, only now [M8]. If this process has claimed and R is another instance's, it is superseded [C4].
//! 5. [`recover`] decides. [`Store::verify`] what it says to restore, before anything else is done; if it is damaged,
//!    [`Facts::note_damage`] and ask again. Refusals are final and touch nothing. What that is likely to be is known
//!    since step 2, so it is read while the others are asked.
//! 6. Claim, unless this process has. Only a known decision counts; else it yields [C8, C10]. Before it no record flows
//!    [C5], nothing is cleared away [C7], and no refusal comes after it [C6].
//! 7. Finish the committables of the restored M(n), fsync [H1]. Then [`clean_after_restore`] on the listing of step 2,
//!    and the sinks' `clean`. **If the job goes back (`announce`) or starts above what was there (`first` > 0), the
//!    sinks' `clean` waits until that checkpoint is decided and finished [H16]**; the plan for the directory sees to it
//!    itself.
//! 8. A new attempt runs: [`Coordinator`] with [`Start::of`] the decision. Once it has finished a checkpoint,
//!    recoveries in place use [`Restore::Latest`], whatever the user ordered: the order has been carried out.

mod collect;
mod directory;
#[cfg(test)]
mod fuzz_test;
mod hold;
mod listing;
mod log;
mod manifest;
mod outlook;
mod protocol;
mod record;
mod recover;
mod store;
mod verify;

pub(crate) use collect::{clean_after_restore, collect};
pub(crate) use directory::Directory;
pub(crate) use hold::{Hold, Renamed};
pub(crate) use listing::{Listed, Listing};
pub(crate) use log::Log;
pub(crate) use manifest::{Damage, Former, GateTime, Head, Manifest, Part, SplitSnapshot, SplitTime};
pub(crate) use outlook::{Outlook, outlook};
pub(crate) use protocol::{Command, Coordinator, Event, Participant, Participants, Settings, Start};
pub(crate) use record::{Record, hint, newest_decided, refuse_gone};
pub(crate) use recover::{Decision, Facts, Restore, Shown, recover};
pub(crate) use store::{Removal, Store};
pub(crate) use verify::Verification;
