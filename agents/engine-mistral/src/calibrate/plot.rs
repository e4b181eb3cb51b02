//! Charts as SVG: lines over one or two logarithmic axes, with a legend beside them.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;
/// Colours that are told apart with any colour vision (Okabe and Ito), and two more.
pub const COLOURS: [&str; 10] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a8a00",
    "#7a4fbf", "#8c564b",
];

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    pub label: &'static str,
    pub low: f64,
    pub high: f64,
    pub logarithmic: bool,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub dashed: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// Places on the x axis that are marked, with their names.
    pub marks: Vec<(f64, String)>,
}

impl Axis {
    /// Where a value lies between the ends, 0 to 1; what is beyond an end lies at it.
    fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.low.log10().ceil() as i32)..=(self.high.log10().floor() as i32);
            decades.map(|power| 10_f64.powi(power)).collect()
        } else {
            (0..=4)
                .map(|quarter| self.low + (self.high - self.low) * f64::from(quarter) / 4.0)
                .collect()
        }
    }
}

fn number(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if value.abs() >= 1e5 || value.abs() < 1e-3 {
        format!("{value:.0e}")
    } else {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Chart {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// The whole file.
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"bold\">{}</text>",
            escaped(&self.title)
        );
        self.axes(&mut svg);
        for (place, name) in &self.marks {
            let (x, top, bottom) = (self.x(*place), TOP, HEIGHT - BOTTOM);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#555\" stroke-dasharray=\"2 3\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\" font-size=\"11\">{}</text>",
                x + 3.0,
                top + 11.0,
                escaped(name)
            );
        }
        for (index, (line, colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let path: Vec<String> = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y)))
                .collect();
            let dashes = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
            let legend = TOP + 10.0 + 20.0 * index as f64;
            let left = WIDTH - RIGHT + 14.0;
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dashes} points=\"{}\"/>\
                 <line x1=\"{left}\" x2=\"{}\" y1=\"{legend}\" y2=\"{legend}\" stroke=\"{colour}\" stroke-width=\"2.5\"{dashes}/>\
                 <text x=\"{}\" y=\"{}\">{}</text>",
                path.join(" "),
                left + 22.0,
                left + 28.0,
                legend + 4.0,
                escaped(&line.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in self.x.ticks() {
            let x = self.x(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#e4e4e4\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                number(tick)
            );
        }
        for tick in self.y.ticks() {
            let y = self.y(tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                number(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#333\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(15 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            right - LEFT,
            bottom - TOP,
            (LEFT + right) / 2.0,
            HEIGHT - 12.0,
            escaped(self.x.label),
            (TOP + bottom) / 2.0,
            escaped(self.y.label)
        );
    }
}

/// The share of values beyond each of `places`.
pub fn beyond(values: &mut [f64], places: &[f64]) -> Vec<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let count = values.len().max(1) as f64;
    let share =
        |place: f64| (values.len() - values.partition_point(|v| *v <= place)) as f64 / count;
    places.iter().map(|place| (*place, share(*place))).collect()
}

/// `count` places from `low` to `high`, each the same multiple of the one before.
pub fn spaced(low: f64, high: f64, count: u32) -> Vec<f64> {
    let step = (high / low).ln() / f64::from(count.saturating_sub(1).max(1));
    (0..count).map(|n| low * (step * f64::from(n)).exp()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_one_file() {
        let axis = |label, logarithmic| Axis { label, low: 0.01, high: 100.0, logarithmic };
        let chart = Chart {
            title: "a < b & c".into(),
            x: axis("x", true),
            y: axis("y", false),
            lines: vec![Line {
                name: "one".into(),
                points: vec![(0.0, 1.0), (1.0, 1e9)],
                dashed: true,
            }],
            marks: vec![(1.0, "tau".into())],
        };
        let svg = chart.svg();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("polyline"));
        // Values beyond an axis stay on the chart.
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(chart.x.ticks(), [0.01, 0.1, 1.0, 10.0, 100.0]);
    }

    #[test]
    fn shares_beyond() {
        let mut values = [3.0, 1.0, 2.0, 2.0];
        assert_eq!(
            beyond(&mut values, &[0.0, 1.0, 2.0, 3.0]),
            [(0.0, 1.0), (1.0, 0.75), (2.0, 0.25), (3.0, 0.0)]
        );
        let places = spaced(1.0, 100.0, 3);
        assert!((places[1] - 10.0).abs() < 1e-9 && (places[2] - 100.0).abs() < 1e-9);
    }
}
