//! What a failed query says.
//!
//! In: an error of DataFusion, of the store below it or of a table that makes its own rows.
//! Out: one of our errors: one line, its kind, and the nearest name where a name was unknown.
//! Invariant: what stood in the query may be repeated, what stood in the data never is.

use std::error::Error as Cause;

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError, TableReference};
use datafusion::error::DataFusionError;

use crate::error::{Error, Kind};

/// Where a fault of the statement itself lies.
const PLACE: &str = "query";

/// How many names are listed when one was unknown.
const NAMES_LISTED: usize = 20;

/// The error for a statement that cannot be planned. Its text comes from the statement.
pub fn planning_failed(error: DataFusionError) -> Error {
    if let Some(found) = cause_of_ours(&error) {
        return found;
    }
    match error.find_root() {
        DataFusionError::SQL(parse, _) => syntax(&parse.to_string()),
        DataFusionError::SchemaError(schema, _) => unknown_column(schema),
        DataFusionError::ArrowError(arrow, _) => advise_on_months(Error::unfit(arrow.to_string()).at(PLACE)),
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => {
            Error::invariant(error.find_root().message())
        }
        root => advise_on_months(Error::unfit(to_the_point(&root.message())).at(PLACE)),
    }
}

/// The error for a query that stopped while it ran. Its text may come from the data, so only
/// what is known to be free of it is repeated.
pub fn reading_failed(error: DataFusionError) -> Error {
    if let Some(found) = cause_of_ours(&error) {
        return found;
    }
    match error.find_root() {
        DataFusionError::ArrowError(arrow, _) => Error::new(Kind::InputRefused, computing(arrow))
            .at(PLACE)
            .advise("try_cast and nullif turn such values into NULL"),
        DataFusionError::ParquetError(parquet) => {
            Error::new(Kind::InputRefused, format!("a part of a published table cannot be read: {parquet}"))
        }
        DataFusionError::ResourcesExhausted(what) => {
            Error::unfit(format!("the query needs more memory: {what}"))
                .at(PLACE)
                .advise("allow more of it, or ask for fewer rows, columns or groups")
        }
        DataFusionError::Internal(what) => Error::invariant(without_values(what)),
        DataFusionError::ExecutionJoin(_) => Error::invariant("a thread of the query stopped"),
        root => Error::new(Kind::InputRefused, without_values(&root.message())).at(PLACE),
    }
}

/// The error for a table that is not there, if that is why planning failed.
pub fn unknown_table(error: &DataFusionError, asked: &[TableReference], known: &[String]) -> Option<Error> {
    let DataFusionError::Plan(message) = error.find_root() else {
        return None;
    };
    let is_missing = |name: &&TableReference| {
        !known.iter().any(|known| known == name.table())
            && message.ends_with(&format!("{}' not found", name.table()))
    };
    let missing = asked.iter().find(is_missing)?.table();
    let what = format!("no table is called `{missing}`");
    Some(Error::unfit(what).at(PLACE).advise(suggestion(missing, known, "tables")))
}

/// The innermost error that already says what to do: one of ours (from a table that makes its
/// own rows), the store's, or the operating system's.
fn cause_of_ours(error: &DataFusionError) -> Option<Error> {
    let mut cause: Option<&(dyn Cause + 'static)> = Some(error);
    let mut found = None;
    while let Some(current) = cause {
        if let Some(ours) = current.downcast_ref::<Error>() {
            return Some(Error::new(ours.kind, ours.to_string()));
        }
        if let Some(store) = current.downcast_ref::<object_store::Error>() {
            return Some(Error::from(same(store)));
        }
        if let Some(system) = current.downcast_ref::<std::io::Error>() {
            // What it wraps is no cause of its own.
            if let Some(ours) = system.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                return Some(Error::new(ours.kind, ours.to_string()));
            }
            found = Some(Error::from(std::io::Error::new(system.kind(), system.to_string())));
        }
        cause = current.source();
    }
    found
}

/// A store's error of the same kind and text. They cannot be cloned, and the one at hand may be
/// shared among partitions.
fn same(error: &object_store::Error) -> object_store::Error {
    use object_store::Error as Store;
    let text = error.source().map(|source| source.to_string()).unwrap_or_default();
    let source = text.into();
    match error {
        Store::NotFound { path, .. } => Store::NotFound { path: path.clone(), source },
        Store::PermissionDenied { path, .. } => Store::PermissionDenied { path: path.clone(), source },
        Store::Unauthenticated { path, .. } => Store::Unauthenticated { path: path.clone(), source },
        _ => Store::Generic { store: "object store", source },
    }
}

/// A syntax error at its line and column: the parser writes them at the end of its text.
fn syntax(text: &str) -> Error {
    let text = text.strip_prefix("sql parser error: ").unwrap_or(text);
    let Some((what, place)) = text.rsplit_once(" at Line: ") else {
        return Error::unfit(text).at(PLACE);
    };
    Error::unfit(what).at(format!("{PLACE}:{}", place.replace(", Column: ", ":")))
}

fn unknown_column(error: &SchemaError) -> Error {
    let SchemaError::FieldNotFound { field, valid_fields } = error else {
        return Error::unfit(error.to_string()).at(PLACE);
    };
    let qualifies = |valid: &&Column| field.relation.is_none() || field.relation == valid.relation;
    let mut known: Vec<String> =
        valid_fields.iter().filter(qualifies).map(|valid| valid.name.clone()).collect();
    known.dedup();
    Error::unfit(format!("no column is called `{}`", field.name)).at(PLACE).advise(suggestion(
        &field.name,
        &known,
        "columns",
    ))
}

/// The nearest known name, if one is near, and the known names.
fn suggestion(wanted: &str, known: &[String], what: &str) -> String {
    let distance = |name: &&String| strsim::damerau_levenshtein(wanted, name);
    let nearest = known.iter().min_by_key(distance);
    let near = |name: &&String| distance(name) <= wanted.chars().count().max(3) / 3;
    let listed = known.iter().take(NAMES_LISTED).cloned().collect::<Vec<_>>().join(", ");
    let more = if known.len() > NAMES_LISTED { ", …" } else { "" };
    match nearest.filter(near) {
        Some(name) => format!("did you mean `{name}`? {what}: {listed}{more}"),
        None => format!("{what}: {listed}{more}"),
    }
}

/// A month is a date here, and people write it as they do everywhere else.
fn advise_on_months(error: Error) -> Error {
    let text = error.to_string();
    match text.contains("Date32") && (text.contains("cast") || text.contains("Cast")) {
        true => error.advise("write a month as its first day: DATE '2025-01-01'"),
        false => error,
    }
}

/// The part of a message that speaks of the query. DataFusion takes a call that fits no function
/// for its own bug first, and lists every attempt.
fn to_the_point(message: &str) -> &str {
    let start = message.find("No function matches").unwrap_or(0);
    let end = message.find("Candidate functions:").unwrap_or(message.len());
    message.get(start..end).unwrap_or(message)
}

/// What went wrong with a value, without the value.
fn computing(error: &ArrowError) -> &'static str {
    match error {
        ArrowError::DivideByZero => "division by zero",
        ArrowError::ArithmeticOverflow(_) => "a number became too large",
        ArrowError::CastError(_) | ArrowError::ParseError(_) | ArrowError::InvalidArgumentError(_) => {
            "a value does not fit the type asked for"
        }
        _ => "a value cannot be computed",
    }
}

/// The text with whatever may be a value cut out: all from the first quote to the last, and words
/// with digits in them.
fn without_values(text: &str) -> String {
    let quotes = ['\'', '"', '`'];
    let unquoted = match (text.find(quotes), text.rfind(quotes)) {
        (Some(first), Some(last)) if first < last => {
            format!("{}… {}", &text[..first], &text[last + 1..])
        }
        _ => text.to_string(),
    };
    let has_digit = |word: &str| word.chars().any(|character| character.is_ascii_digit());
    let kept = unquoted.split_whitespace().map(|word| if has_digit(word) { "…" } else { word });
    kept.collect::<Vec<_>>().join(" ")
}
