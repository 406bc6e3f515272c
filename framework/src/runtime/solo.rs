//! All subtasks of a plan in the calling thread: no coordinator, no workers, no disk. They are driven in `testing/`.

use super::recovery::fit;
use super::wiring::{Common, Switchboard, wire};
use super::worker::{Shared, make};
use crate::config::Settings;
use crate::subtask::{Assignment, Command, Life, Reports};
use crate::topology::{Kind, Plan};
use crate::{Attempt, Error, Timestamp};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Subtasks that have been told to let records flow.
pub(crate) struct Solo {
    shared: Arc<Shared>,
    /// While it is there nobody takes the attempt for over.
    _board: Switchboard,
}

impl Solo {
    /// The subtasks' lives, to be polled in the calling thread. Each source has one subtask, and the split 0.
    pub(crate) fn start(job: &str, plan: Plan, settings: &Settings) -> Result<(Self, Vec<Life>), Error> {
        let (reports, _) = mpsc::unbounded_channel();
        let common = Common::new(&plan, job, Attempt::draw(), 0, settings.budget(false), Reports(reports));
        let one = || vec![vec![Assignment { split: Value::from(0), ..Assignment::default() }]];
        let nodes = plan.graph.nodes.iter().enumerate();
        let sources = nodes.filter(|(_, node)| matches!(node.kind, Kind::Source(_)));
        let splits = sources.map(|(node, _)| (node, one())).collect();
        let (specs, board) = wire(&plan, splits, &[], None);
        let operators = fit(&plan, None)?;
        let shared = Arc::new(Shared {
            plan,
            common,
            state: None,
            operators,
            restored: None,
            snapshots: Vec::new(),
            items: Vec::new(),
            checkpoints: PathBuf::new(),
            cache_bytes: usize::MAX,
            cache_rows: None,
        });
        let lives = specs.into_iter().map(|spec| make(&shared, spec)).collect::<Result<_, _>>()?;
        board.sources(&Command::Run);
        Ok((Self { shared, _board: board }, lives))
    }

    /// The watermark that has reached all subtasks of a node.
    pub(crate) fn watermark(&self, node: usize) -> Timestamp {
        let counters = &self.shared.common.counters[node];
        counters.iter().map(|c| c.watermark.get()).min().flatten().unwrap_or(Timestamp::MIN)
    }
}
