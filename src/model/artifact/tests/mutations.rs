//! Hostile files in numbers: every kind of damage at many places of a good file.
//!
//! The seeds are fixed, so it is the same files every time. Damage to the content comes with a checksum
//! that fits, because whoever can change the content can also change the checksum: only the rules stand
//! between the file and the scorer. What a mutation leaves as it was is not counted as hostile.

use std::io::Write;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::model::boost::unit;

/// Files of each kind.
const EACH: u64 = 8;

/// A good model whose features are those of the built-in schema.
fn base() -> &'static Artifact {
    static BASE: OnceLock<Artifact> = OnceLock::new();
    BASE.get_or_init(|| {
        let schema = Schema::built_in();
        let mut content = good().content().clone();
        for column in &mut content.columns {
            column.meaning = meaning_of(&schema, column.feature()).unwrap();
        }
        Artifact::seal(content, &Limits::default()).unwrap()
    })
}

/// What a service does with a file: reads it, and holds it against its features.
fn load(bytes: &[u8]) -> Result<Artifact, ModelError> {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    let artifact = parse(bytes)?;
    artifact.matches(SCHEMA.get_or_init(Schema::built_in))?;
    Ok(artifact)
}

/// A draw of places and values.
struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        (unit(&mut self.0) * n as f64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// A column of the content.
    fn column<'a>(&mut self, content: &'a mut Value) -> &'a mut Value {
        let columns = content["columns"].as_array_mut().unwrap();
        let at = self.below(columns.len());
        &mut columns[at]
    }

    /// The nodes of a tree.
    fn nodes<'a>(&mut self, content: &'a mut Value) -> &'a mut Vec<Value> {
        let trees = content["gbdt"]["trees"].as_array_mut().unwrap();
        let at = self.below(trees.len());
        trees[at]["tree"]["tree"].as_array_mut().unwrap()
    }

    /// A leaf, or an inner node, and its place.
    fn node<'a>(&mut self, content: &'a mut Value, leaf: bool) -> (usize, &'a mut Value) {
        let nodes = self.nodes(content);
        let fits = |at: &usize| nodes[*at]["value"]["is_leaf"] == json!(leaf);
        let places: Vec<usize> = (0..nodes.len()).filter(fits).collect();
        let at = self.of(&places);
        (at, &mut nodes[at])
    }

    fn side(&mut self) -> &'static str {
        self.of(&["left", "right"])
    }
}

/// A kind of damage to the content: its name, what the refusal says, and how it is done.
type Kind = (&'static str, &'static str, fn(&mut Value, &mut Draw));

/// A child where none may be: what the gbdt crate hangs or panics on.
const CHILDREN: [Kind; 8] = [
    ("a child that is the node itself", "child", |c, draw| {
        let side = draw.side();
        let (at, node) = draw.node(c, false);
        node[side] = json!(at);
    }),
    ("a child that is an ancestor", "child", |c, draw| {
        let (side, share) = (draw.side(), unit(&mut draw.0));
        let (at, node) = draw.node(c, false);
        node[side] = json!((share * at as f64) as usize);
    }),
    ("a child out of range", "child", |c, draw| {
        let (side, beyond) = (draw.side(), draw.of(&[0, 1, 1_000, 1 << 40]));
        let nodes = draw.nodes(c);
        let n = nodes.len();
        nodes[0][side] = json!(n + beyond);
    }),
    ("a negative child", "invalid value", |c, draw| {
        let side = draw.side();
        draw.node(c, false).1[side] = json!(-1);
    }),
    ("both children the same", "twice", |c, draw| {
        let (_, node) = draw.node(c, false);
        node["left"] = node["right"].clone();
    }),
    ("a node that nobody reaches", "not reached", |c, draw| {
        let nodes = draw.nodes(c);
        nodes.push(super::node(nodes.len(), 0, 0, 0.0));
    }),
    ("a node of another place", "another place", |c, draw| {
        let (at, node) = draw.node(c, true);
        node["index"] = json!(at + 1);
    }),
    ("a tree that is too deep", "levels", |c, draw| {
        let levels = 13 + draw.below(60);
        *draw.nodes(c) = chain(levels).as_array().unwrap().clone();
    }),
];

/// Nodes that ask or answer what cannot be.
const NODES: [Kind; 14] = [
    ("a feature out of range", "feature_index", |c, draw| {
        let beyond = draw.of(&[3, 4, 255, 65_535, 65_536, 1_i64 << 33]);
        draw.node(c, false).1["value"]["feature_index"] = json!(beyond);
    }),
    ("a cut beyond the bins", "feature_value", |c, draw| {
        let cut = draw.of(&[256.0, 300.0, 1e9, 1e38]);
        draw.node(c, false).1["value"]["feature_value"] = json!(cut);
    }),
    ("a cut below the bins", "feature_value", |c, draw| {
        let cut = draw.of(&[0.0, -0.0, -1.0, -1e38]);
        draw.node(c, false).1["value"]["feature_value"] = json!(cut);
    }),
    ("a cut that no number holds", "out of range", |c, draw| {
        let cut = draw.of(&[1e39, -1e39, 1e300]);
        draw.node(c, false).1["value"]["feature_value"] = json!(cut);
    }),
    ("a leaf that no number holds", "out of range", |c, draw| {
        let value = draw.of(&[1e39, -1e39, 1e300]);
        draw.node(c, true).1["value"]["pred"] = json!(value);
    }),
    ("a cut of null", "null", |c, draw| {
        draw.node(c, false).1["value"]["feature_value"] = Value::Null;
    }),
    ("a leaf beyond reason", "pred", |c, draw| {
        let value = draw.of(&[50.1, -50.1, 1e30, -1e38]);
        draw.node(c, true).1["value"]["pred"] = json!(value);
    }),
    ("an inner value beyond reason", "pred", |c, draw| {
        let value = draw.of(&[51.0, -51.0, 1e30]);
        draw.node(c, false).1["value"]["pred"] = json!(value);
    }),
    ("a leaf of null", "null", |c, draw| {
        draw.node(c, true).1["value"]["pred"] = Value::Null;
    }),
    ("a leaf in quotes", "invalid type", |c, draw| {
        draw.node(c, true).1["value"]["pred"] = json!("0.1");
    }),
    ("a leaf with children", "with children", |c, draw| {
        draw.node(c, false).1["value"]["is_leaf"] = json!(true);
    }),
    ("an inner node without children", "tree.tree[", |c, draw| {
        draw.node(c, true).1["value"]["is_leaf"] = json!(false);
    }),
    ("a direction that is none", "missing values", |c, draw| {
        let direction = draw.of(&[-1, 2, -128, 127]);
        draw.node(c, false).1["value"]["missing"] = json!(direction);
    }),
    ("a split that divides nothing", "every value", |c, draw| {
        let value = &mut draw.node(c, false).1["value"];
        value["feature_value"] = json!(0.5);
        value["missing"] = json!(1);
    }),
];

/// Ensembles that are not what they say.
const ENSEMBLES: [Kind; 10] = [
    ("another number of trees", "iterations", |c, draw| {
        let n = draw.of(&[0, 1, 7, 9, 1_000, usize::MAX]);
        c["gbdt"]["conf"]["iterations"] = json!(n);
    }),
    ("no trees", "trees", |c, _| {
        c["gbdt"]["trees"] = json!([]);
        c["gbdt"]["conf"]["iterations"] = json!(0);
    }),
    ("an empty tree", "no root", |c, draw| {
        draw.nodes(c).clear();
    }),
    ("a tree that is null", "null", |c, draw| {
        let at = draw.below(8);
        c["gbdt"]["trees"][at] = Value::Null;
    }),
    ("a tree of another width", "feature_size", |c, draw| {
        let (at, width) = (draw.below(8), draw.of(&[0, 2, 4, 1_i64 << 40]));
        c["gbdt"]["trees"][at]["feature_size"] = json!(width);
    }),
    ("another width", "feature_size", |c, draw| {
        c["gbdt"]["conf"]["feature_size"] = json!(draw.of(&[0, 2, 4, 1_i64 << 40]));
    }),
    ("a bias beyond reason", "bias", |c, draw| {
        c["gbdt"]["bias"] = json!(draw.of(&[50.5, -50.5, 1e30, -1e38]));
    }),
    ("a bias of null", "null", |c, _| {
        c["gbdt"]["bias"] = Value::Null;
    }),
    ("a rate beyond reason", "shrinkage", |c, draw| {
        let rate = draw.of(&[0.0, -0.1, -1e38, 1.001, 1e6, 1e30]);
        c["gbdt"]["conf"]["shrinkage"] = json!(rate);
    }),
    ("another loss", "loss", |c, draw| {
        let loss = draw.of(&["SquaredError", "LAD", "logistic", ""]);
        c["gbdt"]["conf"]["loss"] = json!(loss);
    }),
];

/// Columns that cannot be, or that mean something else here.
const COLUMNS: [Kind; 12] = [
    ("edges out of order", "does not rise", |c, draw| {
        let edges = draw.column(c)["edges"].as_array_mut().unwrap();
        let at = (unit(&mut draw.0) * (edges.len() - 1) as f64) as usize;
        edges.swap(at, at + 1);
    }),
    ("an edge twice", "does not rise", |c, draw| {
        let edges = draw.column(c)["edges"].as_array_mut().unwrap();
        let at = (unit(&mut draw.0) * edges.len() as f64) as usize;
        edges.insert(at, edges[at].clone());
    }),
    ("an edge of null", "null", |c, draw| {
        let edges = draw.column(c)["edges"].as_array_mut().unwrap();
        let at = (unit(&mut draw.0) * edges.len() as f64) as usize;
        edges[at] = Value::Null;
    }),
    ("too many edges", "more than 254", |c, draw| {
        let n = 255 + draw.below(1_000);
        draw.column(c)["edges"] = json!((0..n).collect::<Vec<_>>());
    }),
    ("a name that is none", "name", |c, draw| {
        let long = "a".repeat(65);
        let name = draw.of(&[
            "",
            " ",
            "Mem_used",
            "mem-used",
            "a\nb",
            "mem_used:month",
            ":peers",
            &long,
        ]);
        draw.column(c)["name"] = json!(name);
    }),
    ("a name twice", "twice", |c, draw| {
        let other = c["columns"][2]["name"].clone();
        let at = draw.below(2);
        c["columns"][at]["name"] = other;
    }),
    ("a meaning that is none", "meaning", |c, draw| {
        let meaning = draw.of(&["", "x", "0123456789ABCDEF", "0123456789abcdef0"]);
        draw.column(c)["meaning"] = json!(meaning);
    }),
    (
        "a feature that means something else",
        "defined differently",
        |c, draw| {
            let digit = draw.of(&["0", "7", "f"]);
            draw.column(c)["meaning"] = json!(digit.repeat(MEANING_DIGITS));
        },
    ),
    ("a feature that is not there", "is missing", |c, draw| {
        let name = format!("fan_speed_{}", draw.below(100));
        draw.column(c)["name"] = json!(name);
    }),
    ("a column too few", "feature_size", |c, _| {
        c["columns"].as_array_mut().unwrap().pop();
    }),
    ("a fall in a rising column", "rising", |c, draw| {
        let column = draw.below(3);
        c["columns"][column]["rising"] = json!(true);
        let mut tree = vec![
            super::node(0, 1, 2, 0.0),
            super::node(1, 0, 0, 1.0),
            super::node(2, 0, 0, -1.0),
        ];
        tree[0]["value"]["feature_index"] = json!(column);
        *draw.nodes(c) = tree;
    }),
    (
        "missing at the high end of a rising column",
        "high side",
        |c, draw| {
            let column = draw.below(3);
            c["columns"][column]["rising"] = json!(true);
            // In every tree, so that nothing else is wrong before it.
            for tree in c["gbdt"]["trees"].as_array_mut().unwrap() {
                let mut nodes = [
                    super::node(0, 1, 2, 0.0),
                    super::node(1, 0, 0, -1.0),
                    super::node(2, 0, 0, 1.0),
                ];
                nodes[0]["value"]["feature_index"] = json!(column);
                nodes[0]["value"]["missing"] = json!(1);
                tree["tree"]["tree"] = json!(nodes);
            }
        },
    ),
];

/// The rest of the content.
const REST: [Kind; 8] = [
    ("a slope that turns the order", "slope", |c, draw| {
        c["calibration"]["slope"] = json!(draw.of(&[-1e-9, -1.0, 101.0, 1e308]));
    }),
    ("an intercept beyond reason", "intercept", |c, draw| {
        c["calibration"]["intercept"] = json!(draw.of(&[101.0, -101.0, 1e30, -1e308]));
    }),
    ("a calibration of null", "null", |c, draw| {
        let key = draw.of(&["slope", "intercept"]);
        c["calibration"][key] = Value::Null;
    }),
    ("a horizon that is none", "horizon", |c, draw| {
        c["horizon_seconds"] = json!(draw.of(&[0u64, 59, 604_801, u64::MAX]));
    }),
    ("an unknown source", "unknown variant", |c, draw| {
        c["source"] = json!(draw.of(&["", "Local", "stolen"]));
    }),
    ("an unknown key", "unknown field", |c, draw| {
        let place = draw.of(&[
            "",
            "/calibration",
            "/provenance",
            "/gbdt",
            "/gbdt/conf",
            "/columns/1",
        ]);
        c.pointer_mut(place).unwrap()["__proto__"] = json!(1);
    }),
    ("a figure that is no ratio", "validation", |c, draw| {
        let mut figures = json!({"rows": 1, "base_rate": 0.1, "pr_auc": 0.1, "brier": 0.1, "brier_skill": 0.1, "ece": 0.1});
        let key = draw.of(&["base_rate", "pr_auc", "brier", "brier_skill", "ece"]);
        figures[key] = json!(draw.of(&[1.001, 2.0, 1e300]));
        c["validation"] = figures;
    }),
    ("nested without end", "invalid type", |c, draw| {
        let depth = 200 + draw.below(5_000);
        // Too deep to be built as a value: the text is put in where this stands.
        c["provenance"]["command"] = json!(format!("NEST{depth}"));
    }),
];

/// Files with one kind of damage to their content, and a checksum that fits where there is a content.
fn of_kind((name, reason, damage): Kind) -> Vec<(String, Vec<u8>, &'static str)> {
    let file = |seed| {
        let mut file: Value = serde_json::from_slice(&base().to_bytes().unwrap()).unwrap();
        damage(
            &mut file["content"],
            &mut Draw(ChaCha8Rng::seed_from_u64(seed)),
        );
        if let Ok(content) = serde_json::from_value::<Content>(file["content"].clone()) {
            assert!(
                content != *base().content(),
                "{name}, seed {seed}: does nothing"
            );
            file["checksum"] = json!(checksum_of(&content).unwrap());
        }
        let mut text = serde_json::to_string(&file).unwrap();
        if let Some((before, after)) = text.split_once("\"NEST") {
            let (depth, after) = after.split_once('"').unwrap();
            let depth = depth.parse().unwrap();
            text = [before, &"[".repeat(depth), &"]".repeat(depth), after].concat();
        }
        (format!("{name}, seed {seed}"), text.into_bytes(), reason)
    };
    (0..EACH).map(file).collect()
}

/// Files whose bytes are damaged, as by a bad disk or a copy that was cut off.
fn damaged() -> Vec<(String, Vec<u8>, &'static str)> {
    let whole = base().to_bytes().unwrap();
    let mut files = Vec::new();
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(2_026));
    for n in 0..40 {
        // Without the line's end it would still be whole.
        let cut = draw.below(whole.len() - 2);
        files.push((format!("cut at {cut}"), whole[..cut].to_vec(), "EOF"));
        let (at, bit) = (draw.below(whole.len() - 1), 1 << draw.below(7));
        let mut flipped = whole.clone();
        flipped[at] ^= bit;
        files.push((format!("bit {bit} of byte {at} flipped"), flipped, ""));
        let (at, from) = (draw.below(whole.len() - 300), draw.below(whole.len() - 300));
        let mut mixed = whole.clone();
        mixed.copy_within(from..from + 256, at);
        files.push((format!("block {from} over {at}"), mixed, ""));
        let word = draw.of(&[
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999",
            "0x10",
            "nan",
            "1_0",
        ]);
        let windows = whole.windows(7).enumerate();
        let numbers: Vec<usize> = windows
            .filter(|(_, w)| w == b"\"pred\":")
            .map(|(at, _)| at + 7)
            .collect();
        let at = draw.of(&numbers);
        let end = at + whole[at..].iter().position(|byte| *byte == b',').unwrap();
        let said = [&whole[..at], word.as_bytes(), &whole[end..]].concat();
        files.push((format!("{word} for a number, {n}"), said, "not a complete"));
    }
    files.push((
        "a byte too large".to_owned(),
        vec![b' '; Limits::default().bytes + 1],
        "the limit is",
    ));
    files.push(("zeros".to_owned(), vec![0; whole.len()], "not a complete"));
    files
}

#[test]
fn hundreds_of_hostile_files_are_refused_with_a_reason_each_within_a_second() {
    assert!(
        load(&base().to_bytes().unwrap()).is_ok(),
        "without damage it is loaded"
    );
    let kinds = [&CHILDREN[..], &NODES, &ENSEMBLES, &COLUMNS, &REST].concat();
    let mut files: Vec<(String, Vec<u8>, &str)> =
        kinds.iter().flat_map(|kind| of_kind(*kind)).collect();
    files.extend(damaged());
    let (mut refused, mut harmless, mut seen) = (0, 0, std::collections::BTreeSet::new());
    for (name, bytes, reason) in &files {
        if !seen.insert(Sha256::digest(bytes)) {
            // A kind with few values draws some of them twice.
            continue;
        }
        match load(bytes) {
            Err(error) => {
                let remedies = ["train", "copy it again"];
                says(name, &error, reason, &remedies);
                refused += 1;
            }
            // The damage hit nothing, as a byte that was copied over the same byte.
            Ok(artifact) => {
                assert_eq!(&artifact, base(), "{name}: was accepted");
                harmless += 1;
            }
        }
    }
    let by_hand = [foreign(), impossible(), bad_trees()].concat().len();
    // A closed standard output is no fault of the test.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "figure hostile_model_files_by_mutation {refused}");
    let _ = writeln!(out, "figure hostile_model_files_by_hand {by_hand}");
    assert!(
        refused >= 300,
        "{refused} of {}, {harmless} harmless",
        files.len()
    );
}
