//! How far an audit is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::ui;

/// So often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(200);
/// So often a line is written where there is no bar.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Progress through so many blocks, or whatever is counted.
pub struct Progress {
    bar: ProgressBar,
    unit: &'static str,
    told: Instant,
}

impl Progress {
    pub fn new(length: u64, unit: &'static str) -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let style = format!("{{bar:30}} {unit} {{pos}} of {{len}}, {{per_sec}}, {{eta}} left");
        let style =
            ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style);
        bar.enable_steady_tick(REDRAW);
        Self { bar, unit, told: Instant::now() }
    }

    /// So many are done.
    pub fn at(&mut self, position: u64) {
        self.bar.set_position(position);
        if self.bar.is_hidden() && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let (unit, of) = (self.unit, self.bar.length().unwrap_or_default());
            let left = HumanDuration(self.bar.eta());
            ui::note(format!("{unit} {position} of {of}, about {left} left"));
        }
    }

    /// Leaves no trace on a terminal.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
