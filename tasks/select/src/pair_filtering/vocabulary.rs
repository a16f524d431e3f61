//! Texts as numbers of words.

use std::collections::HashMap;

/// Words of a text: runs of letters and digits in lower case.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
}

/// The `most` most frequent words of `texts`; of equally frequent ones the first in the alphabet.
pub(super) fn frequent<'a>(texts: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for text in texts {
        for word in words(text) {
            *counts.entry(word).or_default() += 1;
        }
    }
    let mut all: Vec<(String, usize)> = counts.into_iter().collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(most);
    all.into_iter().map(|(word, _)| word).collect()
}

/// Numbers of the words of each text: from 1 for a word of `vocabulary`, 0 for another one, and a single 0 for a text
/// without words.
pub(super) fn numbers(texts: &[String], vocabulary: &[String]) -> Vec<Vec<u32>> {
    let place: HashMap<&str, u32> = vocabulary.iter().map(String::as_str).zip(1..).collect();
    texts
        .iter()
        .map(|text| {
            let found: Vec<u32> = words(text)
                .map(|w| place.get(w.as_str()).copied().unwrap_or_default())
                .collect();
            if found.is_empty() { vec![0] } else { found }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_first_then_the_alphabet() {
        let texts = ["The dog, the cat", "a DOG", "the end"];
        assert_eq!(frequent(texts, 10), ["the", "dog", "a", "cat", "end"]);
        assert_eq!(frequent(texts, 3), ["the", "dog", "a"]);
    }

    #[test]
    fn words_become_their_places() {
        let vocabulary = ["the".to_owned(), "dog".into()];
        let texts = ["Dog: the bird".to_owned(), "?!".into()];
        assert_eq!(numbers(&texts, &vocabulary), [vec![2, 1, 0], vec![0]]);
    }
}
