use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::train::judge::trial::{Manner, Row, Trial};
use crate::train::judge::{Baseline, Scores, Terms, judge};
use crate::train::labels::{Dropped, NodeHistory, Rules};
use crate::train::sample::below;
use crate::train::signals::Signal;
use crate::train::track::tests::{MINUTE, at, span};

const DAYS: i64 = 3;

fn unit(rng: &mut ChaCha8Rng) -> f64 {
    below(rng, 1 << 30) as f64 / f64::from(1 << 30)
}

/// Fourteen Nodes; most incidents announce themselves, and about as much is announced that does not come.
fn trial_and_scores(seed: u64) -> (Trial, Scores) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (rules, days) = (Rules::new(MINUTE), span(0, DAYS * 1_440));
    let mut trial = Trial::new(MINUTE, &rules);
    let times: Vec<Timestamp> = (0..DAYS * 1_440).map(at).collect();
    let (mut model, mut deviation, mut alerts) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..14 {
        let mut history = NodeHistory::new(MINUTE);
        let incidents: Vec<i64> = (0..DAYS)
            .map(|day| day * 1_440 + 120 + below(&mut rng, 1_100) as i64)
            .collect();
        for m in 0..DAYS * 1_440 {
            let down = incidents
                .iter()
                .any(|from| (*from..*from + 10).contains(&m));
            history.see(Signal::NotReady, at(m), f64::from(u8::from(down)));
        }
        // From when on each stretch of signs shows, how strong, and until when.
        let signs: Vec<(i64, i64, f64)> = incidents
            .iter()
            .flat_map(|from| {
                let seen = *from - 4 - below(&mut rng, 30) as i64;
                let empty = 60 + below(&mut rng, 5_600) as i64;
                let lasts = 5 + below(&mut rng, 20) as i64;
                [
                    (seen, *from, 0.35 + 0.6 * unit(&mut rng)),
                    (empty, empty + lasts, 0.75 * unit(&mut rng)),
                ]
            })
            .collect();
        let kept = trial.add(
            format!("worker-{n:02}").into(),
            &history.timeline(&rules, days),
            &times,
        );
        for i in kept {
            let m = i as i64;
            let sign = signs
                .iter()
                .filter(|(from, to, _)| (*from..*to).contains(&m));
            let strong = sign.map(|sign| sign.2).fold(0.0, f64::max);
            model.push((strong * (0.9 + 0.2 * unit(&mut rng))).clamp(0.004 * unit(&mut rng), 0.98));
            deviation.push(10.0 * strong * unit(&mut rng) + 6.0 * unit(&mut rng));
            alerts.push(f64::from(u8::from(strong > 0.8)));
        }
    }
    let rule = model
        .iter()
        .map(|p: &f64| if unit(&mut rng) < 0.3 { 0.0 } else { p * 0.7 })
        .collect();
    let baselines = BTreeMap::from([
        (Baseline::StaticThresholds, rule),
        (Baseline::LargestDeviation, deviation),
        (Baseline::PendingAlerts, alerts),
    ]);
    (trial, Scores { model, baselines })
}

static JUDGEMENT: LazyLock<Judgement> = LazyLock::new(|| {
    let ((earlier, before), (test, scores)) = (trial_and_scores(1), trial_and_scores(2));
    let terms = Terms {
        manner: Manner::default(),
        incident_cost: 4.0,
        at_risk: 0.65,
        seed: 1,
    };
    judge((&earlier, &before), (&test, &scores), &terms).unwrap()
});

/// Text that would be a script, a table cell, a link, an end of the tag and a turn of direction.
const HOSTILE: &str = "<script>alert(1)</script>\"'|](http://evil) `x` **b**\n# h\u{202e}";

fn card() -> Card {
    let history = span(0, 14 * 1_440);
    let part = |part, from, to, positives, negatives| PartCard {
        part,
        span: span(from, to),
        positives,
        negatives,
    };
    let curve = |to: f64, of: fn(f64) -> f64| {
        let shares = (0..=40).map(|i| f64::from(i) / 40.0);
        shares.map(|x| (x * to, of(x))).collect()
    };
    let effect = |feature: &str, unit: &str, mean, curve| Effect {
        feature: feature.to_owned(),
        unit: unit.to_owned(),
        mean,
        curve,
    };
    Card {
        model: "local-1a2b3c4d".to_owned(),
        made: at(14 * 1_440 + 60),
        history,
        nodes: 16,
        rows: Tally {
            positives: 1_652,
            negatives: 299_301,
            dropped: BTreeMap::from([
                (Dropped::InIncident, 640),
                (Dropped::Planned, 4_800),
                (Dropped::TooLate, 128),
            ]),
        },
        kinds: BTreeMap::from([
            (Kind::NotReady, 61),
            (Kind::Reboot, 3),
            (Kind::Alert("NodeDiskIOSaturation".into()), 17),
            (Kind::Reported("disk replaced".into()), 2),
        ]),
        excused: 9,
        strangers: 3,
        parts: vec![
            part(Part::Train, 0, 9_940, 812, 30_112),
            part(Part::Validation, 9_972, 12_457, 201, 7_010),
            part(Part::Calibration, 12_489, 14_974, 190, 7_044),
            part(Part::Test, 15_006, 20_160, 449, 58_120),
        ],
        one_in: 10,
        refusals: Vec::new(),
        judgement: JUDGEMENT.clone(),
        unseen_nodes: Some(JUDGEMENT.clone()),
        effects: vec![
            effect(
                "psi_io",
                "ratio",
                0.61,
                curve(1.0, |x| 3.0 / (1.0 + libm::exp(8.0 - 20.0 * x)) - 0.4),
            ),
            effect(
                "disk_await_write",
                "seconds",
                0.83,
                curve(0.4, |x| 2.4 * x - 0.5),
            ),
            effect(
                "mem_used",
                "ratio",
                0.44,
                curve(1.0, |x| 1.9 * x * x * x * x - 0.3),
            ),
            effect(
                "tcp_retrans_ratio",
                "ratio",
                0.32,
                curve(0.08, |x| 1.4 * x.sqrt() - 0.4),
            ),
            effect("fs_in_24h", "bytes", 0.07, curve(9e11, |x| 0.4 * x - 0.1)),
            effect(
                "procs_blocked",
                "count",
                0.21,
                curve(24.0, |x| if x > 0.3 { 0.9 } else { -0.1 }),
            ),
            effect("load_per_core", "ratio", 0.18, Vec::new()),
        ],
    }
}

/// A card in which everything that comes from outside is hostile.
fn hostile() -> Card {
    let mut card = card();
    card.model = HOSTILE.to_owned();
    card.refusals = vec![HOSTILE.to_owned()];
    card.kinds = BTreeMap::from([
        (Kind::Alert(HOSTILE.into()), 5),
        (Kind::Reported(HOSTILE.into()), 4),
        (Kind::Reported("x".repeat(10_000).into()), 3),
    ]);
    for effect in &mut card.effects {
        effect.feature = HOSTILE.to_owned();
        effect.unit = HOSTILE.to_owned();
    }
    card
}

/// The tags of a page, by name, with their attributes; that every one is closed.
fn tags(page: &str) -> BTreeSet<String> {
    let (mut names, mut open) = (BTreeSet::new(), Vec::new());
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        let name: String = tag
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '/')
            .collect();
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "</{tag}>"),
            None if tag.ends_with('/') || ["meta", ""].contains(&name.as_str()) => {}
            None => open.push(name.clone()),
        }
        names.insert(name.trim_matches('/').to_owned());
    }
    assert_eq!(open, [""; 0]);
    names
}

#[test]
fn the_page_is_whole_and_runs_nothing() {
    for card in [card(), hostile()] {
        let page = card.to_html();
        let found = tags(&page);
        let known = [
            "",
            "body",
            "circle",
            "clipPath",
            "dd",
            "div",
            "dl",
            "dt",
            "figcaption",
            "figure",
            "g",
            "h1",
            "h2",
            "h3",
            "head",
            "header",
            "html",
            "i",
            "li",
            "meta",
            "p",
            "path",
            "polyline",
            "rect",
            "section",
            "style",
            "svg",
            "table",
            "tbody",
            "td",
            "text",
            "th",
            "thead",
            "title",
            "tr",
            "ul",
        ];
        for tag in &found {
            assert!(known.contains(&tag.as_str()), "<{tag}>");
        }
        for never in [
            "<script",
            "style=\"",
            "href",
            "src=",
            "@import",
            "javascript:",
        ] {
            assert!(!page.contains(never), "{never}");
        }
        // No handler, which would be an attribute.
        let mut in_tags = page.split('<').filter_map(|part| part.split('>').next());
        let labels = ["aria-label=\"", " name=\""];
        assert!(in_tags.all(|tag| !tag.contains(" on") || labels.iter().any(|l| tag.contains(l))));
        assert!(
            !page.contains("NaN") && !page.contains("inf\""),
            "numbers are numbers"
        );
        assert!(page.len() < 300_000, "{}", page.len());
    }
    assert!(
        hostile()
            .to_html()
            .contains("&lt;script&gt;alert(1)&lt;/script&gt;")
    );
}

#[test]
fn the_style_is_the_one_that_the_policy_allows() {
    use base64::Engine;
    use sha2::Digest;
    let page = card().to_html();
    let style = page
        .split("<style>")
        .nth(1)
        .unwrap()
        .split("</style>")
        .next()
        .unwrap();
    let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style));
    assert!(page.contains(&format!("default-src 'none'; style-src 'sha256-{digest}'")));
}

#[test]
fn every_plot_is_there_with_units() {
    let page = card().to_html();
    assert_eq!(page.matches("<svg").count(), 2 * 4 + 1 + 6);
    for text in [
        "Cost against threshold, an incident worth 4 drains",
        "drains / 100 Nodes and day",
        "Precision against recall",
        "Reliability",
        "minutes from the drain to the incident",
        "How much each feature moves a score, in log-odds",
        "policy.at_risk 0.65",
        "implied threshold 0.312",
    ] {
        assert!(page.contains(text), "{text}");
    }
    let ids: Vec<&str> = page
        .split("clipPath id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "{ids:?}"
    );
}

#[test]
fn markdown_says_the_same_and_nothing_of_it_is_somebody_elses() {
    let text = card().to_markdown();
    for expected in [
        "# Model local-1a2b3c4d",
        "Of the negative rows of training one in 10 was kept.",
        "**This model may act",
        "| never acting |",
        "| seen as |",
        "| reported\\: disk replaced | 2 |",
        "| dropped: planned work, or the Node comes or goes | 4,800 |",
        "| calibration |",
    ] {
        assert!(
            text.to_lowercase().contains(&expected.to_lowercase()),
            "{expected}\n{text}"
        );
    }
    let text = hostile().to_markdown();
    assert!(
        !text.contains("<script") && !text.contains("](http"),
        "{text}"
    );
    assert!(text.contains("**This model may advise and not act.**"));
    // Every row of a table has as many cells as its head.
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    for table in text.split("\n\n").filter(|block| block.starts_with('|')) {
        let expected = cells(table.lines().next().unwrap());
        assert!(table.lines().all(|line| cells(line) == expected), "{table}");
    }
}

#[test]
fn a_card_with_little_in_it_is_a_card() {
    let mut card = card();
    card.effects.clear();
    card.kinds.clear();
    card.parts.clear();
    card.unseen_nodes = None;
    card.judgement.leads.clear();
    card.judgement.curve.clear();
    card.judgement.reliability.clear();
    card.judgement.by_threshold.clear();
    card.judgement.costs.clear();
    tags(&card.to_html());
    assert!(!card.to_markdown().is_empty());
}

#[test]
fn both_files_are_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.json");
    let files = card().write(&model).unwrap();
    assert_eq!(files[0].file_name().unwrap(), "model.report.md");
    assert_eq!(
        std::fs::read_to_string(&files[1]).unwrap(),
        card().to_html()
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "nothing is left over"
    );
    let nowhere = folder.path().join("no/such/model.json");
    let error = card().write(&nowhere).unwrap_err().to_string();
    assert!(
        error.contains("model.report.md") && error.contains("--output"),
        "{error}"
    );
}

/// For looking at it: `cargo test --features page -- a_report_to_look_at --nocapture`.
#[cfg(feature = "page")]
#[test]
fn a_report_to_look_at() {
    let folder = std::env::temp_dir();
    for (name, card) in [("card", card()), ("hostile", hostile())] {
        let files = card
            .write(&folder.join(format!("foreshock-{name}.json")))
            .unwrap();
        println!("{}", files[1].display());
    }
}

#[test]
fn rows_of_the_made_up_trial_have_incidents() {
    let positives = trial_and_scores(2)
        .0
        .rows()
        .iter()
        .filter(|row: &&Row| row.incident.is_some())
        .count();
    assert!(positives > 400, "{positives}");
}
