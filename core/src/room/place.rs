//! Finding a place for each of a set of Pods.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Needs, PodTerm, Resources};
use crate::drain::{PodFacts, PodId};
use crate::node::NodeName;
use crate::record::Taint;

/// The label whose domains are single Nodes.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// A Node that could take Pods, with those that it has.
#[derive(Clone, Debug)]
pub struct Survivor<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its taints, those that are about to go left out.
    pub taints: Vec<&'a Taint>,
    /// What it has for Pods.
    pub allocatable: &'a Resources,
    /// Every Pod that is bound to it.
    pub pods: &'a [PodFacts],
}

/// A Pod that needs a place, and the labels of the Node that it leaves.
#[derive(Clone, Copy, Debug)]
pub struct Going<'a> {
    /// The Pod.
    pub pod: &'a PodFacts,
    /// Of the Node that it leaves.
    pub from: &'a BTreeMap<String, String>,
}

/// Where a Pod fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The Pod.
    pub pod: PodId,
    /// The Node.
    pub on: NodeName,
}

/// Why a Pod does not fit on a Node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It asks for what cannot be counted.
    Uncountable(String),
    /// A taint keeps it out.
    Taint(Taint),
    /// Its node selector or its required node affinity.
    NodeAffinity,
    /// The volume behind this claim cannot be reached from there.
    Volume(String),
    /// A rule over the domains of this label is known to be met only where it leaves.
    Domain(String),
    /// There is not enough of this resource.
    Lacks(String),
    /// Its host port is taken.
    HostPort(u16),
    /// It, or a Pod there, asks to be kept apart from the other.
    Apart,
    /// It asks to be near a Pod that is not there.
    Together,
    /// There would be too many of its kind on one Node.
    Spread,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uncountable(what) => write!(f, "{what} cannot be counted"),
            Self::Taint(taint) => write!(f, "taint {taint}"),
            Self::NodeAffinity => f.write_str("node selector or affinity"),
            Self::Volume(claim) => write!(f, "volume of claim {claim}"),
            Self::Domain(key) => write!(f, "its rules over {key}"),
            Self::Lacks(resource) => write!(f, "not enough {resource}"),
            Self::HostPort(port) => write!(f, "host port {port}"),
            Self::Apart => f.write_str("pod anti-affinity"),
            Self::Together => f.write_str("pod affinity"),
            Self::Spread => f.write_str("topology spread"),
        }
    }
}

/// A Pod without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPlace {
    /// The Pod.
    pub pod: PodId,
    /// What stood in the way, with the number of Nodes on which it did.
    pub obstacles: BTreeMap<Obstacle, usize>,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut obstacles: Vec<_> = self.obstacles.iter().collect();
        obstacles.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        write!(f, "{}", self.pod)?;
        for (index, (obstacle, nodes)) in obstacles.into_iter().take(3).enumerate() {
            let before = if index == 0 { " (" } else { ", " };
            write!(f, "{before}{obstacle}: {nodes}")?;
        }
        if !self.obstacles.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// What came of looking for places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Where the Pods fit, those that go first included.
    pub places: Vec<Place>,
    /// Pods for which no place was found, in the order of their names.
    pub without: Vec<NoPlace>,
}

/// Looks for a place for each of these Pods, beside those that go `first` (from Nodes that are being
/// emptied already) and need room too.
///
/// Best fit decreasing: Pods with the fewest Nodes to choose from first, then the largest; each goes where
/// it leaves the least room. Ties are broken by name, so the same question has the same answer. A Pod that
/// goes first and could use none of these Nodes even alone takes nothing away here; one that could, and
/// for which nothing is left, is among those without a place: its room must not be given to another.
pub fn place(survivors: &[Survivor<'_>], first: &[Going<'_>], then: &[Going<'_>]) -> Placement {
    let mut packing = Packing::new(survivors);
    let mut placement = Placement::default();
    packing.pack(first, true, &mut placement);
    packing.pack(then, false, &mut placement);
    placement.without.sort_by(|a, b| a.pod.cmp(&b.pod));
    placement
}

/// Whether the Pod fits on the Node beside those that are there.
pub fn fits(survivor: &Survivor<'_>, going: &Going<'_>) -> bool {
    Bin::new(survivor).refuses(going).is_none()
}

/// Which Nodes to look at, by index and in order, before any of their Pods are known: in turn for each
/// kind of Pod the next that is not barred to it, so that a Pod with few to choose from finds its own among
/// them. `max` at most.
///
/// # Errors
///
/// The Pods that are barred from every one of them: nothing more has to be known then.
pub fn choose(
    survivors: &[Survivor<'_>],
    pods: &[Going<'_>],
    max: usize,
) -> Result<Vec<usize>, Vec<NoPlace>> {
    let alike = |a: &Going<'_>, b: &Going<'_>| a.pod.needs == b.pod.needs && a.from == b.from;
    let mut kinds: Vec<&Going<'_>> = Vec::new();
    for going in pods {
        if !kinds.iter().any(|kind| alike(kind, going)) {
            kinds.push(going);
        }
    }
    let mut open: Vec<Vec<usize>> = Vec::new();
    let mut barred: Vec<NoPlace> = Vec::new();
    for kind in kinds {
        let to_it = (0..survivors.len()).filter(|at| survivors[*at].bars(kind).is_none());
        let to_it: Vec<usize> = to_it.take(max).collect();
        if to_it.is_empty() {
            let mut obstacles = BTreeMap::new();
            for obstacle in survivors.iter().filter_map(|survivor| survivor.bars(kind)) {
                *obstacles.entry(obstacle).or_default() += 1;
            }
            barred.extend(
                pods.iter()
                    .filter(|going| alike(kind, going))
                    .map(|going| NoPlace {
                        pod: going.pod.id.clone(),
                        obstacles: obstacles.clone(),
                    }),
            );
        }
        open.push(to_it);
    }
    if !barred.is_empty() {
        barred.sort_by(|a, b| a.pod.cmp(&b.pod));
        return Err(barred);
    }
    // Those with the fewest to choose from are served first.
    open.sort_by_key(Vec::len);
    let mut chosen: Vec<usize> = Vec::new();
    for round in 0..max {
        for of_kind in &open {
            if let Some(at) = of_kind.get(round)
                && chosen.len() < max
                && !chosen.contains(at)
            {
                chosen.push(*at);
            }
        }
    }
    Ok(chosen)
}

impl Survivor<'_> {
    /// Why the Pod could never run here, whatever else does. This needs nothing of the Pods here.
    pub fn bars(&self, going: &Going<'_>) -> Option<Obstacle> {
        let needs = &going.pod.needs;
        if let Some(what) = needs.uncountable.first() {
            return Some(Obstacle::Uncountable(what.clone()));
        }
        let kept_out = self.taints.iter().find(|taint| needs.kept_out_by(taint));
        if let Some(taint) = kept_out {
            return Some(Obstacle::Taint((*taint).clone()));
        }
        let selected = needs
            .node_selector
            .iter()
            .all(|(key, value)| self.labels.get(key) == Some(value));
        let affine = needs.node_affinity.as_ref().is_none_or(|terms| {
            terms
                .iter()
                .any(|term| term.matches(self.name, self.labels))
        });
        if !selected || !affine {
            return Some(Obstacle::NodeAffinity);
        }
        let unreachable = needs.volumes.iter().find(|volume| {
            !volume
                .terms
                .iter()
                .any(|term| term.matches(self.name, self.labels))
        });
        if let Some(volume) = unreachable {
            return Some(Obstacle::Volume(volume.claim.clone()));
        }
        let over = needs.spread.iter().map(|spread| &spread.over);
        let elsewhere = needs
            .apart
            .iter()
            .chain(&needs.together)
            .chain(over)
            .map(|term| &term.topology_key)
            .filter(|key| *key != HOSTNAME)
            .find(|key| {
                let here = self.labels.get(*key);
                here.is_none() || here != going.from.get(*key)
            });
        if let Some(key) = elsewhere {
            return Some(Obstacle::Domain(key.clone()));
        }
        self.allocatable
            .lacking(&needs.requests)
            .map(|resource| Obstacle::Lacks(resource.to_owned()))
    }
}

/// A Node while it is filled.
struct Bin<'a> {
    survivor: &'a Survivor<'a>,
    free: Resources,
    /// Those that count: all but the finished, and those that were placed.
    there: Vec<&'a PodFacts>,
}

impl<'a> Bin<'a> {
    fn new(survivor: &'a Survivor<'a>) -> Self {
        let there: Vec<&PodFacts> = survivor.pods.iter().filter(|pod| !pod.finished).collect();
        let mut free = survivor.allocatable.clone();
        for pod in &there {
            free.subtract(&pod.needs.requests);
        }
        Self {
            survivor,
            free,
            there,
        }
    }

    /// Why the Pod does not fit here now.
    fn refuses(&self, going: &Going<'_>) -> Option<Obstacle> {
        if let Some(obstacle) = self.survivor.bars(going) {
            return Some(obstacle);
        }
        let (pod, needs) = (going.pod, &going.pod.needs);
        if let Some(resource) = self.free.lacking(&needs.requests) {
            return Some(Obstacle::Lacks(resource.to_owned()));
        }
        let taken = needs.host_ports.iter().find(|port| {
            let mut ports = self.there.iter().flat_map(|there| &there.needs.host_ports);
            ports.any(|other| other.collides_with(port))
        });
        if let Some(port) = taken {
            return Some(Obstacle::HostPort(port.port));
        }
        let means =
            |term: &PodTerm, pod: &PodFacts| term.matches(&pod.id.namespace, &pod.needs.labels);
        let apart = self.there.iter().any(|there| {
            let by_it = on_node(&needs.apart).any(|term| means(term, there));
            // Those who are there may not be of the domain that it leaves, so their wider rules count.
            let wider = |term: &&PodTerm| {
                term.topology_key == HOSTNAME
                    || self.survivor.labels.get(&term.topology_key)
                        != going.from.get(&term.topology_key)
            };
            let by_them = there
                .needs
                .apart
                .iter()
                .filter(wider)
                .any(|term| means(term, pod));
            by_it || by_them
        });
        if apart {
            return Some(Obstacle::Apart);
        }
        let alone =
            on_node(&needs.together).any(|term| !self.there.iter().any(|there| means(term, there)));
        if alone {
            return Some(Obstacle::Together);
        }
        let crowded = needs
            .spread
            .iter()
            .filter(|spread| spread.over.topology_key == HOSTNAME)
            .any(|spread| {
                let count = self
                    .there
                    .iter()
                    // A Pod that is going does not count to the scheduler.
                    .filter(|there| there.terminating_until.is_none() && means(&spread.over, there))
                    .count();
                count >= spread.skew_max as usize
            });
        crowded.then_some(Obstacle::Spread)
    }
}

fn on_node(terms: &[PodTerm]) -> impl Iterator<Item = &PodTerm> {
    terms.iter().filter(|term| term.topology_key == HOSTNAME)
}

struct Packing<'a> {
    bins: Vec<Bin<'a>>,
    /// The most that any of them has, so that sizes can be compared across resources.
    largest: Resources,
}

impl<'a> Packing<'a> {
    fn new(survivors: &'a [Survivor<'a>]) -> Self {
        let mut bins: Vec<Bin<'a>> = survivors.iter().map(Bin::new).collect();
        bins.sort_by(|a, b| a.survivor.name.cmp(b.survivor.name));
        let mut largest = Resources::default();
        for survivor in survivors {
            largest.raise(survivor.allocatable);
        }
        Self { bins, largest }
    }

    fn pack(&mut self, pods: &[Going<'a>], may_be_elsewhere: bool, placement: &mut Placement) {
        let mut queue: Vec<(usize, u128, &Going<'a>)> = pods
            .iter()
            .map(|going| {
                let choices = self.bins.iter().filter(|bin| bin.refuses(going).is_none());
                (
                    choices.count(),
                    self.share(&going.pod.needs.requests),
                    going,
                )
            })
            .collect();
        queue.sort_by(|a, b| {
            (a.0, std::cmp::Reverse(a.1), &a.2.pod.id).cmp(&(
                b.0,
                std::cmp::Reverse(b.1),
                &b.2.pod.id,
            ))
        });
        for (_, _, going) in queue {
            let best = (0..self.bins.len())
                .filter(|at| self.bins[*at].refuses(going).is_none())
                .min_by_key(|at| self.left_over(&self.bins[*at], &going.pod.needs));
            if let Some(at) = best {
                let bin = &mut self.bins[at];
                bin.free.subtract(&going.pod.needs.requests);
                bin.there.push(going.pod);
                placement.places.push(Place {
                    pod: going.pod.id.clone(),
                    on: bin.survivor.name.clone(),
                });
                continue;
            }
            let never_here = || {
                let mut untouched = self.bins.iter().map(|bin| Bin::new(bin.survivor));
                untouched.all(|bin| bin.refuses(going).is_some())
            };
            if may_be_elsewhere && never_here() {
                continue;
            }
            let mut obstacles = BTreeMap::new();
            for obstacle in self.bins.iter().filter_map(|bin| bin.refuses(going)) {
                *obstacles.entry(obstacle).or_default() += 1;
            }
            placement.without.push(NoPlace {
                pod: going.pod.id.clone(),
                obstacles,
            });
        }
    }

    /// The largest share of any one resource, in billionths of what the largest Node has.
    fn share(&self, amounts: &Resources) -> u128 {
        let shares = amounts.iter().filter_map(|(name, amount)| {
            let most = u128::from(self.largest.of(name));
            (u128::from(amount) * 1_000_000_000).checked_div(most)
        });
        shares.max().unwrap_or(0)
    }

    /// How much room would be left, in the resource of which least is left.
    fn left_over(&self, bin: &Bin<'_>, needs: &Needs) -> u128 {
        let mut free = bin.free.clone();
        free.subtract(&needs.requests);
        let asked: BTreeSet<&str> = needs
            .requests
            .iter()
            .filter(|(_, amount)| *amount > 0)
            .map(|(name, _)| name)
            .collect();
        let shares = free
            .iter()
            .filter(|(name, _)| asked.contains(name))
            .filter_map(|(name, amount)| {
                let most = u128::from(self.largest.of(name));
                (u128::from(amount) * 1_000_000_000).checked_div(most)
            });
        shares.min().unwrap_or(0)
    }
}
