//! The two problems that every learner is given: rows that are drawn from a seed, with labels.
//!
//! *fleet*: what a Node's exporter reads, and a hazard that was written down by hand: products of
//! pressures, ratios that matter beyond a knee only, counters that are nearly always zero. Its
//! columns are named after the features that they imitate. *classification*: twelve informative
//! columns among forty, clusters at the corners of a cube, each stretched its own way; nothing of
//! it is like a Node. Both were written before any learner was tuned on them.

use foreshock::model::boost::unit;
use foreshock::model::learn::Slice;
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Columns of either problem.
pub(crate) const COLUMNS: usize = 40;

/// Which problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A hand-written hazard of Nodes; 2 % of the rows are positive.
    Fleet,
    /// Clusters in twelve dimensions; 3.5 % of the rows are positive.
    Classification,
}

/// Columns of the fleet that one exporter's collector reads, so that they go missing together.
pub(crate) const GROUPS: [(&str, std::ops::Range<usize>); 6] = [
    ("cpu", 0..6),
    ("memory", 6..12),
    ("disk", 12..20),
    ("network", 20..27),
    ("hardware", 27..32),
    ("rest", 32..40),
];

impl Problem {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Fleet, Self::Classification];

    /// Its name in figures.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Classification => "classification",
        }
    }

    /// Draws the slices of one seed, each of so many rows.
    pub(crate) fn draw<const N: usize>(self, seed: u64, rows: [usize; N]) -> [Slice; N] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ ((self as u64) << 32));
        match self {
            Self::Fleet => rows.map(|n| slice(n, || node(&mut rng))),
            Self::Classification => {
                let clusters = Clusters::draw(&mut rng);
                rows.map(|n| slice(n, || clusters.row(&mut rng)))
            }
        }
    }
}

fn slice(n: usize, mut row: impl FnMut() -> ([f64; COLUMNS], bool)) -> Slice {
    let mut values = Vec::with_capacity(n * COLUMNS);
    let mut labels = Vec::with_capacity(n);
    for _ in 0..n {
        let (row, label) = row();
        values.extend(row);
        labels.push(label);
    }
    let values = Array2::from_shape_vec((n, COLUMNS), values).expect("a whole row for each label");
    Slice { values, labels }
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * libm::log(1.0 - unit(rng))).sqrt();
    radius * libm::cos(std::f64::consts::TAU * unit(rng))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// What a value is worth beyond a knee, in units of `scale`.
fn beyond(value: f64, knee: f64, scale: f64) -> f64 {
    ((value - knee) / scale).clamp(0.0, 3.0)
}

/// A counter that is nearly always zero.
fn rare(rng: &mut ChaCha8Rng, share: f64, mean: f64) -> f64 {
    if unit(rng) < share {
        (1.0 - mean * libm::log(1.0 - unit(rng))).floor()
    } else {
        0.0
    }
}

/// One Node at one time, and whether it degrades.
fn node(rng: &mut ChaCha8Rng) -> ([f64; COLUMNS], bool) {
    // What is behind the metrics: work, memory, disks, network, heat.
    let [work, memory, disk, net, heat] = std::array::from_fn(|_| normal(rng));
    let spread = |rng: &mut ChaCha8Rng, centre: f64, width: f64| {
        libm::exp(libm::log(centre) + width * normal(rng))
    };
    let mut row = [0.0; COLUMNS];
    // CPU: used, load per core, pressure, iowait, steal, softirq.
    row[0] = sigmoid(work - 0.8 + 0.4 * normal(rng));
    row[1] = spread(rng, 0.7, 0.3) * libm::exp(0.6 * work);
    row[2] = sigmoid(1.3 * work - 2.5 + 0.6 * normal(rng));
    row[3] = sigmoid(1.2 * disk - 4.0 + 0.5 * normal(rng));
    row[4] = spread(rng, 0.002, 1.3);
    row[5] = spread(rng, 0.01, 0.6) * libm::exp(0.3 * net);
    // Memory: used, in an hour, pressure, swap, major faults, OOM kills.
    row[6] = sigmoid(0.9 * memory + 0.3);
    row[7] = (row[6] + 0.06 * normal(rng)).clamp(-0.2, 1.4);
    row[8] = sigmoid(1.6 * memory - 4.5 + 0.8 * normal(rng));
    row[9] = rare(rng, sigmoid(memory - 3.0), 60.0);
    row[10] = spread(rng, 3.0, 1.0) * libm::exp(0.8 * memory);
    row[11] = rare(rng, sigmoid(1.5 * memory - 5.5), 1.0);
    // Disk: busy, queue, await of reads and writes, pressure, used, in a day, read-only.
    row[12] = sigmoid(1.1 * disk - 0.7 + 0.4 * normal(rng));
    row[13] = spread(rng, 0.8, 0.5) * libm::exp(0.9 * disk);
    row[14] = spread(rng, 0.004, 0.7) * libm::exp(0.5 * disk);
    row[15] = spread(rng, 0.006, 0.7) * libm::exp(0.5 * disk);
    row[16] = sigmoid(1.4 * disk - 4.0 + 0.7 * normal(rng));
    row[17] = sigmoid(0.9 * normal(rng) + 0.2);
    row[18] = row[17] + 0.08 * normal(rng);
    row[19] = rare(rng, 0.003, 0.3);
    // Network: retransmits, timeouts, drops, errors, listen overflows, conntrack, probe.
    row[20] = spread(rng, 0.0008, 0.9) * libm::exp(0.7 * net);
    row[21] = spread(rng, 0.0001, 0.9) * libm::exp(0.5 * net);
    row[22] = spread(rng, 0.00005, 1.2);
    row[23] = rare(rng, 0.02, 4.0) * 1e-6;
    row[24] = rare(rng, sigmoid(net - 4.0), 6.0);
    row[25] = sigmoid(0.8 * normal(rng) - 1.2);
    row[26] = spread(rng, 0.0006, 0.5) * libm::exp(0.3 * net);
    // Hardware: temperature of the critical one, throttles, corrected and uncorrected errors, disks.
    row[27] = (0.62 + 0.07 * heat + 0.05 * work + 0.02 * normal(rng)).clamp(0.2, 1.1);
    row[28] = rare(rng, sigmoid(2.0 * heat - 5.0), 12.0);
    row[29] = rare(rng, 0.015, 20.0);
    row[30] = rare(rng, 0.0015, 0.4);
    row[31] = rare(rng, 0.002, 0.2);
    // The rest: reboots, flaps of the exporter, restarts of Pods, Pods, and four that mean nothing.
    row[32] = rare(rng, 0.01, 0.5);
    row[33] = rare(rng, 0.02, 0.8);
    row[34] = rare(rng, sigmoid(0.6 * memory - 2.5), 2.0);
    row[35] = sigmoid(0.6 * work + 0.6 * normal(rng));
    row[36] = normal(rng);
    row[37] = unit(rng);
    row[38] = spread(rng, 1_000.0, 0.5);
    row[39] = (8.0 * unit(rng)).floor();

    let hazard = 2.2 * beyond(row[8], 0.05, 0.1) * beyond(row[6], 0.75, 0.15)
        + 1.6 * beyond(row[14], 0.012, 0.015) * beyond(row[12], 0.55, 0.3)
        + 1.0 * beyond(row[16], 0.1, 0.2)
        + 1.3 * beyond(row[20], 0.004, 0.006)
        + 1.2 * beyond(row[27], 0.72, 0.1) * beyond(row[0], 0.4, 0.3)
        + 0.9 * beyond(row[18], 0.85, 0.08)
        + 0.9 * beyond(row[4], 0.02, 0.03) * beyond(row[1], 1.5, 1.5)
        + 1.6 * row[11].min(2.0)
        + 0.5 * beyond(row[29], 10.0, 20.0)
        + 2.5 * row[30].min(1.0)
        + 2.0 * row[31].min(1.0)
        + 1.8 * row[19].min(1.0)
        + 0.7 * row[32].min(3.0)
        + 0.4 * row[34].min(4.0);
    let label = unit(rng) < sigmoid(0.5 * hazard - 4.68);
    (row, label)
}

const INFORMATIVE: usize = 12;

/// Clusters of two classes, each at a corner of the cube and stretched in its own way.
struct Clusters {
    each: Vec<Cluster>,
    /// Where each of the columns stands.
    order: Vec<usize>,
}

struct Cluster {
    centre: [f64; INFORMATIVE],
    stretch: [[f64; INFORMATIVE]; INFORMATIVE],
    positive: bool,
}

impl Clusters {
    const OF_EACH_CLASS: usize = 3;
    /// Half an edge of the cube.
    const APART: f64 = 1.0;
    /// Rows whose label is drawn and not deserved.
    const FLIPPED: f64 = 0.01;

    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let each = (0..2 * Self::OF_EACH_CLASS).map(|number| Cluster {
            centre: std::array::from_fn(|_| {
                (2.0 * unit(rng)).floor().mul_add(2.0, -1.0) * Self::APART
            }),
            stretch: std::array::from_fn(|_| std::array::from_fn(|_| 2.0 * unit(rng) - 1.0)),
            positive: number % 2 == 1,
        });
        let each = each.collect();
        let mut order: Vec<usize> = (0..COLUMNS).collect();
        for i in (1..COLUMNS).rev() {
            order.swap(i, (unit(rng) * (i + 1) as f64) as usize);
        }
        Self { each, order }
    }

    fn row(&self, rng: &mut ChaCha8Rng) -> ([f64; COLUMNS], bool) {
        let positive = unit(rng) < 0.0302;
        let which = (unit(rng) * Self::OF_EACH_CLASS as f64) as usize;
        let cluster = &self.each[2 * which + usize::from(positive)];
        let draw: [f64; INFORMATIVE] = std::array::from_fn(|_| normal(rng));
        let mut row = [0.0; COLUMNS];
        for (place, at) in self.order.iter().enumerate() {
            row[*at] = if place < INFORMATIVE {
                let along = draw
                    .iter()
                    .zip(&cluster.stretch)
                    .map(|(x, to)| x * to[place]);
                cluster.centre[place] + along.sum::<f64>()
            } else {
                normal(rng)
            };
        }
        let label = if unit(rng) < Self::FLIPPED {
            unit(rng) < 0.5
        } else {
            cluster.positive
        };
        (row, label)
    }
}
