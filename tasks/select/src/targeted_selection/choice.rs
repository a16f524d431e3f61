//! The choice itself, and its output: the chosen rows of the pool with rank, score, and who took them.

use super::TaskOptions;
use super::duplicates::{Duplicates, first_ones, shared};
use super::problem::{Fitted, Pool, Queries, Ranking, Selector};
use super::sources;
use super::turns::{Pick, Picking, select_in_order, select_round_robin};
use super::vectors::is_vectors;
use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use papertrial_core::data::{Output, Table};
use papertrial_core::task::{Applied, Context, Job};
use papertrial_core::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Rows of the pool that may not be picked, and why.
#[derive(Debug, Clone, Default)]
pub struct Barred {
    /// Whether each row may be picked; `None`: all may.
    pub allowed: Option<Vec<bool>>,
    /// Rows that are duplicates of earlier ones.
    pub duplicates: usize,
    /// Pairs of query and row with the same words.
    pub shared: Vec<(usize, usize)>,
}

impl Barred {
    /// Looks for duplicates, and for queries in the pool.
    pub fn of(pool: &Pool, queries: &Queries, options: &TaskOptions) -> Barred {
        if pool.rows.is_empty() {
            return Barred::default();
        }
        let mut allowed = first_ones(&pool.rows, pool.part, options.duplicates);
        let duplicates = allowed.iter().filter(|a| !**a).count();
        let shared = shared(&queries.rows, &pool.rows, pool.part);
        if options.drop_queries {
            for (_, row) in &shared {
                allowed[*row] = false;
            }
        }
        Barred {
            allowed: allowed.contains(&false).then_some(allowed),
            duplicates,
            shared,
        }
    }

    /// Remarks for the reader.
    pub fn notes(&self, queries: &Queries, options: &TaskOptions) -> Vec<String> {
        let mut notes = Vec::new();
        if options.duplicates != Duplicates::Keep && self.duplicates > 0 {
            notes.push(format!(
                "{} rows of the pool are duplicates of earlier ones and were not picked",
                self.duplicates
            ));
        }
        if !self.shared.is_empty() {
            let mut some: Vec<String> = self
                .shared
                .iter()
                .take(5)
                .map(|(q, row)| format!("query {} in row {}", queries.ids[*q], row + 1))
                .collect();
            if self.shared.len() > some.len() {
                some.push("…".into());
            }
            notes.push(format!(
                "{} times a row of the pool has the words of a query ({}): {}",
                self.shared.len(),
                some.join(", "),
                if options.drop_queries {
                    "those were not picked"
                } else {
                    "what is trained on these must not be tested on the queries; --set drop-queries=true leaves them out"
                }
            ));
        }
        notes
    }
}

/// Picks rows for `queries`.
///
/// # Errors
/// More rows are asked for than there are, or a computation failed.
pub fn choose(
    fitted: &dyn Fitted,
    pool: &Pool,
    queries: &Queries,
    barred: &Barred,
    options: &TaskOptions,
    context: &Context,
) -> Result<Vec<Pick>> {
    if options.rows > pool.count {
        return Err(Error::option(
            "rows",
            format!(
                "{} is more than the pool's {} rows",
                options.rows, pool.count
            ),
        ));
    }
    let picking = Picking {
        rows: options.rows,
        aggregate: options.aggregate,
        retry: options.retry,
        allowed: barred.allowed.as_deref(),
        cap: options
            .per_source
            .and_then(|cap| pool.sources.as_deref().map(|s| (s, cap))),
    };
    match fitted.rank(queries, context)? {
        Ranking::ByQuery(scores) => select_round_robin(&*scores, &queries.tasks, &picking),
        Ranking::Order(order) => select_in_order(order, &picking),
    }
}

/// Chooses rows for the user's queries and writes them to `out`.
///
/// # Errors
/// Bad input, a computation that failed, or an output that cannot be written.
pub fn apply(
    selector: &dyn Selector,
    options: &TaskOptions,
    job: &Job,
    out: &Path,
    context: &Context,
) -> Result<Applied> {
    let mut output = Output::table(out)?;
    let opened = sources::pool_table(job, options, context)?;
    let asked = sources::query_table(job, options, context)?;
    let beside = |name: &str| -> Result<Option<Table>> {
        let given = job.inputs.contains_key(name);
        given.then(|| job.table(name, context)).transpose()
    };
    let (vectors, query_vectors) = (beside("vectors")?, beside("query-vectors")?);
    let reads = selector.reads();
    let queries = sources::queries(&asked, query_vectors.as_ref(), reads, options)?;
    let pool = sources::pool(&opened, vectors.as_ref(), reads, options, context.seed)?;
    // Before long work, not after it.
    if options.rows > pool.count {
        return Err(Error::option(
            "rows",
            format!(
                "{} is more than the pool's {} rows",
                options.rows, pool.count
            ),
        ));
    }
    let barred = Barred::of(&pool, &queries, options);
    let fitted = selector.fit(&pool, context)?;
    let picks = choose(&*fitted, &pool, &queries, &barred, options, context)?;
    let chosen = chosen_rows(&opened.table, &picks, &queries)?;
    output.write(&[chosen])?;
    if options.keep_states {
        let states = fitted.states(&queries, context)?.ok_or_else(|| {
            Error::option(
                "keep-states",
                format!(
                    "{} makes no embeddings; rds-plus, last-token-states and mean-states do",
                    job.method
                ),
            )
        })?;
        output.side("states.arrow", &arrow_file(&states.pool.table()?)?)?;
        output.side("query-states.arrow", &arrow_file(&states.queries.table()?)?)?;
    }
    let mut notes = fitted.notes();
    notes.extend(barred.notes(&queries, options));
    Ok(Applied {
        files: output.finish()?,
        summary: vec![
            ("rows".into(), picks.len().to_string()),
            ("pool".into(), pool.count.to_string()),
            ("queries".into(), queries.ids.len().to_string()),
            ("tasks".into(), queries.names.len().to_string()),
        ],
        notes,
        ..Applied::default()
    })
}

/// A table as the bytes of an Arrow file.
fn arrow_file(batch: &RecordBatch) -> Result<Vec<u8>> {
    let write = || -> std::result::Result<Vec<u8>, arrow::error::ArrowError> {
        let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema())?;
        writer.write(batch)?;
        writer.into_inner()
    };
    write().map_err(|e| Error::Failed(format!("states cannot be written: {e}")))
}

/// The picked rows with all their columns but embeddings, in the order of their picks, with who took them.
fn chosen_rows(table: &Table, picks: &[Pick], queries: &Queries) -> Result<RecordBatch> {
    let broken = |e: arrow::error::ArrowError| Error::file(table.name(), e);
    let ranks: HashMap<usize, usize> = picks.iter().map(|p| p.row).zip(0..).collect();
    let shown: Vec<usize> = (0..table.schema().fields().len())
        .filter(|&i| !is_vectors(table.schema().field(i).data_type()))
        .collect();
    let (mut parts, mut found, mut first) = (Vec::new(), vec![0u64; picks.len()], 0);
    let mut count = 0u64;
    for batch in table.batches()? {
        let batch = batch?;
        let rows: Vec<u64> = (0..batch.num_rows())
            .filter_map(|i| {
                let rank = ranks.get(&(first + i))?;
                found[*rank] = count;
                count += 1;
                Some(i as u64)
            })
            .collect();
        first += batch.num_rows();
        if !rows.is_empty() {
            let batch = batch.project(&shown).map_err(broken)?;
            parts.push(take_record_batch(&batch, &UInt64Array::from(rows)).map_err(broken)?);
        }
    }
    let Some(schema) = parts.first().map(RecordBatch::schema) else {
        return Err(Error::Failed("no row was chosen".into()));
    };
    let whole = concat_batches(&schema, &parts).map_err(broken)?;
    let whole = take_record_batch(&whole, &UInt64Array::from(found)).map_err(broken)?;

    let query: StringArray = picks
        .iter()
        .map(|p| p.query.map(|q| queries.ids[q].as_str()))
        .collect();
    let task: StringArray = picks
        .iter()
        .map(|p| {
            p.task
                .map(|t| queries.names[t].as_str())
                .filter(|n| !n.is_empty())
        })
        .collect();
    let mut columns: Vec<(String, ArrayRef)> = schema
        .fields()
        .iter()
        .zip(whole.columns())
        .map(|(f, c)| (f.name().clone(), c.clone()))
        .collect();
    let added: [(&str, ArrayRef); 4] = [
        (
            "rank",
            Arc::new(UInt64Array::from_iter_values(1..=picks.len() as u64)),
        ),
        (
            "score",
            Arc::new(
                picks
                    .iter()
                    .map(|p| Some(p.score))
                    .collect::<Float64Array>(),
            ),
        ),
        ("query", Arc::new(query)),
        ("task", Arc::new(task)),
    ];
    for (name, column) in added {
        let mut name = name.to_owned();
        while columns.iter().any(|(n, _)| *n == name) {
            name.insert_str(0, "selection-");
        }
        columns.push((name, column));
    }
    RecordBatch::try_from_iter(columns).map_err(broken)
}
