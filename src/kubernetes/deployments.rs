//! Deployments that are scaled up for a while: what is read of them, and the one thing that is written.

use std::time::Duration;

use foreshock_core::drain::{Owner, Scalable, Undo, undo};
use foreshock_core::record::SurgeRecord;
use http::Method;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Api;
use serde_json::json;

use super::client::{cluster_error, refused};
use super::names::CONTROLLER;
use super::watch::{ListError, list};
use super::{ClusterError, KubeCluster, WRITE_LIMIT, pods};

/// Reading one Deployment, or the autoscalers of one namespace.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// What meets a change by somebody else is looked at and tried anew so often.
const TRIES: u32 = 20;

impl KubeCluster {
    pub(super) async fn read_deployment(
        &self,
        namespace: &str,
        owner: &Owner,
    ) -> Result<Option<Scalable>, ClusterError> {
        let action = format!("read {owner} in {namespace}");
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        self.rate.turn().await;
        let found = tokio::time::timeout(READ_LIMIT, api.get_opt(&owner.name)).await;
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(cluster_error(&action, &error)),
            Err(_) => return Err(timeout(action, READ_LIMIT)),
        };
        let uid = owner.uid.as_str();
        let found = found.filter(|found| found.metadata.uid.as_deref() == Some(uid));
        Ok(found.map(|found| scalable(&found)))
    }

    pub(super) async fn find_autoscaler(
        &self,
        namespace: &str,
        owner: &Owner,
    ) -> Result<Option<String>, ClusterError> {
        let action = format!("list HorizontalPodAutoscalers in {namespace}");
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), namespace);
        let convert = |autoscaler: HorizontalPodAutoscaler| scales(&autoscaler, owner);
        let found = list(&api, &pods::everything(), &self.rate, &convert).await;
        match found {
            Ok((names, _)) => Ok(names.into_iter().next()),
            Err(ListError::Timeout) => Err(timeout(action, READ_LIMIT)),
            Err(ListError::Api(error)) => Err(with_component(cluster_error(&action, &error))),
        }
    }

    pub(super) async fn patch_scale(
        &self,
        namespace: &str,
        owner: &Owner,
        version: &str,
        replicas: u32,
    ) -> Result<(), ClusterError> {
        let action = format!("scale {owner} in {namespace} to {replicas}");
        // An empty one would be no condition at all, and another's change would be lost.
        if version.is_empty() {
            return Err(ClusterError::Failed {
                action,
                detail: "it is not scaled without knowing its resourceVersion".to_owned(),
            });
        }
        let path = format!(
            "/apis/apps/v1/namespaces/{namespace}/deployments/{}/scale?fieldManager={CONTROLLER}&timeout={}s",
            owner.name,
            WRITE_LIMIT.as_secs()
        );
        let patch = json!({
            "metadata": {"uid": owner.uid.as_str(), "resourceVersion": version},
            "spec": {"replicas": replicas},
        });
        let body = Some((
            "application/merge-patch+json",
            patch.to_string().into_bytes(),
        ));
        self.rate.turn().await;
        self.may_write(&action)?;
        let reply = self.send(&action, Method::PATCH, &path, body).await?;
        match reply.code() {
            404 | 409 => Err(ClusterError::Superseded {
                object: format!("{owner} in {namespace}"),
                detail: reply.message(),
            }),
            _ if reply.is_success() => Ok(()),
            _ => Err(with_component(refused(&action, &reply))),
        }
    }

    /// As the service does it, for a person who takes everything off a Node. Says what was done.
    pub(super) async fn put_back_by_hand(
        &self,
        surge: &SurgeRecord,
    ) -> Result<String, ClusterError> {
        let of = format!("Deployment {}/{}", surge.namespace, surge.deployment);
        let owner = surge.owner();
        for _ in 0..TRIES {
            let deployment = self.read_deployment(&surge.namespace, &owner).await?;
            let pod = self.fresh_pod(&surge.pod).await?;
            match undo(surge, pod.as_ref(), deployment.as_ref(), self.clock().now()) {
                Undo::Nothing => return Ok(format!("{of}, as it was")),
                Undo::Leave(why) => return Ok(format!("{of}, left as it is: {why}")),
                Undo::Wait(until) => {
                    return Err(ClusterError::Failed {
                        action: format!("scale {of} back"),
                        detail: format!(
                            "its Pod {} is on its way, until {until} at the latest; run it again when it is gone",
                            surge.pod.name
                        ),
                    });
                }
                Undo::ScaleBack => {
                    let version = deployment.map(|seen| seen.version).unwrap_or_default();
                    let sent = self.patch_scale(&surge.namespace, &owner, &version, surge.before);
                    match sent.await {
                        Ok(()) => return Ok(format!("{of}, scaled back to {}", surge.before)),
                        Err(ClusterError::Superseded { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Err(ClusterError::Superseded {
            object: of,
            detail: "it changes faster than it can be scaled".to_owned(),
        })
    }
}

fn timeout(action: String, limit: Duration) -> ClusterError {
    ClusterError::Timeout { action, limit }
}

/// The rights are not among those of the base.
fn with_component(error: ClusterError) -> ClusterError {
    match error {
        ClusterError::Forbidden { action, detail } => ClusterError::Failed {
            action,
            detail: format!("{detail}; add deploy/kustomize/components/surge"),
        },
        other @ (ClusterError::Superseded { .. }
        | ClusterError::Timeout { .. }
        | ClusterError::Failed { .. }) => other,
    }
}

fn scalable(found: &Deployment) -> Scalable {
    let (spec, status) = (found.spec.as_ref(), found.status.as_ref());
    let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let observed = status.and_then(|status| status.observed_generation);
    let count = |of: fn(&DeploymentStatus) -> Option<i32>| status.and_then(of).unwrap_or(0);
    let present = count(|status| status.replicas);
    let scaling = observed != found.metadata.generation || present != replicas;
    Scalable {
        // Kubernetes takes no negative number.
        replicas: u32::try_from(replicas).unwrap_or(0),
        by_us: by_us(found),
        version: found.metadata.resource_version.clone().unwrap_or_default(),
        deleted: found.metadata.deletion_timestamp.is_some(),
        paused: spec.and_then(|spec| spec.paused).unwrap_or(false),
        rolling_out: count(|status| status.updated_replicas) != present
            || (!scaling && count(|status| status.available_replicas) != present),
        scaling,
        recreates: spec
            .and_then(|spec| spec.strategy.as_ref()?.type_.as_deref())
            .is_some_and(|strategy| strategy == "Recreate"),
        autoscaler: None,
    }
}

/// Whether we are among those who have set its replicas to what they are. The API server notes who changed
/// a field last; whoever sets it to something else takes it over.
fn by_us(found: &Deployment) -> Option<bool> {
    let fields = found.metadata.managed_fields.as_deref()?;
    let mut owners = fields
        .iter()
        .filter(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            fields.is_some_and(|fields| fields["f:spec"].get("f:replicas").is_some())
        })
        .peekable();
    owners.peek()?;
    Some(owners.any(|entry| entry.manager.as_deref() == Some(CONTROLLER)))
}

/// The autoscaler's name, if it scales this Deployment.
fn scales(autoscaler: &HorizontalPodAutoscaler, owner: &Owner) -> Option<String> {
    let target = &autoscaler.spec.as_ref()?.scale_target_ref;
    let group = target.api_version.as_deref().unwrap_or_default();
    // Its version does not matter; an autoscaler without a group means the same kind all the same.
    let of_group = group.is_empty() || group.split('/').next() == Some("apps");
    (of_group && target.kind == "Deployment" && target.name == owner.name)
        .then(|| autoscaler.metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use foreshock_core::drain::{NoSurge, may_surge};
    use foreshock_core::node::Uid;
    use serde_json::Value;

    use super::*;

    fn read(document: Value) -> Scalable {
        scalable(&serde_json::from_value(document).expect("a Deployment"))
    }

    fn settled() -> Value {
        json!({
            "metadata": {"name": "web", "uid": "w", "resourceVersion": "7", "generation": 3},
            "spec": {"replicas": 1, "selector": {}, "template": {}, "strategy": {"type": "RollingUpdate"}},
            "status": {"observedGeneration": 3, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
        })
    }

    #[test]
    fn a_deployment_may_be_scaled_up_only_where_it_has_settled() {
        assert_eq!(may_surge(&read(settled())), Ok(()));
        assert_eq!(read(settled()).version, "7");
        let cases: [(&str, Value, NoSurge); 10] = [
            ("/metadata/generation", json!(4), NoSurge::Scaling),
            ("/status/updatedReplicas", json!(0), NoSurge::RollingOut),
            ("/status/replicas", json!(2), NoSurge::RollingOut),
            ("/status/availableReplicas", json!(0), NoSurge::RollingOut),
            ("/status", json!(null), NoSurge::Scaling),
            (
                "/status",
                json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}),
                NoSurge::Scaling,
            ),
            ("/spec/paused", json!(true), NoSurge::Paused),
            ("/spec/replicas", json!(2), NoSurge::Replicas(2)),
            ("/spec/strategy/type", json!("Recreate"), NoSurge::Recreates),
            (
                "/metadata/deletionTimestamp",
                json!("2026-01-01T00:00:00Z"),
                NoSurge::Deleted,
            ),
        ];
        for (at, value, why) in cases {
            let mut document = settled();
            let (of, key) = at.rsplit_once('/').expect("a path");
            document.pointer_mut(of).expect("there")[key] = value;
            assert_eq!(may_surge(&read(document)), Err(why), "{at}");
        }
    }

    #[test]
    fn who_has_set_its_replicas_is_told_by_its_managed_fields() {
        let by = |managers: &[(&str, bool)]| {
            let mut document = settled();
            let entry = |(manager, owns): &(&str, bool)| {
                let fields = match owns {
                    true => json!({"f:spec": {"f:replicas": {}}}),
                    false => json!({"f:spec": {"f:paused": {}}}),
                };
                json!({"manager": manager, "operation": "Update", "fieldsV1": fields})
            };
            let entries: Vec<Value> = managers.iter().map(entry).collect();
            document["metadata"]["managedFields"] = json!(entries);
            read(document).by_us
        };
        assert_eq!(read(settled()).by_us, None);
        assert_eq!(by(&[("foreshock", false)]), None);
        assert_eq!(by(&[("foreshock", true)]), Some(true));
        assert_eq!(by(&[("kubectl", true), ("foreshock", true)]), Some(true));
        assert_eq!(by(&[("kubectl", true), ("foreshock", false)]), Some(false));
    }

    #[test]
    fn an_autoscaler_is_known_by_kind_and_name_of_its_target() {
        let owner = Owner {
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            name: "web".to_owned(),
            uid: Uid::from("w"),
        };
        let scales = |target: Value| {
            let document = json!({
                "metadata": {"name": "hpa"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target},
            });
            scales(
                &serde_json::from_value(document).expect("an autoscaler"),
                &owner,
            )
        };
        let hpa = Some("hpa".to_owned());
        assert_eq!(
            scales(json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"})),
            hpa
        );
        assert_eq!(scales(json!({"kind": "Deployment", "name": "web"})), hpa);
        for other in [
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}),
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"}),
            json!({"apiVersion": "example.org/v1", "kind": "Deployment", "name": "web"}),
        ] {
            assert_eq!(scales(other.clone()), None, "{other}");
        }
    }
}
