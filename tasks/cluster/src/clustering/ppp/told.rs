//! What is told beside the labels: remarks, quality, and `tree.json`.

use super::BORDERLINE;
use super::columns::Reduction;
use super::tree::Tree;
use crate::clustering::Points;
use ndarray::ArrayView2;
use papertrial_core::{Error, Result};
use papertrial_numerics::metrics::clustering as score;
use serde::Serialize;
use serde_json::json;

/// Rows of which the silhouette is computed at most.
const SILHOUETTE_ROWS: usize = 2000;

/// For each cluster, the share of the rows that Lloyd gave it whose most probable component it is.
pub(super) fn agreement(groups: &[u32], labels: &[u32], cluster_of: &[usize]) -> Vec<f64> {
    let mut counts = vec![[0usize; 2]; cluster_of.len()];
    for (group, label) in groups.iter().zip(labels) {
        let cluster = cluster_of[*group as usize];
        counts[cluster][0] += 1;
        counts[cluster][1] += usize::from(cluster == *label as usize);
    }
    counts
        .iter()
        .map(|[all, same]| *same as f64 / (*all).max(1) as f64)
        .collect()
}

/// How good the clusters are by the data alone; what needs two clusters is absent with one.
#[derive(Serialize)]
pub(super) struct Quality {
    within_squares: f64,
    silhouette: Option<f64>,
    davies_bouldin: Option<f64>,
}

impl Quality {
    pub(super) fn of(x: ArrayView2<f64>, labels: &[i32], seed: u64) -> Result<Quality> {
        let sample = score::RowSample {
            rows: SILHOUETTE_ROWS,
            seed,
        };
        Ok(Quality {
            within_squares: score::inertia(x, labels).map_err(|e| Error::Failed(e.to_string()))?,
            silhouette: score::silhouette(x, labels, Some(sample)).ok(),
            davies_bouldin: score::davies_bouldin(x, labels).ok(),
        })
    }
}

#[derive(Serialize)]
pub(super) struct RepairTold {
    /// Nodes whose two parts became one cluster.
    pub merged: Vec<usize>,
    /// Share of Lloyd's rows of each cluster that the mixture leaves there.
    pub agreement: Vec<f64>,
}

/// All that is told beside the labels.
pub(super) struct Told<'a> {
    pub tree: &'a Tree,
    pub clusters: &'a [Option<usize>],
    pub names: &'a [String],
    pub border: usize,
    pub quality: Quality,
    pub reduction: Option<Reduction>,
    pub repair: Option<RepairTold>,
}

impl Told<'_> {
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let root = &self.tree.nodes[0];
        let leaves = self.tree.nodes.iter().filter(|node| node.is_leaf()).count();
        match &root.reason {
            Some(reason) => notes.push(format!("one cluster: {reason}")),
            None => {
                let depth = self
                    .tree
                    .nodes
                    .iter()
                    .map(|node| node.depth)
                    .max()
                    .unwrap_or(0);
                notes.push(format!("the tree has {leaves} leaves and depth {depth}"));
            }
        }
        if let Some(repair) = &self.repair
            && leaves > 1
        {
            let least = repair.agreement.iter().copied().fold(1.0, f64::min);
            notes.push(format!(
                "repair: {} merges; in every cluster the mixture agrees with Lloyd on at least {least:.3} of the rows",
                repair.merged.len()
            ));
        }
        if let Some((id, found)) = self.tree.most_separable() {
            notes.push(format!(
                "the most separable set: node {id} of {} rows, into {} and {}: J {:.2}, overlap {:.4}",
                self.tree.nodes[id].rows, found.sides[0], found.sides[1], found.separation, found.overlap
            ));
        }
        if let Some(share) = self.tree.least_stability() {
            notes.push(format!(
                "every accepted split was found by at least {share:.2} of the runs of 2-means"
            ));
        }
        if let Some(reduction) = &self.reduction {
            let [before, after] = reduction.separation_per_column;
            let hopkins = reduction
                .hopkins
                .map(|h| h.map_or("none".into(), |h| format!("{h:.3}")));
            notes.push(format!(
                "the first split keeps {} of {} columns; J for each column {before:.3} before, {after:.3} after; Hopkins statistic {} before, {} after",
                reduction.kept.len(),
                self.names.len(),
                hopkins[0],
                hopkins[1]
            ));
        }
        let absent = || "undefined".to_string();
        notes.push(format!(
            "sum of squares within clusters {:.4}, silhouette {}, Davies-Bouldin {}",
            self.quality.within_squares,
            self.quality
                .silhouette
                .map_or_else(absent, |s| format!("{s:.4}")),
            self.quality
                .davies_bouldin
                .map_or_else(absent, |s| format!("{s:.4}"))
        ));
        if self.border > 0 {
            notes.push(format!(
                "{} rows are on a border (membership below {BORDERLINE})",
                self.border
            ));
        }
        notes
    }

    /// The content of `tree.json`.
    pub(super) fn json(&self, points: &Points) -> Result<String> {
        let named =
            |places: &[usize]| -> Vec<&String> { places.iter().map(|c| &self.names[*c]).collect() };
        let clusters = self
            .clusters
            .iter()
            .flatten()
            .max()
            .map_or(1, |most| most + 1);
        let told = json!({
            "rows": self.tree.nodes[0].rows,
            "columns": self.names,
            "clusters": clusters,
            "borderline_rows": self.border,
            "quality": self.quality,
            "most_separable": self.tree.most_separable().map(|(id, found)| json!({
                "node": id,
                "separation": found.separation,
                "overlap": found.overlap,
            })),
            "columns_of_the_first_split": self.reduction.as_ref().map(|r| json!({
                "kept": named(&r.kept),
                "dropped": named(&r.dropped),
                "separation": r.separation,
                "separation_per_column": r.separation_per_column,
                "bic_gap": r.bic_gap,
                "hopkins": r.hopkins,
            })),
            "repair": self.repair,
            "nodes": self.tree.told(self.clusters, points.scaling()),
        });
        serde_json::to_string_pretty(&told).map_err(|e| Error::Failed(e.to_string()))
    }
}
