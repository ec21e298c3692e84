//! The rights that foreshock needs, for each reach, and whether its credentials have them.
//!
//! This list and the roles in `deploy/kustomize/base` say the same; a test compares them.

use foreshock_core::decision::policy::Reach;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};

/// One right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// From which reach on it is needed.
    pub from: Reach,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, in the plural.
    pub resource: &'static str,
    /// Subresource; empty for none.
    pub subresource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Where.
    pub scope: Scope,
    /// What it is for.
    pub why: &'static str,
}

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster: a ClusterRole with a ClusterRoleBinding.
    Cluster,
    /// On the Lease alone: a Role in its namespace, with its name in `resourceNames`.
    Lease,
    /// In the Lease's namespace; `create` cannot be bound to a name.
    LeaseNamespace,
}

/// Every right. With reach `observe` everywhere only reading is needed.
pub const RIGHTS: [Right; 17] = [
    Right {
        from: Reach::Observe,
        group: "",
        resource: "nodes",
        subresource: "",
        verbs: &["get", "list", "watch"],
        scope: Scope::Cluster,
        why: "to know the Nodes",
    },
    Right {
        from: Reach::Observe,
        group: "",
        resource: "pods",
        subresource: "",
        verbs: &["get", "list", "watch"],
        scope: Scope::Cluster,
        why: "to plan and follow drains",
    },
    Right {
        from: Reach::Observe,
        group: "policy",
        resource: "poddisruptionbudgets",
        subresource: "",
        verbs: &["list", "watch"],
        scope: Scope::Cluster,
        why: "to know what may be evicted",
    },
    Right {
        from: Reach::Observe,
        group: "apps",
        resource: "daemonsets",
        subresource: "",
        verbs: &["get", "list"],
        scope: Scope::Cluster,
        why: "to tell DaemonSets' Pods from orphans",
    },
    Right {
        from: Reach::Observe,
        group: "apps",
        resource: "replicasets",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to know which Deployment a Pod is of",
    },
    Right {
        from: Reach::Observe,
        group: "",
        resource: "persistentvolumeclaims",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to tell local volumes",
    },
    Right {
        from: Reach::Observe,
        group: "",
        resource: "persistentvolumes",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to tell local volumes",
    },
    Right {
        from: Reach::Label,
        group: "",
        resource: "nodes",
        subresource: "",
        verbs: &["patch"],
        scope: Scope::Cluster,
        why: "to set and remove marks",
    },
    Right {
        from: Reach::Label,
        group: "events.k8s.io",
        resource: "events",
        subresource: "",
        verbs: &["create"],
        scope: Scope::Cluster,
        why: "to say what is done and why",
    },
    Right {
        from: Reach::Label,
        group: "coordination.k8s.io",
        resource: "leases",
        subresource: "",
        verbs: &["get", "list", "watch", "patch"],
        scope: Scope::Lease,
        why: "to lead, to keep the cluster's record, to hear the switch",
    },
    Right {
        from: Reach::Label,
        group: "coordination.k8s.io",
        resource: "leases",
        subresource: "",
        verbs: &["create"],
        scope: Scope::LeaseNamespace,
        why: "to lead for the first time",
    },
    Right {
        from: Reach::Evict,
        group: "",
        resource: "pods",
        subresource: "eviction",
        verbs: &["create"],
        scope: Scope::Cluster,
        why: "to evict",
    },
    Right {
        from: Reach::Evict,
        group: "apps",
        resource: "deployments",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to wait for the replacements of evicted Pods",
    },
    Right {
        from: Reach::Evict,
        group: "apps",
        resource: "statefulsets",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to wait for the replacements of evicted Pods",
    },
    Right {
        from: Reach::Evict,
        group: "",
        resource: "replicationcontrollers",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to wait for the replacements of evicted Pods",
    },
    Right {
        from: Reach::Evict,
        group: "batch",
        resource: "jobs",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to wait for the replacements of evicted Pods",
    },
    Right {
        from: Reach::Evict,
        group: "storage.k8s.io",
        resource: "volumeattachments",
        subresource: "",
        verbs: &["get"],
        scope: Scope::Cluster,
        why: "to see whether the volumes of evicted Pods leave the Node",
    },
];

/// What `eviction.surge` needs besides, where the reach is `evict`.
pub const SURGE_RIGHTS: [Right; 2] = [
    Right {
        from: Reach::Evict,
        group: "apps",
        resource: "deployments",
        subresource: "scale",
        verbs: &["patch"],
        scope: Scope::Cluster,
        why: "to scale a single replica up before its Pod goes, and back",
    },
    Right {
        from: Reach::Evict,
        group: "autoscaling",
        resource: "horizontalpodautoscalers",
        subresource: "",
        verbs: &["list"],
        scope: Scope::Cluster,
        why: "to leave alone what is autoscaled",
    },
];

/// A right of one verb, and whether the credentials have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// Verb.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Resource, in the plural.
    pub resource: String,
    /// Subresource; empty for none.
    pub subresource: String,
    /// Namespace, where it is needed in one only.
    pub namespace: Option<String>,
    /// What it is for.
    pub why: String,
    /// Whether the API server says yes.
    pub allowed: bool,
    /// The API server's reason, if it gave one.
    pub reason: String,
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            verb,
            group,
            resource,
            subresource,
            namespace,
            why,
            ..
        } = self;
        write!(f, "{verb} {resource}")?;
        if !subresource.is_empty() {
            write!(f, "/{subresource}")?;
        }
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if let Some(namespace) = namespace {
            write!(f, " in {namespace}")?;
        }
        write!(f, " ({why})")
    }
}

/// The questions for a reach: each right that it needs, verb by verb.
pub(super) fn questions(
    reach: Reach,
    surge: bool,
    namespace: &str,
    lease: &str,
) -> Vec<(Permission, SelfSubjectAccessReview)> {
    let surge = SURGE_RIGHTS.iter().filter(|_| surge);
    let needed = RIGHTS
        .iter()
        .chain(surge)
        .filter(|right| right.from <= reach);
    needed
        .flat_map(|right| right.verbs.iter().map(move |verb| (right, *verb)))
        .map(|(right, verb)| {
            let (namespace, name) = match right.scope {
                Scope::Cluster => (None, None),
                Scope::LeaseNamespace => (Some(namespace.to_owned()), None),
                Scope::Lease => (Some(namespace.to_owned()), Some(lease.to_owned())),
            };
            let optional = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        verb: Some(verb.to_owned()),
                        group: optional(right.group),
                        resource: optional(right.resource),
                        subresource: optional(right.subresource),
                        namespace: namespace.clone(),
                        name,
                        ..ResourceAttributes::default()
                    }),
                    ..SelfSubjectAccessReviewSpec::default()
                },
                ..SelfSubjectAccessReview::default()
            };
            let permission = Permission {
                verb: verb.to_owned(),
                group: right.group.to_owned(),
                resource: right.resource.to_owned(),
                subresource: right.subresource.to_owned(),
                namespace,
                why: right.why.to_owned(),
                allowed: false,
                reason: String::new(),
            };
            (permission, review)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observing_needs_no_right_to_write() {
        const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
        for (permission, _) in questions(Reach::Observe, true, "monitoring", "foreshock") {
            assert!(
                !WRITES.contains(&permission.verb.as_str()),
                "{permission:?}"
            );
        }
        let asks = |reach: Reach, verb: &str, subresource: &str| {
            questions(reach, true, "monitoring", "foreshock")
                .iter()
                .any(|(right, _)| right.verb == verb && right.subresource == subresource)
        };
        assert!(asks(Reach::Label, "patch", "") && asks(Reach::Evict, "create", "eviction"));
        assert!(!asks(Reach::Taint, "create", "eviction"));
        assert!(asks(Reach::Evict, "patch", "scale") && !asks(Reach::Taint, "patch", "scale"));
        let without = questions(Reach::Evict, false, "monitoring", "foreshock");
        assert!(
            !without
                .iter()
                .any(|(right, _)| right.subresource == "scale")
        );
    }
}
