//! Whether the Nodes that are left can hold the Pods of one that is emptied.
//!
//! [`Needs`] is what a Pod asks of a Node, as far as the scheduler's filters go; [`place`] looks for a
//! place for each of a set of Pods. It is a check of capacity and not a second scheduler: it says that a
//! placement exists, by packing as a careful person would, and names the Pods for which it found none.
//!
//! What is judged, by the scheduler's own rules: requests (also of extended resources, and the number of
//! Pods), taints, node selector and required node affinity, topology of volumes, host ports, required
//! affinity and anti-affinity to Pods, topology spread with `DoNotSchedule`.
//!
//! What depends on Pods of Nodes that are not looked at is answered on the safe side: a rule over a wider
//! domain than a Node (a zone) is taken to be met in the domain that the Pod leaves, where it is met
//! today, and nowhere else. A rule over single Nodes is counted on the Pods of the Node in question; for a
//! spread the emptied Node counts as one with none, as it does to the scheduler
//! (`nodeTaintsPolicy: Ignore`, the default).
//!
//! What cannot be counted has no place: claims of dynamic resource allocation, volumes that are not bound
//! or could not be read, rules that are not understood. Not looked at: preferences, attach limits of
//! volumes, Pods of other Nodes that ask to be kept apart over a wider domain.

mod needs;
mod place;

pub use needs::{
    HostPort, Needs, NodeTerm, Operator, PodTerm, Protocol, Requirement, Resources, Spread,
    Toleration, VolumeTopology,
};
pub use place::{
    Going, HOSTNAME, NoPlace, Obstacle, Place, Placement, Survivor, choose, fits, place,
};
