//! `foreshock check`: would `run` work, and what would it miss?

use std::fmt;
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use jiff::Timestamp;
use std::sync::Arc;

use crate::app::kube_options;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::cycle::chain;
use crate::features::{NodeDirectory, NodeEntry, Telemetered, Telemetry, grid};
use crate::kubernetes::client::KubeCluster;
use crate::kubernetes::{Cluster, NodeTable};
use crate::model::loaded::Model;
use crate::prometheus::PrometheusTelemetry;
use crate::web::WebError;

/// How long the first list of Nodes may take.
const SYNC_MAX: Duration = Duration::from_secs(15);
/// How long a foreshock that runs may take to say so.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Nodes or features that one line names; beyond it they are counted.
const NAMED_MAX: usize = 8;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    verdict: Verdict,
    what: &'static str,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Warning,
    Failure,
}

impl Finding {
    /// `run` would not work.
    pub fn is_failure(&self) -> bool {
        self.verdict == Verdict::Failure
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Fine => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Failure => "FAIL",
        };
        write!(
            f,
            "{mark}  {:<14} {}",
            self.what,
            self.detail.replace('\n', "\n                      ")
        )
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn fine(&mut self, what: &'static str, detail: impl Into<String>) {
        self.0.push(Finding {
            verdict: Verdict::Fine,
            what,
            detail: detail.into(),
        });
    }

    fn warn(&mut self, what: &'static str, detail: impl Into<String>) {
        self.0.push(Finding {
            verdict: Verdict::Warning,
            what,
            detail: detail.into(),
        });
    }

    fn fail(&mut self, what: &'static str, detail: impl Into<String>) {
        self.0.push(Finding {
            verdict: Verdict::Failure,
            what,
            detail: detail.into(),
        });
    }
}

/// Looks at everything that `run` needs. The configuration itself has been read without a fault.
pub async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    let reach = config.policy.reach_max();
    findings.fine("configuration", format!("valid; policy.reach is {reach}"));
    findings.fine(
        "not built yet",
        format!("refused when set: {}", Config::UNBUILT.join(", ")),
    );
    model(config, &mut findings);
    listener(config, &mut findings).await;
    let nodes = kubernetes(config, &mut findings).await;
    prometheus(config, nodes, &mut findings).await;
    alerts(config, &mut findings);
    findings.0
}

fn model(config: &Config, findings: &mut Findings) {
    match Model::load(config.model.file.as_deref(), config.model_terms()) {
        Ok(model) => {
            let source = model.source().as_str();
            findings.fine(
                "model",
                format!("{} ({source}), fits the features", model.id()),
            );
            let standing = model.standing(SystemClock.now(), None);
            if let Some(why) = standing.why_not()
                && standing.reach() < config.policy.reach_max()
            {
                let detail = format!(
                    "the model alone goes no further than {}: {why} (model.act_untrained = true lets it)",
                    standing.reach()
                );
                findings.warn("model", detail);
            }
        }
        Err(error) => findings.fail("model", chain(&error)),
    }
}

async fn listener(config: &Config, findings: &mut Findings) {
    match crate::web::bind(&config.listen.to_string()).await {
        Ok(_) => findings.fine("listen", format!("{} is free", config.listen)),
        Err(WebError::PortInUse { .. }) if is_foreshock(config).await => {
            findings.fine(
                "listen",
                format!("{}: a foreshock answers there", config.listen),
            );
        }
        Err(error) => findings.fail("listen", chain(&error)),
    }
}

/// Whether the port is taken by a foreshock that runs, as when `check` is asked in its own Pod.
async fn is_foreshock(config: &Config) -> bool {
    let Ok(client) = reqwest::Client::builder()
        .timeout(ANSWER_MAX)
        .no_proxy()
        .build()
    else {
        return false;
    };
    let url = format!("http://127.0.0.1:{}/api/health", config.listen.port());
    let Ok(answer) = client.get(url).send().await else {
        return false;
    };
    // Another program may answer too, and with anything.
    let body = answer.json::<serde_json::Value>().await.unwrap_or_default();
    body["version"].is_string() && body["leader"].is_boolean()
}

async fn kubernetes(config: &Config, findings: &mut Findings) -> Option<NodeDirectory> {
    if !config.kubernetes.enabled {
        findings.fine(
            "kubernetes",
            "not used (kubernetes.enabled = false): alerts and scores only",
        );
        return Some(NodeDirectory::open());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let cluster = match KubeCluster::connect(kube_options(config), clock).await {
        Ok(cluster) => cluster,
        Err(error) => {
            findings.fail("kubernetes", chain(&error));
            return None;
        }
    };
    let mut nodes = cluster.nodes();
    // A refusal is an answer too: trying again, as `run` would, does not change it.
    let answered = |table: &Arc<NodeTable>| table.synced || table.problem.is_some();
    let answer = tokio::time::timeout(SYNC_MAX, nodes.wait_for(answered)).await;
    let table = answer
        .ok()
        .and_then(Result::ok)
        .map(|table| Arc::clone(&table));
    let Some(table) = table.filter(|table| table.synced) else {
        let problem = nodes
            .borrow()
            .problem
            .clone()
            .unwrap_or_else(|| format!("no answer within {SYNC_MAX:?}"));
        findings.fail("kubernetes", format!("{}: {problem}", cluster.url()));
        // Where the server answers at all, it says which right is missing.
        permissions(config, &cluster, findings).await;
        return None;
    };
    findings.fine(
        "kubernetes",
        format!("{}: {} Nodes", cluster.url(), table.nodes.len()),
    );
    if table.nodes.is_empty() {
        let selector = &config.kubernetes.node_selector;
        let detail = if selector.is_empty() {
            "there are no Nodes".to_owned()
        } else {
            format!("kubernetes.node_selector {selector:?} selects no Node")
        };
        findings.fail("kubernetes", detail);
    }
    permissions(config, &cluster, findings).await;
    let entries = table.nodes.values().map(|entry| NodeEntry {
        name: entry.facts.id.name.clone(),
        uid: entry.facts.id.uid.clone(),
        created: entry.facts.created_at,
        hostname: entry.hostname.clone(),
        addresses: entry.addresses.clone(),
    });
    Some(NodeDirectory::new(entries))
}

/// Whether the credentials have every right that the configured reach needs.
async fn permissions(config: &Config, cluster: &KubeCluster, findings: &mut Findings) {
    let surge = config.policy.drain.surge;
    match cluster.permissions(config.policy.reach_max(), surge).await {
        Err(error) => findings.fail("permissions", chain(&error)),
        Ok(permissions) => {
            let missing: Vec<String> = permissions
                .iter()
                .filter(|permission| !permission.allowed)
                .map(ToString::to_string)
                .collect();
            if missing.is_empty() {
                findings.fine(
                    "permissions",
                    format!(
                        "all {} that policy.reach = {} needs",
                        permissions.len(),
                        config.policy.reach_max()
                    ),
                );
            } else {
                let detail = format!(
                    "missing: {}; apply the roles in deploy/kustomize/base{}",
                    missing.join(", "),
                    if surge {
                        ", with components/surge for eviction.surge"
                    } else {
                        ""
                    }
                );
                findings.fail("permissions", detail);
            }
        }
    }
}

async fn prometheus(config: &Config, nodes: Option<NodeDirectory>, findings: &mut Findings) {
    let telemetry = match PrometheusTelemetry::new(&config.prometheus, Arc::clone(&config.schema)) {
        Ok(telemetry) => telemetry,
        Err(error) => return findings.fail("prometheus", chain(&error)),
    };
    let url = &config.prometheus.url;
    match telemetry.client().build_info().await {
        Ok(info) => findings.fine("prometheus", format!("{url}: version {}", info.version)),
        // Not every back end says what it is; whether it answers queries is what counts.
        Err(error) => findings.warn(
            "prometheus",
            format!("{url} does not say its version: {}", chain(&error)),
        ),
    }
    match telemetry.client().unmarked_alerts().await {
        Ok(alerts) if alerts.is_empty() => findings.fine(
            "alert loops",
            "no alert on foreshock_ metrics without foreshock=\"self\"",
        ),
        Ok(alerts) => {
            let names: Vec<&str> = alerts
                .iter()
                .map(|alert| alert.name.as_str())
                .take(NAMED_MAX)
                .collect();
            let detail = format!(
                "alerts on foreshock's own metrics need the label foreshock=\"self\": {}",
                names.join(", ")
            );
            findings.fail("alert loops", detail);
        }
        Err(error) => findings.warn(
            "alert loops",
            format!("the rules could not be read: {}", chain(&error)),
        ),
    }
    let Some(nodes) = nodes else {
        return findings.fail(
            "features",
            "not asked for: without Kubernetes it is not known for which Nodes",
        );
    };
    let now = Timestamp::now();
    let at = grid(now, config.prometheus.lag, config.interval);
    match telemetry.snapshot(at, &nodes).await {
        Ok(telemetered) => coverage(config, &telemetered, findings),
        Err(error) => findings.fail("features", chain(&error)),
    }
    match telemetry.scrape_interval(at).await {
        Ok(Some(interval)) if config.prometheus.stale_after < 2 * interval => {
            let (stale, interval) = (config.prometheus.stale_after, interval);
            let detail = format!(
                "prometheus.stale_after ({stale:?}) is under twice the scrape interval ({interval:?})"
            );
            findings.warn("scrapes", detail);
        }
        Ok(Some(interval)) if config.prometheus.rate_window < 4 * interval => {
            let detail = format!(
                "prometheus.rate_window ({:?}) is under four scrape intervals ({interval:?})",
                config.prometheus.rate_window
            );
            findings.warn("scrapes", detail);
        }
        Ok(Some(interval)) => findings.fine("scrapes", format!("every {interval:?}")),
        Ok(None) => findings.warn(
            "scrapes",
            "no target has been there for ten minutes; the interval is not known yet",
        ),
        Err(error) => findings.warn("scrapes", chain(&error)),
    }
}

fn coverage(config: &Config, telemetered: &Telemetered, findings: &mut Findings) {
    let report = telemetered.identity.report();
    for refusal in &report.refused {
        if refusal.mixes_clusters() {
            findings.fail("identity", format!("{refusal}; set prometheus.matchers"));
        } else {
            findings.warn("identity", refusal.to_string());
        }
    }
    let matrix = &telemetered.matrix;
    let all = matrix.nodes.len();
    let unscraped: Vec<&str> = telemetered.unscraped().map(|node| node.as_str()).collect();
    if all == 0 || unscraped.len() == all {
        let detail = format!(
            "no Node has a fresh node_uname_info; does prometheus.selector ({}) match your node_exporter, and does \
             `instance` or a label `node` name the Nodes?",
            config.prometheus.selector
        );
        return findings.fail("features", detail);
    }
    if !unscraped.is_empty() {
        findings.warn(
            "features",
            format!("no fresh scrape of {}", named(&unscraped)),
        );
    }
    let thin: Vec<&str> = (0..all)
        .filter(|row| {
            matrix.scraped_at.get(*row).copied().flatten().is_some()
                && matrix.missing_share(*row) > config.model.missing_max
        })
        .map(|row| matrix.nodes[row].as_str())
        .collect();
    if !thin.is_empty() {
        let share = config.model.missing_max * 100.0;
        findings.warn(
            "features",
            format!(
                "more than {share} % of the required features are missing on {}",
                named(&thin)
            ),
        );
    }
    findings.fine(
        "features",
        format!(
            "{} of {all} Nodes scored",
            all - unscraped.len() - thin.len()
        ),
    );
    let scraped = all - unscraped.len();
    for column in &telemetered.columns {
        let Some(feature) = config.schema.feature(column.feature.as_str()) else {
            continue;
        };
        if let Some(problem) = &column.problem {
            findings.warn("features", format!("{}: {problem}", column.feature));
        } else if column.filled < scraped && !feature.optional {
            findings.warn(
                "features",
                format!(
                    "{}: on {} of {scraped} scraped Nodes",
                    column.feature, column.filled
                ),
            );
        }
    }
    let absent: Vec<&str> = telemetered
        .columns
        .iter()
        .filter(|column| column.problem.is_none() && column.filled == 0)
        .filter(|column| {
            config
                .schema
                .feature(column.feature.as_str())
                .is_some_and(|feature| feature.optional)
        })
        .map(|column| column.feature.as_str())
        .collect();
    if !absent.is_empty() {
        findings.fine(
            "features",
            format!("optional, and not there: {}", named(&absent)),
        );
    }
}

fn named(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    let more = names.len().saturating_sub(NAMED_MAX);
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}

fn alerts(config: &Config, findings: &mut Findings) {
    let rules = &config.alerts.rules;
    if rules.is_empty() {
        return findings.fine(
            "alerts",
            "no [[alerts.rules]]: alerts are shown and never act",
        );
    }
    findings.fine("alerts", format!("{} rules", rules.len()));
    // Alertmanager sends an unchanged group again only after repeat_interval, 4 h by default.
    let short = rules
        .iter()
        .filter(|rule| rule.expire < Duration::from_secs(4 * 3600))
        .count();
    if short > 0 {
        let detail = format!(
            "{short} rules expire before 4h, Alertmanager's default repeat_interval: alerts that still fire would be forgotten"
        );
        findings.warn("alerts", detail);
    }
    if config.policy.reach_max() < Reach::Taint {
        findings.warn(
            "alerts",
            format!(
                "policy.reach is {}: they cause nothing",
                config.policy.reach_max()
            ),
        );
    }
}
