//! A model ready for the service: checked against the features, with its card.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foreshock_core::decision::policy::Reach;

use super::artifact::{Artifact, Limits, ModelError, Source};
use super::built_in::built_in;
use super::scorer::{Scorer, TreeScorer};
use super::watch::WatchedFile;
use crate::features::Schema;
use crate::snapshot::{CardFeature, ModelCard, ModelName};

/// What a model has to fit, and what the operator lets it do.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The features that there are.
    pub schema: Arc<Schema>,
    /// `model.act_untrained`.
    pub act_untrained: bool,
}

/// A model ready for the service.
#[derive(Clone)]
pub struct Model {
    /// Scores and explains.
    pub scorer: Arc<dyn Scorer>,
    /// What is shown of it.
    pub name: ModelName,
    /// What is known about it.
    pub card: Arc<ModelCard>,
    /// Its evidence may exceed reach `label`.
    pub trusted: bool,
    /// Where it came from, if not from the program itself.
    pub file: Option<WatchedFile>,
    terms: Arc<Terms>,
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
        // A model learned on local history needs its validation to be trusted, which this version
        // cannot judge yet: until it can, every model has to be allowed by the operator.
        let trusted = terms.act_untrained;
        let name = ModelName {
            name: artifact.id(),
            source: content.source.as_str().to_owned(),
            schema: schema.digest().to_owned(),
            reach: if trusted { Reach::Evict } else { Reach::Label },
        };
        let features = artifact
            .features()
            .into_iter()
            .filter_map(|feature| {
                let importance = artifact.importance(feature);
                let feature = schema.feature(feature)?;
                Some(CardFeature {
                    feature: feature.name.clone(),
                    unit: feature.unit,
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
        let card = ModelCard {
            name: name.clone(),
            horizon: Duration::from_secs(content.horizon_seconds),
            command: content.provenance.command.clone(),
            window: None,
            rows: content.provenance.rows,
            positives: content.provenance.positives,
            features,
            validation,
            calibration: Vec::new(),
            drift: None,
            notes,
        };
        Ok(Self {
            scorer: Arc::new(TreeScorer::new(artifact)),
            name,
            card: Arc::new(card),
            trusted,
            file: None,
            terms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{imported, imported_schema};

    #[test]
    fn an_imported_model_causes_no_more_than_a_label_unless_the_operator_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.json");
        imported().write(&path).unwrap();
        let load = |act_untrained| {
            let terms = Terms {
                schema: Arc::new(imported_schema()),
                act_untrained,
            };
            Model::load(Some(&path), terms)
        };
        let model = load(false).unwrap();
        assert_eq!((model.name.reach, model.trusted), (Reach::Label, false));
        assert_eq!(model.name.source, "imported");
        assert!(
            model
                .card
                .notes
                .iter()
                .any(|note| note.starts_with("Imported"))
        );
        assert!(load(true).unwrap().trusted);
    }
}
