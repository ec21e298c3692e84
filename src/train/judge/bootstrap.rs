//! How sure a difference of costs is: a paired bootstrap over incidents.
//!
//! Rows are not drawn, since those before one incident say the same thing many times over. Drawn are
//! incidents, each with the drains that averted it, and, since needless drains belong to no incident, the
//! days of Nodes with the needless drains on them. Both sides of a comparison get the same draws.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::super::sample::below;

/// Draws of a bootstrap: the ends of a 95 % interval are the 50th from either side.
pub const DRAWS: usize = 2_000;

/// The difference between two ways to act, by unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// What each incident costs more.
    pub by_incident: Vec<f64>,
    /// What each day of a Node costs more; days that are not here cost nothing more.
    pub by_day: Vec<(u32, f64)>,
}

impl Difference {
    /// The difference as it was.
    pub fn total(&self) -> f64 {
        self.by_incident.iter().sum::<f64>() + self.by_day.iter().map(|day| day.1).sum::<f64>()
    }
}

/// The 95 % interval of each difference's total, with `n_days` days of Nodes in all. The same seed and
/// differences give the same intervals.
pub fn intervals(differences: &[Difference], n_days: usize, seed: u64) -> Vec<(f64, f64)> {
    let n_incidents = differences
        .iter()
        .map(|one| one.by_incident.len())
        .max()
        .unwrap_or(0);
    // Most days cost nothing on either side: those that do are numbered anew.
    let mut busy: Vec<u32> = differences
        .iter()
        .flat_map(|one| one.by_day.iter().map(|day| day.0))
        .collect();
    busy.sort_unstable();
    busy.dedup();
    let mut dense = vec![vec![0.0; busy.len()]; differences.len()];
    for (one, dense) in differences.iter().zip(&mut dense) {
        for (day, cost) in &one.by_day {
            if let Ok(place) = busy.binary_search(day) {
                dense[place] += cost;
            }
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut totals = vec![Vec::with_capacity(DRAWS); differences.len()];
    let (mut incidents, mut days) = (vec![0u32; n_incidents], vec![0u32; busy.len()]);
    for _ in 0..DRAWS {
        incidents.fill(0);
        days.fill(0);
        for _ in 0..n_incidents {
            incidents[below(&mut rng, n_incidents as u64) as usize] += 1;
        }
        for _ in 0..if busy.is_empty() { 0 } else { n_days } {
            let day = below(&mut rng, n_days as u64) as usize;
            // Which of the days are the busy ones makes no difference to a draw.
            if let Some(times) = days.get_mut(day) {
                *times += 1;
            }
        }
        for ((one, dense), totals) in differences.iter().zip(&dense).zip(&mut totals) {
            let weighed = |costs: &[f64], times: &[u32]| -> f64 {
                let each = costs.iter().zip(times).filter(|(_, times)| **times > 0);
                each.map(|(cost, times)| cost * f64::from(*times)).sum()
            };
            totals.push(weighed(&one.by_incident, &incidents) + weighed(dense, &days));
        }
    }
    totals
        .into_iter()
        .map(|mut totals| {
            totals.sort_by(f64::total_cmp);
            let end = |share: f64| totals[((DRAWS as f64 * share) as usize).min(DRAWS - 1)];
            (end(0.025), end(0.975))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_about_that_of_the_mean() {
        // A hundred incidents whose difference is 1 or -1, evenly: the deviation of the sum is 10.
        let by_incident: Vec<f64> = (0..100)
            .map(|i| if i % 2 == 0 { 1.0 } else { -1.0 })
            .collect();
        let difference = Difference {
            by_incident,
            by_day: Vec::new(),
        };
        let (low, high) = intervals(&[difference], 0, 1)[0];
        assert!(
            (low + 19.6).abs() < 3.0 && (high - 19.6).abs() < 3.0,
            "{low} {high}"
        );
    }

    #[test]
    fn needless_drains_vary_with_the_days_they_fell_on() {
        // Ten needless drains on ten of a thousand days: close to Poisson, deviation 3.2.
        let spread = Difference {
            by_incident: vec![0.0; 5],
            by_day: (0..10).map(|day| (day * 7, 1.0)).collect(),
        };
        // All on one day: that day is in a draw or not.
        let lumped = Difference {
            by_incident: vec![0.0; 5],
            by_day: vec![(3, 10.0)],
        };
        let ends = intervals(&[spread, lumped], 1_000, 1);
        assert!(
            ends[0].0 >= 3.0 && ends[0].0 <= 5.0 && ends[0].1 >= 15.0 && ends[0].1 <= 18.0,
            "{ends:?}"
        );
        assert_eq!(ends[1].0, 0.0);
        assert!(ends[1].1 >= 20.0, "{ends:?}");
    }

    #[test]
    fn pairs_share_their_draws_and_a_seed_its_intervals() {
        let one = Difference {
            by_incident: (0..40).map(f64::from).collect(),
            by_day: vec![(2, 3.0), (900, -1.0)],
        };
        let twice = intervals(&[one.clone(), one.clone()], 1_000, 7);
        assert_eq!(twice[0], twice[1]);
        assert_eq!(intervals(std::slice::from_ref(&one), 1_000, 7)[0], twice[0]);
        assert_ne!(intervals(&[one], 1_000, 8)[0], twice[0]);
        let none = Difference {
            by_incident: Vec::new(),
            by_day: Vec::new(),
        };
        assert_eq!(intervals(&[none], 0, 7), [(0.0, 0.0)]);
    }
}
