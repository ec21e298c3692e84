//! Which labelled rows are learned from, and which are judged on.
//!
//! Three rules: negatives may be thinned, positives never, and the prior is put back; parts of the history
//! follow one another in time with a gap between, so that no part has seen the answers of another; and what
//! is too little is refused in words.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::time::Duration;

use foreshock_core::node::NodeName;
use foreshock_core::time::after;
use jiff::Timestamp;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::model::authority;

use super::labels::{Incident, Rules};
use super::track::Span;

/// With fewer incidents to judge a model on, it may advise and not act.
pub const INCIDENTS_MIN: usize = authority::EVENTS_MIN as usize;
/// And with those of fewer Nodes.
pub const NODES_MIN: usize = authority::NODES_MIN as usize;
/// No part of the history may be shorter: Nodes have days and nights.
const PART_MIN: Duration = Duration::from_secs(86_400);

/// Thins negatives, by Node and time and not by order: rows may come in any order and in slices, and what is
/// done again after an interruption keeps the same rows.
#[derive(Clone, Debug)]
pub struct Thinner {
    one_in: u64,
    seed: u64,
    prior: Prior,
}

impl Thinner {
    /// Keeps one negative of so many (0 and 1 keep all).
    pub fn new(one_in: u32, seed: u64) -> Self {
        Self {
            one_in: u64::from(one_in.max(1)),
            seed,
            prior: Prior::default(),
        }
    }

    /// Whether a row is kept. Each row must be asked about once: they are counted.
    pub fn keeps(&mut self, node: &NodeName, at: Timestamp, positive: bool) -> bool {
        if positive {
            return true;
        }
        self.prior.seen += 1;
        let kept = self.one_in == 1 || self.draw(node, at).is_multiple_of(self.one_in);
        self.prior.kept += u64::from(kept);
        kept
    }

    /// What the thinning has done.
    pub fn prior(&self) -> Prior {
        self.prior
    }

    fn draw(&self, node: &NodeName, at: Timestamp) -> u64 {
        let mut hash = Fnv::seeded(self.seed);
        hash.write(node.as_str().as_bytes());
        hash.write(&at.as_second().to_le_bytes());
        hash.mixed()
    }
}

/// So many of the Nodes, drawn by lot.
pub fn lot(nodes: &BTreeSet<NodeName>, n: usize, seed: u64) -> BTreeSet<NodeName> {
    let drawn = nodes.iter().map(|node| {
        let mut hash = Fnv::seeded(seed);
        hash.write(node.as_str().as_bytes());
        (hash.mixed(), node)
    });
    let mut drawn: Vec<(u64, &NodeName)> = drawn.collect();
    drawn.sort();
    let drawn = drawn.into_iter().take(n);
    drawn.map(|(_, node)| node.clone()).collect()
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: the standard library's hashers may differ between its versions, and a model must not.
struct Fnv(u64);

impl Fnv {
    fn seeded(seed: u64) -> Self {
        Self(seed ^ FNV_OFFSET)
    }

    /// The finaliser of SplitMix64: FNV alone leaves patterns in its low bits.
    fn mixed(&self) -> u64 {
        let mut x = self.finish();
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How many of the negatives were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prior {
    /// Negatives that there were.
    pub seen: u64,
    /// Those that were kept.
    pub kept: u64,
}

impl Prior {
    /// How many negatives each one that was kept stands for; 1 if nothing was kept or left out.
    pub fn each(&self) -> f64 {
        if self.kept == 0 || self.seen <= self.kept {
            return 1.0;
        }
        self.seen as f64 / self.kept as f64
    }
}

/// A part of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Trees are grown on it.
    Train,
    /// It decides when to stop, and which settings are best.
    Validation,
    /// Calibration, and the thresholds of what the model is judged against.
    Calibration,
    /// Judgement.
    Test,
}

impl Part {
    /// Every part, in the order of time.
    pub const ALL: [Self; 4] = [Self::Train, Self::Validation, Self::Calibration, Self::Test];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Calibration => "calibration",
            Self::Test => "test",
        }
    }

    /// Its share of the history, in eighths: half to learn from, a quarter to judge on.
    fn eighths(self) -> u32 {
        match self {
            Self::Train => 4,
            Self::Validation | Self::Calibration => 1,
            Self::Test => 2,
        }
    }
}

/// What there is to learn from, or why that is too little.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The history is too short.
    #[error(
        "the history of {have:?} is too short, it takes {need:?}: every part of it needs a day; train when there is more, or ask for more with an earlier begin"
    )]
    TooShort {
        /// How long it is.
        have: Duration,
        /// How long it must be.
        need: Duration,
    },
    /// There is nothing to foresee.
    #[error(
        "no incident was found in the history; list yours in a CSV file (node,start,end,kind), or name more alerts"
    )]
    NoIncidents,
    /// There are no peers, and nothing to transfer to.
    #[error(
        "the history has {0} Nodes with rows; it takes two at least, and {NODES_MIN} with incidents for a model that may act"
    )]
    OneNode(usize),
    /// A part of the history has rows of one kind only.
    #[error(
        "the {part} part of the history ({from:.0} to {to:.0}) has {positives} positive and {negatives} negative rows; it takes both: train on a longer history, or list more incidents",
        part = part.as_str(), from = span.from, to = span.to
    )]
    OneKind {
        /// Which.
        part: Part,
        /// When.
        span: Span,
        /// Positive rows.
        positives: u64,
        /// Negative rows.
        negatives: u64,
    },
}

/// The history, cut into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut([Span; 4]);

impl Cut {
    /// Cuts a history in the order of time: half, an eighth, an eighth, a quarter, each a horizon and a gap
    /// apart, so that no row's horizon reaches into the next part.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooShort`].
    pub fn new(history: Span, rules: &Rules) -> Result<Self, Refusal> {
        let apart = rules.horizon + rules.gap;
        let have = history.lasts();
        let need = PART_MIN * 8 + apart * 3;
        if have < need {
            return Err(Refusal::TooShort { have, need });
        }
        let eighth = (have - apart * 3) / 8;
        let mut from = history.from;
        let cut = Part::ALL.map(|part| {
            let to = match part {
                Part::Test => history.to,
                _ => after(from, eighth * part.eighths()),
            };
            let span = Span { from, to };
            from = after(to, apart);
            span
        });
        Ok(Self(cut))
    }

    /// When a part is.
    pub fn span(&self, part: Part) -> Span {
        self.0[part as usize]
    }

    /// Which part a row belongs to; `None` between two.
    pub fn part_of(&self, at: Timestamp) -> Option<Part> {
        Part::ALL
            .into_iter()
            .find(|part| self.span(*part).contains(at))
    }

    /// Checks that every part can be learned from. `rows` are positives and negatives.
    ///
    /// # Errors
    ///
    /// [`Refusal::OneKind`] with the first part that cannot.
    pub fn check(&self, rows: &BTreeMap<Part, (u64, u64)>) -> Result<(), Refusal> {
        for part in Part::ALL {
            let (positives, negatives) = rows.get(&part).copied().unwrap_or_default();
            if positives == 0 || negatives == 0 {
                return Err(Refusal::OneKind {
                    part,
                    span: self.span(part),
                    positives,
                    negatives,
                });
            }
        }
        Ok(())
    }
}

/// How many incidents there are, and of how many Nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enough {
    /// Incidents.
    pub incidents: usize,
    /// Nodes that they befell.
    pub nodes: usize,
}

impl Enough {
    /// Counts those that begin in a span, and whose begin is known.
    pub fn count<'a>(
        incidents: impl Iterator<Item = (&'a NodeName, &'a Incident)>,
        within: Span,
    ) -> Self {
        let mut nodes = BTreeSet::new();
        let mut count = 0;
        for (node, incident) in incidents {
            if incident.begin_seen && within.contains(incident.span.from) {
                count += 1;
                nodes.insert(node);
            }
        }
        Self {
            incidents: count,
            nodes: nodes.len(),
        }
    }

    /// Whether a model that was judged on them may act.
    pub fn to_act(&self) -> bool {
        self.incidents >= INCIDENTS_MIN && self.nodes >= NODES_MIN
    }
}

/// Checks that there is anything to learn, before rows are fetched.
///
/// # Errors
///
/// [`Refusal::OneNode`], [`Refusal::NoIncidents`].
pub fn check(n_nodes: usize, all: &Enough) -> Result<(), Refusal> {
    if n_nodes < 2 {
        return Err(Refusal::OneNode(n_nodes));
    }
    if all.incidents == 0 {
        return Err(Refusal::NoIncidents);
    }
    Ok(())
}

/// Deals Nodes into as many hands, each to be left out of training in turn and judged on: how a model does on
/// Nodes that it has never seen. Those with incidents are dealt first, so that every hand has some.
///
/// # Errors
///
/// [`Refusal::OneNode`].
pub fn leave_out(
    nodes: &BTreeMap<NodeName, usize>,
    hands: usize,
    seed: u64,
) -> Result<Vec<BTreeSet<NodeName>>, Refusal> {
    if nodes.len() < 2 {
        return Err(Refusal::OneNode(nodes.len()));
    }
    let hands = hands.clamp(2, nodes.len());
    let (mut ill, mut well): (Vec<_>, Vec<_>) =
        nodes.iter().partition(|(_, incidents)| **incidents > 0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    shuffle(&mut ill, &mut rng);
    shuffle(&mut well, &mut rng);
    let mut dealt = vec![BTreeSet::new(); hands];
    for (i, (node, _)) in ill.into_iter().chain(well).enumerate() {
        dealt[i % hands].insert(node.clone());
    }
    Ok(dealt)
}

/// Fisher and Yates.
fn shuffle<T>(list: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..list.len()).rev() {
        let j = below(rng, i as u64 + 1) as usize;
        list.swap(i, j);
    }
}

/// A whole number below `n`, which must not be 0; even but for one part in 2⁶⁴/n.
pub(super) fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::calibrate::{Scored, calibrate};
    use crate::model::scorer::probability;
    use crate::train::labels::Kind;
    use crate::train::track::tests::{MINUTE, at, span};

    fn rules() -> Rules {
        Rules::new(MINUTE)
    }

    fn node(n: usize) -> NodeName {
        format!("worker-{n:03}").into()
    }

    #[test]
    fn thinning_keeps_every_positive_and_one_negative_in_so_many() {
        let mut thinner = Thinner::new(8, 1);
        let (mut kept, mut by_node) = (0, [0; 10]);
        for (n, by_node) in by_node.iter_mut().enumerate() {
            for m in 0..4_000 {
                let keeps = thinner.keeps(&node(n), at(m), false);
                kept += u64::from(keeps);
                *by_node += u64::from(keeps);
                assert!(thinner.keeps(&node(n), at(m), true));
            }
        }
        assert_eq!(thinner.prior(), Prior { seen: 40_000, kept });
        assert!((4_700..=5_300).contains(&kept), "{kept}");
        assert!(
            by_node.iter().all(|kept| (400..=600).contains(kept)),
            "{by_node:?}"
        );
    }

    #[test]
    fn the_same_rows_are_kept_in_any_order_and_others_with_another_seed() {
        let kept = |seed, order: &mut dyn Iterator<Item = i64>| -> BTreeSet<i64> {
            let mut thinner = Thinner::new(10, seed);
            order
                .filter(|m| thinner.keeps(&node(1), at(*m), false))
                .collect()
        };
        let forward = kept(1, &mut (0..5_000));
        assert_eq!(forward, kept(1, &mut (0..5_000).rev()));
        assert_ne!(forward, kept(2, &mut (0..5_000)));
    }

    #[test]
    fn calibrated_on_thinned_rows_the_base_rate_comes_back() {
        // The true log-odds are those of the score, at about one positive in 60.
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for i in 0..200_000 {
            let x = f64::from(i % 100) / 25.0 - 6.0;
            scores.push(x);
            let p = 1.0 / (1.0 + libm::exp(-x));
            labels.push((f64::from(i / 100) + 0.5) / 2_000.0 < p);
        }
        let base = labels.iter().filter(|y| **y).count() as f64 / labels.len() as f64;
        let mut thinner = Thinner::new(12, 3);
        let kept: Vec<usize> = (0..labels.len())
            .filter(|i| thinner.keeps(&node(i % 40), at(*i as i64), labels[*i]))
            .collect();
        let thin = |i: &usize| (scores[*i], labels[*i]);
        let (thin_scores, thin_labels): (Vec<f64>, Vec<bool>) = kept.iter().map(thin).unzip();
        let said = |each_negative: f64| {
            let calibration = calibrate(Scored {
                log_odds: &thin_scores,
                labels: &thin_labels,
                each_negative,
            });
            let z = scores
                .iter()
                .map(|x| calibration.slope * x + calibration.intercept);
            let said: f64 = z.map(|z| probability(z).as_f64()).sum();
            (said / scores.len() as f64, calibration)
        };
        let (mean, calibration) = said(thinner.prior().each());
        assert!((mean / base - 1.0).abs() < 0.02, "{mean} {base}");
        assert!((calibration.slope - 1.0).abs() < 0.03, "{calibration:?}");
        let (mean, _) = said(1.0);
        assert!(mean > 4.0 * base, "as if nothing were left out: {mean}");
    }

    #[test]
    fn a_negative_stands_for_those_that_were_left_out() {
        let each = |seen, kept| Prior { seen, kept }.each();
        assert_eq!(
            (each(8_000, 1_000), each(9, 9), each(0, 0), each(5, 0)),
            (8.0, 1.0, 1.0, 1.0)
        );
    }

    #[test]
    fn no_horizon_reaches_from_one_part_into_the_next() {
        let history = span(0, 14 * 1_440);
        let cut = Cut::new(history, &rules()).unwrap();
        assert_eq!(cut.span(Part::Train).from, history.from);
        assert_eq!(cut.span(Part::Test).to, history.to);
        for pair in Part::ALL.windows(2) {
            let (before, next) = (cut.span(pair[0]), cut.span(pair[1]));
            assert_eq!(next.from, after(before.to, rules().horizon + rules().gap));
        }
        let test = cut.span(Part::Test).lasts().as_secs_f64();
        assert!((test / history.lasts().as_secs_f64() - 0.25).abs() < 0.005);
        assert_eq!(cut.part_of(history.from), Some(Part::Train));
        assert_eq!(cut.part_of(cut.span(Part::Train).to), None);
        assert_eq!(cut.part_of(history.to), None);
    }

    #[test]
    fn too_little_is_refused_in_words() {
        let refusal = Cut::new(span(0, 3 * 1_440), &rules()).unwrap_err();
        assert!(
            refusal.to_string().contains("every part of it needs a day"),
            "{refusal}"
        );
        let some = Enough {
            incidents: 1,
            nodes: 1,
        };
        assert_eq!(check(1, &some), Err(Refusal::OneNode(1)));
        assert_eq!(check(0, &some), Err(Refusal::OneNode(0)));
        assert_eq!(check(9, &Enough::default()), Err(Refusal::NoIncidents));
        assert_eq!(check(9, &some), Ok(()));
        let cut = Cut::new(span(0, 14 * 1_440), &rules()).unwrap();
        let mut rows = BTreeMap::from(Part::ALL.map(|part| (part, (1, 1))));
        assert_eq!(cut.check(&rows), Ok(()));
        rows.insert(Part::Calibration, (0, 7));
        let text = cut.check(&rows).unwrap_err().to_string();
        assert!(
            text.starts_with("the calibration part of the history ("),
            "{text}"
        );
        assert!(
            text.contains("has 0 positive and 7 negative rows"),
            "{text}"
        );
        rows.remove(&Part::Train);
        assert!(
            cut.check(&rows)
                .unwrap_err()
                .to_string()
                .starts_with("the training part")
        );
    }

    #[test]
    fn it_takes_thirty_incidents_of_five_nodes_to_act() {
        let nodes: Vec<NodeName> = (0..6).map(node).collect();
        let incident = |m: i64, begin_seen| Incident {
            span: span(m, m + 5),
            kinds: BTreeSet::from([Kind::NotReady]),
            begin_seen,
        };
        let enough = |n_nodes: usize, n: usize, begin_seen| {
            let all: Vec<_> = (0..n)
                .map(|i| (i % n_nodes, incident(i as i64 * 60, begin_seen)))
                .collect();
            Enough::count(all.iter().map(|(n, i)| (&nodes[*n], i)), span(0, 99_999)).to_act()
        };
        assert!(enough(5, 30, true));
        assert!(!enough(5, 29, true));
        assert!(!enough(4, 60, true));
        assert!(!enough(5, 30, false));
    }

    proptest! {
        #[test]
        fn every_node_is_left_out_once_and_every_hand_has_incidents(
            n in 2..60usize, ill in 1..60usize, hands in 1..10usize, seed in any::<u64>(),
        ) {
            let nodes: BTreeMap<NodeName, usize> = (0..n).map(|i| (node(i), usize::from(i < ill))).collect();
            let dealt = leave_out(&nodes, hands, seed).unwrap();
            let all: BTreeSet<NodeName> = dealt.iter().flatten().cloned().collect();
            prop_assert_eq!(all.len(), n);
            prop_assert_eq!(dealt.iter().map(BTreeSet::len).sum::<usize>(), n);
            let with = dealt.iter().filter(|hand| hand.iter().any(|node| nodes[node] > 0)).count();
            prop_assert_eq!(with, dealt.len().min(ill.min(n)));
            prop_assert_eq!(dealt, leave_out(&nodes, hands, seed).unwrap());
        }
    }
}
