//! A second opinion on every plan, by code that shares nothing but types with the planner.
//!
//! Only an [`AuditedPlan`] can be executed, and only this module makes one.

use super::plan::Plan;

/// A plan that has passed the audit.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditedPlan(Plan);

impl AuditedPlan {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.0
    }

    /// A plan that does nothing needs no audit.
    pub fn idle(at: jiff::Timestamp) -> Self {
        Self(Plan::empty(at))
    }
}
