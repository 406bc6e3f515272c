//! The test tools: every operator driven by them, and they themselves against jobs.

mod agreement;
mod operators;
