//! `foreshock train` on the operator's own history: fetched in slices that an interruption leaves in place,
//! learned from, judged on its last part, and written down with a report.
//!
//! [`crate::train`] says what an incident and a good model are, [`crate::model`] learns; here they are put
//! together. Memory does not grow with the history: features stay in a folder and go by three times, one slice
//! after another. What stays is a bounded number of rows to learn from, and some numbers for each row that is
//! judged.

pub mod archive;
mod collect;
mod fit;
pub mod past;
mod rows;
mod story;
mod trial;
pub mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::node::NodeName;
use jiff::Timestamp;

use crate::features::derive::DeriveError;
use crate::model::artifact::{Artifact, Content, Limits, ModelError};
use crate::model::authority::{self, Demands};
use crate::model::choose::Tried;
use crate::model::learn::LearnError;
use crate::model::local::{Against, CostFigures, Local, ReliabilityBin, Span as ModelSpan};
use crate::train::incidents;
use crate::train::judge::trial::Manner;
use crate::train::judge::{AtCost, JudgeError, Judgement, Terms, judge};
use crate::train::labels::{Rules, RulesFault};
use crate::train::report::{Card, PartCard, ReportError};
use crate::train::sample::{self, Cut, Part, Refusal, leave_out};
use crate::train::track::Span;

use archive::{Archive, ArchiveError};
use collect::Fetched;
use fit::Fitting;
use rows::{Counted, Gathered, Gathering};
use story::Story;
use trial::{Blind, Judged, Trying};
use work::{Work, WorkError};

/// Trees of a model at most.
pub const TREES_MAX: usize = 200;
/// Nodes are dealt into so many hands; each is judged by a model that has not seen it.
const HANDS: usize = 3;

/// How far the work has come.
pub trait Progress: Send + Sync {
    /// So much of so much of a step is done.
    fn at(&self, step: Step, done: u64, all: u64);
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Asking what happened to the Nodes, in slices.
    Seen,
    /// Asking for features, in slices.
    Features,
    /// Counting rows, by points in time.
    Counting,
    /// Making rows to learn from, by points in time.
    Deriving,
    /// Growing trees.
    Learning,
    /// Judging, by points in time.
    Judging,
}

impl Step {
    /// The step in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Seen => "asking what happened, slice",
            Self::Features => "asking for features, slice",
            Self::Counting => "counting rows, point",
            Self::Deriving => "deriving columns, point",
            Self::Learning => "growing trees,",
            Self::Judging => "judging, point",
        }
    }
}

/// What is learned from, and by which rules.
#[derive(Clone, Debug)]
pub struct TrainingTerms {
    /// The history, on the grid of five minutes.
    pub history: Span,
    /// How often exporters are scraped.
    pub scrape_interval: Duration,
    /// The operator's list of incidents.
    pub incidents: Option<PathBuf>,
    /// `model.missing_max`.
    pub missing_max: f64,
    /// How one acts on a score, and at which threshold.
    pub manner: Manner,
    /// `policy.at_risk`.
    pub at_risk: f64,
    /// What the operator demands of a model.
    pub demands: Demands,
    /// Seed of every draw.
    pub seed: u64,
    /// Trees at most; [`TREES_MAX`] is enough for any history.
    pub trees_max: usize,
    /// The command, for the provenance.
    pub command: String,
    /// Now.
    pub now: Timestamp,
}

/// Why no model came out.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The past could not be had.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Nor kept.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The list of incidents cannot be read.
    #[error("the list of incidents `{}` cannot be read", path.display())]
    IncidentsFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It has faults.
    #[error("the list of incidents `{}` has faults:\n{faults}", path.display())]
    Incidents {
        /// The file.
        path: PathBuf,
        /// Which.
        faults: incidents::Faults,
    },
    /// There is too little to learn from.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The times do not fit together.
    #[error(transparent)]
    Rules(#[from] RulesFault),
    /// The exporters and kube-state-metrics name no Node alike.
    #[error(
        "incidents befell {incidents} Nodes, and none of them has features: the label `node` of kube-state-metrics and \
         the Nodes that the exporters name have nothing in common; give the exporters' targets a label `node`"
    )]
    Strangers {
        /// Nodes with incidents.
        incidents: usize,
    },
    /// Columns could not be made.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// Nothing could be learned.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// Nothing could be judged.
    #[error(transparent)]
    Judge(#[from] JudgeError),
    /// The model cannot be.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Our own work broke off.
    #[error("the training broke off")]
    Task(#[from] tokio::task::JoinError),
}

/// A model with what is said of it.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: Artifact,
    /// Its report card.
    pub card: Card,
    /// The ways that were tried, and the place of the one that was taken.
    pub ways: (Vec<Tried>, usize),
    /// Nodes that were drawn by lot to be judged, of how many; `None` where all were.
    pub drawn: Option<(u64, u64)>,
    /// Rows that had too few features for a score.
    pub unknown: u64,
    /// Nodes that incidents befell and of which no exporter had features: they teach nothing.
    pub strangers: Vec<NodeName>,
}

impl Trained {
    /// Writes report and model; the model last, since it may be in use at once. Returns the files of the report.
    ///
    /// # Errors
    ///
    /// [`TrainError::Report`], [`TrainError::Model`].
    pub fn write(&self, output: &Path) -> Result<[PathBuf; 2], TrainError> {
        let files = self.card.write(output)?;
        self.model.write(output)?;
        Ok(files)
    }
}

/// Learns from a history. What is fetched goes into `work`, and is not asked for again.
///
/// # Errors
///
/// [`TrainError`].
pub async fn train(
    archive: &dyn Archive,
    work: &Work,
    terms: TrainingTerms,
    progress: Arc<dyn Progress>,
) -> Result<Trained, TrainError> {
    let rules = Rules::new(terms.scrape_interval);
    rules.check(terms.scrape_interval)?;
    let cut = Cut::new(terms.history, &rules)?;
    let telling = collect::seen(archive, work, terms.history, &*progress).await?;
    let reported = reported(&terms, |node| telling.knows(node))?;
    let story = telling.end(&reported, &rules, terms.history);
    let n_nodes = story.befallen().count();
    sample::check(n_nodes, &story.enough())?;
    let fetched = collect::features(archive, work, terms.history, n_nodes, &*progress).await?;
    let schooling = Schooling {
        terms,
        rules,
        cut,
        story,
        fetched,
        progress,
    };
    tokio::task::spawn_blocking(move || schooling.run()).await?
}

fn reported(
    terms: &TrainingTerms,
    knows: impl Fn(&str) -> bool,
) -> Result<Vec<incidents::Reported>, TrainError> {
    let Some(path) = &terms.incidents else {
        return Ok(Vec::new());
    };
    let bytes = std::fs::read(path).map_err(|source| TrainError::IncidentsFile {
        path: path.clone(),
        source,
    })?;
    incidents::read(&bytes, knows, terms.now).map_err(|faults| TrainError::Incidents {
        path: path.clone(),
        faults,
    })
}

/// A history with everything that happened in it, and how it is learned from.
struct Schooling {
    terms: TrainingTerms,
    rules: Rules,
    cut: Cut,
    story: Story,
    fetched: Fetched,
    progress: Arc<dyn Progress>,
}

impl Schooling {
    fn run(self) -> Result<Trained, TrainError> {
        let progress = &*self.progress;
        let missing_max = self.terms.missing_max;
        let counted = rows::count(&self.fetched, &self.story, &self.cut, missing_max, progress)?;
        self.check(&counted)?;
        let columns = counted.columns(&self.fetched);
        let one_in = counted.one_in(columns.len());
        let gathering = Gathering {
            story: &self.story,
            cut: &self.cut,
            columns: &columns,
            missing_max,
            one_in,
            one_in_during: counted.one_in_during(),
            seed: self.terms.seed,
        };
        let gathered = gathering.gather(&self.fetched, progress)?;
        let dealt = self.hands(&counted)?;
        let parts = self.parts(&counted, &gathered);
        let fitting = Fitting::new(
            gathered,
            &dealt,
            &columns,
            self.fetched.schema(),
            self.rules.horizon,
            &self.terms,
        )?;
        let best = fitting.best(progress)?;
        // The rows are not needed any more.
        drop(fitting);
        let blind: Vec<Blind> = dealt
            .into_iter()
            .zip(best.blind)
            .map(|(left_out, model)| Blind { left_out, model })
            .collect();
        let trying = Trying {
            story: &self.story,
            cut: &self.cut,
            rules: &self.rules,
            missing_max,
            seed: self.terms.seed,
            nodes: &counted.nodes,
        };
        let tried = trying.run(&self.fetched, &best.model, &blind, progress)?;
        let judgement = self.judge(&tried.calibration, &tried.test)?;
        let unseen_nodes = self.judge_unseen(&tried.calibration, &tried.test)?;
        let content = best.model.content().clone();
        let content = Content {
            validation: Some(judgement.rows.clone()),
            local: Some(self.local(&judgement, unseen_nodes.as_ref())),
            reference: tried.reference,
            ..content
        };
        let model = Artifact::seal(content, &Limits::default())?;
        let strangers = self.strangers(&counted);
        let refusals = authority::refusals(model.content(), &self.terms.demands, self.terms.now);
        let card = Card {
            model: model.id(),
            made: self.terms.now,
            history: self.terms.history,
            nodes: counted.nodes.len() as u64,
            rows: counted.tally.clone(),
            kinds: self.story.kinds(),
            excused: self.story.excused(),
            strangers: strangers.len() as u64,
            parts,
            one_in,
            refusals: refusals.iter().map(ToString::to_string).collect(),
            judgement,
            unseen_nodes,
            effects: tried.effects,
        };
        Ok(Trained {
            model,
            card,
            ways: (best.tried, best.chosen),
            drawn: tried.drawn,
            unknown: counted.unknown,
            strangers,
        })
    }

    fn strangers(&self, counted: &Counted) -> Vec<NodeName> {
        let befallen = self.story.befallen().filter(|(_, n)| *n > 0);
        let heard = |node: &NodeName| counted.nodes.contains(node) || counted.heard.contains(node);
        let strange = befallen.filter(|(node, _)| !heard(node));
        strange.map(|(node, _)| node.clone()).collect()
    }

    fn check(&self, counted: &Counted) -> Result<(), TrainError> {
        let befallen = self.story.befallen().filter(|(_, n)| *n > 0);
        let befallen: Vec<_> = befallen.map(|(node, _)| node).collect();
        if !befallen.iter().any(|node| counted.nodes.contains(*node)) {
            let incidents = befallen.len();
            return Err(TrainError::Strangers { incidents });
        }
        sample::check(counted.nodes.len(), &self.story.enough())?;
        Ok(self.cut.check(&counted.parts)?)
    }

    /// Nodes with rows, dealt into hands that are left out in turn.
    fn hands(&self, counted: &Counted) -> Result<Vec<BTreeSet<NodeName>>, TrainError> {
        let incidents: BTreeMap<NodeName, usize> = self
            .story
            .befallen()
            .filter(|(node, _)| counted.nodes.contains(*node))
            .map(|(node, n)| (node.clone(), n))
            .collect();
        Ok(leave_out(&incidents, HANDS, self.terms.seed)?)
    }

    fn terms(&self) -> Terms {
        Terms {
            manner: self.terms.manner,
            incident_cost: self.terms.demands.incident_cost,
            at_risk: self.terms.at_risk,
            seed: self.terms.seed,
        }
    }

    fn judge(&self, earlier: &Judged, test: &Judged) -> Result<Judgement, TrainError> {
        let earlier = (&earlier.trial, &earlier.scores);
        Ok(judge(earlier, (&test.trial, &test.scores), &self.terms())?)
    }

    fn judge_unseen(
        &self,
        earlier: &Judged,
        test: &Judged,
    ) -> Result<Option<Judgement>, TrainError> {
        let Some((before, after)) = earlier.unseen.as_ref().zip(test.unseen.as_ref()) else {
            return Ok(None);
        };
        let earlier = (&earlier.trial, before);
        Ok(Some(judge(earlier, (&test.trial, after), &self.terms())?))
    }

    fn local(&self, judgement: &Judgement, unseen: Option<&Judgement>) -> Local {
        let span = |span: Span| ModelSpan {
            from: span.from,
            to: span.to,
        };
        let judged = self.cut.span(Part::Test);
        let bins = judgement.reliability.iter();
        Local {
            trained: span(Span {
                from: self.terms.history.from,
                to: self.cut.span(Part::Calibration).to,
            }),
            judged: span(judged),
            events: judgement.incidents,
            nodes: judgement.nodes_befallen,
            costs: judgement.costs.iter().map(figures).collect(),
            unseen_nodes: unseen
                .into_iter()
                .flat_map(|unseen| &unseen.costs)
                .map(figures)
                .collect(),
            reliability: bins
                .map(|bin| ReliabilityBin {
                    from: bin.from,
                    to: bin.to,
                    predicted: bin.predicted,
                    observed: bin.observed,
                    rows: bin.rows,
                })
                .collect(),
        }
    }

    fn parts(&self, counted: &Counted, gathered: &Gathered) -> Vec<PartCard> {
        let part = |part: Part| {
            let (positives, negatives) = match part {
                Part::Train => gathered.train.kinds(),
                Part::Validation => gathered.validation.kinds(),
                Part::Calibration => gathered.calibration.kinds(),
                Part::Test => counted.rows_of(part),
            };
            PartCard {
                part,
                span: self.cut.span(part),
                positives,
                negatives,
            }
        };
        Part::ALL.map(part).into()
    }
}

fn figures(at: &AtCost) -> CostFigures {
    let against = at.beside.iter().map(|beside| Against {
        baseline: beside.baseline,
        cost: beside.figures.cost,
        low: beside.low,
        high: beside.high,
    });
    CostFigures {
        incident_cost: at.incident_cost,
        cost: at.model.cost,
        against: against.collect(),
    }
}

#[cfg(test)]
mod tests;
