//! The cases of `docs/cases.md` have the tests that it names, and what `docs/beside.md` tells others to
//! configure fits the program.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the package") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

/// Names of the functions with a test attribute, and how many have each.
fn tests() -> BTreeMap<String, usize> {
    let mut files = Vec::new();
    for folder in ["src", "core", "tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    let mut names = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let mut is_test = false;
        for line in text.lines().map(str::trim_start) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if is_test && let Some((_, rest)) = line.split_once("fn ") {
                let name = rest.split('(').next().expect("a split has a first part");
                *names.entry(name.to_owned()).or_default() += 1;
                is_test = false;
            }
        }
    }
    names
}

/// Sections with their cases, and the tests of each.
fn cases() -> BTreeMap<String, Vec<(String, Vec<String>)>> {
    let mut sections: BTreeMap<String, Vec<(String, Vec<String>)>> = BTreeMap::new();
    let mut section = String::new();
    for line in read("docs/cases.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        } else if let Some(case) = line.strip_prefix("- ") {
            let cases = sections.entry(section.clone()).or_default();
            cases.push((case.to_owned(), Vec::new()));
        } else if let Some(name) = line.trim_start().strip_prefix("→ ") {
            let cases = sections.get_mut(&section).expect("a case comes first");
            let (_, tests) = cases.last_mut().expect("a case comes first");
            tests.push(name.trim_matches('`').to_owned());
        }
    }
    sections
}

#[test]
fn every_case_has_the_tests_that_the_table_names() {
    let tests = tests();
    let sections = cases();
    let counts: Vec<(&str, usize)> = sections
        .iter()
        .map(|(section, cases)| (section.as_str(), cases.len()))
        .collect();
    assert_eq!(
        counts,
        [
            ("Calling eviction", 20),
            ("Choosing pods", 16),
            ("Control", 13),
            ("Grace and deletion", 6),
            ("Marks on the node", 13)
        ]
    );
    for (case, named) in sections.values().flatten() {
        assert!(!named.is_empty(), "no test: {case}");
        for name in named {
            assert_eq!(
                tests.get(name),
                Some(&1),
                "{case}: `{name}` has to name one test"
            );
        }
    }
}

/// The YAML examples of a page, parsed.
fn examples(page: &str) -> Vec<Value> {
    let text = read(page);
    text.split("```yaml\n")
        .skip(1)
        .map(|rest| {
            let yaml = rest.split("```").next().expect("a split has a first part");
            serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{page}: {error}\n{yaml}"))
        })
        .collect()
}

#[test]
fn the_examples_for_other_controllers_name_the_taint_that_is_the_default() {
    let settings: toml::Value = toml::from_str(&read("config/foreshock.toml")).expect("TOML");
    let keys: BTreeSet<&str> = ["taint", "caution_taint"]
        .iter()
        .filter_map(|name| settings["policy"][name].as_str()?.split('=').next())
        .collect();
    assert_eq!(keys.len(), 1, "one key for both taints: {keys:?}");
    let key = *keys.first().expect("there is one");
    let [autoscaler, descheduler, daemon_set] = &examples("docs/beside.md")[..] else {
        panic!("three examples")
    };
    assert_eq!(autoscaler[0], format!("--status-taint={key}"));
    let profile = &descheduler["profiles"][0];
    let plugin = &profile["pluginConfig"][0];
    assert_eq!(plugin["name"], "RemovePodsViolatingNodeTaints");
    assert_eq!(plugin["args"]["excludedTaints"][0], key);
    assert_eq!(
        profile["plugins"]["deschedule"]["enabled"][0],
        plugin["name"]
    );
    let toleration = &daemon_set["tolerations"][0];
    assert_eq!(toleration["key"], key);
    assert_eq!(toleration["operator"], "Exists");
    assert!(toleration["effect"].is_null(), "every effect, both taints");
}

#[test]
fn nobody_is_told_that_a_taint_alone_moves_running_pods() {
    let settings: toml::Value = toml::from_str(&read("config/foreshock.toml")).expect("TOML");
    for name in ["taint", "caution_taint"] {
        let taint = settings["policy"][name].as_str().expect("it has a default");
        assert!(taint.ends_with("NoSchedule"), "{name} is {taint}");
    }
    // The program refuses the one effect that would delete running Pods.
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(
        file.path(),
        "[policy]\ntaint = \"degradation=true:NoExecute\"\n",
    )
    .expect("it can be written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_foreshock"))
        .args(["run", "--config"])
        .arg(file.path())
        .output()
        .expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("policy.taint: NoExecute is refused"),
        "{said}"
    );
    // And no page speaks of it but to say so.
    for page in [
        "README.md",
        "docs/beside.md",
        "deploy/README.md",
        "config/foreshock.toml",
    ] {
        for line in read(page).lines().filter(|line| line.contains("NoExecute")) {
            assert!(
                line.contains("never") || line.contains("refused"),
                "{page}: {line}"
            );
        }
    }
}
