//! What the operator allows: thresholds, times, limits. The words are those of the TOML's `[policy]`.

use std::fmt;
use std::time::Duration;

use super::window::Window;
use super::world::NodeFacts;
use crate::drain::DrainRules;
use crate::record::Taint;
use crate::risk::{Band, Risk};

/// How far foreshock may go. Ordered: each step includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// Say only.
    #[default]
    Observe,
    /// Write the risk label.
    Label,
    /// Write the caution taint and the taint.
    Taint,
    /// Evict Pods.
    Evict,
}

impl Reach {
    /// Every reach, from the least to the furthest.
    pub const ALL: [Self; 4] = [Self::Observe, Self::Label, Self::Taint, Self::Evict];

    /// The name in the configuration, the API and the records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Label => "label",
            Self::Taint => "taint",
            Self::Evict => "evict",
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit as a count or as a share of the eligible Nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// So many.
    Count(u32),
    /// So many per cent (`0.0..=100.0`), rounded down, but at least 1.
    Percent(f64),
}

impl Limit {
    /// The count that the limit means for `base` eligible Nodes.
    pub fn of(self, base: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            // 1e-9 so that 10 % of 30, which is 3.0000000000000004 or 2.9999999999999996
            // depending on the order of the operations, is 3.
            Self::Percent(percent) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "at most the number of Nodes, and never negative"
                )]
                let count = (base as f64 * percent / 100.0 + 1e-9).floor().max(0.0) as usize;
                count.max(1)
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Whether control-plane Nodes may be marked and drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlPlane {
    /// They are left alone.
    Exclude,
    /// They are treated like others, one at a time.
    Include,
}

/// Limits of the whole cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Nodes that carry our taint at once.
    pub tainted_max: Limit,
    /// Nodes that are drained at once.
    pub draining_max: Limit,
    /// Drains started within an hour.
    pub drains_per_hour: u32,
    /// Nodes of one zone that carry our taint at once; a share is one of the zone's Nodes. Nodes
    /// without a zone label count as one zone.
    pub zone_tainted_max: Option<Limit>,
    /// Nodes of one zone that are drained at once.
    pub zone_draining_max: Option<Limit>,
    /// Share of the Nodes (`0.0..=1.0`) of the cluster, a zone or a pool that must turn at risk within
    /// `storm_window`, exclusive,
    pub storm_share: f64,
    /// and at least so many, for a storm.
    pub storm_min: u32,
    /// The window of both.
    pub storm_window: Duration,
}

/// Limits of one pool, which apply besides the cluster's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolLimits {
    /// Nodes of the pool that carry our taint at once.
    pub tainted_max: Option<Limit>,
    /// Nodes of the pool that are drained at once.
    pub draining_max: Option<Limit>,
    /// Drains started in the pool within an hour.
    pub drains_per_hour: Option<u32>,
}

/// Some of the Nodes, with rules and limits of their own. Which Nodes is the shell's business: it
/// puts the pool's name into [`super::world::NodeFacts::pool`].
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The rules for its Nodes: the cluster's, with what the pool overrides.
    pub rules: Rules,
    /// What applies besides the cluster's limits.
    pub limits: PoolLimits,
}

/// The rules for one Node: the keys of `[policy]` that a pool may override.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The furthest that may be done at all.
    pub reach: Reach,
    /// Above this: at risk.
    pub at_risk: Risk,
    /// From here: caution.
    pub caution: Risk,
    /// Below this, for `recover_for`: well again.
    pub recover_below: Risk,
    /// At risk this long, by the model, before anything is written.
    pub confirm_for: Duration,
    /// Tainted this long and still at risk before the first eviction.
    pub drain_after: Duration,
    /// Fresh features below `recover_below` this long before release.
    pub recover_for: Duration,
    /// After a release: at risk again within it counts as a repeat.
    pub probation: Duration,
    /// More repeats than this within `repeat_window`: no new taint or drain.
    pub repeat_max: u32,
    /// The window of `repeat_max`.
    pub repeat_window: Duration,
    /// How long a removed taint does not come back.
    pub veto_for: Duration,
    /// Tainted for longer than this is worth an alert.
    pub tainted_for_max: Duration,
    /// Younger Nodes are left alone.
    pub new_node_age: Duration,
    /// The taint.
    pub taint: Taint,
    /// The taint of Nodes in the caution band, if wanted.
    pub caution_taint: Option<Taint>,
    /// Whether control-plane Nodes may be acted on.
    pub control_plane: ControlPlane,
    /// Drains start only inside one of these; always, where there is none.
    pub windows: Vec<Window>,
}

impl Rules {
    /// The band that a risk falls into; an unknown risk is [`Band::Unknown`].
    pub fn band(&self, risk: Option<Risk>) -> Band {
        match risk {
            None => Band::Unknown,
            Some(risk) if risk > self.at_risk => Band::AtRisk,
            Some(risk) if risk >= self.caution => Band::Caution,
            Some(_) => Band::Healthy,
        }
    }
}

/// What the operator allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `kubernetes.instance`: owner in the records.
    pub instance: String,
    /// Whether the model's evidence may exceed [`Reach::Label`]: it was validated on local history,
    /// or the operator said `act_untrained`. [`World::untrusted`](super::world::World::untrusted) says why not.
    pub model_trusted: bool,
    /// A score is of use for this long after the time its features were asked for.
    pub score_age_max: Duration,
    /// Facts about Pods are of use for this long.
    pub facts_age_max: Duration,
    /// The rules for every Node that is in no pool.
    pub rules: Rules,
    /// Limits of the cluster.
    pub limits: Limits,
    /// Nodes with rules and limits of their own.
    pub pools: Vec<Pool>,
    /// How drains are done.
    pub drain: DrainRules,
}

impl Policy {
    /// Caution marks leave so far below the threshold.
    pub const CAUTION_DEAD_BAND: f64 = 0.05;
    /// Caution marks of a Node change at most once in this time.
    pub const CAUTION_CHANGE_MIN: Duration = Duration::from_secs(300);
    /// A drain that failed is tried again at most so often under one taint; then a person decides.
    pub const DRAIN_ATTEMPTS_MAX: u32 = 3;

    /// The rules for one Node: its pool's, or those of the cluster.
    pub fn rules_of(&self, node: &NodeFacts) -> &Rules {
        self.pool_of(node).map_or(&self.rules, |pool| &pool.rules)
    }

    /// The Node's pool, if it is in one.
    pub fn pool_of(&self, node: &NodeFacts) -> Option<&Pool> {
        let name = node.pool.as_deref()?;
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The furthest that is allowed anywhere: with [`Reach::Observe`] nothing is ever written.
    pub fn reach_max(&self) -> Reach {
        self.pools
            .iter()
            .map(|pool| pool.rules.reach)
            .fold(self.rules.reach, Reach::max)
    }
}
