//! The names of months, as `ls` prints them in many languages and charsets.

use std::collections::HashMap;
use std::sync::LazyLock;

use encoding_rs::{
    Encoding, ISO_8859_2, ISO_8859_7, ISO_8859_13, KOI8_U, UTF_8, WINDOWS_1251, WINDOWS_1252,
    WINDOWS_1254,
};

/// Longest word that can be a month, in bytes.
const LONGEST: usize = 24;

/// Spellings of each month, lower case: abbreviations as printed by the C libraries and by known
/// servers, and full names where a locale has no abbreviation. Where two languages disagree
/// (Croatian `lip`, `srp` and `lis` are a month from the Polish and Czech ones; French `jui`),
/// the language seen more often has the word.
const NAMES: [&str; 12] = [
    "jan january jän jänner januar janv janvier gen gennaio ene enero janeiro sty tammi \
     tammikuu jaan led led. sij oca ocak ian ianuarie sau ιαν янв январь январе яну січ јан",
    "feb february feber fév fev févr fevr février febbraio fbro febrero fevereiro lut helmi \
     helmikuu veebr febr úno uno vel şub sub vas peb φεβ фев фвр февраля лют феб",
    "mar march mrz mär märz mars mrs marzo mzo mrt març márc marca maalis maaliskuu märts bře bre \
     ožu ozu kov marts μαρ мар марта бер мара",
    "apr april avr avril aprile abr ab abril kwi huhti huhtikuu dub tra nis bal ápr απρ апр \
     апреля кві",
    "may mai mag maggio mayo maj maio mei maig touko toukokuu kvě kve máj maí svi geg maijs \
     μάι μαΐ μαι май мая тра мај",
    "jun june juni juin giu giugno junio junho juny cze kesä kes kesäkuu juuni čen cen jún haz \
     iun bir jūn ιούν ιουν июн июня юни чер јун",
    "jul july juli juil juillet jui lug luglio julio julho lip heinä hei heinäkuu juuli čec cec \
     júl tem iul lie jūl ιούλ ιουλ июл июля юли лип јул",
    "aug august aoû août aou aout ago agosto agto ag sie elo elokuu srp ağu agu agt avg rgp kol \
     ágú αύγ αυγ авг августа сер",
    "sep sept september septembre set settembre septiembre sbre setembro wrz syys syyskuu szept \
     zář zar eyl rgs ruj σεπ сен сент сеп вер",
    "oct okt october oktober octobre ott ottobre octubre obre out outubro paź paz pa loka lokakuu \
     říj rij eki spa οκτ окт жов",
    "nov november novembre noviembre nbre novembro lis marras marraskuu kas noi lap stu νοέ νοε \
     ноя ное нов",
    "dec december dez dezember déc décembre dic dicembre diciembre dbre dezembro gru joulu \
     joulukuu dets des pro ara grd δεκ дек гру дец",
];

/// Charsets of names that are not UTF-8, in the order they are tried.
const CHARSETS: [&Encoding; 7] = [
    WINDOWS_1252,
    ISO_8859_2,
    WINDOWS_1251,
    KOI8_U,
    WINDOWS_1254,
    ISO_8859_7,
    ISO_8859_13,
];

/// Every spelling in the bytes of every charset that has it, ASCII in lower case.
static SPELLINGS: LazyLock<HashMap<Vec<u8>, u32>> = LazyLock::new(|| {
    let mut spellings = HashMap::new();
    for charset in [UTF_8].iter().chain(&CHARSETS) {
        for (month, names) in (1..).zip(NAMES) {
            for name in names.split_ascii_whitespace().flat_map(cases) {
                let (bytes, _, lossy) = charset.encode(&name);
                if !lossy {
                    let spelling = bytes.to_ascii_lowercase();
                    spellings.entry(spelling).or_insert(month);
                }
            }
        }
    }
    spellings
});

/// The names in ASCII, which are the same in every charset. To look among all takes a millisecond the
/// first time, and most words that are no month are ASCII.
static PLAIN: LazyLock<HashMap<&[u8], u32>> = LazyLock::new(|| {
    let names = (1..).zip(NAMES).flat_map(|(month, names)| {
        let names = names
            .split_ascii_whitespace()
            .filter(|name| name.is_ascii());
        names.map(move |name| (name.as_bytes(), month))
    });
    names.collect()
});

/// A name in lower case, capitalized, and in capitals.
fn cases(name: &str) -> [String; 3] {
    let (first, rest) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    let capitalized = first.to_uppercase() + rest;
    [name.to_owned(), capitalized, name.to_uppercase()]
}

/// The month, 1 to 12, that `word` names; case and one trailing `.` or `,` aside.
pub(super) fn month(word: &[u8]) -> Option<u32> {
    let word = match word.split_last() {
        Some((b'.' | b',', rest)) => rest,
        _ => word,
    };
    if let Some(english) = abbreviation(word) {
        return Some(english);
    }
    let mut folded = [0; LONGEST];
    let folded = folded.get_mut(..word.len())?;
    folded.copy_from_slice(word);
    folded.make_ascii_lowercase();
    if folded.is_ascii() {
        return PLAIN.get(&*folded).copied();
    }
    SPELLINGS.get(&*folded).copied()
}

/// The three letters that nearly every server prints.
fn abbreviation(word: &[u8]) -> Option<u32> {
    let letters: [u8; 3] = word.try_into().ok()?;
    Some(match &letters.map(|b| b.to_ascii_lowercase()) {
        b"jan" => 1,
        b"feb" => 2,
        b"mar" => 3,
        b"apr" => 4,
        b"may" => 5,
        b"jun" => 6,
        b"jul" => 7,
        b"aug" => 8,
        b"sep" => 9,
        b"oct" => 10,
        b"nov" => 11,
        b"dec" => 12,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_names_two_months() {
        for (at, names) in NAMES.iter().enumerate() {
            for name in names.split_ascii_whitespace() {
                let found = month(name.as_bytes()).map(|month| month as usize);
                assert_eq!(found, Some(at + 1), "{name}");
            }
        }
    }

    #[test]
    fn every_name_is_known_in_every_charset_that_has_it() {
        for name in NAMES.iter().flat_map(|n| n.split_ascii_whitespace()) {
            let expected = month(name.as_bytes());
            for name in cases(name) {
                assert_eq!(month(name.as_bytes()), expected, "{name}");
            }
            for charset in CHARSETS {
                let (bytes, _, lossy) = charset.encode(name);
                if !lossy {
                    assert_eq!(month(&bytes), expected, "{name} in {}", charset.name());
                }
            }
        }
    }

    #[test]
    fn words_that_are_no_months() {
        for word in ["", ".", "root", "janx", "13", "\u{6708}", "wheel"] {
            assert_eq!(month(word.as_bytes()), None, "{word}");
        }
        assert_eq!(month(b"Juli,"), Some(7));
        assert_eq!(month(b"d\xe9c."), Some(12));
    }
}
