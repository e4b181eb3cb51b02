//! What was measured, as a table for registration and as a page with charts.

mod detection;
mod edits;

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use assay_proof::{Calibration, MARGINS_PER_NAT, Reasons};

use super::{
    Audit, Caught, Noise, Outcome, Pair, Roc, SETTINGS, Share, Similarity, Table, TablePair,
    failures, fit::HARD_MARGIN_CHANCE, plot, statistic_f, statistic_g,
};

/// Places of a curve.
const PLACES: u32 = 120;
/// Stands for 0 on a logarithmic axis of contrasts: they are whole numbers.
const NO_DISTANCE: f64 = 0.5;

impl Outcome {
    /// The thresholds, with the word of each pair that `ModelRegistry` takes.
    pub fn table(&self) -> Table {
        let pair = |pair: &Pair| TablePair {
            miner_class: pair.miner,
            validator_class: pair.validator,
            word: pair.calibration.pack().map(Into::into).unwrap_or_default(),
            calibration: pair.calibration,
            honest_audits: pair.honest.len(),
            honest_accused: failures(pair.honest.iter(), &pair.calibration).any.count,
        };
        Table {
            model: self.model.model.clone(),
            model_id: self.model.model_id,
            engine: self.model.engine_version.clone(),
            machine: self.machine.clone(),
            pairs: self.pairs.iter().map(pair).collect(),
        }
    }

    /// Writes `calibration.json`, `README.md` and the charts into `folder`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        fs::create_dir_all(folder)?;
        let mut files = vec![folder.join("calibration.json"), folder.join("README.md")];
        let table = serde_json::to_string_pretty(&self.table())? + "\n";
        let mut charts = self.charts();
        fs::write(folder.join("calibration.json"), table)?;
        fs::write(folder.join("README.md"), self.page())?;
        for (name, chart) in charts.drain(..) {
            let file = folder.join(name);
            fs::write(&file, chart.svg())?;
            files.push(file);
        }
        Ok(files)
    }

    fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = self.introduction(&mut page);
        let _ = self.thresholds(&mut page);
        let _ = self.false_positives(&mut page);
        for pair in self.pairs.iter().filter(|pair| !pair.cheats.is_empty()) {
            let _ = detection::section(&mut page, pair);
            let _ = edits::section(&mut page, pair);
        }
        let _ = self.baseline(&mut page);
        page
    }

    fn introduction(&self, page: &mut String) -> std::fmt::Result {
        let Self { model, options, .. } = self;
        writeln!(page, "# Calibration of {}\n", model.model)?;
        writeln!(
            page,
            "Written by `assay model calibrate`; [calibration.json](calibration.json) is what is registered on chain. \
             Questions and seeds are fixed.\n"
        )?;
        writeln!(page, "| | |\n|---|---|")?;
        writeln!(page, "| model | `{}` |", model.model_id)?;
        writeln!(page, "| engine | {}, vocabulary {} |", model.engine_version, model.vocab_size)?;
        writeln!(page, "| machine | {} |", self.machine)?;
        writeln!(page, "| time taken | {} min |", self.seconds.div_ceil(60))?;
        let (fit, audits) = (options.to_fit(), options.audits);
        writeln!(
            page,
            "| honest audits | {fit} a pair of classes set its thresholds, {audits} others try them |"
        )?;
        writeln!(
            page,
            "| answers of each cheat | {}, and {} to open questions |",
            options.trials, options.open
        )?;
        writeln!(page, "| longest answer | {} tokens |", options.tokens)?;
        let [plain, rest @ ..] = SETTINGS;
        let rest = rest.map(|setting| setting.name).join("; ");
        writeln!(
            page,
            "| sampling | half of the questions at {}; the others at: {rest} |\n",
            plain.name
        )
    }

    fn thresholds(&self, page: &mut String) -> std::fmt::Result {
        writeln!(page, "## Honest noise and thresholds\n")?;
        writeln!(
            page,
            "F compares contrasts, in units of 1/256 nat; G adds up margins, in nats. A threshold lies six standard \
             deviations above the honest mean and at least half as much again above the largest honest value; the hard \
             margin where an exponential tail leaves a chance of {HARD_MARGIN_CHANCE:.0e} a token, and at least at twice the \
             largest contrast apart. One failing block fails an answer.\n"
        )?;
        writeln!(
            page,
            "| miner, validator | contrasts apart: mean, largest | block median: mean, largest | tau | spot check: largest \
             | spot tau | tokens with a margin | margin: mean, largest | hard margin | sum of margins for 32, 128 tokens |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for Pair { miner, validator, calibration, noise, .. } in &self.pairs {
            row(page, &format!("{miner}, {validator}"), noise, Some(calibration))?;
        }
        for found in &self.elsewhere {
            let who = format!("{}, {}: answers of {}", found.miner, found.validator, found.machine);
            row(page, &who, &found.noise, None)?;
        }
        writeln!(page, "\n![Contrasts apart](contrasts.svg)\n\n![Margins](margins.svg)\n")
    }

    fn false_positives(&self, page: &mut String) -> std::fmt::Result {
        writeln!(page, "## Honest nodes accused\n")?;
        writeln!(
            page,
            "| miner, validator | audits | accused | 95 % below | by |\n|---|--:|--:|--:|---|"
        )?;
        for pair in &self.pairs {
            let who = format!("{}, {}", pair.miner, pair.validator);
            let all = pair.honest.iter().map(|audit| audit.reasons(&pair.calibration));
            let reasons = all.fold(Reasons::default(), |sum, one| sum | one);
            accused(
                page,
                &who,
                failures(pair.honest.iter(), &pair.calibration).any,
                &reasons.to_string(),
            )?;
        }
        for found in &self.elsewhere {
            let who = format!("{}, {}: answers of {}", found.miner, found.validator, found.machine);
            accused(page, &who, found.failures.any, "")?;
        }
        writeln!(page)
    }

    fn baseline(&self, page: &mut String) -> std::fmt::Result {
        let (Some(pair), Some(similarity)) = (self.compared(), &self.similarity) else {
            return Ok(());
        };
        writeln!(page, "## Beside cosine similarity\n")?;
        writeln!(
            page,
            "The plain way compares an answer with another node's answer to the same question. Here: the cosine of the mean \
             input embeddings of both answers' tokens (the model's own table, less its mean), the other node being honest. F \
             and G look at whole answers, too. The table has the share of cheats caught where at most one honest answer in a \
             hundred is accused, and the area under the curve (1 is perfect, 0.5 is chance).\n"
        )?;
        writeln!(page, "| cheat | F | G | both | cosine |\n|---|--:|--:|--:|--:|")?;
        for Caught { name, audits, .. } in &pair.cheats {
            let [f, g, both] = rocs(pair, audits);
            let cosine = cosine_roc(similarity, name);
            write!(page, "| {name} |")?;
            for roc in [&f, &g, &both, &cosine] {
                write!(page, " {:.3} ({:.3}) |", roc.caught_at(0.01), roc.area)?;
            }
            writeln!(page)?;
        }
        writeln!(page)?;
        for index in 0..pair.cheats.len() {
            writeln!(page, "![ROC](roc-{index}.svg)\n")?;
        }
        Ok(())
    }

    /// The pair that the charts show: cheats among nodes of one class.
    fn compared(&self) -> Option<&Pair> {
        self.pairs.iter().find(|pair| !pair.cheats.is_empty())
    }

    fn charts(&self) -> Vec<(String, plot::Chart)> {
        let Some(pair) = self.compared() else { return Vec::new() };
        let mut charts = vec![
            ("contrasts.svg".to_owned(), self.contrasts_chart(pair)),
            ("margins.svg".to_owned(), self.margins_chart(pair)),
        ];
        for pair in self.pairs.iter().filter(|pair| !pair.cheats.is_empty()) {
            let by = |name: &str| format!("{name}-{}.svg", pair.validator);
            charts.push((by("power-f"), detection::power_chart(pair, "F", |found| found.f)));
            charts.push((by("power-g"), detection::power_chart(pair, "G", |found| found.g)));
            charts.push((by("edits"), edits::chart(pair)));
        }
        let Some(similarity) = &self.similarity else { return charts };
        for (index, Caught { name, audits, .. }) in pair.cheats.iter().enumerate() {
            let [f, g, both] = rocs(pair, audits);
            let all =
                [("F", f), ("G", g), ("F and G", both), ("cosine", cosine_roc(similarity, name))];
            let line = |(name, roc): (&str, Roc)| plot::Line {
                name: format!("{name}: area {:.3}", roc.area),
                points: roc.points,
                dashed: name == "cosine",
            };
            let axis = |label| plot::Axis { label, low: 0.0, high: 1.0, logarithmic: false };
            let chart = plot::Chart {
                title: format!("{name}: told from honest answers"),
                x: axis("share of honest answers accused"),
                y: axis("share of cheats caught"),
                lines: all.into_iter().map(line).collect(),
                marks: Vec::new(),
            };
            charts.push((format!("roc-{index}.svg"), chart));
        }
        charts
    }

    fn contrasts_chart(&self, shown: &Pair) -> plot::Chart {
        let places = plot::spaced(NO_DISTANCE, 8192.0, PLACES);
        let line = |name: String, audits: &[Audit], dashed| {
            let mut values: Vec<f64> =
                audits.iter().flat_map(Audit::distances).map(f64::from).collect();
            plot::Line { name, points: plot::beyond(&mut values, &places), dashed }
        };
        let honest =
            |pair: &Pair| line(format!("{}, {}", pair.miner, pair.validator), &pair.honest, true);
        let mut lines: Vec<plot::Line> = self.pairs.iter().map(honest).collect();
        lines.extend(
            shown.cheats.iter().map(|cheat| line(cheat.name.clone(), &cheat.audits, false)),
        );
        plot::Chart {
            title: "Contrasts apart, |c - c'|".into(),
            x: plot::Axis { label: "1/256 nat", low: NO_DISTANCE, high: 8192.0, logarithmic: true },
            y: plot::Axis { label: "share beyond", low: 0.0, high: 1.0, logarithmic: false },
            lines,
            marks: vec![(f64::from(shown.calibration.tau), "tau".into())],
        }
    }

    fn margins_chart(&self, shown: &Pair) -> plot::Chart {
        let places = plot::spaced(1e-5, 10.0, PLACES);
        let line = |name: String, audits: &[Audit], dashed| {
            let margins = audits.iter().flat_map(|audit| audit.margins.iter());
            let mut values: Vec<f64> = margins.map(|m| f64::from(*m) / MARGINS_PER_NAT).collect();
            plot::Line { name, points: plot::beyond(&mut values, &places), dashed }
        };
        let honest =
            |pair: &Pair| line(format!("{}, {}", pair.miner, pair.validator), &pair.honest, true);
        let mut lines: Vec<plot::Line> = self.pairs.iter().map(honest).collect();
        lines.extend(
            shown.cheats.iter().map(|cheat| line(cheat.name.clone(), &cheat.audits, false)),
        );
        let hard = f64::from(shown.calibration.hard_margin) / MARGINS_PER_NAT;
        plot::Chart {
            title: "Margins of tokens".into(),
            x: plot::Axis { label: "nats", low: 1e-5, high: 10.0, logarithmic: true },
            y: plot::Axis {
                label: "share of tokens beyond",
                low: 1e-5,
                high: 1.0,
                logarithmic: true,
            },
            lines,
            marks: vec![(hard, "hard margin".into())],
        }
    }
}

fn row(
    page: &mut String,
    who: &str,
    noise: &Noise,
    calibration: Option<&Calibration>,
) -> std::fmt::Result {
    let nats = |units: f64| units / MARGINS_PER_NAT;
    let [tau, spot_tau, hard, sums] = match calibration {
        Some(c) => [
            c.tau.to_string(),
            c.spot_tau.to_string(),
            format!("{:.4}", nats(f64::from(c.hard_margin))),
            format!("{:.4}, {:.4}", nats(c.thr(32) as f64), nats(c.thr(128) as f64)),
        ],
        None => ["", "", "", ""].map(str::to_owned),
    };
    writeln!(
        page,
        "| {who} | {:.2}, {} | {:.2}, {} | {tau} | {} | {spot_tau} | {} of {} | {:.1e}, {:.1e} | {hard} | {sums} |",
        noise.distance.mean,
        noise.distance.max,
        noise.block_median.mean,
        noise.block_median.max,
        noise.spot_median.max,
        noise.disagreeing,
        noise.margin.count,
        nats(noise.margin.mean),
        nats(noise.margin.max),
    )
}

fn accused(page: &mut String, who: &str, share: Share, reasons: &str) -> std::fmt::Result {
    let (_, high) = share.interval();
    writeln!(page, "| {who} | {} | {} | {high:.1e} | {reasons} |", share.of, share.count)
}

/// F, G, and the larger of both.
fn rocs(pair: &Pair, cheats: &[Audit]) -> [Roc; 3] {
    let statistics = |audits: &[Audit]| -> [Vec<f64>; 3] {
        let f: Vec<f64> =
            audits.iter().map(|audit| statistic_f(audit, &pair.calibration)).collect();
        let g: Vec<f64> =
            audits.iter().map(|audit| statistic_g(audit, &pair.calibration)).collect();
        let both = f.iter().zip(&g).map(|(f, g)| f.max(*g)).collect();
        [f, g, both]
    };
    let ([hf, hg, hb], [cf, cg, cb]) = (statistics(&pair.honest), statistics(cheats));
    [Roc::new(&hf, &cf), Roc::new(&hg, &cg), Roc::new(&hb, &cb)]
}

fn cosine_roc(similarity: &Similarity, cheat: &str) -> Roc {
    // Less alike is more suspicious.
    let turned = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<_>>();
    let cheats = similarity.cheats.iter().find(|(name, _)| name == cheat);
    let cheats = cheats.map(|(_, values)| turned(values)).unwrap_or_default();
    Roc::new(&turned(&similarity.honest), &cheats)
}
