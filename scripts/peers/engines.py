"""The peers' side of scripts/compare-peers: one function for each engine, one process for each run.

    python engines.py ENGINE LOGS SELLERS OUT THREADS

ENGINE   one of ENGINES; with the suffix -unsorted for an answer in any order
LOGS     folder of raw logs, *.tsv: user_id, timestamp, seller, amount; no header, nothing quoted
SELLERS  Parquet table of every printed seller in the logs and its category
OUT      an empty folder for the answer as zstd Parquet: month DATE, user_id BIGINT,
         category VARCHAR, amount DECIMAL(18,2), transaction_count BIGINT
THREADS  the number of threads the engine may use

Each engine has the settings that were fastest on two million rows and two threads; settings that did
not help are left out. Money is exact everywhere: decimals, never floats. All timestamps of generated
logs are in UTC and start with YYYY-MM, so a query may take the month from the text if that is fastest.
"""

import os
import sys


ORDER = "ORDER BY month, user_id, category"


def duckdb(logs, sellers, out, threads, is_sorted):
    import duckdb

    connection = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})
    connection.execute(f"""
        COPY (
            SELECT month, user_id, category, amount::DECIMAL(18, 2) AS amount, transaction_count
            FROM (
                SELECT date_trunc('month', timestamp)::DATE AS month, user_id, category,
                       sum(amount) AS amount, count(*) AS transaction_count
                FROM read_csv('{logs}/*.tsv', auto_detect = false, header = false, delim = '\t',
                              quote = '', escape = '', columns = {{
                                  'user_id': 'BIGINT', 'timestamp': 'TIMESTAMP',
                                  'seller': 'VARCHAR', 'amount': 'DECIMAL(18, 2)'}})
                JOIN '{sellers}' USING (seller)
                GROUP BY ALL
            )
            {ORDER if is_sorted else ""}
        ) TO '{out}/part.parquet' (FORMAT parquet, COMPRESSION zstd)""")


def polars(logs, sellers, out, threads, is_sorted):
    os.environ["POLARS_MAX_THREADS"] = str(threads)  # read once, when the package is loaded
    import polars as pl

    transactions = pl.scan_csv(
        f"{logs}/*.tsv",
        has_header=False,
        separator="\t",
        quote_char=None,
        schema={"user_id": pl.Int64, "timestamp": pl.String, "seller": pl.String, "amount": pl.Decimal(18, 2)},
    )
    categories = pl.read_parquet(sellers, columns=["category"])["category"].unique().sort()
    known = pl.scan_parquet(sellers).with_columns(pl.col("category").cast(pl.Enum(categories)))
    # Months as numbers and categories as an Enum: short keys are faster to group and sort than text.
    year = pl.col("timestamp").str.slice(0, 4).cast(pl.Int32)
    month = pl.col("timestamp").str.slice(5, 2).cast(pl.Int32)
    groups = (
        transactions.join(known, on="seller", maintain_order="none")
        .group_by((year * 12 + month - 1).alias("month"), "user_id", "category")
        .agg(pl.col("amount").sum(), pl.len().cast(pl.Int64).alias("transaction_count"))
    )
    (
        (groups.sort("month", "user_id", "category") if is_sorted else groups)
        .with_columns(
            pl.date(pl.col("month") // 12, pl.col("month") % 12 + 1, 1).alias("month"),
            pl.col("category").cast(pl.String),
            pl.col("amount").cast(pl.Decimal(18, 2)),
        )
        .sink_parquet(f"{out}/part.parquet", compression="zstd", row_group_size=122_880, engine="streaming")
    )


def chdb(logs, sellers, out, threads, is_sorted):
    import chdb

    # TSVRaw, because a backslash is an ordinary character. A LEFT join, because an ANY INNER join
    # would keep one transaction per seller; every seller has a category.
    chdb.query(f"""
        INSERT INTO FUNCTION file('{out}/part.parquet', Parquet)
        SELECT toDate32(concat(month, '-01')) AS month, user_id, category,
               CAST(amount AS Decimal(18, 2)) AS amount, CAST(transaction_count AS Int64) AS transaction_count
        FROM (
            SELECT substring(timestamp, 1, 7) AS month, user_id, category,
                   sum(amount) AS amount, count() AS transaction_count
            FROM file('{logs}/*.tsv', TSVRaw,
                      'user_id Int64, timestamp String, seller String, amount Decimal(18, 2)') AS transactions
            ANY LEFT JOIN file('{sellers}', Parquet, 'seller String, category String') AS sellers USING (seller)
            GROUP BY month, user_id, category
        )
        {ORDER if is_sorted else ""}
        SETTINGS max_threads = {threads}, output_format_parquet_compression_method = 'zstd'""")


def datafusion(logs, sellers, out, threads, is_sorted):
    import datafusion
    import pyarrow as pa

    # One table of all sellers, regardless of its size: otherwise every transaction is copied for the join.
    single = "datafusion.optimizer.hash_join_single_partition_threshold"
    config = (
        datafusion.SessionConfig()
        .with_target_partitions(threads)
        .with_batch_size(32_768)
        .set(single, str(1 << 40))
        .set(f"{single}_rows", str(1 << 40))
    )
    context = datafusion.SessionContext(config)
    schema = pa.schema([
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("timestamp", pa.string_view(), nullable=False),
        pa.field("seller", pa.string_view(), nullable=False),
        pa.field("amount", pa.decimal128(18, 2), nullable=False),
    ])
    # The reader requires a quote character; NUL is the only one that no seller contains.
    options = datafusion.CsvReadOptions(
        has_header=False, delimiter="\t", quote="\0", schema=schema, file_extension=".tsv")
    context.register_csv("transactions", logs, options=options)
    context.register_parquet("sellers", sellers)
    context.sql(f"""
        COPY (
            SELECT month, user_id, category, CAST(amount AS DECIMAL(18, 2)) AS amount, transaction_count
            FROM (
                SELECT CAST(concat(substr(timestamp, 1, 7), '-01') AS DATE) AS month, user_id, category,
                       sum(amount) AS amount, count(*) AS transaction_count
                FROM transactions JOIN sellers USING (seller)
                GROUP BY 1, 2, 3
            )
            {ORDER if is_sorted else ""}
        ) TO '{out}/part.parquet' STORED AS PARQUET OPTIONS ('compression' 'zstd(3)')""").collect()


ENGINES = {"duckdb": duckdb, "polars": polars, "chdb": chdb, "datafusion": datafusion}
UNSORTED = "-unsorted"

if __name__ == "__main__":
    engine, logs, sellers, out, threads = sys.argv[1:]
    is_sorted = not engine.endswith(UNSORTED)
    ENGINES[engine.removesuffix(UNSORTED)](logs, sellers, out, int(threads), is_sorted)
