//! Samples by contender and round, and what is said about them: medians, ratios by round, ranges.

use super::cells::Contender;

/// The samples of a cell. A round in which a contender failed has none of it.
pub struct Runs<S> {
    by_contender: Vec<(Contender, Vec<Option<S>>)>,
    /// What went wrong, and with whom.
    pub failures: Vec<(Contender, String)>,
}

impl<S: Copy> Runs<S> {
    pub fn new(contenders: &[Contender], rounds: usize) -> Runs<S> {
        let by_contender = contenders.iter().map(|contender| (*contender, vec![None; rounds])).collect();
        Runs { by_contender, failures: Vec::new() }
    }

    pub fn add(&mut self, contender: Contender, round: usize, sample: S) {
        for (_, rounds) in self.by_contender.iter_mut().filter(|(known, _)| *known == contender) {
            rounds[round] = Some(sample);
        }
    }

    pub fn fail(&mut self, contender: Contender, why: &str) {
        eprintln!("{} failed: {why}", contender.name());
        self.failures.push((contender, why.to_owned()));
    }

    fn rounds(&self, contender: Contender) -> &[Option<S>] {
        self.by_contender.iter().find(|(known, _)| *known == contender).map_or(&[], |(_, rounds)| rounds)
    }

    /// A figure over the rounds of a contender; `None` without a round.
    pub fn spread(&self, contender: Contender, figure: impl Fn(&S) -> f64) -> Option<Spread> {
        Spread::of(self.rounds(contender).iter().flatten().map(figure).collect())
    }

    /// A figure relative to that of `other` in the same round; `None` without a round that both have.
    pub fn ratio(&self, contender: Contender, other: Contender, figure: impl Fn(&S) -> f64) -> Option<Spread> {
        let pairs = self.rounds(contender).iter().zip(self.rounds(other));
        let both = pairs.filter_map(|(one, other)| Some((one.as_ref()?, other.as_ref()?)));
        Spread::of(both.map(|(one, other)| figure(one) / figure(other)).collect())
    }
}

/// A figure that was taken several times.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { (figures[middle - 1] + figures[middle]) / 2.0 };
        Some(Spread { median, least, most })
    }
}

/// The figure that this share of `sorted`, which is not empty, does not exceed.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
