//! Probabilistic Partitive Partitioning: splits in two again and again, each split certified by a Gaussian mixture.
//!
//! Mujahid Sultan, *Probabilistic Partitive Partitioning (PPP)*, 2020, arXiv 2003.04372. Its forerunner: Sultan,
//! Wigle, Cumbaa, Maziarz, Glasgow, Tsao and Jurisica, *Binary tree-structured vector quantization approach to
//! clustering and visualizing microarray data*, Bioinformatics 18, 2002 (doi 10.1093/bioinformatics/18.suppl_1.s111).
//!
//! What could be verified, from the abstracts of both: k-means partitions the rows, and a Gaussian mixture validates
//! its partitions; the result does not depend on initial conditions; the number of clusters need not be given; the
//! method is meant for large data, points to the most separable set and allows a smaller input space; the forerunner
//! joins a binary tree of quantizers with partitive k-means. The text of neither could be read beyond that. How the
//! start is computed, the three conditions and their thresholds, the consensus, the repair, the measure J of
//! separation and the elimination of columns are this implementation's choices in that spirit, and so is every
//! number below.
//!
//! X \[n, d\] rows, put into the order of their content first (`order`), so that the order in the file cannot matter;
//! Z \[n, q\] the same rows in the space of the mixtures: X itself, or its q first principal components where
//! d > q. Every mixture has full covariances where q <= 10 and diagonal ones otherwise.
//! A node is a set S of m rows, the root has all. For each node (`split`, `tree`):
//! 1. Start. u \[d\], the first principal direction of S by power iteration from the column of largest variance, its
//!    entry of largest magnitude positive; the rows at or below the mean projection on u and those above it.
//! 2. Partition. Lloyd with k = 2 from their means, ties to the lower index. With `consensus` R > 0, R seeded runs
//!    beside that one: the partition found most often is tried, and how often is its stability.
//! 3. Validation. A mixture of two Gaussians of the rows in Z by EM, started from the partition, beside one Gaussian.
//!    Where m > 20,000 they are fitted to 20,000 rows at equal steps along u, and one E-step follows on all.
//! 4. The split is accepted if each side has enough rows, mixture and partition agree on a share theta of the rows,
//!    BIC prefers two Gaussians to one, and rows belong to their side with a posterior of .85 on average; with
//!    `bimodality`, also if there is a valley between the sides along the line between their centres. With
//!    `directions` above 1 a refused split is tried again from the second principal direction, and so on: 2-means may
//!    cut through the middle of a cluster although another cut, which passes every condition, goes between clusters.
//! 5. Accepted: go on with both sides, up to the depth limit. Else the node is a leaf, and the reason is kept.
//! 6. A row's path membership is the product of the posteriors of its sides on the way from the root.
//! 7. Repair (`repair`), unless switched off: Lloyd from the leaves' means, a mixture with a component for each
//!    cluster, and merges of two parts of one node where they lower the BIC. Labels and memberships then come from
//!    that mixture; without repair from the leaves and the paths. Clusters are numbered by falling size, of equal
//!    ones that of the first row in order of content first.
//! 8. J = (m1 - m2)' inv(Sp) (m1 - m2) and the expected share of misplaced rows of every accepted split: the node of
//!    the largest J is the most separable set of rows. `columns` drops columns that the root's split can do without.
//!
//! No step draws at random but the consensus; the seed changes nothing else than which rows the silhouette and the
//! Hopkins statistic look at. Sums are added in a fixed order, so threads change nothing.
//!
//! One direction is the default, since nothing in the abstract speaks of more. What three would do, measured on `gaussian-blobs` with seeds 100 to 119 of (n, d, k, std) = (1000, 5, 7, 1.5),
//! (2000, 3, 5, 1), (3000, 10, 10, 1.5), (1000, 2, 6, 0.8) and (500, 4, 3, 2). One direction left 5 of the 100 draws
//! in a single cluster, three directions none, and neither ever found more clusters than there are groups.
//!
//! Time for each level of the tree: Lloyd 2 n d a round, n d^2 / 2 for u, n q^2 for the E-step, EM on 20,000 rows for
//! each node. Memory: 2 n (d + q) numbers, and n numbers for each cluster.

mod columns;
mod model;
mod order;
mod repair;
mod rows;
mod split;
mod told;
mod tree;

use super::{Clusterer, Grouping, Points};
use crate::gaussian::Covariance;
use ndarray::ArrayView2;
use order::{by_content, gather};
use papertrial_core::task::{Context, Facts, Method, matrix_bytes};
use papertrial_core::{Error, Result};
use papertrial_numerics::linalg;
use rows::{Rows, restored};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use told::{Quality, RepairTold, Told, agreement};
use tree::Tree;

/// Options of probabilistic partitive partitioning.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ppp {
    /// Share of the rows on which mixture and 2-means must agree for a split to be accepted.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub theta: f64,
    /// Least number of rows of a side; 0 for a hundredth of all, at least 10.
    pub min_size: usize,
    /// Form of the mixtures' covariances.
    pub covariance: PppCovariance,
    /// Principal components in which splits are validated, where there are more columns; 0 for the columns themselves.
    pub pca: usize,
    /// Seeded runs of 2-means at each split, of which the most frequent partition is kept; 0 for the start computed
    /// without chance, 20 is a good number.
    #[schemars(range(max = 1000))]
    pub consensus: usize,
    /// Principal directions along which a split is tried in turn until one is accepted; 1 gives up after the first.
    #[schemars(range(min = 1, max = 100))]
    pub directions: usize,
    /// Let rows find their cluster anew in the end and undo needless splits.
    pub repair: bool,
    /// Accept a split only if there is a valley between its sides, against splits of one skewed cloud.
    pub bimodality: bool,
    /// Tell which columns the first split can do without.
    pub reduce_columns: bool,
    /// Splits above a leaf at most.
    #[schemars(range(min = 1, max = 100))]
    pub max_depth: usize,
}

/// Form of the covariances of the mixtures of [`Ppp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PppCovariance {
    /// Full for up to ten columns or components, otherwise diagonal.
    Auto,
    /// A matrix for each component.
    Full,
    /// A variance for each component and column.
    Diagonal,
}

impl PppCovariance {
    /// The form in a space of `q` columns.
    fn of(self, q: usize) -> Covariance {
        match self {
            PppCovariance::Full => Covariance::Full,
            PppCovariance::Diagonal => Covariance::Diagonal,
            PppCovariance::Auto if q <= 10 => Covariance::Full,
            PppCovariance::Auto => Covariance::Diagonal,
        }
    }
}

impl Default for Ppp {
    fn default() -> Self {
        Ppp {
            theta: 0.85,
            min_size: 0,
            covariance: PppCovariance::Auto,
            pca: 10,
            consensus: 0,
            directions: 1,
            repair: true,
            bimodality: false,
            reduce_columns: true,
            max_depth: 20,
        }
    }
}

impl Method for Ppp {
    const FACTS: Facts = Facts {
        name: "ppp",
        about: "2-means splits certified by a Gaussian mixture; finds the number of clusters, the same on every run",
        paper: Some("ppp"),
        streams: false,
    };
}

/// A row that belongs to its cluster with less than this is on a border.
const BORDERLINE: f64 = 0.6;

/// Numbers that one round of EM reads at most while columns are eliminated.
const ELIMINATION_ENTRIES: usize = 4_000_000;

impl Clusterer for Ppp {
    fn fit(&self, points: &Points, context: &Context) -> Result<Grouping> {
        if !(0.0..=1.0).contains(&self.theta) {
            return Err(Error::option(
                "theta",
                format!("{} is not from 0 to 1", self.theta),
            ));
        }
        let matrix = points.matrix(context)?;
        let (n, d) = matrix.dim();
        if u32::try_from(n).is_err() {
            return Err(Error::BadInput(format!(
                "{n} rows are too many: at most 2^32 - 1"
            )));
        }
        let reduced = self.pca > 0 && d > self.pca && n > 1;
        let q = if reduced { self.pca.min(n - 1) } else { d };
        context.require(
            "the partitioning",
            matrix_bytes(
                n as u64,
                2 * d as u64 + if reduced { 2 * q as u64 } else { 0 } + 8,
            ),
        )?;
        let ordered = by_content(matrix.view());
        let x = ordered.x.view();
        let pca = if reduced {
            Some(linalg::pca(x, q).map_err(|e| Error::Failed(e.to_string()))?)
        } else {
            None
        };
        let projected = pca.as_ref().map(|pca| pca.transform(x));
        let z = projected.as_ref().map(|z| z.view());

        let min_size = if self.min_size > 0 {
            self.min_size
        } else {
            (n / 100).max(10)
        };
        let rules = split::Rules {
            theta: self.theta,
            least: min_size.max(q + 1),
            covariance: self.covariance.of(q),
            consensus: self.consensus,
            directions: self.directions,
            bimodality: self.bimodality,
            seed: context.seed,
        };
        // Steps 1 to 6.
        let tree = tree::grow(x, z, &rules, self.max_depth, context)?;
        let leaves = tree.leaves();
        let (leaf, path) = tree.places(&leaves);

        // Step 7.
        let z = z.unwrap_or(x);
        let variance = split::mean_variance(z);
        let mut notes = Vec::new();
        let keep = match context.require(
            "memberships",
            matrix_bytes(n as u64, 2 * leaves.len() as u64),
        ) {
            Ok(()) => true,
            Err(e) => {
                notes.push(format!("the memberships in all clusters are left out: {e}"));
                false
            }
        };
        let repaired = if self.repair && variance > 0.0 {
            Some(repair::repair(
                x,
                z,
                &tree,
                &leaves,
                rules.covariance,
                variance,
                context,
            )?)
        } else {
            None
        };
        let mut rows = match &repaired {
            Some(repaired) => Rows::of_mixture(z, &repaired.mixture, keep)?,
            None => Rows {
                labels: leaf.clone(),
                own: path.clone(),
                memberships: if keep {
                    Some(tree.memberships(z, &leaves)?)
                } else {
                    None
                },
            },
        };
        rows.make_equal(&ordered.duplicates());
        let cluster_of = rows.number(match &repaired {
            Some(repaired) => repaired.mixture.weights.len(),
            None => leaves.len(),
        });
        let mut clusters: Vec<Option<usize>> = vec![None; tree.nodes.len()];
        for (place, node) in leaves.iter().enumerate() {
            let group = repaired.as_ref().map_or(place, |r| r.of_leaf[place]);
            clusters[*node] = Some(cluster_of[group]);
        }

        let labels: Vec<i32> = rows.labels.iter().map(|l| *l as i32).collect();
        let told = Told {
            tree: &tree,
            clusters: &clusters,
            names: points.names(),
            border: rows.own.iter().filter(|p| **p < BORDERLINE).count(),
            quality: Quality::of(x, &labels, context.seed)?,
            // Step 8.
            reduction: self.columns(x, &tree, context, &mut notes)?,
            repair: repaired.as_ref().map(|r| RepairTold {
                merged: r.merged.clone(),
                agreement: agreement(&r.groups, &rows.labels, &cluster_of),
            }),
        };
        notes.extend(told.notes());
        let model = model::model(
            repaired.as_ref(),
            pca.as_ref(),
            &ordered,
            &labels,
            &cluster_of,
            &mut notes,
        );
        let mut columns = vec![
            (
                "borderline".into(),
                rows.own
                    .iter()
                    .map(|p| f64::from(*p < BORDERLINE))
                    .collect(),
            ),
            ("membership".into(), rows.own.clone()),
        ];
        if repaired.is_some() {
            let mut before = Rows {
                labels: leaf,
                own: path,
                memberships: None,
            };
            before.make_equal(&ordered.duplicates());
            let nodes = before
                .labels
                .iter()
                .map(|l| leaves[*l as usize] as f64)
                .collect();
            columns.push(("tree_node".into(), nodes));
            columns.push(("path_membership".into(), before.own));
        }
        Ok(Grouping {
            memberships: rows.memberships.map(|m| restored(&ordered, &m)),
            model: Some(model),
            columns: columns
                .into_iter()
                .map(|(name, c): (String, Vec<f64>)| (name, ordered.restore(&c)))
                .collect(),
            files: vec![
                ("tree.json".into(), told.json(points)?),
                ("tree.dot".into(), tree.dot(&clusters)),
            ],
            curves: Vec::new(),
            labels: ordered.restore(&labels),
            notes,
        })
    }
}

impl Ppp {
    /// Step 8 for columns, on the root's sample or fewer rows; `None` if the root was not split.
    fn columns(
        &self,
        x: ArrayView2<f64>,
        tree: &Tree,
        context: &Context,
        notes: &mut Vec<String>,
    ) -> Result<Option<columns::Reduction>> {
        let d = x.ncols();
        let (Some(sides), false) = (&tree.root_sides, tree.nodes[0].is_leaf()) else {
            return Ok(None);
        };
        if !self.reduce_columns || d < 2 {
            return Ok(None);
        }
        if let Err(e) = context.require("eliminating columns", matrix_bytes(5 * d as u64, d as u64))
        {
            notes.push(format!("no columns were eliminated: {e}"));
            return Ok(None);
        }
        let most = (ELIMINATION_ENTRIES / d).max(1000);
        let step = tree.sample.len().div_ceil(most);
        let sample: Vec<u32> = tree.sample.iter().copied().step_by(step.max(1)).collect();
        let sides: Vec<u32> = sample.iter().map(|row| sides[*row as usize]).collect();
        columns::reduce(
            gather(x, &sample).view(),
            &sides,
            self.covariance.of(d),
            context,
        )
        .map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clustering::Model;
    use ndarray::{Array2, Axis, s};
    use papertrial_core::data::Table;
    use papertrial_core::options::Settings;
    use papertrial_numerics::sampling::{permutation, rng};
    use proptest::prelude::*;
    use rand::RngExt;
    use rand_distr::{Cauchy, Distribution, StandardNormal};
    use serde_json::json;

    /// Normal groups about the given centres \[k, d\], row i in group i mod k.
    fn blobs(n: usize, centres: &Array2<f64>, spread: f64, seed: u64) -> Array2<f64> {
        let mut draws = rng(seed, "test");
        Array2::from_shape_fn((n, centres.ncols()), |(i, c)| {
            let noise: f64 = StandardNormal.sample(&mut draws);
            centres[[i % centres.nrows(), c]] + spread * noise
        })
    }

    fn fit(x: &Array2<f64>, method: &Ppp, seed: u64) -> Grouping {
        let points = Points::from_matrix(x.clone()).unwrap();
        method.fit(&points, &Context::with_seed(seed)).unwrap()
    }

    fn three_centres() -> Array2<f64> {
        ndarray::array![[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 3.0]]
    }

    #[test]
    fn two_far_groups_on_a_line_are_two_clusters() {
        // 30 values about 0 and 20 about 50.
        let x = Array2::from_shape_fn((50, 1), |(i, _)| {
            if i < 30 {
                (i % 7) as f64 * 0.3
            } else {
                50.0 + (i % 5) as f64 * 0.3
            }
        });
        let found = fit(&x, &Ppp::default(), 0);
        // The larger is cluster 0.
        let expected: Vec<i32> = (0..50).map(|i| i32::from(i >= 30)).collect();
        assert_eq!(found.labels, expected);
        let tree: serde_json::Value = serde_json::from_str(&found.files[0].1).unwrap();
        assert_eq!(tree["clusters"], 2);
        let nodes = tree["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[0]["split"]["sides"], json!([30, 20]));
        assert_eq!(nodes[1]["cluster"], 0);
        assert_eq!(
            (&nodes[1]["rows"], &nodes[1]["reason"].is_string()),
            (&json!(30), &true)
        );
        let mean = x.slice(s![..30, 0]).sum() / 30.0;
        assert!((nodes[1]["centre"][0].as_f64().unwrap() - mean).abs() < 1e-12);
        assert_eq!(tree["most_separable"]["node"], 0);
        assert!(found.files[1].1.contains("n0 -> n2"));
    }

    #[test]
    fn one_gaussian_is_one_cluster_with_a_reason() {
        let x = blobs(600, &Array2::zeros((1, 3)), 1.0, 0);
        let found = fit(&x, &Ppp::default(), 0);
        assert!(found.labels.iter().all(|l| *l == 0));
        assert!(
            found.notes[0].starts_with("one cluster: "),
            "{:?}",
            found.notes
        );
        assert!(found.notes[0].contains("BIC gap") || found.notes[0].contains("agrees"));
    }

    #[test]
    fn a_cut_through_a_cluster_is_refused_and_another_direction_tried() {
        // Seven groups of which 2-means along the first direction cuts one in two.
        let blobs = &crate::simulations::SIMULATIONS[0];
        let batch = (blobs.generate)(113, &Settings::new()).unwrap();
        let table = Table::memory(blobs.name, vec![batch]);
        let roles = (blobs.roles)();
        let points = Points::of(&table, &roles, true, &Context::with_seed(0)).unwrap();
        let x = points.matrix(&Context::with_seed(0)).unwrap();
        let with = |directions: usize| {
            let method = Ppp {
                directions,
                ..Ppp::default()
            };
            fit(x, &method, 0)
        };
        let (one, three) = (with(1), with(3));
        assert_eq!(one.groups(), 1, "{:?}", one.notes);
        assert!(one.notes[0].contains("agrees"), "{:?}", one.notes);
        assert_eq!(three.groups(), 7, "{:?}", three.notes);
    }

    #[test]
    fn memberships_sum_to_one_and_the_model_gives_the_same_labels() {
        let low = blobs(300, &three_centres(), 1.0, 1);
        // Wider than the mixture's space, so that the model is lifted from the components; one column is constant.
        let mut centres = Array2::zeros((3, 14));
        centres.slice_mut(s![.., 2..5]).assign(&three_centres());
        let mut high = blobs(400, &centres, 1.0, 2);
        high.column_mut(7).fill(3.5);
        for x in [low, high] {
            let found = fit(&x, &Ppp::default(), 0);
            assert_eq!(found.groups(), 3);
            let (labels, again) = found.model.as_ref().unwrap().label(&x).unwrap();
            assert_eq!(labels, found.labels);
            let (all, again) = (found.memberships.unwrap(), again.unwrap());
            assert!((&all - &again).iter().all(|v| v.abs() < 1e-6));
            assert!(all.outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-12));
            let own = &found.columns[1].1;
            assert!(
                own.iter()
                    .enumerate()
                    .all(|(i, p)| *p == all[[i, labels[i] as usize]])
            );

            let paths = fit(
                &x,
                &Ppp {
                    repair: false,
                    ..Ppp::default()
                },
                0,
            );
            let all = paths.memberships.unwrap();
            assert!(all.outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-9));
            for (i, label) in paths.labels.iter().enumerate() {
                assert!((all[[i, *label as usize]] - paths.columns[1].1[i]).abs() < 1e-9);
            }
            assert!(matches!(paths.model, Some(Model::Centres(_))));
        }
    }

    /// All that a fit yields is the same, row for row, and bit for bit.
    fn assert_same(a: &Grouping, b: &Grouping, order: &[usize]) {
        let back =
            |values: &[f64]| -> Vec<u64> { order.iter().map(|i| values[*i].to_bits()).collect() };
        let bits = |values: &[f64]| -> Vec<u64> { values.iter().map(|v| v.to_bits()).collect() };
        let labels: Vec<i32> = order.iter().map(|i| a.labels[*i]).collect();
        assert_eq!(labels, b.labels);
        for ((name, values), (_, others)) in a.columns.iter().zip(&b.columns) {
            assert_eq!(back(values), bits(others), "{name}");
        }
        let all = a.memberships.as_ref().unwrap().select(Axis(0), order);
        assert_eq!(&all, b.memberships.as_ref().unwrap());
        assert_eq!(
            (&a.files, &a.notes, &a.model),
            (&b.files, &b.notes, &b.model)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shuffled_rows_give_the_same_bits(
            seed: u64, n in 1usize..260, d in 1usize..14, groups in 1usize..5, spread in 0.2f64..4.0,
            copies in 0usize..40, coarse: bool, repair: bool, consensus in 0usize..4, bimodality: bool,
        ) {
            let mut draws = rng(seed, "centres");
            let centres = Array2::from_shape_simple_fn((groups, d), || 10.0 * draws.random::<f64>());
            let mut x = blobs(n, &centres, spread, seed);
            if coarse {
                x.mapv_inplace(|v| v.round());
            }
            for i in 0..copies.min(n) {
                let row = x.row(i / 3).to_owned();
                x.row_mut(i).assign(&row);
            }
            let method = Ppp { repair, consensus, bimodality, ..Ppp::default() };
            let order = permutation(&mut draws, n);
            let shuffled = x.select(Axis(0), &order);
            let (a, b) = (fit(&x, &method, 7), fit(&shuffled, &method, 7));
            assert_same(&a, &b, &order);
            // Without the consensus the seed is of no account.
            if consensus == 0 {
                prop_assert_eq!(&fit(&x, &method, 8).labels, &a.labels);
            }
            // Equal rows are in one cluster.
            for i in 1..n {
                if x.row(i) == x.row(i - 1) {
                    prop_assert_eq!(a.labels[i], a.labels[i - 1]);
                }
            }
            // Rules that every tree keeps.
            let tree: serde_json::Value = serde_json::from_str(&a.files[0].1).unwrap();
            for node in tree["nodes"].as_array().unwrap() {
                let leaf = node["children"].is_null();
                prop_assert_eq!(leaf, node["reason"].is_string());
                prop_assert!(leaf || node["split"]["bic_gap"].as_f64() > Some(0.0));
                prop_assert!(node["parent"].is_null() || node["rows"].as_u64() >= Some(10));
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        // More rows than a mixture is fitted to, so that every path is taken.
        let x = blobs(24_000, &three_centres(), 1.6, 3);
        let method = Ppp {
            consensus: 1,
            directions: 2,
            ..Ppp::default()
        };
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| fit(&x, &method, 0))
        };
        let order: Vec<usize> = (0..x.nrows()).collect();
        let one = with(1);
        assert_eq!(one.groups(), 3);
        assert_same(&one, &with(2), &order);
        assert_same(&one, &with(3), &order);
    }

    #[test]
    fn edges_give_one_cluster_and_its_reason() {
        let reason = |x: Array2<f64>| {
            let found = fit(&x, &Ppp::default(), 0);
            assert!(found.labels.iter().all(|l| *l == 0));
            assert_eq!(
                found.memberships.unwrap(),
                Array2::<f64>::ones((x.nrows(), 1))
            );
            assert!(
                found
                    .model
                    .unwrap()
                    .label(&x)
                    .unwrap()
                    .0
                    .iter()
                    .all(|l| *l == 0)
            );
            found.notes[0].clone()
        };
        assert!(reason(ndarray::array![[4.0, 5.0]]).contains("1 rows are too few"));
        assert!(reason(Array2::from_elem((100, 3), 0.1)).contains("all equal"));
        assert!(
            reason(blobs(19, &three_centres(), 1.0, 0)).contains("too few for two sides of 10")
        );
        // More columns than rows: two sides of eleven do not fit into twenty rows.
        assert!(reason(blobs(20, &Array2::zeros((1, 50)), 1.0, 0)).contains("two sides of 11"));
    }

    #[test]
    fn constant_columns_copies_and_wide_tables_are_survived() {
        // Two points, each many times: no variance within the sides but the ridge.
        let x = Array2::from_shape_fn((60, 3), |(i, c)| if c == 2 { 7.0 } else { (i % 2) as f64 });
        assert_eq!(fit(&x, &Ppp::default(), 0).groups(), 2);
        // 60 rows of 200 columns in two groups.
        let mut centres = Array2::zeros((2, 200));
        centres.row_mut(1).fill(3.0);
        let wide = blobs(60, &centres, 1.0, 4);
        for pca in [0, 4, 10] {
            let method = Ppp {
                pca,
                min_size: 10,
                ..Ppp::default()
            };
            let found = fit(&wide, &method, 0);
            // In the columns themselves a side would need 201 rows.
            assert_eq!(found.groups(), if pca == 0 { 1 } else { 2 });
        }
    }

    #[test]
    fn heavy_tails_end_by_the_rules() {
        let mut draws = rng(5, "test");
        let tails = Cauchy::new(0.0, 1.0).unwrap();
        let x = Array2::from_shape_simple_fn((3000, 2), || tails.sample(&mut draws));
        for min_size in [0, 1] {
            let method = Ppp {
                min_size,
                max_depth: 5,
                repair: false,
                ..Ppp::default()
            };
            let found = fit(&x, &method, 0);
            let tree: serde_json::Value = serde_json::from_str(&found.files[0].1).unwrap();
            let least = if min_size == 0 { 30 } else { 3 };
            for node in tree["nodes"].as_array().unwrap() {
                assert!(node["depth"].as_u64().unwrap() <= 5);
                assert!(node["rows"].as_u64().unwrap() >= least);
            }
        }
    }

    #[test]
    fn bad_input_is_told() {
        let points = Points::from_matrix(Array2::zeros((3, 1))).unwrap();
        for theta in [1.5, f64::NAN] {
            let method = Ppp {
                theta,
                ..Ppp::default()
            };
            let e = method.fit(&points, &Context::with_seed(0)).unwrap_err();
            assert!(e.to_string().contains("theta"), "{e}");
        }
        let small = Context {
            memory: Some(10),
            ..Context::with_seed(0)
        };
        assert!(matches!(
            Ppp::default().fit(&points, &small),
            Err(Error::Memory { .. })
        ));
        // The distances of these do not overflow, but the sum of their squares does.
        let huge = Array2::from_shape_fn(
            (100, 2),
            |(i, c)| {
                if (i + c) % 2 == 0 { 2e153 } else { -2e153 }
            },
        );
        let huge = Points::from_matrix(huge).unwrap();
        let e = Ppp::default()
            .fit(&huge, &Context::with_seed(0))
            .unwrap_err();
        assert!(e.to_string().contains("standardise"), "{e}");
    }
}
