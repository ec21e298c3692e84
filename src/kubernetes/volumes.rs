//! Volumes behind claims, and how Kubernetes names their being attached.

use foreshock_core::drain::Volume;
use foreshock_core::node::NodeName;
use k8s_openapi::api::core::v1::PersistentVolume;
use sha2::{Digest, Sha256};

/// The volume behind this claim, where a CSI driver attaches it. Others have no VolumeAttachment, and neither have
/// those of drivers without attaching, such as network file systems: they are never found attached.
pub(super) fn volume(namespace: &str, claim: &str, found: &PersistentVolume) -> Option<Volume> {
    let spec = found.spec.as_ref()?;
    let csi = spec.csi.as_ref()?;
    // As the attach/detach controller judges: where no mode is known it holds nobody back.
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let several = |mode: &String| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany");
    Some(Volume {
        namespace: namespace.to_owned(),
        claim: claim.to_owned(),
        name: found.metadata.name.clone()?,
        driver: csi.driver.clone(),
        handle: csi.volume_handle.clone(),
        shared: modes.is_empty() || modes.iter().any(several),
    })
}

/// The name of the VolumeAttachment by which a volume is attached to a Node: `getAttachmentName` of Kubernetes'
/// `pkg/volume/csi`. So one object is read, rather than those of the whole cluster.
pub(super) fn attachment_name(volume: &Volume, node: &NodeName) -> String {
    let mut hash = Sha256::new();
    for part in [&volume.handle, &volume.driver, node.as_str()] {
        hash.update(part.as_bytes());
    }
    let hex: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("csi-{hex}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Option<Volume> {
        let found = json!({"metadata": {"name": "pv-1"}, "spec": spec});
        let found: PersistentVolume = serde_json::from_value(found).expect("a volume");
        volume("shop", "data-0", &found)
    }

    #[test]
    fn what_a_csi_driver_attaches_is_known_by_driver_and_handle() {
        let csi = json!({"driver": "csi.example.com", "volumeHandle": "vol-1"});
        let check = |modes: &[&str], shared: bool| {
            let found = of(json!({"csi": csi, "accessModes": modes})).expect("one of CSI");
            assert_eq!(found.to_string(), "shop/data-0 (pv-1)");
            assert_eq!(
                (found.driver.as_str(), found.handle.as_str()),
                ("csi.example.com", "vol-1")
            );
            assert_eq!(found.shared, shared, "{modes:?}");
        };
        check(&["ReadWriteOnce"], false);
        check(&["ReadWriteOncePod"], false);
        check(&["ReadWriteOnce", "ReadOnlyMany"], true);
        check(&["ReadWriteMany"], true);
        check(&[], true);
        assert_eq!(of(json!({"nfs": {"server": "s", "path": "/"}})), None);
        assert_eq!(of(json!({"local": {"path": "/mnt"}})), None);
    }

    /// `printf '%s' vol-1csi.example.comworker-02 | sha256sum`
    #[test]
    fn an_attachment_is_named_as_kubernetes_names_it() {
        let csi = json!({"driver": "csi.example.com", "volumeHandle": "vol-1"});
        let found = of(json!({ "csi": csi })).expect("one of CSI");
        assert_eq!(
            attachment_name(&found, &NodeName::from("worker-02")),
            "csi-283bdfc97beaa1bcab60539508e08f8232862d95c351548d073482d2c96a0266"
        );
    }
}
