//! Names of labels and annotations: the contract with people and with other programs.

/// Label with the band of a Node's risk.
pub const LABEL_RISK: &str = "foreshock.dev/risk";
/// Annotation of a Node: our ownership record.
pub const ANNOTATION_STATE: &str = "foreshock.dev/state";
/// Annotation of a Node, set by people: leave it alone.
pub const ANNOTATION_EXCLUDE: &str = "foreshock.dev/exclude";
/// Annotation of a Node, set by people: leave it alone until that time.
pub const ANNOTATION_HOLD_UNTIL: &str = "foreshock.dev/hold-until";
/// Annotation of the Lease: everything stands still.
pub const ANNOTATION_PAUSED: &str = "foreshock.dev/paused";
/// Annotation of the Lease: where the leader's HTTP API is to be reached.
pub const ANNOTATION_ADDRESS: &str = "foreshock.dev/address";
/// Annotation of the Lease: the cluster's record.
pub const ANNOTATION_CLUSTER_STATE: &str = "foreshock.dev/cluster-state";
/// Reporting controller of our Events, and field manager of our writes.
pub const CONTROLLER: &str = "foreshock";

/// Whether an annotation that is set by its presence is set: with any value but `false`.
pub fn is_set(value: Option<&String>) -> bool {
    value.is_some_and(|value| value.trim() != "false")
}
