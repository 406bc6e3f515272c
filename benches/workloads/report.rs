//! The table of results: each figure with the baseline of the same run, the ratio, and what it is held to.

use std::fmt::Write as _;

/// What a row is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// At least: must, stretch.
    AtLeast(f64, f64),
    /// At most: must, stretch.
    AtMost(f64, f64),
    /// Reported only.
    None,
}

impl Bar {
    fn text(self) -> String {
        match self {
            Self::AtLeast(must, stretch) => format!(">= {must} / {stretch}"),
            Self::AtMost(must, stretch) => format!("<= {must} / {stretch}"),
            Self::None => "-".into(),
        }
    }

    fn verdict(self, value: f64) -> &'static str {
        let (must, stretch) = match self {
            Self::AtLeast(must, stretch) => (value >= must, value >= stretch),
            Self::AtMost(must, stretch) => (value <= must, value <= stretch),
            Self::None => return "-",
        };
        match (must, stretch) {
            (_, true) => "stretch",
            (true, false) => "must",
            (false, false) => "MISSED",
        }
    }
}

/// One line of the table. What the bar is compared with stands in `value`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) figure: String,
    pub(crate) baseline: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) bar: Bar,
    pub(crate) note: String,
}

const HEAD: [&str; 7] = ["workload", "figure", "baseline", "result", "must / stretch", "verdict", "notes"];

impl Row {
    fn cells(&self) -> [String; 7] {
        let result = format!("{:.2}{}", self.value, self.unit);
        let (bar, verdict) = (self.bar.text(), self.bar.verdict(self.value).to_owned());
        [self.name.into(), self.figure.clone(), self.baseline.clone(), result, bar, verdict, self.note.clone()]
    }
}

/// The rows as an aligned table.
pub(crate) fn table(rows: &[Row]) -> String {
    let lines: Vec<[String; 7]> = std::iter::once(HEAD.map(String::from)).chain(rows.iter().map(Row::cells)).collect();
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}
