//! What must not be answered Node by Node, for six hours each; and that it goes on carefully and by
//! itself when the cause is gone. Judged from the outside; the plots are in `target/tmp`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use foreshock_core::decision::policy::Reach;
use foreshock_core::node::NodeName;
use foreshock_core::record::{ActingAlert, RecordedPhase};
use foreshock_core::time::{after, since};
use jiff::Timestamp;

use super::judge::{Rules, Share, What};
use super::simulation::{Options, Simulation, rules, start};
use super::support;
use super::weather::Incident;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// As long as each cause lasts.
const LASTS: Duration = Duration::from_secs(6 * 3600);
/// Alertmanager's repeat_interval.
const REPEAT: Duration = Duration::from_secs(10 * 60);

/// How it stood at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    at_risk: usize,
    tainted: usize,
    draining: usize,
    storm: bool,
}

/// What is drawn: its name, its colour, and where it is.
type Curve = (&'static str, &'static str, fn(&Sample) -> usize);

/// A cluster in which only happens what a test says.
struct Scene {
    simulation: Simulation,
    alerts: BTreeMap<NodeName, ActingAlert>,
    sent_at: Timestamp,
    samples: Vec<Sample>,
}

impl Scene {
    fn new(nodes: usize) -> Self {
        let options = Options {
            nodes,
            zones: 3,
            kinds: BTreeSet::new(),
            rules: Rules {
                tainted_max: Share::Percent(15),
                draining_max: Share::Count(8),
                drains_per_hour: 60,
                ..rules()
            },
            ..Options::drawn(1)
        };
        let mut simulation = Simulation::new(&options);
        simulation.weather.be_quiet();
        let mut scene = Self {
            simulation,
            alerts: BTreeMap::new(),
            sent_at: start(),
            samples: Vec::new(),
        };
        scene.run(10 * MINUTE);
        scene
    }

    fn now(&self) -> Timestamp {
        self.simulation.cluster.now
    }

    fn degrade(&mut self, node: &NodeName) {
        let incident = Incident {
            number: 0,
            level: 0.9,
            wobble: 0.02,
            by_load: false,
        };
        self.simulation
            .weather
            .incidents
            .insert(node.clone(), incident);
    }

    fn heal(&mut self, node: &NodeName) {
        self.simulation.weather.incidents.remove(node);
    }

    fn fire(&mut self, node: &NodeName, name: &str) {
        let alert = ActingAlert {
            fingerprint: format!("{name}-{node}"),
            name: name.to_owned(),
            starts_at: self.now(),
            floor: support::risk(0.9),
            reach: Reach::Evict,
            expires_at: after(self.now(), 4 * REPEAT),
        };
        self.alerts.insert(node.clone(), alert);
        self.sent_at = Timestamp::UNIX_EPOCH;
    }

    fn resolve(&mut self, node: &NodeName) {
        if let Some(alert) = self.alerts.remove(node) {
            let Simulation { process, judge, .. } = &mut self.simulation;
            process.resolved(node, &alert.fingerprint, alert.starts_at, judge);
        }
    }

    fn run(&mut self, long: Duration) {
        let end = after(self.now(), long);
        while self.now() < end {
            if since(self.sent_at, self.now()) >= REPEAT {
                self.sent_at = self.now();
                let Simulation { process, judge, .. } = &mut self.simulation;
                for (node, alert) in &self.alerts {
                    let alert = ActingAlert {
                        expires_at: after(self.sent_at, 4 * REPEAT),
                        ..alert.clone()
                    };
                    process.alert(node, alert, judge);
                }
            }
            self.simulation.tick(end);
            assert_eq!(self.simulation.judge.violations, []);
            self.samples.push(Sample {
                at: since(start(), self.now()),
                at_risk: self.simulation.judge.at_risk_now(),
                tainted: self.simulation.judge.tainted_now(),
                draining: self.simulation.judge.draining(),
                storm: self.simulation.process.storm(),
            });
        }
    }

    /// Goes on until then at the latest.
    fn run_while(&mut self, limit: Duration, goes_on: impl Fn(&Self) -> bool) {
        let end = after(self.now(), limit);
        while goes_on(self) {
            assert!(self.now() < end, "it takes longer than {limit:?}");
            self.run(Duration::from_secs(30));
        }
    }

    fn phase(&self, node: &NodeName) -> Option<RecordedPhase> {
        let record = self.simulation.cluster.nodes[node].record.ours();
        record.map(|record| record.phase)
    }

    fn count(&self, what: What, from: Timestamp) -> usize {
        let log = self.simulation.judge.log.iter();
        log.filter(|(at, _, did)| *did == what && *at >= from)
            .count()
    }

    /// How many Nodes were drained together, again and again, since then.
    fn widths(&self, from: Timestamp) -> Vec<usize> {
        let mut widths: Vec<usize> = Vec::new();
        let mut open = 0_usize;
        for (_, _, what) in self
            .simulation
            .judge
            .log
            .iter()
            .filter(|(at, ..)| *at >= from)
        {
            match what {
                What::DrainBegun => {
                    match widths.last_mut().filter(|_| open > 0) {
                        Some(width) => *width += 1,
                        None => widths.push(1),
                    }
                    open += 1;
                }
                What::Drained => open = open.saturating_sub(1),
                What::Tainted | What::Released => {}
            }
        }
        widths
    }

    fn names(&self) -> Vec<NodeName> {
        self.simulation.cluster.nodes.keys().cloned().collect()
    }

    /// The course of it: a line for each minute in which something changed, and each hour; and as a
    /// picture.
    fn plot(&self, name: &str) {
        let (mut said, mut shown) = (None, None);
        println!("{name}: S storm, # draining, + tainted, . at risk");
        for sample in &self.samples {
            let minute = sample.at.as_secs() / 60;
            let now = (sample.tainted, sample.draining, sample.storm);
            if said == Some(minute) || (shown == Some(now) && !minute.is_multiple_of(60)) {
                continue;
            }
            (said, shown) = (Some(minute), Some(now));
            let rest = sample.tainted.saturating_sub(sample.draining);
            let at_risk = sample.at_risk.saturating_sub(sample.tainted);
            println!(
                "{:>3}:{:02} {} {}{}{}",
                minute / 60,
                minute % 60,
                if sample.storm { 'S' } else { ' ' },
                "#".repeat(sample.draining),
                "+".repeat(rest),
                ".".repeat(at_risk),
            );
        }
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.svg"));
        std::fs::write(&path, self.svg(name)).expect("target is there to be written to");
        println!("{name}: {}", path.display());
    }

    fn svg(&self, name: &str) -> String {
        let (wide, high, left) = (900.0, 300.0, 40.0);
        let end = self
            .samples
            .last()
            .map_or(1.0, |sample| sample.at.as_secs_f64());
        let most = self
            .samples
            .iter()
            .map(|sample| sample.at_risk.max(sample.tainted))
            .max();
        #[expect(clippy::cast_precision_loss, reason = "a number of Nodes")]
        let y =
            |count: usize| high - count as f64 / most.unwrap_or(1).max(1) as f64 * (high - 30.0);
        let x = |at: Duration| left + at.as_secs_f64() / end * (wide - left);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {}\" font-family=\"sans-serif\" font-size=\"11\">\n<title>{name}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            high + 40.0
        );
        for pair in self.samples.windows(2).filter(|pair| pair[0].storm) {
            let (from, to) = (x(pair[0].at), x(pair[1].at));
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{high}\" fill=\"#f3e3c3\"/>",
                to - from
            );
        }
        let curves: [Curve; 3] = [
            ("at risk", "#999", |sample| sample.at_risk),
            ("tainted", "#c60", |sample| sample.tainted),
            ("draining", "#06c", |sample| sample.draining),
        ];
        for (place, (label, colour, count)) in curves.iter().enumerate() {
            let mut line = String::new();
            let mut before = None;
            for sample in &self.samples {
                let count = count(sample);
                if let Some(before) = before.filter(|before| *before != count) {
                    let _ = write!(line, "{:.1},{:.1} ", x(sample.at), y(before));
                }
                if before != Some(count) {
                    let _ = write!(line, "{:.1},{:.1} ", x(sample.at), y(count));
                }
                before = Some(count);
            }
            let _ = write!(line, "{wide},{:.1}", y(before.unwrap_or(0)));
            let _ = writeln!(
                svg,
                "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
            );
            #[expect(clippy::cast_precision_loss, reason = "one of three")]
            let at = left + place as f64 * 120.0;
            let _ = writeln!(
                svg,
                "<text x=\"{at}\" y=\"{}\" fill=\"{colour}\">{label}</text>",
                high + 30.0
            );
        }
        for hour in 0..=(end / 3600.0) as u32 {
            let at = x(Duration::from_secs(u64::from(hour) * 3600));
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{}\">{hour} h</text>",
                high + 14.0
            );
        }
        for count in [0, most.unwrap_or(0)] {
            let _ = writeln!(
                svg,
                "<text x=\"4\" y=\"{:.1}\">{count}</text>",
                y(count) + 4.0
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// A cause, of which 15 truly bad Nodes remain: nothing is begun while it lasts, healthy Nodes are
/// given back all the same, and afterwards it goes on by itself, one, two, four and eight at a time.
fn storm(
    name: &str,
    begins: impl Fn(&mut Scene, &[NodeName]),
    ends: impl Fn(&mut Scene, &[NodeName]),
) {
    let mut scene = Scene::new(100);
    let names = scene.names();
    // The last Node was drained before, and turns well in the middle of the storm.
    let (others, before) = (&names[..99], &names[99]);
    scene.degrade(before);
    scene.run_while(HOUR, |scene| {
        scene.phase(before) != Some(RecordedPhase::Drained)
    });
    let began = scene.now();
    begins(&mut scene, others);
    scene.run(30 * MINUTE);
    assert!(scene.simulation.process.storm(), "{name} is a storm");
    scene.heal(before);
    scene.run(LASTS - 30 * MINUTE);
    assert!(
        scene.simulation.process.storm(),
        "{name} lasts as long as its cause"
    );
    // The first Node of a rollout is marked before there are three to compare; it is not drained.
    let marked = scene.count(What::Tainted, began);
    assert!(marked <= usize::from(name == "exporter-upgrade"), "{name}");
    assert_eq!(scene.count(What::DrainBegun, began), 0, "{name}");
    assert_eq!(
        scene.count(What::Released, began),
        1,
        "{name}: what is well is given back"
    );

    let over = scene.now();
    ends(&mut scene, others);
    let bad = &others[..15];
    for node in bad {
        scene.degrade(node);
    }
    scene.run_while(4 * HOUR, |scene| {
        bad.iter()
            .any(|node| scene.phase(node) != Some(RecordedPhase::Drained))
    });
    let widths = scene.widths(over);
    if marked == 0 {
        assert_eq!(widths, [1, 2, 4, 8], "{name}");
    } else {
        // The one that has waited with its taint is drained a minute before those that get one now.
        assert_eq!(widths, [1, 2, 4, 1, 7], "{name}");
    }
    for node in bad {
        scene.heal(node);
    }
    scene.run(HOUR);
    scene.plot(&format!("storm-{name}"));
    assert_eq!(
        scene.count(What::Released, over),
        15,
        "{name}: everything is given back"
    );
    scene.simulation.judge.settled(&scene.simulation.cluster);
    assert_eq!(scene.simulation.judge.violations, [], "{name}");
}

#[test]
fn forty_per_cent_of_the_nodes_in_one_minute() {
    let begins = |scene: &mut Scene, nodes: &[NodeName]| {
        for node in nodes[..40].chunks(20) {
            node.iter().for_each(|node| scene.degrade(node));
            scene.run(MINUTE / 2);
        }
    };
    storm("forty-per-cent", begins, |scene, nodes| {
        nodes.iter().for_each(|node| scene.heal(node));
    });
}

#[test]
fn a_zone_is_lost() {
    let lost = |scene: &Scene| -> Vec<NodeName> {
        let nodes = scene.simulation.cluster.nodes.values();
        nodes
            .filter(|node| node.zone.as_deref() == Some("zone-1"))
            .map(|node| node.id.name.clone())
            .collect()
    };
    let begins = |scene: &mut Scene, _: &[NodeName]| {
        for node in lost(scene) {
            scene
                .simulation
                .cluster
                .change(&node, |node| node.ready = false);
            scene.fire(&node, "KubeNodeNotReady");
        }
    };
    storm("zone-lost", begins, |scene, _| {
        for node in lost(scene) {
            scene
                .simulation
                .cluster
                .change(&node, |node| node.ready = true);
            scene.resolve(&node);
        }
    });
}

#[test]
fn an_alert_rule_is_bad() {
    let begins = |scene: &mut Scene, nodes: &[NodeName]| {
        nodes[..60]
            .iter()
            .for_each(|node| scene.fire(node, "BadRule"));
    };
    storm("bad-rule", begins, |scene, nodes| {
        nodes.iter().for_each(|node| scene.resolve(node));
    });
}

#[test]
fn a_model_is_bad() {
    let begins = |scene: &mut Scene, nodes: &[NodeName]| {
        let until = after(scene.now(), LASTS);
        scene.simulation.weather.bad_model = Some((until, nodes.iter().cloned().collect()));
    };
    storm("bad-model", begins, |scene, _| {
        scene.simulation.weather.bad_model = None
    });
}

#[test]
fn an_exporter_is_upgraded_everywhere() {
    let begins = |scene: &mut Scene, nodes: &[NodeName]| {
        // At no time do many turn at risk at once: 15 within the five minutes, of 100.
        for node in nodes {
            scene
                .simulation
                .process
                .exporters
                .insert(node.clone(), "1.12.0".into());
            scene.degrade(node);
            scene.run(MINUTE / 3);
        }
    };
    storm("exporter-upgrade", begins, |scene, nodes| {
        nodes.iter().for_each(|node| scene.heal(node));
    });
}

#[test]
fn one_bad_node_of_few_is_acted_on() {
    for count in [3, 4, 10] {
        let mut scene = Scene::new(count);
        let node = scene.names()[1].clone();
        scene.degrade(&node);
        scene.run_while(30 * MINUTE, |scene| {
            scene.phase(&node) != Some(RecordedPhase::Drained)
        });
        scene.heal(&node);
        scene.run_while(30 * MINUTE, |scene| {
            scene.phase(&node) != Some(RecordedPhase::Clear)
        });
        assert_eq!(scene.simulation.judge.seen.taints, 1, "of {count} Nodes");
    }
}

#[test]
fn an_hour_without_prometheus_changes_nothing_whatever_is_resolved_meanwhile() {
    let mut scene = Scene::new(20);
    let names = scene.names();
    let (sick, on_fire, turning) = (&names[0], &names[1], &names[2]);
    scene.simulation.process.policy.limits.tainted_max =
        foreshock_core::decision::policy::Limit::Count(3);
    scene.degrade(sick);
    scene.fire(on_fire, "NodeOnFire");
    scene.run_while(30 * MINUTE, |scene| {
        [sick, on_fire]
            .iter()
            .any(|node| scene.phase(node) != Some(RecordedPhase::Drained))
    });
    // The one turns well and the other at risk while nobody can see it.
    let gone = scene.now();
    scene
        .simulation
        .weather
        .prometheus_is_gone_until(after(gone, HOUR));
    scene.heal(sick);
    scene.degrade(turning);
    scene.run(5 * MINUTE);
    // A dying Prometheus fires nothing, which Alertmanager takes for an end.
    scene.resolve(on_fire);
    let quiet = scene.simulation.judge.marks;
    scene.run(HOUR - 5 * MINUTE);
    assert_eq!(scene.count(What::Released, gone), 0);
    assert_eq!(scene.count(What::Tainted, gone), 0);
    // The record of the alert that ended follows it; nothing else is written.
    assert!(
        scene.simulation.judge.marks - quiet <= 1,
        "{} marks",
        scene.simulation.judge.marks - quiet
    );
    for node in &names {
        let band = scene.simulation.process.band(node);
        assert_eq!(band, Some(foreshock_core::risk::Band::Unknown), "{node}");
    }
    // Back again, and everything goes its way.
    scene.run(30 * MINUTE);
    assert_eq!(scene.phase(sick), Some(RecordedPhase::Clear));
    assert_eq!(scene.phase(on_fire), Some(RecordedPhase::Clear));
    assert_eq!(scene.phase(turning), Some(RecordedPhase::Drained));
}
