//! `foreshock release`: everything of ours off every Node, with or without a running service.
//!
//! First the pause is put on the Lease. Every write of a leader's to the Lease names the version it has
//! seen, so from then on none succeeds that does not know of the pause: the last renewal in ignorance was
//! begun before it. A leader lets a mark or an eviction leave only while its Lease outlasts that write's
//! own limit ([`super::Gate`]). So once a Lease's duration has passed since the pause, every service has
//! given up every write that it may have begun, whether it heard of the pause or hangs, is cut off or dead.
//! A request that has arrived the moment before is worked on by the API server for as long as it says
//! itself, which is that limit again. Only then the marks are taken off. Before each Node the pause is
//! looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreshock_core::node::NodeName;
use foreshock_core::record::Taint;

use super::leader::{DURATION_MAX, LeaseTimes};
use crate::clock::Clock;
use crate::kubernetes::marks::Release;
use crate::kubernetes::{ByHand, ClusterError, WRITE_LIMIT};

/// How old the last look at the pause may be when a Node is written.
const LOOK: Duration = Duration::from_secs(1);
/// What a failed write leaves is tried again so often, each time after looking at every Node anew.
const PASSES_MAX: u32 = 4;

/// What is to be taken off.
#[derive(Clone, Debug, Default)]
pub struct ReleaseOptions {
    /// The taints that the policy sets.
    pub taints: Vec<Taint>,
    /// Those, and the label, also where no record calls them ours.
    pub adopt: bool,
    /// Only these Nodes; all where it is empty.
    pub nodes: BTreeSet<NodeName>,
}

impl ReleaseOptions {
    fn means(&self, node: &NodeName) -> bool {
        self.nodes.is_empty() || self.nodes.contains(node)
    }
}

/// What is told while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The pause is on the Lease.
    Paused {
        /// It was before.
        already: bool,
        /// Who leads, by the Lease.
        holder: Option<String>,
        /// How long is waited.
        wait: Duration,
    },
    /// Writes that may be under way are being waited for.
    Waiting {
        /// How long still.
        left: Duration,
    },
    /// So many Nodes are to be released.
    Found {
        /// How many.
        nodes: usize,
    },
    /// Something was taken off a Node.
    Released {
        /// The Node.
        node: NodeName,
        /// What.
        took: Vec<String>,
    },
    /// A Node could not be released this time.
    Failed {
        /// The Node.
        node: NodeName,
        /// Why.
        problem: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What was taken off each Node.
    pub released: BTreeMap<NodeName, Vec<String>>,
    /// What is still there and ours, with the reason.
    pub left: BTreeMap<NodeName, String>,
    /// What looks like ours without a record that says so: it may be anybody's, and stays.
    pub unclaimed: BTreeMap<NodeName, Vec<String>>,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Nothing was taken off.
    #[error("foreshock could not be paused, and nothing was taken off")]
    Pause(#[source] ClusterError),
    /// Whether the pause is still there is not known.
    #[error("the pause could not be looked at any more; {released} Nodes were released before")]
    Look {
        /// How many.
        released: usize,
        /// Why.
        source: ClusterError,
    },
    /// A running service may be marking again.
    #[error(
        "somebody has resumed foreshock meanwhile; {released} Nodes were released before. Run it again, \
         and leave the pause on"
    )]
    Resumed {
        /// How many.
        released: usize,
    },
    /// The Nodes are not known.
    #[error("the Nodes could not be listed; {released} Nodes were released before")]
    List {
        /// How many.
        released: usize,
        /// Why.
        source: ClusterError,
    },
}

/// Pauses, waits, takes everything off, and looks whether it is gone. It stays paused.
///
/// # Errors
///
/// [`ReleaseError`]. What it could not take off is no error: it is in the summary.
pub async fn release(
    cluster: &dyn ByHand,
    clock: &dyn Clock,
    options: &ReleaseOptions,
    tell: &mut dyn FnMut(Progress),
) -> Result<Summary, ReleaseError> {
    let before = cluster
        .set_paused(true)
        .await
        .map_err(ReleaseError::Pause)?;
    let since = clock.boottime();
    let duration = LeaseTimes::default().duration;
    let theirs = before.as_ref().map_or(duration, |view| view.duration);
    let wait = theirs.clamp(duration, DURATION_MAX) + WRITE_LIMIT;
    tell(Progress::Paused {
        already: before.as_ref().is_some_and(|view| view.paused),
        holder: before.and_then(|view| view.holder),
        wait,
    });
    let mut pause = Pause {
        cluster,
        clock,
        seen_at: since,
    };
    loop {
        let left = (since + wait).saturating_sub(clock.boottime());
        if left.is_zero() {
            break;
        }
        tell(Progress::Waiting { left });
        tokio::time::sleep(left.min(LOOK)).await;
        // A leader that was resumed for a moment may have begun something new.
        pause.look(0).await?;
    }

    let mut summary = Summary::default();
    for _ in 0..PASSES_MAX {
        if pass(&mut pause, options, &mut summary, tell).await? {
            break;
        }
    }
    Ok(summary)
}

/// What a release would do, without doing anything.
///
/// # Errors
///
/// [`ReleaseError::List`].
pub async fn rehearse(
    cluster: &dyn ByHand,
    options: &ReleaseOptions,
) -> Result<Summary, ReleaseError> {
    let mut summary = Summary::default();
    for (node, release) in find(cluster, options, 0).await? {
        match release {
            Release::Nothing => {}
            Release::Patch { takes, .. } => drop(summary.released.insert(node, takes)),
            Release::Lost(lost) => note(&mut summary, node, lost),
        }
    }
    Ok(summary)
}

/// Looks at every Node and releases those that need it. True when none did.
async fn pass(
    pause: &mut Pause<'_>,
    options: &ReleaseOptions,
    summary: &mut Summary,
    tell: &mut dyn FnMut(Progress),
) -> Result<bool, ReleaseError> {
    let found = find(pause.cluster, options, summary.released.len()).await?;
    summary.left.clear();
    summary.unclaimed.clear();
    let mut due = Vec::new();
    for (node, release) in found {
        match release {
            Release::Nothing => {}
            Release::Patch { .. } => due.push(node),
            Release::Lost(lost) => note(summary, node, lost),
        }
    }
    if due.is_empty() {
        return Ok(true);
    }
    tell(Progress::Found { nodes: due.len() });
    for node in due {
        pause.look(summary.released.len()).await?;
        let taken = pause
            .cluster
            .take_off(&node, &options.taints, options.adopt)
            .await;
        match taken {
            // Somebody was faster, or the Node is gone.
            Ok(Release::Nothing) => {}
            Ok(Release::Patch { takes, .. }) => {
                let all = summary.released.entry(node.clone()).or_default();
                all.extend(takes.iter().cloned());
                tell(Progress::Released { node, took: takes });
            }
            Ok(Release::Lost(lost)) => note(summary, node, lost),
            Err(error) => {
                let problem = super::leader::chain(&error);
                summary.left.insert(node.clone(), problem.clone());
                tell(Progress::Failed { node, problem });
            }
        }
    }
    // What a lost answer had done, or somebody has done meanwhile, shows in the next.
    Ok(false)
}

async fn find(
    cluster: &dyn ByHand,
    options: &ReleaseOptions,
    released: usize,
) -> Result<Vec<(NodeName, Release)>, ReleaseError> {
    let mut found = cluster
        .find(&options.taints, options.adopt)
        .await
        .map_err(|source| ReleaseError::List { released, source })?;
    found.retain(|(node, _)| options.means(node));
    Ok(found)
}

fn note(summary: &mut Summary, node: NodeName, lost: crate::kubernetes::marks::Lost) {
    if lost.ours {
        let left = format!("{} ({})", lost.marks.join(", "), lost.why);
        summary.left.insert(node, left);
    } else {
        summary.unclaimed.insert(node, lost.marks);
    }
}

/// The pause, and when it was last seen.
struct Pause<'a> {
    cluster: &'a dyn ByHand,
    clock: &'a dyn Clock,
    seen_at: Duration,
}

impl Pause<'_> {
    /// Makes sure that it is still there.
    async fn look(&mut self, released: usize) -> Result<(), ReleaseError> {
        let now = self.clock.boottime();
        if now < self.seen_at + LOOK {
            return Ok(());
        }
        match self.cluster.is_paused().await {
            Ok(true) => {
                self.seen_at = now;
                Ok(())
            }
            Ok(false) => Err(ReleaseError::Resumed { released }),
            Err(source) => Err(ReleaseError::Look { released, source }),
        }
    }
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
