//! Finds the correct spelling of a misspelled key or variable.

/// Returns the word that is most similar to `text`, or `None` if no word is similar enough. One letter may be
/// missing, extra, wrong or swapped with its neighbour, and one more letter for every ten letters of `text`.
/// Dashes, underscores and dots do not count.
pub(super) fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| text.replace(['_', '-', '.'], "");
    let distance = |word: &&str| strsim::damerau_levenshtein(&letters(text), &letters(word));
    let near = words.into_iter().min_by_key(distance)?;
    (distance(&near) <= 1 + letters(text).len() / 10).then_some(near)
}
