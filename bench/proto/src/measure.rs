use std::time::{Duration, Instant};

/// One path: ours beside its limit.
pub struct Row {
    /// For people and for the gate: no spaces.
    pub name: &'static str,
    /// What the limit is.
    pub limit: &'static str,
    /// The ratio that must not be exceeded, and the one to reach for.
    pub bar: f64,
    pub stretch: f64,
    pub ours: Path,
    pub theirs: Path,
}

/// Something to run again and again.
pub struct Path {
    run: Box<dyn FnMut()>,
    /// How many of what is measured one run does.
    batch: u32,
}

impl Path {
    pub fn new(run: impl FnMut() + 'static) -> Self {
        Self::batch(1, run)
    }

    /// For what has a beginning that is not to count.
    pub fn batch(batch: usize, run: impl FnMut() + 'static) -> Self {
        Self { run: Box::new(run), batch: batch as u32 }
    }

    pub fn run(&mut self) {
        (self.run)();
    }

    /// The time of one, by `n` runs in a row.
    fn time(&mut self, n: u32) -> f64 {
        let start = Instant::now();
        (0..n).for_each(|_| self.run());
        start.elapsed().as_nanos() as f64 / f64::from(n * self.batch)
    }

    /// How many runs take about as long as a turn.
    fn runs(&mut self) -> u32 {
        let once = self.time(10) * f64::from(self.batch);
        ((TURN.as_nanos() as f64 / once) as u32).clamp(1, 1_000_000)
    }
}

/// How often the two take turns.
const ROUNDS: u32 = 60;
/// How long one turn takes, about.
const TURN: Duration = Duration::from_millis(2);

/// Prints the rows whose name has `part` in it.
pub fn table(rows: Vec<Row>, part: &str) {
    println!(
        "{:<26} {:>10} {:>10}  {:>6} {:>6} {:>7}  limit",
        "path", "ours", "limit", "ratio", "bar", "stretch"
    );
    let mut over = 0;
    for mut row in rows.into_iter().filter(|row| row.name.contains(part)) {
        let (our_runs, their_runs) = (row.ours.runs(), row.theirs.runs());
        let (mut ours, mut theirs) = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            ours = ours.min(row.ours.time(our_runs));
            theirs = theirs.min(row.theirs.time(their_runs));
        }
        let ratio = ours / theirs;
        over += u32::from(ratio > row.bar);
        let verdict = match ratio {
            ratio if ratio <= row.stretch => "stretch",
            ratio if ratio <= row.bar => "",
            _ => "OVER",
        };
        println!(
            "{:<26} {ours:>7.0} ns {theirs:>7.0} ns  {ratio:>6.3} {:>6} {:>7}  {} {verdict}",
            row.name, row.bar, row.stretch, row.limit
        );
    }
    println!("{over} over the bar");
}
