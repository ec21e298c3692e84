//! Which model speaks, and how another takes its place while the service runs.
//!
//! The file is looked at once in each interval, beside the loop. A new model counts from the next scoring
//! on: what is being scored ends with the model that it began with, and a decision rests on the scores of
//! one model and on how far that one may go.

use std::sync::Arc;

use foreshock_core::decision::policy::Reach;
use foreshock_core::time::since;
use jiff::{SignedDuration, Timestamp};
use tracing::{error, info};

use super::{Answer, Cycle, chain};
use crate::events::{EventKind, NewEvent};
use crate::metrics::ReloadOutcome;
use crate::model::artifact::{Limits, ModelError, Source};
use crate::model::loaded::Model;
use crate::model::watch::WatchedFile;

/// What a look at the model file came to.
pub(super) struct Looked {
    file: WatchedFile,
    /// `None`: it says what it said before.
    found: Option<Result<Model, ModelError>>,
}

impl Cycle {
    /// Looks at the model file, if there is one and no other look is under way.
    pub(super) fn ask_model(&mut self) {
        let Some(mut file) = self.model.file.clone().filter(|_| !self.looking) else {
            return;
        };
        self.looking = true;
        let model = Arc::clone(&self.model);
        self.answers.spawn(async move {
            let looked = tokio::task::spawn_blocking(move || {
                let artifact = file.look(&Limits::default());
                let found = artifact.map(|read| model.exchanged(&read?));
                Looked { file, found }
            });
            Answer::Model(
                looked
                    .await
                    .map(Box::new)
                    .map_err(|error| error.to_string()),
            )
        });
    }

    /// Takes in what a look came to.
    pub(super) fn take_model(&mut self, looked: Result<Box<Looked>, String>) {
        self.looking = false;
        let Looked { file, found } = match looked {
            Ok(looked) => *looked,
            Err(problem) => return error!(error = problem, "the look at the model file failed"),
        };
        let (path, now) = (file.path().display().to_string(), self.now());
        let mut model = Model::clone(&self.model);
        match found {
            None => {}
            Some(Ok(new)) => {
                self.parts.counters.reload(ReloadOutcome::Ok);
                let (from, to) = (model.id().to_owned(), new.id().to_owned());
                self.model_problem = None;
                let message = if from == to {
                    info!(
                        path,
                        model = to,
                        "the model file has the model in use again"
                    );
                    format!("the model file has the model in use again, {to}")
                } else {
                    info!(path, model = to, from, "another model is in use");
                    format!("model {to} is in use, instead of {from}")
                };
                let event = NewEvent::new(now, EventKind::Model, message);
                self.parts
                    .events
                    .push(event.reason(ReloadOutcome::Ok.as_str()));
                model = new;
            }
            Some(Err(fault)) => {
                let outcome = ReloadOutcome::of(&fault);
                self.parts.counters.reload(outcome);
                let (id, fault) = (model.id(), chain(&fault));
                error!(
                    path,
                    model = id,
                    error = fault,
                    "the model file cannot be used; the model stays as it was"
                );
                let problem = format!("model.file {path}: {fault}; {id} stays in use");
                let event = NewEvent::new(now, EventKind::Model, problem.as_str());
                self.parts.events.push(event.reason(outcome.as_str()));
                self.model_problem = Some(problem);
            }
        }
        model.file = Some(file);
        self.model = Arc::new(model);
    }

    /// The scores are by this model from now on. Under another than before, waits begin again: what one
    /// model began to suspect, another must not confirm.
    pub(super) fn scored_by(&mut self, model: Arc<Model>) {
        let before = self.speaks.replace(Arc::clone(&model));
        if before.is_some_and(|before| before.id() != model.id()) {
            self.memory = self.memory.after_a_break(SignedDuration::ZERO);
        }
    }

    /// How far the model may go is asked anew for every decision: time alone takes it away.
    pub(super) fn judge_model(&mut self, now: Timestamp) {
        let model = Arc::clone(self.speaking(now));
        let standing = model.standing(now, self.drift.measured(&model));
        if self.options.policy.model_trusted != standing.trusted {
            Arc::make_mut(&mut self.options.policy).model_trusted = standing.trusted;
        }
        let drift = self.drift.shown(&model);
        if standing == self.standing
            && self.card.name.name == model.id()
            && self.card.drift == drift
        {
            return;
        }
        if standing.reach() != self.standing.reach() {
            let (id, reach) = (model.id(), standing.reach());
            let why = standing.why_not();
            info!(
                model = id,
                reach = reach.as_str(),
                why,
                "the model's reach has changed"
            );
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            let message = format!("model {id} alone may cause up to {reach}{why}");
            let event = NewEvent::new(now, EventKind::Model, message);
            self.parts.events.push(event.reason("reach"));
        }
        self.card = Arc::new(model.card(&standing, drift));
        self.standing = standing;
    }

    /// A model that could act, by what it has shown or by what it is allowed, and may not although the policy
    /// would let it; in words with the remedy. One that never could is as it was configured.
    pub(super) fn model_demoted(&self) -> Option<String> {
        let local = self.card.name.source == Source::Local.as_str();
        let drifted = self.card.drift.as_ref().is_some_and(|drift| drift.alarmed);
        let why = self.standing.why_not().filter(|_| local || drifted)?;
        (self.options.policy.reach_max() > Reach::Label).then(|| {
            let id = &self.card.name.name;
            format!("the model {id} alone may cause no more than a label: {why}")
        })
    }

    /// The model whose scores are decided on, or that makes the next ones where there are none.
    pub(super) fn speaking(&self, now: Timestamp) -> &Arc<Model> {
        let age_max = self.options.policy.score_age_max;
        let fresh = |at| since(at, now) <= age_max;
        match (&self.scored, &self.speaks) {
            (Some(scored), Some(model)) if fresh(scored.at()) => model,
            (Some(_) | None, Some(_) | None) => &self.model,
        }
    }
}
