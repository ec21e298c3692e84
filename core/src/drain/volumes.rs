//! Volumes that evicted Pods had, and what is said of those that have not left the Node.

use std::fmt;
use std::time::Duration;

use super::DrainId;
use super::moved::{listed, words};

/// Volumes that a sentence names: an Event's note has 250 letters, and a volume's name 40.
const VOLUMES_NAMED: usize = 2;

/// The persistent volume behind a claim, where Kubernetes attaches it to Nodes through a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The PersistentVolume.
    pub name: String,
    /// The CSI driver.
    pub driver: String,
    /// What the driver knows it by.
    pub handle: String,
    /// Several Nodes may have it at once, so that nobody waits until one of them has it no more.
    pub shared: bool,
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.namespace, self.claim, self.name)
    }
}

/// Volumes of evicted Pods that had not left the Node when its time was over. No Pod there used them then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// Which drain.
    pub drain: DrainId,
    /// How long after its end that was.
    pub waited: Duration,
    /// Those that were still attached.
    pub attached: Vec<Volume>,
    /// Those of which it is not known, and why.
    pub unknown: Vec<(Volume, String)>,
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, waited) = (&self.drain.node.name, words(self.waited));
        let count = self.attached.len();
        if count > 0 {
            let are = if count == 1 { "is" } else { "are" };
            let wait = if self.attached.iter().all(|volume| volume.shared) {
                ""
            } else {
                ", and replacements wait for that"
            };
            let named = listed(
                self.attached.iter().collect(),
                VOLUMES_NAMED,
                ToString::to_string,
            );
            write!(
                f,
                "{} of evicted Pods {are} still attached to {node} {waited} after the drain{wait}: {named}",
                volumes(count)
            )?;
        }
        let unknown = self.unknown.len();
        if let Some((_, problem)) = self.unknown.first() {
            let named = listed(
                self.unknown.iter().collect(),
                VOLUMES_NAMED,
                |(volume, _)| volume.to_string(),
            );
            let and = if count > 0 { "; " } else { "" };
            write!(
                f,
                "{and}whether {} of evicted Pods left {node} is not known: {named}: {problem}",
                volumes(unknown)
            )?;
        }
        Ok(())
    }
}

fn volumes(count: usize) -> String {
    format!("{count} volume{}", if count == 1 { "" } else { "s" })
}
