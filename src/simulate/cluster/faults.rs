//! Faults that a test, or the simulator, wants the next calls to meet.

use std::collections::VecDeque;
use std::time::Duration;

use foreshock_core::drain::Answer;

use crate::kubernetes::ClusterError;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No answer in time, and the write did not take place.
    TimeoutBefore,
    /// No answer in time, though the write took place.
    TimeoutAfter,
    /// Somebody else wrote between the read and the write.
    Conflict,
    /// The credentials do not allow it.
    Forbidden,
    /// An admission webhook refuses.
    Denied,
    /// The server is busy.
    Throttled,
    /// The server fails.
    Failed,
}

impl Fault {
    /// Whether the call has its effect all the same.
    pub(super) fn takes_place(self) -> bool {
        match self {
            Self::TimeoutAfter => true,
            Self::TimeoutBefore
            | Self::Conflict
            | Self::Forbidden
            | Self::Denied
            | Self::Throttled
            | Self::Failed => false,
        }
    }

    pub(super) fn error(self, object: &str, action: &str, limit: Duration) -> ClusterError {
        let action = action.to_owned();
        match self {
            Self::TimeoutBefore | Self::TimeoutAfter => ClusterError::Timeout { action, limit },
            Self::Conflict => ClusterError::Superseded {
                object: object.to_owned(),
                detail: "the object has been modified".to_owned(),
            },
            Self::Forbidden => ClusterError::Forbidden {
                action,
                detail: "the simulated server says no".to_owned(),
            },
            Self::Denied => ClusterError::Failed {
                action,
                detail: "admission webhook \"guard.example.org\" denied the request".to_owned(),
            },
            Self::Throttled => ClusterError::Failed {
                action,
                detail: "too many requests".to_owned(),
            },
            Self::Failed => ClusterError::Failed {
                action,
                detail: "internal error".to_owned(),
            },
        }
    }

    pub(super) fn answer(self) -> Answer {
        let detail = |text: &str| text.to_owned();
        match self {
            Self::TimeoutBefore | Self::TimeoutAfter => Answer::Lost {
                detail: detail("no answer in time"),
            },
            Self::Conflict => Answer::Failed {
                detail: detail("the object has been modified"),
            },
            Self::Forbidden => Answer::Forbidden {
                detail: detail("the simulated server says no"),
            },
            Self::Denied => Answer::WebhookDenied {
                detail: detail("admission webhook \"guard.example.org\" denied the request"),
            },
            Self::Throttled => Answer::Throttled { retry_after: None },
            Self::Failed => Answer::Failed {
                detail: detail("internal error"),
            },
        }
    }
}

/// What the next calls of each kind meet, first in first out; `None` lets one pass.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Calls of `mark`.
    pub marks: VecDeque<Option<Fault>>,
    /// Calls of `evict`.
    pub evictions: VecDeque<Option<Fault>>,
    /// Calls of `write_lease`.
    pub leases: VecDeque<Option<Fault>>,
    /// Calls of `publish`.
    pub events: VecDeque<Option<Fault>>,
    /// Calls of `pods`, `read_pod` and `read_lease`.
    pub reads: VecDeque<Option<Fault>>,
    /// The watches stand still and show what was true when this was set. Calls are as ever.
    pub watches_stand_still: bool,
}
