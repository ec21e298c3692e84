//! What the command says: figures, and which of them are out of their bounds.

/// Bounds that were broken, in words.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    broken: Vec<String>,
    kept: Vec<(String, f64)>,
}

impl Figures {
    /// A figure without a bound.
    pub(crate) fn say(&mut self, name: &str, value: f64) {
        self.kept.push((name.to_owned(), value));
    }

    /// A figure that is to be no less than this.
    pub(crate) fn at_least(&mut self, name: &str, value: f64, bound: f64) {
        self.held(name, value, value >= bound, &format!("at least {bound}"));
    }

    /// A figure that is to be more than this.
    pub(crate) fn above(&mut self, name: &str, value: f64, bound: f64) {
        self.held(name, value, value > bound, &format!("above {bound}"));
    }

    /// A figure that is to be no more than this.
    pub(crate) fn at_most(&mut self, name: &str, value: f64, bound: f64) {
        self.held(name, value, value <= bound, &format!("at most {bound}"));
    }

    fn held(&mut self, name: &str, value: f64, held: bool, bound: &str) {
        self.say(name, value);
        // What is not a number keeps no bound.
        if !held {
            self.broken
                .push(format!("{name} is {value:.4}, to be {bound}"));
        }
    }

    /// Prints all figures, and what was out of its bounds; returns whether nothing was.
    pub(crate) fn print(&self) -> bool {
        println!();
        for (name, value) in &self.kept {
            // Counts are whole; everything else is told to four places.
            if value.fract() == 0.0 && value.abs() >= 1.0 || *value == 0.0 {
                println!("figure {name} {value}");
            } else {
                println!("figure {name} {value:.4}");
            }
        }
        for broken in &self.broken {
            println!("broken: {broken}");
        }
        self.broken.is_empty()
    }
}

/// The mean of numbers; 0 for none.
pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for value in values {
        sum += value;
        n += 1.0;
    }
    if n == 0.0 { 0.0 } else { sum / n }
}

/// The least of numbers; infinite for none.
pub(crate) fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}

/// The largest of numbers; minus infinite for none.
pub(crate) fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NEG_INFINITY, f64::max)
}
