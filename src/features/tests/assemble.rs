use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{ago, at, node};
use crate::features::assemble::{Answer, Gathered, Sample, assemble};
use crate::features::directory::NodeDirectory;
use crate::features::identity::{IdentityMap, Sightings, Target};
use crate::features::schema::Schema;
use crate::features::telemetry::{Column, Telemetered};

const HOUR: Duration = Duration::from_secs(3600);

/// One feature, with `more` lines of TOML; bits are 1 for `cpu` and 2 for `hw`.
fn schema(more: &str) -> Arc<Schema> {
    let text = format!(
        "[[feature]]\nname='f'\nunit='ratio'\nmin=0\nmax=1\nnoise=0.01\n{more}\n\
         [[feature]]\nname='both'\nunit='ratio'\npromql='up{{$S}} \"x\" \"y\"'\nmin=0\nmax=1\n\
         sources=[{{name='x',group='cpu'}},{{name='y',group='hw'}}]\n"
    );
    Arc::new(Schema::parse(&text).unwrap())
}

const PLAIN: &str = "promql='up{$S}'\ngroup='cpu'";

/// Nodes a to e; e's exporter is stale. All collectors succeeded but `cpu` on d, and c has no word
/// of any. Only a was scraped an hour ago; the Node b is younger than that.
fn gathered(samples: Result<Vec<Sample>, String>) -> (NodeDirectory, Gathered) {
    let names = ["a", "b", "c", "d", "e"];
    let mut nodes = names.map(|name| node(name, "", &[]));
    nodes[1].created = ago(1800);
    let directory = NodeDirectory::new(nodes);
    let target = |name: &str, age| Target {
        labels: [("instance".to_owned(), format!("{name}:9100"))].into(),
        scraped_at: ago(age),
    };
    let sightings = Sightings {
        targets: names
            .iter()
            .map(|n| target(n, if *n == "e" { 500 } else { 10 }))
            .collect(),
        ..Sightings::default()
    };
    let stale_after = Duration::from_secs(120);
    let answer = |samples| Answer {
        at: at(),
        samples,
        remarks: Vec::new(),
    };
    let bits = [("a:9100", 3), ("b:9100", 3), ("d:9100", 2), ("e:9100", 3)];
    let bits: HashMap<_, _> = bits.map(|(i, bits)| (i.to_owned(), bits)).into();
    let old = ["a:9100", "b:9100"].map(str::to_owned);
    let gathered = Gathered {
        identity: IdentityMap::resolve(&directory, at(), stale_after, &sightings),
        columns: vec![
            answer(samples.map(Arc::new)),
            answer(Err("not asked".into())),
        ],
        collected: Ok(Arc::new(bits)),
        histories: [(HOUR, Ok(Arc::new(old.into())))].into(),
        problems: Vec::new(),
    };
    (directory, gathered)
}

fn sample(instance: &str, value: f64) -> Sample {
    Sample {
        instance: Some(format!("{instance}:9100")),
        value,
        ..Sample::default()
    }
}

fn made(more: &str, samples: Vec<Sample>) -> Telemetered {
    let (directory, gathered) = gathered(Ok(samples));
    assemble(schema(more), at(), &directory, gathered)
}

/// The first column: `-` where it is missing.
fn shown(made: &Telemetered) -> String {
    let rows = 0..made.matrix.nodes.len();
    let cell = |row| {
        made.matrix
            .value(row, 0)
            .map_or("-".to_owned(), |v| v.to_string())
    };
    rows.map(cell).collect::<Vec<_>>().join(" ")
}

#[test]
fn only_fresh_collected_and_possible_values_count_and_the_rest_is_counted_by_reason() {
    let values = vec![
        sample("a", 0.5),
        sample("b", 1.005),
        sample("c", 0.5),
        sample("d", 0.5),
        sample("e", 0.5),
        sample("stranger", 0.5),
    ];
    let all = made(PLAIN, values);
    assert_eq!(shown(&all), "0.5 1 - - -");
    let column = Column {
        series: 6,
        filled: 2,
        strangers: 1,
        uncollected: 2,
        ..Column::new("f".into(), at())
    };
    assert_eq!(all.columns[0], column);
    assert_eq!(
        all.matrix.scraped_at,
        [
            Some(ago(10)),
            Some(ago(10)),
            Some(ago(10)),
            Some(ago(10)),
            None
        ]
    );
    assert_eq!(all.unscraped().collect::<Vec<_>>(), [&"e".into()]);

    let no_group = "promql='up{$S}'";
    let odd = [f64::NAN, f64::INFINITY, -0.5, 0.0].into_iter();
    let odd = made(
        no_group,
        ["a", "b", "c", "d"]
            .into_iter()
            .zip(odd)
            .map(|(n, v)| sample(n, v))
            .collect(),
    );
    assert_eq!(shown(&odd), "- - - 0 -");
    assert_eq!(odd.columns[0].absurd, 2);
}

#[test]
fn absence_is_zero_only_where_the_node_would_have_told_otherwise() {
    let zero = format!("{PLAIN}\nabsent='zero'");
    assert_eq!(shown(&made(&zero, vec![])), "0 0 - - -");
    // A NaN is no sample, as VictoriaMetrics leaves it out; an absurd value is no zero.
    assert_eq!(
        shown(&made(&zero, vec![sample("a", f64::NAN), sample("b", 7.0)])),
        "0 - - - -"
    );
    assert_eq!(shown(&made(PLAIN, vec![])), "- - - - -");
    let young = format!("{zero}\nhistory='1h'");
    assert_eq!(shown(&made(&young, vec![])), "0 - - - -");
}

#[test]
fn a_long_window_needs_a_target_and_a_node_as_old() {
    let values = || ["a", "b", "d"].map(|n| sample(n, 0.25)).to_vec();
    let old = made("promql='up{$S}'\nhistory='1h'", values());
    assert_eq!(shown(&old), "0.25 - - - -");
    assert_eq!(old.columns[0].young, 2);

    // What is not known is not old enough.
    for histories in [BTreeMap::new(), [(HOUR, Err("refused".to_owned()))].into()] {
        let (directory, mut gathered) = gathered(Ok(values()));
        let told = histories.len();
        gathered.histories = histories;
        let made = assemble(
            schema("promql='up{$S}'\nhistory='1h'"),
            at(),
            &directory,
            gathered,
        );
        assert_eq!(shown(&made), "- - - - -");
        assert_eq!(made.problems.len(), told);
    }
}

#[test]
fn two_series_of_one_node_count_for_neither_unless_one_source_is_preferred() {
    let doubled = made(
        PLAIN,
        vec![sample("a", 0.5), sample("a", 0.5), sample("b", 0.5)],
    );
    assert_eq!(shown(&doubled), "- 0.5 - - -");
    assert_eq!(
        (doubled.columns[0].doubled, doubled.columns[0].filled),
        (1, 1)
    );

    let two = "promql='up{$S} \"best\" \"next\"'\n\
               sources=[{name='best',group='cpu'},{name='next',group='hw'}]";
    let of = |node: &str, source: &str, value| Sample {
        source: Some(source.to_owned()),
        ..sample(node, value)
    };
    let sources = made(
        two,
        vec![
            of("a", "next", 0.1),
            of("a", "best", 0.2),
            of("a", "next", 0.3),
            of("b", "next", 0.4),
            of("d", "best", 0.5), // the collector `cpu` failed on d, `hw` did not
            of("d", "next", 0.6),
            of("a", "rumour", 0.7),
        ],
    );
    assert_eq!(shown(&sources), "0.2 0.4 - 0.6 -");
    let names = [0, 1, 3].map(|row| sources.matrix.source(row, 0).unwrap().name.to_string());
    assert_eq!(names, ["best", "next", "next"]);
    assert_eq!(
        (
            sources.columns[0].unknown_sources,
            sources.columns[0].uncollected
        ),
        (1, 1)
    );
}

#[test]
fn a_failed_column_is_missing_and_says_why_and_unknown_collectors_make_their_groups_missing() {
    let (directory, failed) = gathered(Err("too slow".into()));
    let made = assemble(
        schema(&format!("{PLAIN}\nabsent='zero'")),
        at(),
        &directory,
        failed,
    );
    assert_eq!(shown(&made), "- - - - -");
    assert_eq!(made.columns[0].problem.as_deref(), Some("too slow"));

    let (directory, mut unknown) = gathered(Ok(vec![sample("a", 0.5)]));
    unknown.collected = Err("refused".into());
    let made = assemble(schema(PLAIN), at(), &directory, unknown);
    assert_eq!(shown(&made), "- - - - -");
    assert_eq!(
        made.problems,
        ["which collectors succeeded is unknown: refused"]
    );
}

#[test]
fn the_missing_share_counts_required_features_only() {
    let share = |more: &str| {
        let made = made(more, vec![sample("a", 0.5)]);
        [0, 1, 4].map(|row| made.matrix.missing_share(row))
    };
    // The second feature of the schema is required and never answered.
    assert_eq!(share(PLAIN), [0.5, 1.0, 1.0]);
    assert_eq!(share(&format!("{PLAIN}\noptional=true")), [1.0, 1.0, 1.0]);

    let text = "[[feature]]\nname='f'\nunit='ratio'\nmin=0\nmax=1\npromql='up{$S}'\noptional=true";
    let (directory, mut gathered) = gathered(Ok(vec![]));
    gathered.columns.truncate(1);
    let none_required = Arc::new(Schema::parse(text).unwrap());
    let made = assemble(none_required, at(), &directory, gathered);
    assert_eq!([0, 4].map(|row| made.matrix.missing_share(row)), [0.0, 1.0]);
}
