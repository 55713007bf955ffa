//! Text from outside as a terminal, a log and a JSON reader can safely have it.
//!
//! In: names of objects, words of libraries, cells. Out: the same, with what nobody sees as escapes.
//! Invariant: what is printed has neither control characters nor any that hide, reorder or join the
//! text around them, and what is printable stays as it was.

use crate::planted::Bug;
use std::fmt::Write;

/// A name or a cell on its line: `\u{202e}` for a character that nobody can see.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_printable(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_unicode()),
        }
    }
    shown
}

/// A message as one line: what parts words or lines is a space, all else as [`printable`] has it.
pub fn one_line(text: &str) -> String {
    printable(&text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

/// The text of a JSON value with the escapes of JSON for what is not printable. Outside of its strings
/// JSON has no such character.
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) || c.is_ascii_whitespace() {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

/// Whether somebody sees a character, and sees what it is.
pub fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        _ if Bug::BidiPrinted.is_planted() => !c.is_control(),
        // Marks, letters and selectors that show nothing by themselves (Default_Ignorable_Code_Point).
        '\u{34F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{180B}'..='\u{180F}'
        | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{FFA0}'
        | '\u{E0000}'..='\u{E0FFF}' => false,
        _ => {
            // The standard library knows what is printable, and says it of a text: of a character behind
            // another one it escapes controls, formats, private and unassigned ones, but no accents.
            let mut text = [b'x'; 5];
            let length = 1 + c.encode_utf8(&mut text[1..]).len();
            str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_escaped_and_what_people_write_is_not() {
        for plain in
            ["logs/2025-01.tsv", "Café Zoë", "Cafe\u{301}", "東京 さくら", "кафе", "قهوة", "a\\b'\"c", "💶"]
        {
            assert_eq!(printable(plain), plain);
            assert_eq!(json(plain), plain);
        }
        let hidden = [
            "\u{0}",
            "\u{7}",
            "\u{1b}",
            "\u{7f}",
            "\u{85}",
            "\u{9b}",
            "\u{a0}",
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{115f}",
            "\u{180e}",
            "\u{200b}",
            "\u{200c}",
            "\u{200d}",
            "\u{200e}",
            "\u{200f}",
            "\u{2028}",
            "\u{2029}",
            "\u{202a}",
            "\u{202b}",
            "\u{202c}",
            "\u{202d}",
            "\u{202e}",
            "\u{2060}",
            "\u{2066}",
            "\u{2067}",
            "\u{2068}",
            "\u{2069}",
            "\u{206f}",
            "\u{3164}",
            "\u{e000}",
            "\u{fe0f}",
            "\u{feff}",
            "\u{fff9}",
            "\u{ffff}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{e01ef}",
            "\u{10ffff}",
        ];
        for text in hidden {
            let c = text.chars().next().unwrap();
            assert_eq!(printable(&format!("a{text}b")), format!("a\\u{{{:x}}}b", u32::from(c)));
            let json = json(&format!("\"a{text}b\""));
            assert!(json.is_ascii(), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), format!("a{text}b"));
        }
        assert_eq!(one_line(" a\n\tb\r\nc \u{2028}"), "a b c \\u{2028}");
    }
}
