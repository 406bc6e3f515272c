//! Decisions in Kafka, driven directly.
