//! Marks on a simulated Node, under the same conditions as on a real one.

use foreshock_core::decision::plan::{Cause, MarkOrder};
use foreshock_core::decision::world::HoldUntil;
use foreshock_core::record::{Marks, NodeRecord, RecordState, Taint};

use super::state::{Node, State};
use crate::kubernetes::{ClusterError, NodeEntry};

impl State {
    /// Carries out an order, if the Node is as the order expects.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Superseded`] with what differs.
    pub(super) fn mark(&mut self, order: &MarkOrder) -> Result<NodeEntry, ClusterError> {
        let superseded = |detail: String| ClusterError::Superseded {
            object: format!("Node {}", order.node),
            detail,
        };
        let name = &order.node.name;
        let Some(node) = self.nodes.get(name) else {
            return Err(superseded("it does not exist".to_owned()));
        };
        let change = self.change_for(node, order).map_err(superseded)?;
        if change.taints != node.taints {
            // The scheduler keeps its old view, so that it has to be taken before the list changes.
            self.scheduler_will_see(name);
        }
        self.touch_node(name);
        let entry = self.nodes.get_mut(name).map(|node| {
            node.taints = change.taints;
            node.risk_label = change.label;
            node.record = change.record;
            node.entry()
        });
        self.reconcile();
        entry.ok_or_else(|| superseded("it does not exist".to_owned()))
    }

    fn change_for(&self, node: &Node, order: &MarkOrder) -> Result<Change, String> {
        if node.uid != order.node.uid {
            return Err(format!(
                "it is another Node of this name (UID {})",
                node.uid
            ));
        }
        is_expected(&node.record, order.expects.as_deref())?;
        if let Some(record) = &order.record
            && (record.uid != node.uid || record.instance != self.options.instance)
        {
            return Err("the order is not for this Node or instance".to_owned());
        }
        let nothing = Marks::default();
        let before = order
            .expects
            .as_ref()
            .map_or(&nothing, |record| &record.marks);
        let after = order
            .record
            .as_ref()
            .map_or(&nothing, |record| &record.marks);
        let mut taints = node.taints.clone();
        remove_taints(&mut taints, before, after, order.cause)?;
        add_taints(&mut taints, before, after)?;
        let label = label(node.risk_label.as_ref(), before, after)?;
        if taints != node.taints || label != node.risk_label || order.begins() {
            self.left_alone(node, order.begins())?;
        }
        Ok(Change {
            taints,
            label,
            record: order
                .record
                .clone()
                .map_or(RecordState::Absent, RecordState::Ours),
        })
    }

    fn left_alone(&self, node: &Node, begins: bool) -> Result<(), String> {
        let held = match &node.hold_until {
            Some(HoldUntil::Time(until)) => *until > self.now,
            Some(HoldUntil::Malformed(_)) => true,
            None => false,
        };
        if node.excluded {
            Err("it is to be left alone: annotation foreshock.dev/exclude".to_owned())
        } else if held {
            Err("it is to be left alone: annotation foreshock.dev/hold-until".to_owned())
        } else if let (Some(who), true) = (&node.taken_by, begins) {
            // What is ours may always leave; nothing new comes to a Node that somebody takes away.
            Err(format!("it is to be left alone: {who}"))
        } else {
            Ok(())
        }
    }
}

struct Change {
    taints: Vec<Taint>,
    label: Option<String>,
    record: RecordState,
}

fn is_expected(found: &RecordState, expected: Option<&NodeRecord>) -> Result<(), String> {
    let problem = match (found, expected) {
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
    Err(format!(
        "its record is not as the decision saw it: {problem}"
    ))
}

fn remove_taints(
    taints: &mut Vec<Taint>,
    before: &Marks,
    after: &Marks,
    cause: Cause,
) -> Result<(), String> {
    if let Some(taint) = &before.taint {
        let there = taints.contains(taint);
        let stays = after.taint.as_ref() == Some(taint);
        match (there, stays) {
            // The record follows what a person did; nothing is left to remove.
            (false, false) if cause == Cause::Veto => {}
            (false, _) => return Err(format!("our taint {taint} is not there any more")),
            (true, false) if cause == Cause::Veto => {
                return Err(format!("the taint {taint} is there again"));
            }
            (true, true) => {}
            (true, false) => taints.retain(|found| found != taint),
        }
    }
    // Nobody has a veto by removing the caution taint: it keeps nothing out.
    if let Some(taint) = &before.caution_taint
        && after.caution_taint.as_ref() != Some(taint)
    {
        taints.retain(|found| found != taint);
    }
    Ok(())
}

fn add_taints(taints: &mut Vec<Taint>, before: &Marks, after: &Marks) -> Result<(), String> {
    let had: Vec<&Taint> = before.taint.iter().chain(&before.caution_taint).collect();
    let wanted: Vec<&Taint> = after.taint.iter().chain(&after.caution_taint).collect();
    for taint in wanted.iter().filter(|taint| !had.contains(taint)) {
        // Whoever else uses our key, with whatever value and effect, means something by it.
        let foreign = taints
            .iter()
            .find(|found| found.key == taint.key && !had.contains(found));
        if let Some(foreign) = foreign {
            return Err(format!(
                "somebody else's taint {foreign} is in the place of {taint}"
            ));
        }
    }
    taints.extend(
        wanted
            .into_iter()
            .filter(|taint| !had.contains(taint))
            .cloned(),
    );
    Ok(())
}

fn label(value: Option<&String>, before: &Marks, after: &Marks) -> Result<Option<String>, String> {
    let foreign = || {
        let value = value.map_or("none", String::as_str);
        format!("the label foreshock.dev/risk has the value {value:?}, which is not ours")
    };
    match (before.label, after.label) {
        (None, Some(label)) if value == after.label_before.as_ref() => {
            Ok(Some(label.as_str().to_owned()))
        }
        (None, Some(_)) => Err(foreign()),
        (Some(before), Some(after)) if before == after => Ok(value.cloned()),
        (Some(before), Some(after)) if value.is_some_and(|value| value == before.as_str()) => {
            Ok(Some(after.as_str().to_owned()))
        }
        (Some(_), Some(_)) => Err(foreign()),
        (Some(ours), None) if value.is_some_and(|value| value == ours.as_str()) => {
            Ok(before.label_before.clone())
        }
        // Somebody has written over it or removed it: it is theirs now.
        (None | Some(_), None) => Ok(value.cloned()),
    }
}
