//! Training on a small archive that is written down here.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;

use super::archive::{Seen, What};
use super::*;
use crate::features::history::GRID;
use crate::features::{FeatureMatrix, Schema};
use crate::model::local::Baseline;
use crate::train::signals::Signal;
use foreshock_core::time::after;

const MIDNIGHT: i64 = 20_833 * 86_400;
const NODES: usize = 8;
/// Points between two incidents of a Node, and where in such a round it shows and is.
const ROUND: i64 = 120;
const SHOWS: std::ops::Range<i64> = 88..100;
const IS: std::ops::Range<i64> = 100..106;

struct Quiet;

impl Progress for Quiet {
    fn at(&self, _: Step, done: u64, all: u64) {
        assert!(done <= all, "{done} of {all}");
    }
}

fn chance(what: i64) -> f64 {
    let mut bits = (what as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) as f64 / 2f64.powi(64)
}

/// Where in its round a Node is at a time, and whether this round ends in an incident: three of four do.
fn phase(node: usize, at: Timestamp) -> (i64, bool) {
    let point = (at.as_second() - MIDNIGHT) / 300 + node as i64 * 31;
    let ends = chance(point.div_euclid(ROUND) * 100 + node as i64) < 0.75;
    (point.rem_euclid(ROUND), ends)
}

struct Scripted {
    schema: Arc<Schema>,
    nodes: usize,
    healthy: bool,
    /// Nodes that fall ill, the first ones.
    ill: usize,
    /// The name in `seen`.
    prefix: &'static str,
    /// Nodes with incidents that teach nothing: of the first nobody has features, of the others one.
    strangers: usize,
    asked: AtomicUsize,
    fails_after: AtomicUsize,
}

impl Default for Scripted {
    fn default() -> Self {
        let feature = |i: usize| {
            format!(
                "[[feature]]\nname='f{i}'\nunit='ratio'\npromql='f{i}'\nmin=0\nmax=10\nnoise=0.01\n"
            )
        };
        let toml: String = (0..6).map(feature).collect();
        Self {
            schema: Arc::new(Schema::parse(&toml).unwrap()),
            nodes: NODES,
            healthy: false,
            ill: usize::MAX,
            prefix: "worker",
            strangers: 2,
            asked: AtomicUsize::new(0),
            fails_after: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Scripted {
    fn answer<T: Send + 'static>(
        &self,
        from: Timestamp,
        answer: T,
    ) -> BoxFuture<'_, Result<T, ArchiveError>> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let problem = "nobody answers".to_owned();
        Box::pin(std::future::ready(
            if asked < self.fails_after.load(Ordering::Relaxed) {
                Ok(answer)
            } else {
                Err(ArchiveError::NotHad { from, problem })
            },
        ))
    }
}

impl Archive for Scripted {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn seen(&self, from: Timestamp, times: usize) -> BoxFuture<'_, Result<Seen, ArchiveError>> {
        let mut seen = Seen {
            from,
            series: Vec::new(),
        };
        for node in 0..self.nodes + self.strangers {
            let prefix = if node < self.nodes {
                self.prefix
            } else {
                "stranger"
            };
            let name = format!("{prefix}-{node}");
            let at = |i| after(from, Seen::STEP * i);
            let ill = |i| match phase(node, at(i)) {
                (phase, true) if IS.contains(&phase) && !self.healthy && node < self.ill => 1.0,
                _ => 0.0,
            };
            let values: Vec<f64> = (0..times as u32).map(ill).collect();
            seen.add(&name, What::Signal(Signal::NotReady), &values);
        }
        self.answer(from, seen)
    }

    fn features(
        &self,
        from: Timestamp,
        points: usize,
    ) -> BoxFuture<'_, Result<Vec<FeatureMatrix>, ArchiveError>> {
        let matrices = (0..points as u32).map(|point| {
            let at = after(from, GRID * point);
            let faint = self.nodes + 1..self.nodes + self.strangers;
            let faint = faint.map(|node| format!("stranger-{node}"));
            let names = (0..self.nodes).map(|node| format!("worker-{node}"));
            let names = names.chain(faint).map(|name| name.as_str().into());
            let schema = Arc::clone(&self.schema);
            let mut matrix = FeatureMatrix::missing(at, schema, names.collect());
            for ((row, feature), value) in matrix.values.indexed_iter_mut() {
                let (name, node) = matrix.nodes[row].as_str().split_once('-').unwrap();
                let node: usize = node.parse().unwrap();
                if name == "stranger" && feature > 0 {
                    continue;
                }
                let (phase, _) = phase(node, at);
                *value = 0.2 + 0.1 * chance(at.as_second() * 64 + (node * 8 + feature) as i64);
                if feature < 2 && node < self.ill && (SHOWS.start..IS.end).contains(&phase) {
                    *value += 0.05 * (phase - SHOWS.start) as f64;
                }
            }
            matrix
        });
        self.answer(from, matrices.collect())
    }
}

fn terms() -> TrainingTerms {
    let from = Timestamp::from_second(MIDNIGHT).unwrap();
    let to = after(from, Duration::from_secs(10 * 86_400));
    TrainingTerms {
        history: Span { from, to },
        scrape_interval: Duration::from_secs(30),
        incidents: None,
        missing_max: 0.3,
        manner: Manner::default(),
        at_risk: 0.65,
        demands: Demands {
            incident_cost: 4.0,
            ..Demands::default()
        },
        seed: 1,
        trees_max: 8,
        command: "a test".to_owned(),
        now: to,
    }
}

async fn trained(
    archive: &Scripted,
    folder: &Path,
    terms: TrainingTerms,
) -> Result<Trained, TrainError> {
    let work = Work::open(folder.to_owned())?;
    train(archive, &work, terms, Arc::new(Quiet)).await
}

#[tokio::test]
async fn a_history_becomes_a_model_that_has_proved_itself() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Scripted::default();
    let work = folder.path().join("work");
    let trained_once = trained(&archive, &work, terms()).await.unwrap();
    let content = trained_once.model.content();
    assert_eq!(trained_once.card.refusals, [""; 0]);
    let local = content.local.as_ref().unwrap();
    assert!(local.events >= 30 && local.nodes >= 5, "{local:?}");
    assert_eq!(local.judged.to, terms().history.to);
    assert!(local.trained.to < local.judged.from);
    assert!(!local.unseen_nodes.is_empty());
    let judged = &trained_once.card.judgement;
    let at = judged.at_operators_cost().unwrap();
    let never = at
        .beside
        .iter()
        .find(|one| one.baseline == Baseline::NeverAct);
    assert!(at.model.cost < 0.7 * never.unwrap().figures.cost, "{at:?}");
    assert!(judged.rows.brier_skill > 0.2, "{:?}", judged.rows);
    // What drift is measured against knows what a day is.
    let reference = content.reference.as_ref().unwrap();
    assert!(reference.columns.iter().any(|groups| groups.day > 0.0));
    assert!(!trained_once.card.effects.is_empty());
    // Two Nodes have incidents and no rows; exporters say something of one of them.
    assert_eq!(trained_once.strangers, ["stranger-8".into()]);
    assert_eq!(trained_once.card.strangers, 1);
    assert!(trained_once.unknown > 0);

    // Everything is there now: nobody is asked again, and the same comes out.
    let asked = archive.asked.load(Ordering::Relaxed);
    let again = trained(&archive, &work, terms()).await.unwrap();
    assert_eq!(archive.asked.load(Ordering::Relaxed), asked);
    let bytes = |trained: &Trained| trained.model.to_bytes().unwrap();
    assert_eq!(bytes(&again), bytes(&trained_once));

    let output = folder.path().join("mine.json");
    let files = again.write(&output).unwrap();
    let read = Artifact::parse(&std::fs::read(&output).unwrap(), &Limits::default()).unwrap();
    assert_eq!(read, again.model);
    let markdown = std::fs::read_to_string(&files[0]).unwrap();
    assert!(markdown.contains(&read.id()), "{markdown}");
    assert!(
        markdown.contains("so that they teach nothing: 1."),
        "{markdown}"
    );
}

#[tokio::test]
async fn incidents_of_one_node_teach_a_model_that_may_not_act_on_others() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Scripted {
        ill: 1,
        strangers: 0,
        ..Scripted::default()
    };
    let trained = trained(&archive, &folder.path().join("work"), terms())
        .await
        .unwrap();
    let content = trained.model.content();
    assert!(!content.gbdt.trees.is_empty());
    assert!(content.local.as_ref().unwrap().unseen_nodes.is_empty());
    assert!(trained.card.unseen_nodes.is_none());
    let refusals = trained.card.refusals.join("; ");
    assert!(refusals.contains("had not seen"), "{refusals}");
    assert_eq!(trained.ways.0.len(), 6);
}

#[tokio::test]
async fn an_interruption_costs_nothing_that_was_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Scripted::default();
    let whole_folder = folder.path().join("whole");
    let expected = trained(&whole, &whole_folder, terms()).await.unwrap();
    let all = whole.asked.load(Ordering::Relaxed);

    let broken = Scripted::default();
    let work = folder.path().join("work");
    for fails_after in [3, all / 2 - 1] {
        broken.asked.store(0, Ordering::Relaxed);
        broken.fails_after.store(fails_after, Ordering::Relaxed);
        let error = trained(&broken, &work, terms()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("nobody answers"), "{text}");
    }
    broken.asked.store(0, Ordering::Relaxed);
    broken.fails_after.store(usize::MAX, Ordering::Relaxed);
    let came = trained(&broken, &work, terms()).await.unwrap();
    let fetched = 3 + (all / 2 - 1);
    assert_eq!(broken.asked.load(Ordering::Relaxed), all - fetched);
    assert_eq!(
        came.model.to_bytes().unwrap(),
        expected.model.to_bytes().unwrap()
    );
}

#[tokio::test]
async fn too_little_is_refused_before_or_after_features_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let short = TrainingTerms {
        history: Span {
            to: after(terms().history.from, Duration::from_secs(7 * 86_400)),
            ..terms().history
        },
        ..terms()
    };
    let one = Scripted {
        nodes: 1,
        ..Scripted::default()
    };
    let healthy = Scripted {
        healthy: true,
        ..Scripted::default()
    };
    let strange = Scripted {
        prefix: "10.0.0",
        ..Scripted::default()
    };
    for (name, archive, terms, says) in [
        ("short", Scripted::default(), short, "is too short"),
        ("one", one, terms(), "the history has 1 Nodes"),
        ("healthy", healthy, terms(), "no incident was found"),
        ("strange", strange, terms(), "have nothing in common"),
    ] {
        let error = trained(&archive, &folder.path().join(name), terms).await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains(says), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_list_of_incidents_counts_or_says_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.csv");
    let listed = || TrainingTerms {
        incidents: Some(path.clone()),
        ..terms()
    };
    let healthy = Scripted {
        healthy: true,
        ..Scripted::default()
    };
    let work = folder.path().join("work");
    let text = trained(&healthy, &work, listed()).await.unwrap_err();
    assert!(text.to_string().contains("cannot be read"), "{text}");
    std::fs::write(
        &path,
        "node,start,end,kind\nnobody,2027-01-15T10:00:00Z,,\n",
    )
    .unwrap();
    let text = trained(&healthy, &work, listed()).await.unwrap_err();
    assert!(text.to_string().contains("line 2: "), "{text}");
    // The same incidents that nobody saw, by the operator's word alone.
    let mut lines = "node,start,end,kind\n".to_owned();
    for node in 0..NODES {
        for point in 0..10 * 288 {
            let at = after(terms().history.from, GRID * point);
            let (phase, ends) = phase(node, at);
            if phase == IS.start && ends {
                let to = after(at, GRID * 6);
                lines.push_str(&format!("worker-{node},{at},{to},disk\n"));
            }
        }
    }
    std::fs::write(&path, lines).unwrap();
    let came = trained(&healthy, &work, listed()).await.unwrap();
    assert_eq!(came.card.refusals, [""; 0]);
    let kinds: Vec<String> = came.card.kinds.keys().map(ToString::to_string).collect();
    assert_eq!(kinds, ["reported: disk"]);
}

#[tokio::test]
async fn a_folder_of_another_training_and_a_damaged_one_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let work = Work::open(folder.path().to_owned()).unwrap();
    let request = work::Request {
        asked: "this".to_owned(),
        schema: "1".to_owned(),
        from: terms().history.from,
        to: terms().history.to,
        scrape_interval_ms: 30_000,
    };
    assert_eq!(work.request().unwrap(), None);
    work.begin(&request).unwrap();
    let then = work.request().unwrap().unwrap();
    assert_eq!(then, request);
    assert!(work.is_for(&then, "this", "1").is_ok());
    for (asked, schema, says) in [("that", "1", "--since"), ("this", "2", "schema")] {
        let error = work.is_for(&then, asked, schema).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    let archive = Scripted::default();
    let from = terms().history.from;
    let matrices = archive.features(from, 4).await.unwrap();
    work.keep_features(from, &matrices).unwrap();
    let back = work.features(from, 4, &archive.schema).unwrap();
    for (one, other) in back.iter().zip(&matrices) {
        assert_eq!((one.at, &one.nodes), (other.at, &other.nodes));
        let bits = |of: &FeatureMatrix| of.values.mapv(f64::to_bits);
        assert_eq!(bits(one), bits(other));
    }
    let file = folder.path().join(format!("features-{MIDNIGHT}.bin"));
    let good = std::fs::read(&file).unwrap();
    for (name, bytes) in [
        ("cut off", good[..good.len() - 9].to_vec()),
        ("nothing", Vec::new()),
        ("one bit", {
            let mut bytes = good.clone();
            bytes[good.len() / 2] ^= 1;
            bytes
        }),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let error = work.features(from, 4, &archive.schema).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{name}: {error}");
    }
    std::fs::write(&file, &good).unwrap();
    let error = work.features(from, 3, &archive.schema).unwrap_err();
    assert!(error.to_string().contains("of other times"), "{error}");
    std::fs::write(folder.path().join("request.json"), "{").unwrap();
    assert!(work.request().is_err());
    // Without a request nobody knows whose the slices are.
    std::fs::remove_file(folder.path().join("request.json")).unwrap();
    work.begin(&request).unwrap();
    assert!(!work.has_features(from));
}

#[test]
fn nothing_is_removed_that_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("thesis.txt");
    std::fs::write(&theirs, "years").unwrap();
    let error = Work::open(folder.path().to_owned())
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds other files"), "{error}");
    std::fs::remove_file(&theirs).unwrap();
    let work = Work::open(folder.path().to_owned()).unwrap();
    work.keep_seen(&Seen::default()).unwrap();
    std::fs::write(&theirs, "years").unwrap();
    work.finish().unwrap();
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert!(theirs.exists());
}
