//! Search in the catalogue: ranked by BM25, tolerant of a slip of the keyboard.

use crate::catalogue::Paper;
use crate::error::{Error, Result};
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, BoostQuery, FuzzyTermQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, STORED, Schema, TEXT, Value};
use tantivy::{Index, IndexWriter, TantivyDocument, TantivyError, Term};

/// Fields that are searched, and how much a hit in each counts.
const FIELDS: [(&str, f32); 4] = [
    ("slug", 4.0),
    ("title", 3.0),
    ("tasks", 2.0),
    ("summary", 1.0),
];

/// Indices of the papers that match, the best first.
///
/// Every word counts; papers that hold more of them, or rarer ones, come first. A word of five letters or more
/// also matches words that differ by one letter, of eight or more by two.
///
/// # Errors
/// The index cannot be built in memory.
pub fn search(papers: &[Paper], words: &str) -> Result<Vec<usize>> {
    ranked(papers, words).map_err(|e| Error::Failed(format!("search failed: {e}")))
}

fn ranked(papers: &[Paper], words: &str) -> std::result::Result<Vec<usize>, TantivyError> {
    let mut builder = Schema::builder();
    let fields: Vec<(Field, f32)> = FIELDS
        .iter()
        .map(|(name, weight)| (builder.add_text_field(name, TEXT), *weight))
        .collect();
    let place = builder.add_u64_field("place", STORED);
    let index = Index::create_in_ram(builder.build());
    let mut writer: IndexWriter = index.writer_with_num_threads(1, 15_000_000)?;
    for (i, paper) in papers.iter().enumerate() {
        let mut document = TantivyDocument::new();
        let tasks = format!("{} {}", paper.family, paper.tasks.join(" "));
        let texts = [&paper.slug, &paper.title, &tasks, &paper.summary];
        for ((field, _), text) in fields.iter().zip(texts) {
            document.add_text(*field, text);
        }
        document.add_u64(place, i as u64);
        writer.add_document(document)?;
    }
    writer.commit()?;
    let searcher = index.reader()?.searcher();
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    for word in words.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
        if word.is_empty() {
            continue;
        }
        let slips = match word.chars().count() {
            0..5 => 0,
            5..8 => 1,
            _ => 2,
        };
        for (field, weight) in &fields {
            let term = Term::from_field_text(*field, word);
            let exact = TermQuery::new(term.clone(), IndexRecordOption::WithFreqs);
            clauses.push((
                Occur::Should,
                Box::new(BoostQuery::new(Box::new(exact), *weight)),
            ));
            if slips > 0 {
                let near = FuzzyTermQuery::new(term, slips, true);
                // A near word counts, but never as much as the word itself.
                clauses.push((
                    Occur::Should,
                    Box::new(BoostQuery::new(Box::new(near), weight * 0.3)),
                ));
            }
        }
    }
    if clauses.is_empty() {
        return Ok((0..papers.len()).collect());
    }
    let top = TopDocs::with_limit(papers.len().max(1)).order_by_score();
    searcher
        .search(&BooleanQuery::new(clauses), &top)?
        .into_iter()
        .map(|(_, address)| {
            let document: TantivyDocument = searcher.doc(address)?;
            Ok(document
                .get_first(place)
                .and_then(|v| v.as_u64())
                .unwrap_or_default() as usize)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    fn slugs(words: &str) -> Vec<String> {
        let papers = Catalogue::load(None).unwrap().papers;
        search(&papers, words)
            .unwrap()
            .into_iter()
            .map(|i| papers[i].slug.clone())
            .collect()
    }

    #[test]
    fn words_of_title_and_summary_find_the_paper() {
        assert_eq!(slugs("semidefinite clustering")[0], "ila-sdp");
        assert_eq!(slugs("flowtransformer")[0], "flowtransformer");
        assert_eq!(slugs("speculative decoding optimal transport")[0], "spectr");
    }

    #[test]
    fn a_slip_still_finds_it() {
        assert_eq!(slugs("semidefinte clustring")[0], "ila-sdp");
        assert_eq!(slugs("flowtransfromer")[0], "flowtransformer");
    }

    #[test]
    fn nonsense_finds_nothing_and_no_words_find_all() {
        assert!(slugs("qqqqzzzzxxxx").is_empty());
        assert_eq!(slugs(" ").len(), 90);
    }
}
