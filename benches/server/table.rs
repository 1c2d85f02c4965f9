//! The table that the benchmarks print at the end.

/// One figure.
pub struct Row {
    pub name: String,
    pub figure: String,
    /// The comparison, measured in the same run.
    pub compared: String,
    /// The figure divided by the comparison, or by the limit.
    pub ratio: Option<f64>,
    pub limit: String,
    /// Whether the figure is within its limit; `None` if it has none.
    pub fine: Option<bool>,
}

impl Row {
    /// A figure without a limit.
    pub fn new(name: impl Into<String>, figure: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            figure: figure.into(),
            compared: String::new(),
            ratio: None,
            limit: String::new(),
            fine: None,
        }
    }

    pub fn beside(mut self, compared: impl Into<String>) -> Self {
        self.compared = compared.into();
        self
    }

    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    pub fn limit(mut self, limit: impl Into<String>, fine: bool) -> Self {
        self.limit = limit.into();
        self.fine = Some(fine);
        self
    }
}

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    failures: usize,
}

impl Table {
    pub fn extend(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// Records a part that failed; the reason is on standard error.
    pub fn failed(&mut self, part: &str) {
        self.rows.push(Row::new(part, "FAILED"));
        self.failures += 1;
    }

    pub fn has_failure(&self) -> bool {
        self.failures > 0
    }

    pub fn is_over(&self) -> bool {
        self.rows.iter().any(|row| row.fine == Some(false))
    }

    pub fn print(&self) {
        let head = ["what", "figure", "compared with", "ratio", "limit", ""].map(str::to_owned);
        let lines: Vec<[String; 6]> = std::iter::once(head).chain(self.rows.iter().map(cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for line in &lines {
            let padded = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        }
    }
}

fn cells(row: &Row) -> [String; 6] {
    let verdict = match row.fine {
        Some(true) => "ok",
        Some(false) => "OVER",
        None => "",
    };
    [
        row.name.clone(),
        row.figure.clone(),
        row.compared.clone(),
        row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        row.limit.clone(),
        verdict.to_owned(),
    ]
}
