//! What is known about the Pods of a Node, and about the budgets that cover them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::Volume;
use crate::node::Uid;
use crate::room::Needs;

/// One Pod, of this namespace, name *and* UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: Uid,
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The controller of a Pod: its owner reference with `controller: true`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// API group without version; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: Uid,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What a PodDisruptionBudget's status lets through at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionAllowance {
    /// So many disruptions.
    Now(u32),
    /// None, and none ever while its Pods and its specification stay as they are.
    Never,
}

/// A PodDisruptionBudget that covers a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Name, in the Pod's namespace.
    pub name: String,
    /// What it lets through.
    pub allowance: EvictionAllowance,
    /// `status.observedGeneration` is that of the specification, so that the numbers mean something.
    pub observed: bool,
    /// The disruption controller has not taken in yet what the server granted (`status.disruptedPods`), and
    /// is about to write the status.
    pub unsettled: bool,
    /// In the words of its status: `2 of 3 healthy, 2 wanted`.
    pub detail: String,
}

impl Budget {
    /// Whether it lets nothing through at present, by its own word.
    pub fn is_closed(&self) -> bool {
        self.observed
            && match self.allowance {
                EvictionAllowance::Now(count) => count == 0,
                EvictionAllowance::Never => true,
            }
    }
}

/// What is known about one Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Which Pod.
    pub id: PodId,
    /// Its controller.
    pub owner: Option<Owner>,
    /// The workload it belongs to: its controller, or the controller of that where it is a ReplicaSet,
    /// which is usually a Deployment.
    /// `Err` says why that is not known: then nobody may take it for the ReplicaSet, of which there may be
    /// several, and whose UID is another.
    pub workload: Result<Option<Owner>, String>,
    /// Its owner is a DaemonSet (of group `apps`) that exists no more.
    pub daemon_set_gone: bool,
    /// A static Pod's mirror: annotation `kubernetes.io/config.mirror`, or owned by the Node.
    pub mirror: bool,
    /// Phase Succeeded or Failed.
    pub finished: bool,
    /// Condition Ready is True.
    pub ready: bool,
    /// When it has to be gone by (`metadata.deletionTimestamp`), if it is terminating.
    pub terminating_until: Option<Timestamp>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// Its own grace period.
    pub grace: Duration,
    /// It has an emptyDir volume, on disk or in memory.
    pub empty_dir: bool,
    /// It has a hostPath volume, or one bound to this Node.
    pub local_volumes: bool,
    /// Devices that it uses: extended resources such as `nvidia.com/gpu`, and claims of dynamic resource
    /// allocation as `resource claim NAME`.
    pub devices: Vec<String>,
    /// What foreshock may live on: `Prometheus` or `Alertmanager`, by its labels.
    pub dependency: Option<String>,
    /// Names of its persistent volume claims.
    pub claims: Vec<String>,
    /// What is behind those that outlast it, where that is attached to Nodes and has been looked up.
    pub volumes: Vec<Volume>,
    /// Its priority class is system-cluster-critical or system-node-critical.
    pub critical: bool,
    /// The annotation or label by which it asks to be left alone.
    pub opted_out: Option<String>,
    /// It tolerates our taint for ever, so that it may come back to this very Node.
    pub tolerates_taint: bool,
    /// It is foreshock itself.
    pub own: bool,
    /// The budgets that cover it.
    pub budgets: Vec<Budget>,
    /// What it asks of the Node that is to run it.
    pub needs: Needs,
}

impl PodFacts {
    /// The budget that lets no Pod go at present, by its own word, if it is this Pod's.
    pub fn closed_budget(&self) -> Option<&Budget> {
        self.budgets.first().filter(|budget| budget.is_closed())
    }

    /// Somebody starts it again elsewhere once it is evicted, so that it needs room there.
    pub fn comes_back(&self) -> bool {
        self.owner.is_some() && !self.daemon_set_gone
    }
}
