//! Money in integer cents.
//!
//! In: the text of one amount. Out: cents.
//! Invariant: money is never a float; the grammar is strict ASCII; a parsed amount is within
//! ±[`AMOUNT_CENTS_MAX`].

/// The largest amount of one transaction, in cents: ten thousand million units.
pub const AMOUNT_CENTS_MAX: i64 = 1_000_000_000_000;

/// The first value that DECIMAL(18,2) cannot hold, in cents.
pub const DECIMAL_CENTS_LIMIT: i64 = 1_000_000_000_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountError {
    /// Not `-?digits(.d{1,2})?` in ASCII.
    Malformed,
    /// Well formed, but further from zero than [`AMOUNT_CENTS_MAX`].
    OutOfRange,
}

/// Parses `-?digits` with at most two decimals: `12`, `12.3`, `-0.05`. Refused are plus signs,
/// exponents, grouping and a point without digits. `-0.00` is 0.
pub fn parse_amount_cents(text: &[u8]) -> Result<i64, AmountError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut cents = 0i64;
    let mut whole_digits = 0;
    while let Some(digit) = digits.get(whole_digits).filter(|d| d.is_ascii_digit()) {
        cents = cents.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
        whole_digits += 1;
    }
    let (tens, ones) = match digits.get(whole_digits..) {
        _ if whole_digits == 0 => return Err(AmountError::Malformed),
        Some([]) => (b'0', b'0'),
        Some([b'.', tens]) => (*tens, b'0'),
        Some([b'.', tens, ones]) => (*tens, *ones),
        _ => return Err(AmountError::Malformed),
    };
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return Err(AmountError::Malformed);
    }
    let fraction = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let cents = cents.saturating_mul(100).saturating_add(fraction);
    match cents {
        cents if cents > AMOUNT_CENTS_MAX => Err(AmountError::OutOfRange),
        cents if negative => Ok(-cents),
        cents => Ok(cents),
    }
}

/// Formats cents as units with two decimals: `-12.05`.
pub fn format_cents(cents: i128) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let magnitude = cents.unsigned_abs();
    format!("{sign}{}.{:02}", magnitude / 100, magnitude % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second implementation of the grammar, by splitting strings.
    fn slowly(text: &str) -> Result<i64, AmountError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |s: &str| !s.is_empty() && s.chars().all(|c| "0123456789".contains(c));
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 2 {
            return Err(AmountError::Malformed);
        }
        let cents: i128 = format!("{whole}{fraction:0<2}").parse().unwrap();
        if cents > 1_000_000_000_000 {
            return Err(AmountError::OutOfRange);
        }
        Ok(if text.starts_with('-') { -cents as i64 } else { cents as i64 })
    }

    #[test]
    fn short_strings_parse_as_by_the_second_implementation() {
        let alphabet = ['0', '9', '1', '.', '-', '+', 'e', ',', ' ', '٣'];
        let mut texts = vec![String::new()];
        for _ in 0..6 {
            for text in &texts {
                assert_eq!(parse_amount_cents(text.as_bytes()), slowly(text), "{text:?}");
            }
            texts = texts.iter().flat_map(|t| alphabet.iter().map(move |c| format!("{t}{c}"))).collect();
        }
    }

    #[test]
    fn amounts_are_accepted_up_to_the_limit() {
        assert_eq!(parse_amount_cents(b"10000000000.00"), Ok(AMOUNT_CENTS_MAX));
        assert_eq!(parse_amount_cents(b"-10000000000.00"), Ok(-AMOUNT_CENTS_MAX));
        for big in ["10000000000.01", "99999999999999999999999999999999.99"] {
            assert_eq!(parse_amount_cents(big.as_bytes()), Err(AmountError::OutOfRange));
        }
        assert_eq!(parse_amount_cents(b"-0.00"), Ok(0));
        assert_eq!(format_cents(-5), "-0.05");
        assert_eq!(format_cents(123_456), "1234.56");
    }
}
