//! The configuration: one TOML file, overridden by the environment, checked as a whole.
//!
//! `FORESHOCK__SECTION__KEY` overrides `section.key`. Every fault is reported at once, each with its
//! key. Nothing is parsed and ignored: what this version cannot do is refused when it is set.

mod policy;
mod pools;
mod read;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::{Environment, FileFormat};
use foreshock_core::decision::policy::Policy;

pub use self::pools::PoolSelectors;
pub use self::read::Fault;
use self::read::Section;
use crate::alertmanager::AlertRules;
use crate::features::Schema;
use crate::model::authority::Demands;
use crate::model::loaded::Terms;
use crate::prometheus::{BasicAuth, PrometheusOptions};
use crate::snapshot::Shortened;
use crate::web::{Credentials, PeerUrl, TlsFiles, WebOptions};

const DAY: Duration = Duration::from_secs(86_400);

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// `listen.address`.
    pub listen: SocketAddr,
    /// `listen.advertise`: where other replicas reach this one, if that is not what is listened on.
    pub advertise: Option<String>,
    /// `[auth]`, as the web needs it.
    pub web: WebOptions,
    /// `[log]`.
    pub log: Log,
    /// `[prometheus]`.
    pub prometheus: PrometheusOptions,
    /// The features, built-in or from `prometheus.features_file`.
    pub schema: Arc<Schema>,
    /// `alertmanager.url`, if it is to be asked for active alerts.
    pub alertmanager_url: Option<String>,
    /// `[kubernetes]`.
    pub kubernetes: Kubernetes,
    /// `cycle.interval`.
    pub interval: Duration,
    /// `[model]`.
    pub model: Model,
    /// `[policy]` and `[eviction]`. Whether the model may be trusted is decided when it is loaded.
    pub policy: Policy,
    /// Which Nodes are in which pool of the policy.
    pub pools: PoolSelectors,
    /// `policy.limits.marks_per_second`.
    pub marks_per_second: u32,
    /// `eviction.rate`, evictions per second in the whole cluster.
    pub eviction_rate: u32,
    /// `[alerts]`.
    pub alerts: AlertRules,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line, instead of text.
    pub json: bool,
    /// A level, or directives as `tracing` has them.
    pub level: String,
}

/// `[kubernetes]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Without it there are alerts and scores only, and nothing can be written.
    pub enabled: bool,
    /// A kubeconfig instead of the usual places.
    pub kubeconfig: Option<PathBuf>,
    /// Name of the Lease, and owner in the records.
    pub instance: String,
    /// Namespace of the Lease, if it is not to be found out.
    pub namespace: Option<String>,
    /// Label selector; only these Nodes exist for this instance.
    pub node_selector: String,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The model file; the built-in one where it is `None`.
    pub file: Option<PathBuf>,
    /// The largest share of required features that may be missing.
    pub missing_max: f64,
    /// A model without local validation may exceed reach `label`.
    pub act_untrained: bool,
    /// A validation on local history counts while that history ended no longer ago.
    pub validation_age_max: Duration,
    /// Drains that an incident is worth.
    pub incident_cost: f64,
    /// A population stability index from here on is told.
    pub drift_warn: f64,
    /// And from here on the model may cause no more than a label.
    pub drift_alarm: f64,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("configuration file {} is not valid TOML: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// Some keys are wrong.
    #[error("{} of {}:\n{}", faults_counted(.faults.len()), path.display(), lines(.faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Every fault; never empty.
        faults: Vec<Fault>,
    },
}

fn faults_counted(count: usize) -> String {
    if count == 1 {
        "1 fault in the configuration".to_owned()
    } else {
        format!("{count} faults in the configuration")
    }
}

fn lines(faults: &[Fault]) -> String {
    faults
        .iter()
        .map(|fault| format!("  {fault}"))
        .collect::<Vec<_>>()
        .join("\n")
}

impl Config {
    /// Keys of the design whose behaviour this version does not have; refused when they are set.
    pub const UNBUILT: [&'static str; 1] = policy::UNBUILT;

    /// Reads a file, and the environment on top of it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; its [`ConfigError::Faults`] has all of them.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(
            &text,
            path,
            std::env::vars_os().filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            }),
        )
    }

    /// Reads the text of a file that stands at `path`, and an environment on top of it.
    ///
    /// # Errors
    ///
    /// See [`Self::load`].
    pub fn parse(
        text: &str,
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // A double underscore also after the prefix: a Service named foreshock puts variables such as
        // FORESHOCK_PORT into every Pod of its namespace.
        let environment = environment
            .into_iter()
            .filter(|(name, _)| name.to_uppercase().starts_with("FORESHOCK__"));
        let environment = Environment::with_prefix("FORESHOCK")
            .prefix_separator("__")
            .separator("__")
            .source(Some(environment.collect()));
        let tree = config::Config::builder()
            .add_source(config::File::from_str(text, FileFormat::Toml))
            .add_source(environment)
            .build()
            .map_err(|error| ConfigError::Syntax {
                path: path.to_owned(),
                problem: error.to_string(),
            })?;
        let mut faults = Vec::new();
        let config = read(
            tree.cache,
            path.parent().unwrap_or(Path::new(".")),
            &mut faults,
        );
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Faults {
                path: path.to_owned(),
                faults,
            })
        }
    }

    /// The least `at_risk` of the policy and its pools.
    fn at_risk_min(&self) -> f64 {
        let pools = self.policy.pools.iter().map(|pool| &pool.rules);
        let all = std::iter::once(&self.policy.rules).chain(pools);
        all.map(|rules| rules.at_risk.as_f64()).fold(1.0, f64::min)
    }

    /// What a model has to fit, and what it may do.
    pub fn model_terms(&self) -> Terms {
        Terms {
            schema: Arc::clone(&self.schema),
            demands: Demands {
                at_risk: self.at_risk_min(),
                act_untrained: self.model.act_untrained,
                validation_age_max: self.model.validation_age_max,
                incident_cost: self.model.incident_cost,
                drift_warn: self.model.drift_warn,
                drift_alarm: self.model.drift_alarm,
            },
        }
    }

    /// Waiting times that are shorter than their defaults: shown wherever verdicts are.
    pub fn shortened(&self) -> Vec<Shortened> {
        let mut none = Vec::new();
        let mut section = Section::root(
            config::Value::from(config::Map::<String, config::Value>::new()),
            &mut none,
        );
        let (default, _) = policy::policy(&mut section, &mut 0);
        let times = |policy: &Policy| {
            [
                ("policy.confirm_for", policy.rules.confirm_for),
                ("policy.drain_after", policy.rules.drain_after),
                ("policy.recover_for", policy.rules.recover_for),
                ("policy.probation", policy.rules.probation),
                ("policy.new_node_age", policy.rules.new_node_age),
            ]
        };
        times(&self.policy)
            .into_iter()
            .zip(times(&default))
            .filter(|((_, value), (_, default))| value < default)
            .map(|((key, value), (_, default))| Shortened {
                key: key.to_owned(),
                value,
                default,
            })
            .collect()
    }
}

fn read(tree: config::Value, folder: &Path, faults: &mut Vec<Fault>) -> Config {
    let mut root = Section::root(tree, faults);
    let (listen, advertise) = root.table("listen", |section| {
        let text = section.text("address", "127.0.0.1:5000");
        let listen = text.parse().unwrap_or_else(|_| {
            section.fault(
                "address",
                format!("has to be an address with a port, such as 127.0.0.1:5000, got {text:?}"),
            );
            SocketAddr::from(([127, 0, 0, 1], 5000))
        });
        let advertise = section.optional("advertise");
        // The port may still be chosen; any will do to see whether the rest is one.
        let port = SocketAddr::new(listen.ip(), listen.port().max(1));
        if let Err(problem) = PeerUrl::advertised(advertise.as_deref(), port, false) {
            section.fault("advertise", problem);
        }
        (listen, advertise)
    });
    let web = root.table("auth", |section| auth(section, listen, folder));
    let log = root.table("log", |section| {
        let level = section.text("level", "info");
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&level) {
            section.fault(
                "level",
                format!("is no level such as \"info\" or \"foreshock=debug\": {error}"),
            );
        }
        Log {
            json: section.one_of("format", false, &[("text", false), ("json", true)]),
            level,
        }
    });
    let (prometheus, schema) = root.table("prometheus", |section| prometheus(section, folder));
    let alertmanager_url = root.table("alertmanager", |section| {
        section
            .optional("url")
            .filter(|url| valid_url(section, url))
    });
    let kubernetes = root.table("kubernetes", |section| Kubernetes {
        enabled: section.switch("enabled", true),
        kubeconfig: section.optional("kubeconfig").map(|path| folder.join(path)),
        instance: instance(section),
        namespace: section.optional("namespace"),
        node_selector: section.text("node_selector", ""),
    });
    let interval = root.table("cycle", |section| {
        let five_minutes = Duration::from_secs(300);
        let interval = section.duration(
            "interval",
            Duration::from_secs(15),
            Duration::from_secs(1),
            five_minutes,
        );
        if !five_minutes
            .as_millis()
            .is_multiple_of(interval.as_millis().max(1))
        {
            section.fault(
                "interval",
                "has to divide 5 minutes, so that history can be replayed on the same grid",
            );
        }
        interval
    });
    let model = root.table("model", |section| model(section, folder));
    let mut marks_per_second = 0;
    let (mut policy, pools) = root.table("policy", |section| {
        policy::policy(section, &mut marks_per_second)
    });
    let eviction_rate = root.table("eviction", |section| {
        policy::eviction(section, &mut policy.drain)
    });
    let alerts = root.table("alerts", policy::alerts);
    root.finish();

    policy.instance.clone_from(&kubernetes.instance);
    // A score is of use until the next but one is due, with the time that a slow answer may take.
    policy.score_age_max = prometheus.lag + 2 * interval + prometheus.timeout;
    Config {
        listen,
        advertise,
        web,
        log,
        prometheus,
        schema,
        alertmanager_url,
        kubernetes,
        interval,
        model,
        policy,
        pools,
        marks_per_second,
        eviction_rate,
        alerts,
    }
}

fn model(section: &mut Section<'_>, folder: &Path) -> Model {
    let model = Model {
        file: section.optional("file").map(|path| folder.join(path)),
        missing_max: section.number("missing_max", 0.3, 0.0, 1.0),
        act_untrained: section.switch("act_untrained", false),
        validation_age_max: section.duration("validation_age_max", 90 * DAY, DAY, 3_650 * DAY),
        incident_cost: section.number("incident_cost", 2.0, 0.01, 1e6),
        drift_warn: section.number("drift_warn", 0.2, 0.01, 100.0),
        drift_alarm: section.number("drift_alarm", 0.3, 0.01, 100.0),
    };
    let (warn, alarm) = (model.drift_warn, model.drift_alarm);
    if warn > alarm {
        let problem = format!("must not exceed `model.drift_alarm` ({alarm}), got {warn}");
        section.fault("drift_warn", problem);
    }
    model
}

fn auth(section: &mut Section<'_>, listen: SocketAddr, folder: &Path) -> WebOptions {
    let token = section
        .optional("bearer_token_file")
        .map(|path| folder.join(path));
    let user = section.optional("user");
    let password = section
        .optional("password_file")
        .map(|path| folder.join(path));
    let credentials = match (token, user, password) {
        (None, None, None) => None,
        (Some(token_file), None, None) => Some(Credentials::Bearer { token_file }),
        (None, Some(user), Some(password_file)) => Some(Credentials::Basic {
            user,
            password_file,
        }),
        (Some(_), ..) => {
            section.fault(
                "bearer_token_file",
                "goes without `auth.user` and `auth.password_file`",
            );
            None
        }
        (None, ..) => {
            section.fault("user", "and `auth.password_file` go together");
            None
        }
    };
    if credentials.is_none() && !listen.ip().is_loopback() {
        let problem = format!(
            "is needed because `listen.address` ({listen}) is not loopback: set it, or user and password_file"
        );
        section.fault("bearer_token_file", problem);
    }
    let tls = section.table("tls", |tls| {
        let cert = tls.optional("cert_file").map(|path| folder.join(path));
        let key = tls.optional("key_file").map(|path| folder.join(path));
        match (cert, key) {
            (Some(cert_file), Some(key_file)) => Some(TlsFiles {
                cert_file,
                key_file,
            }),
            (None, None) => None,
            _ => {
                tls.fault("cert_file", "and `auth.tls.key_file` go together");
                None
            }
        }
    });
    let hosts = section
        .texts("hosts", &[])
        .into_iter()
        .map(|host| host.to_lowercase())
        .collect();
    WebOptions {
        credentials,
        protect_reads: section.switch("protect_reads", false),
        hosts,
        tls,
        ..WebOptions::default()
    }
}

fn prometheus(section: &mut Section<'_>, folder: &Path) -> (PrometheusOptions, Arc<Schema>) {
    let default = PrometheusOptions::default();
    let (ms, hour) = (Duration::from_millis(100), Duration::from_secs(3600));
    let url = section.text("url", &default.url);
    valid_url(section, &url);
    let basic_auth = section.table("basic_auth", |basic| {
        match (basic.optional("user"), basic.optional("password_file")) {
            (Some(user), Some(password)) => Some(BasicAuth {
                user,
                password_file: folder.join(password),
            }),
            (None, None) => None,
            _ => {
                basic.fault(
                    "user",
                    "and `prometheus.basic_auth.password_file` go together",
                );
                None
            }
        }
    });
    let bearer_token_file = section
        .optional("bearer_token_file")
        .map(|path| folder.join(path));
    if basic_auth.is_some() && bearer_token_file.is_some() {
        section.fault("bearer_token_file", "goes without `prometheus.basic_auth`");
    }
    let options = PrometheusOptions {
        selector: section.text("selector", &default.selector),
        devices: section.text("devices", &default.devices),
        interfaces: section.text("interfaces", &default.interfaces),
        filesystems: section.text("filesystems", &default.filesystems),
        matchers: section.text("matchers", ""),
        stale_after: section.duration(
            "stale_after",
            default.stale_after,
            Duration::from_secs(1),
            hour,
        ),
        rate_window: section.duration(
            "rate_window",
            default.rate_window,
            Duration::from_secs(4),
            hour,
        ),
        lag: section.duration("lag", default.lag, Duration::ZERO, Duration::from_secs(600)),
        timeout: section.duration("timeout", default.timeout, ms, Duration::from_secs(300)),
        snapshot_timeout: section.duration(
            "snapshot_timeout",
            default.snapshot_timeout,
            ms,
            Duration::from_secs(600),
        ),
        concurrency: section.count("concurrency", 6, 1, 64) as usize,
        answer_bytes_max: section.count("answer_bytes_max", 64 << 20, 1 << 10, 1 << 30) as usize,
        headers: section.pairs("headers"),
        parameters: section.pairs("parameters"),
        bearer_token_file,
        basic_auth,
        ca_file: section.optional("ca_file").map(|path| folder.join(path)),
        cert_file: section.optional("cert_file").map(|path| folder.join(path)),
        key_file: section.optional("key_file").map(|path| folder.join(path)),
        url,
    };
    let schema = match section
        .optional("features_file")
        .map(|path| folder.join(path))
    {
        None => Schema::built_in(),
        Some(path) => match std::fs::read_to_string(&path) {
            Err(error) => {
                section.fault(
                    "features_file",
                    format!("{} cannot be read: {error}", path.display()),
                );
                Schema::built_in()
            }
            Ok(text) => Schema::parse(&text).unwrap_or_else(|error| {
                section.fault("features_file", format!("{}: {error}", path.display()));
                Schema::built_in()
            }),
        },
    };
    (options, Arc::new(schema))
}

fn valid_url(section: &mut Section<'_>, url: &str) -> bool {
    let fits = reqwest::Url::parse(url)
        .is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    if !fits {
        section.fault(
            "url",
            format!("has to be a URL such as http://127.0.0.1:9090, got {url:?}"),
        );
    }
    fits
}

/// The name of a Lease: a DNS label.
fn instance(section: &mut Section<'_>) -> String {
    let name = section.text("instance", "foreshock");
    let fits = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !fits {
        let problem = format!(
            "has to be a name of at most 63 small letters, digits and hyphens, got {name:?}"
        );
        section.fault("instance", problem);
    }
    name
}

#[cfg(test)]
mod tests;
