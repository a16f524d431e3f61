//! Quality of classifiers: of predicted classes through their `Confusion`, of scores, of probabilities.
//!
//! Where a ratio has nothing below its line (a class that was never predicted has no precision), it counts
//! as 0, as in scikit-learn; where a metric as a whole says nothing, it is an error.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::{MetricError, check_lengths};
use crate::stats::midranks;

/// How often each class was taken for each, for at least one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// The classes that occur in the truth or in the prediction, ascending.
    pub classes: Vec<i32>,
    /// Rows [true class, predicted class], in the order of `classes`.
    pub counts: Array2<u64>,
}

/// Counts the pairs of classes. O(n log c) time, c^2 memory.
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`].
pub fn confusion(truth: &[i32], predicted: &[i32]) -> Result<Confusion, MetricError> {
    check_lengths(truth.len(), predicted.len())?;
    let mut classes = [truth, predicted].concat();
    classes.sort_unstable();
    classes.dedup();
    let place = |class: i32| classes.partition_point(|&c| c < class);
    let mut counts = Array2::zeros((classes.len(), classes.len()));
    for (&t, &p) in truth.iter().zip(predicted) {
        counts[(place(t), place(p))] += 1;
    }
    Ok(Confusion { classes, counts })
}

impl Confusion {
    /// The number of rows.
    pub fn rows(&self) -> u64 {
        self.counts.sum()
    }

    /// Rows whose class was predicted rightly.
    pub fn right(&self) -> u64 {
        self.counts.diag().sum()
    }

    /// (rightly predicted, predicted, true) rows of each class.
    fn margins(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        (0..self.classes.len()).map(|c| {
            let predicted = self.counts.column(c).sum();
            (self.counts[(c, c)], predicted, self.counts.row(c).sum())
        })
    }
}

/// The share of rows whose class was predicted rightly.
pub fn accuracy(table: &Confusion) -> f64 {
    table.right() as f64 / table.rows() as f64
}

/// The mean recall of the classes that occur in the truth.
pub fn balanced_accuracy(table: &Confusion) -> f64 {
    let recalls: Vec<f64> = table
        .margins()
        .filter(|&(_, _, truth)| truth > 0)
        .map(|(right, _, truth)| ratio(right, truth))
        .collect();
    recalls.iter().sum::<f64>() / recalls.len() as f64
}

/// Precision, recall and F1, of one class or averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Rightly predicted over predicted; 0 if never predicted.
    pub precision: f64,
    /// Rightly predicted over true; 0 if not in the truth.
    pub recall: f64,
    /// 2 rightly predicted over predicted plus true; for an average over classes the average of theirs, not
    /// the harmonic mean of the averages.
    pub f1: f64,
}

impl Scores {
    fn new(right: u64, predicted: u64, truth: u64) -> Self {
        Self {
            precision: ratio(right, predicted),
            recall: ratio(right, truth),
            f1: ratio(2 * right, predicted + truth),
        }
    }
}

/// The scores of each class, in the order of [`Confusion::classes`], with its number of true rows.
pub fn class_scores(table: &Confusion) -> Vec<(Scores, u64)> {
    table
        .margins()
        .map(|(right, predicted, truth)| (Scores::new(right, predicted, truth), truth))
        .collect()
}

/// How the scores of the classes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// The mean over all classes of the truth or the prediction, small ones as much as large.
    Macro,
    /// From the rows of all classes counted together. With one class per row all three are the accuracy.
    Micro,
    /// The mean weighted by the number of true rows.
    Weighted,
}

/// The scores averaged over classes.
pub fn average_scores(table: &Confusion, average: Average) -> Scores {
    let scores = class_scores(table);
    let weight = |truth: u64| match average {
        Average::Macro => 1.0 / scores.len() as f64,
        Average::Weighted => truth as f64 / table.rows() as f64,
        Average::Micro => 0.0,
    };
    if average == Average::Micro {
        return Scores::new(table.right(), table.rows(), table.rows());
    }
    let mean = |of: fn(&Scores) -> f64| {
        let weighted = scores.iter().map(|(s, truth)| weight(*truth) * of(s));
        weighted.sum::<f64>()
    };
    Scores {
        precision: mean(|s| s.precision),
        recall: mean(|s| s.recall),
        f1: mean(|s| s.f1),
    }
}

/// Cohen's kappa (1960): agreement beyond what the frequencies of the classes would give by chance,
/// (observed - expected) / (1 - expected). At most 1; 0 at chance.
///
/// # Errors
/// [`MetricError::OneClass`] if all rows are of one and the same class in truth and prediction, so that chance
/// already gives full agreement (scikit-learn gives NaN).
pub fn cohen_kappa(table: &Confusion) -> Result<f64, MetricError> {
    let n = u128::from(table.rows());
    let by_chance: u128 = table
        .margins()
        .map(|(_, predicted, truth)| u128::from(predicted) * u128::from(truth))
        .sum();
    let disagreement_by_chance = n * n - by_chance;
    if disagreement_by_chance == 0 {
        return Err(MetricError::OneClass);
    }
    let disagreement = n * (n - u128::from(table.right()));
    Ok(1.0 - disagreement as f64 / disagreement_by_chance as f64)
}

/// The correlation of truth and prediction: Matthews' (1975) for two classes, Gorodkin's (2004) for more. -1
/// to 1; 0 if truth or prediction has one class only.
pub fn matthews_correlation(table: &Confusion) -> f64 {
    let n = i128::from(table.rows());
    let (mut joint, mut predicted_squares, mut true_squares) = (0i128, 0i128, 0i128);
    for (_, predicted, truth) in table.margins() {
        let (predicted, truth) = (i128::from(predicted), i128::from(truth));
        joint += predicted * truth;
        predicted_squares += predicted * predicted;
        true_squares += truth * truth;
    }
    let covariance = i128::from(table.right()) * n - joint;
    let predicted_variance = (n * n - predicted_squares) as f64;
    let true_variance = (n * n - true_squares) as f64;
    if predicted_variance == 0.0 || true_variance == 0.0 {
        return 0.0;
    }
    covariance as f64 / (predicted_variance * true_variance).sqrt()
}

/// The area under the receiver operating characteristic: the probability that a positive row scores higher
/// than a negative one, a tie counting half. From midranks, O(n log n).
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`], [`MetricError::NanScore`],
/// [`MetricError::OneClass`].
pub fn roc_auc(truth: &[bool], scores: &[f64]) -> Result<f64, MetricError> {
    check_scores(truth, scores)?;
    let positive = truth.iter().filter(|&&t| t).count() as f64;
    let negative = truth.len() as f64 - positive;
    if positive == 0.0 || negative == 0.0 {
        return Err(MetricError::OneClass);
    }
    let ranks = midranks(scores);
    let sum: f64 = ranks
        .iter()
        .zip(truth)
        .filter_map(|(&rank, &t)| t.then_some(rank))
        .sum();
    Ok((sum - positive * (positive + 1.0) / 2.0) / (positive * negative))
}

/// Average precision: the sum over the distinct scores, from the highest, of the recall gained there times
/// the precision of the rows that score at least so much. Not interpolated; equal scores enter together.
/// O(n log n).
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`], [`MetricError::NanScore`],
/// [`MetricError::NoPositive`] (scikit-learn gives 0 there).
pub fn average_precision(truth: &[bool], scores: &[f64]) -> Result<f64, MetricError> {
    check_scores(truth, scores)?;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.par_sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut seen, mut found, mut sum) = (0, 0, 0.0);
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let gained = tied.iter().filter(|&&row| truth[row]).count();
        seen += tied.len();
        found += gained;
        sum += gained as f64 * (found as f64 / seen as f64);
    }
    if found == 0 {
        return Err(MetricError::NoPositive);
    }
    Ok(sum / found as f64)
}

/// Log loss: the mean of -ln of the probability [n, c] given to the true class, in nats. `truth` holds
/// columns. Probabilities are clipped to [e, 1 - e], e = 2^-52, so that certainty of the wrong class costs
/// 36 and not infinity.
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`], [`MetricError::ClassColumn`],
/// [`MetricError::Probability`], [`MetricError::ProbabilitySum`] for a sum more than 0.001 from 1.
pub fn log_loss(truth: &[usize], probabilities: ArrayView2<'_, f64>) -> Result<f64, MetricError> {
    check_probabilities(truth, probabilities)?;
    let losses = truth
        .iter()
        .enumerate()
        .map(|(row, &class)| loss(probabilities[(row, class)]));
    Ok(losses.sum::<f64>() / truth.len() as f64)
}

/// [`log_loss`] of two classes from the probability of the positive one.
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`], [`MetricError::Probability`].
pub fn log_loss_binary(truth: &[bool], probabilities: &[f64]) -> Result<f64, MetricError> {
    check_each_probability(truth, probabilities)?;
    let losses = truth
        .iter()
        .zip(probabilities)
        .map(|(&t, &p)| loss(if t { p } else { 1.0 - p }));
    Ok(losses.sum::<f64>() / truth.len() as f64)
}

fn loss(probability: f64) -> f64 {
    -probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

/// Brier's score (1950): the mean over rows of the sum over classes of (probability - 1 if true, else 0)^2,
/// 0 to 2. `truth` holds columns of the probabilities [n, c].
///
/// # Errors
/// As [`log_loss`].
pub fn brier(truth: &[usize], probabilities: ArrayView2<'_, f64>) -> Result<f64, MetricError> {
    check_probabilities(truth, probabilities)?;
    let sum: f64 = truth
        .iter()
        .zip(probabilities.rows())
        .map(|(&class, row)| {
            row.iter()
                .enumerate()
                .map(|(c, p)| (p - f64::from(u8::from(c == class))).powi(2))
                .sum::<f64>()
        })
        .sum();
    Ok(sum / truth.len() as f64)
}

/// Brier's score of two classes from the probability of the positive one: the mean squared error, 0 to 1.
/// That is half of what [`brier`] gives for the same two classes; both are customary.
///
/// # Errors
/// As [`log_loss_binary`].
pub fn brier_binary(truth: &[bool], probabilities: &[f64]) -> Result<f64, MetricError> {
    check_each_probability(truth, probabilities)?;
    let sum: f64 = truth
        .iter()
        .zip(probabilities)
        .map(|(&t, &p)| (p - f64::from(u8::from(t))).powi(2))
        .sum();
    Ok(sum / truth.len() as f64)
}

/// The expected calibration error (Guo et al. 2017, On calibration of modern neural networks): rows are put
/// into `bins` equal parts of (0, 1] by their confidence (0 into the first); the error is the mean over the
/// bins, weighted by their rows, of |share that came true - mean confidence|.
///
/// `came_true` and `confidence` are whether the predicted class was right and its probability; or, for the
/// calibration of one class, whether a row is of that class and its probability.
///
/// # Errors
/// [`MetricError::LengthsDiffer`], [`MetricError::Empty`], [`MetricError::Probability`],
/// [`MetricError::NoBins`].
pub fn calibration_error(
    came_true: &[bool],
    confidence: &[f64],
    bins: usize,
) -> Result<f64, MetricError> {
    check_each_probability(came_true, confidence)?;
    if bins == 0 {
        return Err(MetricError::NoBins);
    }
    let borders: Vec<f64> = (1..bins).map(|i| i as f64 / bins as f64).collect();
    let mut surplus = vec![0.0; bins];
    for (&right, &p) in came_true.iter().zip(confidence) {
        let bin = borders.partition_point(|&border| border < p);
        surplus[bin] += f64::from(u8::from(right)) - p;
    }
    Ok(surplus.iter().map(|s: &f64| s.abs()).sum::<f64>() / came_true.len() as f64)
}

/// [`calibration_error`] of the most probable class (ties to the lower column) of the probabilities [n, c];
/// `truth` holds columns.
///
/// # Errors
/// As [`log_loss`], and [`MetricError::NoBins`].
pub fn expected_calibration_error(
    truth: &[usize],
    probabilities: ArrayView2<'_, f64>,
    bins: usize,
) -> Result<f64, MetricError> {
    check_probabilities(truth, probabilities)?;
    let mut right = Vec::with_capacity(truth.len());
    let mut confidence = Vec::with_capacity(truth.len());
    for (&class, row) in truth.iter().zip(probabilities.rows()) {
        let (mut top, mut best) = (0, f64::NEG_INFINITY);
        for (c, &p) in row.iter().enumerate() {
            if p > best {
                (top, best) = (c, p);
            }
        }
        right.push(top == class);
        confidence.push(best);
    }
    calibration_error(&right, &confidence, bins)
}

/// 0 where nothing is below the line.
fn ratio(above: u64, below: u64) -> f64 {
    if below == 0 {
        0.0
    } else {
        above as f64 / below as f64
    }
}

fn check_scores(truth: &[bool], scores: &[f64]) -> Result<(), MetricError> {
    check_lengths(truth.len(), scores.len())?;
    match scores.iter().position(|s| s.is_nan()) {
        Some(row) => Err(MetricError::NanScore { row }),
        None => Ok(()),
    }
}

fn check_each_probability(truth: &[bool], probabilities: &[f64]) -> Result<(), MetricError> {
    check_lengths(truth.len(), probabilities.len())?;
    match probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
        Some(row) => Err(MetricError::Probability {
            row,
            value: probabilities[row],
        }),
        None => Ok(()),
    }
}

fn check_probabilities(
    truth: &[usize],
    probabilities: ArrayView2<'_, f64>,
) -> Result<(), MetricError> {
    check_lengths(truth.len(), probabilities.nrows())?;
    let columns = probabilities.ncols();
    for (row, (&class, values)) in truth.iter().zip(probabilities.rows()).enumerate() {
        if class >= columns {
            return Err(MetricError::ClassColumn {
                row,
                class,
                columns,
            });
        }
        if let Some(&value) = values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(MetricError::Probability { row, value });
        }
        // Wide enough for a softmax in single precision over many classes.
        let sum = values.sum();
        if (sum - 1.0).abs() > 1e-3 {
            return Err(MetricError::ProbabilitySum { row, sum });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12
    }

    // The data of all values marked "scikit-learn 1.9.1" below:
    // t = [(i*i*7 + i) % 31 % 5 - 1 for i in range(80)]
    // p = [(i*i*3 + i//4) % 29 % 4 - 1 for i in range(80)]
    // b = [int(x > 0) for x in t]
    // s = [((i*29) % 41) / 8 + 0.9*b[i] for i in range(80)]; s2 = [round(x) for x in s]
    // pr = [min(1., x / 6) for x in s]
    // P = [[1 + (i*5 + j*j*3) % 7 + 4*(t[i] + 1 == j) for j in range(5)] for i in range(80)], over its row sums
    fn t() -> Vec<i32> {
        (0..80).map(|i| (i * i * 7 + i) % 31 % 5 - 1).collect()
    }
    fn p() -> Vec<i32> {
        (0..80).map(|i| (i * i * 3 + i / 4) % 29 % 4 - 1).collect()
    }
    fn b() -> Vec<bool> {
        t().iter().map(|&x| x > 0).collect()
    }
    fn s() -> Vec<f64> {
        let b = b();
        (0..80usize)
            .map(|i| (i * 29 % 41) as f64 / 8.0 + 0.9 * f64::from(u8::from(b[i])))
            .collect()
    }

    #[test]
    fn classes_as_scikit_learn() {
        // accuracy_score, balanced_accuracy_score, cohen_kappa_score, matthews_corrcoef of (t, p)
        let table = confusion(&t(), &p()).unwrap();
        assert!(close(accuracy(&table), 0.225));
        assert!(close(balanced_accuracy(&table), 0.19766899766899768));
        assert!(close(cohen_kappa(&table).unwrap(), 0.02706943899568459));
        assert!(close(matthews_correlation(&table), 0.028812924404874093));
        // precision_recall_fscore_support(t, p, average=...)[:3]; scikit-learn 1.9.1
        for (average, expected) in [
            (
                Average::Macro,
                [0.17888888888888888, 0.19766899766899768, 0.1749767954021228],
            ),
            (Average::Micro, [0.225, 0.225, 0.225]),
            (
                Average::Weighted,
                [0.24069444444444446, 0.225, 0.2208771073933876],
            ),
        ] {
            let found = average_scores(&table, average);
            assert!(close(found.precision, expected[0]), "{average:?}");
            assert!(close(found.recall, expected[1]));
            assert!(close(found.f1, expected[2]));
        }
        // precision_recall_fscore_support(t, p), for the classes -1 to 3; 3 is never predicted.
        let expected = [
            (0.4, 0.23076923076923078, 0.2926829268292683, 26),
            (
                0.1111111111111111,
                0.18181818181818182,
                0.13793103448275862,
                11,
            ),
            (0.05, 0.16666666666666666, 0.07692307692307693, 6),
            (
                0.3333333333333333,
                0.4090909090909091,
                0.3673469387755102,
                22,
            ),
            (0.0, 0.0, 0.0, 15),
        ];
        assert_eq!(table.classes, [-1, 0, 1, 2, 3]);
        for ((found, rows), (precision, recall, f1, support)) in
            class_scores(&table).into_iter().zip(expected)
        {
            assert!(close(found.precision, precision) && close(found.recall, recall));
            assert!(close(found.f1, f1));
            assert_eq!(rows, support);
        }
    }

    #[test]
    fn scores_as_scikit_learn() {
        // roc_auc_score(b, s), average_precision_score(b, s), the same of s2; scikit-learn 1.9.1
        let (b, s) = (b(), s());
        assert!(close(roc_auc(&b, &s).unwrap(), 0.7875549968573224));
        assert!(close(
            average_precision(&b, &s).unwrap(),
            0.8137779560447955
        ));
        let s2: Vec<f64> = s.iter().map(|v| v.round_ties_even()).collect();
        assert!(close(roc_auc(&b, &s2).unwrap(), 0.7822124450031426));
        assert!(close(
            average_precision(&b, &s2).unwrap(),
            0.7635802710120203
        ));
    }

    #[test]
    fn probabilities_as_scikit_learn() {
        // log_loss(b, pr), brier_score_loss(b, pr); log_loss(t + 1, P), brier_score_loss(t + 1, P)
        let pr: Vec<f64> = s().iter().map(|v| (v / 6.0).min(1.0)).collect();
        assert!(close(
            log_loss_binary(&b(), &pr).unwrap(),
            0.5532540443157443
        ));
        assert!(close(brier_binary(&b(), &pr).unwrap(), 0.18993229166666667));
        let truth: Vec<usize> = t().iter().map(|&l| (l + 1) as usize).collect();
        let mut probabilities = Array2::from_shape_fn((80, 5), |(i, j)| {
            (1 + (i * 5 + j * j * 3) % 7 + if truth[i] == j { 4 } else { 0 }) as f64
        });
        for mut row in probabilities.rows_mut() {
            let sum = row.sum();
            row /= sum;
        }
        assert!(close(
            log_loss(&truth, probabilities.view()).unwrap(),
            1.0771704314390134
        ));
        assert!(close(
            brier(&truth, probabilities.view()).unwrap(),
            0.5629617864154502
        ));
    }

    #[test]
    fn certainty_of_the_wrong_class_costs_a_finite_price() {
        let found = log_loss_binary(&[true, true], &[0.0, 1.0]).unwrap();
        assert!((found - 52.0 * std::f64::consts::LN_2 / 2.0).abs() < 1e-12);
    }

    #[test]
    fn calibration_by_hand() {
        // Four bins. (0, .25]: 0 and .25, one true: |1 - .25|. (.25, .5]: .5, true: |1 - .5|.
        // (.75, 1]: .9 and 1, both true: |2 - 1.9|. Over 5 rows.
        let confidence = [0.0, 0.25, 0.5, 0.9, 1.0];
        let came_true = [true, false, true, true, true];
        let found = calibration_error(&came_true, &confidence, 4).unwrap();
        assert!(close(found, (0.75 + 0.5 + 0.1) / 5.0), "{found}");
        // The first row's tie goes to column 0, which is right; the second's top is wrong.
        let probabilities = array![[0.4, 0.4, 0.2], [0.1, 0.7, 0.2]];
        let found = expected_calibration_error(&[0, 2], probabilities.view(), 10).unwrap();
        assert!(close(found, (0.6 + 0.7) / 2.0), "{found}");
        assert_eq!(
            calibration_error(&[true], &[1.0], 0),
            Err(MetricError::NoBins)
        );
    }

    #[test]
    fn one_class_only() {
        let same = confusion(&[2, 2], &[2, 2]).unwrap();
        assert_eq!((accuracy(&same), balanced_accuracy(&same)), (1.0, 1.0));
        assert_eq!(matthews_correlation(&same), 0.0);
        assert_eq!(cohen_kappa(&same), Err(MetricError::OneClass));
        let apart = confusion(&[1, 1], &[2, 2]).unwrap();
        assert_eq!((accuracy(&apart), balanced_accuracy(&apart)), (0.0, 0.0));
        assert_eq!(cohen_kappa(&apart), Ok(0.0));
        assert_eq!(average_scores(&apart, Average::Macro).f1, 0.0);
        for one in [true, false] {
            assert_eq!(
                roc_auc(&[one; 3], &[1.0, 2.0, 3.0]),
                Err(MetricError::OneClass)
            );
        }
        assert_eq!(
            average_precision(&[false], &[1.0]),
            Err(MetricError::NoPositive)
        );
        assert_eq!(average_precision(&[true, true], &[1.0, 2.0]), Ok(1.0));
    }

    #[test]
    fn bad_input_is_named() {
        assert_eq!(confusion(&[], &[]), Err(MetricError::Empty));
        let differ = MetricError::LengthsDiffer {
            first: 1,
            second: 2,
        };
        assert_eq!(confusion(&[1], &[1, 2]), Err(differ.clone()));
        assert_eq!(roc_auc(&[true], &[1.0, 2.0]), Err(differ));
        assert_eq!(
            roc_auc(&[true, false], &[0.5, f64::NAN]),
            Err(MetricError::NanScore { row: 1 })
        );
        // Infinite scores have their place in the order.
        assert_eq!(roc_auc(&[true, false], &[f64::INFINITY, 0.0]), Ok(1.0));
        assert_eq!(
            brier_binary(&[true, false], &[0.5, 1.5]),
            Err(MetricError::Probability { row: 1, value: 1.5 })
        );
        assert!(matches!(
            log_loss(&[0], array![[f64::NAN, 0.5]].view()),
            Err(MetricError::Probability { row: 0, .. })
        ));
        assert_eq!(
            log_loss(&[0, 1], array![[0.5, 0.5], [0.5, 0.25]].view()),
            Err(MetricError::ProbabilitySum { row: 1, sum: 0.75 })
        );
        assert_eq!(
            brier(&[2], array![[0.5, 0.5]].view()),
            Err(MetricError::ClassColumn {
                row: 0,
                class: 2,
                columns: 2
            })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn area_over_all_pairs(rows in prop::collection::vec((any::<bool>(), -4i32..4), 1..50)) {
            let (truth, scores): (Vec<bool>, Vec<f64>) =
                rows.iter().map(|&(t, s)| (t, f64::from(s))).unzip();
            let (mut won, mut pairs) = (0.0, 0.0);
            for i in (0..truth.len()).filter(|&i| truth[i]) {
                for j in (0..truth.len()).filter(|&j| !truth[j]) {
                    pairs += 1.0;
                    won += if scores[i] > scores[j] { 1.0 } else if scores[i] == scores[j] { 0.5 } else { 0.0 };
                }
            }
            match roc_auc(&truth, &scores) {
                Ok(found) => prop_assert!(close(found, won / pairs)),
                Err(error) => prop_assert!(error == MetricError::OneClass && pairs == 0.0),
            }
        }

        #[test]
        fn precision_at_each_positive(rows in prop::collection::vec((any::<bool>(), -4i32..4), 1..50)) {
            // The mean over positive rows of the precision among the rows that score at least as high.
            let positive: Vec<i32> = rows.iter().filter(|r| r.0).map(|r| r.1).collect();
            let (truth, scores): (Vec<bool>, Vec<f64>) =
                rows.iter().map(|&(t, s)| (t, f64::from(s))).unzip();
            if positive.is_empty() {
                prop_assert_eq!(average_precision(&truth, &scores), Err(MetricError::NoPositive));
            } else {
                let sum: f64 = positive.iter().map(|&score| {
                    let above = rows.iter().filter(|r| r.1 >= score).count() as f64;
                    positive.iter().filter(|&&s| s >= score).count() as f64 / above
                }).sum();
                let expected = sum / positive.len() as f64;
                prop_assert!(close(average_precision(&truth, &scores).unwrap(), expected));
            }
        }

        #[test]
        fn correlation_and_kappa_by_definition(rows in prop::collection::vec((0i32..3, 0i32..3), 1..40)) {
            // Correlation of the one-hot codes, summed over classes; kappa from frequencies.
            let n = rows.len() as f64;
            let one_hot = |c: i32, v: i32| f64::from(u8::from(c == v));
            let (mut joint, mut first, mut second, mut chance) = (0.0, 0.0, 0.0, 0.0);
            for c in 0..3 {
                let mean_t = rows.iter().map(|r| one_hot(c, r.0)).sum::<f64>() / n;
                let mean_p = rows.iter().map(|r| one_hot(c, r.1)).sum::<f64>() / n;
                chance += mean_t * mean_p;
                for r in &rows {
                    let (t, p) = (one_hot(c, r.0) - mean_t, one_hot(c, r.1) - mean_p);
                    joint += t * p;
                    first += t * t;
                    second += p * p;
                }
            }
            let (truth, predicted): (Vec<i32>, Vec<i32>) = rows.iter().copied().unzip();
            let table = confusion(&truth, &predicted).unwrap();
            let found = matthews_correlation(&table);
            if first < 1e-9 || second < 1e-9 {
                prop_assert_eq!(found, 0.0);
            } else {
                prop_assert!((found - joint / (first * second).sqrt()).abs() < 1e-9);
            }
            let observed = rows.iter().filter(|r| r.0 == r.1).count() as f64 / n;
            match cohen_kappa(&table) {
                Ok(kappa) => prop_assert!((kappa - (observed - chance) / (1.0 - chance)).abs() < 1e-9),
                Err(_) => prop_assert!(1.0 - chance < 1e-9),
            }
        }

        #[test]
        fn two_columns_are_the_binary_case(rows in prop::collection::vec((any::<bool>(), 0.0f64..=1.0), 1..30)) {
            let (truth, p): (Vec<bool>, Vec<f64>) = rows.iter().copied().unzip();
            let columns: Vec<usize> = truth.iter().map(|&t| usize::from(t)).collect();
            let both = Array2::from_shape_fn((p.len(), 2), |(i, j)| if j == 1 { p[i] } else { 1.0 - p[i] });
            let binary = log_loss_binary(&truth, &p).unwrap();
            prop_assert!(close(log_loss(&columns, both.view()).unwrap(), binary));
            let binary = brier_binary(&truth, &p).unwrap();
            prop_assert!((brier(&columns, both.view()).unwrap() - 2.0 * binary).abs() < 1e-12);
        }
    }
}
