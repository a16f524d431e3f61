//! Ground sets: what a subset is chosen from, and how they are read from a table with one row an element.

use ndarray::{Array2, ArrayView1, Axis};
use papertrial_core::data::{Features, Roles, Table};
use papertrial_core::task::Context;
use papertrial_core::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// A set of n elements, each a vector of d numbers, and which of them are the right ones, where that is known.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundSet {
    /// Name of the set.
    pub name: String,
    /// Names of the elements, n of them, no two alike.
    pub elements: Vec<String>,
    /// Features \[n, d\].
    pub features: Array2<f32>,
    /// The right subset, as a mark for each element.
    pub chosen: Option<Vec<bool>>,
}

impl GroundSet {
    /// Number of elements, n.
    pub fn len(&self) -> usize {
        self.features.nrows()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers of the right elements; none where they are not known.
    pub fn right(&self) -> Vec<usize> {
        let marks = self.chosen.iter().flatten();
        marks.enumerate().filter(|m| *m.1).map(|m| m.0).collect()
    }

    /// Size of the right subset; 0 where it is not known.
    pub fn right_size(&self) -> usize {
        self.chosen.iter().flatten().filter(|c| **c).count()
    }
}

/// Checks sets that a method learns from or is scored on: at least two elements of one width, finite features, marks
/// for all elements, neither none nor all of them chosen.
///
/// # Errors
/// The first set that is not so, by its name.
pub fn check_marked(sets: &[GroundSet], what: &str) -> Result<()> {
    let Some(width) = sets.first().map(|s| s.features.ncols()) else {
        return Err(Error::BadInput(format!("there are no {what} sets")));
    };
    for set in sets {
        check(set, width)?;
        let wrong =
            |problem: String| Err(Error::BadInput(format!("set '{}': {problem}", set.name)));
        let n = set.len();
        match &set.chosen {
            None => return wrong("its elements have no chosen marks".into()),
            Some(marks) if marks.len() != n => {
                return wrong(format!("has {n} elements and {} chosen marks", marks.len()));
            }
            Some(marks) if !marks.contains(&true) => {
                return wrong("none of its elements is chosen, so nothing can be learned from it; leave the set out".into());
            }
            Some(marks) if !marks.contains(&false) => {
                return wrong("all of its elements are chosen, so nothing can be learned from it; leave the set out".into());
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Checks sets from which a method with `width` features is to choose.
///
/// # Errors
/// The first set with fewer than two elements, another width, a feature that is not finite, or an element twice.
pub fn check_open(sets: &[GroundSet], width: usize) -> Result<()> {
    sets.iter().try_for_each(|set| check(set, width))
}

fn check(set: &GroundSet, width: usize) -> Result<()> {
    let wrong = |problem: String| Err(Error::BadInput(format!("set '{}': {problem}", set.name)));
    if set.len() < 2 {
        return wrong(format!(
            "has {} element, and there is something to choose only from two on; leave the set out",
            set.len()
        ));
    }
    if set.features.ncols() != width {
        return wrong(format!(
            "has {} features where the first training set has {width}",
            set.features.ncols()
        ));
    }
    if set.elements.len() != set.len() {
        return wrong(format!(
            "has {} names for {} elements",
            set.elements.len(),
            set.len()
        ));
    }
    let bad = set.features.iter().position(|v| !v.is_finite());
    if let Some(at) = bad {
        return wrong(format!(
            "element '{}' has a feature that is not a finite number (number {} of {width})",
            set.elements[at / width.max(1)],
            at % width.max(1) + 1
        ));
    }
    let mut seen = HashSet::with_capacity(set.len());
    match set.elements.iter().find(|e| !seen.insert(e.as_str())) {
        Some(twice) => wrong(format!(
            "element '{twice}' comes twice; an element may be in a set once"
        )),
        None => Ok(()),
    }
}

/// Reads sets from a table with one row an element: `--group` names the set, `--id` the element (else its number within
/// the set), `--label` the chosen marks (1 and 0, true and false; all cells of a set empty where they are not known).
/// Sets come in the order of their first rows. The second value names the features.
///
/// # Errors
/// No group column; an empty set name; a mark that is neither; a set with marks for some elements only; a feature that is
/// no finite number (with its row and column); an element twice in a set.
pub fn read(
    table: &Table,
    roles: &Roles,
    context: &Context,
) -> Result<(Vec<GroundSet>, Vec<String>)> {
    let features = Features::of(table, roles)?;
    let matrix = features.matrix(context)?;
    let group = roles.group.as_deref().ok_or_else(|| {
        Error::option(
            "--group",
            "name the column that tells which set a row belongs to",
        )
    })?;
    let names = texts(table, "--group", group)?;
    let ids = match roles.id.as_deref() {
        Some(id) => Some((id, texts(table, "--id", id)?)),
        None => None,
    };
    let marks = match roles.label.as_deref() {
        Some(label) => Some((label, marks(table, label)?)),
        None => None,
    };
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for (row, name) in names.iter().enumerate() {
        let name = name.as_deref().ok_or_else(|| {
            Error::column(table.name(), group, format!("row {} names no set", row + 1))
        })?;
        let at = *place.entry(name).or_insert_with(|| {
            rows.push(Vec::new());
            rows.len() - 1
        });
        rows[at].push(row);
    }
    let mut order: Vec<(&str, usize)> = place.into_iter().collect();
    order.sort_unstable_by_key(|(_, at)| *at);
    let mut sets = Vec::with_capacity(rows.len());
    for ((name, _), rows) in order.into_iter().zip(&rows) {
        let mut elements = Vec::with_capacity(rows.len());
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for (number, row) in rows.iter().enumerate() {
            let Some((column, ids)) = &ids else {
                elements.push((number + 1).to_string());
                continue;
            };
            let id = ids[*row].as_deref().ok_or_else(|| {
                Error::column(table.name(), column, format!("row {} is empty", row + 1))
            })?;
            if let Some(first) = seen.insert(id, *row) {
                return Err(Error::column(
                    table.name(),
                    column,
                    format!(
                        "element '{id}' comes twice in set '{name}' (rows {} and {}); an element may be in a set once",
                        first + 1,
                        row + 1
                    ),
                ));
            }
            elements.push(id.to_owned());
        }
        let chosen = match &marks {
            None => None,
            Some((column, marks)) => {
                let known: Vec<bool> = rows.iter().filter_map(|r| marks[*r]).collect();
                if !known.is_empty() && known.len() < rows.len() {
                    let row = rows
                        .iter()
                        .find(|r| marks[**r].is_none())
                        .map_or(0, |r| r + 1);
                    return Err(Error::column(
                        table.name(),
                        column,
                        format!(
                            "row {row} is empty though other elements of set '{name}' are marked; mark all of them, or none"
                        ),
                    ));
                }
                (!known.is_empty()).then_some(known)
            }
        };
        sets.push(GroundSet {
            name: name.to_owned(),
            elements,
            features: matrix.select(Axis(0), rows).mapv(|v| v as f32),
            chosen,
        });
    }
    // A number that fits f64 may not fit f32.
    check_open_sizes(&sets)?;
    Ok((sets, features.names().to_vec()))
}

/// Features that became infinite on their way to f32.
fn check_open_sizes(sets: &[GroundSet]) -> Result<()> {
    for set in sets {
        if let Some(v) = set.features.iter().position(|v| !v.is_finite()) {
            return Err(Error::BadInput(format!(
                "set '{}': element '{}' has a feature beyond 3e38; scale the column",
                set.name,
                set.elements[v / set.features.ncols().max(1)]
            )));
        }
    }
    Ok(())
}

/// Cells of a column as texts; `None` for an empty one.
fn texts(table: &Table, option: &str, column: &str) -> Result<Vec<Option<String>>> {
    table.texts(table.column_for(option, column)?)
}

/// Chosen marks of all rows.
fn marks(table: &Table, column: &str) -> Result<Vec<Option<bool>>> {
    texts(table, "--label", column)?
        .iter()
        .enumerate()
        .map(|(row, cell)| match cell.as_deref() {
            None => Ok(None),
            Some("1" | "1.0") => Ok(Some(true)),
            Some("0" | "0.0") => Ok(Some(false)),
            Some(t) if t.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(t) if t.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(Error::column(
                table.name(),
                column,
                format!(
                    "row {} holds '{other}'; a chosen mark is 1 or 0, true or false, or empty where the right subset is not known",
                    row + 1
                ),
            )),
        })
        .collect()
}

/// Mean and deviation of each feature, by which all features are scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

/// Scaled features beyond this many deviations are cut.
const MOST_DEVIATIONS: f64 = 5.0;

impl Scale {
    /// From all elements of `sets`. A feature that is constant becomes 0.
    pub fn of(sets: &[GroundSet]) -> Scale {
        let width = sets.first().map_or(0, |s| s.features.ncols());
        let rows = sets.iter().map(GroundSet::len).sum::<usize>().max(1) as f64;
        let sum = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let mut total = vec![0.0; width];
            for row in sets.iter().flat_map(|s| s.features.outer_iter()) {
                for (c, (t, v)) in total.iter_mut().zip(row).enumerate() {
                    *t += f(c, f64::from(*v));
                }
            }
            total.iter().map(|t| t / rows).collect()
        };
        let mean = sum(&|_, v| v);
        let deviation = sum(&|c, v| (v - mean[c]).powi(2))
            .iter()
            .map(|v| v.sqrt())
            .collect();
        Scale { mean, deviation }
    }

    /// Scales all features of `sets`.
    pub fn apply(&self, sets: &mut [GroundSet]) {
        for mut row in sets.iter_mut().flat_map(|s| s.features.outer_iter_mut()) {
            for ((v, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                // The deviation of a constant feature is rounding, not zero.
                let scaled = if *deviation > 1e-6 * mean.abs().max(1e-30) {
                    (f64::from(*v) - mean) / deviation
                } else {
                    0.0
                };
                *v = scaled.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS) as f32;
            }
        }
    }
}

/// Share of the elements of `test` whose features also occur, bit for bit, in a set of `train`.
pub fn shared_elements(train: &[GroundSet], test: &[GroundSet]) -> f64 {
    let bits = |row: ArrayView1<f32>| -> Vec<u32> { row.iter().map(|v| v.to_bits()).collect() };
    let known: HashSet<Vec<u32>> = train
        .iter()
        .flat_map(|s| s.features.outer_iter().map(bits))
        .collect();
    let all = test.iter().map(GroundSet::len).sum::<usize>().max(1);
    let shared = test
        .iter()
        .flat_map(|s| s.features.outer_iter().map(bits))
        .filter(|row| known.contains(row))
        .count();
    shared as f64 / all as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::record_batch::RecordBatch;
    use ndarray::array;
    use std::sync::Arc;

    /// A set of one feature with marks.
    pub(crate) fn set(name: &str, values: &[f32], chosen: &[usize]) -> GroundSet {
        let n = values.len();
        GroundSet {
            name: name.into(),
            elements: (0..n).map(|i| format!("e{i}")).collect(),
            features: Array2::from_shape_vec((n, 1), values.to_vec()).unwrap(),
            chosen: Some((0..n).map(|i| chosen.contains(&i)).collect()),
        }
    }

    fn table(rows: &[(&str, &str, f64, Option<&str>)]) -> (Table, Roles) {
        let text = |f: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
            Arc::new((0..rows.len()).map(f).collect::<StringArray>())
        };
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("set", text(&|i| Some(rows[i].0.into())), true),
            ("element", text(&|i| Some(rows[i].1.into())), true),
            (
                "x",
                Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2))) as ArrayRef,
                true,
            ),
            ("chosen", text(&|i| rows[i].3.map(str::to_owned)), true),
        ])
        .unwrap();
        let roles = Roles {
            group: Some("set".into()),
            id: Some("element".into()),
            label: Some("chosen".into()),
            ..Roles::default()
        };
        (Table::memory("t", vec![batch]), roles)
    }

    fn read_rows(rows: &[(&str, &str, f64, Option<&str>)]) -> Result<Vec<GroundSet>> {
        let (table, roles) = table(rows);
        read(&table, &roles, &Context::with_seed(0)).map(|r| r.0)
    }

    #[test]
    fn rows_of_a_set_may_lie_anywhere() {
        let sets = read_rows(&[
            ("b", "p", 1.0, Some("1")),
            ("a", "p", 2.0, None),
            ("b", "q", 3.0, Some("false")),
            ("a", "r", 4.0, Some("")),
        ])
        .unwrap();
        assert_eq!(sets.len(), 2);
        assert_eq!((sets[0].name.as_str(), sets[1].name.as_str()), ("b", "a"));
        assert_eq!(sets[0].features, array![[1.0], [3.0]]);
        assert_eq!(sets[0].elements, ["p", "q"]);
        assert_eq!(sets[0].right(), [0]);
        assert_eq!(sets[1].chosen, None);
    }

    #[test]
    fn wrong_rows_are_told_by_row_column_and_set() {
        let told =
            |rows: &[(&str, &str, f64, Option<&str>)]| read_rows(rows).unwrap_err().to_string();
        let twice = told(&[("a", "p", 1.0, Some("1")), ("a", "p", 2.0, Some("0"))]);
        assert!(
            twice.contains("'p' comes twice in set 'a' (rows 1 and 2)"),
            "{twice}"
        );
        let mark = told(&[("a", "p", 1.0, Some("1")), ("a", "q", 2.0, Some("2"))]);
        assert!(
            mark.contains("row 2 holds '2'") && mark.contains("1 or 0"),
            "{mark}"
        );
        let some = told(&[("a", "p", 1.0, Some("1")), ("a", "q", 2.0, None)]);
        assert!(some.contains("row 2 is empty though"), "{some}");
        let name = told(&[("", "p", 1.0, Some("1"))]);
        assert!(name.contains("row 1 names no set"), "{name}");
        let nan = told(&[("a", "p", f64::NAN, Some("1")), ("a", "q", 2.0, Some("0"))]);
        assert!(
            nan.contains("column 'x'") && nan.contains("row 1 is NaN"),
            "{nan}"
        );
        let large = told(&[("a", "p", 1e300, Some("1")), ("a", "q", 2.0, Some("0"))]);
        assert!(large.contains("beyond 3e38"), "{large}");
        let (table, roles) = table(&[("a", "p", 1.0, Some("1"))]);
        let roles = Roles {
            group: None,
            features: vec!["x".into()],
            ..roles
        };
        let no_group = read(&table, &roles, &Context::with_seed(0)).unwrap_err();
        assert!(no_group.to_string().contains("--group"), "{no_group}");
    }

    #[test]
    fn sets_that_teach_nothing_are_refused() {
        let good = set("good", &[1.0, 2.0], &[0]);
        assert!(check_marked(std::slice::from_ref(&good), "training").is_ok());
        let open = GroundSet {
            chosen: None,
            ..good.clone()
        };
        let short = GroundSet {
            chosen: Some(vec![true]),
            ..good.clone()
        };
        let wide = GroundSet {
            features: array![[1.0, 2.0], [3.0, 4.0]],
            ..good.clone()
        };
        let nan = GroundSet {
            features: array![[1.0], [f32::NAN]],
            ..good.clone()
        };
        let twice = GroundSet {
            elements: vec!["a".into(), "a".into()],
            ..good.clone()
        };
        let names = GroundSet {
            elements: vec!["a".into()],
            ..good.clone()
        };
        for (bad, words) in [
            (set("x", &[1.0, 2.0], &[]), "none of its elements"),
            (set("x", &[1.0, 2.0], &[0, 1]), "all of its elements"),
            (set("x", &[1.0], &[0]), "has 1 element"),
            (open, "no chosen marks"),
            (short, "1 chosen marks"),
            (wide, "2 features"),
            (nan, "'e1' has a feature that is not"),
            (twice, "comes twice"),
            (names, "1 names for 2"),
        ] {
            let text = check_marked(&[good.clone(), bad], "training")
                .unwrap_err()
                .to_string();
            assert!(text.contains(words), "{text}");
        }
        assert!(
            check_marked(&[], "training")
                .unwrap_err()
                .to_string()
                .contains("no training sets")
        );
        assert!(check_open(&[good], 1).is_ok());
    }

    #[test]
    fn scaling_follows_the_training_sets_and_constants_vanish() {
        let train = [GroundSet {
            features: array![[0.0, 7.3], [2.0, 7.3], [4.0, 7.3]],
            ..set("a", &[0.0, 0.0, 0.0], &[0])
        }];
        let scale = Scale::of(&train);
        let mut test = [GroundSet {
            features: array![[2.0, 9.0], [1000.0, 7.3]],
            ..set("b", &[0.0, 0.0], &[0])
        }];
        scale.apply(&mut test);
        assert_eq!(test[0].features, array![[0.0, 0.0], [5.0, 0.0]]);
        let mut again = train.clone();
        scale.apply(&mut again);
        let want = (3.0f32 / 2.0).sqrt();
        assert!((again[0].features[[2, 0]] - want).abs() < 1e-6);
    }

    #[test]
    fn shared_elements_are_counted_by_their_features() {
        let train = [set("a", &[1.0, 2.0], &[0])];
        let test = [set("b", &[2.0, 3.0, 4.0, 1.0], &[0])];
        assert_eq!(shared_elements(&train, &test), 0.5);
        assert_eq!(shared_elements(&train, &[]), 0.0);
    }
}
