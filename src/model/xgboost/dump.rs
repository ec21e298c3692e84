//! One tree of XGBoost's JSON dump, checked and laid out with children after their parent.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{ImportError, MARGIN_MAX, invalid, refused};
use crate::model::artifact::Limits;
use crate::model::trees::DEPTH_MAX;

/// A node as XGBoost writes it; its children are inside it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DumpNode {
    nodeid: u64,
    #[serde(default)]
    depth: Option<u64>,
    /// `f0`, `f1`, …: the place of a column.
    #[serde(default)]
    split: Option<String>,
    #[serde(default)]
    split_condition: Option<Number>,
    /// The child for values below the condition.
    #[serde(default)]
    yes: Option<u64>,
    #[serde(default)]
    no: Option<u64>,
    /// The child for missing values.
    #[serde(default)]
    missing: Option<u64>,
    #[serde(default)]
    children: Option<Vec<DumpNode>>,
    #[serde(default)]
    leaf: Option<Number>,
    /// Statistics, which a dump may have.
    #[serde(default, rename = "gain")]
    _gain: Option<IgnoredAny>,
    #[serde(default, rename = "cover")]
    _cover: Option<IgnoredAny>,
}

/// A number, or what stands in its place in kinds of trees that are not taken.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    One(f64),
    Other(IgnoredAny),
}

impl Number {
    /// The number in single precision, as XGBoost has it.
    fn single(&self) -> Option<f32> {
        match self {
            Self::One(number) => Some(*number as f32),
            Self::Other(_) => None,
        }
    }
}

/// A tree that passed the checks.
pub(super) struct Planted {
    /// Root first.
    pub(super) places: Vec<Place>,
    /// Levels below the root.
    pub(super) depth: u32,
}

/// A node of it.
pub(super) enum Place {
    /// Log-odds that are added.
    Leaf(f32),
    /// A test.
    Split {
        /// Place of the column.
        column: usize,
        /// Values below it, in single precision, go left.
        threshold: f32,
        /// Where a missing value goes.
        missing_right: bool,
        /// Place of the child for values below.
        left: usize,
        /// Place of the other child.
        right: usize,
    },
}

impl Planted {
    /// Column and threshold of every split.
    pub(super) fn splits(&self) -> impl Iterator<Item = (usize, f32)> {
        self.places.iter().filter_map(|place| match place {
            Place::Leaf(_) => None,
            Place::Split {
                column, threshold, ..
            } => Some((*column, *threshold)),
        })
    }
}

/// Checks and lays out all trees of a dump.
///
/// # Errors
///
/// [`ImportError::Invalid`] with the first fault.
pub(super) fn plant_all(
    trees: &[DumpNode],
    n_columns: usize,
    limits: &Limits,
) -> Result<Vec<Planted>, ImportError> {
    let fewer = "train with fewer or smaller trees";
    if trees.is_empty() || trees.len() > limits.trees {
        let fault = format!("has {} entries, not 1 to {}", trees.len(), limits.trees);
        return Err(refused("trees", fault, fewer));
    }
    let mut left = limits.nodes;
    let planted = trees.iter().enumerate().map(|(number, root)| {
        let mut planter = Planter {
            number,
            n_columns,
            depth_max: limits.depth.min(DEPTH_MAX),
            nodes_max: left,
            ids: BTreeSet::new(),
            places: Vec::new(),
            depth: 0,
        };
        planter.plant(root, 0)?;
        left = left.saturating_sub(planter.places.len());
        Ok(Planted {
            places: planter.places,
            depth: planter.depth as u32,
        })
    });
    planted.collect()
}

struct Planter {
    number: usize,
    n_columns: usize,
    depth_max: usize,
    nodes_max: usize,
    ids: BTreeSet<u64>,
    places: Vec<Place>,
    depth: usize,
}

impl Planter {
    fn place(&self, node: &DumpNode) -> String {
        format!("trees[{}] node {}", self.number, node.nodeid)
    }

    /// Lays out a node and what is below it, and says where it is.
    fn plant(&mut self, node: &DumpNode, level: usize) -> Result<usize, ImportError> {
        if level > self.depth_max {
            let fault = format!("is more than {} levels below the root", self.depth_max);
            let remedy = format!("train with max_depth of at most {}", self.depth_max);
            return Err(refused(self.place(node), fault, remedy));
        }
        if self.places.len() >= self.nodes_max {
            let fault = "is beyond the number of nodes that a model may have";
            return Err(refused(
                self.place(node),
                fault,
                "train with fewer or smaller trees",
            ));
        }
        if !self.ids.insert(node.nodeid) {
            return Err(invalid(
                self.place(node),
                "has a `nodeid` that is there twice",
            ));
        }
        if node.depth.is_some_and(|depth| depth != level as u64) {
            return Err(invalid(
                self.place(node),
                "is not as deep as its `depth` says",
            ));
        }
        self.depth = self.depth.max(level);
        let at = self.places.len();
        match &node.leaf {
            Some(leaf) => {
                let value = self.leaf(node, leaf)?;
                self.places.push(Place::Leaf(value));
            }
            None => {
                let (column, threshold) = self.test(node)?;
                let ([below, above], missing_right) = self.children(node)?;
                self.places.push(Place::Split {
                    column,
                    threshold,
                    missing_right,
                    left: 0,
                    right: 0,
                });
                let children = [self.plant(below, level + 1)?, self.plant(above, level + 1)?];
                if let Some(Place::Split { left, right, .. }) = self.places.get_mut(at) {
                    [*left, *right] = children;
                }
            }
        }
        Ok(at)
    }

    fn leaf(&self, node: &DumpNode, leaf: &Number) -> Result<f32, ImportError> {
        if node.children.is_some() || node.split.is_some() {
            return Err(invalid(
                self.place(node),
                "is a leaf with a split or children",
            ));
        }
        let Some(value) = leaf.single() else {
            let fault = "has a `leaf` that is not one number, as trees for several targets have";
            return Err(refused(self.place(node), fault, "train on one label"));
        };
        // Also refuses what is no number at all.
        if !(-MARGIN_MAX..=MARGIN_MAX).contains(&f64::from(value)) {
            return Err(invalid(
                self.place(node),
                "has a `leaf` that is not between -100 and 100",
            ));
        }
        Ok(value)
    }

    /// What a split asks: column and threshold.
    fn test(&self, node: &DumpNode) -> Result<(usize, f32), ImportError> {
        let Some(split) = &node.split else {
            return Err(invalid(
                self.place(node),
                "has neither a `leaf` nor a `split`",
            ));
        };
        let column = split.strip_prefix('f').and_then(|digits| {
            let number: usize = digits.parse().ok()?;
            // No sign, no leading zero: one name for one column.
            (digits == number.to_string()).then_some(number)
        });
        let Some(column) = column.filter(|column| *column < self.n_columns) else {
            let short: String = split.chars().take(64).collect();
            let last = self.n_columns.saturating_sub(1);
            let fault = format!("asks for `{short}`, and the columns are `f0` to `f{last}`");
            let remedy = "dump the trees without feature names, as deploy/xgboost/export.py does";
            return Err(refused(self.place(node), fault, remedy));
        };
        let Some(condition) = &node.split_condition else {
            let fault = "has no `split_condition`, as indicator features have none";
            let remedy = "dump the trees without feature types, as deploy/xgboost/export.py does";
            return Err(refused(self.place(node), fault, remedy));
        };
        let Some(threshold) = condition.single() else {
            let fault =
                "has a `split_condition` that is not one number, as categorical splits have";
            return Err(refused(
                self.place(node),
                fault,
                "train with enable_categorical=False",
            ));
        };
        // The lowest number has none below it that could go left.
        if !threshold.is_finite() || threshold == f32::MIN {
            let fault = "has a `split_condition` that is no finite number in single precision";
            return Err(invalid(self.place(node), fault));
        }
        Ok((column, threshold))
    }

    /// The child for values below, the other one, and whether missing values go to the other.
    fn children<'a>(&self, node: &'a DumpNode) -> Result<([&'a DumpNode; 2], bool), ImportError> {
        let fault = |fault: &str| Err(invalid(self.place(node), fault));
        let (Some(yes), Some(no), Some(missing)) = (node.yes, node.no, node.missing) else {
            return fault("has no `yes`, `no` or `missing`");
        };
        let Some([first, second]) = node.children.as_deref() else {
            return fault("has not two children");
        };
        let children = match (first.nodeid, second.nodeid) {
            (a, b) if a == b || yes == no => return fault("has the same child twice"),
            (a, b) if (a, b) == (yes, no) => [first, second],
            (a, b) if (a, b) == (no, yes) => [second, first],
            _ => return fault("has other children than `yes` and `no` say"),
        };
        if missing != yes && missing != no {
            return fault("sends missing values to neither of its children");
        }
        Ok((children, missing == no))
    }
}
