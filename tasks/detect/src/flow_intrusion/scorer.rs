//! Scoring flows as they come: batch by batch, with no more of the past than a window needs.

use super::detector::Fitted;
use super::model::Known;
use super::prepare::{Flows, Layout, Tally};
use super::records::{Places, Records};
use arrow::record_batch::RecordBatch;
use papertrial_core::Result;
use papertrial_core::task::Context;
use std::sync::Arc;

/// A fitted detector at work.
pub struct Scorer<'a> {
    known: &'a Known,
    detector: &'a dyn Fitted,
    layout: Arc<Layout>,
    places: Places,
    source: String,
    /// The last flows, as many as a window needs before a new one, then the newest batch.
    held: Flows,
    tally: Tally,
}

/// What is known of a batch.
pub struct Scored {
    /// The probability of each row that it is an attack; `None` for the first rows, which have no whole window.
    pub probabilities: Vec<Option<f32>>,
    /// The rows as they were read.
    pub records: Records,
}

impl<'a> Scorer<'a> {
    /// For batches of a source called `source` with the columns `columns`; `class` is the user's name of the column
    /// with the class.
    ///
    /// # Errors
    /// Columns of the model's schema are missing.
    pub fn new(
        known: &'a Known,
        detector: &'a dyn Fitted,
        source: &str,
        columns: &[String],
        class: Option<&str>,
    ) -> Result<Scorer<'a>> {
        let places = Places::find(&known.schema, source, columns, class)?;
        let layout = Arc::new(known.preparation.layout());
        Ok(Scorer {
            known,
            detector,
            held: Flows {
                layout: layout.clone(),
                numeric: Vec::new(),
                codes: Vec::new(),
                attack: None,
                rows: 0,
            },
            layout,
            places,
            source: source.into(),
            tally: Tally::default(),
        })
    }

    /// Whether the source says what each flow is.
    pub fn labelled(&self) -> bool {
        self.places.labelled()
    }

    /// Scores the rows of the next batch.
    ///
    /// # Errors
    /// A text where a number should be, or a failure of the detector.
    pub fn push(&mut self, batch: &RecordBatch, context: &Context) -> Result<Scored> {
        let mut records = Records::new(&self.places);
        records.push(batch, &self.places, &self.known.schema, &self.source)?;
        let flows = self
            .known
            .preparation
            .transform(&records, &self.layout, &mut self.tally);
        let before = self.detector.window() - 1;
        self.held.follow(&flows, before);
        let first = self.held.rows - flows.rows;
        let whole: Vec<usize> = (first.max(before)..self.held.rows).collect();
        let mut probabilities = vec![None; flows.rows - whole.len()];
        let scores = self.detector.score(&self.held, &whole, context)?;
        probabilities.extend(scores.into_iter().map(Some));
        Ok(Scored {
            probabilities,
            records,
        })
    }

    /// Whether a probability is an alert.
    pub fn is_alert(&self, probability: f32) -> bool {
        f64::from(probability) > self.known.threshold
    }

    /// How often numbers were not what training showed, so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }
}
