//! Rows as the numbers that the small language model reads.
//!
//! 1. A row begins with a start mark; each chat message gives its role's mark and its tokens; an answer ends with an end
//!    mark, as in the written form (`rows.rs`); plain text gives its tokens alone.
//! 2. Tokens are bytes, or words: runs of letters, digits and apostrophes in lower case, and each other visible
//!    character by itself. The vocabulary holds the most frequent words of the pool; of equals the first in the
//!    alphabet; every other word is one mark for the unknown.
//! 3. A row is cut after so many tokens; how many rows lost tokens, and how many their whole answer, is counted.

use super::rows::{Part, Row, Speaker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tokens {
    /// A word or a mark.
    Words,
    /// A byte.
    Bytes,
}

const START: u32 = 0;
const END: u32 = 1;
const UNKNOWN: u32 = 2;
const FIRST_ROLE: u32 = 3;
/// Marks: start, end, unknown, and one for each role.
const MARKS: u32 = FIRST_ROLE + 4;

/// The tokens of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// Number of each word; `None`: bytes.
    words: Option<HashMap<String, u32>>,
    /// Longest row, in tokens.
    longest: usize,
}

/// A row as numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Encoded {
    /// The tokens, start mark first.
    pub tokens: Vec<u32>,
    /// First and one past the last token of each answer, end mark included.
    pub answers: Vec<(u32, u32)>,
    /// Whether tokens were cut off.
    pub cut: bool,
    /// Whether nothing is left of an answer that was there.
    pub answer_lost: bool,
}

/// Rows that were cut.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cut {
    /// Rows in all.
    pub rows: usize,
    /// Rows that lost tokens.
    pub cut: usize,
    /// Rows that lost their whole answer.
    pub answers: usize,
}

impl Cut {
    /// Counts the cut among `rows`.
    pub fn of(rows: &[Encoded]) -> Cut {
        Cut {
            rows: rows.len(),
            cut: rows.iter().filter(|r| r.cut).count(),
            answers: rows.iter().filter(|r| r.answer_lost).count(),
        }
    }

    /// A warning, if anything was cut.
    pub fn note(&self, longest: usize) -> Option<String> {
        (self.cut > 0).then(|| {
            let share = 100.0 * self.cut as f64 / self.rows.max(1) as f64;
            format!(
                "{} of {} rows ({share:.1} %) were cut after {longest} tokens, {} of them before their answer; --set length=… reads more",
                self.cut, self.rows, self.answers
            )
        })
    }
}

impl Vocabulary {
    /// The `size` most frequent tokens of `rows`, marks included; a row is cut after `longest` tokens.
    pub fn of(rows: &[Row], kind: Tokens, size: usize, longest: usize) -> Vocabulary {
        let words = (kind == Tokens::Words).then(|| {
            let mut counts: HashMap<String, u64> = HashMap::new();
            for message in rows.iter().flat_map(|r| &r.messages) {
                each_word(&message.content, |word| match counts.get_mut(word) {
                    Some(count) => *count += 1,
                    None => {
                        counts.insert(word.to_owned(), 1);
                    }
                });
            }
            let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
            counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            counts.truncate(size.saturating_sub(MARKS as usize).max(1));
            counts
                .into_iter()
                .map(|(word, _)| word)
                .zip(MARKS..)
                .collect()
        });
        Vocabulary { words, longest }
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        MARKS as usize + self.words.as_ref().map_or(256, HashMap::len)
    }

    /// Longest row, in tokens.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The row as numbers.
    pub fn encode(&self, row: &Row, part: Part) -> Encoded {
        let mut tokens = vec![START];
        let mut answers = Vec::new();
        for message in row.of(part) {
            let answer = message.speaker == Some(Speaker::Assistant);
            if let Some(speaker) = message.speaker {
                tokens.push(FIRST_ROLE + speaker as u32);
            }
            let from = tokens.len();
            let content = if answer {
                message.content.trim()
            } else {
                &message.content
            };
            match &self.words {
                None => tokens.extend(content.bytes().map(|b| MARKS + u32::from(b))),
                Some(words) => each_word(content, |w| {
                    tokens.push(words.get(w).copied().unwrap_or(UNKNOWN));
                }),
            }
            if answer {
                tokens.push(END);
                answers.push((from as u32, tokens.len() as u32));
            }
        }
        let cut = tokens.len() > self.longest;
        let had_answer = !answers.is_empty();
        tokens.truncate(self.longest);
        let left = tokens.len() as u32;
        answers.retain(|(from, _)| *from < left);
        for (_, to) in &mut answers {
            *to = (*to).min(left);
        }
        Encoded {
            tokens,
            answer_lost: had_answer && answers.is_empty(),
            answers,
            cut,
        }
    }

    /// Rows as numbers.
    pub fn encode_all(&self, rows: &[Row], part: Part) -> Vec<Encoded> {
        use rayon::prelude::*;
        rows.par_iter().map(|r| self.encode(r, part)).collect()
    }
}

/// Calls `see` with each word of `text`.
pub fn each_word(text: &str, mut see: impl FnMut(&str)) {
    let text = text.to_lowercase();
    let mut start = None;
    for (at, c) in text.char_indices() {
        if c.is_alphanumeric() || c == '\'' {
            start.get_or_insert(at);
            continue;
        }
        if let Some(from) = start.take() {
            see(&text[from..at]);
        }
        if !c.is_whitespace() {
            see(&text[at..at + c.len_utf8()]);
        }
    }
    if let Some(from) = start {
        see(&text[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        each_word(text, |w| words.push(w.to_owned()));
        words
    }

    #[test]
    fn words_and_marks() {
        assert_eq!(words("We know't, we—"), ["we", "know't", ",", "we", "—"]);
        assert_eq!(words(" 3.5 "), ["3", ".", "5"]);
        assert!(words("\n ").is_empty());
    }

    #[test]
    fn frequent_words_come_first_and_others_are_unknown() {
        let rows = [Row::plain("b a a c"), Row::plain("b a")];
        // Three words fit: a (3 times) and b (2 times); c is before nothing.
        let v = Vocabulary::of(&rows, Tokens::Words, MARKS as usize + 2, 16);
        assert_eq!(v.size(), MARKS as usize + 2);
        let e = v.encode(&Row::plain("c b A"), Part::All);
        assert_eq!(e.tokens, [START, UNKNOWN, MARKS + 1, MARKS]);
        assert_eq!((e.cut, e.answers.len(), e.answer_lost), (false, 0, false));
        let b = Vocabulary::of(&rows, Tokens::Bytes, 0, 16);
        assert_eq!(
            b.encode(&Row::plain("\u{1}"), Part::All).tokens,
            [START, MARKS + 1]
        );
    }

    #[test]
    fn answers_are_found_and_their_loss_is_told() {
        let row = Row::pair("a b", " c ");
        let user = FIRST_ROLE + Speaker::User as u32;
        let assistant = FIRST_ROLE + Speaker::Assistant as u32;
        let encode = |longest| {
            let v = Vocabulary::of(std::slice::from_ref(&row), Tokens::Words, 99, longest);
            v.encode(&row, Part::All)
        };
        let whole = encode(16);
        let (a, b, c) = (MARKS, MARKS + 1, MARKS + 2);
        assert_eq!(whole.tokens, [START, user, a, b, assistant, c, END]);
        assert_eq!(whole.answers, [(5, 7)]);
        let half = encode(6);
        assert_eq!((half.cut, half.answer_lost), (true, false));
        assert_eq!(half.answers, [(5, 6)]);
        let lost = encode(5);
        assert!(lost.cut && lost.answer_lost && lost.answers.is_empty());
        let cut = Cut::of(&[whole, half, lost]);
        assert_eq!((cut.rows, cut.cut, cut.answers), (3, 2, 1));
        let note = cut.note(5).unwrap();
        assert!(
            note.contains("2 of 3 rows (66.7 %)") && note.contains("1 of them"),
            "{note}"
        );
        assert_eq!(Cut::default().note(5), None);
    }
}
