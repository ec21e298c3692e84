//! The core's enums and times as JSON, and as schemas that list every word there is.

use std::borrow::Cow;
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use foreshock_core::decision::verdict::{HoldReason, Phase};
use foreshock_core::drain::{NodeOutcome, PodOutcome};
use foreshock_core::risk::Band;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::events::EventKind;
use crate::features::basics::Asked;
use crate::features::schema::Unit;

/// A time as JSON has it: RFC 3339 in UTC, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.3}", self.0))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339, in UTC"))
            .into()
    }
}

impl ToSchema for Time {
    fn name() -> Cow<'static, str> {
        "Time".into()
    }
}

/// Seconds, with the fraction that a duration has.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// Defines the JSON of an enum that knows its own words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $of:ty, $all:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(pub(super) $of);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.as_str())
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let all: Vec<&str> = $all.iter().map(|word| word.as_str()).collect();
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .enum_values(Some(all))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($of).into()
            }
        }
    };
}

words!(
    /// How a risk reads.
    BandWord, Band, Band::ALL
);
words!(
    /// Where a Node is.
    PhaseWord, Phase, Phase::ALL
);
words!(
    /// How far may be gone.
    ReachWord, Reach, Reach::ALL
);
words!(
    /// Why nothing more is done.
    HoldWord, HoldReason, HoldReason::ALL
);
words!(
    /// What every operator asks first.
    AskedWord, Asked, Asked::ALL
);
words!(
    /// A unit.
    UnitWord, Unit, Unit::ALL
);
words!(
    /// What kind of thing happened.
    KindWord, EventKind, EventKind::ALL
);
words!(
    /// What came of a drain.
    OutcomeWord,
    NodeOutcome,
    std::iter::once(NodeOutcome::Drained)
        .chain(PodOutcome::ALL.into_iter().map(NodeOutcome::Ended))
        .collect::<Vec<_>>()
);
