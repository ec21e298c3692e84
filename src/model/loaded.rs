//! A model ready for the service: checked against the features, with its card.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use jiff::Timestamp;

use super::artifact::{Artifact, Content, Limits, ModelError, Source};
use super::authority::{self, Demands, EFFICACY, Refusal};
use super::built_in::built_in;
use super::drift::{Measured, Probe};
use super::gbdt::Ensemble;
use super::local::{Against, Local};
use super::scorer::{Scorer, TreeScorer};
use super::watch::WatchedFile;
use crate::features::Schema;
use crate::features::columns::unit_of;
use crate::snapshot::{
    CalibrationBin, CardAuthority, CardCosts, CardFeature, CardThreshold, Drift, ModelCard,
    ModelName,
};

/// What a model has to fit, and what the operator lets it do.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The features that there are.
    pub schema: Arc<Schema>,
    /// What it takes to act.
    pub demands: Demands,
}

/// A model ready for the service.
#[derive(Clone)]
pub struct Model {
    /// Scores and explains.
    pub scorer: Arc<dyn Scorer>,
    /// Where it came from, if not from the program itself.
    pub file: Option<WatchedFile>,
    /// Counts its inputs.
    pub probe: Arc<Probe>,
    /// What never changes of its card.
    card: Arc<ModelCard>,
    /// The part of the file that its authority rests on.
    proof: Arc<Content>,
    terms: Arc<Terms>,
}

/// How a model stands at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its evidence may exceed reach `label`.
    pub trusted: bool,
    /// What it has not earned, and what has been lost of it.
    pub refusals: Vec<Refusal>,
    /// Those that keep it from acting.
    holding: Vec<Refusal>,
}

impl Standing {
    /// How far the model alone may go.
    pub fn reach(&self) -> Reach {
        if self.trusted {
            Reach::Evict
        } else {
            Reach::Label
        }
    }

    /// Why it may not act, in words; `None` where it may.
    pub fn why_not(&self) -> Option<String> {
        let refusals: Vec<String> = self.holding.iter().map(Refusal::to_string).collect();
        (!self.trusted).then(|| refusals.join("; "))
    }
}

impl Model {
    /// Loads the model of `model.file`, or the built-in one, and checks that these features are its own.
    ///
    /// # Errors
    ///
    /// [`ModelError`], which names the file and what is wrong with it.
    pub fn load(file: Option<&Path>, terms: Terms) -> Result<Self, ModelError> {
        let mut file = file.map(WatchedFile::new);
        let artifact = match &mut file {
            Some(file) => file.load(&Limits::default())?,
            None => built_in()?,
        };
        let model = Self::of(&artifact, Arc::new(terms))?;
        Ok(Self { file, ..model })
    }

    /// Another model on the same terms.
    ///
    /// # Errors
    ///
    /// [`ModelError::Schema`], if these features are not its own.
    pub fn exchanged(&self, artifact: &Artifact) -> Result<Self, ModelError> {
        let model = Self::of(artifact, Arc::clone(&self.terms))?;
        let file = self.file.clone();
        Ok(Self { file, ..model })
    }

    fn of(artifact: &Artifact, terms: Arc<Terms>) -> Result<Self, ModelError> {
        let schema = &*terms.schema;
        artifact.matches(schema)?;
        let content = artifact.content();
        let name = ModelName {
            name: artifact.id(),
            source: content.source.as_str().to_owned(),
            schema: schema.digest().to_owned(),
            reach: Reach::Label,
        };
        let features = artifact
            .importances()
            .into_iter()
            .filter_map(|(feature, importance)| {
                Some(CardFeature {
                    feature: feature.into(),
                    unit: unit_of(schema, feature)?,
                    importance,
                })
            })
            .collect::<Vec<_>>();
        let mut features = features;
        features.sort_by(|a, b| {
            b.importance
                .total_cmp(&a.importance)
                .then_with(|| a.feature.cmp(&b.feature))
        });
        let validation = content
            .validation
            .as_ref()
            .map_or_else(Vec::new, |figures| {
                vec![
                    ("rows".to_owned(), figures.rows as f64),
                    ("base_rate".to_owned(), figures.base_rate),
                    ("pr_auc".to_owned(), figures.pr_auc),
                    ("brier".to_owned(), figures.brier),
                    ("brier_skill".to_owned(), figures.brier_skill),
                    ("ece".to_owned(), figures.ece),
                ]
            });
        let mut notes = Vec::new();
        if content.source == Source::Synthetic {
            notes.push(
                "Learned from simulated Nodes. It has proved nothing about this cluster, so without \
                 model.act_untrained it may not cause more than a label."
                    .to_owned(),
            );
        }
        if content.source == Source::Imported {
            notes.push(
                "Imported: it was trained by another program, and whatever it proved there was not seen \
                 here. Without model.act_untrained it may not cause more than a label."
                    .to_owned(),
            );
        }
        let local = content.local.as_ref();
        let card = ModelCard {
            name,
            horizon: Duration::from_secs(content.horizon_seconds),
            command: content.provenance.command.clone(),
            window: local.map(|local| (local.trained.from, local.trained.to)),
            rows: content.provenance.rows,
            positives: content.provenance.positives,
            features,
            validation,
            calibration: local.map(calibration).unwrap_or_default(),
            drift: None,
            authority: CardAuthority::default(),
            costs: local.map(costs).unwrap_or_default(),
            threshold: threshold(terms.demands.incident_cost),
            notes,
        };
        Ok(Self {
            scorer: Arc::new(TreeScorer::new(artifact)),
            probe: Arc::new(Probe::new(artifact)),
            card: Arc::new(card),
            proof: Arc::new(Content {
                columns: Vec::new(),
                reference: None,
                gbdt: Ensemble::new(0, 0, 0.0, Vec::new()),
                ..content.clone()
            }),
            file: None,
            terms,
        })
    }

    /// Its name, which changes with its content.
    pub fn id(&self) -> &str {
        &self.card.name.name
    }

    /// Where it learned.
    pub fn source(&self) -> Source {
        self.proof.source
    }

    /// How it stands now, with inputs as they were measured.
    pub fn standing(&self, now: Timestamp, drift: Option<&Measured>) -> Standing {
        let demands = &self.terms.demands;
        let mut refusals = authority::refusals(&self.proof, demands, now);
        refusals.extend(drift.and_then(|measured| authority::drifted(measured, demands)));
        let holding = refusals.iter();
        let holding = holding.filter(|refusal| authority::counts(refusal, demands));
        Standing {
            trusted: authority::trusted(&refusals, demands),
            holding: holding.cloned().collect(),
            refusals,
        }
    }

    /// What the operator demands of it.
    pub fn demands(&self) -> &Demands {
        &self.terms.demands
    }

    /// How far ahead it looks.
    pub fn horizon(&self) -> Duration {
        self.card.horizon
    }

    /// What is known about it, as it stands.
    pub fn card(&self, standing: &Standing, drift: Option<Drift>) -> ModelCard {
        let mut card = ModelCard::clone(&self.card);
        card.drift = drift;
        card.name.reach = standing.reach();
        let local = self.proof.local.as_ref();
        let refusals = standing.refusals.iter();
        card.authority = CardAuthority {
            acts: standing.trusted,
            act_untrained: self.terms.demands.act_untrained,
            refusals: refusals
                .map(|refusal| (refusal.as_str(), refusal.to_string()))
                .collect(),
            judged: local.map(|local| {
                (
                    local.judged.from,
                    local.judged.to,
                    local.events,
                    local.nodes,
                )
            }),
        };
        card
    }
}

fn threshold(incident_cost: f64) -> CardThreshold {
    CardThreshold {
        incident_cost,
        efficacy: EFFICACY,
        implied: authority::threshold(incident_cost),
    }
}

fn calibration(local: &Local) -> Vec<CalibrationBin> {
    let bins = local.reliability.iter().map(|bin| CalibrationBin {
        from: bin.from,
        to: bin.to,
        predicted: bin.predicted,
        observed: bin.observed,
        rows: bin.rows,
    });
    bins.collect()
}

fn costs(local: &Local) -> Vec<CardCosts> {
    let against = |one: &Against| (one.baseline.as_str(), one.cost, (one.low, one.high));
    let costs = local.costs.iter().map(|figures| CardCosts {
        incident_cost: figures.incident_cost,
        threshold: authority::threshold(figures.incident_cost),
        cost: figures.cost,
        against: figures.against.iter().map(against).collect(),
    });
    costs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{imported, imported_schema, local, sealed, stump, terms};

    #[test]
    fn an_imported_model_causes_no_more_than_a_label_unless_the_operator_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.json");
        imported().write(&path).unwrap();
        let load = |act_untrained| {
            let mut terms = terms(imported_schema());
            terms.demands.act_untrained = act_untrained;
            Model::load(Some(&path), terms)
        };
        let model = load(false).unwrap();
        let standing = model.standing(Timestamp::UNIX_EPOCH, None);
        assert_eq!((standing.reach(), standing.trusted), (Reach::Label, false));
        assert_eq!(model.card(&standing, None).name.source, "imported");
        assert!(
            model
                .card(&standing, None)
                .notes
                .iter()
                .any(|note| note.starts_with("Imported"))
        );
        let standing = load(true).unwrap().standing(Timestamp::UNIX_EPOCH, None);
        assert!(standing.trusted && standing.why_not().is_none());
        assert_eq!(
            standing.refusals,
            [Refusal::Imported],
            "and it is still said"
        );
    }

    #[test]
    fn the_card_of_a_model_that_learned_here_says_when_and_how_it_was_judged() {
        let mut content = stump("here", "mem_used", 0.9);
        content.local = Some(local());
        let model = Model::of(&sealed(content), Arc::new(terms(Schema::built_in()))).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let standing = model.standing(at("2026-03-02T00:00:00Z"), None);
        let card = model.card(&standing, None);
        assert_eq!((card.name.reach, card.authority.acts), (Reach::Evict, true));
        assert_eq!(
            card.window,
            Some((at("2026-01-01T00:00:00Z"), at("2026-02-15T00:00:00Z")))
        );
        assert_eq!(card.calibration.len(), 2);
        assert_eq!(card.costs[1].against[3].0, "pending_alerts");
        assert!((card.costs[1].threshold - 0.625).abs() < 1e-12);
        assert!((card.threshold.implied - 0.625).abs() < 1e-12);

        let late = model.standing(at("2026-06-01T00:00:00Z"), None);
        let card = model.card(&late, None);
        assert_eq!(
            (card.name.reach, card.authority.acts),
            (Reach::Label, false)
        );
        let [(name, words)] = card.authority.refusals.as_slice() else {
            panic!("{card:?}");
        };
        assert_eq!(*name, "stale");
        assert!(words.contains("ended 92 days ago"), "{words}");
    }
}
