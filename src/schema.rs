//! Every data set's contract, and the Arrow schema of every table that is written.
//!
//! In: the name of a data set. Out: its contract as TOML text, or its columns.
//! Invariant: contracts and schemas say the same; a test compares them column by column.

use crate::limits::ROW_GROUP_ROWS;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use std::sync::Arc;

/// The contracts of `schemas/`, which travel inside the program.
const CONTRACTS: [(&str, &str); 21] = [
    ("transaction_log", include_str!("../schemas/transaction_log.toml")),
    ("categories", include_str!("../schemas/categories.toml")),
    ("seller_dictionary", include_str!("../schemas/seller_dictionary.toml")),
    ("seller_aliases", include_str!("../schemas/seller_aliases.toml")),
    ("seller_keywords", include_str!("../schemas/seller_keywords.toml")),
    ("category_rules", include_str!("../schemas/category_rules.toml")),
    ("category_overrides", include_str!("../schemas/category_overrides.toml")),
    ("users", include_str!("../schemas/users.toml")),
    ("budget_template", include_str!("../schemas/budget_template.toml")),
    ("budget_overrides", include_str!("../schemas/budget_overrides.toml")),
    ("monthly_spending", include_str!("../schemas/monthly_spending.toml")),
    ("transactions", include_str!("../schemas/transactions.toml")),
    ("crowd_votes", include_str!("../schemas/crowd_votes.toml")),
    ("budget_alerts", include_str!("../schemas/budget_alerts.toml")),
    ("budget_recommendations", include_str!("../schemas/budget_recommendations.toml")),
    ("contacts", include_str!("../schemas/contacts.toml")),
    ("deliveries", include_str!("../schemas/deliveries.toml")),
    ("dead_letters", include_str!("../schemas/dead_letters.toml")),
    ("rejects", include_str!("../schemas/rejects.toml")),
    ("ledger", include_str!("../schemas/ledger.toml")),
    ("run_manifest", include_str!("../schemas/run_manifest.toml")),
];

/// The names of all data sets, inputs first.
pub fn datasets() -> impl Iterator<Item = &'static str> {
    CONTRACTS.iter().map(|contract| contract.0)
}

/// The contract of a data set, as TOML.
pub fn contract(dataset: &str) -> Option<&'static str> {
    CONTRACTS.iter().find(|contract| contract.0 == dataset).map(|contract| contract.1)
}

/// Money in published tables.
pub const AMOUNT: DataType = DataType::Decimal128(18, 2);

/// Totals of money over a whole object, which may outgrow [`AMOUNT`].
pub const TOTAL: DataType = DataType::Decimal128(38, 2);

/// Shares, as exact millionths.
pub const SHARE: DataType = DataType::Decimal128(9, 6);

/// Instants, in the one zone that Delta Lake has.
pub fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

pub fn monthly_spending() -> SchemaRef {
    table([
        required("month", DataType::Date32),
        required("user_id", DataType::Int64),
        required("category", DataType::Utf8),
        required("amount", AMOUNT),
        required("transaction_count", DataType::Int64),
    ])
}

/// The columns of a part of `monthly_spending` as the program holds them: each category once, and
/// cents in 64 bits. In the file they are those of [`monthly_spending`] but for the month, which
/// stands in the path.
pub fn spending_in_memory() -> SchemaRef {
    let category = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    table([
        required("user_id", DataType::Int64),
        required("category", category),
        required("amount", DataType::Decimal64(18, 2)),
        required("transaction_count", DataType::Int64),
    ])
}

pub fn transactions() -> SchemaRef {
    table([
        required("month", DataType::Date32),
        required("user_id", DataType::Int64),
        required("occurred_at", instant()),
        required("seller", DataType::Utf8),
        required("amount", AMOUNT),
        required("category", DataType::Utf8),
        required("category_source", DataType::Utf8),
        optional("matched", DataType::Utf8),
        required("source_object", DataType::Utf8),
        required("line", DataType::Int64),
    ])
}

pub fn crowd_votes() -> SchemaRef {
    table([
        required("seller", DataType::Utf8),
        required("category", DataType::Utf8),
        required("votes", DataType::Int64),
        required("seller_votes", DataType::Int64),
        required("decided", DataType::Boolean),
        required("latest_set_at", instant()),
    ])
}

pub fn budget_alerts() -> SchemaRef {
    table([
        required("month", DataType::Date32),
        required("alert_id", DataType::Utf8),
        required("user_id", DataType::Int64),
        required("category", DataType::Utf8),
        required("sequence", DataType::Int64),
        required("event", DataType::Utf8),
        required("level", DataType::Utf8),
        required("threshold", SHARE),
        optional("reached", SHARE),
        required("spent", AMOUNT),
        required("budget", AMOUNT),
        required("rolled_over", AMOUNT),
        required("budget_source", DataType::Utf8),
        required("run_id", DataType::Utf8),
    ])
}

pub fn budget_recommendations() -> SchemaRef {
    table([
        required("month", DataType::Date32),
        required("user_id", DataType::Int64),
        required("category", DataType::Utf8),
        required("amount", AMOUNT),
        required("basis", DataType::Utf8),
        optional("template_amount", AMOUNT),
        optional("history_amount", AMOUNT),
        required("history_months", DataType::Int64),
    ])
}

pub fn deliveries() -> SchemaRef {
    settled_messages("status")
}

pub fn dead_letters() -> SchemaRef {
    settled_messages("reason")
}

/// A message that nobody has to send any more, and what became of it.
fn settled_messages(outcome: &str) -> SchemaRef {
    table([
        required("message_id", DataType::Utf8),
        required("channel", DataType::Utf8),
        optional("user_id", DataType::Int64),
        required("alerts_run_id", DataType::Utf8),
        required("alerts", DataType::Int64),
        required(outcome, DataType::Utf8),
        required("attempts", DataType::Int64),
        required("settled_at", instant()),
    ])
}

pub fn rejects() -> SchemaRef {
    table([
        required("source_object", DataType::Utf8),
        required("line", DataType::Int64),
        required("byte_offset", DataType::Int64),
        required("column", DataType::Int32),
        required("reason", DataType::Utf8),
        required("raw", DataType::Binary),
    ])
}

pub fn ledger() -> SchemaRef {
    table([
        required("source_object", DataType::Utf8),
        required("etag", DataType::Utf8),
        required("size_bytes", DataType::Int64),
        required("content_hash", DataType::Utf8),
        required("status", DataType::Utf8),
        optional("status_reason", DataType::Utf8),
        required("run_id", DataType::Utf8),
        required("rows_read", DataType::Int64),
        required("rows_accepted", DataType::Int64),
        required("rows_rejected", DataType::Int64),
        required("rows_blank", DataType::Int64),
        required("positive", TOTAL),
        required("negative", TOTAL),
        required("months", DataType::Utf8),
        required("rows_outside", DataType::Int64),
        required("duplicate_allowed", DataType::Boolean),
    ])
}

/// Hashes of some lines, beside a run: a file of the program's own, whose form may change.
pub fn line_samples() -> SchemaRef {
    table([
        required("source_object", DataType::Utf8),
        required("level", DataType::Int32),
        required("line_hash", DataType::Int64),
    ])
}

/// How hard Parquet objects are compressed: as fast as zstd gets.
pub const ZSTD_LEVEL: i32 = 1;

/// How every Parquet object of ours is written that the library encodes: zstd, statistics per row group
/// and page.
pub fn writer_properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).expect("a level of zstd")))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
}

/// What parts of `monthly_spending` say of themselves: sorted by user and category. Their columns are
/// encoded by hand, and say how.
pub fn spending_properties() -> WriterPropertiesBuilder {
    let sorting = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
    writer_properties().set_sorting_columns(Some(vec![sorting(0), sorting(1)]))
}

fn required(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn table<const COLUMNS: usize>(fields: [Field; COLUMNS]) -> SchemaRef {
    Arc::new(Schema::new(fields.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::{AlertEvent, AlertLevel};
    use crate::domain::budget::BudgetSource;
    use crate::domain::category::CategorySource;
    use crate::domain::recommend::Basis;
    use crate::domain::transaction::RejectReason;
    use crate::input::contacts::Channel;
    use serde::Deserialize;
    use std::collections::BTreeSet;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Contract {
        name: String,
        form: String,
        description: String,
        #[serde(default)]
        partitioned_by: Vec<String>,
        #[serde(default)]
        sorted_by: Vec<String>,
        column: Vec<Column>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Column {
        name: String,
        #[serde(rename = "type")]
        kind: String,
        nullable: bool,
        meaning: String,
        unit: Option<String>,
        #[serde(default)]
        values: Vec<String>,
    }

    fn parsed(dataset: &str) -> Contract {
        toml::from_str(contract(dataset).unwrap()).unwrap_or_else(|e| panic!("{dataset}: {e}"))
    }

    fn sql_name(kind: &DataType) -> String {
        match kind {
            DataType::Date32 => "DATE".into(),
            DataType::Int64 => "BIGINT".into(),
            DataType::Int32 => "INT".into(),
            DataType::Utf8 => "VARCHAR".into(),
            DataType::Boolean => "BOOLEAN".into(),
            DataType::Binary => "BINARY".into(),
            DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
            kind if *kind == instant() => "TIMESTAMP(us, UTC)".into(),
            other => panic!("no contract names {other}"),
        }
    }

    #[test]
    fn every_contract_is_complete() {
        for dataset in datasets() {
            let contract = parsed(dataset);
            assert_eq!(contract.name, dataset);
            assert!(!contract.form.is_empty() && !contract.description.is_empty());
            let names: BTreeSet<&str> = contract.column.iter().map(|c| c.name.as_str()).collect();
            assert_eq!(names.len(), contract.column.len(), "{dataset} names a column twice");
            for name in contract.partitioned_by.iter().chain(&contract.sorted_by) {
                assert!(names.contains(name.as_str()), "{dataset} has no column {name}");
            }
            for column in &contract.column {
                assert!(column.meaning.ends_with('.'), "{dataset}: {}", column.name);
                let is_money = column.kind.starts_with("DECIMAL");
                assert!(!is_money || column.unit.is_some(), "{dataset}: {} of what?", column.name);
            }
        }
    }

    #[test]
    fn contracts_and_arrow_schemas_say_the_same() {
        for (dataset, schema) in [
            ("monthly_spending", monthly_spending()),
            ("transactions", transactions()),
            ("crowd_votes", crowd_votes()),
            ("budget_alerts", budget_alerts()),
            ("budget_recommendations", budget_recommendations()),
            ("deliveries", deliveries()),
            ("dead_letters", dead_letters()),
            ("rejects", rejects()),
            ("ledger", ledger()),
        ] {
            let said: Vec<_> =
                parsed(dataset).column.into_iter().map(|c| (c.name, c.kind, c.nullable)).collect();
            let written: Vec<_> = schema
                .fields()
                .iter()
                .map(|field| (field.name().clone(), sql_name(field.data_type()), field.is_nullable()))
                .collect();
            assert_eq!(said, written, "{dataset}");
        }
    }

    #[test]
    fn contracts_list_the_words_of_the_domain() {
        let values = |dataset: &str, column: &str| {
            let found = parsed(dataset).column.into_iter().find(|c| c.name == column);
            found.unwrap().values
        };
        assert_eq!(values("rejects", "reason"), RejectReason::ALL.map(RejectReason::name));
        for dataset in ["contacts", "deliveries", "dead_letters"] {
            assert_eq!(values(dataset, "channel"), Channel::ALL.map(Channel::name));
        }
        assert_eq!(values("budget_recommendations", "basis"), Basis::ALL.map(Basis::name));
        assert_eq!(values("budget_alerts", "event"), AlertEvent::ALL.map(AlertEvent::name));
        assert_eq!(values("budget_alerts", "level"), AlertLevel::ALL.map(AlertLevel::name));
        assert_eq!(values("budget_alerts", "budget_source"), BudgetSource::ALL.map(BudgetSource::name));
        let sources = CategorySource::ALL.map(CategorySource::name);
        assert_eq!(values("transactions", "category_source"), sources);
        assert_eq!(values("categories", "kind"), ["spend", "income", "transfer", "ignore"]);
    }
}
