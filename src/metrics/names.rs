//! Every metric there is: name, kind, labels, meaning. Rules and dashboards are held against this.

/// What a metric's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only; of use inside `rate()` and `increase()`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
    /// Always 1; the labels are what it says.
    Info,
}

/// A metric as rules and panels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Name in PromQL: counters with `_total`, infos with `_info`, histograms without suffix.
    pub name: &'static str,
    /// What the value is.
    pub kind: Kind,
    /// Its own labels; a scrape adds `job`, `instance` and the like.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// A metric with so many labels.
pub(super) struct Metric<const N: usize> {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str; N],
    pub(super) help: &'static str,
}

impl<const N: usize> Metric<N> {
    const fn describe(&self) -> Described {
        Described {
            name: self.name,
            kind: self.kind,
            labels: self.labels,
            help: self.help,
        }
    }

    /// The name without the suffix that the encoder adds.
    pub(super) fn base(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) const $constant: Metric<{ <[&str]>::len(&[$($label),*]) }> = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric, in the order of the exposition.
        pub const METRICS: &[Described] = &[$($constant.describe()),*];
    };
}

metrics! {
    // Of the Nodes: exported by the leader alone, and gone with the Node.
    NODE_RISK = Gauge "foreshock_node_risk_ratio" ["node"]
        "Probability that the Node degrades within the model's horizon, or the floor of its alerts if that is higher. Absent while unknown.";
    NODE_PHASE = Gauge "foreshock_node_phase" ["node", "phase"]
        "1 for the phase that the Node is in, 0 for the others.";
    NODE_CONTRIBUTION = Gauge "foreshock_node_risk_contribution" ["node", "feature"]
        "What a feature adds to the Node's score, in log-odds. From the caution band up, the largest only.";
    NODE_RULE = Gauge "foreshock_node_rule_ratio" ["node"]
        "The rule score of the Node, 0 to 1: a yardstick beside the model, not calibrated, which never acts. Absent where no rule finds a value.";
    NODE_MISSING = Gauge "foreshock_node_features_missing" ["node"]
        "Share of the required features that are missing for the Node, 0 to 1.";
    NODE_HOLD = Gauge "foreshock_node_hold" ["node", "reason"]
        "1 for the primary reason why nothing, or nothing more, is done to the Node. Absent when nothing is held back.";
    NODES = Gauge "foreshock_nodes" ["band"]
        "Nodes by band of their risk.";
    HOLDS = Gauge "foreshock_holds" ["reason"]
        "Nodes by the primary reason that holds them.";
    STORM = Gauge "foreshock_storm" []
        "1 while so many Nodes turned at risk at once that nothing new is begun.";
    STORM_RAMP = Gauge "foreshock_storm_ramp_nodes" []
        "After a storm: how many Nodes may be begun on before it is seen what came of them. Absent when the usual limits count alone.";
    BUDGET = Gauge "foreshock_budget_available" ["scope", "limit"]
        "How much of a limit is left.";
    BLOCKED = Gauge "foreshock_drain_blocked_pods" ["namespace", "pdb"]
        "Pods of running drains that wait for a PodDisruptionBudget. The largest counts only.";
    // Of foreshock.
    TAINTS = Counter "foreshock_taints_total" ["action", "outcome"]
        "Writes of marks and records to Nodes.";
    EVICTIONS = Counter "foreshock_evictions_total" ["outcome"]
        "Pods of drains by what came of them; `volumes` counts besides `evicted`.";
    DRAINS = Counter "foreshock_drains_total" ["outcome"]
        "Drains of Nodes by how they ended.";
    REPLACEMENT = Histogram "foreshock_replacement_ready_seconds" []
        "From the accepted eviction of a Pod to its replacement's being Ready. Counted when the whole drain's replacements are accounted for.";
    REPLACEMENTS_MISSING = Counter "foreshock_replacements_missing_total" []
        "Evicted Pods whose replacement was not Ready within `eviction.pod_deadline`.";
    ALERTS_RECEIVED = Counter "foreshock_alerts_received_total" ["outcome"]
        "Alerts received from Alertmanager by what became of them.";
    ALERTS_ACTIVE = Gauge "foreshock_alerts_active" []
        "Alerts that fire and are evidence about a Node.";
    WEBHOOKS = Counter "foreshock_webhook_requests_total" ["outcome"]
        "Deliveries of Alertmanager by the answer they got.";
    CYCLE = Histogram "foreshock_cycle_duration_seconds" ["stage"]
        "Duration of a cycle's stages; stage `total` is all of it.";
    CYCLE_INTERVAL = Gauge "foreshock_cycle_interval_seconds" []
        "Configured time between two cycles.";
    CYCLE_LAST = Gauge "foreshock_cycle_last_timestamp_seconds" []
        "When the last decision was made, in seconds since 1970.";
    FEATURE_AGE = Gauge "foreshock_feature_age_seconds" []
        "Age of the newest features. Absent until the first have come.";
    TELEMETRY = Counter "foreshock_feature_snapshots_total" ["outcome"]
        "How often all features were asked for, by what came of it.";
    FEATURES_FAILED = Gauge "foreshock_features_failed" []
        "Features whose query failed in the last cycle.";
    HISTORY = Gauge "foreshock_history_seconds" []
        "How much of the Nodes' last week (604800 s) is remembered. Absent where the model has no column that needs it.";
    TARGETS_REFUSED = Gauge "foreshock_targets_refused" []
        "Scrape targets whose Node could not be told, so that their series are not used.";
    MODEL = Info "foreshock_model_info" ["model", "schema", "source"]
        "The model in use.";
    MODEL_DRIFT = Gauge "foreshock_model_drift_ratio" ["feature"]
        "Population stability index of a feature over the last day against the model's training, less what a single day usually has. Absent while not known.";
    MODEL_SCORE_DRIFT = Gauge "foreshock_model_score_drift_ratio" []
        "Population stability index of the score over the last day against the model's training. Absent while not known.";
    MODEL_DRIFTED = Gauge "foreshock_model_drifted" []
        "1 while the inputs have drifted so far that the model may cause no more than a label. Absent while nothing was measured.";
    MODEL_MISSING = Gauge "foreshock_model_feature_missing_ratio" ["feature"]
        "Share of the Nodes for which a feature of the model is missing, over the last day.";
    MODEL_FAR_OUT = Gauge "foreshock_model_feature_out_of_range_ratio" ["feature"]
        "Share of a feature's values that lie far outside of the model's training, over the last day.";
    MODEL_EXPECTED = Gauge "foreshock_model_events_expected" []
        "Nodes that the model expected to turn not Ready in the last week: the sum of its probabilities. Absent at first and without Kubernetes.";
    MODEL_OBSERVED = Gauge "foreshock_model_events_observed" []
        "Nodes of those that did, within the model's horizon.";
    MODEL_RELOADS = Counter "foreshock_model_reloads_total" ["outcome"]
        "How often the model file said something new, by what came of it; whatever is not ok leaves the model as it was.";
    LEADER = Gauge "foreshock_leader" []
        "1 if this process may write.";
    PAUSED = Gauge "foreshock_paused" []
        "1 while somebody has paused foreshock.";
    DEPENDENCY = Gauge "foreshock_dependency_up" ["dependency"]
        "1 while the dependency answers.";
    DEGRADED = Gauge "foreshock_degraded" []
        "How many things about foreshock itself are not as they should be; /api/health names them.";
    BUILD = Info "foreshock_build_info" ["version"]
        "The program.";
    // The usual names of a process, so that the usual panels work.
    PROCESS_CPU = Counter "process_cpu_seconds_total" []
        "User and system CPU time.";
    PROCESS_RSS = Gauge "process_resident_memory_bytes" []
        "Resident memory.";
    PROCESS_FDS = Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "Start of the process, in seconds since 1970.";
}
