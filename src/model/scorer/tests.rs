use super::*;
use crate::model::artifact::{Content, Limits};
use crate::model::boost::{Settings, unit};
use crate::model::built_in::built_in;
use crate::model::gbdt;
use crate::model::testing::{imported, matrix, model, raw_rows};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const NAMES: [&str; 5] = [
    "mem_used",
    "mem_used:peers",
    "psi_io",
    "disk_await_write",
    "psi_cpu",
];

/// Columns of a history: one metric twice, a change alone, and two of the whole Node.
const MEMORY: [&str; 5] = [
    "node:largest",
    "mem_used",
    "mem_used:week",
    "psi_io:change15",
    "node:beyond3",
];

fn small(depth: u32) -> Artifact {
    model(
        &NAMES,
        &Settings {
            depth,
            trees_max: 40,
            ..Settings::default()
        },
    )
}

/// A model that is less sure without memory, and says less without memory and waiting.
fn with_gaps() -> Artifact {
    let gap = |columns: &[usize], slope, intercept| Gap {
        columns: columns.to_vec(),
        calibration: Calibration { slope, intercept },
    };
    let content = Content {
        gaps: vec![gap(&[0, 1], 0.5, -1.0), gap(&[0, 1, 2], 0.6, -2.0)],
        ..small(4).content().clone()
    };
    Artifact::seal(content, &Limits::default()).unwrap()
}

fn scorer(depth: u32) -> TreeScorer {
    TreeScorer::new(&small(depth))
}

fn rows(n: usize, seed: u64) -> ModelMatrix {
    matrix(&NAMES, raw_rows(n, NAMES.len(), seed).0)
}

/// Every kind of model: small ones, the one that is shipped, and one that XGBoost has trained.
fn models() -> [(&'static str, Artifact); 7] {
    [
        ("with gaps", with_gaps()),
        ("with memory", model(&MEMORY, &Settings::default())),
        ("depth 1", small(1)),
        ("depth 4", small(4)),
        ("depth 6", small(6)),
        ("built-in", built_in().unwrap()),
        ("imported", imported()),
    ]
}

/// Random rows from below the first to beyond the last edge of every column; a tenth is missing.
fn rows_of(artifact: &Artifact, n: usize, seed: u64) -> ModelMatrix {
    let columns = &artifact.content().columns;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values = Array2::from_shape_fn((n, columns.len()), |(_, column)| {
        let edges = &columns[column].edges.edges;
        if edges.is_empty() || unit(&mut rng) < 0.1 {
            return f64::NAN;
        }
        // Between two edges at random, so that every bin has its rows.
        let at = (unit(&mut rng) * (edges.len() + 1) as f64) as usize;
        let low = at.checked_sub(1).map_or(edges[0] - 1.0, |at| edges[at]);
        let high = edges.get(at).copied().unwrap_or(low + 1.0);
        low + (high - low) * unit(&mut rng)
    });
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    matrix(&names, values)
}

/// What a row of `usual` says of the features.
fn usual_row(usual: &ModelMatrix, row: usize) -> impl Fn(&FeatureName) -> Option<f64> {
    let values = usual.values.row(row).to_vec();
    let columns = usual.columns.clone();
    move |feature| {
        let at = columns
            .iter()
            .position(|c| *c == ColumnName::Now(feature.clone()))?;
        Some(values[at])
    }
}

#[test]
fn our_scorer_equals_the_crates_predict_on_ten_thousand_rows() {
    for (name, artifact) in models() {
        // Without calibration the probability is the crate's. A shrinkage other than 1 is what a
        // model of the crate's own loop has.
        let mut content = artifact.content().clone();
        content.calibration = Calibration {
            slope: 1.0,
            intercept: 0.0,
        };
        content.gaps.clear();
        content.gbdt.conf.shrinkage = 0.3;
        let artifact = Artifact::seal(content, &Limits::default()).unwrap();
        let scorer = TreeScorer::new(&artifact);
        let rows = rows_of(&artifact, 10_000, 99);
        let ours = scorer.score(&rows);
        let mut codes = Vec::new();
        for row in rows.values.rows() {
            codes.push(Vec::new());
            scorer.encode(row, &scorer.places(&rows), codes.last_mut().unwrap());
        }
        let theirs = gbdt::predict(&artifact.content().gbdt, &codes).unwrap();
        assert_eq!((ours.len(), theirs.len()), (10_000, 10_000));
        for (ours, theirs) in ours.iter().zip(theirs) {
            let off = (ours.probability.as_f64() - f64::from(theirs)).abs();
            assert!(off <= 1e-6, "{name}: {ours:?} is not {theirs}");
        }
        let (low, high) = ours
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), score| {
                (low.min(score.log_odds), high.max(score.log_odds))
            });
        assert!(
            high - low > 0.5,
            "{name}: the rows must not all score alike: {low} to {high}"
        );
    }
}

#[test]
fn no_value_and_no_width_of_a_row_can_upset_the_scorer() {
    let scorer = scorer(4);
    let odd = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        1e-320,
        -0.0,
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let all = [
        "extra",
        "psi_cpu",
        "mem_used",
        "psi_io",
        "more",
        "disk_await_write",
    ];
    for width in 0..=all.len() {
        let values = Array2::from_shape_fn((200, width), |_| odd[(unit(&mut rng) * 7.0) as usize]);
        let rows = matrix(&all[..width], values);
        let scores = scorer.score(&rows);
        assert_eq!(scores.len(), 200);
        for (row, score) in scores.iter().enumerate() {
            assert!(score.log_odds.is_finite());
            let explanation = scorer
                .explain(&rows, row, &|_| Some(f64::INFINITY))
                .unwrap();
            assert_eq!(explanation.log_odds, score.log_odds);
        }
        assert_eq!(scorer.explain(&rows, 200, &|_| None), None);
    }
    // A matrix whose names promise more columns than it has.
    let mut torn = rows(3, 1);
    torn.values = Array2::zeros((3, 1));
    assert_eq!(scorer.score(&torn).len(), 3);
}

#[test]
fn columns_are_found_by_name_wherever_they_are() {
    let scorer = scorer(4);
    let rows = rows(50, 4);
    let mut turned = rows.clone();
    turned.columns.reverse();
    turned.values.invert_axis(ndarray::Axis(1));
    assert_eq!(scorer.score(&rows), scorer.score(&turned));
    let nothing = matrix(&[], Array2::zeros((50, 0)));
    let missing = matrix(&NAMES, Array2::from_elem((50, 5), f64::NAN));
    assert_eq!(scorer.score(&nothing), scorer.score(&missing));
}

#[test]
fn every_explanation_of_ten_thousand_rows_adds_up_to_the_score() {
    for (name, artifact) in models() {
        let scorer = TreeScorer::new(&artifact);
        let (rows, usual) = (rows_of(&artifact, 10_000, 5), rows_of(&artifact, 500, 6));
        let mut explained = 0;
        for (row, score) in scorer.score(&rows).iter().enumerate() {
            let usual = usual_row(&usual, row % 500);
            let explanation = scorer.explain(&rows, row, &usual).unwrap();
            assert_eq!(explanation.log_odds, score.log_odds);
            let sum: f64 = explanation.contributions.iter().map(|c| c.log_odds).sum();
            let off = explanation.base + sum - score.log_odds;
            assert!(off.abs() <= 1e-5, "{name}, row {row}: off by {off:e}");
            let sizes = explanation.contributions.iter().map(|c| c.log_odds.abs());
            assert!(sizes.is_sorted_by(|a, b| a >= b));
            explained += usize::from(!explanation.contributions.is_empty());
        }
        assert!(explained > 9_000, "{name}: {explained}");
    }
}

#[test]
fn columns_of_one_metric_are_one_contribution_with_its_values() {
    let scorer = scorer(4);
    let row = ndarray::arr2(&[[0.97, 9.0, 0.1, f64::NAN, 0.5]]);
    let usual = matrix(
        &NAMES,
        ndarray::arr2(&[[0.1, f64::NAN, f64::NAN, 0.2, 0.5]]),
    );
    let explanation = scorer
        .explain(&matrix(&NAMES, row), 0, &usual_row(&usual, 0))
        .unwrap();
    let of = |name: &str| explanation.contributions.iter().find(|c| c.feature == name);
    let memory = of("mem_used").unwrap();
    assert_eq!((memory.value, memory.usual), (Some(0.97), Some(0.1)));
    assert!(memory.log_odds > 0.5, "{explanation:?}");
    assert!(of("mem_used:peers").is_none());
    let io = of("psi_io").unwrap();
    assert_eq!(io.usual, None, "an unknown usual is not invented");
    assert!(
        of("disk_await_write").is_none(),
        "nothing is said of what has no value"
    );
    assert!(of("psi_cpu").is_none(), "what reads as usual adds nothing");
}

#[test]
fn a_row_that_lacks_a_group_is_calibrated_and_explained_as_such() {
    const NAN: f64 = f64::NAN;
    let artifact = with_gaps();
    let plain = scorer(4);
    let whole = artifact.content().calibration;
    for (row, expected) in [
        ([0.9, 0.9, 0.9, 0.9, 0.9], whole),
        // One column of a group is enough to know about it.
        ([NAN, 0.9, NAN, NAN, NAN], whole),
        ([0.9, 0.9, NAN, 0.9, 0.9], whole),
        (
            [NAN, NAN, 0.9, 0.9, 0.9],
            artifact.content().gaps[0].calibration,
        ),
        // Of several, the one of most columns.
        (
            [NAN, NAN, NAN, 0.9, 0.9],
            artifact.content().gaps[1].calibration,
        ),
    ] {
        let row = matrix(&NAMES, ndarray::arr2(&[row]));
        let raw = (plain.score(&row)[0].log_odds - whole.intercept) / whole.slope;
        let scorer = TreeScorer::new(&artifact);
        let said = scorer.score(&row)[0].log_odds;
        let off = said - (expected.slope * raw + expected.intercept);
        assert!(off.abs() < 1e-9, "{row:?}: {said}");
        let explanation = scorer.explain(&row, 0, &|_| Some(0.1)).unwrap();
        let added: f64 = explanation.contributions.iter().map(|c| c.log_odds).sum();
        assert!(
            (explanation.base + added - said).abs() < 1e-5,
            "{explanation:?}"
        );
        let unscaled = plain.explain(&row, 0, &|_| Some(0.1)).unwrap();
        for (one, plain) in explanation
            .contributions
            .iter()
            .zip(&unscaled.contributions)
        {
            assert_eq!(one.feature, plain.feature);
            let ratio = one.log_odds / plain.log_odds * whole.slope;
            assert!((ratio - expected.slope).abs() < 1e-9, "{one:?} {plain:?}");
        }
    }
}

#[test]
fn an_empty_fleet_has_no_scores() {
    assert!(scorer(2).score(&rows(0, 1)).is_empty());
}

#[test]
fn a_summary_of_the_whole_node_contributes_under_its_own_name() {
    let scorer = TreeScorer::new(&model(&MEMORY, &Settings::default()));
    assert_eq!(
        scorer.players.names,
        ["node:largest", "mem_used", "psi_io", "node:beyond3"]
    );
    let rows = matrix(&MEMORY, raw_rows(200, MEMORY.len(), 5).0);
    let mut seen = 0;
    for row in 0..200 {
        let usual = |feature: &FeatureName| (feature.as_str() == "mem_used").then_some(0.5);
        let explanation = scorer.explain(&rows, row, &usual).unwrap();
        for part in explanation.contributions {
            let column = match part.feature.as_str() {
                "node:largest" => 0,
                "mem_used" => 1,
                "node:beyond3" => 4,
                "psi_io" => {
                    // The model knows how it changed, and not what it is.
                    assert_eq!((part.value, part.usual), (None, None));
                    continue;
                }
                other => panic!("{other} contributes"),
            };
            seen += 1;
            let value = rows.values[(row, column)];
            assert_eq!(part.value, Some(value).filter(|value| value.is_finite()));
            assert_eq!(part.usual, (column == 1).then_some(0.5));
        }
    }
    assert!(seen > 100, "{seen}");
}
