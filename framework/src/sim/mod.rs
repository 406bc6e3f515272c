//! Simulations: processes of the real runtime, coordinator, recovery, decisions, subtasks and all, on disks and with a
//! broker in memory, in time that passes only when nobody has anything to do, all in one thread and by one seed. What a
//! seed gives it gives again.
//!
//! A world has one machine, or two if the job is taken over on a copy of its directory, or one on which the lock does
//! not hold (`world.rs`); what the processes run is in `pipeline.rs`. Faults come while there are some left: processes
//! die between any two steps, at any change of the disk or any call of the broker (`broker.rs`), before or after it;
//! the power goes; disks fail; answers are lost or late; people delete and damage things. When there are none left the
//! job has to come to its end, and each record must be visible, once (`output.rs`).
//!
//! In place of RocksDB there are sorted rows in memory, kept on the simulated disk (`state/memory.rs`); limits are so
//! small that rows leave memory, are folded and are read in files all the time.
//!
//! The same is run with each rule of the protocol broken (`mutant.rs`), and has to go wrong (`tests.rs`).

mod broker;
mod output;
mod parts;
mod pipeline;
mod tests;
mod world;
