//! How long drains take, beside `kubectl drain` and beside the limit; how many evictions a second; memory.
//! `tests/drains` runs this.

mod bulk;
#[allow(dead_code, reason = "its tests are run by the binary `it`")]
mod limit;
mod pairs;
mod scene;
#[allow(
    unused_imports,
    reason = "its own tests belong to the other binary that has it"
)]
#[path = "../it/support/mod.rs"]
mod support;

use std::process::ExitCode;

use pairs::{Layout, Pair, median};
use scene::Scene;

/// Pairs of drains for each layout; fewer prove nothing.
const PAIRS: usize = 10;
/// `eviction.rate` where nothing is configured.
const RATE_DEFAULT: usize = 20;

/// What is to be run.
struct Choice {
    pairs: usize,
    only: Option<String>,
}

fn main() -> ExitCode {
    let mut choice = Choice {
        pairs: PAIRS,
        only: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => choice.pairs = 2,
            "--pairs" => match arguments.next().and_then(|count| count.parse().ok()) {
                Some(count @ 1..) => choice.pairs = count,
                Some(0) | None => return unusable("--pairs needs a number above 0"),
            },
            "--only" => match arguments.next() {
                Some(name) => choice.only = Some(name),
                None => return unusable("--only needs a name"),
            },
            other => return unusable(&format!("{other}: no such argument")),
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let mut verdict = Verdict::default();
    runtime.block_on(async {
        side_by_side(&choice, &mut verdict).await;
        in_bulk(&choice, &mut verdict).await;
    });
    verdict.end()
}

fn unusable(what: &str) -> ExitCode {
    println!("drains: {what}; --quick, --pairs N, --only pdb|budget10|plain|memory|throughput");
    ExitCode::from(2)
}

impl Choice {
    fn has(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

/// The figures, and whether each is within its bound.
#[derive(Default)]
struct Verdict {
    figures: Vec<(String, f64)>,
    broken: Vec<String>,
}

impl Verdict {
    fn at_most(&mut self, name: &str, value: f64, bound: f64) {
        self.judge(name, value, value <= bound, &format!("at most {bound}"));
    }

    fn at_least(&mut self, name: &str, value: f64, bound: f64) {
        self.judge(name, value, value >= bound, &format!("at least {bound}"));
    }

    fn judge(&mut self, name: &str, value: f64, kept: bool, bound: &str) {
        println!(
            "{name}: {value:.3}, {bound}: {}",
            if kept { "kept" } else { "BROKEN" }
        );
        self.figures.push((name.to_owned(), value));
        if !kept {
            self.broken
                .push(format!("{name} is {value:.3}, and has to be {bound}"));
        }
    }

    fn end(self) -> ExitCode {
        for (name, value) in &self.figures {
            support::figure(name, format_args!("{value:.3}"));
        }
        for broken in &self.broken {
            println!("drains: {broken}");
        }
        if self.figures.is_empty() {
            println!("drains: nothing was run");
        }
        if self.broken.is_empty() && !self.figures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// kubectl and foreshock in turns.
async fn side_by_side(choice: &Choice, verdict: &mut Verdict) {
    let layouts: Vec<Layout> = Layout::ALL
        .into_iter()
        .filter(|layout| choice.has(layout.name()))
        .collect();
    if layouts.is_empty() {
        return;
    }
    let mut scene = Scene::start(3, "").await;
    let mut limit_worst: f64 = 0.0;
    for layout in layouts {
        let mut all = Vec::new();
        for round in 1..=choice.pairs {
            let pair = pairs::pair(&mut scene, layout, round).await;
            println!(
                "{} {round}: kubectl {:.2} s, foreshock {:.2} s, limit {:.2} s",
                layout.name(),
                pair.kubectl.as_secs_f64(),
                pair.foreshock.as_secs_f64(),
                pair.fastest.as_secs_f64()
            );
            all.push(pair);
        }
        let of = |time: fn(&Pair) -> f64| median(all.iter().map(time));
        let kubectl = of(|pair| pair.kubectl.as_secs_f64());
        let foreshock = of(|pair| pair.foreshock.as_secs_f64());
        let limit = of(|pair| pair.foreshock.as_secs_f64() / pair.fastest.as_secs_f64());
        println!(
            "{}: {} pairs, medians: kubectl {kubectl:.2} s, foreshock {foreshock:.2} s, {limit:.3} of the limit",
            layout.name(),
            all.len()
        );
        let figure = format!("drain_{}_ratio", layout.name());
        verdict.at_most(&figure, foreshock / kubectl, layout.ratio_max());
        limit_worst = limit_worst.max(limit);
    }
    verdict.at_most("drain_limit_ratio", limit_worst, 1.15);
    scene.watcher.assert_budgets_kept();
    at_default_rate(&scene, verdict);
    never_rejected(&scene, verdict).await;
}

/// 500 Pods on one Node; 1,000 over 20.
async fn in_bulk(choice: &Choice, verdict: &mut Verdict) {
    if choice.has("memory") {
        let mut scene = Scene::start(6, "").await;
        let grown = bulk::memory(&mut scene).await;
        verdict.at_most("drain_500_pods_rss_mib", grown, 10.0);
        at_default_rate(&scene, verdict);
    }
    if !choice.has("throughput") {
        return;
    }
    let mut scene = Scene::start(20, "").await;
    bulk::at_default_rate(&mut scene).await;
    at_default_rate(&scene, verdict);
    scene.restart_with("[eviction]\nrate = 200\n").await;
    let rate = bulk::throughput(&mut scene).await;
    verdict.at_least("evictions_per_second", rate, 50.0);
    never_rejected(&scene, verdict).await;
}

/// Every second of everything that was evicted so far, at the default rate.
fn at_default_rate(scene: &Scene, verdict: &mut Verdict) {
    let most = bulk::most_in_a_second(&scene.evictions);
    println!(
        "default rate: {} requests, at most {most} in any second, {RATE_DEFAULT} allowed",
        scene.evictions.len()
    );
    if most > RATE_DEFAULT {
        verdict.broken.push(format!(
            "{most} evictions within a second, {RATE_DEFAULT} are allowed"
        ));
    }
}

async fn never_rejected(scene: &Scene, verdict: &mut Verdict) {
    // A sum of nothing is a negative zero.
    let rejected = scene.rejected().await.abs();
    println!("priority and fairness: {rejected} requests turned away");
    if rejected > 0.0 {
        verdict.broken.push(format!(
            "{rejected} requests turned away by priority and fairness"
        ));
    }
}
