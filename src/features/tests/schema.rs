use std::time::Duration;

use crate::features::schema::{Absent, Schema};

#[test]
fn the_built_in_features_are_those_of_the_design_and_young_clusters_are_not_unknown() {
    let schema = Schema::built_in();
    assert_eq!(schema.len(), 53);
    for feature in schema.features() {
        let name = &feature.name;
        assert!(feature.noise < feature.max - feature.min, "{name}");
        if !feature.optional {
            assert_eq!(
                feature.history,
                Duration::ZERO,
                "{name} is required: no long window"
            );
            assert!(
                feature.is_of_targets(),
                "{name} is required: node_exporter's own"
            );
        }
        // A window that is written out must be covered by history.
        let written_out = ["[15m]", "[1h]", "[6h]", "[1d]"]
            .iter()
            .any(|w| feature.promql.contains(w));
        assert_eq!(written_out, !feature.history.is_zero(), "{name}");
    }
    for (name, absent) in [
        ("net_error_ratio", Absent::Zero),
        ("cpu_used", Absent::Missing),
    ] {
        assert_eq!(schema.feature(name).unwrap().absent, absent, "{name}");
    }
    let hours =
        [(15, 60), (60, 60), (6, 3600), (24, 3600)].map(|(n, s)| Duration::from_secs(n * s));
    assert_eq!(schema.histories(), hours);
    assert_eq!(schema.groups().len(), 20);
}

#[test]
fn the_digest_follows_meaning_and_not_layout() {
    let schema = |change: fn(&str) -> String| {
        let text = "[[feature]]\nname='a'\nunit='ratio'\npromql='up{$S} / 2'\nmin=0\nmax=1\n";
        Schema::parse(&change(text)).unwrap().digest().to_owned()
    };
    let plain = schema(str::to_owned);
    assert_eq!(plain.len(), 64);
    let same: [fn(&str) -> String; 4] = [
        |t| t.replace(" / ", "\t/  "),
        |t| format!("# a comment\n{t}\n\n"),
        |t| format!("{t}optional=true\nevery='1m'"),
        |t| t.replace("min=0", "min=0.0"),
    ];
    for (i, change) in same.into_iter().enumerate() {
        assert_eq!(schema(change), plain, "{i}");
    }
    let other: [fn(&str) -> String; 9] = [
        |t| t.replace("'a'", "'b'"),
        |t| t.replace("ratio", "seconds"),
        |t| t.replace("/ 2", "/ 3"),
        |t| t.replace("min=0", "min=-1"),
        |t| t.replace("max=1", "max=2"),
        |t| format!("{t}noise=0.5"),
        |t| format!("{t}history='1h'"),
        |t| format!("{t}group='cpu'"),
        |t| format!("{t}absent='zero'"),
    ];
    for (i, change) in other.into_iter().enumerate() {
        assert_ne!(schema(change), plain, "{i}");
    }
}

#[test]
fn the_digest_of_some_features_does_not_change_when_others_come() {
    let built_in = Schema::built_in();
    let some = ["mem_used", "cpu_used"];
    let digest = built_in.digest_of(&some).unwrap();
    assert_ne!(
        Some(&digest),
        built_in.digest_of(&["cpu_used", "mem_used"]).as_ref()
    );
    assert_eq!(built_in.digest_of(&["cpu_used", "no_such"]), None);
    let all: Vec<_> = built_in
        .features()
        .iter()
        .map(|f| f.name.as_str())
        .collect();
    assert_eq!(built_in.digest_of(&all).as_deref(), Some(built_in.digest()));
}

#[test]
fn a_value_beyond_its_range_counts_as_the_bound_within_noise_and_not_at_all_past_it() {
    let schema = Schema::built_in();
    let cpu = schema.feature("cpu_used").unwrap();
    for (value, possible) in [
        (0.5, Some(0.5)),
        (1.0, Some(1.0)),
        (1.01, Some(1.0)),
        (-1e-16, Some(0.0)),
        (-0.03, None),
        (1.03, None),
        (f64::NAN, None),
        (f64::INFINITY, None),
    ] {
        assert_eq!(cpu.possible(value), possible, "{value}");
    }
}

/// Each fault as it is shown, without the headline.
fn faults(toml: &str) -> Vec<String> {
    Schema::parse(toml)
        .unwrap_err()
        .faults
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn all_faults_of_a_file_are_reported_at_once_with_feature_and_key() {
    let toml = r#"
        colour = "blue"
        [[feature]]
        name = "good"
        unit = "ratio"
        promql = "up{$S}"
        min = 0
        max = 1
        [[feature]]
        name = "good"
        unit = "furlongs"
        promql = " "
        min = 2
        max = 1
        noise = 0
        history = "an hour"
        every = "0s"
        absent = "perhaps"
        optional = "yes"
        group = "Über"
        weight = 3
        [[feature]]
        name = "Bad-Name"
        promql = "up{$S,$X} and $Y"
        min = "low"
        max = inf
        history = "90d"
        every = "1500ms"
        [[feature]]
        name = "two"
        unit = "count"
        promql = 'label_replace(up, "source", "a", "", "")'
        min = 0
        max = 1
        group = "cpu"
        sources = [{ name = "a" }, { name = "b", group = "B" }, { name = "a" }, { name = "c", g = 1 }, { group = "x" }, 7, { name = "d" }]
    "#;
    let good = "feature[2] \"good\"";
    let bad = "feature[3] \"Bad-Name\"";
    let two = "feature[4] \"two\"";
    let word = "must be lower-case letters, digits and _, at most 63, a letter first";
    let keys =
        "name, unit, promql, min, max, noise, history, group, sources, absent, every, optional";
    let expected = [
        "colour: unknown key; only [[feature]] is read".to_owned(),
        format!("{good}.weight: unknown key; known are {keys}"),
        format!(
            "{good}.unit: must be one of ratio, seconds, bytes, celsius, count, per_second, number, got \"furlongs\""
        ),
        format!("{good}.promql: must not be empty"),
        format!("{good}.max: must be above min (2), got 1"),
        format!("{good}.noise: must be above 0, got 0"),
        format!("{good}.history: \"an hour\" is no duration such as \"15m\": expected number at 0"),
        format!("{good}.every: must be whole seconds, at least 1s"),
        format!("{good}.absent: must be one of missing, zero, got \"perhaps\""),
        format!("{good}.optional: must be true or false, got \"yes\""),
        format!("{good}.group: {word}, got \"Über\""),
        format!("{good}.name: there is another feature `good`"),
        format!("{bad}.name: {word}"),
        format!("{bad}.unit: is needed"),
        format!("{bad}.min: must be a finite number, got \"low\""),
        format!("{bad}.max: must be a finite number, got inf"),
        format!("{bad}.history: must not exceed 31 days"),
        format!("{bad}.every: must be whole seconds, at least 1s"),
        format!("{bad}.promql: unknown placeholder $X; known are $S $D $N $F $W"),
        format!("{bad}.promql: unknown placeholder $Y; known are $S $D $N $F $W"),
        format!("{two}.group: give each of the `sources` its own group instead"),
        format!("{two}.sources: group {word}, got \"B\""),
        format!("{two}.sources: \"a\" is there twice"),
        format!("{two}.sources: unknown key `g`; known are name, group"),
        format!("{two}.sources: each needs a name"),
        format!("{two}.sources: each must be {{ name, group }}"),
        format!("{two}.promql: never sets the label `source` to \"d\""),
    ];
    assert_eq!(faults(toml), expected);
}

#[test]
fn files_without_features_say_so() {
    for (toml, fault) in [
        ("", "feature: at least one [[feature]] is needed"),
        (
            "feature = []",
            "feature: at least one [[feature]] is needed",
        ),
        ("feature = 3", "feature: must be a list: [[feature]]"),
        ("feature = [3]", "feature[1]: must be a table"),
    ] {
        assert_eq!(faults(toml)[0], fault, "{toml}");
    }
    assert!(faults("[[feature]")[0].starts_with("not TOML: "));
}

#[test]
fn dollars_of_promql_itself_are_no_placeholders() {
    let toml = r#"
        [[feature]]
        name = "a"
        unit = "number"
        promql = 'label_replace(up{$S,device=~"sd.$"}, "x", "$1-${name}", "y", "(.*)$")'
        min = 0
        max = 1
    "#;
    assert!(Schema::parse(toml).is_ok());
}
