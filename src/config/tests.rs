use foreshock_core::decision::policy::{Limit, Reach};

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("foreshock.toml"), [])
}

#[track_caller]
fn refuses(text: &str, expected: &[&str]) {
    let error = parse(text)
        .expect_err("the configuration is wrong")
        .to_string();
    for expected in expected {
        assert!(error.contains(expected), "{expected:?} is not in:\n{error}");
    }
}

#[test]
fn an_empty_file_is_the_defaults_of_the_design() {
    let config = parse("").expect("defaults are valid");
    assert_eq!(config.policy.rules.reach, Reach::Observe);
    assert_eq!(config.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(config.policy.limits.tainted_max, Limit::Percent(10.0));
    assert_eq!(
        config.policy.rules.taint.to_string(),
        "degradation=true:NoSchedule"
    );
    assert!(config.shortened().is_empty());
    assert_eq!(config.model_terms().demands, Demands::default());
}

#[test]
fn a_model_is_held_to_the_least_threshold_of_all_pools() {
    let config = parse(
        r#"
        [[policy.pools]]
        name = "batch"
        selector = "pool=batch"
        at_risk = 0.4
        caution = 0.3
        recover_below = 0.3
        "#,
    );
    let config = config.expect("a pool may act sooner");
    assert_eq!(config.model_terms().demands.at_risk, 0.4);
}

#[test]
fn every_fault_is_reported_at_once_with_its_key() {
    refuses(
        r#"
        [policy]
        reach = "destroy"
        recover_below = 0.9
        confirm_for = 45
        taint = "degradation=true:NoExecute"
        [policy.limits]
        tainted_max = "lots"
        [cycle]
        interval = "7s"
        [prometheus]
        url = "localhost"
        serach = "x"
        [[alerts.rules]]
        match = ["alertname"]
        "#,
        &[
            "10 faults in the configuration of foreshock.toml",
            r#"policy.reach: has to be one of "observe", "label", "taint", "evict", got "destroy""#,
            "policy.recover_below: must not exceed `policy.at_risk` (0.65), got 0.9",
            "policy.confirm_for: has to be a time with its unit in quotes, such as \"45s\", got 45",
            "policy.taint: NoExecute is refused",
            "policy.limits.tainted_max: has to be a count",
            "cycle.interval: has to divide 5 minutes",
            "prometheus.url: has to be a URL such as http://127.0.0.1:9090, got \"localhost\"",
            "prometheus.serach: unknown key",
            "alerts.rules[0].match",
            "alerts.rules[0].floor: is missing",
        ],
    );
}

#[test]
fn a_misspelt_key_is_answered_with_the_one_that_was_meant() {
    refuses(
        "[policy]\nconfirm_fro = \"1m\"",
        &["policy.confirm_fro: unknown key; did you mean `confirm_for`?"],
    );
    refuses("[polcy]", &["polcy: unknown key; did you mean `policy`?"]);
}

#[test]
fn what_is_not_built_yet_is_refused_when_it_is_set() {
    refuses(
        "[policy]\ncondition = true",
        &["policy.condition", "not built into this version yet"],
    );
    parse("[policy]\nwindows = []\ncondition = false\n[eviction]\npace = \"budget\"")
        .expect("off is fine");
}

#[test]
fn single_replicas_are_scaled_up_only_where_that_is_asked_for() {
    let surge = |text: &str| parse(text).expect("valid").policy.drain.surge;
    assert!(!surge(""));
    assert!(!surge("[eviction]\nsurge = false"));
    assert!(surge("[eviction]\nsurge = true"));
}

#[test]
fn a_pool_has_the_rules_of_the_policy_but_for_what_it_overrides() {
    let config = parse(
        "[policy]\nreach = \"evict\"\nconfirm_for = \"30s\"\n\
         windows = [{ days = [\"Sat\"], from = \"22:00\", to = \"05:00\", time_zone = \"Europe/Berlin\" }]\n\
         [policy.limits]\nzone_tainted_max = \"5%\"\n\
         [[policy.pools]]\nname = \"gpu\"\nselector = \"pool=gpu\"\nreach = \"taint\"\ncaution_taint = \"\"\n\
         [policy.pools.limits]\ntainted_max = 1\n\
         [[policy.pools]]\nname = \"rest\"\nselector = \"!spot\"\nwindows = []",
    )
    .expect("valid");
    let [gpu, rest] = config.policy.pools.as_slice() else {
        panic!("{:?}", config.policy.pools);
    };
    assert_eq!(gpu.rules.reach, Reach::Taint);
    assert_eq!(gpu.rules.caution_taint, None);
    assert_eq!(gpu.rules.confirm_for, Duration::from_secs(30));
    assert_eq!(gpu.rules.windows, config.policy.rules.windows);
    assert_eq!(gpu.rules.windows.len(), 1);
    assert_eq!(gpu.limits.tainted_max, Some(Limit::Count(1)));
    assert_eq!(gpu.limits.draining_max, None);
    assert_eq!(rest.rules.reach, Reach::Evict);
    assert!(rest.rules.windows.is_empty() && rest.rules.caution_taint.is_some());
    assert_eq!(
        config.policy.limits.zone_tainted_max,
        Some(Limit::Percent(5.0))
    );
    let labels =
        |text: &str| std::collections::BTreeMap::from([(text.to_owned(), "gpu".to_owned())]);
    assert_eq!(config.pools.pool_of(&labels("pool")), Some("gpu"));
    assert_eq!(config.pools.pool_of(&labels("other")), Some("rest"));
    assert_eq!(config.pools.pool_of(&labels("spot")), None);
}

#[test]
fn other_addresses_than_loopback_need_credentials() {
    refuses(
        "[listen]\naddress = \"0.0.0.0:5000\"",
        &["auth.bearer_token_file: is needed because"],
    );
    parse("[listen]\naddress = \"0.0.0.0:5000\"\n[auth]\nbearer_token_file = \"token\"")
        .expect("with a token it is fine");
}

#[test]
fn the_environment_overrides_the_file_and_service_links_do_not_disturb() {
    let environment = [
        ("FORESHOCK__POLICY__REACH", "taint"),
        ("FORESHOCK__POLICY__LIMITS__TAINTED_MAX", "2"),
        ("FORESHOCK__MODEL__ACT_UNTRAINED", "true"),
        ("FORESHOCK__POLICY__AT_RISK", "0.7"),
        ("FORESHOCK_PORT", "tcp://10.0.0.1:5000"),
        ("FORESHOCK_SERVICE_HOST", "10.0.0.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::parse(
        "[policy]\nreach = \"observe\"",
        Path::new("x.toml"),
        environment,
    )
    .expect("valid");
    assert_eq!(config.policy.rules.reach, Reach::Taint);
    assert_eq!(config.policy.limits.tainted_max, Limit::Count(2));
    assert!(config.model.act_untrained);
    assert!((config.policy.rules.at_risk.as_f64() - 0.7).abs() < 1e-12);
}

#[test]
fn shortened_times_are_told_with_their_defaults() {
    let config = parse("[policy]\nconfirm_for = \"2s\"\nrecover_for = \"20m\"").expect("valid");
    let shortened = config.shortened();
    assert_eq!(shortened.len(), 1);
    assert_eq!(shortened[0].key, "policy.confirm_for");
    assert_eq!(shortened[0].default, Duration::from_secs(45));
}

#[test]
fn broken_toml_says_where() {
    let error = parse("[policy\nreach").expect_err("no TOML").to_string();
    assert!(
        error.contains("not valid TOML") && error.contains("line 1"),
        "{error}"
    );
}
