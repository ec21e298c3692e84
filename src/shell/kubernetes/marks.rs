//! The one patch that changes a Node: taints, label and record together, under its `resourceVersion`.
//!
//! Pure: from a freshly read Node and an order comes the patch, or the reason why the Node is not as
//! the decision saw it. The Node is taken as JSON, not as a typed object: `spec.taints` has no merge
//! key, every write replaces the whole list, and a typed one would lose what a newer Kubernetes puts
//! into somebody else's taint.

use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::world::HoldUntil;
use foreshock_core::node::NodeId;
use foreshock_core::record::{Marks, NodeRecord, RecordState, RiskLabel, SurgeRecord, Taint};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Map, Value, json};

use super::names::{ANNOTATION_STATE, LABEL_RISK};
use super::{NodeEntry, node, record};

/// Why an order cannot be carried out on the Node as it is now. Not a fault: decide again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Superseded {
    /// The server sent something that is no Node.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Another Node has this name now.
    #[error("it is another Node of this name (UID {found})")]
    OtherNode {
        /// The UID that is there.
        found: String,
    },
    /// The record is not the one that the decision saw.
    #[error("its record is not as the decision saw it: {0}")]
    Record(String),
    /// Somebody asks to leave the Node alone, or is taking it away.
    #[error("it is to be left alone: {0}")]
    HandsOff(String),
    /// A taint of ours is gone: somebody removed or changed it.
    #[error("our taint {0} is not there any more")]
    TaintGone(Taint),
    /// A taint that was removed is there again.
    #[error("the taint {0} is there again")]
    TaintBack(Taint),
    /// A taint with our key is there and not ours.
    #[error("somebody else's taint {theirs} is in the place of {ours}")]
    ForeignTaint {
        /// What we would set.
        ours: Taint,
        /// What is there.
        theirs: String,
    },
    /// The label has a value that the record does not know.
    #[error("the label {LABEL_RISK} has the value {0:?}, which is not ours")]
    ForeignLabel(Option<String>),
    /// The order cannot be written down.
    #[error("the order is not for this Node or instance, or does not fit: {0}")]
    Order(String),
}

/// The merge patch that carries out `order` on `document`, a Node just read.
///
/// The patch names the Node's `resourceVersion`, so that a change by anybody between the read and the
/// write is a conflict. It has `spec.taints` only where the list changes.
///
/// # Errors
///
/// [`Superseded`], when the Node is not what the order expects.
pub fn patch_for(
    document: &Value,
    order: &MarkOrder,
    instance: &str,
    now: Timestamp,
) -> Result<Value, Superseded> {
    let seen = read(document, instance)?;
    if seen.facts.id.uid != order.node.uid || seen.facts.id.name != order.node.name {
        return Err(Superseded::OtherNode {
            found: seen.facts.id.uid.to_string(),
        });
    }
    is_expected(&seen.facts.record, order.expects.as_deref())?;
    let nothing = Marks::default();
    let before = order
        .expects
        .as_ref()
        .map_or(&nothing, |record| &record.marks);
    let after = order
        .record
        .as_ref()
        .map_or(&nothing, |record| &record.marks);

    let mut taints = raw_taints(document);
    remove_taints(&mut taints, before, after, order.cause)?;
    let removed = taints.len() < raw_taints(document).len();
    let added = add_taints(&mut taints, before, after)?;
    let label = label(&seen, before, after)?;

    let changes = removed || added || label != Change::Keep;
    if changes || order.begins() {
        left_alone(&seen, order.begins(), now)?;
    }
    let mut patch = base(&seen, order.record.as_deref(), instance)?;
    if removed || added {
        patch["spec"] = json!({"taints": list(taints)});
    }
    set_label(&mut patch, label);
    Ok(patch)
}

/// What a Node has of ours when a person wants it all off (`foreshock release`).
#[derive(Clone, Debug, PartialEq)]
pub enum Release {
    /// Nothing.
    Nothing,
    /// This patch takes it off; it names the Node's `resourceVersion`.
    Patch {
        /// The merge patch.
        patch: Value,
        /// What it takes off or puts back, in words.
        takes: Vec<String>,
        /// Deployments that are scaled back before, and stand among what it takes off.
        surges: Vec<SurgeRecord>,
    },
    /// Something looks like ours, and no valid record says so.
    Lost(Lost),
}

/// What looks like ours without a valid record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What is there, in words.
    pub marks: Vec<String>,
    /// A record of this very instance is there and cannot be used: it is ours for certain. Without one it
    /// may be anybody's.
    pub ours: bool,
    /// Why it is not simply taken off.
    pub why: String,
}

/// What has to be done to remove everything of ours from a Node on a person's word. It asks neither for
/// the decision's view nor for `exclude` and `hold-until`: those hold the service back, not the person.
///
/// `taints` are those that the policy sets. Where no record of ours calls them ours they are taken off
/// only with `adopt`. The marks of another instance are never touched.
///
/// # Errors
///
/// [`Superseded::Unreadable`].
pub fn release(
    document: &Value,
    instance: &str,
    taints: &[Taint],
    adopt: bool,
) -> Result<Release, Superseded> {
    let seen = read(document, instance)?;
    let surges = seen.facts.record.ours();
    let surges = surges.map_or_else(Vec::new, |record| record.surges.clone());
    let (marks, record) = match &seen.facts.record {
        RecordState::Foreign { .. } => return Ok(Release::Nothing),
        RecordState::Ours(record) => (record.marks.clone(), true),
        // Even a record that cannot be read may say whose it is.
        RecordState::Unreadable { .. } if names_another(document, instance) => {
            return Ok(Release::Nothing);
        }
        state @ (RecordState::Absent | RecordState::OtherUid | RecordState::Unreadable { .. }) => {
            let lost = lost(&seen, state, taints);
            if !adopt || lost.marks.is_empty() {
                return Ok(match lost.marks.is_empty() {
                    true => Release::Nothing,
                    false => Release::Lost(lost),
                });
            }
            (Marks::default(), *state != RecordState::Absent)
        }
    };
    let known = matches!(seen.facts.record, RecordState::Ours(_));
    let of_record = marks.taint.iter().chain(&marks.caution_taint);
    let off: Vec<&Taint> = of_record.chain(taints.iter().filter(|_| adopt)).collect();
    let all = raw_taints(document);
    let (gone, stay): (Vec<Value>, Vec<Value>) = all
        .into_iter()
        .partition(|raw| off.iter().any(|taint| is(raw, taint)));
    let value = seen.facts.risk_label.as_deref();
    let label = match marks.label {
        Some(ours) if value == Some(ours.as_str()) => restored(&marks),
        None if adopt && !known && is_risk(value) => Change::Remove,
        // Somebody has written over it: it is theirs now.
        Some(_) | None => Change::Keep,
    };
    let mut takes: Vec<String> = gone
        .iter()
        .map(|raw| format!("taint {}", shown(raw)))
        .collect();
    match &label {
        Change::Keep => {}
        Change::Remove => takes.push(format!("label {LABEL_RISK}")),
        Change::Set(before) => takes.push(format!("label {LABEL_RISK}, back to {before:?}")),
    }
    takes.extend(surges.iter().map(surge_words));
    if record {
        takes.push("record".to_owned());
    }
    if takes.is_empty() {
        return Ok(Release::Nothing);
    }
    let mut patch = base(&seen, None, instance)?;
    if !gone.is_empty() {
        patch["spec"] = json!({"taints": list(stay)});
    }
    set_label(&mut patch, label);
    Ok(Release::Patch {
        patch,
        takes,
        surges,
    })
}

fn lost(seen: &NodeEntry, state: &RecordState, taints: &[Taint]) -> Lost {
    let mut marks: Vec<String> = taints
        .iter()
        .filter(|taint| seen.facts.taints.contains(taint))
        .map(|taint| format!("taint {taint}"))
        .collect();
    let value = seen.facts.risk_label.as_deref();
    if is_risk(value) {
        marks.push(format!("label {LABEL_RISK}={}", value.unwrap_or_default()));
    }
    let (ours, why) = match state {
        RecordState::OtherUid => (
            true,
            "its record is of another Node of this name".to_owned(),
        ),
        RecordState::Unreadable { problem } => {
            (true, format!("its record cannot be understood: {problem}"))
        }
        RecordState::Absent | RecordState::Ours(_) | RecordState::Foreign { .. } => {
            (false, "no record says that this is foreshock's".to_owned())
        }
    };
    if ours {
        marks.push("record".to_owned());
    }
    Lost { marks, ours, why }
}

/// The values that we write to the label.
fn is_risk(value: Option<&str>) -> bool {
    [RiskLabel::Caution, RiskLabel::AtRisk]
        .iter()
        .any(|label| value == Some(label.as_str()))
}

/// Whether the record, whatever else is wrong with it, names another instance.
fn names_another(document: &Value, instance: &str) -> bool {
    let text = document["metadata"]["annotations"][ANNOTATION_STATE].as_str();
    let named = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    named.is_some_and(|record| {
        record["instance"]
            .as_str()
            .is_some_and(|named| named != instance)
    })
}

/// The order by which a running service would give the Node back, from what its record says.
pub fn release_order(node: &NodeId, record: &NodeRecord, note: &str) -> MarkOrder {
    MarkOrder {
        node: node.clone(),
        cause: Cause::Release,
        note: note.to_owned(),
        expects: Some(Box::new(record.clone())),
        record: None,
    }
}

/// The entry of a Node document.
pub fn read(document: &Value, instance: &str) -> Result<NodeEntry, Superseded> {
    let typed: Node = serde::Deserialize::deserialize(document)
        .map_err(|error: serde_json::Error| Superseded::Unreadable(error.to_string()))?;
    node::entry(&typed, instance)
        .ok_or_else(|| Superseded::Unreadable("it has no name or UID".to_owned()))
}

fn is_expected(state: &RecordState, expects: Option<&NodeRecord>) -> Result<(), Superseded> {
    let problem = match (state, expects) {
        (RecordState::Ours(found), Some(expected)) if **found == *expected => return Ok(()),
        (RecordState::Absent | RecordState::OtherUid, None) => return Ok(()),
        (RecordState::Ours(_), Some(_)) => "it has changed".to_owned(),
        (RecordState::Ours(_), None) => "there is one already".to_owned(),
        (RecordState::Absent | RecordState::OtherUid, Some(_)) => "it is gone".to_owned(),
        (RecordState::Foreign { instance }, _) => {
            format!("it belongs to the instance {instance:?}")
        }
        (RecordState::Unreadable { problem }, _) => problem.clone(),
    };
    Err(Superseded::Record(problem))
}

fn left_alone(seen: &NodeEntry, begins: bool, now: Timestamp) -> Result<(), Superseded> {
    let hands_off = |detail: String| Err(Superseded::HandsOff(detail));
    if seen.facts.excluded {
        return hands_off("annotation foreshock.dev/exclude".to_owned());
    }
    match &seen.facts.hold_until {
        Some(HoldUntil::Time(until)) if *until > now => {
            return hands_off(format!("annotation foreshock.dev/hold-until={until}"));
        }
        Some(HoldUntil::Malformed(text)) => {
            return hands_off(format!(
                "annotation foreshock.dev/hold-until={text:?} is no RFC 3339 time"
            ));
        }
        Some(HoldUntil::Time(_)) | None => {}
    }
    match &seen.facts.taken_by {
        // What is ours may always leave; nothing new comes to a Node that somebody takes away.
        Some(who) if begins => hands_off(who.clone()),
        Some(_) | None => Ok(()),
    }
}

/// Takes our taints out that the order removes.
fn remove_taints(
    taints: &mut Vec<Value>,
    before: &Marks,
    after: &Marks,
    cause: Cause,
) -> Result<(), Superseded> {
    if let Some(taint) = &before.taint {
        let at = taints.iter().position(|raw| is(raw, taint));
        let stays = after.taint.as_ref() == Some(taint);
        match at {
            // The record follows what a person did; nothing is left to remove.
            None if cause == Cause::Veto && !stays => {}
            None => return Err(Superseded::TaintGone(taint.clone())),
            Some(_) if cause == Cause::Veto && !stays => {
                return Err(Superseded::TaintBack(taint.clone()));
            }
            Some(_) if stays => {}
            Some(at) => {
                taints.remove(at);
            }
        }
    }
    // Nobody has a veto by removing the caution taint: it keeps nothing out.
    if let Some(taint) = &before.caution_taint
        && after.caution_taint.as_ref() != Some(taint)
    {
        taints.retain(|raw| !is(raw, taint));
    }
    Ok(())
}

/// Puts our taints in that the order adds. True when there was one to add.
fn add_taints(taints: &mut Vec<Value>, before: &Marks, after: &Marks) -> Result<bool, Superseded> {
    let had: Vec<&Taint> = before.taint.iter().chain(&before.caution_taint).collect();
    let wanted: Vec<&Taint> = after.taint.iter().chain(&after.caution_taint).collect();
    let new: Vec<&Taint> = wanted
        .iter()
        .copied()
        .filter(|taint| !had.contains(taint))
        .collect();
    for taint in &new {
        // Whoever else uses our key, with whatever value and effect, means something by it.
        let foreign = taints.iter().find(|raw| {
            raw["key"] == taint.key.as_str()
                && !wanted
                    .iter()
                    .any(|ours| had.contains(ours) && is(raw, ours))
        });
        if let Some(foreign) = foreign {
            return Err(Superseded::ForeignTaint {
                ours: (*taint).clone(),
                theirs: shown(foreign),
            });
        }
    }
    taints.extend(new.iter().map(|taint| raw(taint)));
    Ok(!new.is_empty())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Keep,
    Set(String),
    Remove,
}

fn label(seen: &NodeEntry, before: &Marks, after: &Marks) -> Result<Change, Superseded> {
    let value = seen.facts.risk_label.as_deref();
    let foreign = || Superseded::ForeignLabel(value.map(str::to_owned));
    match (before.label, after.label) {
        (None, None) => Ok(Change::Keep),
        (None, Some(label)) if value == after.label_before.as_deref() => {
            Ok(Change::Set(label.as_str().to_owned()))
        }
        (None, Some(_)) => Err(foreign()),
        (Some(before), Some(after)) if before == after => Ok(Change::Keep),
        (Some(before), Some(after)) if value == Some(before.as_str()) => {
            Ok(Change::Set(after.as_str().to_owned()))
        }
        (Some(_), Some(_)) => Err(foreign()),
        (Some(ours), None) if value == Some(ours.as_str()) => Ok(restored(before)),
        // Somebody has written over it or removed it: it is theirs now.
        (Some(_), None) => Ok(Change::Keep),
    }
}

fn restored(marks: &Marks) -> Change {
    marks
        .label_before
        .clone()
        .map_or(Change::Remove, Change::Set)
}

fn base(
    seen: &NodeEntry,
    record: Option<&NodeRecord>,
    instance: &str,
) -> Result<Value, Superseded> {
    let text = match record {
        None => Value::Null,
        Some(record) if record.instance != instance => {
            return Err(Superseded::Order(format!(
                "it is for instance {:?}",
                record.instance
            )));
        }
        Some(record) if record.uid != seen.facts.id.uid => {
            return Err(Superseded::Order(format!(
                "its record is for UID {}",
                record.uid
            )));
        }
        Some(record) => record::encode(record)
            .map(Value::String)
            .map_err(|error| Superseded::Order(error.to_string()))?,
    };
    let mut annotations = Map::new();
    annotations.insert(ANNOTATION_STATE.to_owned(), text);
    Ok(json!({"metadata": {
        "uid": seen.facts.id.uid.as_str(),
        "resourceVersion": seen.resource_version,
        "annotations": annotations,
    }}))
}

fn set_label(patch: &mut Value, change: Change) {
    let value = match change {
        Change::Keep => return,
        Change::Set(value) => Value::String(value),
        Change::Remove => Value::Null,
    };
    patch["metadata"]["labels"] = json!({LABEL_RISK: value});
}

fn raw_taints(document: &Value) -> Vec<Value> {
    document["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// An empty list is no list, as it was before us.
fn list(taints: Vec<Value>) -> Value {
    if taints.is_empty() {
        Value::Null
    } else {
        Value::Array(taints)
    }
}

fn raw(taint: &Taint) -> Value {
    let mut raw = json!({"key": taint.key, "effect": taint.effect.as_str()});
    if !taint.value.is_empty() {
        raw["value"] = Value::String(taint.value.clone());
    }
    raw
}

/// Whether it is this very taint: key, value and effect.
fn is(raw: &Value, taint: &Taint) -> bool {
    raw["key"] == taint.key.as_str()
        && raw["effect"] == taint.effect.as_str()
        && raw["value"].as_str().unwrap_or_default() == taint.value
}

fn shown(raw: &Value) -> String {
    let part = |name: &str| raw[name].as_str().unwrap_or_default();
    super::text::clean(
        &format!("{}={}:{}", part("key"), part("value"), part("effect")),
        200,
    )
}

/// What a release says about a surge before it is looked at.
pub fn surge_words(surge: &SurgeRecord) -> String {
    format!(
        "Deployment {}/{}, back to {} unless somebody else has scaled it",
        surge.namespace, surge.deployment, surge.before
    )
}

#[cfg(test)]
#[path = "marks_tests.rs"]
mod tests;
