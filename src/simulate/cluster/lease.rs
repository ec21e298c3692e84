//! The Lease of a simulated cluster.

use foreshock_core::record::ClusterRecord;

use super::Inner;
use crate::kubernetes::{ClusterError, LeaseView, LeaseWrite};

impl Inner {
    /// Writes the Lease, if it is still the one that the writer has seen.
    pub(super) fn write_lease(&mut self, write: &LeaseWrite) -> Result<LeaseView, ClusterError> {
        let found = self.lease.as_ref();
        let detail = match (found, &write.expects) {
            (None, None) => None,
            (Some(found), Some(expected)) if found.resource_version == *expected => None,
            (None, Some(_)) => Some("it is gone"),
            (Some(_), None) => Some("it exists already"),
            (Some(_), Some(_)) => Some("the object has been modified"),
        };
        if let Some(detail) = detail {
            return Err(ClusterError::Superseded {
                object: "Lease".to_owned(),
                detail: detail.to_owned(),
            });
        }
        let stands = found.map_or_else(|| Ok(ClusterRecord::default()), |view| view.record.clone());
        self.state.version += 1;
        let view = LeaseView {
            holder: write.holder.clone(),
            address: write.address.clone(),
            duration: write.duration,
            renewed_at: Some(write.renewed_at),
            transitions: write.transitions,
            paused: write.paused,
            record: write.record.clone().map_or(stands, Ok),
            resource_version: self.state.version.to_string(),
        };
        self.lease = Some(view.clone());
        self.state.changed.lease = true;
        Ok(view)
    }

    /// Changes the Lease as somebody with kubectl would. False where there is none.
    pub(super) fn change_lease(&mut self, change: impl FnOnce(&mut LeaseView)) -> bool {
        let Some(lease) = &mut self.lease else {
            return false;
        };
        self.state.version += 1;
        change(lease);
        lease.resource_version = self.state.version.to_string();
        self.state.changed.lease = true;
        true
    }
}
