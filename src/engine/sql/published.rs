//! One published table as DataFusion scans it.
//!
//! In: a fixed list of Parquet files with their month, row count and range of users.
//! Out: a scan over the files that can hold a row the query asks for, and no others.
//! Invariant: a file is left out only when its month or its range of users proves that no row of
//! it passes the filters; columns come in the published order, though the month stands in no file.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as PlanResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;
use url::{Position, Url};

use super::failure::planning_failed;
use super::pruning::{can_be_evaluated_now, of_months, within_ranges};
use super::reader::PartReaders;
use super::verify::Verifier;
use super::{LISTED_VALUES, PublishedFile, PublishedTable};
use crate::error::{Error, Result};

/// The column whose range is known for each file.
const USER_ID: &str = "user_id";

/// The files of a table with what is known of them, and how their columns are ordered.
#[derive(Debug)]
pub struct PublishedProvider {
    store: ObjectStoreUrl,
    /// As published.
    schema: SchemaRef,
    /// As scanned: the columns in the files, then the partition column.
    scanned: TableSchema,
    /// For each published column its place in the scanned schema.
    places: Vec<usize>,
    files: Vec<PartitionedFile>,
    /// The order of the rows of a file, and the order by its first column alone, which can be
    /// proved of several files in a row.
    orderings: Vec<LexOrdering>,
    verifier: Option<Arc<Verifier>>,
}

impl PublishedProvider {
    /// Checks that the description fits together; opens nothing.
    pub fn try_new(
        table: PublishedTable,
        store: &Url,
        verifier: Option<Arc<Verifier>>,
    ) -> Result<PublishedProvider> {
        let wrong = |what: String| Error::invariant(what).at(&table.name);
        let store = &store[..Position::BeforePath];
        let store = ObjectStoreUrl::parse(store).map_err(planning_failed)?;
        let schema = with_views(&table.schema);
        let scanned = scanned_schema(&schema, table.partition_column.as_deref()).map_err(wrong)?;
        let all = scanned.table_schema();
        let place = |field: &FieldRef| all.index_of(field.name());
        let places = schema.fields().iter().map(place).collect::<Result<_, _>>();
        let places = places.map_err(|error| wrong(error.to_string()))?;
        let orderings = orderings(all, &table.sorted_by).map_err(wrong)?;
        let files = table.files.iter().map(|file| known_file(file, &scanned));
        let files = files.collect::<Result<_, String>>().map_err(wrong)?;
        Ok(PublishedProvider { store, schema, scanned, places, files, orderings, verifier })
    }

    fn partition(&self) -> Option<&FieldRef> {
        self.scanned.table_partition_cols().first()
    }

    /// Whether the month of a file alone decides the filter for all its rows.
    fn decided_by_month(&self, filter: &Expr) -> bool {
        let Some(partition) = self.partition() else {
            return false;
        };
        let columns = filter.column_refs();
        !columns.is_empty()
            && columns.iter().all(|column| column.name() == partition.name())
            && can_be_evaluated_now(filter)
    }

    /// The files that may hold rows which pass every filter.
    fn files_for(&self, session: &dyn Session, filters: &[Expr]) -> PlanResult<Vec<PartitionedFile>> {
        let usable = filters.iter().filter(|filter| can_be_evaluated_now(filter)).cloned();
        let (by_month, by_range): (Vec<Expr>, Vec<Expr>) =
            usable.partition(|filter| self.decided_by_month(filter));
        let mut files = self.files.clone();
        if let (Some(filter), Some(partition)) = (conjunction(by_month), self.partition()) {
            files = of_months(session, files, filter, partition)?;
        }
        if let Some(filter) = conjunction(by_range) {
            files = within_ranges(session, files, filter, self.scanned.table_schema())?;
        }
        Ok(files)
    }

    /// Files dealt out to as many groups as there are threads, in the order of their rows where
    /// that can be proved of every group.
    fn dealt(&self, files: Vec<PartitionedFile>, threads: usize) -> (Vec<FileGroup>, Vec<LexOrdering>) {
        if let Some(by_first_column) = self.orderings.last() {
            let ordered = FileScanConfig::split_groups_by_statistics_with_target_partitions(
                self.scanned.table_schema(),
                &[FileGroup::new(files.clone())],
                by_first_column,
                threads,
            );
            // Files of unknown range give an error, more months than threads too many groups.
            if let Ok(groups) = ordered
                && groups.len() <= threads
            {
                return (groups, self.orderings.clone());
            }
        }
        (FileGroup::new(files).split_files(threads), Vec::new())
    }

    /// How the files are read: only the row groups and pages that can hold a row asked for, and
    /// of those the columns of the filter before the others.
    fn reader(&self, session: &dyn Session) -> PlanResult<Arc<ParquetSource>> {
        let runtime = session.runtime_env();
        let store = runtime.object_store(&self.store)?;
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let mut options = session.table_options().parquet.clone();
        options.global.max_in_list_size = LISTED_VALUES;
        let reader = ParquetSource::new(self.scanned.clone())
            .with_table_parquet_options(options)
            .with_pushdown_filters(true)
            .with_reorder_filters(true)
            .with_parquet_file_reader_factory(Arc::new(PartReaders::new(store, footers)));
        Ok(Arc::new(reader))
    }
}

#[async_trait]
impl TableProvider for PublishedProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.decided_by_month(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..self.places.len()).collect(),
        };
        let files = self.files_for(session, filters)?;
        if let Some(verifier) = &self.verifier {
            let store = session.runtime_env().object_store(&self.store)?;
            verifier
                .hold(&store, files.iter().map(|file| file.object_meta.location.clone()).collect())
                .await?;
        }
        if files.is_empty() {
            let schema = self.schema.project(&wanted)?;
            return Ok(Arc::new(EmptyExec::new(Arc::new(schema))));
        }
        let known = files.iter().filter_map(|file| file.statistics.as_deref());
        let statistics = Statistics::try_merge_iter(known, self.scanned.table_schema())?;
        let (groups, orderings) = self.dealt(files, session.config().target_partitions());
        let places = wanted.iter().map(|&column| self.places[column]).collect();
        let scan = FileScanConfigBuilder::new(self.store.clone(), self.reader(session)?)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_output_ordering(orderings)
            .with_projection_indices(Some(places))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// The schema with text as views of the pages read, which need not be copied to be compared.
fn with_views(schema: &Schema) -> SchemaRef {
    let view = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View))
        }
        _ => field.clone(),
    };
    let fields: Vec<FieldRef> = schema.fields().iter().map(view).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The columns in the files, then the partition column.
fn scanned_schema(schema: &Schema, partition: Option<&str>) -> Result<TableSchema, String> {
    let is_partition = |field: &FieldRef| Some(field.name().as_str()) == partition;
    let (apart, stored): (Vec<FieldRef>, Vec<FieldRef>) =
        schema.fields().iter().cloned().partition(is_partition);
    if let Some(name) = partition
        && !apart.iter().any(|field| field.data_type() == &DataType::Date32)
    {
        return Err(format!("the partition column `{name}` is not a date"));
    }
    let stored = Schema::new_with_metadata(stored, schema.metadata().clone());
    Ok(TableSchema::builder(Arc::new(stored)).with_table_partition_cols(apart).build())
}

/// The order by all columns the rows of a file are sorted by, then by the first of them alone.
fn orderings(scanned: &Schema, sorted_by: &[String]) -> Result<Vec<LexOrdering>, String> {
    let ascending = |name: &String| {
        let place = scanned.index_of(name).map_err(|error| error.to_string())?;
        Ok(PhysicalSortExpr::new_default(Arc::new(Column::new(name, place))))
    };
    let sorted = sorted_by.iter().map(ascending).collect::<Result<Vec<_>, String>>()?;
    let mut lengths = vec![sorted.len(), 1];
    lengths.dedup();
    Ok(lengths
        .into_iter()
        .filter_map(|length| LexOrdering::new(sorted.iter().take(length).cloned()))
        .collect())
}

/// A file with its month and statistics attached.
fn known_file(file: &PublishedFile, scanned: &TableSchema) -> Result<PartitionedFile, String> {
    let mut partitioned = PartitionedFile::new_from_meta(ObjectMeta {
        location: file.path.clone(),
        last_modified: chrono::DateTime::UNIX_EPOCH,
        size: file.size_bytes,
        e_tag: None,
        version: None,
    });
    if !scanned.table_partition_cols().is_empty() {
        let month = file.month.ok_or_else(|| format!("`{}` belongs to no month", file.path))?;
        partitioned.partition_values = vec![ScalarValue::Date32(Some(month.first_day()))];
    }
    Ok(partitioned.with_statistics(Arc::new(statistics(file, scanned.file_schema()))))
}

/// What is known of the columns in a file without opening it.
fn statistics(file: &PublishedFile, stored: &Schema) -> Statistics {
    let mut statistics = Statistics::new_unknown(stored);
    if let Some(rows) = file.rows {
        statistics.num_rows = Precision::Exact(rows as usize);
    }
    for (column, field) in statistics.column_statistics.iter_mut().zip(stored.fields()) {
        if !field.is_nullable() {
            column.null_count = Precision::Exact(0);
        }
        if let Some((smallest, largest)) = file.user_id_range
            && field.name() == USER_ID
        {
            column.min_value = Precision::Exact(ScalarValue::Int64(Some(smallest)));
            column.max_value = Precision::Exact(ScalarValue::Int64(Some(largest)));
        }
    }
    statistics
}
